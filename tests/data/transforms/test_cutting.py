"""Crops and erased rectangles: what becomes of the objects that they cut or hide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.transforms import RandomCrop, RandomErase
from ocrnet_pl.data.transforms.occlusion import hide
from ocrnet_pl.imaging.geometry import place
from ocrnet_pl.structures import Sample, Supervision
from tests.helpers.painted import TAXONOMY, array, bounds, generator, painted
from tests.helpers.shapes import blobs, flat


@pytest.mark.parametrize("seed", range(8))
def test_crops_as_torchvision_cuts_them(seed: int) -> None:
    """The window is read off the image, whose pixels hold their place."""
    before = blobs(70, 90, seed)
    image = torch.empty(3, 70, 90, dtype=torch.uint8)
    image[0], image[1], image[2] = torch.arange(90), torch.arange(70)[:, None], 255
    before = before.replace(image=type(before.image)(image))
    after = RandomCrop(0.3, 0.9, min_visible=0.0)(before, (1, 1), generator(seed))
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
    simple = RandomCrop(0.3, 0.9, min_visible=0.0)(before.replace(instances=None), (1, 1), generator(seed))
    assert simple.size == after.size and torch.equal(simple.boxes.as_subclass(Tensor), boxes[kept])
    assert torch.equal(simple.labels, before.labels[kept])


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
@pytest.mark.parametrize(
    ("left", "limit", "target"), [(5, 0.25, True), (7, 0.25, True), (8, 0.25, False), (5, 0.5, True), (5, 0.51, False)]
)
def test_cut_objects_become_crowds_when_less_than_the_limit_is_left(
    instance_map: bool, left: int, limit: float, target: bool
) -> None:
    """Cut by hand at columns 5, 7 and 8 of 10, which leaves shares of 0.5, 0.3 and 0.2."""
    after = place(_one_object(instance_map), (0, left, 20, 12), (20, 12), (20, 12), (0, 0), min_visible=limit)
    assert after.boxes.tolist() == [[0, 0, 10 - left, 10], [12 - left, 12, 12, 20]]
    assert after.crowd.tolist() == [not target, True]
    assert (array(after.semantic)[:10, : 10 - left] == 1).all()  # its pixels keep their class
    if instance_map:
        assert (array(after.instances) == 1).sum() == ((10 - left) * 10 if target else 0)


def test_objects_outside_the_window_are_gone() -> None:
    after = place(_one_object(True), (11, 11, 9, 9), (9, 9), (9, 9), (0, 0), min_visible=0.25)
    assert after.boxes.tolist() == [[1, 1, 9, 9]] and after.crowd.tolist() == [True] and after.labels.tolist() == [1]
    assert array(after.instances).max() == 0


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
        instances=array(sample.instances),
        supervision=sample.supervision,
    )
    after = place(sample, (0, 0, 20, 9), (20, 9), (20, 9), (0, 0), min_visible=0.1)
    assert after.boxes.tolist() == [[0, 0, 9, 18]]


def test_hiding_without_an_instance_map_goes_by_the_box() -> None:
    hidden = torch.zeros(24, 32, dtype=torch.bool)
    hidden[2:12, 2:9] = True  # seven of ten columns
    sample = flat((24, 32), 20, [(2, 2, 12, 12, 0)], instances=None)
    for limit, crowd in ((0.2, False), (0.4, True)):
        after = hide(sample, hidden, limit)
        assert after.boxes.tolist() == [[2, 2, 12, 12]] and after.crowd.tolist() == [crowd]
    hidden[2:12, 2:12] = True
    assert len(hide(sample, hidden, 0.2).labels) == 0
    crowd_row = sample.replace(crowd=torch.tensor([True]))
    assert len(hide(crowd_row, hidden, 0.2).labels) == 0
    hidden[5, 5] = False
    assert hide(crowd_row, hidden, 0.2).crowd.tolist() == [True]


@pytest.mark.parametrize("instances", [True, False])
def test_an_object_of_which_just_the_limit_stays_in_sight_remains_a_target(instances: bool) -> None:
    hidden = torch.zeros(24, 32, dtype=torch.bool)
    hidden[2:12, 2:7] = True  # five of ten columns
    sample = flat((24, 32), 20, [(2, 2, 12, 12, 0)], **({} if instances else {"instances": None}))
    assert [hide(sample, hidden, limit).crowd.tolist() for limit in (0.5, 0.51)] == [[False], [True]]


def test_erase_by_brute_force() -> None:
    erased = 0
    for seed in range(30):
        sample = painted(40, 50, seed)
        after = RandomErase(0.05, 0.4, min_visible=0.3, p=1.0)(sample, (1, 1), generator(seed))
        hole = (array(after.image) != array(sample.image)).any(0)
        top, left, bottom, right = (bounds(hole)[i] for i in (1, 0, 3, 2))
        share = (bottom - top) * (right - left) / 2000
        assert 0.03 < share < 0.45
        hole[top:bottom, left:right] = True
        assert np.array_equal(array(after.semantic), np.where(hole, 255, array(sample.semantic)))
        rows = []
        for row in range(len(sample.labels)):
            own = array(sample.instances) == row + 1
            rest = own & ~hole
            if rest.any():
                rows.append((bounds(rest), int(sample.labels[row]), bool(rest.sum() < 0.3 * own.sum())))
            erased += own.sum() > rest.sum()
        got = zip(after.boxes.int().tolist(), after.labels.tolist(), after.crowd.tolist(), strict=True)
        assert list(got) == rows
    assert erased > 20


@pytest.mark.parametrize("instance_map", [True, False])
def test_crops_keep_an_object(instance_map: bool) -> None:
    """One small object in a large image: most windows miss it, the crop never does."""
    sample = flat((100, 100), 20, [(80, 10, 90, 20, 1)], **({} if instance_map else {"instances": None}))
    sizes = set()
    for seed in range(60):
        after = RandomCrop(0.3, 0.6, min_visible=0.5)(sample, (1, 1), generator(seed))
        assert (~after.crowd).sum() == 1 and after.labels.tolist() == [1]
        x0, y0, x1, y1 = after.boxes[0].tolist()
        assert (x1 - x0) * (y1 - y0) >= 50
        assert (array(after.image)[0] == 30).sum() == (x1 - x0) * (y1 - y0)
        assert after.size == (100, 100) or all(30 <= side <= 60 for side in after.size)
        sizes.add(after.size)
    assert len(sizes) > 20


def test_crops_end_when_nothing_can_be_kept() -> None:
    huge = flat((60, 60), 20, [(0, 0, 60, 60, 1)])
    after = RandomCrop(0.3, 0.5, min_visible=1.0, tries=3)(huge, (1, 1), generator())
    assert after is huge  # the whole image
    crowds = painted(60, 60, 1).replace(crowd=torch.ones(5, dtype=torch.bool)[: len(painted(60, 60, 1).labels)])
    assert RandomCrop(0.3, 0.5)(crowds, (1, 1), generator()).size != (60, 60)
    assert RandomCrop(0.3, 0.5)(flat((60, 60), 20, []), (1, 1), generator()).size != (60, 60)
    assert RandomCrop(p=0.0)(huge, (1, 1), generator()) is huge
