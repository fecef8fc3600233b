"""One evaluator for all models: the project's metrics in the input's frame, and latencies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.metrics.detection import DetectionMetric
from ocrnet_pl.metrics.panoptic import PanopticMetric
from ocrnet_pl.metrics.segmentation import SegmentationMetric
from ocrnet_pl.structures import Prediction

Predict = Callable[[Tensor], list[Prediction]]

_ROUNDS = 15
_WARM_UP = 3
_SHOWN = ("map", "map_50", "map_75", "mask_map", "miou", "pixel_accuracy", "pq")


@torch.inference_mode()
def evaluate(predict: Predict, detects: bool, data: JointDataModule, device: torch.device) -> dict[str, float]:
    """Return the figures of the validation set; those of a task that the model lacks are absent.

    Args:
        predict: Prediction function of the model.
        detects: Whether the model detects boxes; if it finds none, they count as zero.
        data: The data module with the validation set.
        device: Device of the model.
    """
    metrics = {
        "boxes": DetectionMetric(data.taxonomy, per_class=False),
        "masks": DetectionMetric(data.taxonomy, masks=True, per_class=False),
        "pixels": SegmentationMetric(data.taxonomy),
        "panoptic": PanopticMetric(data.taxonomy),
    }
    used: set[str] = set()
    for batch in data.val_dataloader():
        found = predict(batch.images.to(device))
        has = {
            "boxes": detects,
            "masks": found[0].instances is not None,
            "pixels": found[0].semantic is not None,
            "panoptic": found[0].panoptic is not None,
        }
        used |= {name for name, present in has.items() if present}
        for metric in metrics.values():
            metric.update(found, batch.truths)
    figures = {key: float(value) for name in used for key, value in metrics[name].compute().items()}
    return {key: figures[key] for key in _SHOWN if key in figures}


@torch.inference_mode()
def latency_ms(predict: Predict, data: JointDataModule, device: torch.device, batch_size: int) -> float:
    """Return the median milliseconds of a pass over validation images, with everything that follows the network."""
    parts: list[Tensor] = []
    for batch in data.val_dataloader():
        parts.append(batch.images)
        if sum(map(len, parts)) >= batch_size:
            break
    # A validation set smaller than the batch is shown more than once.
    images = torch.cat(parts)
    images = images.repeat(-(-batch_size // len(images)), 1, 1, 1)[:batch_size].to(device)
    times = []
    for turn in range(_ROUNDS + _WARM_UP):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        predict(images)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if turn >= _WARM_UP:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)
