"""The drawn scenes: exact truth, by definition of truth, and the promised variety."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Polygon
from torch import Tensor
from torch.utils.data import DataLoader

from ocrnet_pl.data.sources.synthetic import DEFAULT_SHAPES, SHAPES, STUFF, SyntheticSource
from ocrnet_pl.structures import Sample


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    source = SyntheticSource(length=150, seed=7, size=(96, 128))
    return [source[i] for i in range(len(source))]


def _same(one: Sample, two: Sample) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(two, name)) for name in ("image", "boxes", "labels", "instances")
    )


def _first(items: list[Sample]) -> Sample:
    return items[0]


def test_scenes_depend_on_seed_and_index_alone() -> None:
    one, two = SyntheticSource(8, seed=1, size=64), SyntheticSource(20, seed=1, size=64)
    two[5], two[3]  # what was drawn before makes no difference
    assert _same(one[3], two[3])
    assert not _same(one[3], one[4])
    assert not _same(one[3], SyntheticSource(8, seed=2, size=64)[3])
    worker = list(DataLoader(one, batch_size=1, num_workers=2, collate_fn=_first))
    assert all(_same(sample, one[i]) for i, sample in enumerate(worker))


def test_boxes_are_the_bounds_of_the_visible_pixels(scenes: list[Sample]) -> None:
    for scene in scenes:
        instances = scene.instances.as_subclass(Tensor).numpy()
        assert set(np.unique(instances)) - {0} == set(range(1, len(scene.labels) + 1))
        for row, box in enumerate(scene.boxes.tolist()):
            ys, xs = np.nonzero(instances == row + 1)
            assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_semantic_agrees_with_instances(scenes: list[Sample]) -> None:
    taxonomy = SyntheticSource(1).taxonomy
    for scene in scenes:
        instances, semantic = scene.instances.as_subclass(Tensor), scene.semantic.as_subclass(Tensor)
        assert scene.size == (96, 128) and semantic.shape == instances.shape == scene.size
        assert semantic[instances == 0].max() < len(STUFF)
        for row, label in enumerate(scene.labels.tolist()):
            expected = taxonomy.detection_to_semantic[label]
            assert (semantic[instances == row + 1] == expected).all()


def test_variety(scenes: list[Sample]) -> None:
    labels = torch.cat([scene.labels for scene in scenes])
    boxes = torch.cat([scene.boxes.as_subclass(Tensor) for scene in scenes])
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert torch.bincount(labels, minlength=len(DEFAULT_SHAPES)).min() > 0.1 * len(labels)
    assert sides.max() / sides.min() >= 15  # the whole range is 20:1; extremes are rare
    semantic = torch.stack([scene.semantic.as_subclass(Tensor) for scene in scenes])
    shares = torch.bincount(semantic.flatten().long(), minlength=8) / semantic.numel()
    assert shares[: len(STUFF)].min() > 0.1 and shares.min() > 0.01
    # Occlusion: some boxes overlap.
    assert any(
        (scene.instances.as_subclass(Tensor)[int(y0) : int(y1), int(x0) : int(x1)].unique() > 0).sum() > 1
        for scene in scenes
        for x0, y0, x1, y1 in scene.boxes.tolist()
    )


def test_objects_that_others_hide_are_left_out() -> None:
    source = SyntheticSource(30, seed=0, size=64, min_objects=30, max_objects=30, min_visible=0.5)
    for i in range(len(source)):
        scene = source[i]
        areas = np.bincount(scene.instances.numpy().ravel(), minlength=len(scene.labels) + 1)[1:]
        assert len(scene.labels) < 30
        assert areas.min() >= 4


def test_colors_alone_do_not_tell_the_stuff(scenes: list[Sample]) -> None:
    """The mean colors of sky and water overlap between scenes."""
    means: list[list[Tensor]] = [[], []]
    for scene in scenes:
        for stuff in (0, 1):
            mask = scene.semantic.as_subclass(Tensor) == stuff
            if mask.sum() > 200:
                means[stuff].append(scene.image.as_subclass(Tensor)[:, mask].float().mean(1))
    sky, water = torch.stack(means[0]), torch.stack(means[1])
    assert (sky.amin(0) < water.amax(0)).all() and (water.amin(0) < sky.amax(0)).all()


@pytest.mark.parametrize(
    ("name", "corners"),
    [
        ("square", [(0.7, 0.7), (-0.7, 0.7), (-0.7, -0.7), (0.7, -0.7)]),
        ("triangle", [(0, -1), (0.75**0.5, 0.5), (-(0.75**0.5), 0.5)]),
        (
            "star",
            [
                (radius * np.cos(k * np.pi / 5), radius * np.sin(k * np.pi / 5))
                for k, radius in enumerate([1.0, 0.45] * 5)
            ],
        ),
        (
            "cross",
            [
                (sign_x * x, sign_y * y)
                for sign_x, sign_y, corners in [
                    (1, 1, [(0.93, 0.32), (0.32, 0.32), (0.32, 0.93)]),
                    (-1, 1, [(0.32, 0.93), (0.32, 0.32), (0.93, 0.32)]),
                    (-1, -1, [(0.93, 0.32), (0.32, 0.32), (0.32, 0.93)]),
                    (1, -1, [(0.32, 0.93), (0.32, 0.32), (0.93, 0.32)]),
                ]
                for x, y in corners
            ],
        ),
    ],
)
def test_outlines_are_the_polygons_they_are_named_after(name: str, corners: list[tuple[float, float]]) -> None:
    points = np.random.default_rng(0).uniform(-1.1, 1.1, (4000, 2)).astype(np.float32)
    distance = SHAPES[name](points[:, 0], points[:, 1])
    inside = Polygon(corners).contains_points(points)
    clear = np.abs(distance) > 1e-3
    assert np.array_equal((distance <= 0)[clear], inside[clear])
    assert clear.mean() > 0.99


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": 0}, "length"),
        ({"seed": -1}, "seed"),
        ({"size": 8}, "size"),
        ({"min_objects": 5, "max_objects": 4}, "min_objects"),
        ({"min_size": 0.0}, "min_size"),
        ({"min_visible": 0.0}, "min_visible"),
        ({"shapes": ["disc", "oval"]}, "no shape 'oval'; choose from disc, square"),
        ({"shapes": ["disc", "disc"]}, "different"),
        ({"shapes": []}, "at least one"),
        ({"hue_shift": 1.5}, "hue_shift"),
        ({"same_class_overlap": -0.1}, "same_class_overlap"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SyntheticSource(**options)


def test_other_shapes_are_other_classes_in_the_order_in_which_they_are_named() -> None:
    source = SyntheticSource(4, size=96, shapes=["crescent", "disc", "cross"], min_size=0.5, max_size=0.6)
    assert [each.name for each in source.taxonomy.detection_categories] == ["crescent", "disc", "cross"]
    share: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for scene in (source[index] for index in range(4)):
        for number, (box, label) in enumerate(zip(scene.boxes, scene.labels, strict=True), 1):
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            share[int(label)].append(float((scene.instances == number).sum()) / area)
    # A disc fills pi / 4 of its box, the two others less, wherever they are not hidden.
    assert max(share[1]) == pytest.approx(np.pi / 4, abs=0.03) and max(share[0]) < 0.6 and max(share[2]) < 0.7


def test_turned_colors_change_the_objects_alone() -> None:
    plain, turned = (SyntheticSource(1, seed=5, hue_shift=shift)[0] for shift in (0.0, 0.5))
    assert torch.equal(plain.instances, turned.instances) and torch.equal(plain.labels, turned.labels)
    differs = (plain.image.as_subclass(Tensor) != turned.image.as_subclass(Tensor)).any(0)
    inside = plain.instances.as_subclass(Tensor).squeeze() > 0
    # The blurred outline of an object covers a pixel around it, and a little more at the tip of a star.
    grown = torch.nn.functional.max_pool2d(inside.float()[None, None], 3, 1, 1)[0, 0] > 0
    assert differs[inside].float().mean() > 0.9 and differs[~grown].float().mean() < 0.002


def _overlapping_pairs(source: SyntheticSource) -> tuple[int, int]:
    """Return the number of pairs of objects whose boxes overlap, of one class and of two."""
    same = other = 0
    for scene in source:
        boxes, labels = scene.boxes.as_subclass(Tensor), scene.labels
        low, high = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
        pairs = (high > low).all(-1).triu(1)
        alike = labels[:, None] == labels
        same, other = same + int((pairs & alike).sum()), other + int((pairs & ~alike).sum())
    return same, other


def test_objects_of_one_class_overlap_on_request() -> None:
    options: dict[str, Any] = {"length": 30, "seed": 3, "size": 96, "max_size": 0.4}
    same, other = _overlapping_pairs(SyntheticSource(**options, same_class_overlap=0.8))
    assert same > 2 * other > 0
    same, other = _overlapping_pairs(SyntheticSource(**options))
    assert same < other


def test_overlapping_scenes_are_exact_too_and_depend_on_the_seed_alone() -> None:
    # Large objects at the edges, from which the ones over them would leave the scene.
    one, two = (SyntheticSource(20, seed=1, size=(64, 80), same_class_overlap=1.0, min_visible=0.1) for _ in range(2))
    scenes = [one[index] for index in range(20)]
    test_boxes_are_the_bounds_of_the_visible_pixels(scenes)
    assert all(_same(scene, two[index]) for index, scene in enumerate(scenes))
    assert all(len(set(scene.labels.tolist())) <= 1 for scene in scenes)


def test_scenes_without_the_option_are_what_they_were() -> None:
    scenes = SyntheticSource(4, seed=11, size=(64, 80))
    content = b"".join(part.numpy().tobytes() for scene in scenes for part in (scene.instances, scene.labels))
    assert hashlib.sha256(content).hexdigest() == "1610eb696218b2a9637520634ce3ff6a869a98637929cede5733b3a2470b7a20"


def test_a_scene_without_objects() -> None:
    scene = SyntheticSource(1, min_objects=0, max_objects=0)[0]
    assert scene.boxes.shape == (0, 4) and scene.instances.max() == 0


def test_index_out_of_range() -> None:
    with pytest.raises(IndexError):
        SyntheticSource(3)[3]
