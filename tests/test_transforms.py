"""Geometry and color: image, boxes and maps move by the same numbers, whatever the size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ocrnet_pl.data.collate import collate
from ocrnet_pl.data.geometry import letterbox_image, letterbox_placement, letterbox_sample, place
from ocrnet_pl.data.sources.base import make_sample
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.transforms import (
    ColorJitter,
    Compose,
    Letterbox,
    RandomCrop,
    RandomFlip,
    RandomRotate90,
    RandomScaleJitter,
    Transform,
    adjust_colors,
    default_train_transforms,
    rotate90,
)
from ocrnet_pl.structures import Sample, Supervision, Taxonomy

TAXONOMY = Taxonomy.build(things=["a", "b", "c"], stuff=["ground"])


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _blobs(height: int, width: int, seed: int, count: int = 5, *, round_: bool = True) -> Sample:
    """Ellipses, or rectangles apart; boxes are the bounds of their visible pixels. Row i has label i % 3."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] + 0.5
    instances = np.zeros((height, width), dtype=np.int32)
    for number in range(1, count + 1):
        cy, cx = rng.random(2) * [height, width]
        ry, rx = rng.uniform(0.05, 0.4, 2) * [height, width]
        if round_:
            instances[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1] = number
            continue
        rectangle = (np.abs(y - cy) <= ry) & (np.abs(x - cx) <= rx)
        if not instances[rectangle].any():
            instances[rectangle] = number
    kept = [number for number in range(1, count + 1) if (instances == number).sum() > 0]
    table = np.zeros(count + 1, dtype=np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    instances = table[instances]
    labels = [row % 3 for row in range(len(kept))]
    boxes = [_bounds(instances == row + 1) for row in range(len(kept))]
    semantic = np.append(0, 1 + np.array(labels, dtype=int))[instances].astype(np.uint8)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return make_sample(
        image,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=labels,
        crowd=[False] * len(labels),
        semantic=semantic,
        instances=instances,
        supervision=Supervision.full(TAXONOMY),
        image_id=seed,
    )


def _bounds(mask: np.ndarray) -> list[int]:
    ys, xs = np.nonzero(mask)
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def _array(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.as_subclass(Tensor).numpy()


def _ramps(height: int, width: int) -> Tensor:
    """An image whose first two channels grow evenly along x and y, so that its geometry can be read off it."""
    image = torch.zeros(3, height, width)
    image[0] = (torch.arange(width) + 0.5) / width * 255
    image[1] = ((torch.arange(height) + 0.5) / height * 255)[:, None]
    image[2] = 255  # away from the padding's grey
    return image.round().to(torch.uint8)


def _measure(image: Tensor, axis: int, original: int) -> tuple[float, float]:
    """Return scale and offset along an axis (0 = x, 1 = y), fitted to the ramps of the pixels inside."""
    inside = image[2] == 255
    values = image[axis].double()
    flat = (values > 8) & (values < 247) & inside  # antialiasing bends the ramps at their ends
    position = torch.nonzero(flat)[:, 1 - axis].double() + 0.5
    source = values[flat] / 255 * original
    design = torch.stack([source, torch.ones_like(source)], 1)
    scale, offset = torch.linalg.lstsq(design, position[:, None]).solution.flatten().tolist()
    return scale, offset


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
        sample = _blobs(height, width, seed, round_=round_)
        gaps[round_] += _check(transform, sample, (out_height, out_width), seed)
    assert max(gaps[False]) <= 1
    # Scaled down, the thin tip of an object may fall between the pixels, so some masks end a little inside their box.
    assert np.mean(np.array(gaps[True]) <= 1) > 0.9


def _check(transform: Transform, before: Sample, out: tuple[int, int], seed: int) -> list[float]:
    """Check what must always hold; return how far each object's pixels end inside its box, at most."""
    gaps: list[float] = []
    untouched = [before.image.clone(), before.boxes.clone(), before.semantic.clone(), before.instances.clone()]
    after = transform(before, out, _generator(seed))
    for tensor, original in zip(
        (before.image, before.boxes, before.semantic, before.instances), untouched, strict=True
    ):
        assert torch.equal(tensor, original)

    instances, semantic = _array(after.instances), _array(after.semantic)
    boxes, labels = after.boxes.as_subclass(Tensor).numpy(), after.labels.tolist()
    assert instances.shape == semantic.shape == after.size
    assert set(np.unique(semantic)) <= set(np.unique(_array(before.semantic))) | {255}
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
        inwards = (_bounds(mask) - box) * [1, 1, -1, -1]
        assert inwards.min() > -0.51  # a pixel belongs to an object where its centre does
        gaps.append(inwards.max())
    return gaps


SIDES = st.integers(40, 200)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    height=st.integers(40, 200), width=st.integers(40, 200), out=st.tuples(st.integers(40, 200), st.integers(40, 200))
)
def test_letterbox_lies_where_its_placement_says(height: int, width: int, out: tuple[int, int]) -> None:
    image, placement = letterbox_image(_ramps(height, width), out)
    assert image.shape == (3, *out)
    for axis, original in ((0, width), (1, height)):
        scale, offset = _measure(image, axis, original)
        assert abs(offset) < 0.6 and abs(scale * original + offset - placement.scale[1 - axis] * original) < 0.6
    new = [round(side * scale) for side, scale in zip((height, width), placement.scale, strict=True)]
    assert new[0] == out[0] or new[1] == out[1]
    assert (image[2, : new[0], : new[1]] == 255).all()
    assert (image[:, new[0] :] == 114).all() and (image[:, :, new[1] :] == 114).all()


@pytest.mark.parametrize(("height", "width", "out"), [(37, 91, (64, 64)), (91, 37, (64, 48)), (33, 47, (100, 131))])
def test_letterboxed_maps_by_brute_force(height: int, width: int, out: tuple[int, int]) -> None:
    before = _blobs(height, width, 1)
    after = letterbox_sample(before, out)
    factor = min(out[0] / height, out[1] / width)
    new_height, new_width = round(height * factor), round(width * factor)
    source, expected = _array(before.instances), np.zeros(out, dtype=int)
    classes, expected_classes = _array(before.semantic), np.full(out, 255)
    for i in range(new_height):
        for j in range(new_width):
            y, x = int((i + 0.5) * height / new_height), int((j + 0.5) * width / new_width)
            expected[i, j], expected_classes[i, j] = source[y, x], classes[y, x]
    assert np.array_equal(_array(after.instances), expected)
    assert np.array_equal(_array(after.semantic), expected_classes)
    scale = np.array([new_width / width, new_height / height] * 2)
    assert np.allclose(after.boxes.numpy(), before.boxes.numpy() * scale, atol=1e-4)
    assert after.placement is not None
    assert after.placement.scale == (new_height / height, new_width / width) and after.placement.offset == (0, 0)


def test_letterbox_of_extreme_shapes() -> None:
    placement = letterbox_placement((1, 1000), (64, 64))
    assert placement.scale == (1.0, 0.064)
    image, _ = letterbox_image(torch.zeros(3, 1, 1000, dtype=torch.uint8), (64, 64))
    assert (image[:, 0] == 0).all() and (image[:, 1:] == 114).all()


def test_letterboxing_twice_keeps_the_way_back() -> None:
    sample = letterbox_sample(letterbox_sample(_blobs(50, 80, 0), (64, 64)), (128, 96))
    assert sample.placement is not None
    assert sample.placement.original_size == (50, 80) and sample.placement.input_size == (128, 96)
    assert sample.placement.scale == pytest.approx((40 / 50 * 1.5, 64 / 80 * 1.5), abs=0.02)


@pytest.mark.parametrize("seed", range(12))
def test_scale_jitter_moves_the_boxes_as_the_image(seed: int) -> None:
    """The move is read off the image and applied to the boxes: under a pixel apart."""
    height, width, out = 120 + 7 * seed, 200 - 5 * seed, (97, 131)
    before = _blobs(height, width, seed).replace(image=_ramps(height, width), instances=None, semantic=None)
    after = RandomScaleJitter(0.5, 2.5, min_visible=0.0)(before, out, _generator(seed))
    x_scale, x_offset = _measure(after.image.as_subclass(Tensor), 0, width)
    y_scale, y_offset = _measure(after.image.as_subclass(Tensor), 1, height)
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
        before = _blobs(90, 120, seed, round_=False).replace(image=_ramps(90, 120))
        after = RandomScaleJitter(0.1, 2.0)(before, (96, 128), _generator(seed))
        assert after.size == (96, 128)
        fit = min(96 / 90, 128 / 120)
        scale = (after.image[2] == 255).any(0).sum().item() / 120 / fit  # under 1, the width that is no padding
        scales.append(scale)
        padding = _array(after.image)[2] == 114
        assert (_array(after.semantic)[padding] == 255).all() and not _array(after.instances)[padding].any()
        instances = _array(after.instances)
        for row, box in enumerate(after.boxes.numpy()):
            mask = instances == row + 1
            if mask.any():
                assert np.abs(_bounds(mask) - box).max() <= 1
    assert 0.09 < min(scales) < 0.14
    below = np.mean(np.array(scales) < 0.99)
    assert 0.62 < below < 0.92  # log(10) / log(20) = 0.77


@pytest.mark.parametrize("seed", range(8))
def test_crops_as_torchvision_cuts_them(seed: int) -> None:
    """The window is read off the image, whose pixels hold their place."""
    before = _blobs(70, 90, seed)
    image = torch.empty(3, 70, 90, dtype=torch.uint8)
    image[0], image[1], image[2] = torch.arange(90), torch.arange(70)[:, None], 255
    before = before.replace(image=type(before.image)(image))
    after = RandomCrop(0.3, 0.9, min_visible=0.0)(before, (1, 1), _generator(seed))
    (height, width), (left, top) = after.size, after.image[:2, 0, 0].tolist()
    assert (height, width) != (70, 90)
    for name in ("image", "semantic", "instances"):
        got, source = getattr(after, name), getattr(before, name)
        if name == "instances":  # numbered anew
            got, source = got > 0, source > 0
        assert torch.equal(got.as_subclass(Tensor), F.crop(source.as_subclass(Tensor), top, left, height, width))
    boxes, _ = F.crop_bounding_boxes(before.boxes.as_subclass(Tensor), before.boxes.format, top, left, height, width)
    boxes = boxes.clamp(torch.zeros(4), torch.tensor([width, height] * 2, dtype=torch.float32))
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    simple = RandomCrop(0.3, 0.9, min_visible=0.0)(before.replace(instances=None), (1, 1), _generator(seed))
    assert simple.size == after.size and torch.equal(simple.boxes.as_subclass(Tensor), boxes[kept])
    assert torch.equal(simple.labels, before.labels[kept])


def test_scale_jitter_covers_its_range() -> None:
    sample = _blobs(64, 64, 0).replace(image=_ramps(64, 64))
    scales = [
        _measure(RandomScaleJitter(0.5, 2.0)(sample, (64, 64), _generator(seed)).image.as_subclass(Tensor), 0, 64)[0]
        for seed in range(60)
    ]
    assert 0.45 < min(scales) < 0.6 and 1.7 < max(scales) < 2.1
    assert 0.35 < np.mean(np.array(scales) < 1) < 0.65  # halving is as likely as doubling


def _one_object(instance_map: bool) -> Sample:
    """A 10 x 10 square at the top left of a 20 x 20 image, of which a window may be cut."""
    instances = np.zeros((20, 20), dtype=np.int32)
    instances[:10, :10] = 1
    return make_sample(
        torch.zeros(3, 20, 20, dtype=torch.uint8),
        boxes=[[0, 0, 10, 10], [12, 12, 20, 20]],
        labels=[0, 1],
        crowd=[False, True],
        semantic=(instances > 0).astype(np.uint8),
        instances=instances if instance_map else None,
        supervision=Supervision.full(TAXONOMY),
    )


@pytest.mark.parametrize("instance_map", [True, False])
@pytest.mark.parametrize(("left", "target"), [(5, True), (7, True), (8, False)])
def test_cut_objects_become_crowds_when_too_little_is_left(instance_map: bool, left: int, target: bool) -> None:
    """Cut by hand at columns 5, 7 and 8 of 10: shares of 0.5, 0.3 and 0.2 against a limit of 0.25."""
    after = place(_one_object(instance_map), (0, left, 20, 12), (20, 12), (20, 12), (0, 0), min_visible=0.25)
    assert after.boxes.tolist() == [[0, 0, 10 - left, 10], [12 - left, 12, 12, 20]]
    assert after.crowd.tolist() == [not target, True]
    assert (_array(after.semantic)[:10, : 10 - left] == 1).all()  # its pixels keep their class
    if instance_map:
        assert (_array(after.instances) == 1).sum() == ((10 - left) * 10 if target else 0)


def test_objects_outside_the_window_are_gone() -> None:
    after = place(_one_object(True), (11, 11, 9, 9), (9, 9), (9, 9), (0, 0), min_visible=0.25)
    assert after.boxes.tolist() == [[1, 1, 9, 9]] and after.crowd.tolist() == [True] and after.labels.tolist() == [1]
    assert _array(after.instances).max() == 0


def test_a_cut_slanted_object_gets_the_box_of_what_is_left() -> None:
    sample = _one_object(True)
    instances = np.eye(20, dtype=np.int32)  # a diagonal from corner to corner
    sample = make_sample(
        sample.image.as_subclass(Tensor),
        boxes=[[0, 0, 20, 20]],
        labels=[0],
        crowd=[False],
        instances=instances,
        supervision=sample.supervision,
    )
    after = place(sample, (0, 0, 20, 8), (20, 8), (20, 8), (0, 0), min_visible=0.1)
    assert after.boxes.tolist() == [[0, 0, 8, 8]]  # not [0, 0, 8, 20]


def test_a_box_larger_than_its_visible_pixels_is_only_clipped() -> None:
    """As of an object behind another, boxed as a whole."""
    sample = _one_object(True)
    sample = make_sample(
        sample.image.as_subclass(Tensor),
        boxes=[[0, 0, 16, 18]],
        labels=[0],
        crowd=[False],
        instances=_array(sample.instances),
        supervision=sample.supervision,
    )
    after = place(sample, (0, 0, 20, 9), (20, 9), (20, 9), (0, 0), min_visible=0.1)
    assert after.boxes.tolist() == [[0, 0, 9, 18]]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_by_hand(turns: int) -> None:
    before = _blobs(23, 41, 3)
    after = rotate90(before, turns)
    assert np.array_equal(_array(after.image), np.rot90(_array(before.image), turns, (1, 2)))
    expected = np.rot90(_array(before.instances), turns)
    assert np.array_equal(_array(after.instances), expected)
    for row, box in enumerate(after.boxes.tolist()):
        assert box == _bounds(expected == row + 1)
    assert torch.equal(rotate90(after, 4 - turns).boxes, before.boxes)


def test_flips_by_hand() -> None:
    before = _blobs(23, 41, 3)
    for horizontal, vertical in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        after = RandomFlip(horizontal, vertical)(before, (1, 1), _generator())
        axes = [axis for axis, chosen in ((1, horizontal), (0, vertical)) if chosen]
        expected = np.flip(_array(before.instances), axes)
        assert np.array_equal(_array(after.instances), expected)
        assert np.array_equal(_array(after.image), np.flip(_array(before.image), [axis + 1 for axis in axes]))
        assert [_bounds(expected == row + 1) for row in range(len(after.labels))] == after.boxes.tolist()


def test_random_choices_are_all_taken() -> None:
    before = _blobs(23, 41, 3)
    turned = {RandomRotate90()(before, (1, 1), _generator(seed)).image.numpy().tobytes() for seed in range(40)}
    flipped = {RandomFlip(0.5, 0.5)(before, (1, 1), _generator(seed)).image.numpy().tobytes() for seed in range(40)}
    assert len(turned) == 4 and len(flipped) == 4


@pytest.mark.parametrize(
    ("brightness", "contrast", "saturation"),
    [(1.2, 1.0, 1.0), (1.0, 1.3, 1.0), (1.0, 1.0, 1.4), (0.8, 0.7, 0.6), (1.1, 1.2, 0.5)],
)
def test_colors_as_torchvision_changes_them(brightness: float, contrast: float, saturation: float) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(90, 150, (3, 31, 17), dtype=np.uint8))
    # In floating point and mid range, so that torchvision neither clips nor rounds between the steps.
    expected = F.adjust_saturation(image.float() / 255, saturation)
    expected = F.adjust_contrast(F.adjust_brightness(expected, brightness), contrast) * 255
    got = adjust_colors(image, brightness, contrast, saturation, 0.0).float()
    assert (got - expected).abs().max() <= 0.51


