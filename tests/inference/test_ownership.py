"""Who owns each pixel: box by box, as a CPU does it, the same as from one list, as a GPU does it, and as one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ocrnet_pl.inference import ownership
from ocrnet_pl.inference.ownership import Ownership, find_owners, owners_by_box, owners_by_list
from ocrnet_pl.inference.pixels import SemanticMap
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.inference.tables import ClassTables
from ocrnet_pl.structures import Taxonomy

TAXONOMY = Taxonomy.build(things=["a", "b", "c"], stuff=["d"])
SETTINGS = FusionSettings(0.3, 1.5, 0.25, 0.3, 0.3, 0.2, 64, None)


def case(
    seed: int, settings: FusionSettings = SETTINGS
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, SemanticMap, ClassTables]:
    """Return a random image with boxes of all sizes, also empty ones, and ones that are no objects' class."""
    draw = torch.Generator().manual_seed(seed)
    height, width = (int(torch.randint(1, 40, (), generator=draw)) for _ in range(2))
    count = int(torch.randint(0, 12, (), generator=draw))
    corners = torch.rand(count, 2, 2, generator=draw).sort(1).values.flatten(1) * torch.tensor([width, height] * 2)
    if seed % 3 == 0:
        # On the pixels' grid, where two boxes often have the same evidence.
        corners = corners.round()
    scores = torch.rand(count, generator=draw)
    if seed % 4 == 0:
        scores = scores.round(decimals=1)
    of_class = torch.randint(-1, 3, (count,), generator=draw)
    factor = torch.rand(count, generator=draw) if seed % 2 else None
    probability = (2 * torch.randn(4, height, width, generator=draw)).softmax(0)
    semantic = SemanticMap.of(probability)
    return corners, scores, of_class, factor, semantic, ClassTables.of(TAXONOMY, settings, torch.device("cpu"))


def test_boxes_one_by_one_own_what_they_own_in_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(600):
        # Several bands of a box, and bands of a single row.
        monkeypatch.setattr(ownership, "_BAND", (1, 60, 2**16)[seed % 3])
        settings = SETTINGS if seed % 5 else replace(SETTINGS, raw_pixels=("b",))
        arguments = case(seed, settings)
        one, other = owners_by_box(*arguments), owners_by_list(*arguments)
        for name in ("owner", "claimed", "owned", "share", "bounds"):
            assert torch.equal(getattr(one, name), getattr(other, name)), (seed, name)
        torch.testing.assert_close(one.certainty, other.certainty)


def by_loops(
    boxes: Tensor, scores: Tensor, of_class: Tensor, factor: Tensor | None, semantic: SemanticMap, tables: ClassTables
) -> list[list[int]]:
    """Return the owner of each pixel as docs/fusion.md describes it."""
    height, width = semantic.size
    settings = tables.settings
    owners = [[-1] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            most = -1.0
            for box, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
                kind = int(of_class[box])
                if kind < 0 or not (x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2):
                    continue
                u, v = (
                    (at + 0.5 - (low + high) / 2) / max((high - low) / 2, 0.5)
                    for at, low, high in ((x, x1, x2), (y, y1, y2))
                )
                weight = float(scores[box]) * math.exp(-(u * u + v * v) / (2 * settings.spread**2))
                own = float(semantic.probability[kind, y, x])
                if own * (1 + settings.claim * weight) < float(semantic.top[y, x]):
                    continue
                evidence = own * weight * (1.0 if factor is None else float(factor[box]))
                if evidence > most:
                    most, owners[y][x] = evidence, box
    return owners


def test_a_pixel_goes_to_the_claim_with_the_most_evidence() -> None:
    compared = 0
    for seed in range(40):
        arguments = case(seed)
        # Without chance ties, which rounding decides.
        if seed % 3 and seed % 4:
            assert owners_by_box(*arguments).owner.tolist() == by_loops(*arguments), seed
            compared += 1
    assert compared > 15


def test_a_cpu_takes_large_boxes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "owners_by_box", lambda *_: "one by one")
    monkeypatch.setattr(ownership, "owners_by_list", lambda *_: "in a list")
    semantic = SemanticMap.of(torch.full((4, 100, 100), 0.25))
    for side, way in ((40.0, "in a list"), (70.0, "one by one"), (1000.0, "one by one"), (-5.0, "in a list")):
        boxes = torch.tensor([[10.0, 10.0, 10 + side, 10 + side]]).repeat(3, 1)
        assert find_owners(boxes, torch.ones(3), torch.zeros(3).long(), None, semantic, None) == way  # type: ignore[arg-type]


def test_what_a_box_owns_is_counted_and_bounded() -> None:
    for seed in range(1, 60):
        boxes, scores, of_class, factor, semantic, tables = case(seed)
        found: Ownership = owners_by_box(boxes, scores, of_class, factor, semantic, tables)
        for box in range(len(boxes)):
            ys, xs = (found.owner == box).nonzero().unbind(1)
            assert found.owned[box] == len(ys) <= found.claimed[box]
            if len(ys):
                bounds = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
                assert found.bounds[box].tolist() == bounds
                own = semantic.probability[of_class[box], ys, xs]
                assert float(found.certainty[box]) == pytest.approx(float(own.sum()), rel=1e-5)
            else:
                assert torch.equal(found.bounds[box], boxes[box]) and found.share[box] == 0
