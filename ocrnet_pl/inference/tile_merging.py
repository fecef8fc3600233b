"""Boxes found in overlapping tiles, joined to the boxes of the whole image.

A box is *cut* where it touches a border of its tile that is not a border of the image: its object may continue beyond.

1. Among whole boxes of the same object the best one is kept: suppression within each class, as on one image.
2. A cut box is removed where a whole box explains it: where it is about what the whole box looks like through the cut
   box's tile. The class does not matter, since a corner of an object is easily mistaken for something else. So the tile
   that sees the object whole wins; with an overlap of at least the object's size there is always such a tile.
3. The remaining cut boxes belong to objects larger than the overlap. Those of one class from different tiles that agree
   on the part that both tiles see are united, over as many tiles as the object spans. Each side of the united box is
   that of the best-scored part whose tile does not cut it there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ocrnet_pl.inference.decode import Detections

_AGREE = 0.5
"""The IoU from which two boxes show one object, measured on the part that both tiles see."""
_INSIDE = 0.8
"""The share of a cut box inside a whole one of its class from which it is a part of that object."""
_WORTH = 0.5
"""How far the score of a whole box may be below that of a cut one that it replaces, and the scores of one object's
parts apart, as a factor.
"""
_ROWS = 256
"""Number of rows that are compared at a time, so that memory grows with the boxes and not with their square."""


def join_tiles(
    found: Sequence[Detections], windows: Tensor, size: tuple[int, int], touch: float, iou_threshold: float
) -> Detections:
    """Join the boxes of all tiles.

    Args:
        found: The boxes of each tile, in the image's pixels.
        windows: float [T, 4], xyxy, the tiles in the image's pixels.
        size: (height, width) of the image.
        touch: Distance from a tile's border, in pixels, up to which a box counts as touching it.
        iou_threshold: IoU above which suppression drops the worse of two boxes of one class.

    Returns:
        The boxes of the image, best first.
    """
    from torchvision.ops import batched_nms

    boxes, scores, labels = (torch.cat(part) for part in zip(*found, strict=True))
    tile = torch.repeat_interleave(torch.arange(len(found)), torch.tensor([len(part.scores) for part in found]))
    sides = _cut_sides(boxes, windows[tile], size, touch)
    cut = sides.any(1)
    whole = (~cut).nonzero()[:, 0]
    whole = whole[batched_nms(boxes[whole], scores[whole], labels[whole], iou_threshold)]
    rest = cut.nonzero()[:, 0]
    rest = rest[~_explained(boxes, scores, labels, windows[tile], rest, whole)]
    group = _groups(Detections(boxes[rest], scores[rest], labels[rest]), tile[rest], windows, touch)
    united, best = _unite(boxes[rest], scores[rest], sides[rest], group)
    boxes = torch.cat((boxes[whole], united))
    scores = torch.cat((scores[whole], scores[rest][best]))
    labels = torch.cat((labels[whole], labels[rest][best]))
    kept = batched_nms(boxes, scores, labels, iou_threshold)
    return Detections(boxes[kept], scores[kept], labels[kept])


def _cut_sides(boxes: Tensor, windows: Tensor, size: tuple[int, int], touch: float) -> Tensor:
    """Return which sides touch a border of the box's tile that is not a border of the image, bool [N, 4]."""
    height, width = size
    low = (windows[:, :2] > 0) & (boxes[:, :2] - windows[:, :2] < touch)
    high = (windows[:, 2:] < windows.new_tensor((width, height))) & (windows[:, 2:] - boxes[:, 2:] < touch)
    return torch.cat((low, high), 1)


def _clip(boxes: Tensor, windows: Tensor) -> Tensor:
    return torch.cat(
        (torch.maximum(boxes[..., :2], windows[..., :2]), torch.minimum(boxes[..., 2:], windows[..., 2:])), -1
    )


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def _explained(boxes: Tensor, scores: Tensor, labels: Tensor, windows: Tensor, cut: Tensor, whole: Tensor) -> Tensor:
    """Return which of the cut boxes show a part of what a whole box shows, one bool per row of ``cut``."""
    explained = torch.zeros(len(cut), dtype=torch.bool)
    for first in range(0, len(cut), _ROWS):
        rows = cut[first : first + _ROWS]
        own = boxes[rows][:, None]
        # The whole boxes as the cut box's tile sees them.
        seen = _clip(boxes[whole][None], windows[rows][:, None])
        common, area = _area(_clip(own, seen)), _area(own)
        alike = common > _AGREE * (area + _area(seen) - common)
        inside = (common > _INSIDE * area) & (labels[rows][:, None] == labels[whole])
        fair = scores[whole] >= _WORTH * scores[rows][:, None]
        explained[first : first + _ROWS] = ((alike | inside) & fair).any(1)
    return explained


def _groups(parts: Detections, tile: Tensor, windows: Tensor, touch: float) -> Tensor:
    """Number the objects that cut boxes show parts of, int64 [N]."""
    boxes, scores, labels = parts
    group = list(range(len(boxes)))

    def root(item: int) -> int:
        while group[item] != item:
            group[item] = group[group[item]]
            item = group[item]
        return item

    # Enlarged a little, so that tiles without an overlap share a strip along their border, and boxes reach into it.
    grow = torch.tensor([-touch, -touch, touch, touch])
    boxes, own = boxes + grow, windows[tile] + grow
    for first in range(0, len(boxes), _ROWS):
        rows = slice(first, first + _ROWS)
        shared = _clip(own[rows][:, None], own[None])
        one, other = _clip(boxes[rows][:, None], shared), _clip(boxes[None], shared)
        common = _area(_clip(one, other))
        alike = common > _AGREE * (_area(one) + _area(other) - common)
        alike &= (labels[rows][:, None] == labels) & (tile[rows][:, None] != tile)
        # The many doubtful boxes would chain objects together.
        alike &= torch.minimum(scores[rows][:, None], scores) > _WORTH * torch.maximum(scores[rows][:, None], scores)
        for i, j in alike.nonzero().tolist():
            group[root(first + i)] = root(j)
    return torch.tensor([root(item) for item in range(len(boxes))], dtype=torch.int64)


def _unite(boxes: Tensor, scores: Tensor, cut_sides: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Return the box of each group [G, 4], and the row of its best-scored member [G]."""
    if not len(boxes):
        return boxes, group
    _, group = group.unique(return_inverse=True)
    count, most = int(group.max()) + 1, len(boxes)
    order = scores.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(most)
    wide = group[:, None].expand(-1, 2)
    low = boxes.new_zeros(count, 2).scatter_reduce(0, wide, boxes[:, :2], "amin", include_self=False)
    high = boxes.new_zeros(count, 2).scatter_reduce(0, wide, boxes[:, 2:], "amax", include_self=False)
    around = torch.cat((low, high), 1)
    # The best-scored member that sees a side; where none does, the farthest one.
    seen = torch.where(cut_sides, most, rank[:, None])
    first = torch.full((count, 4), most).scatter_reduce(0, group[:, None].expand(-1, 4), seen, "amin")
    sides = boxes[order[first.clamp(max=most - 1)], torch.arange(4)]
    united = torch.where(first < most, sides, around)
    valid = (united[:, 2:] > united[:, :2]).all(1, keepdim=True)
    best = torch.full((count,), most).scatter_reduce(0, group, rank, "amin")
    return torch.where(valid, united, around), order[best]
