"""Boxes that lie in larger boxes of their class, and which of the two has the better right to the pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.pixels import BoxReach, SemanticMap, box_pixels, look_up

SURE = 0.3
"""Boxes of a lower score are neither nested in others nor others in them: most are none."""
_INSIDE = 0.6
"""A box of whose area as much lies in another is nested in it..."""
_SMALLER = 0.6
"""...if its area is at most this share of the other's; what is nearer in size are two boxes of one object."""
_FITS = 0.9
"""A box still fits its object if what is left to it has at least this share of the reach that it had."""
_NOTHING = 0.2
"""A box that is left less than this share of its pixels is made up of those nested in it."""
_CREDIBLE = 0.5
"""How credible a nested box must be beside an outer one that still fits..."""
_LOSS = 2.1
"""...and for each share of the outer one's area that it takes."""
_TOGETHER = 1.5
"""How credible the nested boxes must be together beside an outer one that they make up."""
_LEVELS = 4
"""How many boxes may stand one in the other, each before the outer ones."""
_BEFORE = 0.99
"""An outer box's evidence where it is strongest, as a share of that of a nested one where it is weakest."""
_BLOCK = 2**22
"""Pairs of boxes that are compared together."""


class Nesting(NamedTuple):
    """What outer boxes leave to boxes nested in them.

    Attributes:
        factor: float [N], on each box's evidence, by which outer boxes fall behind the right ones nested in them.
        inner: int64 [P], the nested box of each pair in which both are right.
        outer: int64 [P], the outer box of each.
    """

    factor: Tensor
    inner: Tensor
    outer: Tensor


def find_nesting(
    detections: Detections, chosen: Tensor, of_class: Tensor, semantic: SemanticMap, edge: float
) -> Nesting | None:
    """Find which nested boxes come before the outer ones.

    A nested box comes before the outer one if both can be right, or if the outer one is made up of nested boxes. It
    does not if it would leave the outer one with a part that no longer fits it: of these two only one is right, and the
    scores tell which.

    Args:
        detections: Within the image that ``semantic`` is of.
        chosen: bool [N], the boxes that this is about.
        of_class: int64 [N], the segmentation class of each.
        semantic: The pixels' classes.
        edge: The place prior at a box's corner, as a share of that at its centre.

    Returns:
        None where no box is nested in another.
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
    kept = first & both
    return Nesting(strength / scores.clamp(min=1e-12), inner[kept], outer[kept])


def nested_pairs(boxes: Tensor, labels: Tensor, chosen: Tensor, block: int = _BLOCK) -> tuple[Tensor, Tensor]:
    """Return the rows of the nested and of the outer box, int64 [P] each, of all pairs of one class.

    Args:
        boxes: float [N, 4], xyxy.
        labels: int64 [N].
        chosen: bool [N], the boxes that are looked at.
        block: Pairs that are compared together, up to a box's more.
    """
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    rows = (chosen & (area > 0)).nonzero()[:, 0]
    kind, every = labels[rows], area[rows]
    corners = boxes[rows].T.contiguous().view(2, 2, -1)
    inner, outer = [rows[:0]], [rows[:0]]
    step = max(block // max(len(rows), 1), 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        low, high = torch.maximum(corners[0, :, part, None], corners[0, :, None]), corners[1, :, part, None]
        sides = torch.minimum(high, corners[1, :, None]).sub_(low).clamp_(min=0)
        own = every[part, None]
        # By the least of both margins: joining conditions takes many times as long on a CPU.
        margin = torch.minimum(sides[0].mul_(sides[1]).sub_(_INSIDE * own), _SMALLER * every - own)
        first, second = (margin >= 0).nonzero().unbind(1)
        same = kind[first + start] == kind[second]
        inner.append(rows[first[same] + start])
        outer.append(rows[second[same]])
    return torch.cat(inner), torch.cat(outer)


def _reach_and_what_smaller_leave(boxes: Tensor, of_class: Tensor, semantic: SemanticMap) -> tuple[BoxReach, BoxReach]:
    """Return each box's reach with all pixels of its class in it, and with those that are in no smaller such box."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    tightness = torch.empty_like(of_class)
    tightness[area.argsort(descending=True, stable=True)] = torch.arange(len(boxes), device=boxes.device)
    labels = semantic.labels.flatten()
    # The tightest box of each pixel and, below it in the same number, the row of that box.
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
