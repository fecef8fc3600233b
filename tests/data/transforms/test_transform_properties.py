"""What holds for every transform and every chain of them, over random samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.transforms import (
    ColorJitter,
    Compose,
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
from ocrnet_pl.imaging.geometry import TIGHT, letterbox_sample, place
from ocrnet_pl.structures import Sample
from tests.helpers.painted import KINDS, array, bounds, color_of, generator, inner, painted


class Unscaled(Transform):
    """Cuts or pads at the bottom and right, so that a partner keeps its scale."""

    def __call__(self, sample: Sample, size: tuple[int, int], generator: torch.Generator) -> Sample:
        height, width = (min(sides) for sides in zip(sample.size, size, strict=True))
        return place(sample, (0, 0, height, width), (height, width), size, (0, 0), min_visible=0.2)


# Scaled up or not at all, no pixel of an object is lost, so that the bounds can be checked to the pixel.
MAGNIFYING: dict[str, Callable[[], Transform]] = {
    "jitter": lambda: RandomScaleJitter(1.05, 2.0, aspect=1.0),
    "crop": lambda: RandomCrop(p=0.9),
    "flip": lambda: RandomFlip(0.5, 0.5),
    "quarter": RandomRotate90,
    "rotate": lambda: RandomRotate(20, p=0.9),
    "erase": lambda: RandomErase(maximum=0.3, p=0.9),
    "mosaic": lambda: Mosaic(1.05, 1.5, p=0.9),
    "paste": lambda: CopyPaste(0.7, partner_transforms=[RandomFlip(), Unscaled()], p=0.9),
}
OTHERS: dict[str, Callable[[], Transform]] = {
    "letterbox": Letterbox,
    "large jitter": lambda: RandomScaleJitter(0.1, 2.0),
    "squeeze": lambda: RandomScaleJitter(0.4, 1.5, min_visible=0.6, aspect=2.0),
    "small mosaic": lambda: Mosaic(0.2, 0.6, spread=0.9, p=1.0),
    "paste as it is": lambda: CopyPaste(p=1.0),
    "mixup": lambda: MixUp(p=0.9),
    "colors": ColorJitter,
    "gamma": lambda: RandomGamma(p=0.9),
    "gray": lambda: RandomGrayscale(p=0.5),
    "blur": lambda: RandomBlur(p=0.9),
    "noise": lambda: RandomNoise(p=0.9),
}
ALL = MAGNIFYING | OTHERS

seeds = st.integers(0, 10_000)
sides = st.integers(24, 90)
small_sides = st.integers(3, 90)


def inputs(seed: int, kinds: Sequence[str], height: int, width: int, count: int) -> list[Sample]:
    """Samples of different sizes and kinds; the first is the sample, the others its partners."""
    rng = np.random.default_rng(seed)
    sizes = [(height, width), *rng.integers(24, 90, (count, 2)).tolist()]
    return [
        painted(h, w, seed + i, kinds[i % len(kinds)], number=i)  # type: ignore[arg-type]
        for i, (h, w) in enumerate(sizes)
    ]


def run(transform: Transform, samples: list[Sample], out: tuple[int, int], seed: int) -> Sample:
    if isinstance(transform, MixingTransform):
        return transform(samples[0], out, generator(seed), samples[1:])
    return transform(samples[0], out, generator(seed))


def tensors(sample: Sample) -> dict[str, Tensor]:
    found = {name: getattr(sample, name) for name in ("image", "boxes", "labels", "crowd", "semantic", "instances")} | {
        "detection": sample.supervision.detection,
        "pixels": sample.supervision.semantic,
    }
    return {name: value.as_subclass(Tensor) for name, value in found.items() if value is not None}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def check(transform: Transform, samples: list[Sample], out: tuple[int, int], seed: int) -> Sample:
    """Check all that needs no tolerance; return the result."""
    before = [{name: value.clone() for name, value in tensors(sample).items()} for sample in samples]
    after = run(transform, samples, out, seed)
    assert all(same(tensors(sample), copy) for sample, copy in zip(samples, before, strict=True)), "changed in place"
    torch.manual_seed(seed + 1)
    assert same(tensors(after), tensors(run(transform, samples, out, seed))), "not decided by the generator"

    count = len(after.labels)
    boxes = after.boxes.as_subclass(Tensor)
    assert after.image.dtype == torch.uint8 and len(after.image) == 3
    assert boxes.shape == (count, 4) and boxes.dtype == torch.float32 and boxes.isfinite().all()
    assert after.crowd.shape == (count,) and after.crowd.dtype == torch.bool and after.labels.dtype == torch.int64
    height, width = after.size
    assert tuple(after.boxes.canvas_size) == after.size
    assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()

    # No label is invented: neither rows, nor targets among them, nor classes of pixels, nor what was labelled.
    def rows(sample: Sample, targets: bool) -> Counter[int]:
        return Counter(sample.labels[~sample.crowd].tolist() if targets else sample.labels.tolist())

    for targets in (False, True):
        given_ = sum((rows(sample, targets) for sample in samples), Counter())
        assert rows(after, targets) <= given_
    values = {255}.union(*(np.unique(array(s.semantic)).tolist() for s in samples if s.semantic is not None))
    for task in ("detection", "semantic"):
        assert not (getattr(after.supervision, task) & ~getattr(samples[0].supervision, task)).any()
    if after.semantic is not None:
        assert after.semantic.dtype == torch.uint8 and after.semantic.shape == after.size
        assert set(np.unique(array(after.semantic)).tolist()) <= values
    if after.instances is not None:
        assert after.instances.dtype == torch.int32 and after.instances.shape == after.size
        numbers = set(np.unique(array(after.instances)).tolist())
        assert numbers <= {0} | {row + 1 for row in range(count) if not after.crowd[row]}
    batch = collate([letterbox_sample(after, out)])
    assert batch.images.shape == (1, 3, *out)
    return after


def check_colors(after: Sample, exact: bool = False) -> int:
    """Check that an object's pixels have the color of its row's class; return how many objects could be seen.

    Colors of classes are 70 apart, so the nearest is meant. Exact colors are all the same up to the border.
    """
    if after.instances is None:
        return 0
    instances, image = array(after.instances), array(after.image).astype(int)
    seen = 0
    for row, label in enumerate(after.labels.tolist()):
        mask = instances == row + 1
        if not exact:
            mask = inner(mask)
        if not mask.any():
            continue
        seen += 1
        assert abs(np.median(image[0][mask]) - color_of(label)) < (1 if exact else 35)
        if after.semantic is not None:
            classes = set(np.unique(array(after.semantic)[mask]).tolist())
            assert classes <= {1 + label, 255}
        if exact:
            assert np.ptp(image[:, mask], axis=1).max() == 0
    return seen


def check_bounds(after: Sample, tolerance: float) -> None:
    """Check that each box with pixels bounds them."""
    if after.instances is None:
        return
    instances = array(after.instances)
    for row, box in enumerate(array(after.boxes)):
        mask = instances == row + 1
        if mask.any():
            assert np.abs(np.array(bounds(mask)) - box).max() <= tolerance, (row, bounds(mask), box)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=seeds, kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), size=st.tuples(sides, sides))
def test_every_transform(name: str, seed: int, kinds: list[str], size: tuple[int, int]) -> None:
    transform = ALL[name]()
    samples = inputs(seed, kinds, *size, transform.partners if isinstance(transform, MixingTransform) else 0)
    # Not smaller than the images where nothing is to be scaled down.
    rng = np.random.default_rng(seed)
    low, high = (90, 120) if name in MAGNIFYING else (9, 120)
    out = tuple(rng.integers(low, high, 2).tolist())
    after = check(transform, samples, (out[0], out[1]), seed)
    if name in MAGNIFYING:
        check_bounds(after, 1)
    if name not in ("mixup", "colors", "gamma", "gray", "blur", "noise"):
        check_colors(after)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=seeds,
    names=st.lists(st.sampled_from(sorted(MAGNIFYING)), min_size=1, max_size=5),
    size=st.tuples(sides, sides),
)
def test_every_chain_keeps_boxes_tight(seed: int, names: list[str], size: tuple[int, int]) -> None:
    out = (90, 101)
    whole = Compose([MAGNIFYING[name]() for name in names])
    samples = inputs(seed, ["full", "apart", "crowds", "empty"], *size, whole.partners)
    # Scaling a mask up spreads what its border is off by already, and rounds once more; a chain ends where that may
    # come to so much that a box is no longer taken to be tight.
    step, partners, drawn, off = samples[0], samples[1:], generator(seed), 0.0
    chain: list[Transform] = []
    for name, transform in zip(names, whole.transforms, strict=True):
        if name in ("jitter", "mosaic"):
            off = off * 2 * max(1.0, *(side / before for side, before in zip(out, step.size, strict=True))) + 0.5
        if off > TIGHT:
            break
        chain.append(transform)
        if isinstance(transform, MixingTransform):
            step = transform(step, out, drawn, partners[: transform.partners])
            partners = partners[transform.partners :]
        else:
            step = transform(step, out, drawn)
    after = check(Compose(chain), samples, out, seed)
    assert same(tensors(after), tensors(step))
    check_bounds(after, max(1.0, off))
    check_colors(after)
    assert after.instances is not None
    seen = set(np.unique(array(after.instances)).tolist())
    assert seen >= {row + 1 for row in range(len(after.labels)) if not after.crowd[row]}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=seeds,
    names=st.lists(st.sampled_from(sorted(ALL)), min_size=1, max_size=6),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    size=st.tuples(small_sides, small_sides),
    out=st.tuples(st.integers(2, 100), st.integers(2, 100)),
)
def test_every_chain_of_anything(
    seed: int, names: list[str], kinds: list[str], size: tuple[int, int], out: tuple[int, int]
) -> None:
    chain = Compose([ALL[name]() for name in names])
    check(chain, inputs(seed, kinds, *size, chain.partners), out, seed)


def test_the_colors_are_really_looked_at() -> None:
    """The checks fail where they should: shifted maps, swapped labels, loose boxes."""
    sample = painted(60, 80, 1, "apart")
    assert check_colors(sample, exact=True) >= 2
    check_bounds(sample, 0)
    shifted = sample.replace(instances=type(sample.instances)(torch.roll(sample.instances.as_subclass(Tensor), 4, 1)))
    with pytest.raises(AssertionError):
        check_bounds(shifted, 1)
    with pytest.raises(AssertionError):
        check_colors(shifted, exact=True)
    with pytest.raises(AssertionError):
        check_colors(sample.replace(labels=(sample.labels + 1) % 3))


@pytest.mark.parametrize("name", ["crop", "flip", "quarter", "erase"])
def test_whole_pixel_moves_keep_every_color_exactly(name: str) -> None:
    seen = 0
    for seed in range(20):
        samples = inputs(seed, ["full"], 60, 75, 3)
        seen += check_colors(run(MAGNIFYING[name](), samples, (64, 64), seed), exact=True)
    assert seen > 20


@pytest.mark.parametrize("name", MAGNIFYING)
def test_objects_remain(name: str) -> None:
    """Not by losing all objects do the transforms hold what is promised above."""
    before = after = 0
    for seed in range(20):
        samples = inputs(seed, ["apart"], 60, 75, 3)
        before += len(samples[0].labels)
        after += int((~run(MAGNIFYING[name](), samples, (96, 96), seed).crowd).sum())
    assert after > 0.4 * before
