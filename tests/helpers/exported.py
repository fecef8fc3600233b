"""Parts of exported graphs on their own, and what they must give."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from ocrnet_pl.export.decoding import NO_SCORE, Rows
from ocrnet_pl.export.graph import Graph, Value
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.export.pixels import class_map
from ocrnet_pl.export.probabilities import probability_maps
from ocrnet_pl.export.whole import add_results
from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.structures import Taxonomy


def session(graph: Graph) -> onnxruntime.InferenceSession:
    """Return a graph, ready to run on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = graph.model("test", {}).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def fusion_session(
    taxonomy: Taxonomy, settings: FusionSettings, count: int, calibration: ScoreCalibration | None = None
) -> onnxruntime.InferenceSession:
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
    return session(graph)


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
