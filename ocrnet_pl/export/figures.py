"""The figures of an exported file on labelled images, and the time that it takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ocrnet_pl.export.parity import as_tensors
from ocrnet_pl.imaging.geometry import letterbox_image
from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.detection import DetectionMetric
from ocrnet_pl.metrics.panoptic import PanopticMetric
from ocrnet_pl.metrics.segmentation import SegmentationMetric
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.runtime.model import Model
from ocrnet_pl.runtime.sessions import open_session
from ocrnet_pl.structures import DetectionOutput, Output, Prediction, Sample, Taxonomy

Predict = Callable[[Tensor], Prediction]
"""Returns the prediction for an image, uint8 [C, H, W]."""


def predictor(network: OCRNet, path: Path, raw: bool, threads: int = 0) -> Predict:
    """Return a function that predicts with a file.

    Args:
        network: The network; of a file that holds the network alone, it turns the outputs into predictions.
        path: The file.
        raw: Whether it holds the network alone.
        threads: Number of threads; 0 for one on each core.
    """
    if not raw:
        model = Model(path, threads)
        return lambda image: as_tensors(model(np.ascontiguousarray(image.permute(1, 2, 0).numpy())))
    session = open_session(path, threads)

    @torch.inference_mode()
    def predict(image: Tensor) -> Prediction:
        boxed, placement = letterbox_image(image, network.input_size)
        found = {name: torch.from_numpy(values) for name, values in session.run(boxed[None].numpy()).items()}
        detection = None
        if "boxes" in found:
            # Post-processing reads boxes and scores alone.
            nothing = torch.empty(0)
            detection = DetectionOutput(found["boxes"], nothing, nothing, found["scores"], nothing, nothing, ())
        stride = 1 if network.segmentation is None else network.segmentation.stride
        output = Output(detection, found.get("logits"), stride)
        return network.postprocessed(output, [placement]).best[0]

    return predict


def measure(predict: Predict, samples: Iterable[Sample], taxonomy: Taxonomy) -> dict[str, float]:
    """Return box mAP, mIoU and PQ, as ``validate`` has them after fusion; those that there are for the network.

    Args:
        predict: Predicts an image.
        samples: Labelled images, at their own size.
        taxonomy: The categories.
    """
    metrics: dict[str, Metric] = {}
    for sample in samples:
        if not (sample.supervision.detection.any() or sample.supervision.semantic.any()):
            continue
        prediction = predict(sample.image.as_subclass(Tensor))
        if not metrics:
            boxes = prediction.semantic is None or prediction.instances is not None
            metrics |= {"map": DetectionMetric(taxonomy, per_class=False)} if boxes else {}
            metrics |= {"miou": SegmentationMetric(taxonomy)} if prediction.semantic is not None else {}
            metrics |= {"pq": PanopticMetric(taxonomy)} if prediction.panoptic is not None else {}
        for metric in metrics.values():
            metric.update([prediction], [sample])
    return {name: float(metric.computed()[name]) for name, metric in metrics.items()}


def losses(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return by how much each figure is worse; 0 where there was nothing to measure before either."""
    return {
        name: 0.0 if np.isnan(value) and np.isnan(after[name]) else value - after[name]
        for name, value in before.items()
    }


def in_turn(ways: Sequence[Predict], images: Sequence[Tensor], rounds: int = 5) -> list[float]:
    """Return the processor time per image of each way in seconds: medians of rounds, in which each has its turn."""
    times: list[list[float]] = [[] for _ in ways]
    for way in ways:
        way(images[0])
    for _ in range(rounds):
        for way, own in zip(ways, times, strict=True):
            started = time.process_time()
            for image in images:
                way(image)
            own.append((time.process_time() - started) / len(images))
    return [statistics.median(own) for own in times]
