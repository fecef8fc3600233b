"""How often a threshold for a share of missed objects keeps it on other images, over random halves.

    python benchmarks/risk_bound.py --ckpt_path K --images 600 --miss_rate 0.1 0.3 --save results.npz
    python benchmarks/risk_bound.py --results results.npz --miss_rate 0.1 0.3

The network predicts once. Then the images are split into halves again and again: one half chooses the threshold, the
other counts what it misses. Three ways of choosing are compared: the highest threshold that keeps the share on the half
that chooses; the same with the margin that the objects would need if they were independent of each other
(Clopper-Pearson); and the bound of ``calibrate --miss_rate``. All settings of the fusion are those of the checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl import OCRNet
from ocrnet_pl.calibration.box_outcomes import ClassOutcomes, outcomes_of
from ocrnet_pl.calibration.raw_results import collect
from ocrnet_pl.calibration.risk_bound import Wager, bound_threshold
from ocrnet_pl.cli.running import build
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.storage.files import complete_file

Choose = Callable[[ClassOutcomes, float, float], float | None]


def main() -> None:
    """Measure one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", help="checkpoint that predicts")
    parser.add_argument("--results", type=Path, help="what --save wrote, instead of a checkpoint")
    parser.add_argument("--save", type=Path, help="file for what was found, to count again later")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--miss_rate", type=float, nargs="+", default=[0.05])
    parser.add_argument("--confidence", type=float, default=0.9)
    parser.add_argument("--halves", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trust", nargs="*", default=[], help="packages whose classes the checkpoint may name")
    options, words = parser.parse_known_args()
    classes = read(options.results) if options.results else predict(options, words)
    if options.save:
        write(options.save, classes)
    ways: dict[str, Choose] = {"as on the half": plain, "objects independent": independent, "bound": bound}
    print("| class | images, objects | missed with all boxes | rate | threshold | too much missed | missed | none |")
    print("|---|---|---|---|---|---|---|---|")
    for name, own in classes.items():
        shown, objects = int((own.objects > 0).sum()), int(own.objects.sum())
        least = 1 - int(own.hits.sum()) / max(objects, 1)
        for rate in options.miss_rate:
            for way, choose in ways.items():
                missed = over_halves(own, choose, rate, options)
                # Of all halves, those without a threshold among them: nothing is promised there.
                broken, none = (missed > rate).sum() / options.halves, 1 - len(missed) / options.halves
                mean = f"{missed.mean():.1%}" if len(missed) else ""
                row = (name, f"{shown}, {objects}", f"{least:.1%}", f"{rate:.0%}", way, f"{broken:.1%}", mean)
                print(f"| {' | '.join(row)} | {none:.0%} |")


def predict(options: argparse.Namespace, words: list[str]) -> dict[str, ClassOutcomes]:
    """Return the boxes that are given out of each class, on validation images."""
    network = OCRNet.from_checkpoint(options.ckpt_path, trust=options.trust)
    fusion = network.postprocess
    assert isinstance(fusion, FusionPostProcess)
    trust = ["--trust", *options.trust] if options.trust else []
    data = build(["calibrate", "--ckpt_path", options.ckpt_path, *trust, *words]).datamodule
    items = list(collect(network, fusion, data.validation_sample(options.images), options.images))
    found = outcomes_of(network.taxonomy, fusion, items)
    names = [category.name for category in network.taxonomy.detection_categories]
    return dict(zip(names, found.get("fused", found["raw"]).classes, strict=True))


def write(path: Path, classes: dict[str, ClassOutcomes]) -> None:
    """Write what was found."""
    with complete_file(path) as unfinished, unfinished.open("wb") as file:
        arrays = {f"{name}/{key}": value for name, own in classes.items() for key, value in own._asdict().items()}
        np.savez_compressed(file, **arrays)


def read(path: Path) -> dict[str, ClassOutcomes]:
    """Read what was found before."""
    with np.load(path) as arrays:
        names = dict.fromkeys(key.rpartition("/")[0] for key in arrays)
        return {name: ClassOutcomes(*(arrays[f"{name}/{key}"] for key in ClassOutcomes._fields)) for name in names}


def over_halves(own: ClassOutcomes, choose: Choose, rate: float, options: argparse.Namespace) -> NDArray[np.float64]:
    """Return the share that is missed on the other half, for each half that has a threshold."""
    generator = np.random.default_rng(options.seed)
    missed = []
    for _ in range(options.halves):
        order = generator.permutation(len(own.objects))
        half = len(order) // 2
        score = choose(own.of_images(order[:half]), rate, options.confidence)
        if score is not None:
            missed.append(share_missed(own.of_images(order[half:]), score))
    return np.array(missed)


def share_missed(own: ClassOutcomes, score: float) -> float:
    """Return the share of objects that are missed with a threshold."""
    return 1 - int(own.hits[own.scores >= score].sum()) / max(int(own.objects.sum()), 1)


def plain(own: ClassOutcomes, rate: float, confidence: float) -> float | None:
    """Return the highest threshold that misses at most the share of these objects."""
    found, wanted = np.sort(own.scores[own.hits])[::-1], (1 - rate) * int(own.objects.sum())
    least = int(np.ceil(wanted - 1e-9))
    return float(found[least - 1]) if 0 < least <= len(found) else None


def independent(own: ClassOutcomes, rate: float, confidence: float) -> float | None:
    """Return the highest threshold that is safe if objects are independent of each other."""
    objects = int(own.objects.sum())
    # The most missed objects of which so few or fewer are seen with a probability of at most 1 - confidence.
    counts = np.arange(1, objects + 1)
    chances = np.cumsum([0.0, *(np.log(objects - counts + 1) - np.log(counts))])
    places = np.arange(objects + 1)
    below = np.cumsum(np.exp(chances + places * np.log(rate) + (objects - places) * np.log1p(-rate)))
    most = int((below <= 1 - confidence).sum()) - 1
    found = np.sort(own.scores[own.hits])[::-1]
    least = objects - most
    return float(found[least - 1]) if most >= 0 and 0 < least <= len(found) else None


def bound(own: ClassOutcomes, rate: float, confidence: float) -> float | None:
    """Return the threshold of ``calibrate --miss_rate``: a third of the images chooses the bet, the others sign."""
    third = (len(own.objects) + 2) // 3
    wager = Wager.choose(own.of_images(np.arange(third)), rate, confidence)
    found = bound_threshold(own.of_images(np.arange(third, len(own.objects))), wager, rate, confidence)
    return found.score if found.refusal is None else None


if __name__ == "__main__":
    main()
