"""Single samples, read and transformed as the sampler's items request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ocrnet_pl.data.loading.lost_workers import TakenUp
from ocrnet_pl.data.loading.samplers import Item
from ocrnet_pl.data.randomness import item_seed
from ocrnet_pl.data.records import Part
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.transforms import MixingTransform, Transform
from ocrnet_pl.errors import DataError, StoreError
from ocrnet_pl.imaging.geometry import Size, letterbox_sample, wrap_boxes
from ocrnet_pl.structures import Placement, Sample, Supervision

Frame = Literal["original", "input"]

_TRIES = 20
"""Number of samples that are tried in place of one that cannot be read, or as partner for mixing."""


class Skipped(NamedTuple):
    """A file that could not be read."""

    path: str
    reason: str


class Prepared(NamedTuple):
    """A sample for the network and, in evaluation, the truth; and the files that could not be read."""

    sample: Sample
    truth: Sample | None = None
    skipped: tuple[Skipped, ...] = ()


class PreparedDataset(Dataset[Prepared | Skipped]):
    """Reads and transforms single samples, as the sampler's items request.

    In training, a file that cannot be read is replaced by another sample of its part, the same in every run, so that
    batches stay full; in evaluation it is left out.

    Args:
        source: Source of the samples.
        size: (height, width) for bare indices, which other samplers yield.
        transforms: Transforms of training samples; None scales and pads only.
        frame: The frame in which the truth is given; None for no truth.
        tolerant: Whether files that cannot be read are left out instead of raising an error; faults of a store that
            contains many files raise an error in any case.
        parts: Parts of the source. Replacements and partners for mixing come from the sample's own part, and partners
            from its own block if samples are stored in blocks.

    Attributes:
        taken_up: Where loading processes record what they read; None without such processes.
    """

    def __init__(
        self,
        source: Source,
        size: Size,
        *,
        transforms: Transform | None = None,
        frame: Frame | None = None,
        tolerant: bool = False,
        parts: Sequence[Part] = (),
    ) -> None:
        self.source = source
        self.size = size
        self.transforms = transforms
        self.frame = frame
        self.tolerant = tolerant
        self.taken_up: TakenUp | None = None
        self._bounds = np.array([0, *([part.stop for part in parts] or [len(source)])])
        self._near = _block_bounds(source, parts)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: Item | int) -> Prepared | Skipped:
        if not isinstance(item, Item):
            item = Item(int(item), self.size)
        if item.ahead >= 0:
            self.source.expect(item.ahead)
        if self.transforms is not None:
            return self._train(item, self.transforms)
        original = self._read(item.index)
        if isinstance(original, Skipped):
            return original
        sample = letterbox_sample(original, item.size)
        if self.frame is None:
            return Prepared(sample)
        truth = original
        if self.frame == "input":
            # Predictions stay in this frame; the truth still tells where the image ends and padding begins.
            truth, sample = sample, sample.replace(placement=Placement.identity(sample.size))
        return Prepared(sample, truth if item.counted else unlabelled(truth))

    def _train(self, item: Item, transforms: Transform) -> Prepared:
        skipped: list[Skipped] = []
        original, index = self._readable(item, skipped)
        if item.plain:
            sample = original
        else:
            generator = torch.Generator().manual_seed(item.seed)
            if isinstance(transforms, MixingTransform) and transforms.partners:
                seeds = torch.randint(2**62, (transforms.partners,), generator=generator).tolist()
                partners = Partners(self, original, index, seeds, skipped)
                sample = transforms(original, item.size, generator, partners)
            else:
                sample = transforms(original, item.size, generator)
        if sample.size != item.size:
            sample = letterbox_sample(sample, item.size)
        return Prepared(sample, skipped=tuple(skipped))

    def _read(self, index: int) -> Sample | Skipped:
        if self.taken_up is not None:
            self.taken_up.note(index)
        try:
            return self.source[index]
        except DataError as error:
            if not self.tolerant or isinstance(error, StoreError):
                raise
            path, _, reason = str(error).partition(": ")
            return Skipped(path, reason)

    def _readable(self, item: Item, skipped: list[Skipped]) -> tuple[Sample, int]:
        """Return the requested sample, or another readable one of its part, and its index."""
        index = item.index
        for attempt in range(_TRIES):
            sample = self._read(index)
            if isinstance(sample, Sample):
                return sample, index
            skipped.append(sample)
            index = _another(self._bounds, item.index, item_seed(item.seed, attempt, 0))
        first = skipped[0]
        raise DataError.at(
            first.path, first.reason, advice=f"nor could the {_TRIES - 1} images tried in its place be read"
        )

    def partner(self, index: int, draw: int) -> int:
        """Return the index of a sample to mix with the given one, decided by a draw from 0 to 2 ** 63."""
        return _another(self._near, index, draw)


def _another(bounds: NDArray[np.int64], index: int, draw: int) -> int:
    """Return an index between the same bounds, decided by a draw from 0 to 2 ** 63."""
    place = int(np.searchsorted(bounds, index, side="right")) - 1
    start, stop = (int(bound) for bound in bounds[place : place + 2])
    return start + draw % (stop - start)


def _block_bounds(source: Source, parts: Sequence[Part]) -> NDArray[np.int64]:
    """Return where runs of samples begin that can be read together: blocks, parts without blocks, or all."""
    bounds = [np.array([0])]
    for part in parts or [Part("all", 0, len(source), 1.0, source.blocks)]:
        stops = np.array([part.stop]) if part.blocks is None else part.start + part.blocks.bounds
        bounds.append(stops)
    return np.unique(np.concatenate(bounds))


class Partners(Sequence[Sample]):
    """Other samples for mixing, each read when it is requested.

    A partner comes from the same part, or block, of the data set and is labelled for the same classes. If some tries
    find none, the sample is its own partner.

    Args:
        dataset: The data set to read from.
        sample: The sample that needs partners.
        index: Index of the sample.
        seeds: One seed per partner.
        skipped: List to which files that could not be read are added.
    """

    def __init__(
        self, dataset: PreparedDataset, sample: Sample, index: int, seeds: Sequence[int], skipped: list[Skipped]
    ) -> None:
        self._dataset = dataset
        self._sample = sample
        self._index = index
        self._seeds = list(seeds)
        self._skipped = skipped
        self._found: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._seeds)

    @overload
    def __getitem__(self, number: int) -> Sample: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Sample]: ...

    def __getitem__(self, number: int | slice) -> Sample | Sequence[Sample]:
        places = range(len(self._seeds))[number]
        if isinstance(places, range):
            return [self[place] for place in places]
        if places not in self._found:
            self._found[places] = self._find(self._seeds[places])
        return self._found[places]

    def _find(self, seed: int) -> Sample:
        known = self._sample.supervision
        for attempt in range(_TRIES):
            index = self._dataset.partner(self._index, item_seed(seed, attempt, 0))
            if index == self._index:
                continue
            partner = self._dataset._read(index)
            if isinstance(partner, Skipped):
                self._skipped.append(partner)
            elif torch.equal(partner.supervision.detection, known.detection) and torch.equal(
                partner.supervision.semantic, known.semantic
            ):
                return partner
        return self._sample


def unlabelled(sample: Sample) -> Sample:
    """Return the sample without any label, so that no metric counts it."""
    return sample.replace(
        boxes=wrap_boxes(torch.zeros(0, 4), sample.size),
        labels=sample.labels[:0],
        crowd=sample.crowd[:0],
        semantic=None,
        instances=None,
        supervision=Supervision(
            torch.zeros_like(sample.supervision.detection), torch.zeros_like(sample.supervision.semantic)
        ),
    )
