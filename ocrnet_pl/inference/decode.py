"""From candidates to boxes: score threshold, suppression, voting, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ocrnet_pl.inference.box_voting import score_by_vote, vote
from ocrnet_pl.inference.geometry import boxes_to_original, clip_boxes, have_area
from ocrnet_pl.storage.recording import Recorded
from ocrnet_pl.structures import DetectionOutput, Placement

NO_SCORE = -1.0
"""The score of a candidate that cannot be a box, below all others."""
_TOGETHER = 1000
"""Number of boxes up to which the classes are moved apart and suppressed together."""


class Detections(NamedTuple):
    """The boxes of one image, best first.

    Attributes:
        boxes: float32 [N, 4], xyxy in input pixels.
        scores: float32 [N].
        labels: int64 [N].
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Decode(Recorded, nn.Module):
    """Keeps the best boxes of each image, by default after non-maximum suppression within each class.

    Args:
        score_threshold: Score below which candidates are dropped, and boxes once more after the vote, 0 to 1.
        iou_threshold: IoU above which a box is dropped in favour of a better one of its class; null drops none, for
            decoders that emit each object once.
        max_candidates: Number of an image's best candidates that enter suppression. Null means ten times
            ``max_detections``, since a decoder has several candidates for each object.
        max_detections: Largest number of boxes that are kept per image, at least 1. Further objects cannot be found,
            and the metrics count them as missed.
        box_voting: Width of the vote by which boxes that suppression drops move the one that they lost to: the larger,
            the more those count that overlap it less. Null holds no vote: boxes and scores stay as they are. See
            :func:`~ocrnet_pl.inference.box_voting.vote`.
        usual_votes: Number of votes at which a box keeps its score; fewer lower it, and more raise it. Null keeps all
            scores. See :func:`~ocrnet_pl.inference.box_voting.score_by_vote`.

    Raises:
        ValueError: A limit is out of range, or ``box_voting`` or ``usual_votes`` is not above 0.
    """

    def __init__(
        self,
        score_threshold: float = 0.02,
        iou_threshold: float | None = 0.6,
        max_candidates: int | None = None,
        max_detections: int = 100,
        box_voting: float | None = 0.05,
        usual_votes: float | None = 3.0,
    ) -> None:
        super().__init__()
        if max_detections < 1:
            raise ValueError(f"decode.max_detections: expected at least 1, got {max_detections}")
        if max_candidates is None:
            max_candidates = 10 * max_detections
        elif max_candidates < max_detections and iou_threshold is not None:
            raise ValueError(
                f"decode.max_candidates: {max_candidates} candidates cannot give {max_detections} boxes "
                "(max_detections); raise it, or leave it out"
            )
        for name, value in (("box_voting", box_voting), ("usual_votes", usual_votes)):
            if value is not None and not value > 0:
                raise ValueError(f"decode.{name}: expected more than 0, or null for none, got {value}")
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_candidates = max_candidates
        self.max_detections = max_detections
        self.box_voting = box_voting
        self.usual_votes = usual_votes

    @property
    def rescores(self) -> bool:
        """Whether votes change the scores."""
        return None not in (self.iou_threshold, self.box_voting, self.usual_votes)

    @torch.no_grad()
    def forward(self, detection: DetectionOutput, placements: Sequence[Placement]) -> list[Detections]:
        """Return the boxes of each image.

        Args:
            detection: The decoder's output.
            placements: Where each image lies in the input. Boxes are clipped to the input, and candidates of which
                nothing is in the image, but all in its padding, are left out.
        """
        num_classes = detection.scores.shape[-1]
        every = [
            clip_boxes(boxes.float(), placement.input_size)
            for boxes, placement in zip(detection.boxes, placements, strict=True)
        ]
        # By their scores, and not by a choice of rows, for which a GPU would wait.
        seen = [have_area(boxes_to_original(boxes, where)) for boxes, where in zip(every, placements, strict=True)]
        scores = torch.where(torch.stack(seen)[..., None], detection.scores.float(), NO_SCORE).flatten(1)
        limit = self.max_detections if self.iou_threshold is None else self.max_candidates
        best, order = scores.topk(min(limit, scores.shape[1]), 1)
        results = []
        # They are in order, so that their numbers say which are kept: one transfer, besides those of suppression.
        kept_of_images = (best > self.score_threshold).sum(1).tolist()
        for image, count in enumerate(kept_of_images):
            picked, score = order[image, :count], best[image, :count]
            boxes = every[image][picked // num_classes]
            labels = picked % num_classes
            found = Detections(boxes, score, labels)
            if self.iou_threshold is not None:
                kept = _suppressed(*found, self.iou_threshold)[: self.max_detections]
                found = self._voted(kept, found, self.iou_threshold)
            results.append(found)
        if self.rescores and results:
            # They are in order once more.
            counts = torch.stack([(found.scores > self.score_threshold).sum() for found in results]).tolist()
            results = [
                Detections(*(part[:count] for part in found)) for found, count in zip(results, counts, strict=True)
            ]
        return results

    def _voted(self, kept: Tensor, every: Detections, overlap: float) -> Detections:
        """Return the boxes that suppression kept, placed and scored by all of them, best first."""
        boxes, scores, labels = (part[kept] for part in every)
        if self.box_voting is None:
            return Detections(boxes, scores, labels)
        boxes, votes = vote(kept, *every, overlap, self.box_voting)
        if self.usual_votes is None:
            return Detections(boxes, scores, labels)
        scores, order = score_by_vote(scores, votes, self.usual_votes).sort(descending=True, stable=True)
        return Detections(boxes[order], scores, labels[order])


def _suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Return the boxes that suppression within each class leaves, best first."""
    from torchvision.ops import batched_nms, nms

    kept: Tensor
    if 0 < len(boxes) <= _TOGETHER:
        # As torchvision does it for so many, but without its number from the host, for which a GPU would wait.
        apart = labels.to(boxes.dtype) * (boxes.max() + 1)
        kept = nms(boxes + apart[:, None], scores, iou_threshold)
    else:
        kept = batched_nms(boxes, scores, labels, iou_threshold)
    return kept
