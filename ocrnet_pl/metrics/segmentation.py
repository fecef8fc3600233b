"""Mean intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.figures import PIXELS
from ocrnet_pl.metrics.runs import Overlay
from ocrnet_pl.metrics.shared import OncePerBatch
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Sample, Taxonomy


class SegmentationMetric(Metric):
    """IoU of every class from one confusion matrix over all pixels of the set.

    As in Cityscapes and ADE20K, pixels of value 255 do not count, a class that is neither in the truth nor predicted is
    left out of the mean, and one that is predicted without being in the truth counts as 0. Pixels of a class that an
    image was not labelled for, true or predicted, do not count in that image.

    Args:
        taxonomy: The categories.
        overlays: Results of ``Overlay.of``, shared by metrics of the same predictions; None for separate ones.

    Attributes:
        overlays: Lays the predictions of a batch over its truths.
        confusion: Confusion matrix of the last :meth:`compute`; None before.
    """

    figures = PIXELS
    _counts: Tensor

    def __init__(self, taxonomy: Taxonomy, overlays: OncePerBatch[Overlay] | None = None) -> None:
        super().__init__(taxonomy)
        size = taxonomy.num_semantic
        self.add_state("_counts", torch.zeros(size, size, dtype=torch.int64), dist_reduce_fx="sum")
        self.overlays = overlays or OncePerBatch(Overlay.of)
        self._images = OncePerBatch(partial(_counts, size))
        self.confusion: Tensor | None = None

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.overlays.reset()
        self._images.reset()

    def update(self, predictions: list[Prediction], truths: list[Sample]) -> None:
        """Take in one batch; samples without a semantic map are left out."""
        for counts in self.of_images(predictions, truths):
            if counts is not None:
                self._counts += torch.from_numpy(counts).to(self._counts.device)

    def of_images(self, predictions: Sequence[Prediction], truths: Sequence[Sample]) -> list[NDArray[np.int64] | None]:
        """Return the confusion matrix [S, S] of each image of a batch, rows true; None without a semantic map."""
        return self._images(truths, self.overlays(predictions, truths))

    def compute(self) -> dict[str, Tensor]:
        """Return ``miou``, ``pixel_accuracy`` and ``iou_per_class/<name>``; NaN where there is nothing to measure.

        The matrix itself, rows true and columns predicted, is then in ``confusion``.
        """
        self.confusion = self._counts.cpu()
        matrix = self.confusion.double()
        hit = matrix.diagonal()
        union = matrix.sum(0) + matrix.sum(1) - hit
        iou = hit / union
        figures = {"miou": iou.nanmean(), "pixel_accuracy": hit.sum() / matrix.sum()}
        for category, value in zip(self.taxonomy.semantic_categories, iou, strict=True):
            figures[f"iou_per_class/{category.name}"] = value
        return figures


def _counts(size: int, truth: Sample, overlay: Overlay) -> NDArray[np.int64] | None:
    """Return the confusion matrix of one image."""
    if overlay.true_class is None or overlay.found_class is None:
        return None
    # All pairs are counted, also of what is ignored, as that costs less than to pick those that count.
    counts = overlay.runs.pixels(overlay.true_class * size + overlay.found_class, (IGNORE_INDEX + 1) * size)
    known = truth.supervision.semantic.numpy()
    counted: NDArray[np.int64] = counts.reshape(-1, size)[:size] * known[:, None] * known
    return counted
