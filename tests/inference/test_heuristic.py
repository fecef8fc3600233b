"""The merge by rule, against a loop over whole masks as the rule is described."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.heuristic import HeuristicMerge
from ocrnet_pl.structures import Taxonomy

TAXONOMY = Taxonomy.build(
    things=["disc", "sign", "star"], stuff=["sky", "ground"], segmented=["sky", "ground", "disc", "star"]
)
SIZE = (48, 60)


def by_the_description(
    detections: Detections, semantic: Tensor, overlap: float, threshold: float, stuff: float
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the panoptic map and, for each of its segments, the category and the area."""
    masks = torch.zeros(len(detections.scores), *SIZE, dtype=torch.bool)
    for row, (box, label) in enumerate(zip(detections.boxes.tolist(), detections.labels.tolist(), strict=True)):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                inside = box[0] <= x + 0.5 < box[2] and box[1] <= y + 0.5 < box[3]
                masks[row, y, x] = inside and int(semantic[y, x]) == TAXONOMY.detection_to_semantic[label]
    panoptic = torch.zeros(SIZE, dtype=torch.int32)
    segments: list[tuple[int, int]] = []
    for row in detections.scores.argsort(descending=True).tolist():
        if detections.scores[row] < threshold:
            break
        mask = masks[row]
        taken = mask & (panoptic > 0)
        if mask.sum() == 0 or taken.sum() / mask.sum() > overlap or (mask & ~taken).sum() == 0:
            continue
        panoptic[mask & ~taken] = len(segments) + 1
        name = TAXONOMY.detection_categories[int(detections.labels[row])].name
        segments.append(([c.name for c in TAXONOMY.categories].index(name), int((mask & ~taken).sum())))
    for number in (0, 1):
        rest = (semantic == number) & (panoptic == 0)
        if rest.sum() >= max(stuff, 1):
            panoptic[rest] = len(segments) + 1
            segments.append((number, int(rest.sum())))
    return panoptic, segments


@pytest.mark.parametrize("seed", range(6))
def test_merges_as_described(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 4, (1, 1, 6, 6), generator=generator).float()
    semantic = torch.nn.functional.interpolate(coarse, SIZE)[0, 0].to(torch.uint8)
    low = torch.rand(25, 2, generator=generator) * 40
    boxes = torch.cat((low, low + 4 + torch.rand(25, 2, generator=generator) * 25), 1)
    boxes = boxes.minimum(torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]]).float())
    scores = torch.rand(25, generator=generator).sort(descending=True).values
    detections = Detections(boxes, scores, torch.randint(0, 3, (25,), generator=generator))
    overlap, threshold, stuff = (0.5, 0.2)[seed % 2], (0.5, 0.1)[seed // 2 % 2], (0, 20000)[seed % 2]
    merged = HeuristicMerge(threshold, overlap, stuff)(detections, semantic, TAXONOMY)
    # The limit on stuff is one of images of 640 x 480.
    panoptic, segments = by_the_description(detections, semantic, overlap, threshold, stuff * 48 * 60 / (640 * 480))
    assert merged.panoptic is not None and merged.instances is not None
    assert torch.equal(merged.panoptic, panoptic)
    assert [(s.category, s.area) for s in merged.segments] == segments
    assert torch.equal(merged.boxes, boxes)
    assert torch.equal(merged.semantic, semantic)
    # The masks that mask mAP sees are those of the map, and those of the boxes that were too unsure for it.
    for segment in merged.segments:
        if segment.instance is not None:
            assert torch.equal(merged.instances == segment.instance + 1, merged.panoptic == segment.id)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"heuristic\.overlap_threshold"):
        HeuristicMerge(overlap_threshold=1.5)
    with pytest.raises(ValueError, match=r"heuristic\.stuff_area"):
        HeuristicMerge(stuff_area=-1)
