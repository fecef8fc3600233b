"""Mosaic, MixUp and CopyPaste against pixel-by-pixel references."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from ocrnet_pl.data.transforms import (
    Compose,
    CopyPaste,
    MixingTransform,
    MixUp,
    Mosaic,
    RandomCrop,
    RandomErase,
    RandomFlip,
    Transform,
)
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.structures import Sample
from tests.helpers.painted import array, bounds, generator, located, painted
from tests.helpers.shapes import flat

MIXERS: list[MixingTransform] = [Mosaic(p=1.0), MixUp(p=1.0), CopyPaste(1.0, p=1.0)]


def name(transform: Transform) -> str:
    return type(transform).__name__


@pytest.mark.parametrize("transform", MIXERS, ids=name)
def test_without_partners_the_sample_stays(transform: MixingTransform) -> None:
    sample = painted(40, 50, 0)
    assert transform(sample, (32, 32), generator()) is sample
    assert Compose([transform])(sample, (32, 32), generator()) is sample


@pytest.mark.parametrize("make", [Mosaic, MixUp, CopyPaste])
def test_probability(make: type) -> None:
    sample, partners = painted(40, 50, 0), [painted(40, 50, seed, number=seed) for seed in (1, 2, 3)]
    mixed = [make(p=0.5)(sample, (40, 50), generator(seed), partners) is not sample for seed in range(60)]
    assert 18 <= sum(mixed) <= 42
    assert make(p=0.0)(sample, (40, 50), generator(), partners) is sample


class Recorder(MixingTransform):
    """Notes the ids of the partners that it gets."""

    def __init__(self, partners: int) -> None:
        self.partners = partners
        self.got: list[object] = []

    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        self.got = [partner.image_id for partner in partners]
        return sample


class Counting(Sequence[Sample]):
    """Four samples that are made when they are asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < 4:
            raise IndexError(index)
        self.asked.append(index)
        return painted(30, 30, index, number=index + 1)


def test_compose_shares_out_the_partners_in_order() -> None:
    first, second, third = Recorder(3), Recorder(1), Recorder(2)
    chain = Compose([first, RandomFlip(), Compose([second, RandomFlip()]), third])
    assert chain.partners == 6
    partners = [painted(20, 20, seed, number=seed) for seed in range(1, 8)]
    chain(painted(20, 20, 0), (20, 20), generator(), partners)
    assert (first.got, second.got, third.got) == ([1, 2, 3], [4], [5, 6])
    chain(painted(20, 20, 0), (20, 20), generator(), partners[:4])
    assert (first.got, second.got, third.got) == ([1, 2, 3], [4], [])
    assert Compose([RandomFlip()]).partners == 0


def test_partners_are_read_only_when_they_are_used() -> None:
    sample = painted(30, 30, 0)
    partners = Counting()
    Compose([Mosaic(p=0.0), CopyPaste(p=0.0)])(sample, (32, 32), generator(), partners)
    assert partners.asked == []
    Compose([Mosaic(p=0.0), MixUp(p=1.0)])(sample, (32, 32), generator(), partners)
    assert set(partners.asked) == {3}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_mosaic_pixel_by_pixel(count: int) -> None:
    """At scale 1 every pixel says where it is from; its class and its object have to come from there."""
    corners = set()
    for seed in range(12):
        parts = [located(70, 70, seed * 10 + i, number=i) for i in range(count + 1)]
        after = Mosaic(1.0, 1.0, min_visible=0.0, p=1.0)(parts[0], (70, 70), generator(seed), parts[1:])
        assert after.size == (70, 70) and after.image_id == 0 and after.path == "painted-0"
        x, y, number = array(after.image).astype(int)
        sources = np.stack([array(part.instances) for part in parts])[number, y, x]
        assert np.array_equal(array(after.semantic), np.stack([array(p.semantic) for p in parts])[number, y, x])
        instances = array(after.instances)
        assert np.array_equal(instances > 0, sources > 0)
        # The quarters: the blue channel changes, or the place jumps, at one row and one column only.
        rows = np.flatnonzero(np.diff(y[:, 0]) != 1) + 1
        columns = np.flatnonzero(np.diff(x[0]) != 1) + 1
        assert len(rows) <= 1 and len(columns) <= 1
        row, column = [int(cut[0]) if len(cut) else 70 for cut in (rows, columns)]
        assert 17 <= row <= 53 and 17 <= column <= 53  # half the half side from the middle, at most
        corners.add((row, column))
        total = 0
        for top, left in ((0, 0), (0, column), (row, 0), (row, column)):
            part = (slice(top, 70 if top else row), slice(left, 70 if left else column))
            source = parts[int(number[top, left])]
            assert (number[part] == number[top, left]).all()
            for old in np.unique(sources[part][sources[part] > 0]):
                own = np.zeros((70, 70), dtype=bool)
                own[part] = sources[part] == old
                (new,) = np.unique(instances[own])
                total += 1
                assert np.array_equal(instances == new, own)
                assert after.labels[new - 1] == source.labels[old - 1]
                assert array(after.boxes)[new - 1].tolist() == bounds(own)
        assert total == len(after.labels)
    assert len(corners) > 6


