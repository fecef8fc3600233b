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


class SemanticMap(NamedTuple):
    """The class of every pixel, and how sure it is.

    Attributes:
        probability: float [S, H, W], summing to 1 over the classes.
        top: float [H, W], the largest of them.
        labels: int64 [H, W], its class.
    """

    probability: Tensor
    top: Tensor
    labels: Tensor

    @classmethod
    def of(cls, probability: Tensor) -> SemanticMap:
        """Find each pixel's best class."""
        # Not argmax: along the first axis it takes six times as long on a CPU.
        top, labels = probability.max(0)
        return cls(probability, top, labels)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.labels.shape[0], self.labels.shape[1]


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
    place = torch.arange(len(box), device=boxes.device) - look_up(counts.cumsum(0) - counts, box)
    row = torch.div(place, look_up(columns, box), rounding_mode="floor")
    column = place - row * look_up(columns, box)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    scale = 1 / ((boxes[:, 2:] - boxes[:, :2]) / 2).clamp(min=0.5)
    # Offsets are linear in the row and the column.
    start_x, start_y = (x1 + 0.5 - center[:, 0]) * scale[:, 0], (y1 + 0.5 - center[:, 1]) * scale[:, 1]
    return BoxPixels(
        box,
        look_up(y1 * width + x1, box) + row * width + column,
        look_up(start_x, box) + column * look_up(scale[:, 0], box),
        look_up(start_y, box) + row * look_up(scale[:, 1], box),
    )


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Return ``table[index]``, [N] to the shape of ``index``; several times faster than indexing on a CPU."""
    return table.index_select(0, index.flatten()).view(index.shape)


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
    winner = resolve_conflicts(pixels.pixel[None], claims[None], evidence[None], height * width)[0].nonzero()[:, 0]
    owner[look_up(pixels.pixel, winner)] = (look_up(pixels.box, winner) + 1).to(torch.int32)
    return owner.view(height, width)


def tight_bounds(pixels: BoxPixels, mine: Tensor, boxes: Tensor, width: int) -> Tensor:
    """Return the bounds, float [N, 4], of each box's own pixels; boxes without any keep theirs."""
    inside = mine.nonzero()[:, 0]
    owner, pixel = look_up(pixels.box, inside), look_up(pixels.pixel, inside)
    row = torch.div(pixel, width, rounding_mode="floor")
    x, y = (pixel - row * width).to(boxes.dtype), row.to(boxes.dtype)
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
        raw: list[Prediction] = []
        fused: list[Prediction] = []
        for index, (detections, placement) in enumerate(zip(found, placements, strict=True)):
            semantic = None
            if output.semantic is not None:
                logits = maps_to_original(output.semantic[index].float(), output.stride, placement)
                semantic = SemanticMap.of(logits.softmax(0))
            if detections is not None:
                detections = detections._replace(boxes=boxes_to_original(detections.boxes, placement))
            predictions = self.join(detections, semantic, taxonomy)
            raw += predictions.raw
            fused += predictions.fused or []
        return Predictions(raw, fused or None)

    def join(self, detections: Detections | None, semantic: SemanticMap | None, taxonomy: Taxonomy) -> Predictions:
        """Return one image's prediction, raw and, with both tasks, fused.

        Args:
            detections: At the original size; None without a detection decoder.
            semantic: At the original size; None without a segmentation decoder.
            taxonomy: Relates detection to segmentation classes.
        """
        if detections is None:
            return Predictions([self._pixels_only(semantic)])
        if semantic is None:
            return Predictions([Prediction(*detections)])
        return Predictions([self.merge(detections, semantic, taxonomy)], [self.fuse(detections, semantic, taxonomy)])

    @staticmethod
    def _pixels_only(semantic: SemanticMap | None) -> Prediction:
        if semantic is None:
            raise ValueError("postprocess: the network's output holds neither boxes nor pixels")
        empty = semantic.top.new_zeros(0, dtype=torch.float32)
        return Prediction(empty.view(0, 4), empty, empty.long(), semantic.labels.to(torch.uint8))

    def merge(self, detections: Detections, semantic: SemanticMap, taxonomy: Taxonomy) -> Prediction:
        """Merge plainly: each pixel of the arg-max class goes to the best-scored box of that class over it.

        Args:
            detections: In the frame of ``semantic``.
            semantic: The pixels' classes.
            taxonomy: Relates detection to segmentation classes.
        """
        boxes, scores, labels = detections
        pixels = box_pixels(boxes, semantic.size)
        of_class = labels.new_tensor(taxonomy.detection_to_semantic)[labels]
        claims = look_up(semantic.labels.flatten(), pixels.pixel) == look_up(of_class, pixels.box)
        instances = paint(pixels, claims, look_up(scores, pixels.box), semantic.size)
        prediction = Prediction(boxes, scores, labels, semantic.labels.to(torch.uint8), instances)
        return self._with_panoptic(prediction, taxonomy, scores)

    def fuse(self, detections: Detections, semantic: SemanticMap, taxonomy: Taxonomy) -> Prediction:
        """Merge with each side correcting the other; arguments as for :meth:`merge`."""
        boxes, scores, labels = detections
        height, width = semantic.size
        of_class = labels.new_tensor(taxonomy.detection_to_semantic)[labels]
        pixels = box_pixels(boxes, semantic.size)
        score, wanted = look_up(scores, pixels.box), look_up(of_class, pixels.box)
        own = look_up(semantic.probability.flatten(), wanted.clamp(min=0) * (height * width) + pixels.pixel)
        own = own.to(scores.dtype)
        place = torch.exp((pixels.offset_x.square() + pixels.offset_y.square()) / (-2 * self.spread**2))
        raised = own * (1 + self.claim * score * place)
        claims = (wanted >= 0) & (raised >= look_up(semantic.top.flatten(), pixels.pixel))
        instances = paint(pixels, claims, score * place * own, semantic.size)
        mine = look_up(instances.flatten(), pixels.pixel) == pixels.box + 1

        # Agreement: of the pixels that an ellipse in the box would cover, how many does it own, and how surely.
        area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).prod(-1)
        owned = torch.zeros_like(scores).scatter_add(0, pixels.box, own * mine)
        agreement = (owned / (area * torch.pi / 4)).clamp(1e-3, 1.0)
        factor = torch.where(of_class >= 0, agreement.pow(self.rescore), 1.0)
        fused_scores = scores * factor
        bounds = tight_bounds(pixels, mine, boxes, width)
        # Only boxes that own what they enclose may move: a half-hidden object's box reaches past its pixels.
        trust = self.refine * (agreement > 0.6).to(boxes.dtype)[:, None]
        refined = boxes + trust * (bounds - boxes)

        # A pixel in an instance takes the instance's class.
        inside = mine.nonzero()[:, 0]
        corrected = semantic.labels.to(torch.uint8).flatten()
        corrected[look_up(pixels.pixel, inside)] = look_up(wanted, inside).to(torch.uint8)
        order = fused_scores.argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        renumbered = torch.cat((rank.new_zeros(1), rank + 1)).to(torch.int32)
        prediction = Prediction(
            refined[order],
            fused_scores[order],
            labels[order],
            corrected.view(height, width),
            look_up(renumbered, instances),
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
        panoptic = look_up(torch.cat((segment_of.new_zeros(1), segment_of)).to(torch.int32), prediction.instances)
        things = int(good.sum())

        categories = {id(c): position for position, c in enumerate(taxonomy.categories)}
        stuff = [c for c in taxonomy.semantic_categories if not c.is_thing]
        open_classes = torch.where(panoptic == 0, prediction.semantic.to(torch.int32), taxonomy.num_semantic)
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
        prediction.panoptic = panoptic + look_up(table.to(device), open_classes)
        prediction.segments = segments
        return prediction
