"""Records where a network errs, while its figures are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocrnet_pl.distributed.gather import compute_on_first
from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.detection import DetectionMetric
from ocrnet_pl.metrics.errors.gallery import Gallery, Shown
from ocrnet_pl.metrics.errors.image_table import ClassSums, ImageTable, quality
from ocrnet_pl.metrics.errors.objects import ObjectErrors
from ocrnet_pl.metrics.errors.packed import PackedErrors, Surroundings
from ocrnet_pl.metrics.errors.pixels import Edges, PixelErrors, certain_share, pixel_errors
from ocrnet_pl.metrics.panoptic import PanopticMetric
from ocrnet_pl.metrics.segmentation import SegmentationMetric
from ocrnet_pl.metrics.shared import OncePerBatch
from ocrnet_pl.structures import Prediction, Sample, Taxonomy

RAW, FUSED = "raw", "fused"


@dataclass(frozen=True)
class ErrorAnalysis:
    """Where a network errs, over the images of all processes. ``best`` is fused where there is fusion, else raw.

    Attributes:
        taxonomy: The categories.
        score: Smallest score of boxes that count where a threshold is needed.
        images: The images, with the best predictions.
        boxes: The errors of the boxes, raw and fused.
        masks: The errors of the masks, raw and fused.
        pixels: The errors of the pixels, raw and fused.
        surroundings: What surrounds each object of ``boxes``, in their order.
        worst: The images of lowest quality; their rank is minus the quality.
        alarming: The images with the most certain false alarms; their rank is the score.
        sure: The images with most pixels that are wrong with certainty; their rank is the share.
    """

    taxonomy: Taxonomy
    score: float
    images: ImageTable
    boxes: dict[str, ObjectErrors]
    masks: dict[str, ObjectErrors]
    pixels: dict[str, PixelErrors]
    surroundings: Surroundings
    worst: list[Shown]
    alarming: list[Shown]
    sure: list[Shown]

    @property
    def best(self) -> str:
        """The predictions that a user gets: fused, or raw where there is no fusion."""
        return FUSED if FUSED in self.boxes or FUSED in self.pixels else RAW


class _Part:
    """What is recorded of the raw or of the fused predictions."""

    def __init__(self, metrics: Sequence[Metric], taxonomy: Taxonomy) -> None:
        # The package's own come first.
        detection = [metric for metric in metrics if type(metric) is DetectionMetric]
        self.boxes = next((metric for metric in detection if not metric.masks), None)
        self.masks = next((metric for metric in detection if metric.masks), None)
        self.segmentation = next((metric for metric in metrics if type(metric) is SegmentationMetric), None)
        self.panoptic = next((metric for metric in metrics if type(metric) is PanopticMetric), None)
        self.objects: dict[bool, list[PackedErrors]] = {False: [], True: []}
        self.pixels = PixelErrors.nothing(taxonomy.num_semantic)
        for metric in detection:
            metric.keep = True


class ErrorRecord:
    """Keeps what an analysis of the errors needs, from what the metrics of an evaluation compute anyway.

    Args:
        raw: The metrics of the raw predictions.
        fused: The metrics of the fused predictions; none where there is no fusion.
        taxonomy: The categories.
        score: Smallest score of boxes that count where a threshold is needed, 0 to 1.
        pictures: Number of images of each gallery.
    """

    def __init__(
        self, raw: Sequence[Metric], fused: Sequence[Metric], taxonomy: Taxonomy, score: float, pictures: int
    ) -> None:
        self._taxonomy = taxonomy
        self._score = score
        self._parts = {RAW: _Part(raw, taxonomy)} | ({FUSED: _Part(fused, taxonomy)} if fused else {})
        self._edges: OncePerBatch[Edges | None] = OncePerBatch(Edges.of)
        self._tables: list[ImageTable] = []
        self._surroundings: list[Surroundings] = []
        self._galleries = tuple(Gallery(pictures) for _ in range(3))

    def update(self, raw: Sequence[Prediction], fused: Sequence[Prediction], truths: Sequence[Sample]) -> None:
        """Take in one batch, which the metrics have just taken in as the same lists."""
        best = FUSED if FUSED in self._parts else RAW
        packed: list[PackedErrors | None] = [None] * len(truths)
        sure = [0.0] * len(truths)
        for name, found in ((RAW, raw), (FUSED, fused)):
            if name in self._parts:
                own = self._objects(self._parts[name], found, truths)
                shares = self._pixels(self._parts[name], found, truths)
                packed = own if name == best else packed
                # Only raw predictions know how certain their pixels are.
                sure = shares if name == RAW else sure
        self._images(self._parts[best], raw, fused if best == FUSED else raw, truths, packed, sure)

    def _objects(self, part: _Part, found: Sequence[Prediction], truths: Sequence[Sample]) -> list[PackedErrors | None]:
        """Record the errors of boxes and masks; return those of the boxes of each image."""
        result: list[PackedErrors | None] = [None] * len(truths)
        for metric in (part.boxes, part.masks):
            if metric is None:
                continue
            classes = self._taxonomy.num_detection
            errors = [
                None if match is None else PackedErrors.of(match, self._score, classes, not metric.masks)
                for match in metric.matching(found, truths)
            ]
            known = [each for each in errors if each is not None]
            if known:
                part.objects[metric.masks].append(PackedErrors.joined(known))
            if not metric.masks:
                result = errors
        return result

    def _pixels(self, part: _Part, found: Sequence[Prediction], truths: Sequence[Sample]) -> list[float]:
        """Record the wrong pixels; return the share of each image that is wrong with certainty."""
        result = [0.0] * len(truths)
        if part.segmentation is None:
            return result
        overlays = part.segmentation.overlays(found, truths)
        for place, each in enumerate(zip(found, truths, overlays, self._edges(truths), strict=True)):
            prediction, truth, overlay, edges = each
            if edges is not None and overlay.found_class is not None:
                part.pixels |= pixel_errors(overlay, truth, edges, self._taxonomy.num_semantic)
                result[place] = certain_share(prediction, overlay, truth, edges)
        return result

    def _images(
        self,
        part: _Part,
        raw: Sequence[Prediction],
        best: Sequence[Prediction],
        truths: Sequence[Sample],
        packed: Sequence[PackedErrors | None],
        sure: Sequence[float],
    ) -> None:
        nothing: list[None] = [None] * len(truths)
        counts = nothing if part.segmentation is None else part.segmentation.of_images(best, truths)
        segments = nothing if part.panoptic is None else part.panoptic.of_images(best, truths)
        qualities = [
            quality(None if errors is None else errors.tallies[0], matrix)
            for errors, matrix in zip(packed, counts, strict=True)
        ]
        ids = [f"{type(truth.image_id).__name__} {truth.image_id}" for truth in truths]
        self._tables.append(
            ImageTable(
                ids,
                [truth.path or str(truth.image_id) for truth in truths],
                np.array([errors is not None for errors in packed]),
                np.array(qualities, dtype=np.float32),
                np.array(sure, dtype=np.float32),
                ClassSums.of([None if m is None else np.stack((m.diagonal(), m.sum(1), m.sum(0))) for m in counts], 3),
                ClassSums.of(segments, 4),
            )
        )
        if part.boxes is not None:
            matches = [match for match in part.boxes.matching(best, truths) if match is not None]
            self._surroundings.append(Surroundings.joined([Surroundings.of(match) for match in matches]))
        worst, alarming, certain = self._galleries
        for place, (truth, found) in enumerate(zip(truths, best, strict=True)):
            errors, share = packed[place], sure[place]
            if qualities[place] < 1:
                worst.offer(-qualities[place], ids[place], truth, found)
            loudest = 0.0 if errors is None else float(errors.loudest[0])
            if loudest >= self._score:
                alarming.offer(loudest, ids[place], truth, found)
            if share > 0:
                certain.offer(share, ids[place], truth, raw[place])

    def compute(self) -> ErrorAnalysis | None:
        """Return the analysis on the first process, None on the others; to be called on all, after the metrics' own."""
        own = (
            {
                name: {m: _joined(found, self._taxonomy) for m, found in p.objects.items()}
                for name, p in self._parts.items()
            },
            {name: part.pixels for name, part in self._parts.items()},
            ImageTable.joined([ImageTable.nothing(), *self._tables]),
            Surroundings.joined(self._surroundings),
            [gallery.images() for gallery in self._galleries],
        )
        result: list[ErrorAnalysis] = []

        def analyse(parts: list[Any]) -> None:
            objects, pixels, images, surroundings, shown = zip(*parts, strict=True)
            worst, alarming, sure = (
                gallery.best_of(each) for gallery, each in zip(self._galleries, zip(*shown, strict=True), strict=True)
            )
            found: dict[bool, dict[str, ObjectErrors]] = {False: {}, True: {}}
            wrong: dict[str, PixelErrors] = {}
            for name, part in self._parts.items():
                for metric in (part.boxes, part.masks):
                    if metric is not None and metric.gathered is not None:
                        errors = PackedErrors.joined([each[name][metric.masks] for each in objects])
                        found[metric.masks][name] = ObjectErrors.of(metric.gathered, errors)
                if part.segmentation is not None:
                    total = PixelErrors.nothing(self._taxonomy.num_semantic)
                    for each in pixels:
                        total |= each[name]
                    wrong[name] = total
            table = ImageTable.joined(images)
            around = Surroundings.joined(surroundings)
            result.append(
                ErrorAnalysis(
                    self._taxonomy, self._score, table, found[False], found[True], wrong, around, worst, alarming, sure
                )
            )

        # Only the first process writes: nothing is sent back.
        compute_on_first(own, analyse)
        for part in self._parts.values():
            for metric in (part.boxes, part.masks):
                if metric is not None:
                    metric.keep, metric.gathered = False, None
        return result[0] if result else None


def _joined(found: Sequence[PackedErrors], taxonomy: Taxonomy) -> PackedErrors:
    return PackedErrors.joined([PackedErrors.nothing(taxonomy.num_detection), *found])