def test_mosaic_fills_its_quarters_at_any_scale_and_shape() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        parts = [
            flat(tuple(rng.integers(5, 120, 2).tolist()), 200 + i, [])
            for i in range(4)  # type: ignore[arg-type]
        ]
        size = (int(rng.integers(2, 90)), int(rng.integers(2, 90)))
        after = Mosaic(0.1, 3.0, spread=0.9, p=1.0)(parts[0], size, generator(seed), parts[1:])
        assert after.size == size and set(np.unique(array(after.image)).tolist()) == {200, 201, 202, 203}


def test_mosaic_uses_images_again_when_partners_are_few() -> None:
    parts = [flat((40, 40), value, []) for value in (10, 20)]
    after = Mosaic(p=1.0)(parts[0], (40, 40), generator(), parts[1:])
    assert set(np.unique(array(after.image)).tolist()) == {10, 20}


def test_mosaic_scale_is_that_of_its_options() -> None:
    """Stripes of 8 pixels: their width in the result is the scale."""
    stripes = (torch.arange(256) // 8 % 2 * 200).to(torch.uint8).expand(3, 256, 256).contiguous()
    parts = [flat((256, 256), 0, []) for _ in range(4)]
    parts = [part.replace(image=type(part.image)(stripes)) for part in parts]
    after = Mosaic(0.75, 0.75, spread=0.0, p=1.0)(parts[0], (128, 128), generator(1), parts[1:])
    line = array(after.image)[0, 0, :64].astype(int)
    switches = np.flatnonzero(np.diff((line > 100).astype(int)))
    assert np.diff(switches).mean() == pytest.approx(8 * 0.5 * 0.75, abs=0.25)


def test_mixup_by_hand() -> None:
    one = flat((20, 30), 100, [(2, 2, 10, 10, 0), (20, 2, 28, 10, 2)])
    two = flat((20, 30), 200, [(6, 6, 14, 14, 1), (0, 16, 4, 20, 2), (20, 12, 28, 18, 0)])
    after = MixUp(0.5, partner_transforms=[], p=1.0)(one, (64, 64), generator(), [two])
    assert after.size == (20, 30)  # the sample's own
    expected = (array(one.image).astype(float) + array(two.image)) / 2
    assert np.abs(array(after.image) - expected).max() <= 0.5
    assert after.boxes.tolist() == one.boxes.tolist() + two.boxes.tolist()
    assert after.labels.tolist() == [0, 2, 1, 2, 0] and not after.crowd.any()
    first, second = array(one.semantic), array(two.semantic)
    assert np.array_equal(array(after.semantic), np.where(first == second, first, 255))
    # The first object of each image share pixels; the others are alone.
    numbers = np.zeros((20, 30), dtype=int)
    numbers[2:10, 20:28], numbers[16:20, 0:4], numbers[12:18, 20:28] = 2, 4, 5
    assert np.array_equal(array(after.instances), numbers)


def test_mixup_weights() -> None:
    one, two = flat((8, 8), 0, []), flat((8, 8), 250, [])
    transform = MixUp(0.2, partner_transforms=[], p=1.0)
    values = [int(array(transform(one, (8, 8), generator(s), [two]).image)[0, 0, 0]) for s in range(80)]
    assert 50 <= min(values) < 70 and 180 < max(values) <= 200


def test_copy_paste_by_hand() -> None:
    target = flat((24, 32), 20, [(2, 2, 12, 12, 0), (16, 2, 20, 6, 1), (24, 10, 30, 20, 2), (2, 16, 12, 22, 1)])
    # In front of the right half of the first, all of the second, and all but two columns of the third.
    partner = flat((24, 32), 120, [(7, 0, 14, 14, 2), (15, 1, 22, 8, 0), (26, 8, 32, 22, 1)])
    after = CopyPaste(1.0, min_visible=0.4, partner_transforms=[], p=1.0)(target, (24, 32), generator(), [partner])
    assert after.boxes.tolist() == [
        [2, 2, 7, 12],
        [24, 10, 26, 20],
        [2, 16, 12, 22],
        [7, 0, 14, 14],
        [15, 1, 22, 8],
        [26, 8, 32, 22],
    ]
    assert after.labels.tolist() == [0, 2, 1, 2, 0, 1]
    assert after.crowd.tolist() == [False, True, False, False, False, False]  # a third of it is left
    mask = array(partner.instances) > 0
    assert np.array_equal(array(after.image), np.where(mask, array(partner.image), array(target.image)))
    assert np.array_equal(array(after.semantic), np.where(mask, array(partner.semantic), array(target.semantic)))
    table = np.array([0, 1, 0, 0, 3])
    pasted = np.array([0, 4, 5, 6])[array(partner.instances)]
    assert np.array_equal(array(after.instances), np.where(mask, pasted, table[array(target.instances)]))


def test_copy_paste_picks_objects_and_leaves_crowds_and_specks() -> None:
    target = flat((24, 32), 20, [])
    partner = flat((24, 32), 120, [(0, 0, 8, 8, 0), (10, 0, 18, 8, 1), (20, 0, 23, 5, 2), (20, 10, 30, 20, 2)])
    numbers = array(partner.instances).copy()
    numbers[numbers == 4] = 0
    partner = partner.replace(
        crowd=torch.tensor([False, False, False, True]), instances=type(partner.instances)(torch.from_numpy(numbers))
    )
    counts = {0: 0, 1: 0}
    for seed in range(60):
        after = CopyPaste(0.5, min_area=16, partner_transforms=[], p=1.0)(target, (24, 32), generator(seed), [partner])
        for label in after.labels.tolist():
            counts[label] += 1
        assert (array(after.image)[:, 10:20, 20:30] == 20).all()
    assert all(18 <= count <= 42 for count in counts.values())


def test_copy_paste_needs_instance_maps() -> None:
    with_map, without = flat((24, 32), 20, [(2, 2, 12, 12, 0)]), flat((24, 32), 20, [(2, 2, 9, 9, 0)], instances=None)
    paste = CopyPaste(1.0, p=1.0, partner_transforms=[])
    assert paste(with_map, (24, 32), generator(), [without]) is with_map
    assert paste(without, (24, 32), generator(), [with_map]) is without
    empty = flat((24, 32), 20, [], instances=None)
    assert paste(empty, (24, 32), generator(), [with_map]).boxes.tolist() == [[2, 2, 12, 12]]


def test_pasted_objects_that_were_hidden_in_part_get_the_box_of_their_pixels() -> None:
    partner = flat((24, 32), 120, [(4, 4, 12, 12, 0)])
    partner = partner.replace(
        boxes=type(partner.boxes)(  # as if something had hidden its lower half
            torch.tensor([[4.0, 4.0, 12.0, 20.0]]), format="XYXY", canvas_size=(24, 32)
        )
    )
    after = CopyPaste(1.0, p=1.0, partner_transforms=[])(flat((24, 32), 20, []), (24, 32), generator(), [partner])
    assert after.boxes.tolist() == [[4, 4, 12, 12]]


def test_partners_come_through_their_own_transforms_and_any_size() -> None:
    target, partner = flat((24, 32), 20, []), flat((48, 64), 120, [(0, 0, 20, 20, 1)])
    plain = CopyPaste(1.0, p=1.0, partner_transforms=[])(target, (9, 9), generator(), [partner])
    assert plain.boxes.tolist() == [[0, 0, 10, 10]] and plain.size == (24, 32)
    turned = CopyPaste(1.0, p=1.0, partner_transforms=[RandomFlip(1.0)])(target, (9, 9), generator(), [partner])
    assert turned.boxes.tolist() == [[22, 0, 32, 10]]


@pytest.mark.parametrize("transform", MIXERS, ids=name)
def test_images_of_other_channels_are_refused(transform: MixingTransform) -> None:
    gray = [painted(40, 50, seed, number=seed, channels=1) for seed in (1, 2, 3)]
    with pytest.raises(DataError, match=r"painted-\d: an image of 1 channels cannot be mixed with painted-0"):
        transform(painted(40, 50, 0), (40, 50), generator(), gray)


def test_short_names_and_nested_options_in_a_config() -> None:
    from jsonargparse import ArgumentParser

    import ocrnet_pl.cli.parser  # noqa: F401

    parser = ArgumentParser()
    parser.add_argument("--t", type=list[Transform])
    names = ["Mosaic", "MixUp", "RandomCrop", "RandomRotate", "RandomErase", "RandomGamma", "RandomBlur", "RandomNoise"]
    entries = ", ".join(f"{{class_path: {one}}}" for one in [*names, "RandomGrayscale"])
    nested = "{class_path: CopyPaste, init_args: {p: 1.0, partner_transforms: [{class_path: RandomFlip}]}}"
    made = parser.instantiate_classes(parser.parse_args([f"--t=[{entries}, {nested}]"])).t
    assert [type(one).__name__ for one in made] == [*names, "RandomGrayscale", "CopyPaste"]
    assert isinstance(made[-1].partner_transforms[0], RandomFlip)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mosaic(0, 1),
        lambda: Mosaic(spread=1.0),
        lambda: Mosaic(p=2),
        lambda: MixUp(0.6),
        lambda: MixUp(0),
        lambda: CopyPaste(share=-0.1),
        lambda: CopyPaste(min_area=0),
        lambda: RandomCrop(0.5, 0.4),
        lambda: RandomCrop(maximum=1.1),
        lambda: RandomCrop(aspect=0.5),
        lambda: RandomCrop(tries=0),
        lambda: RandomErase(0, 0.1),
        lambda: RandomErase(aspect=0.5),
    ],
)
def test_options_out_of_range(make: type) -> None:
    with pytest.raises(ValueError, match=r"^\w+: "):
        make()
