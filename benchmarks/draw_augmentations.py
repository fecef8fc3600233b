"""Draw what every transform does to the embedded scenes, and time it.

Each transform is drawn twice, with boxes, instances and classes as it leaves them; ignored pixels have no tint. Run:
``python benchmarks/draw_augmentations.py --out augmentations.png``; with ``--time`` it prints a table of the
milliseconds that each takes instead, from 480 x 640 images to a 512 x 512 batch.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.transforms import (
    ColorJitter,
    CopyPaste,
    Letterbox,
    MixingTransform,
    MixUp,
    Mosaic,
    RandomBlur,
    RandomCrop,
    RandomErase,
    RandomFlip,
    RandomGamma,
    RandomGrayscale,
    RandomNoise,
    RandomRotate,
    RandomRotate90,
    RandomScaleJitter,
    Transform,
)
from ocrnet_pl.drawing.overlays import draw_truth, panel, write_png
from ocrnet_pl.imaging.geometry import letterbox_sample
from ocrnet_pl.structures import Sample

TRANSFORMS: dict[str, Transform] = {
    "Letterbox": Letterbox(),
    "RandomScaleJitter": RandomScaleJitter(),
    "RandomScaleJitter 0.1 to 2": RandomScaleJitter(0.1, 2.0),
    "RandomCrop": RandomCrop(),
    "RandomFlip": RandomFlip(1.0),
    "RandomRotate90": RandomRotate90(),
    "RandomRotate": RandomRotate(20, p=1.0),
    "Mosaic": Mosaic(p=1.0),
    "MixUp": MixUp(p=1.0),
    "CopyPaste": CopyPaste(p=1.0),
    "RandomErase": RandomErase(p=1.0),
    "ColorJitter": ColorJitter(p=1.0),
    "RandomGamma": RandomGamma(2.0, p=1.0),
    "RandomGrayscale": RandomGrayscale(p=1.0),
    "RandomBlur": RandomBlur(1.0, 2.0, p=1.0),
    "RandomNoise": RandomNoise(40.0, p=1.0),
}


def apply(transform: Transform, samples: list[Sample], size: tuple[int, int], seed: int) -> Sample:
    """Apply a transform to the first sample; the others are its partners."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(transform, MixingTransform):
        return transform(samples[0], size, generator, samples[1 : 1 + transform.partners])
    return transform(samples[0], size, generator)


def draw(path: str, size: int, seed: int) -> None:
    """Write the grid of pictures: three transforms per row, each twice."""
    source = SyntheticSource(64, seed=seed, size=(size * 3 // 4, size))
    samples = [source[i] for i in range(4)]
    pictures: list[Tensor] = []
    titles: list[str] = []
    for name, transform in {"original": None, **TRANSFORMS}.items():
        for turn in range(2):
            turned = samples[turn:] + samples[:turn]
            sample = turned[0] if transform is None else apply(transform, turned, (size, size), turn)
            sample = (
                sample
                if max(sample.size) <= size and min(sample.size) < size
                else letterbox_sample(sample, (size, size))
            )
            pictures.append(draw_truth(sample, source.taxonomy, min_side=0))
            titles.append(name if turn == 0 else "")
    rows = [panel(pictures[i : i + 6], titles[i : i + 6]) for i in range(0, len(pictures), 6)]
    width = max(row.shape[-1] for row in rows)
    page = torch.full((3, sum(row.shape[-2] for row in rows), width), 255, dtype=torch.uint8)
    top = 0
    for row in rows:
        page[:, top : top + row.shape[-2], : row.shape[-1]] = row
        top += row.shape[-2]
    write_png(page, path)
    print(path)


def measure(size: int, rounds: int) -> None:
    """Print each transform's milliseconds; they take turns, so that a slow machine slows all of them equally.

    What is printed is the tenth percentile: what other programs on the machine add is left out.
    """
    torch.set_num_threads(1)
    source = SyntheticSource(8, size=(480, 640), min_objects=12, max_objects=24)
    raw = [source[i] for i in range(8)]
    ready = [letterbox_sample(sample, (size, size)) for sample in raw]
    # These scale or cut the raw image; the others work on one of the batch's size, and bring raw partners to it.
    scaling = {"Letterbox", "RandomScaleJitter", "RandomScaleJitter 0.1 to 2", "RandomCrop", "Mosaic"}
    times: dict[str, list[float]] = {name: [] for name in TRANSFORMS}
    for turn in range(rounds):
        partners = [raw[(turn + i) % 8] for i in (1, 2, 3)]
        for name, transform in TRANSFORMS.items():
            own = raw[turn % 8] if name in scaling else ready[turn % 8]
            start = time.perf_counter()
            apply(transform, [own, *partners], (size, size), turn)
            times[name].append(time.perf_counter() - start)
    objects = statistics.mean(len(sample.labels) for sample in raw)
    print(
        f"480 x 640 to {size} x {size}, {objects:.0f} objects per image, 1 thread, tenth percentile of {rounds} rounds"
    )
    for name, own_times in times.items():
        print(f"{name:28} {statistics.quantiles(own_times, n=10)[0] * 1e3:6.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="augmentations.png", help="the picture to write")
    parser.add_argument("--size", type=int, help="side of a picture, or of the batch when timing")
    parser.add_argument("--seed", type=int, default=3, help="of the scenes")
    parser.add_argument("--time", action="store_true", help="print the table of times instead")
    parser.add_argument("--rounds", type=int, default=60, help="rounds to time, at least 2")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: at least 2")
    if options.time:
        measure(options.size or 512, options.rounds)
    else:
        draw(options.out, options.size or 224, options.seed)


if __name__ == "__main__":
    main()
