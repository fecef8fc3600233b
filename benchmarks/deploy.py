"""Time networks as torch runs them and as exported files, in turn within one process.

Each way computes the same images, round by round, so that what else the machine does falls on all of them; what is
printed are medians and their ratios. Four tables, of which ``--tables`` chooses some: ``networks`` are this project's
networks alone, with random weights, beside Ultralytics' YOLO11n and YOLO26n-sem one after the other, if ultralytics is
installed; ``rest`` is what an exported file does besides the network with 100 boxes; ``cuts`` are batches cut into
pieces; and ``checkpoint`` are all forms of a trained network on images of yours. Run: ``python benchmarks/deploy.py
runs/NAME/version_0/checkpoints/last.ckpt path/to/images``.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from deployment.afterwards import share_of_the_rest
from deployment.cuts import compare_cuts
from deployment.networks import OWN, compare_networks, missing_peers
from deployment.timing import conditions, medians
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

TABLES = ("networks", "rest", "cuts", "checkpoint")


def checkpoint_table(checkpoint: Path, folder: Path, count: int, rounds: int, threads: int) -> Table:
    """Time a trained network in all its forms on images.

    Args:
        checkpoint: The checkpoint.
        folder: The folder with images.
        count: Number of images.
        rounds: Number of rounds.
        threads: Number of threads.
    """
    network = OCRNet.from_checkpoint(checkpoint)
    fused = network.fuse()
    images = [read_image(path, channels=network.in_channels) for path in find_images(folder).paths][:count]
    boxed = [letterbox_image(image, network.input_size)[0][None] for image in images]
    arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]
    plain = [each.numpy() for each in boxed]
    with tempfile.TemporaryDirectory() as made_in:
        # The network is exported once, for all files.
        graph = raw.network_graph(network)
        # All layers in int8: what `export` puts back into float32 depends on the figures.
        int8 = Int8(graph, plain)
        graphs = {
            "ONNX": graph,
            "ONNX fp16": half_graph(graph),
            "ONNX int8": int8.graph([layer.name for layer in int8.layers]),
        }
        ways: dict[str, Callable[[], object]] = {
            "network, torch": functools.partial(_each, network, boxed),
            "network, torch, fused": functools.partial(_each, fused, boxed),
        }
        for name, made in graphs.items():
            alone = Path(made_in, f"alone {name}.onnx")
            onnx.save(made, alone)
            ways[f"network, {name}"] = functools.partial(_each, open_session(alone, threads).run, plain)
        ways["image to prediction, torch"] = functools.partial(_each, network.predict, images)
        for name, made in graphs.items():
            path = Path(made_in, f"whole {name}.onnx")
            write_onnx(onnx_model(network, False, made), path, lambda _: None)
            ways[f"image to prediction, {name}"] = functools.partial(_each, Model(path, threads), arrays)
        path = Path(made_in, "whole.pt2")
        with raw.quiet():
            torch.export.save(whole_program(network), path)
        tensors = [torch.from_numpy(each)[None] for each in arrays]
        ways["image to prediction, torch.export"] = functools.partial(_each, torch.export.load(path).module(), tensors)
        spent = medians(ways, rounds, threads)
    size = " x ".join(map(str, network.input_size))
    head = f"{len(images)} images, input {size}; {conditions(rounds, threads)}"
    table = Table("way", "ms per image", "ratio", title=head)
    for name, value in spent.items():
        table.add_row(name, f"{value / len(images) * 1e3:.1f}", f"{value / spent['network, torch']:.2f}")
    return table


def _each(way: Callable[[Any], object], inputs: Sequence[Any]) -> None:
    for each in inputs:
        way(each)


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="Trained network for the table of that name.")
    parser.add_argument("images", type=Path, nargs="?", help="Folder with images for it.")
    parser.add_argument("--count", type=int, default=16, help="Number of these images.")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="Which tables; by default all.")
    parser.add_argument("--networks", nargs="+", choices=OWN, default=list(OWN), help="Which networks.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="Sides of the images in pixels.")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="Numbers of images together.")
    parser.add_argument("--boxes", type=int, default=100, help="Number of boxes for the rest.")
    parser.add_argument("--rounds", type=int, default=7, help="Number of times that each way is measured.")
    parser.add_argument("--threads", type=int, default=1, help="Threads; with one, processor time is measured.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=160)
    rounds, threads, names = options.rounds, options.threads, options.networks
    if "networks" in options.tables:
        if (lacking := missing_peers()) is not None:
            console.print(f"without a comparison: {lacking}")
        console.print(compare_networks(options.sizes, options.batches, rounds, threads, names))
    if "rest" in options.tables:
        console.print(share_of_the_rest(options.sizes, options.boxes, rounds, threads, names))
    if "cuts" in options.tables:
        console.print(compare_cuts(options.sizes, options.batches, rounds, threads, names))
    if "checkpoint" in options.tables:
        if options.checkpoint is None or options.images is None:
            console.print("no table of a checkpoint: it needs a checkpoint and a folder with images")
            return
        console.print(checkpoint_table(options.checkpoint, options.images, options.count, rounds, threads))


if __name__ == "__main__":
    main()
