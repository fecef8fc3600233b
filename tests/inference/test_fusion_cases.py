"""Fusion on drawn scenes, against what a person sees in them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from ocrnet_pl.inference import fusion, nesting, ownership
from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.pixels import SemanticMap, box_pixels
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.structures import Prediction
from tests.helpers.fusion_by_loops import fuse_by_loops, stuff_by_loops
from tests.helpers.fusion_drawings import CLASSES, SINGLE, TAXONOMY, Scene
from tests.helpers.fusion_drawings_several import SEVERAL

SCENES = SINGLE + SEVERAL
ROAD, SKY, CAR = range(3)
SEMANTIC = {category.name: category.semantic for category in TAXONOMY.semantic_categories}
DETECTION = {category.name: category.detection for category in TAXONOMY.detection_categories}


def read(scene: Scene) -> tuple[SemanticMap, Detections, list[str]]:
    """Return the pixels, the boxes best first, and the drawing of the owners."""
    rows = [line.split() for line in scene.drawing.split("\n") if line.strip()]
    probability = torch.full((len(SEMANTIC), len(rows), len(rows[0][0])), 0.02)
    for y, (pixels, _) in enumerate(rows):
        for x, letter in enumerate(pixels):
            if letter == "C":
                probability[:, y, x] = 0.04 / 3
                probability[ROAD, y, x], probability[CAR, y, x] = 0.5, 0.46
            else:
                probability[SEMANTIC[CLASSES[letter]], y, x] = 0.92
    order = sorted(range(len(scene.objects)), key=lambda row: -scene.objects[row].score)
    chosen = [scene.objects[row] for row in order]
    detections = Detections(
        torch.tensor([o.box for o in chosen], dtype=torch.float32).view(-1, 4),
        torch.tensor([o.score for o in chosen], dtype=torch.float32),
        torch.tensor([DETECTION[o.category] for o in chosen], dtype=torch.long),
    )
    return SemanticMap.of(probability), detections, [owners for _, owners in rows]


def fuse(scene: Scene) -> tuple[Prediction, list[int]]:
    """Return the fused prediction, and the number of the scene's object that each of its rows is."""
    semantic, detections, _ = read(scene)
    post = FusionPostProcess()
    post.settings = FusionSettings(min_stuff_area=1, raw_boxes=scene.raw_boxes, raw_pixels=scene.raw_pixels)
    corrected = post.correct(detections, semantic, TAXONOMY)
    left = list(range(len(scene.objects)))
    numbers = []
    rows = zip(corrected.prediction.labels.tolist(), corrected.confidence, corrected.prediction.boxes, strict=True)
    for label, confidence, box in rows:
        # Boxes move a little; those of the same class and score are told apart by their places, doubles by their order.
        found = min(
            (o for o in left if DETECTION[scene.objects[o].category] == label),
            key=lambda o: (
                abs(scene.objects[o].score - confidence) > 1e-6,
                (box - torch.tensor(scene.objects[o].box)).abs().sum(),
            ),
        )
        left.remove(found)
        numbers.append(found + 1)
    return post.with_panoptic(corrected, TAXONOMY), numbers


def faults(scene: Scene) -> list[str]:
    """Return in what the fused prediction is not what the scene's author sees."""
    prediction, numbers = fuse(scene)
    owners = read(scene)[2]
    semantic = read(scene)[0].labels.tolist()
    assert prediction.instances is not None and prediction.panoptic is not None
    instances, panoptic = prediction.instances.tolist(), prediction.panoptic.tolist()
    # What each value of the panoptic map stands for: the number of an object, or the name of a stuff class.
    meaning: dict[int, int | str | None] = {0: None}
    for segment in prediction.segments:
        name = TAXONOMY.categories[segment.category].name
        meaning[segment.id] = name if segment.instance is None else numbers[segment.instance]
    shown = {what for what in meaning.values() if isinstance(what, int)}
    wrong = 0
    for y, line in enumerate(owners):
        for x, letter in enumerate(line):
            number, what = ([0, *numbers])[instances[y][x]], meaning[panoptic[y][x]]
            if letter == "?":
                wrong += not isinstance(what, int)
                continue
            owner = 0 if letter == "." else int(letter)
            # Stuff where it is seen; void where a thing is seen whose object is not in the map, or that has no box.
            category = TAXONOMY.semantic_categories[semantic[y][x]]
            want = owner if owner in shown else None if category.is_thing else category.name
            wrong += number != owner or what != want
    found = [f"{wrong} pixels"] if wrong else []
    for row, number in enumerate(numbers):
        own = scene.objects[number - 1]
        share = float(prediction.scores[row]) / own.score
        if (number in shown) != (own.fate in ("kept", "shown")):
            found.append(f"{number} {'is' if number in shown else 'is not'} in the map")
        right = {"kept": share >= 0.9, "shown": True, "doubted": share < 0.5, "left": abs(share - 1) < 1e-6}
        if not right[own.fate]:
            found.append(f"{number} keeps {share:.2f} of its score")
    return found


@pytest.mark.parametrize("scene", SCENES, ids=[scene.name for scene in SCENES])
def test_a_drawn_scene_is_seen_as_a_person_sees_it(scene: Scene) -> None:
    assert not faults(scene)


