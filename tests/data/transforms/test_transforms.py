"""Scale, flips and turns: image, boxes and maps move by the same numbers, whatever the size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.transforms import (
    ColorJitter,
    Compose,
    Letterbox,
    RandomFlip,
    RandomRotate90,
    RandomScaleJitter,
    Transform,
    default_train_transforms,
    rotate90,
)
from ocrnet_pl.imaging.geometry import letterbox_sample
from ocrnet_pl.structures import Sample
from tests.helpers.painted import array, bounds, generator
from tests.helpers.shapes import blobs, measure, ramps

TRANSFORMS: list[Transform] = [
    Letterbox(),
    RandomScaleJitter(0.4, 2.5),
    RandomScaleJitter(1.5, 2.5, aspect=1.5),
    RandomFlip(0.5, 0.5),
    RandomRotate90(),
    Compose([RandomRotate90(), RandomScaleJitter(0.5, 2.0, min_visible=0.5), RandomFlip(0.5, 0.5), ColorJitter()]),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_boxes_bound_their_pixels_and_no_label_is_invented(transform: Transform) -> None:
    rng = np.random.default_rng(0)
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(120):
        height, width, out_height, out_width = rng.integers(17, 91, 4).tolist()
        round_ = seed % 2 == 0
        sample = blobs(height, width, seed, round_=round_)
        gaps[round_] += _check(transform, sample, (out_height, out_width), seed)
    assert max(gaps[False]) <= 1
    # Scaled down, the thin tip of an object may fall between the pixels, so some masks end a little inside their box.
    assert np.mean(np.array(gaps[True]) <= 1) > 0.9


def _check(transform: Transform, before: Sample, out: tuple[int, int], seed: int) -> list[float]:
    """Check what must always hold; return how far each object's pixels end inside its box, at most."""
    gaps: list[float] = []
    untouched = [before.image.clone(), before.boxes.clone(), before.semantic.clone(), before.instances.clone()]
    after = transform(before, out, generator(seed))
    for tensor, original in zip(
        (before.image, before.boxes, before.semantic, before.instances), untouched, strict=True
    ):
        assert torch.equal(tensor, original)

    instances, semantic = array(after.instances), array(after.semantic)
    boxes, labels = after.boxes.as_subclass(Tensor).numpy(), after.labels.tolist()
    assert instances.shape == semantic.shape == after.size
    assert set(np.unique(semantic)) <= set(np.unique(array(before.semantic))) | {255}
    assert len(boxes) == len(labels) == len(after.crowd)
    assert set(np.unique(instances)) <= {0} | {row + 1 for row in range(len(labels)) if not after.crowd[row]}
    assert (boxes >= 0).all() and (boxes <= [*after.size[::-1]] * 2).all()
    for row, box in enumerate(boxes):
        mask = instances == row + 1
        if after.crowd[row]:
            continue
        assert (semantic[mask] == 1 + labels[row]).all()
        if not mask.any():
            assert (box[2:] - box[:2]).min() < 1.01  # only what is thinner than a pixel may fall between the pixels
            continue
        inwards = (bounds(mask) - box) * [1, 1, -1, -1]
        assert inwards.min() > -0.51  # a pixel belongs to an object where its centre does
        gaps.append(inwards.max())
    return gaps


@pytest.mark.parametrize("seed", range(12))
def test_scale_jitter_moves_the_boxes_as_the_image(seed: int) -> None:
    """The move is read off the image and applied to the boxes: under a pixel apart."""
    height, width, out = 120 + 7 * seed, 200 - 5 * seed, (97, 131)
    before = blobs(height, width, seed).replace(image=ramps(height, width), instances=None, semantic=None)
    after = RandomScaleJitter(0.5, 2.5, min_visible=0.0)(before, out, generator(seed))
    x_scale, x_offset = measure(after.image.as_subclass(Tensor), 0, width)
    y_scale, y_offset = measure(after.image.as_subclass(Tensor), 1, height)
    moved = before.boxes.numpy().copy()
    moved[:, [0, 2]] = (moved[:, [0, 2]] * x_scale + x_offset).clip(0, out[1])
    moved[:, [1, 3]] = (moved[:, [1, 3]] * y_scale + y_offset).clip(0, out[0])
    moved = moved[((moved[:, 2:] - moved[:, :2]) > 0.5).all(1)]
    got = after.boxes.numpy()
    got = got[((got[:, 2:] - got[:, :2]) > 0.5).all(1)]
    assert len(got) == len(moved)
    assert np.abs(got - moved).max(initial=0) < 1


def test_large_scale_jitter_covers_its_range() -> None:
    """0.1 to 2.0, even in the logarithm; what is left of the canvas is padding, and every box stays with its object."""
    scales = []
    for seed in range(60):
        before = blobs(90, 120, seed, round_=False).replace(image=ramps(90, 120))
        after = RandomScaleJitter(0.1, 2.0)(before, (96, 128), generator(seed))
        assert after.size == (96, 128)
        fit = min(96 / 90, 128 / 120)
        scale = (after.image[2] == 255).any(0).sum().item() / 120 / fit  # under 1, the width that is no padding
        scales.append(scale)
        padding = array(after.image)[2] == 114
        assert (array(after.semantic)[padding] == 255).all() and not array(after.instances)[padding].any()
        instances = array(after.instances)
        for row, box in enumerate(after.boxes.numpy()):
            mask = instances == row + 1
            if mask.any():
                assert np.abs(bounds(mask) - box).max() <= 1
    assert 0.09 < min(scales) < 0.14
    below = np.mean(np.array(scales) < 0.99)
    assert 0.62 < below < 0.92  # log(10) / log(20) = 0.77


