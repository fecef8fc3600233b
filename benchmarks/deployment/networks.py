"""Networks as torch runs them and as files, this project's and Ultralytics'."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from encoders import preset
from joint_speed import TAXONOMY, build
from rich.table import Table
from torch import Tensor, nn

from deployment.timing import conditions, medians
from ocrnet_pl.export.raw import network_graph, quiet
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.runtime.sessions import open_session

PEERS = {"YOLO11n": "yolo11n.yaml", "YOLO26n-sem": "yolo26n-sem.yaml"}
"""What one would run one after the other for boxes and pixels, by the name of Ultralytics' description."""
OWN: dict[str, Callable[[int], OCRNet]] = {
    "nano": lambda size: preset("nano", size),
    "efficientnet_lite0": lambda size: build("efficientnet_lite0", True, True, size, separable=True),
}
"""This project's networks for both, for images of a size: a preset, and default parts with the pixels' decoder for
CPUs."""
GOALS = {"nano": 0.60, "efficientnet_lite0": 0.75}
"""The share of the peers' time that each is to take at most."""


class Timed(NamedTuple):
    """One network on one input, in both runtimes.

    Attributes:
        torch: Runs it in torch.
        onnx: Runs it in onnxruntime.
    """

    torch: Callable[[], object]
    onnx: Callable[[], object]


def missing_peers() -> str | None:
    """Return why there is nothing to compare with, or None."""
    if importlib.util.find_spec("ultralytics") is None:
        return "ultralytics is not installed; it is under the AGPL and not a dependency of this project"
    return None


def compare_networks(
    sizes: Sequence[int], batches: Sequence[int], rounds: int, threads: int, names: Sequence[str]
) -> Table:
    """Time the networks alone, without what follows them, with random weights and batch norms folded.

    Args:
        sizes: Sides of the images in pixels.
        batches: Numbers of images that are computed together.
        rounds: Number of rounds.
        threads: Number of threads.
        names: Which of ``OWN``.
    """
    lacking = missing_peers()
    peers = {} if lacking else PEERS
    head = ["", "size", "batch", *peers, *names, *(f"{name} / both" for name in names if peers)]
    table = Table(*head, title=f"networks alone, ms per image; {conditions(rounds, threads)}")
    for size in sizes:
        networks = {name: OWN[name](size) for name in names}
        for batch in batches:
            images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
            with tempfile.TemporaryDirectory() as folder:
                made = {name: _peer(file, images, Path(folder), threads) for name, file in peers.items()}
                made |= {name: _own(network, images, Path(folder), threads) for name, network in networks.items()}
                for runtime in ("torch", "onnx"):
                    ways = {name: getattr(timed, runtime) for name, timed in made.items()}
                    spent = {name: value / batch for name, value in medians(ways, rounds, threads).items()}
                    ratios = []
                    if peers:
                        both = sum(spent[name] for name in peers)
                        ratios = [f"{spent[name] / both:.2f} (goal {GOALS[name]:.2f})" for name in names]
                    figures = [f"{value * 1e3:.1f}" for value in spent.values()]
                    table.add_row({"torch": "torch", "onnx": "ONNX"}[runtime], str(size), str(batch), *figures, *ratios)
    return table


def _own(network: OCRNet, images: Tensor, folder: Path, threads: int) -> Timed:
    path = folder / "own.onnx"
    onnx.save(network_graph(network), path)
    return _timed(network.fuse(), images, path, threads)


def _peer(description: str, images: Tensor, folder: Path, threads: int) -> Timed:
    """Return a network of Ultralytics' with as many classes as this project's have, on scaled images, as it takes them.

    Its outputs are those that post-processing begins with: boxes and scores, or logits at its own stride.
    """
    from ultralytics import YOLO

    model = YOLO(description)
    classes = TAXONOMY.num_semantic if model.task == "semantic" else TAXONOMY.num_detection
    network: Any = model._smart_load("model")(model.cfg, nc=classes, verbose=False)
    network = network.fuse(verbose=False).eval()
    scaled = images.float() / 255
    path = folder / description.replace(".yaml", ".onnx")
    # The first pass makes the grid, which would otherwise be part of the graph.
    network(scaled)
    with quiet(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(_First(network), (scaled,), path, opset_version=18, dynamo=False)
    return _timed(network, scaled, path, threads)


class _First(nn.Module):
    """The first output of a network, which is all that is wanted of it in evaluation mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        out = self.network(images)
        return out[0] if isinstance(out, tuple | list) else out


def _timed(network: nn.Module, images: Tensor, path: Path, threads: int) -> Timed:
    session = open_session(path, threads)
    path.unlink()
    return Timed(functools.partial(network, images), functools.partial(session.run, images.numpy()))
