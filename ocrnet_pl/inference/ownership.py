"""Which box owns each pixel, and what each box owns of what it claimed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.inference.claims import Claims, find_claims, place_weights
from ocrnet_pl.inference.geometry import clip_boxes
from ocrnet_pl.inference.pixels import (
    BoxLines,
    BoxReach,
    SemanticMap,
    box_lines,
    box_pixels,
    look_up,
    strongest,
    tight_bounds,
)
from ocrnet_pl.inference.tables import ClassTables

_BAND = 2**16
"""Number of pixels of a box that are compared together: what is computed of them stays in a processor's cache."""
_LARGE = 3000
"""Number of pixels per box from which a CPU is faster box by box: below, starting its operations takes longer."""


class Ownership(NamedTuple):
    """The owners of an image's pixels.

    Attributes:
        owner: int32 [H, W], the box that each pixel goes to, -1 for none.
        claimed: int64 [N], the number of pixels that each box claimed.
        owned: int64 [N], the number of pixels that each box owns.
        certainty: float [N], the sum of the probabilities of a box's class at the pixels that it owns.
        share: float [N], the share of rows times the share of columns in which each box owns pixels, 0 to 1.
        bounds: float [N, 4], the bounds of the pixels that each box owns; its own sides where it owns none.
    """

    owner: Tensor
    claimed: Tensor
    owned: Tensor
    certainty: Tensor
    share: Tensor
    bounds: Tensor


def find_owners(
    boxes: Tensor, scores: Tensor, of_class: Tensor, factor: Tensor | None, semantic: SemanticMap, tables: ClassTables
) -> Ownership:
    """Give each pixel to the box with the most evidence, the first one on a tie.

    A CPU takes large boxes one by one, in about a fifth of the time, and small ones together. A GPU, which would wait
    for each of them, takes all together.

    Args:
        boxes: float [N, 4], xyxy.
        scores: float [N].
        of_class: int64 [N], the segmentation class of each box, -1 for boxes that own nothing.
        factor: float [N], factor on each box's evidence; None for 1.
        semantic: The pixels' classes.
        tables: What fusion knows of each class, and its settings.
    """
    find = owners_by_list
    if boxes.device.type == "cpu":
        inside = clip_boxes(boxes, semantic.size)
        area = (inside[:, 2:] - inside[:, :2]).clamp(min=0).prod(-1)
        find = owners_by_box if area.sum() > _LARGE * len(boxes) else owners_by_list
    return find(boxes, scores, of_class, factor, semantic, tables)


def owners_by_list(
    boxes: Tensor, scores: Tensor, of_class: Tensor, factor: Tensor | None, semantic: SemanticMap, tables: ClassTables
) -> Ownership:
    """Return what :func:`find_owners` does, from one list of all pairs of a box and a pixel."""
    height, width = semantic.size
    claimed = torch.zeros_like(of_class)
    best: Claims | None = None
    for pixels in box_pixels(boxes * (of_class >= 0)[:, None], semantic.size):
        claims = find_claims(pixels, scores, of_class, semantic, tables)
        if factor is not None:
            claims.evidence.mul_(look_up(factor[pixels.row_box], claims.row))
        # The claims are in the order of the rows, and to count them otherwise makes a GPU wait.
        ends = torch.arange(len(pixels.row_box) + 1, device=boxes.device)
        of_row = torch.searchsorted(claims.row, ends).diff()
        claimed.scatter_add_(0, pixels.row_box, of_row)
        if best is not None:
            claims = Claims(*map(torch.cat, zip(best, claims, strict=True)))
        won = strongest(claims.pixel, claims.evidence, semantic.size)
        best = Claims(*(look_up(part, won) for part in claims))
    assert best is not None
    pixel, box = best.pixel, look_up(pixels.row_box, best.row)
    reach = BoxReach(pixels, len(boxes))
    reach.add(pixel, best.row)
    owner = torch.full((height * width,), -1, dtype=torch.int32, device=boxes.device)
    owner[pixel] = box.to(torch.int32)
    return Ownership(
        owner.view(height, width),
        claimed,
        reach.count(),
        torch.zeros_like(scores).scatter_add(0, box, best.probability),
        reach.share(),
        tight_bounds(pixel, best.row, pixels.row_box, boxes, width),
    )


