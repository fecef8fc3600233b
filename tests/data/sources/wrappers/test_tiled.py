"""Tiles of large images, against direct crops and counts by hand."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ocrnet_pl.data.cache.shared_cache import Cached
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.sources.wrappers.tiled import Tiled
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.tile_grid import overlap_pixels, tile_counts, tile_starts
from ocrnet_pl.structures import Sample, Supervision, Taxonomy

TAXONOMY = Taxonomy.build(things=["disc", "square"], stuff=["ground"])


class Drawn(Source):
    """Images of given sizes with rectangles; counts what it decodes."""

    def __init__(self, sizes: list[tuple[int, int]], boxes: list[list[list[int]]] | None = None) -> None:
        self.shapes, self.boxes = sizes, boxes or [[] for _ in sizes]
        self.decoded: list[int] = []
        self.broken: set[int] = set()
        self.root = "somewhere"

    @property
    def taxonomy(self) -> Taxonomy:
        return TAXONOMY

    def __len__(self) -> int:
        return len(self.shapes)

    def image_size(self, index: int) -> tuple[int, int]:
        if index in self.broken:
            raise DataError.at(f"{index}.png", "this is not an image file")
        return self.shapes[index]

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise DataError.at(f"{index}.png", "this is not an image file")
        self.decoded.append(index)
        size, boxes = self.shapes[index], self.boxes[index]
        image = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        instances = np.zeros(size, dtype=np.int32)
        semantic = np.random.default_rng(index).integers(0, 3, size).astype(np.uint8)
        for number, (x0, y0, x1, y1) in enumerate(boxes, 1):
            instances[y0:y1, x0:x1] = number
        return make_sample(
            image,
            boxes=boxes,
            labels=[number % 2 for number in range(len(boxes))],
            crowd=[False] * len(boxes),
            semantic=semantic,
            instances=instances,
            supervision=Supervision(torch.tensor([True, False]), torch.tensor([True, True, False])),
            image_id=f"i{index}",
            path=f"folder/{index}.png",
        )


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("side", [1, 7, 32])
def test_tiles_cover_every_length_exactly_with_the_overlap(side: int, overlap: float) -> None:
    shared = overlap_pixels(side, overlap)
    for length in range(1, 140):
        starts = tile_starts(length, side, shared).tolist()
        ends = [min(start + side, length) for start in starts]
        counts = np.zeros(length, dtype=int)
        for start, end in zip(starts, ends, strict=True):
            assert 0 <= start < end <= length
            assert end - start == min(side, length)
            counts[start:end] += 1
        assert counts.min() >= 1
        assert ends[-1] == length
        for end, start in zip(ends, starts[1:], strict=False):
            assert end - start >= shared
        # No tile could be left out.
        assert len(starts) == 1 or starts[-2] + side < length
        assert tile_counts([length], side, shared).tolist() == [len(starts)]


def test_every_pixel_lies_in_as_many_tiles_as_counted_by_brute_force() -> None:
    source = Drawn([(50, 91), (20, 200), (33, 32), (10, 11)])
    tiled = Tiled(source, (33, 40), overlap=0.3)
    counts = [np.zeros(size, dtype=int) for size in source.shapes]
    rebuilt = [np.full(size, -1) for size in source.shapes]
    for index in range(len(tiled)):
        image, top, left, height, width = tiled.window(index)
        tile = tiled[index]
        assert tile.size == (height, width) == tiled.image_size(index)
        assert height == min(33, source.shapes[image][0])
        assert width == min(40, source.shapes[image][1])
        counts[image][top : top + height, left : left + width] += 1
        rebuilt[image][top : top + height, left : left + width] = tile.image[0].numpy()
        assert tile.image_id == f"i{image}#{top},{left}"
        assert tile.path == f"folder/{image}.png#{top},{left}"
        assert torch.equal(tile.supervision.detection, torch.tensor([True, False]))
        assert torch.equal(tile.supervision.semantic, torch.tensor([True, True, False]))
        assert tile.placement is None
    for image, count in enumerate(counts):
        assert count.min() >= 1
        # A column of tiles starts every 28 pixels, a row every 23.
        height, width = source.shapes[image]
        expected = np.zeros((height, width), dtype=int)
        for top in {min(t, max(0, height - 33)) for t in range(0, max(1, height - 10), 23)}:
            for left in {min(x, max(0, width - 40)) for x in range(0, max(1, width - 12), 28)}:
                expected[top : top + 33, left : left + 40] += 1
        assert (count == expected).all()
        assert (rebuilt[image] == source[image].image[0].numpy()).all()
    with pytest.raises(IndexError):
        tiled[len(tiled)]
    with pytest.raises(IndexError):
        tiled[-1]


def test_boxes_and_maps_of_tiles_equal_those_of_a_direct_crop() -> None:
    source = SyntheticSource(length=4, seed=3, size=(150, 210), min_objects=8, max_objects=14)
    tiled = Tiled(source, 64, overlap=0.25, min_visible=0.5)
    seen_whole: dict[int, set[int]] = {}
    demoted = 0
    for index in range(len(tiled)):
        image, top, left, height, width = tiled.window(index)
        whole, tile = source[image], tiled[index]
        part = (slice(top, top + height), slice(left, left + width))
        assert whole.instances is not None and whole.semantic is not None
        assert tile.instances is not None and tile.semantic is not None
        assert torch.equal(tile.image, whole.image[:, part[0], part[1]])
        assert torch.equal(torch.as_tensor(tile.semantic), torch.as_tensor(whole.semantic)[part])
        cut, full = torch.as_tensor(whole.instances)[part].numpy(), torch.as_tensor(whole.instances).numpy()
        numbers = [n for n in range(1, len(whole.labels) + 1) if (cut == n).any()]
        assert len(tile.labels) == len(numbers)
        for row, number in enumerate(numbers):
            share = (cut == number).sum() / (full == number).sum()
            ys, xs = np.nonzero(cut == number)
            tight = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert np.abs(tile.boxes[row].numpy() - tight).max() <= 1
            assert tile.labels[row] == whole.labels[number - 1]
            assert bool(tile.crowd[row]) == (share < 0.5)
            demoted += bool(tile.crowd[row])
            own = torch.as_tensor(tile.instances).numpy() == row + 1
            assert (own == ((cut == number) & (share >= 0.5))).all()
            if share == 1:
                seen_whole.setdefault(image, set()).add(number)
    assert demoted > 5
    for image in range(4):
        boxes = source[image].boxes.as_subclass(torch.Tensor)
        small = {n for n, box in enumerate(boxes.tolist(), 1) if max(box[2] - box[0], box[3] - box[1]) <= 16}
        assert small <= seen_whole.get(image, set()), "an object no larger than the overlap is whole somewhere"


def test_neighbouring_tiles_decode_their_image_once() -> None:
    source = Drawn([(64, 64), (64, 64), (64, 64)])
    tiled = Tiled(source, 32, overlap=0.5)
    assert not source.decoded, "sizes are known without decoding"
    for index in range(len(tiled)):
        tiled[index]
    assert source.decoded == [0, 1, 2]
    tiled[0], tiled[len(tiled) - 1], tiled[1]
    assert source.decoded[3:] == [0, 2, 0]
    size = len(pickle.dumps(tiled))
    assert size < 5000, "the decoded image stays behind"


def test_tiles_without_boxes_can_be_left_out() -> None:
    boxes = [[[0, 0, 10, 10], [60, 60, 64, 64]], [], [[31, 40, 33, 41]]]
    source = Drawn([(64, 64)] * 3, boxes)
    every, occupied = Tiled(source, 32, overlap=0.0), Tiled(source, 32, overlap=0.0, keep_empty=False)
    assert len(every) == 12
    windows = [occupied.window(index)[:3] for index in range(len(occupied))]
    assert windows == [(0, 0, 0), (0, 32, 32), (2, 32, 0), (2, 32, 32)]
    expected = [every[index].image_id for index in range(len(every)) if len(every[index].labels)]
    assert [occupied[index].image_id for index in range(len(occupied))] == expected
    with pytest.raises(DataError, match="keep_empty"):
        Tiled(Drawn([(64, 64)]), 32, keep_empty=False)


def test_sizes_come_from_headers_turned_as_the_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (70, 40)).save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (70, 40)).save(tmp_path / "b.jpg", exif=exif)
    folder = ImageFolder(tmp_path, TAXONOMY)
    with monkeypatch.context() as patched:
        patched.setattr(ImageFolder, "__getitem__", lambda *_: pytest.fail("an image was decoded"))
        tiled = Tiled(Cached(folder), (40, 40), overlap=0.0)
    assert [tiled.window(index)[1:3] for index in range(len(tiled))] == [(0, 0), (0, 30), (0, 0), (30, 0)]
    assert [tiled[index].size for index in range(4)] == [(40, 40)] * 4
    assert tiled[3].image_id == "b.jpg#30,0"


def test_a_file_that_cannot_be_read_keeps_one_place_and_raises_there() -> None:
    source = Drawn([(64, 64), (64, 64)])
    source.broken = {0}
    tiled = Tiled(source, 32, overlap=0.0)
    assert len(tiled) == 5
    with pytest.raises(DataError, match=r"0\.png"):
        tiled[0]
    assert tiled[1].image_id == "i1#0,0"


def test_an_image_that_changed_size_is_named() -> None:
    source = Drawn([(64, 64)])
    tiled = Tiled(source, 32)
    source.shapes = [(64, 60)]
    with pytest.raises(DataError, match=r"folder/0\.png: the image is 60 x 64, but was 64 x 64"):
        tiled[0]


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": (32, -1)}, {"overlap": 1.0}, {"overlap": -0.1}, {"min_visible": 1.5}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"tile|Tiled"):
        Tiled(Drawn([(64, 64)]), **({"size": 32} | options))  # type: ignore[arg-type]
