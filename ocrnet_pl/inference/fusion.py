"""Fusion: boxes and pixels merged into instances with masks and a panoptic map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.inference.box_choice import Choices
from ocrnet_pl.inference.decode import Decode, Detections
from ocrnet_pl.inference.fetching import fetch
from ocrnet_pl.inference.geometry import boxes_to_original, clip_boxes, maps_to_original
from ocrnet_pl.inference.heuristic import HeuristicMerge
from ocrnet_pl.inference.nesting import SURE, find_nesting
from ocrnet_pl.inference.operating_points import NO_POINT
from ocrnet_pl.inference.ownership import find_owners
from ocrnet_pl.inference.panoptic import add_panoptic
from ocrnet_pl.inference.pixels import SemanticMap, look_up
from ocrnet_pl.inference.score_calibration import ONE_PASS, ScoreCalibration
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.inference.tables import ClassTables
from ocrnet_pl.models.base import PostProcess
from ocrnet_pl.structures import Output, Placement, Prediction, Predictions, Taxonomy

TRUSTED = 0.6
"""Agreement above which a box owns what it encloses, so that fusion may move it."""


class Corrected(NamedTuple):
    """A fused prediction before its panoptic map is made.

    Attributes:
        prediction: The prediction, boxes best first.
        confidence: float [N], the boxes' scores before fusion.
        fill: float [N], the share of its area that each box owns, or how fully it reaches its sides, whichever is
            larger.
    """

    prediction: Prediction
    confidence: Tensor
    fill: Tensor


class FusionPostProcess(PostProcess):
    """Decodes boxes and pixels and merges them.

    Raw predictions are merged by a fixed rule (:class:`~ocrnet_pl.inference.heuristic.HeuristicMerge`). Fused
    predictions weigh each pixel's class probability, the box's score and the pixel's place in the box. A box nested in
    a larger one of its class keeps its pixels where both can be right. Boxes are rescored by how well their pixels
    agree and drawn towards the bounds of their pixels, and a confident box wins back pixels that its class lost
    narrowly.

    The arguments are the starting values; ``calibrate`` finds better ones on validation data and stores them in the
    checkpoint. When the checkpoint is loaded, they become ``settings``.

    Args:
        decode: Selects the boxes from the candidates; null for the defaults of ``Decode``.
        mask_threshold: Score below which boxes are left out of the panoptic map, 0 to 1.
        spread: Width of the Gaussian prior on a pixel's place in the box, in half box sides, above 0; small values
            separate touching objects.
        claim: Factor on the probability that a box of score 1 adds to its class at its centre, at least 0; 0 adds
            nothing.
        rescore: Exponent of the pixel agreement in the fused score, 0 to 1; 0 keeps the scores.
        refine: How far fused box sides move towards the bounds of their pixels, 0 to 1; 0 does not move them.
        min_fill: Share of its area below which a box that does not reach its sides either is left out of the panoptic
            map, 0 to 1.
        min_stuff_area: Number of pixels below which a stuff region becomes void, at least 0.
        agnostic_iou: IoU above which a box is dropped in favour of a better one of any class, 0 to 1, for objects that
            cannot be of two classes; null drops only boxes of the same class.
        heuristic: The rule by which raw predictions are merged.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        decode: Decode | None = None,
        mask_threshold: float = 0.3,
        spread: float = 1.5,
        claim: float = 0.25,
        rescore: float = 0.3,
        refine: float = 0.3,
        min_fill: float = 0.2,
        min_stuff_area: int = 64,
        agnostic_iou: float | None = None,
        heuristic: HeuristicMerge = HeuristicMerge(),
    ) -> None:
        super().__init__()
        self.decode = decode or Decode()
        self.heuristic = heuristic
        self.settings = FusionSettings(
            mask_threshold, spread, claim, rescore, refine, min_fill, min_stuff_area, agnostic_iou
        )
        self.calibration: ScoreCalibration | None = None
        self._choices = Choices()
        self._made: ClassTables | None = None

    @property
    def max_detections(self) -> int:
        """The largest number of boxes returned per image, or per tile where images are cut."""
        return self.decode.max_detections

    def dump_settings(self) -> dict[str, Any]:
        """Return the settings as plain values, for a file."""
        return self.settings.to_dict()

    def load_settings(self, settings: Mapping[str, Any], taxonomy: Taxonomy) -> None:
        """Apply calibrated settings; raises ValueError if they are not of this version or taxonomy."""
        self.settings = FusionSettings.from_dict(settings, taxonomy)

    def moved_settings(self, settings: Mapping[str, Any], parents: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
        """Return calibrated settings in which a new category is left unchanged if all old ones that it stands for are.

        Args:
            settings: The settings as plain values.
            parents: By the name of each new category, the old ones that it stands for; none for a new class.
        """
        lists = {
            key: [name for name, old in parents.items() if old and set(old) <= set(settings.get(key, ()))]
            for key in ("raw_boxes", "raw_pixels")
        }
        return {**settings, **lists}

    def dump_calibration(self) -> dict[str, Any]:
        """Return what is known of the scores as plain values, for a file."""
        return {} if self.calibration is None else self.calibration.to_dict()

    def load_calibration(self, calibration: Mapping[str, Any], taxonomy: Taxonomy) -> None:
        """Take over what is known of the scores; raises ValueError if it is not of this version or taxonomy."""
        self.calibration = ScoreCalibration.from_dict(calibration, taxonomy) if calibration else None
        self.choose(NO_POINT, (), taxonomy)

    @property
    def chooses(self) -> bool:
        """Whether an operating point decides which boxes are given out."""
        return self._choices.active

    def choose(self, operating_point: str, classes: Sequence[str], taxonomy: Taxonomy) -> tuple[str, ...]:
        """Give out only some of the boxes from now on, as the base class describes.

        What an operating point leaves out is also left out of the maps; it replaces the score from which boxes enter
        the panoptic map.
        """
        self._choices = Choices.make(operating_point, classes, self.calibration, taxonomy)
        return self._choices.refusals

    def passes_text(self, way: object | None) -> str:
        """Return in words all that decides about the scores of predictions.

        Args:
            way: How images are predicted; None for single passes.
        """
        votes = f", rescored by votes ({self.decode.usual_votes:g} are usual)" if self.decode.rescores else ""
        return f"{ONE_PASS if way is None else way}{votes}"

    def passes_note(self, way: object | None) -> str | None:
        """Return a line where the calibrated scores are of other passes, as the base class describes."""
        calibration, now = self.calibration, self.passes_text(way)
        if calibration is None or now == calibration.passes or not (self.chooses or calibration.probabilities):
            return None
        return (
            f"the scores were calibrated in {calibration.passes}, and these are predictions in {now}, whose scores "
            "differ; run calibrate with the options of these"
        )

    @torch.no_grad()
    def forward(self, output: Output, placements: Sequence[Placement], taxonomy: Taxonomy) -> Predictions:
        """Return one prediction per placement, raw and, with both tasks, fused."""
        found: Sequence[Detections | None] = [None] * len(placements)
        if output.detection is not None:
            found = self.decode(output.detection, placements)
        raw: list[Prediction] = []
        fused: list[Prediction] = []
        for index, (detections, placement) in enumerate(zip(found, placements, strict=True)):
            semantic = None
            if output.semantic is not None:
                logits = maps_to_original(output.semantic[index].float(), output.stride, placement)
                semantic = SemanticMap.of((logits / self.settings.temperature).softmax(0))
            if detections is not None:
                detections = detections._replace(boxes=boxes_to_original(detections.boxes, placement))
            predictions = self.join(detections, semantic, taxonomy)
            raw += predictions.raw
            fused += predictions.fused or []
        return Predictions(raw, fused or None)

    def join(self, detections: Detections | None, semantic: SemanticMap | None, taxonomy: Taxonomy) -> Predictions:
        """Return one image's prediction, raw and, with both tasks, fused.

        Args:
            detections: Boxes at the original size; None without a detection decoder.
            semantic: Pixels' classes at the original size; None without a segmentation decoder.
            taxonomy: Relates detection to segmentation classes.
        """
        if detections is None:
            return Predictions([self._pixels_only(semantic)])
        detections = self.without_rivals(detections)
        if semantic is None:
            boxes, scores, labels = fetch(*detections)
            choice = self._choices.raw
            found = Prediction(boxes, scores, labels, counts=choice.counts(scores, labels))
            return Predictions([choice.finish(found, choice.counting(scores, labels))])
        # What is left works object by object, and needs one transfer for everything.
        plain = (*detections, *_classes(semantic))
        arrived = fetch(*plain, *_tensors(self.correct(detections, semantic, taxonomy)))
        raw = self._merged(arrived[: len(plain)], taxonomy)
        return Predictions([raw], [self.with_panoptic(_corrected(*arrived[len(plain) :]), taxonomy)])

    def without_rivals(self, detections: Detections) -> Detections:
        """Return the boxes without those that a better one of another class drops, if objects have one class each."""
        if self.settings.agnostic_iou is None:
            return detections
        from torchvision.ops import nms

        kept = nms(detections.boxes, detections.scores, self.settings.agnostic_iou)
        return Detections(*(part[kept] for part in detections))

    @staticmethod
    def _pixels_only(semantic: SemanticMap | None) -> Prediction:
        if semantic is None:
            raise ValueError("postprocess: the network's output holds neither boxes nor pixels")
        (labels,) = fetch(semantic.labels.to(torch.uint8))
        empty = torch.zeros(0)
        return Prediction(empty.view(0, 4), empty, empty.long(), labels)

    def merge(self, detections: Detections, semantic: SemanticMap, taxonomy: Taxonomy) -> Prediction:
        """Merge by rule, without changing boxes, scores or pixels; the result is on the CPU.

        Args:
            detections: Boxes in the frame of ``semantic``.
            semantic: The pixels' classes.
            taxonomy: Relates detection to segmentation classes.
        """
        return self._merged(fetch(*detections, *_classes(semantic)), taxonomy)

    def _merged(self, arrived: Sequence[Tensor], taxonomy: Taxonomy) -> Prediction:
        boxes, scores, labels, classes, certainty = arrived
        choice, merge = self._choices.raw, self.heuristic
        counting = choice.counting(scores, labels)
        if counting is not None:
            boxes, scores, labels = boxes[counting], scores[counting], labels[counting]
            merge = replace(merge, score_threshold=0.0)
        prediction = merge(Detections(boxes, scores, labels), classes, taxonomy)
        prediction.certainty = certainty
        return choice.finish(prediction, None)

    def fuse(self, detections: Detections, semantic: SemanticMap, taxonomy: Taxonomy) -> Prediction:
        """Merge with each side correcting the other; the arguments are those of :meth:`merge`."""
        arrived = fetch(*_tensors(self.correct(detections, semantic, taxonomy)))
        return self.with_panoptic(_corrected(*arrived), taxonomy)

    def _tables(self, taxonomy: Taxonomy, device: torch.device) -> ClassTables:
        """Return the tables of this taxonomy, which are made once."""
        made = self._made
        if made is None or not made.belong_to(taxonomy, self.settings, device):
            made = self._made = ClassTables.of(taxonomy, self.settings, device)
        return made

    def correct(self, detections: Detections, semantic: SemanticMap, taxonomy: Taxonomy) -> Corrected:
        """Do everything that :meth:`fuse` does except the panoptic map, where the arguments are."""
        settings = self.settings
        tables = self._tables(taxonomy, semantic.top.device)
        boxes, scores, labels = detections
        of_class = tables.semantic_of[labels]
        joined = of_class >= 0
        inside = clip_boxes(boxes, semantic.size)
        confident = joined & (scores >= SURE)
        corner = math.exp(-1 / settings.spread**2)
        nesting = find_nesting(detections._replace(boxes=inside), confident, of_class, semantic, corner)
        own = find_owners(boxes, scores, of_class, None if nesting is None else nesting.factor, semantic, tables)

        # Agreement: how many of the pixels that an ellipse in the box would cover it owns, and how certainly. A thin or
        # hollow object owns few of them, and yet its claimed pixels reach all sides of its box.
        area = (inside[:, 2:] - inside[:, :2]).clamp(min=1).prod(-1)
        claimed = own.claimed
        if nesting is not None:
            # The pixels of a right box nested in it do not belong to its object.
            claimed = claimed.scatter_add(0, nesting.outer, -own.owned[nesting.inner] * nesting.both)
        reached = own.share**3 * (own.owned / torch.maximum(claimed, own.owned).clamp(min=1))
        sureness = own.certainty / own.owned.clamp(min=1)
        agreement = torch.maximum(own.certainty / (area * torch.pi / 4), reached * sureness).clamp(1e-3, 1.0)
        if settings.raw_boxes:
            joined = joined & ~tables.raw_boxes[labels]
        fused_scores = scores * torch.where(joined, agreement.pow(settings.rescore), 1.0)
        # Only boxes that own what they enclose may move: the box of a half-hidden object extends beyond its pixels.
        trust = settings.refine * (joined & (agreement > TRUSTED)).to(boxes.dtype)[:, None]
        refined = boxes + trust * (own.bounds - boxes)

        order = fused_scores.argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        # A pixel in an instance takes the instance's class; what nobody owns has a place of its own, the first.
        numbers = torch.cat((rank.new_zeros(1), rank + 1)).to(torch.int32)
        classes = torch.cat((of_class.new_zeros(1), of_class)).to(torch.uint8)
        place = own.owner + 1
        corrected = torch.where(place > 0, look_up(classes, place), semantic.labels.to(torch.uint8))
        prediction = Prediction(refined[order], fused_scores[order], labels[order], corrected, look_up(numbers, place))
        return Corrected(prediction, scores[order], torch.maximum(own.owned / area, reached)[order])

    def with_panoptic(self, corrected: Corrected, taxonomy: Taxonomy) -> Prediction:
        """Return the prediction with its panoptic map: confident instances that fill their boxes, then stuff.

        Args:
            corrected: The result of :meth:`correct`, on the CPU.
            taxonomy: The categories.
        """
        prediction = replace(corrected.prediction)
        choice = self._choices.fused
        counting = choice.counting(prediction.scores, prediction.labels)
        # Whether an object is there was the detector's decision; the pixels only changed its rank.
        there = corrected.confidence >= self.settings.mask_threshold if counting is None else counting
        prediction.counts = choice.counts(prediction.scores, prediction.labels)
        shown = there & (corrected.fill >= self.settings.min_fill)
        add_panoptic(prediction, shown, self.settings.min_stuff_area, taxonomy)
        return choice.finish(prediction, counting)


def _classes(semantic: SemanticMap) -> tuple[Tensor, Tensor]:
    """Return what the rule needs of the pixels: their classes, uint8 [H, W], and the probability of these."""
    return semantic.labels.to(torch.uint8), semantic.top


def _tensors(corrected: Corrected) -> tuple[Tensor, ...]:
    """Return the parts of a corrected prediction."""
    own = corrected.prediction
    assert own.semantic is not None and own.instances is not None
    return own.boxes, own.scores, own.labels, own.semantic, own.instances, corrected.confidence, corrected.fill


def _corrected(*tensors: Tensor) -> Corrected:
    """Return the corrected prediction that has these parts."""
    boxes, scores, labels, semantic, instances, confidence, fill = tensors
    return Corrected(Prediction(boxes, scores, labels, semantic, instances), confidence, fill)
