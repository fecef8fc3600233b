"""From a source to batches: what the workers do, and what crosses the process boundary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision import tv_tensors

from ocrnet_pl.data.collate import collate
from ocrnet_pl.data.errors import DataError
from ocrnet_pl.data.geometry import Size, letterbox_sample, wrap_boxes
from ocrnet_pl.data.samplers import Item
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.transforms import MixingTransform, Transform
from ocrnet_pl.structures import Batch, Placement, Sample, Supervision

Frame = Literal["original", "input"]


class Skipped(NamedTuple):
    """A file that could not be read."""

    path: str
    reason: str


class Prepared(NamedTuple):
    """A sample for the network and, in evaluation, the truth to measure against."""

    sample: Sample
    truth: Sample | None = None


class Delivery(NamedTuple):
    """What a worker hands over: a batch, its truths as plain arrays, and the files it had to leave out."""

    batch: Batch | None
    truths: list[dict[str, Any]]
    skipped: list[Skipped]


class PreparedDataset(Dataset[Prepared | Skipped]):
    """Reads and transforms single samples, as the sampler's items ask.

    Args:
        source: Where the samples come from.
        size: (height, width) for bare indices, as foreign samplers yield.
        transforms: For training; None letterboxes.
        frame: In which frame the truth is given; None gives no truth.
        tolerant: Whether to hand on files that cannot be read as :class:`Skipped` instead of raising.
    """

    def __init__(
        self,
        source: Source,
        size: Size,
        *,
        transforms: Transform | None = None,
        frame: Frame | None = None,
        tolerant: bool = False,
    ) -> None:
        self.source = source
        self.size = size
        self.transforms = transforms
        self.frame = frame
        self.tolerant = tolerant

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: Item | int) -> Prepared | Skipped:
        if not isinstance(item, Item):
            item = Item(int(item), self.size)
        try:
            original = self.source[item.index]
        except DataError as error:
            if not self.tolerant:
                raise
            path, _, reason = str(error).partition(": ")
            return Skipped(path, reason)
        if self.transforms is not None:
            generator = torch.Generator().manual_seed(item.seed)
            others = len(self.source) - 1
            if isinstance(self.transforms, MixingTransform) and self.transforms.partners and others:
                drawn = torch.randint(others, (self.transforms.partners,), generator=generator)
                # All but the sample itself.
                partners = Partners(self.source, (drawn + (drawn >= item.index)).tolist())
                sample = self.transforms(original, item.size, generator, partners)
            else:
                sample = self.transforms(original, item.size, generator)
            return Prepared(sample if sample.size == item.size else letterbox_sample(sample, item.size))
        sample = letterbox_sample(original, item.size)
        if self.frame is None:
            return Prepared(sample)
        truth = original
        if self.frame == "input":
            truth = sample = sample.replace(placement=Placement.identity(sample.size))
        return Prepared(sample, truth if item.counted else unlabelled(truth))


class Partners(Sequence[Sample]):
    """Samples of a source to mix with another, each read when it is asked for.

    Args:
        source: To read from.
        indices: Of the samples.
    """

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self._source = source
        self._indices = list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return Partners(self._source, self._indices[index])
        return self._source[self._indices[index]]


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


def deliver(items: Sequence[Prepared | Skipped]) -> Delivery:
    """Collate what could be read."""
    prepared = [item for item in items if isinstance(item, Prepared)]
    skipped = [item for item in items if isinstance(item, Skipped)]
    truths = [item.truth for item in prepared if item.truth is not None]
    if not prepared:
        return Delivery(None, [], skipped)
    batch = collate([item.sample for item in prepared])
    if get_worker_info() is None:
        batch.truths = truths
        return Delivery(batch, [], skipped)
    return Delivery(batch, [_pack(truth) for truth in truths], skipped)


def _pack(sample: Sample) -> dict[str, Any]:
    """Turn a sample's tensors into arrays.

    Each tensor that crosses the process boundary holds a file descriptor open until it is freed; with some eight
    tensors a truth, a few batches in flight would reach the usual limit of 1024. Arrays are copied instead.
    """
    fields = {name: getattr(sample, name) for name in Sample.__dataclass_fields__}
    supervision = fields.pop("supervision")
    fields |= {"detection": supervision.detection, "semantic_supervision": supervision.semantic}
    return {
        name: value.as_subclass(Tensor).numpy() if isinstance(value, Tensor) else value
        for name, value in fields.items()
    }


def _unpack(fields: dict[str, Any]) -> Sample:
    values: dict[str, Any] = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in fields.items()
    }
    size = (int(values["image"].shape[-2]), int(values["image"].shape[-1]))
    values["image"] = tv_tensors.Image(values["image"])
    values["boxes"] = wrap_boxes(values["boxes"], size)
    for name in ("semantic", "instances"):
        if values[name] is not None:
            values[name] = tv_tensors.Mask(values[name])
    return Sample(supervision=Supervision(values.pop("detection"), values.pop("semantic_supervision")), **values)


class BatchLoader(DataLoader[Any]):
    """A DataLoader of batches that keeps account of the files it left out.

    Batches that lose all their files are left out, so there may be fewer than ``len`` says.

    Args:
        dataset: To load from.
        skipped: Where to note the files that could not be read.
        kwargs: As of ``DataLoader``.
    """

    def __init__(self, dataset: PreparedDataset, skipped: list[tuple[str, str]] | None = None, **kwargs: Any) -> None:
        self.skipped = [] if skipped is None else skipped
        kwargs.setdefault("collate_fn", deliver)
        super().__init__(dataset, **kwargs)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch, truths, skipped in super().__iter__():
            self.skipped.extend((entry.path, entry.reason) for entry in skipped)
            if batch is not None:
                if truths:
                    batch.truths = [_unpack(truth) for truth in truths]
                yield batch
