from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ocrnet_pl.cli.image_directions import any_way_up
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.shelves import Shelves
from ocrnet_pl.data.sources.streets import Streets
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample, Supervision, Taxonomy

SIDE = 64
Change = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], None]


class Cells(Source):
    """Noise with a few boxes anywhere, as in microscopy; ``change`` alters grey values, centres and sides in place."""

    def __init__(self, images: int = 60, boxes: int = 8, change: Change | None = None, broken: int = 0) -> None:
        self.images, self.boxes, self.change, self.broken = images, boxes, change, broken

    @property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy.build(things=["cell"], stuff=["background"])

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> Sample:
        if index < self.broken:
            raise DataError("it cannot be read")
        generator = np.random.default_rng(index)
        grey = generator.random((SIDE, SIDE), np.float32) * 100 + 50
        centres = generator.uniform(6, SIDE - 6, (self.boxes, 2)).astype(np.float32)
        sides = generator.uniform(6, 10, (self.boxes, 2)).astype(np.float32)
        if self.change is not None:
            self.change(grey, centres, sides)
        boxes = np.concatenate((centres - sides / 2, centres + sides / 2), 1)
        return make_sample(
            torch.from_numpy(grey).to(torch.uint8)[None],
            boxes=boxes,
            labels=np.zeros(self.boxes, int),
            crowd=np.zeros(self.boxes, bool),
            supervision=Supervision.full(self.taxonomy),
        )


def brighter_above(grey: NDArray[np.float32], *_: NDArray[np.float32]) -> None:
    grey[: SIDE // 2] += 20


def brighter_on_the_left(grey: NDArray[np.float32], *_: NDArray[np.float32]) -> None:
    grey[:, : SIDE // 2] += 20


def striped(grey: NDArray[np.float32], *_: NDArray[np.float32]) -> None:
    grey[:] = grey[:1]


def upright(_: NDArray[np.float32], __: NDArray[np.float32], sides: NDArray[np.float32]) -> None:
    sides[:, 1] *= 1.2


def low(_: NDArray[np.float32], centres: NDArray[np.float32], __: NDArray[np.float32]) -> None:
    centres[:, 1] = centres[:, 1] * 0.7 + 16


def in_a_row(_: NDArray[np.float32], centres: NDArray[np.float32], __: NDArray[np.float32]) -> None:
    centres[:, 1] = (centres[:, 1] - SIDE / 2) * 0.5 + SIDE / 2


def test_images_of_cells_have_no_up() -> None:
    assert any_way_up(Cells())
    # Images that cannot be read say nothing; the data's check names them.
    assert any_way_up(Cells(broken=8))


@pytest.mark.parametrize("change", [brighter_above, brighter_on_the_left, striped, upright, low, in_a_row])
def test_what_differs_between_the_directions_is_an_up(change: Change) -> None:
    assert not any_way_up(Cells(change=change))


def test_too_few_images_or_boxes_say_nothing() -> None:
    assert not any_way_up(Cells(images=20, boxes=30))
    assert not any_way_up(Cells(boxes=1))
    assert not any_way_up(Cells(broken=60))


def test_streets_and_shelves_have_an_up() -> None:
    assert not any_way_up(Streets(40, 0, 64)) and not any_way_up(Shelves(40, 0, 96))
