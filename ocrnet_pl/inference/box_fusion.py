"""Weighted boxes fusion: the boxes of several passes over one image, clustered and averaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ocrnet_pl.inference.decode import Detections


def fuse_boxes(passes: Sequence[Detections], iou_threshold: float, limit: int) -> Detections:
    """Merge the boxes of several passes by weighted boxes fusion (Solovyev et al., 2021).

    Best score first, each box joins the cluster of its class whose mean box it overlaps most, if the overlap exceeds
    the threshold, and starts a new cluster otherwise. A cluster's box is the mean of its boxes weighted by score. Its
    score is their mean score times the share of the passes that agree. Unlike in the paper, a cluster takes at most one
    box of each pass: a second box that suppression left over the same object would only pull the first one away.

    Args:
        passes: The boxes of each pass in the image's frame, after suppression; all on one device.
        iou_threshold: IoU above which a box joins a cluster.
        limit: Largest number of boxes to return.

    Returns:
        The boxes of the image, best first; if there is only one pass, its boxes unchanged.
    """
    if len(passes) == 1:
        return passes[0]
    boxes, scores, labels = (torch.cat(part) for part in zip(*passes, strict=True))
    counts = torch.tensor([len(part.scores) for part in passes])
    # The clusters are found on the CPU; all boxes go there in one transfer.
    table = torch.cat((boxes.double(), scores.double()[:, None], labels.double()[:, None]), 1).cpu().numpy()
    origin = np.repeat(np.arange(len(passes)), counts.numpy())
    # A box that is entirely in the padding has no area in the image.
    rows = np.flatnonzero((table[:, 2:4] > table[:, :2]).all(1))
    rows = rows[np.argsort(-table[rows, 4], kind="stable")]
    cluster = assign_clusters(table[rows, :4], table[rows, 4], table[rows, 5], origin[rows], iou_threshold)
    if not cluster:
        return Detections(boxes[:0], scores[:0], labels[:0])
    found = max(cluster) + 1
    place = torch.tensor([rows.tolist(), cluster], device=boxes.device)
    boxes, scores, labels = boxes[place[0]], scores[place[0]], labels[place[0]]
    total = scores.new_zeros(found).index_add_(0, place[1], scores)
    mean = boxes.new_zeros(found, 4).index_add_(0, place[1], boxes * scores[:, None]) / total[:, None]
    # All boxes of a cluster have the same class.
    of_class = labels.new_zeros(found).scatter_(0, place[1], labels)
    # Mean score x share of the passes.
    score, order = (total / len(passes)).sort(descending=True, stable=True)
    best = order[:limit]
    return Detections(mean[best], score[:limit], of_class[best])


def assign_clusters(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.generic],
    origin: NDArray[np.integer],
    iou_threshold: float,
) -> list[int]:
    """Return the cluster of each box, numbered in the order in which they start.

    Args:
        boxes: [N, 4], xyxy, best score first, each with an area.
        scores: [N], positive.
        labels: [N], the classes.
        origin: [N], the number of the pass.
        iou_threshold: IoU with a cluster's mean box above which a box joins the cluster.
    """
    starts, better = _meeting(boxes, labels)
    items, weights, parts = boxes.tolist(), scores.tolist(), origin.tolist()
    # Plain numbers: with a few candidates per box, every array operation would cost more than what it computes.
    means: list[tuple[float, float, float, float]] = []
    totals: list[float] = []
    members: list[set[int]] = []
    cluster: list[int] = []
    for row, (x1, y1, x2, y2) in enumerate(items):
        area, part, weight = (x2 - x1) * (y2 - y1), parts[row], weights[row]
        best, chosen = iou_threshold, -1
        for other in sorted({cluster[j] for j in better[starts[row] : starts[row + 1]]}):
            if part in members[other]:
                continue
            a1, b1, a2, b2 = means[other]
            width, height = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
            if width > 0 and height > 0:
                common = width * height
                overlap = common / (area + (a2 - a1) * (b2 - b1) - common)
                if overlap > best:
                    best, chosen = overlap, other
        if chosen < 0:
            cluster.append(len(means))
            means.append((x1, y1, x2, y2))
            totals.append(weight)
            members.append({part})
            continue
        cluster.append(chosen)
        members[chosen].add(part)
        totals[chosen] += weight
        share = weight / totals[chosen]
        a1, b1, a2, b2 = means[chosen]
        means[chosen] = (a1 + share * (x1 - a1), b1 + share * (y1 - b1), a2 + share * (x2 - a2), b2 + share * (y2 - b2))
    return cluster


def _meeting(boxes: NDArray[np.float64], labels: NDArray[np.generic]) -> tuple[list[int], list[int]]:
    """List the earlier boxes of its class that each box meets: row i's are from ``starts[i]`` to ``starts[i + 1]``.

    A box cannot overlap a cluster's mean by much without meeting one of the cluster's boxes.
    """
    # In single precision, enlarged a little so that rounding loses no pair.
    x1, y1 = (boxes[:, :2].T - 0.01).astype(np.float32)
    x2, y2 = (boxes[:, 2:].T + 0.01).astype(np.float32)
    meets = labels[:, None] == labels
    meets &= x1[:, None] < x2
    meets &= y1[:, None] < y2
    # Each of two boxes starts before the other ends.
    meets &= meets.T
    rows, earlier = np.tril(meets, -1).nonzero()
    starts = np.searchsorted(rows, np.arange(len(boxes) + 1))
    return starts.tolist(), earlier.tolist()