def owners_by_box(
    boxes: Tensor, scores: Tensor, of_class: Tensor, factor: Tensor | None, semantic: SemanticMap, tables: ClassTables
) -> Ownership:
    """Return what :func:`find_owners` does, box by box: what is next to each other in memory is read in one go."""
    lines = box_lines(boxes * (of_class >= 0)[:, None], semantic.size)
    settings = tables.settings
    in_row, in_column = place_weights(lines, scores, settings)
    classes = of_class.tolist()
    factors = None if factor is None else factor.tolist()
    kept = tables.raw_pixels[semantic.labels] if settings.raw_pixels else None
    owner = torch.full(semantic.size, -1, dtype=torch.int32)
    most = torch.full(semantic.size, -1.0, dtype=scores.dtype)
    claimed, owned = torch.zeros_like(of_class), torch.zeros_like(of_class)
    for band in _bands(lines):
        box, place = band.box, band.place
        kind = classes[box]
        own = semantic.probability[kind][place].to(scores.dtype)
        weight = in_row[band.rows, None] * in_column[band.columns]
        claims = own * (1 + settings.claim * weight) >= semantic.top[place]
        if kept is not None:
            stays = semantic.labels[place] == kind
            claims &= stays if tables.raw_pixels[kind] else stays | ~kept[place]
        claimed[box] += claims.count_nonzero()
        evidence = own.mul(weight)
        if factors is not None:
            evidence *= factors[box]
        # Less than any evidence.
        evidence.masked_fill_(~claims, -1.0)
        best = most[place]
        owner[place].masked_fill_(evidence > best, box)
        torch.maximum(best, evidence, out=best)

    certainty = torch.zeros_like(scores)
    any_in_row, any_in_column = (torch.zeros(len(each), dtype=torch.bool) for each in (in_row, in_column))
    for band in _bands(lines):
        if not claimed[band.box]:
            continue
        mine = owner[band.place] == band.box
        own = semantic.probability[classes[band.box]][band.place].to(scores.dtype)
        owned[band.box] += mine.count_nonzero()
        certainty[band.box] += own.mul(mine).sum()
        any_in_row[band.rows] = mine.any(1)
        any_in_column[band.columns] |= mine.any(0)
    first, last = [], []
    reached = torch.ones_like(of_class)
    for line_box, line, there in (
        (lines.column_box, lines.x, any_in_column),
        (lines.row_box, lines.y, any_in_row),
    ):
        low, nowhere = line.to(scores.dtype), torch.full_like(scores, torch.inf)
        first.append(nowhere.scatter_reduce(0, line_box, low.masked_fill(~there, torch.inf), "amin"))
        last.append((-nowhere).scatter_reduce(0, line_box, (low + 1).masked_fill(~there, -torch.inf), "amax"))
        reached *= torch.zeros_like(of_class).scatter_add(0, line_box, there.long())
    bounds = torch.stack((*first, *last), 1)
    share = reached / (lines.rows * lines.columns).clamp(min=1)
    return Ownership(owner, claimed, owned, certainty, share, torch.where(bounds.isinf(), boxes, bounds))


class _Band(NamedTuple):
    """Some rows of a box.

    Attributes:
        box: The box.
        place: The band's rows and columns of the image.
        rows: The band's rows in the list of all boxes' rows.
        columns: The box's columns in the list of all boxes' columns.
    """

    box: int
    place: tuple[slice, slice]
    rows: slice
    columns: slice


def _bands(lines: BoxLines) -> Iterator[_Band]:
    """Yield the boxes in order, each in bands of few pixels."""
    row = column = 0
    sizes = torch.stack((lines.first_row, lines.first_column, lines.rows, lines.columns), 1).tolist()
    for box, (y, x, rows, columns) in enumerate(sizes):
        step = max(1, _BAND // max(columns, 1))
        for start in range(0, rows if columns else 0, step):
            end = min(start + step, rows)
            place = slice(y + start, y + end), slice(x, x + columns)
            yield _Band(box, place, slice(row + start, row + end), slice(column, column + columns))
        row, column = row + rows, column + columns
