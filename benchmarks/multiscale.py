"""What prediction at several scales and mirrored lifts, raw and fused, and what it costs.

Reads a checkpoint and labelled images, predicts them in one pass and by each setting, and prints a table. Run:
``python benchmarks/multiscale.py --checkpoint last.ckpt --source CocoInstances --source.root path/to/nuclei
--source.images val --source.annotations instances_val.json``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

import ocrnet_pl.cli.parser  # noqa: F401 - the sources, by their short names
from ocrnet_pl.cli.short_names import import_rooms
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.imaging.geometry import letterbox_image, letterbox_sample
from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Placement, Predictions, Sample

SETTINGS = [
    "1.25",
    "1 flip",
    "1,1.25",
    "1,1.25 flip",
    "0.75,1,1.25 flip",
    "1,1.5 flip",
    "1,1.25,1.5 flip",
    "0.75,1,1.25,1.5 flip",
    "1,1.25 flip vertical",
]
FIGURES = ("map", "miou", "pq", "fused_map", "fused_miou", "fused_pq", "fused_mask_map")
Way = Callable[[OCRNet, Tensor], Predictions]


def plain(network: OCRNet, image: Tensor) -> Predictions:
    """Predict in one pass."""
    boxed, placement = letterbox_image(image, network.input_size)
    with torch.inference_mode():
        return network.postprocessed(network(boxed[None].to(network.mean.device)), [placement])


def setting(words: str) -> MultiScale:
    """Return what a line such as ``1,1.25 flip vertical`` describes."""
    scales, *mirrors = words.split()
    return MultiScale(tuple(map(float, scales.split(","))), flip="flip" in mirrors, flip_vertical="vertical" in mirrors)


def measure(network: OCRNet, way: Way, truths: list[Sample]) -> tuple[dict[str, float], float]:
    """Return the figures and the median milliseconds per image."""
    metrics = EvaluationMetrics(network.taxonomy, network.detection is not None, network.segmentation is not None)
    way(network, truths[0].image.as_subclass(Tensor))
    spent = []
    for number, truth in enumerate(truths):
        start = time.perf_counter()
        predictions = way(network, truth.image.as_subclass(Tensor))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - start)
        for prediction in [*predictions.raw, *(predictions.fused or [])]:
            prediction.image_id, prediction.path = number, str(number)
        # The metrics read nothing else of a batch.
        batch: Any = SimpleNamespace(truths=[truth])
        metrics.update(predictions, batch)
    return {name: float(value) for name, value in metrics.compute().items()}, 1000 * statistics.median(spent)


def main() -> None:
    """Print one row per setting."""
    # The source may be named without its module, as in a config.
    import_rooms()
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=str, required=True)
    parser.add_argument("--source", type=Source, required=True)
    parser.add_argument("--first", type=int, default=0, help="the first image to use")
    parser.add_argument("--limit", type=int, default=10**9, help="how many images to use")
    parser.add_argument("--letterboxed", type=bool, default=False, help="measure on images scaled to the input before")
    parser.add_argument("--settings", type=list[str], default=SETTINGS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    source: Source = parser.instantiate_classes(options).source
    torch.set_num_threads(options.threads)
    network = OCRNet.from_checkpoint(options.checkpoint).to("cuda" if torch.cuda.is_available() else "cpu")
    truths = [source[i] for i in range(options.first, min(len(source), options.first + options.limit))]
    if options.letterboxed:
        own = Placement.identity(network.input_size)
        truths = [letterbox_sample(truth, network.input_size).replace(placement=own) for truth in truths]
    print(f"{len(truths)} images, {options.threads} threads, input {network.input_size}")
    print("| passes | pixels | ms | " + " | ".join(FIGURES) + " |\n|" + "---|" * (3 + len(FIGURES)))
    for words in ["one pass", *options.settings]:
        way = None if words == "one pass" else setting(words)
        figures, spent = measure(network, way or plain, truths)
        cells = [words, f"{1.0 if way is None else way.cost:.2f}", f"{spent:.0f}"]
        cells += [f"{figures[name]:.3f}" if name in figures else "-" for name in FIGURES]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