def random_scene(seed: int) -> tuple[SemanticMap, Detections]:
    """Return smooth noise for pixels, and boxes of three sizes, many of which lie in larger ones."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, len(SEMANTIC), 5, 6, generator=generator) * 2
    # Few classes, so that boxes of one class meet.
    noise[:, CAR] += 1.5
    logits = torch.nn.functional.interpolate(noise, size=(24, 32), mode="bilinear")[0]
    low = torch.rand(24, 2, generator=generator) * torch.tensor([26.0, 18.0]) - 2
    side = torch.tensor([4.0, 8.0, 16.0]).repeat(8)[:, None] * (0.8 + 0.4 * torch.rand(24, 2, generator=generator))
    scores = torch.rand(24, generator=generator).sort(descending=True).values
    labels = torch.randint(0, 8, (24,), generator=generator)
    labels[labels > 3] = DETECTION["car"]
    return SemanticMap.of(logits.softmax(0)), Detections(torch.cat((low, low + side), 1), scores, labels)


@pytest.mark.parametrize("seed", range(8))
def test_fusion_is_what_the_rules_in_the_documentation_give_by_plain_loops(seed: int) -> None:
    semantic, detections = random_scene(seed)
    post = FusionPostProcess(spread=(0.7, 1.5)[seed % 2], min_stuff_area=1)
    want = fuse_by_loops(detections, semantic, post.settings, TAXONOMY)
    corrected = post.correct(detections, semantic, TAXONOMY)
    got = post.with_panoptic(corrected, TAXONOMY)
    assert got.instances is not None
    order = sorted(range(24), key=lambda row: -want.scores[row])
    assert [order[row - 1] if row else -1 for row in got.instances.flatten().tolist()] == want.owner.flatten().tolist()
    torch.testing.assert_close(got.scores, torch.tensor([want.scores[row] for row in order]))
    torch.testing.assert_close(got.boxes, torch.tensor([want.boxes[row] for row in order]), atol=1e-4, rtol=1e-4)
    shown = [order[s.instance] for s in got.segments if s.instance is not None]
    assert sorted(shown) == want.shown

    # Stuff, with the limit on its size at that of one of its own regions, and just above it.
    sizes = sorted(len(own) for own in stuff_by_loops(want, post.settings, TAXONOMY).values())
    for limit in (sizes[len(sizes) // 2], sizes[len(sizes) // 2] + 1):
        post.settings = replace(post.settings, min_stuff_area=limit)
        got = post.with_panoptic(corrected, TAXONOMY)
        assert got.panoptic is not None
        stuff = {
            TAXONOMY.categories[s.category].semantic: {(y, x) for y, x in (got.panoptic == s.id).nonzero().tolist()}
            for s in got.segments
            if s.instance is None
        }
        assert stuff == stuff_by_loops(want, post.settings, TAXONOMY)


def test_the_random_scenes_hold_boxes_that_come_before_outer_ones() -> None:
    scenes = [random_scene(seed) for seed in range(8)]
    before = [fuse_by_loops(d, s, FusionSettings(), TAXONOMY).before for s, d in scenes]
    assert sum(map(len, before)) >= 8


@pytest.mark.parametrize("block", [1, 60])
def test_nesting_block_by_block_is_that_of_one_pass(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    post = FusionPostProcess()
    semantic, detections = random_scene(2)
    assert fuse_by_loops(detections, semantic, post.settings, TAXONOMY).before
    monkeypatch.setattr(fusion, "find_owners", ownership.owners_by_list)
    want = post.correct(detections, semantic, TAXONOMY)
    for module in (ownership, nesting):
        monkeypatch.setattr(module, "box_pixels", partial(box_pixels, block=block))
    monkeypatch.setattr(nesting, "nested_pairs", partial(nesting.nested_pairs, block=block))
    got = post.correct(detections, semantic, TAXONOMY)
    for name in ("boxes", "scores", "labels", "semantic", "instances"):
        assert torch.equal(getattr(got.prediction, name), getattr(want.prediction, name)), name
    assert torch.equal(got.fill, want.fill)


def test_deterministic_algorithms_give_the_same() -> None:
    semantic, detections = random_scene(2)
    want = FusionPostProcess().fuse(detections, semantic, TAXONOMY)
    torch.use_deterministic_algorithms(True)
    try:
        got = FusionPostProcess().fuse(detections, semantic, TAXONOMY)
    finally:
        torch.use_deterministic_algorithms(False)
    assert got.segments == want.segments
    for name in ("boxes", "scores", "instances", "panoptic"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name


def test_a_thin_object_of_real_size_stays_whole() -> None:
    y, x = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
    line = ((x - y).abs() <= 1) & (x >= 20) & (x < 80) & (y >= 20) & (y < 80)
    probability = torch.full((len(SEMANTIC), 100, 100), 0.02)
    probability[ROAD], probability[CAR] = torch.where(line, 0.02, 0.92), torch.where(line, 0.92, 0.02)
    found = Detections(torch.tensor([[20.0, 20.0, 80.0, 80.0]]), torch.tensor([0.95]), torch.tensor([0]))
    fused = FusionPostProcess().fuse(found, SemanticMap.of(probability), TAXONOMY)
    assert fused.masks is not None and fused.panoptic is not None
    assert torch.equal(fused.masks[0], line)
    assert fused.scores[0] > 0.9
    assert (fused.panoptic > 0).all()
    assert torch.equal(fused.boxes, found.boxes)
