"""What a file does besides the network: letterbox, decoding, suppression and fusion of planted boxes."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from joint_speed import build
from numpy.typing import NDArray
from rich.table import Table

from deployment.networks import OWN
from deployment.timing import conditions, medians
from ocrnet_pl.export.graph import Graph
from ocrnet_pl.export.raw import BATCH, network_graph
from ocrnet_pl.export.whole import whole_model
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.runtime.sessions import open_session
from ocrnet_pl.structures import Taxonomy

TAXONOMIES = {
    2: Taxonomy.build(things=["nucleus"], stuff=["background"]),
    19: Taxonomy.build(
        things=["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"],
        stuff=[
            *("road", "sidewalk", "building", "wall", "fence", "pole"),
            *("traffic light", "traffic sign", "vegetation", "terrain", "sky"),
        ],
    ),
}
"""Taxonomies by their number of segmentation classes: those of nuclei and of Cityscapes."""
SIDES = {"small": 12, "large": 4}
"""By how much the sides of planted boxes are shorter than the image's: 100 have 0.7 or 6 times its area."""


def planted(network: OCRNet, count: int, part: int) -> onnx.ModelProto:
    """Return a network's graph that says, whatever it sees, that there are objects in random places.

    Their sure boxes are squares, their pixels the ellipses in these; the other pixels belong to one stuff class on the
    left and to another one, if there is one, on the right.

    Args:
        network: The network, which gives sizes and classes.
        count: Number of objects.
        part: How often the side of an object goes into that of the image.
    """
    assert network.segmentation is not None
    graph, taxonomy = Graph(), network.taxonomy
    (size, _), stride = network.input_size, network.segmentation.stride
    generator = np.random.default_rng(0)
    with torch.inference_mode():
        candidates = network(torch.zeros(1, 3, size, size, dtype=torch.uint8)).detection.scores.shape[1]
    low = generator.random((count, 2)) * size * (1 - 1 / part)
    boxes = np.zeros((candidates, 4), np.float32)
    boxes[:count] = np.concatenate((low, low + size / part), 1)
    scores = np.zeros((candidates, taxonomy.num_detection), np.float32)
    labels = np.arange(count) % taxonomy.num_detection
    scores[np.arange(count), labels] = np.linspace(0.95, 0.35, count)
    logits = _logits(boxes[:count], labels, taxonomy, size // stride, stride, generator)
    images = graph.input("images", np.uint8, (BATCH, 3, size, size))
    # Not a constant, of which the runtime would know all that follows.
    nothing = images.part(0, 1, 1).part(0, 1, 2).part(0, 1, 3).to(np.float32) * 0.0
    for name, value in (("boxes", boxes), ("scores", scores)):
        graph.output(nothing.reshape(-1, 1, 1) + graph.constant(value), name, (BATCH, *value.shape))
    graph.output(nothing + graph.constant(logits), "logits", (BATCH, *logits.shape))
    return graph.model("planted", {})


def _logits(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    taxonomy: Taxonomy,
    cells: int,
    stride: int,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    logits = generator.normal(size=(taxonomy.num_semantic, cells, cells)).astype(np.float32)
    stuff = [index for index, category in enumerate(taxonomy.semantic_categories) if not category.is_thing]
    logits[stuff[0], :, : cells // 2] += 6
    logits[stuff[-1], :, cells // 2 :] += 6
    place = (np.arange(cells) + 0.5) * stride
    for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
        across = (place - (left + right) / 2) / ((right - left) / 2)
        down = (place - (top + bottom) / 2) / ((bottom - top) / 2)
        inside = down[:, None] ** 2 + across[None] ** 2 < 1
        logits[:, inside] = generator.normal(size=(len(logits), inside.sum()))
        logits[taxonomy.detection_to_semantic[label], inside] += 6
    return logits


def share_of_the_rest(sizes: Sequence[int], count: int, rounds: int, threads: int, names: Sequence[str]) -> Table:
    """Time what a file does besides the network, at images of the input's size, beside the network.

    Args:
        sizes: Sides of the images in pixels.
        count: Number of boxes.
        rounds: Number of rounds.
        threads: Number of threads.
        names: Which of ``OWN`` the networks are.
    """
    columns = [f"share of {name}" for name in names]
    head = ["size", "classes", "boxes", "rest, ms", *(f"{name}, ms" for name in names), *columns]
    table = Table(*head, title=f"besides the network, ONNX, {count} boxes; {conditions(rounds, threads)}")
    for size in sizes:
        boxed = np.random.default_rng(0).integers(0, 256, (1, 3, size, size), np.uint8)
        plain = np.ascontiguousarray(boxed.transpose(0, 2, 3, 1))
        ways = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file.onnx")
            for name in names:
                onnx.save(network_graph(OWN[name](size)), path)
                ways[name] = functools.partial(open_session(path, threads).run, boxed)
            for classes, taxonomy in TAXONOMIES.items():
                network = build("mobilenetv4_conv_small", True, True, size, taxonomy)
                for boxes, part in SIDES.items():
                    onnx.save(whole_model(network, {}, planted(network, count, part)), path)
                    ways[f"{classes} {boxes}"] = functools.partial(open_session(path, threads).run, plain)
        spent = medians(ways, rounds, threads)
        for classes in TAXONOMIES:
            for boxes in SIDES:
                rest = spent[f"{classes} {boxes}"]
                shares = [f"{rest / spent[name]:.2f}" for name in names]
                figures = [f"{1e3 * spent[name]:.1f}" for name in names]
                table.add_row(str(size), str(classes), boxes, f"{1e3 * rest:.1f}", *figures, *shares)
    return table
