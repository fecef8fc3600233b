"""Parts of exported graphs on their own, and what they must give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from ocrnet_pl.export.decoding import Rows
from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.export.graph_module import GraphModule
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.export.pixels import class_map
from ocrnet_pl.export.probabilities import probability_maps
from ocrnet_pl.export.whole import add_results
from ocrnet_pl.inference.decode import NO_SCORE, Detections
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.structures import Taxonomy


class TorchSession:
    """A graph that torch runs, with the methods of onnxruntime's session.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph, self._module = graph, GraphModule(graph).eval()

    def get_outputs(self) -> list[SimpleNamespace]:
        """Return the outputs, of which each has a name."""
        return [SimpleNamespace(name=name) for name in self._graph.output_names]

    @torch.inference_mode()
    def run(self, names: list[str] | None, given: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return some outputs, or all, for inputs by name."""
        found = self._module(*(torch.from_numpy(given[name]) for name in self._graph.input_names))
        return [found[name].numpy() for name in names or self._graph.output_names]


RUNTIMES = ("onnxruntime", "torch")
"""What runs a graph: each test of its parts is made with both."""


def session(graph: Graph, runtime: str = "onnxruntime") -> onnxruntime.InferenceSession | TorchSession:
    """Return a graph, ready to run on one thread."""
    if runtime == "torch":
        return TorchSession(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = graph.model("test", {}).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def fusion_session(
    taxonomy: Taxonomy,
    settings: FusionSettings,
    count: int,
    calibration: ScoreCalibration | None = None,
    runtime: str = "onnxruntime",
) -> onnxruntime.InferenceSession | TorchSession:
    """Return the fusion of ``count`` boxes per image with the logits of its pixels."""
    graph = Graph()
    boxes = graph.input("boxes_in", np.float32, ("batch", count, 4))
    scores = graph.input("scores_in", np.float32, ("batch", count))
    labels = graph.input("labels_in", np.int64, ("batch", count))
    logits = graph.input("logits", np.float32, ("batch", taxonomy.num_semantic, "height", "width"))
    rows = Rows(boxes, scores, labels, scores > NO_SCORE / 2, count)
    frame = identity_frame(logits)
    pixels = class_map(graph, logits, 1, taxonomy.num_semantic, frame)
    add_results(graph, rows, pixels, frame, taxonomy, settings, probability_maps(calibration, True, taxonomy))
    return session(graph, runtime)


def identity_frame(logits: Value) -> Frame:
    """Return the frame of images that are the input themselves."""
    batch, height, width = (logits.length(axis) for axis in (0, 2, 3))
    return Frame(batch, height, width, height, width)


def padded(found: list[Detections], count: int) -> dict[str, NDArray[Any]]:
    """Return the boxes of several images as rows of one array, those that are not used empty."""
    boxes, scores = np.zeros((len(found), count, 4), np.float32), np.full((len(found), count), NO_SCORE, np.float32)
    labels = np.zeros((len(found), count), np.int64)
    for image, detections in enumerate(found):
        used = len(detections.scores)
        boxes[image, :used], scores[image, :used] = detections.boxes.numpy(), detections.scores.numpy()
        labels[image, :used] = detections.labels.numpy()
    return {"boxes_in": boxes, "scores_in": scores, "labels_in": labels}


def logits_of(probability: torch.Tensor) -> NDArray[Any]:
    """Return logits whose softmax these probabilities are."""
    return probability.log().numpy()
