"""Drawn fields, shelves and streets: exact truth, what was promised, the same scenes for the same seed and index."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ocrnet_pl.data.sources.crop_rows import CropRows
from ocrnet_pl.data.sources.scenes import Scene, SceneSource, Sprite
from ocrnet_pl.data.sources.shelves import Shelves
from ocrnet_pl.data.sources.street_parts import (
    BUILDING,
    CAR,
    PAVEMENT,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    SKY,
    Standing,
    View,
)
from ocrnet_pl.data.sources.streets import Streets
from ocrnet_pl.structures import Sample, Taxonomy

Kind = CropRows | Shelves | Streets
KINDS: list[type[Kind]] = [CropRows, Shelves, Streets]


@cache
def scenes(kind: type[Kind]) -> list[Sample]:
    return list(kind(length=20, seed=7, size=(96, 128)))


def of_class(source: SceneSource, samples: list[Sample], name: str) -> list[tuple[int, np.ndarray]]:
    """The scene's number and the mask of each object of a class."""
    label = [category.name for category in source.taxonomy.detection_categories].index(name)
    return [
        (number, sample.instances.as_subclass(Tensor).numpy() == row + 1)
        for number, sample in enumerate(samples)
        if sample.instances is not None
        for row in np.flatnonzero(sample.labels.numpy() == label)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_depend_on_seed_and_index_alone(kind: type[Kind]) -> None:
    again = kind(length=90, seed=7, size=(96, 128))
    again[50]  # what was drawn before makes no difference
    for name in ("image", "boxes", "labels", "instances", "semantic"):
        assert torch.equal(getattr(again[3], name), getattr(scenes(kind)[3], name))
    assert not torch.equal(kind(4, seed=8, size=(96, 128))[3].image, again[3].image)
    assert not torch.equal(again[4].image, again[3].image)
    assert again.image_size(3) == scenes(kind)[3].size == (96, 128)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_and_classes_are_those_of_the_visible_pixels(kind: type[Kind]) -> None:
    taxonomy = kind(1).taxonomy
    stuff = taxonomy.num_semantic - taxonomy.num_detection
    for scene in scenes(kind):
        assert scene.instances is not None and scene.semantic is not None
        instances, semantic = (part.as_subclass(Tensor).numpy() for part in (scene.instances, scene.semantic))
        assert set(np.unique(instances)) - {0} == set(range(1, len(scene.labels) + 1))
        assert semantic[instances == 0].max() < stuff
        for row, (box, label) in enumerate(zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True)):
            ys, xs = np.nonzero(instances == row + 1)
            assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert set(semantic[ys, xs]) == {taxonomy.detection_to_semantic[label]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_is_drawn(kind: type[Kind]) -> None:
    taxonomy = kind(1).taxonomy
    classes = torch.cat([scene.semantic.as_subclass(Tensor).reshape(-1) for scene in scenes(kind)])
    assert set(classes.unique().tolist()) == set(range(taxonomy.num_semantic))
    assert set(torch.cat([scene.labels for scene in scenes(kind)]).tolist()) == set(range(taxonomy.num_detection))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [32, (33, 150), (200, 40)])
def test_any_size(kind: type[Kind], size: Any) -> None:
    for scene in kind(3, seed=1, size=size):
        assert scene.size == (size if isinstance(size, tuple) else (size, size))
        assert len(scene.labels) == 0 or bool((scene.boxes[:, 2:] > scene.boxes[:, :2]).all())


def test_crop_stands_in_rows_and_weeds_between_them() -> None:
    field = CropRows(length=16, seed=5, size=96, min_rows=3, max_rows=3, max_weeds=20)
    samples = list(field)

    def spread(name: str) -> float:
        """Mean resultant length of the distances to the rows, one turn from row to row: 1 is in rows."""
        found = []
        for number, sample in enumerate(samples):
            rng = np.random.default_rng((5, number))
            count = rng.integers(3, 4)
            angle = rng.normal(0, 0.12) + np.pi / 2 * rng.integers(2)
            places = [np.argwhere(mask).mean(0) for image, mask in of_class(field, [sample], name) if image == 0]
            across = np.array([place @ [np.cos(angle), -np.sin(angle)] for place in places])
            if len(places) > 3:
                found.append(np.abs(np.exp(2j * np.pi * across / (96 / count)).mean()))
        return float(np.mean(found))

    assert spread("crop") > 0.8
    assert spread("weed") < spread("crop") - 0.1


def test_weeds_have_another_outline_than_crop() -> None:
    field = CropRows(length=14, seed=2, size=128, max_weeds=12)
    samples = list(field)

    def filled(name: str) -> float:
        """Share of the box that large and whole plants fill."""
        shares = []
        for _, mask in of_class(field, samples, name):
            ys, xs = np.nonzero(mask)
            inside = min(ys.min(), xs.min()) > 0 and max(ys.max(), xs.max()) < 127
            if inside and min(np.ptp(ys), np.ptp(xs)) > 14:
                shares.append(len(ys) / (np.ptp(ys) + 1) / (np.ptp(xs) + 1))
        assert len(shares) > 10
        return float(np.median(shares))

    assert filled("crop") > 0.55 > 0.45 > filled("weed")


