"""Boxes inside larger boxes of their class, and which of the two has the better right to the pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.pixels import BoxReach, SemanticMap, box_pixels, look_up

SURE = 0.3
"""Boxes with a lower score are not considered for nesting, neither as inner nor as outer ones: most of them are not
objects.
"""
_INSIDE = 0.6
"""A box is nested in another one that contains at least this share of its area..."""
_SMALLER = 0.6
"""...if its area is at most this share of the other's; two boxes of more similar size belong to one object."""
_FITS = 0.9
"""A box still fits its object if the pixels left to it have at least this share of the reach that it had."""
_NOTHING = 0.2
"""A box that keeps less than this share of its pixels consists of those nested in it."""
_CREDIBLE = 0.5
"""How credible a nested box must be compared with an outer one that still fits..."""
_LOSS = 2.1
"""...and how much more for each share of the outer one's area that it takes."""
_TOGETHER = 1.5
"""How credible the nested boxes must be together compared with an outer one that consists of them."""
_LEVELS = 4
"""How many levels of boxes may be nested in each other, each level before its outer ones."""
_BEFORE = 0.99
"""An outer box's evidence at its strongest, as a share of a nested box's evidence at its weakest."""
_FEW = 512
"""Number of boxes of which all are compared with all, whether chosen or not."""
_BLOCK = 2**22
"""Number of pairs of boxes that are compared together."""


class Nesting(NamedTuple):
    """What outer boxes leave to boxes nested in them.

    Attributes:
        factor: float [N], factor on each box's evidence that puts outer boxes behind the right ones nested in them.
        inner: int64 [P], the nested box of each pair.
        outer: int64 [P], the outer box of each pair.
        both: bool [P], whether both boxes of the pair are right.
    """

    factor: Tensor
    inner: Tensor
    outer: Tensor
    both: Tensor


def find_nesting(
    detections: Detections, chosen: Tensor, of_class: Tensor, semantic: SemanticMap, edge: float
) -> Nesting | None:
    """Find which nested boxes come before the outer ones.

    A nested box comes before the outer one if both can be right, or if the outer one consists of nested boxes. It does
    not if it would leave the outer one with a part that no longer fits it: then only one of the two is right, and the
    scores decide.

    Args:
        detections: Boxes within the image of ``semantic``.
        chosen: bool [N], the boxes to consider.
        of_class: int64 [N], the segmentation class of each box.
        semantic: The pixels' classes.
        edge: The place prior at a box's corner, as a share of the prior at its centre.

    Returns:
        The nesting; None where no box is nested in another.
    """
    boxes, scores, labels = detections
    inner, outer = nested_pairs(boxes, labels, chosen)
    if not len(inner):
        return None
    involved = torch.zeros_like(chosen)
    involved[inner] = involved[outer] = True
    whole, left = _reach_and_what_smaller_leave(boxes * involved[:, None], of_class, semantic)
    reached = whole.share()
    fits = left.share() >= _FITS * reached
    made_up = left.count() < _NOTHING * whole.count()
    credible = scores * reached
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    needed = (_LOSS * area[inner] / area[outer]).clamp(min=_CREDIBLE)
    both = fits[outer] & (credible[inner] >= needed * credible[outer])
    together = torch.zeros_like(scores).scatter_add(0, outer, torch.where(fits, credible, 0.0)[inner])
    instead = (made_up & (together >= _TOGETHER * credible))[outer]
    first = fits[inner] & (both | instead)
    strength = scores
    for _ in range(_LEVELS):
        behind = torch.where(first, _BEFORE * edge * strength[inner], torch.inf)
        strength = strength.scatter_reduce(0, outer, behind, "amin")
    return Nesting(strength / scores.clamp(min=1e-12), inner, outer, first & both)


def nested_pairs(boxes: Tensor, labels: Tensor, chosen: Tensor, block: int = _BLOCK) -> tuple[Tensor, Tensor]:
    """Return the rows of the nested and of the outer box, int64 [P] each, of all pairs of one class.

    Args:
        boxes: float [N, 4], xyxy.
        labels: int64 [N], the classes.
        chosen: bool [N], the boxes to consider.
        block: Number of pairs that are compared together; it may be exceeded by the pairs of one box.
    """
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    chosen = chosen & (area > 0)
    # To pick the chosen ones makes a GPU wait, which pays only for many.
    rows = torch.arange(len(boxes), device=boxes.device) if len(boxes) <= _FEW else chosen.nonzero()[:, 0]
    kind, every, taken = labels[rows], area[rows], chosen[rows]
    corners = boxes[rows].T.contiguous().view(2, 2, -1)
    inner, outer = [rows[:0]], [rows[:0]]
    step = max(block // max(len(rows), 1), 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        low, high = torch.maximum(corners[0, :, part, None], corners[0, :, None]), corners[1, :, part, None]
        sides = torch.minimum(high, corners[1, :, None]).sub_(low).clamp_(min=0)
        own = every[part, None]
        # The smaller of both margins: combining conditions takes many times as long on a CPU.
        margin = torch.minimum(sides[0].mul_(sides[1]).sub_(_INSIDE * own), _SMALLER * every - own)
        if len(boxes) <= _FEW:
            margin = margin.masked_fill(~(taken[part, None] & taken & (kind[part, None] == kind)), -1.0)
            first, second = (margin >= 0).nonzero().unbind(1)
        else:
            first, second = (margin >= 0).nonzero().unbind(1)
            same = kind[first + start] == kind[second]
            first, second = first[same], second[same]
        inner.append(rows[first + start])
        outer.append(rows[second])
    return torch.cat(inner), torch.cat(outer)


def _reach_and_what_smaller_leave(boxes: Tensor, of_class: Tensor, semantic: SemanticMap) -> tuple[BoxReach, BoxReach]:
    """Return each box's reach with all pixels of its class, and with those that are in no smaller box of its class."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    tightness = torch.empty_like(of_class)
    tightness[area.argsort(descending=True, stable=True)] = torch.arange(len(boxes), device=boxes.device)
    labels = semantic.labels.flatten()
    # The tightest box of each pixel and, in the lower bits of the same number, the row of that box.
    tightest = torch.full_like(labels, -1)
    whole: BoxReach | None = None
    for pixels in box_pixels(boxes, semantic.size):
        if whole is None:
            whole = BoxReach(pixels, len(boxes))
            key = (tightness[pixels.row_box] << 32) + torch.arange(len(pixels.row_box), device=boxes.device)
        own = look_up(labels, pixels.pixel) == look_up(of_class[pixels.row_box], pixels.row)
        seen = own.nonzero()[:, 0]
        pixel, row = look_up(pixels.pixel, seen), look_up(pixels.row, seen)
        whole.add(pixel, row)
        tightest.scatter_reduce_(0, pixel, look_up(key, row), "amax")
    assert whole is not None
    left = BoxReach(pixels, len(boxes))
    pixel = (tightest >= 0).nonzero()[:, 0]
    left.add(pixel, look_up(tightest, pixel) & 0xFFFFFFFF)
    return whole, left
