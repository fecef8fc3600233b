"""Which pixels boxes claim for their objects, and with how much evidence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.inference.pixels import BoxLines, BoxPixels, SemanticMap, look_up
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.inference.tables import ClassTables


class Claims(NamedTuple):
    """Boxes' claims to pixels, in the order of :class:`~ocrnet_pl.inference.pixels.BoxPixels`.

    Attributes:
        pixel: int64 [K], ``y * width + x``.
        row: int64 [K], the row of the box, as a place in ``row_box``.
        probability: float [K], probability of the box's class at the pixel.
        evidence: float [K]; the pixel goes to the claim with the most evidence.
    """

    pixel: Tensor
    row: Tensor
    probability: Tensor
    evidence: Tensor


def find_claims(
    pixels: BoxPixels, scores: Tensor, of_class: Tensor, semantic: SemanticMap, tables: ClassTables
) -> Claims:
    """Return the boxes' claims to those of their pixels that have their class, or lost it narrowly to another.

    Args:
        pixels: The pixels of the boxes.
        scores: float [N], the boxes' scores.
        of_class: int64 [N], the segmentation class of each box.
        semantic: The pixels' classes.
        tables: What fusion knows of each class, and its settings.
    """
    settings = tables.settings
    in_row, in_column = place_weights(pixels, scores, settings)
    weight = look_up(in_row, pixels.row) * look_up(in_column, pixels.column)
    layer = of_class[pixels.row_box] * semantic.labels.numel()
    own = look_up(semantic.probability.flatten(), look_up(layer, pixels.row) + pixels.pixel).to(scores.dtype)
    raised = own * (1 + settings.claim * weight)
    claims = (raised >= look_up(semantic.top.flatten(), pixels.pixel)).nonzero()[:, 0]
    if settings.raw_pixels:
        claims = claims[_may_change(pixels, claims, of_class, semantic, tables.raw_pixels)]
    own, weight = look_up(own, claims), look_up(weight, claims)
    return Claims(look_up(pixels.pixel, claims), look_up(pixels.row, claims), own, own * weight)


def place_weights(lines: BoxLines | BoxPixels, scores: Tensor, settings: FusionSettings) -> tuple[Tensor, Tensor]:
    """Return how much the boxes' scores count in each of their rows, and the factor on it in each of their columns.

    A Gaussian in both directions, float [rows] and float [columns]; at a pixel it is the product of both.

    Args:
        lines: The rows and columns of the boxes.
        scores: float [N], the boxes' scores.
        settings: The settings of fusion.
    """
    narrow = -1 / (2 * settings.spread**2)
    in_row = torch.exp(lines.row_offset.square() * narrow) * scores[lines.row_box]
    return in_row, torch.exp(lines.column_offset.square() * narrow)


def _may_change(pixels: BoxPixels, claims: Tensor, of_class: Tensor, semantic: SemanticMap, kept: Tensor) -> Tensor:
    """Return the claims, bool, that do not move a pixel into or out of an unchanged class."""
    wanted = look_up(of_class, look_up(pixels.row_box, look_up(pixels.row, claims)))
    there = look_up(semantic.labels.flatten(), look_up(pixels.pixel, claims))
    return (there == wanted) | ~(look_up(kept, there) | look_up(kept, wanted))
