"""Time a trained network in torch and as exported files, all in one process, in turn.

Each way predicts the same images, one after the other and round by round, so that what else the machine does falls on
all of them; what is printed are medians and their ratios. Run: ``python benchmarks/deploy.py
runs/NAME/version_0/checkpoints/last.ckpt path/to/images``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table

from ocrnet_pl import OCRNet
from ocrnet_pl.export import raw
from ocrnet_pl.export.files import onnx_model, write_onnx
from ocrnet_pl.export.half import half_graph
from ocrnet_pl.export.int8 import Int8
from ocrnet_pl.export.whole import whole_program
from ocrnet_pl.imaging.folders import find_images
from ocrnet_pl.imaging.geometry import letterbox_image
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.runtime import Model
from ocrnet_pl.runtime.sessions import open_session


def seconds(way: Callable[[Any], object], inputs: list[Any]) -> float:
    """Return the processor time per input on one thread, which waiting for other programs does not lengthen."""
    started = time.process_time()
    for each in inputs:
        way(each)
    return (time.process_time() - started) / len(inputs)


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=16, help="Number of images.")
    parser.add_argument("--rounds", type=int, default=7, help="Number of times that each way predicts them.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = OCRNet.from_checkpoint(options.checkpoint)
    fused = network.fuse()
    images = [read_image(path, channels=network.in_channels) for path in find_images(options.images).paths]
    images = images[: options.count]
    boxed = [letterbox_image(image, network.input_size)[0][None] for image in images]
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    plain = [each.numpy() for each in boxed]
    with tempfile.TemporaryDirectory() as folder:
        # The network is exported once, for all files.
        graph = raw.network_graph(network)
        # All layers in int8: what `export` puts back into float32 depends on the figures.
        int8 = Int8(graph, plain)
        graphs = {
            "ONNX": graph,
            "ONNX fp16": half_graph(graph),
            "ONNX int8": int8.graph([layer.name for layer in int8.layers]),
        }
        ways: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
            "network, torch": (network, boxed),
            "network, torch, fused": (fused, boxed),
        }
        for name, made in graphs.items():
            alone = Path(folder, f"alone {name}.onnx")
            onnx.save(made, alone)
            ways[f"network, {name}"] = (open_session(alone, threads=1).run, plain)
        ways["image to prediction, torch"] = (network.predict, images)
        for name, made in graphs.items():
            path = Path(folder, f"whole {name}.onnx")
            write_onnx(onnx_model(network, False, made), path, lambda _: None)
            ways[f"image to prediction, {name}"] = (Model(path, threads=1), arrays)
        path = Path(folder, "whole.pt2")
        with raw.quiet():
            torch.export.save(whole_program(network), path)
        tensors = [torch.from_numpy(each)[None] for each in arrays]
        ways["image to prediction, torch.export"] = (torch.export.load(path).module(), tensors)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, (way, inputs) in ways.items():
                times[name].append(seconds(way, inputs))
    medians = {name: statistics.median(values) for name, values in times.items()}
    size = " x ".join(map(str, network.input_size))
    table = Table("way", "ms per image", "ratio", title=f"{len(images)} images, input {size}, one thread")
    for name, value in medians.items():
        table.add_row(name, f"{value * 1e3:.1f}", f"{value / medians['network, torch']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
