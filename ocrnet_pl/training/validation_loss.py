"""The losses of a whole validation set, by task and term."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ocrnet_pl.distributed.gather import summed_over_processes
from ocrnet_pl.losses.base import Loss, SummedLoss
from ocrnet_pl.structures import Batch, Output

_LABELLED = "labelled images"


class ValidationLoss:
    """Adds up what the losses measure, so that each term is that of one batch with all images.

    It depends neither on the size of the batches nor on the number of processes. Terms that are no ratios of sums are
    means over the batches, weighted by their images that are labelled for the task. A loss with a ``forward`` of its
    own is left out, since it may wait for processes that have no further batch.

    Args:
        detection: Loss of detection.
        segmentation: Loss of segmentation.
    """

    def __init__(self, detection: Loss, segmentation: Loss) -> None:
        self._losses = {
            task: loss
            for task, loss in (("detection", detection), ("segmentation", segmentation))
            if isinstance(loss, SummedLoss) and type(loss).forward is SummedLoss.forward
        }
        self._totals: dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}

    @torch.no_grad()
    def update(self, batch: Batch, output: Output) -> None:
        """Add a batch; an image without any label in its truth counts for nothing.

        Args:
            batch: The batch, with its truths.
            output: The network's output for the batch.
        """
        boxes = [bool(truth.supervision.detection.any()) for truth in batch.truths]
        pixels = [bool(truth.supervision.semantic.any()) for truth in batch.truths]
        counted = [a or b for a, b in zip(boxes, pixels, strict=True)]
        if not all(counted):
            batch = _only(batch, counted)
        for task, loss in self._losses.items():
            labelled = sum(boxes if task == "detection" else pixels)
            sums, own = loss.measure(output, batch)
            totals, means = self._totals.setdefault(task, ({}, {}))
            _add(totals, sums)
            _add(means, {name: value * labelled for name, value in own.items()})
            _add(means, {_LABELLED: torch.full((), float(labelled), device=batch.images.device)})

    @torch.no_grad()
    def names(self, batch: Batch, output: Output) -> list[str]:
        """Return the names of all that a set labelled for both tasks would have.

        Args:
            batch: Any batch.
            output: The network's output for it.
        """
        found: list[str] = []
        for task, loss in self._losses.items():
            terms = loss.combine(*loss.measure(output, batch))
            found += [f"loss_{name}" for name in ([task, *terms] if terms else [])]
        return found

    def compute(self) -> dict[str, Tensor]:
        """Return ``loss_<task>`` and ``loss_<term>`` of all images since the last call, on every process.

        A task without a labelled image, or without a decoder, has none. Every process has to call it.
        """
        found: dict[str, Tensor] = {}
        for task, (sums, means) in self._totals.items():
            sums, means = _over_processes(sums), _over_processes(means)
            labelled = means.pop(_LABELLED)
            terms = self._losses[task].combine(sums, {name: value / labelled for name, value in means.items()})
            if terms and bool(labelled):
                found[f"loss_{task}"] = torch.stack([*terms.values()]).sum()
                found |= {f"loss_{name}": value for name, value in terms.items()}
        self._totals = {}
        return found


def _only(batch: Batch, counted: list[bool]) -> Batch:
    """Return the batch without the labels of the other images."""
    rows = torch.tensor(counted).to(batch.images.device)[:, None]
    return replace(
        batch,
        valid=batch.valid & rows,
        crowd=batch.crowd & rows,
        detection_classes=batch.detection_classes & rows,
        semantic_classes=batch.semantic_classes & rows,
    )


def _add(totals: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        # float32 would lose the last images of a large set; it is all that some devices have.
        exact = value.to(torch.float32 if value.device.type == "mps" else torch.float64)
        totals[name] = totals[name] + exact if name in totals else exact


def _over_processes(totals: dict[str, Tensor]) -> dict[str, Tensor]:
    if not totals:
        return {}
    together = summed_over_processes(torch.cat([value.reshape(-1) for value in totals.values()]))
    parts = together.split([value.numel() for value in totals.values()])
    return {name: part.view_as(value).float() for (name, value), part in zip(totals.items(), parts, strict=True)}
