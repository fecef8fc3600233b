"""How often a threshold for a share of missed objects keeps it on other images, over random halves.

    python benchmarks/risk_bound.py --ckpt_path K --images 600 --miss_rate 0.1 0.3 --save results.npz
    python benchmarks/risk_bound.py --results results.npz --miss_rate 0.1 0.3

The network predicts once. Then the images are split into halves again and again: one half chooses the threshold, the
other counts what it misses. Three ways of choosing are compared: the highest threshold that keeps the share on the half
that chooses; the same with the margin that the objects would need if they were independent of each other
(Clopper-Pearson); and the bound of ``calibrate --miss_rate``. All settings of the fusion are those of the checkpoint.
What is missed whatever the threshold depends on how many boxes there are at all: ``--score_threshold 0.001
--max_detections 300`` keeps nearly all of them, and ``--match_iou 0.3`` asks only whether an object was noticed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from ocrnet_pl import OCRNet
from ocrnet_pl.calibration.box_outcomes import HIT_IOU, ClassOutcomes, outcomes_of
from ocrnet_pl.calibration.raw_results import collect
from ocrnet_pl.calibration.risk_bound import Wager, bound_threshold
from ocrnet_pl.cli.running import build
from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Prediction, Sample

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
    parser.add_argument("--raw", action="store_true", help="boxes before fusion instead of those after")
    parser.add_argument("--score_threshold", type=float, help="that of the decoder; by default the checkpoint's")
    parser.add_argument("--max_detections", type=int, help="that of the decoder; by default the checkpoint's")
    parser.add_argument("--match_iou", type=float, default=HIT_IOU, help="IoU from which an object is found")
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
    for name in ("score_threshold", "max_detections"):
        if (value := getattr(options, name)) is not None:
            setattr(fusion.decode, name, value)
    trust = ["--trust", *options.trust] if options.trust else []
    data = build(["calibrate", "--ckpt_path", options.ckpt_path, *trust, *words]).datamodule
    items = list(collect(network, fusion, data.validation_sample(options.images), options.images))
    names = [category.name for category in network.taxonomy.detection_categories]
    if options.match_iou == HIT_IOU:
        found = outcomes_of(network.taxonomy, fusion, items)
        return dict(zip(names, found["raw" if options.raw else list(found)[-1]].classes, strict=True))
    boxes = [
        item.detections
        if options.raw or item.logits is None
        else fusion.correct(item.detections, item.semantic(fusion.settings.temperature), network.taxonomy).prediction
        for item in items
    ]
    truths = [item.truth for item in items]
    return {name: at_iou(boxes, truths, number, options.match_iou) for number, name in enumerate(names)}


def at_iou(
    found: Sequence[Detections | Prediction], truths: Sequence[Sample], label: int, least: float
) -> ClassOutcomes:
    """Match the boxes of a class as COCO does, but from another IoU; boxes mostly in crowds are left out.

    Args:
        found: The boxes of each image.
        truths: The labels of each image.
        label: The class.
        least: The IoU.
    """
    rows: list[tuple[float, bool, int]] = []
    objects = []
    for image, (boxes, truth) in enumerate(zip(found, truths, strict=True)):
        own = boxes.labels == label
        scores, order = boxes.scores[own].sort(descending=True, stable=True)
        true = truth.boxes.as_subclass(torch.Tensor)[truth.labels == label]
        crowd = truth.crowd[truth.labels == label]
        ious = box_iou(boxes.boxes[own][order], true)
        corners = boxes.boxes[own][order]
        free = ~crowd
        for row, score in enumerate(scores.tolist()):
            candidates = torch.where(free, ious[row], -1.0)
            best = int(candidates.argmax()) if len(candidates) else -1
            if best >= 0 and candidates[best] >= least:
                free[best] = False
                rows.append((score, True, image))
            elif not in_crowd(corners[row], true[crowd], least):
                rows.append((score, False, image))
        objects.append(int((~crowd).sum()) if truth.supervision.detection[label] else 0)
    rows.sort(key=lambda each: -each[0])
    scores, hits, images = zip(*rows, strict=True) if rows else ((), (), ())
    known = np.array([bool(truth.supervision.detection[label]) for truth in truths])
    return ClassOutcomes(
        np.array(scores, np.float32), np.array(hits, bool), np.array(images, np.int64), np.array(objects), known
    )


def in_crowd(box: torch.Tensor, crowds: torch.Tensor, least: float) -> bool:
    """Return whether enough of a box lies in one of the crowds."""
    low, high = torch.maximum(box[:2], crowds[:, :2]), torch.minimum(box[2:], crowds[:, 2:])
    shared = (high - low).clamp(min=0).prod(1) / (box[2:] - box[:2]).prod().clamp(min=1e-6)
    return bool((shared >= least).any())


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
