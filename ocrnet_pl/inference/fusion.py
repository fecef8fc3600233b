"""Fusion: boxes and pixels merged into instances with masks and a panoptic map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.inference.decode import Decode, Detections
from ocrnet_pl.inference.geometry import boxes_to_original, maps_to_original
from ocrnet_pl.losses.assignment import resolve_conflicts
from ocrnet_pl.structures import Output, Placement, PostProcess, Prediction, Predictions, Segment, Taxonomy


class BoxPixels(NamedTuple):
    """Every pixel of every box, as one flat list of R pairs.

    Attributes:
        box: int64 [R], rows of the boxes.
        pixel: int64 [R], ``y * width + x``.
        offset_x: float [R], from the box's centre in half widths, -1 to 1.
        offset_y: float [R], likewise in half heights.
    """

    box: Tensor
    pixel: Tensor
    offset_x: Tensor
    offset_y: Tensor


def box_pixels(boxes: Tensor, size: tuple[int, int]) -> BoxPixels:
    """List the pixels whose centre lies in each box; the work grows with the boxes' area, not with boxes x image.

    Args:
        boxes: float [N, 4], xyxy, within the image.
        size: (height, width) of the image.
    """
    height, width = size
    # A pixel's centre is at its index plus a half.
    first = (boxes - 0.5).ceil().long()
    x1, x2 = first[:, 0].clamp(0, width), first[:, 2].clamp(0, width)
    y1, y2 = first[:, 1].clamp(0, height), first[:, 3].clamp(0, height)
    columns, rows = (x2 - x1).clamp(min=0), (y2 - y1).clamp(min=0)
    counts = columns * rows
    box = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), counts)
    place = torch.arange(len(box), device=boxes.device) - (counts.cumsum(0) - counts)[box]
    span = columns[box]
    x = x1[box] + place % span
    y = y1[box] + torch.div(place, span, rounding_mode="floor")
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=0.5)
    return BoxPixels(
        box,
        y * width + x,
        (x + 0.5 - center[box, 0]) / half[box, 0],
        (y + 0.5 - center[box, 1]) / half[box, 1],
    )


def paint(pixels: BoxPixels, claims: Tensor, evidence: Tensor, size: tuple[int, int]) -> Tensor:
    """Give each pixel to the box with the most evidence among those that claim it.

    Args:
        pixels: The boxes' pixels.
        claims: bool [R].
        evidence: float [R], not negative.
        size: (height, width) of the image.

    Returns:
        int32 [H, W], the row of a box plus one, 0 = none.
    """
    height, width = size
    owner = torch.zeros(height * width, dtype=torch.int32, device=evidence.device)
    winner = resolve_conflicts(pixels.pixel[None], claims[None], evidence[None], height * width)[0]
    owner[pixels.pixel[winner]] = (pixels.box[winner] + 1).to(torch.int32)
    return owner.view(height, width)


def tight_bounds(pixels: BoxPixels, mine: Tensor, boxes: Tensor, width: int) -> Tensor:
    """Return the bounds, float [N, 4], of each box's own pixels; boxes without any keep theirs."""
    owner = pixels.box[mine]
    x = (pixels.pixel[mine] % width).to(boxes.dtype)
    y = torch.div(pixels.pixel[mine], width, rounding_mode="floor").to(boxes.dtype)
    low, high = torch.stack((x, y), 1), torch.stack((x + 1, y + 1), 1)
    rows = owner[:, None].expand(-1, 2)
    minimum = boxes[:, :2].scatter_reduce(0, rows, low, "amin", include_self=False)
    maximum = boxes[:, 2:].scatter_reduce(0, rows, high, "amax", include_self=False)
    return torch.cat((minimum, maximum), 1)


