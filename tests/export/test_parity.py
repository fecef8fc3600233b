"""What counts as a difference between a file and its network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ocrnet_pl import structures
from ocrnet_pl.export.parity import Difference, Limits
from ocrnet_pl.runtime.prediction import Prediction, Segment


def both(score: float, first: int, second: int) -> tuple[structures.Prediction, Prediction]:
    """Two predictions of one object of so many pixels in a row; the second one has this score, the first one 0.5."""
    maps = [np.where(np.arange(20) < pixels, 1, 0).astype(np.int32)[None] for pixels in (first, second)]
    box = [0.0, 0.0, 10.0, 1.0]
    ours = structures.Prediction(
        boxes=torch.tensor([box]),
        scores=torch.tensor([0.5]),
        labels=torch.tensor([0]),
        semantic=torch.zeros(1, 20, dtype=torch.uint8),
        instances=torch.from_numpy(maps[0]),
    )
    theirs = Prediction(
        boxes=np.array([box], np.float32),
        scores=np.array([score], np.float32),
        labels=np.array([0]),
        semantic=np.zeros((1, 20), np.uint8),
        instances=maps[1],
    )
    return ours, theirs


@pytest.mark.parametrize(
    ("score", "first", "second", "found"),
    [
        (0.5, 10, 10, 0.0),
        # Without a pixel that differs, a score has no excuse.
        (0.502, 10, 10, 0.002),
        # One of eleven pixels explains 0.0909, and no more.
        (0.55, 10, 11, 0.0),
        (0.4, 11, 10, 0.1 - 1 / 11),
        (0.6, 0, 1, 0.0),
    ],
)
def test_differing_pixels_explain_their_share_of_a_score(score: float, first: int, second: int, found: float) -> None:
    difference = Difference(Limits())
    difference.add(*both(score, first, second), edge=0.0)
    assert difference.found["scores"] == pytest.approx(found, abs=1e-6)
    assert difference.found["lonely"] == 0.0
    assert (difference.too_large == []) == (found < 0.001)


@pytest.mark.parametrize(("moved", "found"), [(0.0, 0.0), (0.3, 0.0), (1.9, 0.0), (4.0, 10 / 20)])
def test_a_segment_is_another_one_where_its_box_is(moved: float, found: float) -> None:
    """Ten of twenty pixels are an object's; its box moves a little, or so far that it is another box."""
    ours, theirs = both(0.5, 10, 10)
    theirs.boxes = theirs.boxes + np.float32(moved)
    ours.panoptic, theirs.panoptic = ours.instances, theirs.instances
    ours.segments, theirs.segments = [structures.Segment(1, 3, 0.5, 10, 0)], [Segment(1, 3, 0.5, 10, 0)]
    difference = Difference(Limits(boxes=2.0))
    difference.add(ours, theirs, edge=0.0)
    assert difference.found["segments"] == found
    assert difference.found["lonely"] == (found > 0)