def test_goods_stand_on_boards_and_gaps_reach_from_board_to_board() -> None:
    shelf = Shelves(1)
    names = [category.name for category in shelf.taxonomy.semantic_categories]
    board, back = names.index("board"), names.index("back")
    tag = shelf.taxonomy.detection_to_semantic[names.index("price tag") - 3]
    gaps = 0
    for name in ("can", "carton", "bottle", "bag", "gap"):
        for number, mask in of_class(shelf, scenes(Shelves), name):
            semantic = scenes(Shelves)[number].semantic
            assert semantic is not None
            classes = semantic.as_subclass(Tensor).numpy()
            ys, xs = np.nonzero(mask)
            below = classes[ys.max() + 1, xs[ys == ys.max()]]
            assert set(below.tolist()) <= {board, tag}
            if name == "gap":
                gaps += 1
                assert (np.ptp(ys) + 1) * (np.ptp(xs) + 1) == len(ys)
                assert ys.min() == 0 or set(classes[ys.min() - 1, xs[ys == ys.min()]].tolist()) <= {board, tag}
                beside = [column for column in (xs.min() - 1, xs.max() + 1) if 0 <= column < 128]
                # Beside it are goods, or the wall in the slit between two facings, never another gap.
                assert all(classes[row, column] != names.index("gap") for column in beside for row in (ys.max(),))
    assert gaps > 10 and back == 0


def test_equal_goods_stand_side_by_side() -> None:
    shelf = Shelves(length=10, seed=4, size=128, gaps=0.0, fallen=0.0)
    equal = 0
    for sample in shelf:
        order = sorted(zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True), key=lambda each: each[0][3::-3])
        equal += sum(a[1] == b[1] and a[0][1] == b[0][1] and a[0][3] == b[0][3] for a, b in pairwise(order))
        assert 5 not in sample.labels
    assert equal > 60


def test_fallen_goods_lie() -> None:
    upright, fallen = (Shelves(length=10, seed=4, size=128, gaps=0.0, fallen=share) for share in (0.0, 1.0))

    def wide(source: Shelves) -> float:
        boxes = torch.cat([s.boxes.as_subclass(Tensor)[s.labels == 2] for s in source])
        return float((boxes[:, 2] - boxes[:, 0] > boxes[:, 3] - boxes[:, 1]).float().mean())

    assert wide(fallen) > 0.15 > 0.05 > wide(upright)


class Fence(SceneSource):
    """A square of 8 pixels behind a vertical board of the stuff "fence", which covers this many columns."""

    def __init__(self, columns: int) -> None:
        super().__init__(1, 0, 32, 0.5, Taxonomy.build(things=["square"], stuff=["ground", "fence"]), noise=(0.0, 0.0))
        self.columns = columns

    def draw(self, rng: np.random.Generator) -> Scene:
        def sprite(label: int, top: int, height: int, width: int, value: float, is_stuff: bool) -> Sprite:
            color = np.full((height, width, 3), value, dtype=np.float32)
            return Sprite(label, top, 10, np.ones((height, width), dtype=np.float32), color, self.size, is_stuff)

        things = [sprite(0, 10, 8, 8, 200.0, False), sprite(1, 0, 32, self.columns, 90.0, True)]
        ground = np.zeros((32, 32, 3), dtype=np.float32)
        return Scene(ground, np.zeros((32, 32), dtype=np.uint8), self.visible(things))


def test_stuff_in_front_takes_the_pixels_and_the_box_is_around_the_rest() -> None:
    seen = Fence(3)[0]
    assert seen.boxes.tolist() == [[13, 10, 18, 18]] and seen.instances is not None and seen.semantic is not None
    instances = np.zeros((32, 32), dtype=int)
    instances[10:18, 13:18] = 1
    semantic = 2 * instances
    semantic[:, 10:13] = 1
    assert np.array_equal(seen.instances.numpy(), instances)
    assert np.array_equal(seen.semantic.numpy(), semantic)
    assert np.array_equal(seen.image.numpy()[0], np.array([0, 90, 200])[semantic])
    # Five of eight columns hidden: less than half of the square is seen.
    hidden = Fence(5)[0]
    assert len(hidden.boxes) == 0 and hidden.semantic is not None
    assert set(hidden.semantic.unique().tolist()) == {0, 1}


def drawn(source: Streets, index: int) -> tuple[View, list[Standing]]:
    """The camera of a scene, and all that stands in it, the one farthest back first."""
    view = View.drawn(np.random.default_rng((source.seed, index)), source.size)
    things = source.draw(np.random.default_rng((source.seed, index))).things
    return view, [thing for thing in things if isinstance(thing, Standing)]


