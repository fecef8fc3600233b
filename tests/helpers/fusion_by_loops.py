"""Fusion's rules as docs/fusion.md tells them, in plain loops over boxes and pixels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.pixels import SemanticMap
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.structures import Taxonomy

Pixels = set[tuple[int, int]]


class Looped(NamedTuple):
    """What the loops give, in the order of the detections.

    Attributes:
        owner: int [H, W], the row of the box that has the pixel, -1 for none.
        scores: One a box.
        boxes: One a box.
        shown: The rows that the panoptic map shows.
        before: Pairs (a, b) of which a comes before b.
        left: Classes after fusion of the pixels that the map shows in no box.
    """

    owner: NDArray[np.int64]
    scores: list[float]
    boxes: list[list[float]]
    shown: list[int]
    before: list[tuple[int, int]]
    left: dict[tuple[int, int], int]


def fuse_by_loops(
    detections: Detections, semantic: SemanticMap, settings: FusionSettings, taxonomy: Taxonomy
) -> Looped:
    """Fuse without settings that leave classes alone."""
    height, width = semantic.size
    boxes, scores, labels = detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist()
    rows = range(len(boxes))
    classes = [taxonomy.detection_to_semantic[label] for label in labels]
    probability, seen = semantic.probability.numpy(), semantic.labels.numpy()
    inside = [(max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)) for x1, y1, x2, y2 in boxes]
    area = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in inside]
    within: list[Pixels] = [
        {(y, x) for y in range(height) for x in range(width) if x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2}
        for x1, y1, x2, y2 in inside
    ]

    def reach(row: int, own: Pixels) -> float:
        shares = [len({p[axis] for p in own}) / max(len({p[axis] for p in within[row]}), 1) for axis in (0, 1)]
        return shares[0] * shares[1]

    def place(row: int, y: int, x: int) -> float:
        x1, y1, x2, y2 = boxes[row]
        u, v = (2 * x + 1 - x1 - x2) / (x2 - x1), (2 * y + 1 - y1 - y2) / (y2 - y1)
        return math.exp(-(u * u + v * v) / (2 * settings.spread**2))

    # 2. Nesting.
    def is_nested(a: int, b: int) -> bool:
        (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = inside[a], inside[b]
        shared = max(min(ax2, bx2) - max(ax1, bx1), 0) * max(min(ay2, by2) - max(ay1, by1), 0)
        sure = min(scores[a], scores[b]) >= 0.3 and classes[a] >= 0
        return sure and labels[a] == labels[b] and shared >= 0.6 * area[a] and area[a] <= 0.6 * area[b]

    pairs = [(a, b) for a in rows for b in rows if a != b and is_nested(a, b)]
    involved = sorted({row for pair in pairs for row in pair})
    whole = {row: {(y, x) for y, x in within[row] if seen[y, x] == classes[row]} for row in involved}
    got: dict[int, Pixels] = {row: set() for row in involved}
    for pixel in set().union(*whole.values()):
        best = min((row for row in involved if pixel in whole[row]), key=lambda row: (area[row], -row))
        got[best].add(pixel)
    reached = {row: reach(row, whole[row]) for row in involved}
    fits = {row: reach(row, got[row]) >= 0.9 * reached[row] for row in involved}
    credible = {row: scores[row] * reached[row] for row in involved}
    before, both_right = [], []
    for a, b in pairs:
        together = sum(credible[c] for c, outer in pairs if outer == b and fits[c])
        both = fits[b] and credible[a] >= max(0.5, 2.1 * area[a] / area[b]) * credible[b]
        made_up = len(got[b]) < 0.2 * len(whole[b])
        if fits[a] and (both or (made_up and together >= 1.5 * credible[b])):
            before.append((a, b))
            both_right += [(a, b)] if both else []
    strength = list(scores)
    for _ in range(4):
        earlier = list(strength)
        for a, b in before:
            strength[b] = min(strength[b], 0.99 * math.exp(-1 / settings.spread**2) * earlier[a])

    # 1 and 3. Claims and owners.
    owner = np.full((height, width), -1)
    most = np.zeros((height, width))
    claimed = [0] * len(boxes)
    for row in rows:
        if classes[row] < 0:
            continue
        for y, x in within[row]:
            own, central = probability[classes[row], y, x], place(row, y, x)
            if own * (1 + settings.claim * central * scores[row]) < probability[:, y, x].max():
                continue
            claimed[row] += 1
            if own * central * strength[row] > most[y, x]:
                most[y, x], owner[y, x] = own * central * strength[row], row

    # 4 to 6. Scores, sides and the map.
    result = Looped(owner, [], [], [], before, {})
    for row in rows:
        own_pixels = {(int(y), int(x)) for y, x in np.argwhere(owner == row)}
        x1, y1, x2, y2 = inside[row]
        size, count = max(x2 - x1, 1) * max(y2 - y1, 1), len(own_pixels)
        total = sum(float(probability[classes[row], y, x]) for y, x in own_pixels)
        could = claimed[row] - sum(int((owner == a).sum()) for a, b in both_right if b == row)
        full = reach(row, own_pixels) ** 3 * count / max(could, count, 1)
        agreement = min(max(total / (size * math.pi / 4), full * total / max(count, 1), 1e-3), 1)
        joined = classes[row] >= 0
        result.scores.append(scores[row] * (agreement**settings.rescore if joined else 1))
        sides = list(boxes[row])
        if joined and agreement > 0.6:
            ys, xs = {y for y, _ in own_pixels}, {x for _, x in own_pixels}
            bounds = (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
            sides = [s + settings.refine * (bound - s) for s, bound in zip(sides, bounds, strict=True)]
        result.boxes.append(sides)
        fill = max(count / size, full)
        if scores[row] >= settings.mask_threshold and count and fill >= settings.min_fill:
            result.shown.append(row)
    for y in range(height):
        for x in range(width):
            row = int(owner[y, x])
            if row not in result.shown:
                result.left[y, x] = int(seen[y, x]) if row < 0 else classes[row]
    return result


def stuff_by_loops(looped: Looped, settings: FusionSettings, taxonomy: Taxonomy) -> dict[int, Pixels]:
    """Return the pixels of each stuff class that the panoptic map shows."""
    regions: dict[int, Pixels] = {}
    for pixel, semantic in looped.left.items():
        if not taxonomy.semantic_categories[semantic].is_thing:
            regions.setdefault(semantic, set()).add(pixel)
    return {semantic: own for semantic, own in regions.items() if len(own) >= settings.min_stuff_area}
