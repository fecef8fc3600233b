"""Everything from an image to its prediction as one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.export.decoding import Rows, decode, in_images, without_rivals
from ocrnet_pl.export.fusing import fuse
from ocrnet_pl.export.graph import NETWORK, Graph, Value
from ocrnet_pl.export.graph_module import GraphModule
from ocrnet_pl.export.letterbox import Frame, letterbox
from ocrnet_pl.export.panoptic import SEGMENT_FIELDS, panoptic
from ocrnet_pl.export.pixels import ClassMap, class_map
from ocrnet_pl.export.probabilities import probability_maps, with_probabilities
from ocrnet_pl.export.raw import BATCH, RawNetwork, exported, network_graph
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Taxonomy

THRESHOLDS = "score_thresholds"
"""Name of the constant with the score, one for each detection class, below which candidates are dropped."""


def fusion_rules(network: OCRNet) -> FusionPostProcess:
    """Return the network's post-processing.

    Raises:
        ValueError: It is a class of which it is not known how to write it as a graph.
    """
    rules = network.postprocess
    if type(rules) is not FusionPostProcess:
        raise ValueError(
            f"model.postprocess: {type(rules).__name__} cannot be written into a file; export with --raw, which leaves "
            "the post-processing to the program that uses the file"
        )
    return rules


def score_thresholds(network: OCRNet) -> np.ndarray:
    """Return the score, float32 [K], below which candidates of each class are dropped."""
    return np.full(network.taxonomy.num_detection, fusion_rules(network).decode.score_threshold, np.float32)


class Around(NamedTuple):
    """How the network itself gets into a graph.

    Attributes:
        add: Adds it for its input, uint8 [B, C, h, w], and returns its outputs by name.
        candidates: The number of candidates and of detection classes; zeros without a detection decoder.
    """

    add: Callable[[Graph, Value], dict[str, Value]]
    candidates: tuple[int, int]


def inlined(model: onnx.ModelProto) -> Around:
    """Return how the graph of the network alone is taken into another one."""
    shapes = {out.name: tuple(side.dim_value for side in out.type.tensor_type.shape.dim) for out in model.graph.output}

    def add(graph: Graph, boxed: Value) -> dict[str, Value]:
        return dict(zip(shapes, graph.inline(model, {"images": boxed}), strict=True))

    _, candidates, classes = shapes.get("scores", (0, 0, 0))
    return Around(add, (candidates, classes))


def called(raw: RawNetwork) -> Around:
    """Return how a graph refers to a network that is no part of it, but a module that a program calls."""
    network = raw.network
    example = torch.zeros(1, network.in_channels, *network.input_size, dtype=torch.uint8)
    with torch.no_grad():
        scores = raw.outputs(example).scores

    def add(graph: Graph, boxed: Value) -> dict[str, Value]:
        return dict(zip(raw.names, graph.ops(NETWORK, [np.float32] * len(raw.names), boxed), strict=True))

    return Around(add, (0, 0) if scores is None else (scores.shape[1], scores.shape[2]))


def whole_graph(network: OCRNet, inside: Around) -> Graph:
    """Return the graph from images, uint8 [B, H, W, C], to predictions at their size.

    Args:
        network: The network, in evaluation mode, on the CPU, in float32.
        inside: How the network itself gets into the graph.

    Raises:
        ValueError: A part of the network cannot be written as a graph.
    """
    rules = fusion_rules(network)
    graph = Graph()
    images = graph.input("images", np.uint8, (BATCH, "height", "width", network.in_channels))
    boxed, frame = letterbox(graph, images, network.input_size, network.in_channels)
    results = inside.add(graph, boxed)
    rows: Rows | None = None
    pixels: ClassMap | None = None
    if "boxes" in results:
        thresholds = graph.named_constant(THRESHOLDS, score_thresholds(network))
        boxes, scores, size = results["boxes"], results["scores"], network.input_size
        rows = decode(graph, boxes, scores, inside.candidates, size, frame, thresholds, rules.decode)
        rows = rows._replace(boxes=in_images(graph, rows.boxes, frame))
        if rules.settings.agnostic_iou is not None:
            rows = without_rivals(graph, rows, rules.settings.agnostic_iou)
    if "logits" in results:
        assert network.segmentation is not None
        logits, temperature = results["logits"], rules.settings.temperature
        if temperature != 1:
            logits = logits / temperature
        pixels = class_map(graph, logits, network.segmentation.stride, network.taxonomy.num_semantic, frame)
    maps = probability_maps(rules.calibration, rows is not None and pixels is not None, network.taxonomy)
    add_results(graph, rows, pixels, frame, network.taxonomy, rules.settings, maps)
    return graph


def add_results(
    graph: Graph,
    rows: Rows | None,
    pixels: ClassMap | None,
    frame: Frame,
    taxonomy: Taxonomy,
    settings: FusionSettings,
    maps: NDArray[np.float32],
) -> None:
    """Add the outputs, after fusion if there are both boxes and pixels.

    Args:
        graph: The graph.
        rows: The boxes, in pixels of the images; None without a detection decoder.
        pixels: The pixels' classes; None without a segmentation decoder.
        frame: The size of the images.
        taxonomy: The categories.
        settings: How to merge boxes and pixels.
        maps: The maps of the classes' scores to probabilities, from
            :func:`~ocrnet_pl.export.probabilities.probability_maps`.
    """

    def as_map(values: Value, name: str, kind: type[np.generic]) -> None:
        shaped = values.to(kind).reshape(frame.batch, frame.height, frame.width)
        graph.output(shaped, name, (BATCH, "height", "width"))

    labels = None if pixels is None else pixels.labels
    fused = None
    if rows is not None and pixels is not None:
        fused = fuse(graph, rows, pixels, frame, taxonomy, settings)
        rows, labels = fused.rows, fused.labels
    row = None
    if rows is not None and not np.isnan(maps).all():
        rows, row = with_probabilities(graph, rows, maps)
    if fused is not None:
        as_map(fused.instances(row), "instances", np.int32)
        merged = panoptic(graph, fused, row, frame, settings.min_stuff_area, taxonomy)
        as_map(merged.segment, "panoptic", np.int32)
        shape = (BATCH, merged.length, len(SEGMENT_FIELDS))
        graph.output(merged.segments.to(np.int32), "segments", shape)
    if labels is not None:
        as_map(labels, "semantic", np.uint8)
    if rows is not None:
        graph.output(rows.boxes, "boxes", (BATCH, rows.length, 4))
        graph.output(rows.scores.at_least(0.0), "scores", (BATCH, rows.length))
        graph.output(rows.labels, "labels", (BATCH, rows.length))
        graph.output(rows.valid.to(np.int64).total(1), "count", (BATCH,))


def whole_model(network: OCRNet, metadata: dict[str, str], model: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """Return the graph of :func:`whole_graph` as a model with metadata.

    Args:
        network: The network, in evaluation mode, on the CPU, in float32.
        metadata: The metadata.
        model: The graph of the network alone; None to make it.
    """
    return whole_graph(network, inlined(model or network_graph(network))).model("ocrnet", metadata)


class WholeNetwork(GraphModule):
    """The graph of :func:`whole_graph`, run by torch, with folded batch norms.

    Args:
        network: The network, in evaluation mode, on the CPU, in float32.

    Raises:
        ValueError: A part of the network cannot be written as a graph.
    """

    def __init__(self, network: OCRNet) -> None:
        raw = RawNetwork(network.fuse()).eval().requires_grad_(False)
        super().__init__(whole_graph(network, called(raw)), raw)

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the predictions for images, uint8 [B, H, W, C], by the names of the outputs of an ONNX file."""
        return super().forward(images)


def whole_program(network: OCRNet) -> torch.export.ExportedProgram:
    """Return a network with all that is around it as a program, for any number of images of any size.

    Its one input is ``images``, uint8 [B, H, W, C]; it returns the outputs by name. Arguments and errors are those of
    :class:`WholeNetwork`.
    """
    height, width = network.input_size
    # Another size than that of the input, which must not be taken for a constant either.
    example = torch.zeros(2, height + 2, width + 5, network.in_channels, dtype=torch.uint8)
    return exported(WholeNetwork(network).eval(), example, (BATCH, "height", "width"))