def test_what_is_painted_is_what_is_labelled() -> None:
    source = Streets(length=4, seed=11, size=(96, 160))
    for index in range(4):
        sample = source[index]
        assert sample.instances is not None and sample.semantic is not None
        # Every object in a color of its own and without soft edges: what is then seen is who is where.
        canvas = np.zeros((96, 160, 3), dtype=np.float32)
        _, things = drawn(source, index)
        for number, thing in enumerate(things, 1):
            thing._alpha = (thing._alpha >= 0.5).astype(np.float32)
            thing._color = np.full_like(thing._color, number)
            thing.paint(canvas)
        shown = canvas[..., 0].astype(int)
        is_object = np.array([False] + [not thing.is_stuff for thing in things])
        numbers = np.where(is_object, np.cumsum(is_object), 0)
        assert np.array_equal(sample.instances.numpy(), numbers[shown])
        of_detection = source.taxonomy.detection_to_semantic
        classes = np.array([0] + [t.label if t.is_stuff else of_detection[t.label] for t in things])
        assert np.array_equal(sample.semantic.numpy()[shown > 0], classes[shown][shown > 0])
        assert sample.labels.tolist() == [thing.label for thing in things if not thing.is_stuff]


def test_poles_are_one_or_two_pixels_wide_and_labelled() -> None:
    source = Streets(length=10, seed=3, size=(64, 256), max_cars=0, max_people=0, max_poles=14)
    found = []
    for index in range(10):
        semantic = source[index].semantic
        assert semantic is not None
        for pole in (each for each in drawn(source, index)[1] if each.is_stuff and each.label == POLE):
            found.append(np.count_nonzero(pole.mask.any(0)))
            # What covers a pole is another piece in front of it, and never the background.
            assert pole.mask.all() and not set(semantic.numpy()[pole.window].flat) & {SKY, ROAD, BUILDING, PAVEMENT}
    assert len(found) > 40 and set(found) - {0} == {1, 2}


def test_far_things_are_small_and_all_stand_on_the_ground() -> None:
    source = Streets(length=12, seed=5)
    heights: dict[int, list[float]] = {CAR: [], PEDESTRIAN: []}
    for index in range(12):
        view, things = drawn(source, index)
        assert [thing.depth for thing in things] == sorted((thing.depth for thing in things), reverse=True)
        for thing in things:
            if thing.is_stuff or thing.label not in heights or np.count_nonzero(thing.mask) < thing.area:
                continue
            rows = thing.window[0].start + np.flatnonzero(thing.mask.any(1))
            # The ground at a distance lies as far below the horizon as the camera is high there.
            scale = view.focal / thing.depth
            assert abs(rows[-1] + 1 - view.horizon - scale * view.height) <= 1.5
            heights[thing.label].append(len(rows))
            tallest = 2.2 if thing.label == CAR else 1.9
            assert 1.1 * scale - 2 <= len(rows) <= tallest * scale + 2
    assert all(max(found) > 3 * min(found) for found in heights.values())


def test_signs_are_borne_by_poles() -> None:
    source = Streets(length=10, seed=6, max_people=0)
    signs = 0
    for index in range(10):
        view, things = drawn(source, index)
        poles = [thing for thing in things if thing.is_stuff and thing.label == POLE]
        for sign in (thing for thing in things if not thing.is_stuff and thing.label == SIGN):
            signs += 1
            (pole,) = [each for each in poles if abs(each.depth - sign.depth - 0.05) < 1e-6]
            if sign.window[1].start > 0 and sign.window[1].stop < view.size[1]:
                middle = (sign.window[1].start + sign.window[1].stop) / 2
                assert abs(middle - (pole.window[1].start + pole.window[1].stop) / 2) <= 1.5
                assert sign.window[0].start <= pole.window[0].start < sign.window[0].stop
    assert signs > 10


def test_light_differs_between_streets() -> None:
    bright = [float(sample.image.float().mean()) for sample in scenes(Streets)]
    assert max(bright) > 1.8 * min(bright)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (CropRows, {"length": 0}, "CropRows: length"),
        (CropRows, {"min_rows": 3, "max_rows": 2}, "min_rows"),
        (CropRows, {"max_weeds": -1}, "max_weeds"),
        (CropRows, {"min_visible": 0.0}, "min_visible"),
        (Shelves, {"size": 16}, "Shelves: size"),
        (Shelves, {"min_boards": 0}, "min_boards"),
        (Shelves, {"gaps": 1.5}, "gaps"),
        (Shelves, {"fallen": -0.1}, "fallen"),
        (Shelves, {"min_visible": 2.0}, "min_visible"),
        (Streets, {"size": (16, 64)}, "Streets: size"),
        (Streets, {"max_cars": -1}, "max_cars"),
        (Streets, {"max_people": -1}, "max_people"),
        (Streets, {"max_poles": -1}, "max_poles"),
        (Streets, {"length": 10**20}, "Streets: length must be from 1 to 1000000000, got 1000"),
        (Streets, {"size": 10**20}, "Streets: size"),
        (Streets, {"size": (20_000, 20_000)}, "size .* at most 200000000 pixels"),
        (Streets, {"max_cars": 10**20}, "Streets: max_cars must be from 0 to 65536"),
        (CropRows, {"max_rows": 10**20}, "1 <= min_rows <= max_rows <= 65536"),
    ],
)
def test_options_out_of_range(kind: type[Kind], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**options)
