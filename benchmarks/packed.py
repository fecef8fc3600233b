"""Packed data against the files it was packed from, in one run on one core.

Generated JPEGs of 640x480 with polygon masks. Reported: processor time of reading a sample (from the files, from shards
in a folder, from shards in a cache), the space on the disk, and how often a shard is fetched in an epoch by a cache for
a window of shards, in the order of training and in a full shuffle. Run: ``python benchmarks/packed.py`` (``--images 40
--rounds 1`` for a quick look).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loading import draw

from ocrnet_pl.data.loading.samplers import MultiScaleSampler
from ocrnet_pl.data.records import Blocks
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.data.shards.writer import pack
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.coco import CocoInstances


def reading(sources: dict[str, Source], rounds: int) -> dict[str, float]:
    """Return milliseconds of processor time per sample, the median over rounds in which all sources take turns."""
    times: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(rounds + 1):
        for name, source in sources.items():
            order = np.random.default_rng(number).permutation(len(source)).tolist()
            start = time.process_time()
            for index in order:
                source[index]
            if number:  # the first round warms up
                times[name].append((time.process_time() - start) / len(source) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def fetches(order: np.ndarray, bounds: np.ndarray, room: int) -> float:
    """Return the mean number of fetches per shard with a cache of ``room`` shards, least recently used evicted."""
    kept: dict[int, None] = {}
    count = 0
    for shard in (np.searchsorted(bounds, order, side="right") - 1).tolist():
        if shard in kept:
            kept.pop(shard)
        else:
            count += 1
            if len(kept) == room:
                kept.pop(next(iter(kept)))
        kept[shard] = None
    return count / (len(bounds) - 1)


def simulate(window: int) -> dict[str, float]:
    """Return fetches of a shard in an epoch of 100,000 samples in 100 shards of unequal size, by the order."""
    lengths = np.random.default_rng(0).integers(800, 1200, 100)
    bounds = np.concatenate([[0], np.cumsum(lengths)])

    def order(blocks: Blocks | None) -> np.ndarray:
        data: Any = range(int(bounds[-1]))
        sampler = MultiScaleSampler(data, 16, [(512, 512)], blocks=blocks)
        return np.array([item.index for item in sampler])

    return {
        "order of training": fetches(order(Blocks(bounds, window)), bounds, window + 2),
        "full shuffle": fetches(order(None), bounds, window + 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(root, options.images, options.objects)
        files = CocoInstances("images", "instances.json", root=root)
        start = time.process_time()
        manifest = pack(files, root / "packed", "benchmark", shard_bytes=4_000_000).manifest
        packing = (time.process_time() - start) / options.images * 1000
        sources: dict[str, Source] = {
            "files": files,
            "shards in a folder": Packed(root / "packed"),
            "shards in a cache": Packed(root / "packed", cache=root / "cache"),
        }
        times = reading(sources, options.rounds)
        images = sum(path.stat().st_size for path in (root / "images").iterdir())
        shards = sum(shard.size for shard in manifest.shards)
    print(f"{'':24}{'ms / sample':>12}{'of the files':>14}")
    for name, value in times.items():
        print(f"{name:24}{value:12.2f}{value / times['files']:14.2f}")
    print(f"packing: {packing:.1f} ms per sample; shards take {shards / images:.2f} of the space of the images")
    print(f"fetches of a shard in an epoch, with room for {options.window} + 2 of 100 shards:")
    for name, value in simulate(options.window).items():
        print(f"  {name}: {value:.2f}")


if __name__ == "__main__":
    main()