class FusionPostProcess(PostProcess):
    """Decodes boxes and pixels and merges them.

    Raw predictions carry the plain merge: a pixel of the arg-max class goes to the best-scored box of that class
    over it. Fused predictions weigh each pixel's class probability, the box's score and the pixel's place in the
    box; boxes are rescored by how well their pixels agree, drawn towards their pixels' bounds, and a confident box
    wins back pixels that its class lost narrowly.

    Args:
        decode: Makes the boxes.
        mask_threshold: Boxes of a lower score stay out of the panoptic map.
        spread: Width of the pixel's Gaussian place prior, in half box sides; small values keep touching objects apart.
        claim: How much a box of score 1 raises its class at its centre, as a factor on the probability.
        rescore: Exponent of the pixel agreement in the fused score, 0 to 1.
        refine: How far fused box sides move towards their pixels' bounds, 0 to 1.
        min_fill: A box that owns less of its area stays out of the panoptic map.
        min_stuff_area: Stuff regions of fewer pixels are left void.
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
    ) -> None:
        super().__init__()
        self.decode = decode or Decode()
        self.mask_threshold = mask_threshold
        self.spread = spread
        self.claim = claim
        self.rescore = rescore
        self.refine = refine
        self.min_fill = min_fill
        self.min_stuff_area = min_stuff_area

    @torch.no_grad()
    def forward(self, output: Output, placements: Sequence[Placement], taxonomy: Taxonomy) -> Predictions:
        """Return one prediction per placement, raw and, with both tasks, fused."""
        found: Sequence[Detections | None] = [None] * len(placements)
        if output.detection is not None:
            found = self.decode(output.detection, placements[0].input_size)
        raw, fused = [], []
        for index, (detections, placement) in enumerate(zip(found, placements, strict=True)):
            probability = None
            if output.semantic is not None:
                logits = maps_to_original(output.semantic[index].float(), output.stride, placement)
                probability = logits.softmax(0)
            if detections is None:
                raw.append(self._pixels_only(probability, taxonomy))
                continue
            detections = detections._replace(boxes=boxes_to_original(detections.boxes, placement))
            if probability is None:
                raw.append(Prediction(*detections))
                continue
            raw.append(self.merge(detections, probability, taxonomy))
            fused.append(self.fuse(detections, probability, taxonomy))
        return Predictions(raw, fused or None)

    @staticmethod
    def _pixels_only(probability: Tensor | None, taxonomy: Taxonomy) -> Prediction:
        if probability is None:
            raise ValueError("postprocess: the network's output holds neither boxes nor pixels")
        empty = probability.new_zeros(0)
        semantic = probability.argmax(0).to(torch.uint8)
        return Prediction(empty.view(0, 4), empty, empty.long(), semantic)

    def merge(self, detections: Detections, probability: Tensor, taxonomy: Taxonomy) -> Prediction:
        """Merge plainly: each pixel of the arg-max class goes to the best-scored box of that class over it.

        Args:
            detections: In the frame of ``probability``.
            probability: float [S, H, W], summing to 1 over the classes.
            taxonomy: Relates detection to segmentation classes.
        """
        boxes, scores, labels = detections
        size = (probability.shape[1], probability.shape[2])
        semantic = probability.argmax(0)
        pixels = box_pixels(boxes, size)
        of_class = labels.new_tensor(taxonomy.detection_to_semantic)[labels]
        claims = semantic.flatten()[pixels.pixel] == of_class[pixels.box]
        instances = paint(pixels, claims, scores[pixels.box], size)
        prediction = Prediction(boxes, scores, labels, semantic.to(torch.uint8), instances)
        return self._with_panoptic(prediction, taxonomy, scores)

    def fuse(self, detections: Detections, probability: Tensor, taxonomy: Taxonomy) -> Prediction:
        """Merge with each side correcting the other; arguments as for :meth:`merge`."""
        boxes, scores, labels = detections
        size = (probability.shape[1], probability.shape[2])
        top, semantic = probability.max(0)
        of_class = labels.new_tensor(taxonomy.detection_to_semantic)[labels]
        pixels = box_pixels(boxes, size)
        has_class = of_class[pixels.box] >= 0
        own = probability.flatten(1)[of_class[pixels.box].clamp(min=0), pixels.pixel]
        place = torch.exp(-(pixels.offset_x.square() + pixels.offset_y.square()) / (2 * self.spread**2))
        raised = own * (1 + self.claim * scores[pixels.box] * place)
        claims = has_class & (raised >= top.flatten()[pixels.pixel])
        instances = paint(pixels, claims, scores[pixels.box] * place * own, size)
        mine = instances.flatten()[pixels.pixel] == pixels.box + 1

        # Agreement: of the pixels that an ellipse in the box would cover, how many does it own, and how surely.
        area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).prod(-1)
        owned = torch.zeros_like(scores).scatter_add(0, pixels.box, own * mine)
        agreement = (owned / (area * torch.pi / 4)).clamp(1e-3, 1.0)
        factor = torch.where(of_class >= 0, agreement.pow(self.rescore), 1.0)
        fused_scores = scores * factor
        bounds = tight_bounds(pixels, mine, boxes, size[1])
        # Only boxes that own what they enclose may move: a half-hidden object's box reaches past its pixels.
        trust = self.refine * (agreement > 0.6).to(boxes.dtype)[:, None]
        refined = boxes + trust * (bounds - boxes)

        # A pixel in an instance takes the instance's class.
        corrected = semantic.clone().flatten()
        corrected[pixels.pixel[mine]] = of_class[pixels.box[mine]]
        order = fused_scores.argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        lookup = torch.cat((rank.new_zeros(1), rank + 1)).to(torch.int32)
        prediction = Prediction(
            refined[order],
            fused_scores[order],
            labels[order],
            corrected.view(size).to(torch.uint8),
            lookup[instances.long()],
        )
        # Whether an object is there was the detector's to say; the pixels only moved its rank.
        return self._with_panoptic(prediction, taxonomy, scores[order])

    def _with_panoptic(self, prediction: Prediction, taxonomy: Taxonomy, confidence: Tensor) -> Prediction:
        """Add the panoptic map: confident instances, then stuff; what is left is void."""
        assert prediction.instances is not None and prediction.semantic is not None
        count = len(prediction.scores)
        device = prediction.scores.device
        areas = torch.bincount(prediction.instances.flatten(), minlength=count + 1)[1:]
        box_areas = (prediction.boxes[:, 2:] - prediction.boxes[:, :2]).clamp(min=1).prod(-1)
        good = (confidence >= self.mask_threshold) & (areas >= self.min_fill * box_areas) & (areas > 0)
        segment_of = torch.where(good, good.cumsum(0), 0)
        panoptic = torch.cat((segment_of.new_zeros(1), segment_of))[prediction.instances.long()]
        things = int(good.sum())

        categories = {id(c): position for position, c in enumerate(taxonomy.categories)}
        stuff = [c for c in taxonomy.semantic_categories if not c.is_thing]
        open_classes = torch.where(panoptic == 0, prediction.semantic.long(), taxonomy.num_semantic)
        stuff_areas = torch.bincount(open_classes.flatten(), minlength=taxonomy.num_semantic + 1).tolist()
        table = torch.zeros(taxonomy.num_semantic + 1, dtype=panoptic.dtype)
        segments = [
            Segment(number, categories[id(taxonomy.detection_categories[label])], score, area, row)
            for number, (row, label, score, area) in enumerate(
                zip(
                    good.nonzero()[:, 0].tolist(),
                    prediction.labels[good].tolist(),
                    prediction.scores[good].tolist(),
                    areas[good].tolist(),
                    strict=True,
                ),
                1,
            )
        ]
        for category in stuff:
            semantic = category.semantic
            if semantic is not None and stuff_areas[semantic] >= max(self.min_stuff_area, 1):
                number = things + 1 + (len(segments) - things)
                table[semantic] = number
                segments.append(Segment(number, categories[id(category)], 1.0, stuff_areas[semantic]))
        prediction.panoptic = (panoptic + table.to(device)[open_classes]).to(torch.int32)
        prediction.segments = segments
        return prediction