def test_hue_turns_the_color_circle() -> None:
    color = torch.tensor([180, 100, 90], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    assert (adjust_colors(color, 1, 1, 1, 0.0).int() - color.int()).abs().max() == 0
    half = adjust_colors(color, 1, 1, 1, 0.5).float()[:, 0, 0]
    weights = torch.tensor([0.299, 0.587, 0.114])
    luma = float(weights @ color[:, 0, 0].float())
    assert float(weights @ half) == pytest.approx(luma, abs=1)  # as bright as before
    assert torch.allclose(half, 2 * luma - color[:, 0, 0].float(), atol=1.1)  # opposite on the circle


def test_color_jitter_leaves_geometry_and_other_channel_counts_alone() -> None:
    sample = _blobs(20, 20, 0)
    after = ColorJitter(p=1.0)(sample, (20, 20), _generator(1))
    assert after.boxes is sample.boxes and after.semantic is sample.semantic
    assert not torch.equal(after.image, sample.image)
    assert ColorJitter(p=0.0)(sample, (20, 20), _generator(1)) is sample
    mono = torch.full((1, 4, 4), 100, dtype=torch.uint8)
    assert adjust_colors(mono, 1.5, 1.0, 1.0, 0.1).unique().tolist() == [150]


@pytest.mark.parametrize("kind", ["no objects", "crowd only", "no maps", "no semantic", "outside"])
def test_unusual_samples_pass(kind: str) -> None:
    sample = _blobs(40, 60, 0)
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
        after = Compose([RandomRotate90(), *default_train_transforms()])(sample, (32, 48), _generator(seed))
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
    one = pipeline(sample, (64, 64), _generator(5))
    torch.manual_seed(1)
    two = pipeline(sample, (64, 64), _generator(5))
    other = pipeline(sample, (64, 64), _generator(6))
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
