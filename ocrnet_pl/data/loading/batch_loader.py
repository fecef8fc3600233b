"""From a source to batches: what crosses the process boundary, and how lost processes are replaced."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torchvision import tv_tensors

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.loading.dataset import Prepared, PreparedDataset, Skipped
from ocrnet_pl.data.loading.death_watch import next_delivery, torch_handler_undone
from ocrnet_pl.data.loading.lost_workers import SILENT, TakenUp, is_of_processes, lost
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import wrap_boxes
from ocrnet_pl.structures import Batch, Sample, Supervision

_log = logging.getLogger(__name__)

_LOOK = 5.0
"""Seconds between two checks whether loading processes are alive."""

_RESTARTS = 3
"""Number of times in an epoch that loading processes are replaced."""


class Delivery(NamedTuple):
    """What a worker sends: a batch, its truths as plain arrays, and the files it had to leave out."""

    batch: Batch | None
    truths: list[dict[str, Any]]
    skipped: list[Skipped]


def deliver(items: Sequence[Prepared | Skipped]) -> Delivery:
    """Collate the samples that could be read."""
    prepared = [item for item in items if isinstance(item, Prepared)]
    skipped = [item for item in items if isinstance(item, Skipped)]
    skipped += [entry for item in prepared for entry in item.skipped]
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

    Each tensor that crosses the process boundary holds a file descriptor open until it is freed. With about eight
    tensors per truth, a few batches in flight would reach the usual limit of 1024. Arrays are copied instead.
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
    """A DataLoader of batches that records the files it left out, and survives the loss of its loading processes.

    Batches that lose all their files are left out, so there may be fewer than ``len`` says. If a loading process dies,
    or no batch arrives for ``patience`` seconds, new processes continue with the next batch, which is the same
    whichever process loads it.

    Args:
        dataset: The data set to load from.
        skipped: List to which files that could not be read are added, each once.
        patience: Longest time to wait for a batch, in seconds.
        kwargs: Options of ``DataLoader``.

    Raises:
        DataError: When iterating: loading processes have died too often.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        skipped: list[tuple[str, str]] | None = None,
        patience: float = 600.0,
        **kwargs: Any,
    ) -> None:
        self.skipped = [] if skipped is None else skipped
        self.patience = patience
        # Each time that nothing has arrived, DataLoader checks whether its processes are alive.
        kwargs.setdefault("timeout", min(_LOOK, patience) if kwargs.get("num_workers") else 0)
        kwargs.setdefault("collate_fn", deliver)
        self._taken_up = dataset.taken_up = TakenUp(kwargs.get("num_workers", 0))
        self._source = dataset.source
        super().__init__(dataset, **kwargs)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return self._batches(0)

    def _batches(self, start: int) -> Iterator[Batch]:
        """Yield the batches of the epoch from number ``start`` on."""
        for batch, truths, skipped in self._deliveries(start):
            for entry in skipped:
                if tuple(entry) not in self.skipped:
                    self.skipped.append((entry.path, entry.reason))
            if batch is not None:
                if truths:
                    batch.truths = [_unpack(truth) for truth in truths]
                yield batch

    def _deliveries(self, start: int) -> Iterator[Delivery]:
        done, restarts = start, 0
        deliveries: Iterator[Any] = iter(())
        while True:
            if hasattr(self.sampler, "start"):
                self.sampler.start = done * (self.batch_size or 1)
            try:
                with torch_handler_undone():
                    deliveries = super().__iter__()
                while (delivery := self._next(deliveries)) is not None:
                    done += 1
                    yield delivery
                return
            except RuntimeError as error:
                if not is_of_processes(error) or not hasattr(self.sampler, "start"):
                    raise
                restarts += 1
                text, advice = lost(error, self._taken_up, self._source, deliveries)
                if restarts > _RESTARTS:
                    raise DataError(
                        f"data.num_workers: loading processes failed {restarts} times in one epoch, the last time at "
                        f"batch {done} ({text}); {advice}"
                    ) from error
                _log.warning("data: a loading process failed (%s); new ones continue with batch %d", text, done)
                # DataLoader keeps its processes here.
                self._iterator = None

    def _next(self, deliveries: Iterator[Delivery]) -> Delivery | None:
        """Return the next delivery, None at the end; wait until ``patience`` has passed."""
        waited = 0.0
        while True:
            try:
                return next_delivery(deliveries)
            except RuntimeError as error:
                waited += self.timeout
                if not str(error).startswith(SILENT) or waited >= self.patience:
                    raise


class PredictionLoader(BatchLoader):
    """A loader of which every process has at least one batch to expect, also where there are fewer images.

    Lightning leaves out the whole prediction on a process whose loader is empty, and with it the end, at which the
    other processes wait for it.
    """

    def __len__(self) -> int:
        return max(1, super().__len__())


class TrainingLoader(BatchLoader):
    """A loader that continues where a run was interrupted, also in the middle of an epoch.

    Args:
        dataset: The data set to load from.
        completed: Returns the number of batches of the epoch that were trained on; None counts all that were handed
            out.
        replicas: Number of processes that train together, each with its own loader.
        kwargs: Options of :class:`BatchLoader`; the sampler is a ``MultiScaleSampler``.

    Attributes:
        shift: How many more batches are done, counted in this loader's batches, than in those of the loaded state.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        completed: Callable[[], int] | None = None,
        replicas: int = 1,
        **kwargs: Any,
    ) -> None:
        self.completed = completed
        self.replicas = replicas
        self.shift = 0
        self._handed_out = 0
        self._resume: dict[str, int] | None = None
        super().__init__(dataset, **kwargs)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        sampler = self.sampler
        start = 0
        if self._resume is not None and self._resume["epoch"] == getattr(sampler, "epoch", None):
            # A request for an epoch that was trained on to its end starts it again.
            start = self._resume["batches"] % len(self)
        self._resume = None
        self._handed_out = start
        for batch in self._batches(start):
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches are done; the same on all processes."""
        return {
            "epoch": int(getattr(self.sampler, "epoch", 0)),
            "batches": self._handed_out if self.completed is None else self.completed(),
            "length": len(self),
            "images_per_batch": self._images_per_batch,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out the batches that are done, when that epoch is requested next.

        If the batch size or the number of processes has changed, it continues after the same number of images.
        """
        batches = state["batches"]
        before = state.get("images_per_batch", self._images_per_batch)
        if before != self._images_per_batch:
            images = batches * before
            over = batches >= state["length"]
            batches = len(self) if over else min(images // self._images_per_batch, len(self) - 1)
        self.shift = batches - state["batches"]
        self._resume = {"epoch": state["epoch"], "batches": batches}

    @property
    def _images_per_batch(self) -> int:
        """Number of images per step of all processes together."""
        return (self.batch_size or 1) * self.replicas