def test_scale_jitter_covers_its_range() -> None:
    sample = blobs(64, 64, 0).replace(image=ramps(64, 64))
    scales = [
        measure(RandomScaleJitter(0.5, 2.0)(sample, (64, 64), generator(seed)).image.as_subclass(Tensor), 0, 64)[0]
        for seed in range(60)
    ]
    assert 0.45 < min(scales) < 0.6 and 1.7 < max(scales) < 2.1
    assert 0.35 < np.mean(np.array(scales) < 1) < 0.65  # halving is as likely as doubling


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_by_hand(turns: int) -> None:
    before = blobs(23, 41, 3)
    after = rotate90(before, turns)
    assert np.array_equal(array(after.image), np.rot90(array(before.image), turns, (1, 2)))
    expected = np.rot90(array(before.instances), turns)
    assert np.array_equal(array(after.instances), expected)
    for row, box in enumerate(after.boxes.tolist()):
        assert box == bounds(expected == row + 1)
    assert torch.equal(rotate90(after, 4 - turns).boxes, before.boxes)


def test_flips_by_hand() -> None:
    before = blobs(23, 41, 3)
    for horizontal, vertical in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        after = RandomFlip(horizontal, vertical)(before, (1, 1), generator())
        axes = [axis for axis, chosen in ((1, horizontal), (0, vertical)) if chosen]
        expected = np.flip(array(before.instances), axes)
        assert np.array_equal(array(after.instances), expected)
        assert np.array_equal(array(after.image), np.flip(array(before.image), [axis + 1 for axis in axes]))
        assert [bounds(expected == row + 1) for row in range(len(after.labels))] == after.boxes.tolist()


def test_random_choices_are_all_taken() -> None:
    before = blobs(23, 41, 3)
    turned = {RandomRotate90()(before, (1, 1), generator(seed)).image.numpy().tobytes() for seed in range(40)}
    flipped = {RandomFlip(0.5, 0.5)(before, (1, 1), generator(seed)).image.numpy().tobytes() for seed in range(40)}
    assert len(turned) == 4 and len(flipped) == 4


@pytest.mark.parametrize("kind", ["no objects", "crowd only", "no maps", "no semantic", "outside"])
def test_unusual_samples_pass(kind: str) -> None:
    sample = blobs(40, 60, 0)
    if kind == "no objects":
        sample = make_sample(
            sample.image.as_subclass(Tensor),
            boxes=[],
            labels=[],
            crowd=[],
            semantic=np.zeros((40, 60), dtype=np.uint8),
            instances=np.zeros((40, 60), dtype=np.int32),
            supervision=sample.supervision,
        )
    elif kind == "crowd only":
        sample = sample.replace(crowd=torch.ones_like(sample.crowd), instances=torch.zeros_like(sample.instances))
    elif kind == "no maps":
        sample = sample.replace(semantic=None, instances=None)
    elif kind == "no semantic":
        sample = sample.replace(semantic=None)
    else:
        sample = sample.replace(boxes=sample.boxes + 200)
    for seed in range(20):
        after = Compose([RandomRotate90(), *default_train_transforms()])(sample, (32, 48), generator(seed))
        batch = collate([letterbox_sample(after, (32, 48))])
        assert batch.images.shape == (1, 3, 32, 48) and batch.boxes.isfinite().all()
        if kind != "no maps" and kind != "no semantic":
            assert batch.semantic.shape == (1, 32, 48)
        if kind in ("no objects", "crowd only", "outside"):
            assert not batch.valid.any()


def test_the_generator_decides_everything() -> None:
    sample = SyntheticSource(1, size=64)[0]
    pipeline = Compose([RandomRotate90(), *default_train_transforms()])
    torch.manual_seed(0)
    one = pipeline(sample, (64, 64), generator(5))
    torch.manual_seed(1)
    two = pipeline(sample, (64, 64), generator(5))
    other = pipeline(sample, (64, 64), generator(6))
    assert torch.equal(one.image, two.image) and torch.equal(one.boxes, two.boxes)
    assert not torch.equal(one.image, other.image)


def test_options_out_of_range() -> None:
    for make in (
        lambda: RandomScaleJitter(0, 1),
        lambda: RandomScaleJitter(2, 1),
        lambda: RandomScaleJitter(min_visible=2),
        lambda: RandomScaleJitter(aspect=0.5),
        lambda: RandomFlip(horizontal=2),
        lambda: RandomRotate90(p=-1),
        lambda: ColorJitter(hue=0.6),
    ):
        with pytest.raises(ValueError):
            make()
