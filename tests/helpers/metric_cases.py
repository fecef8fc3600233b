"""Random truths and predictions that resemble them, for the tests of the metrics."""

from __future__ import annotations

import torch
from torchvision import tv_tensors

from ocrnet_pl.structures import Prediction, Sample, Segment, Supervision, Taxonomy

TAXONOMY = Taxonomy.build(things=["a", "b", "c"], stuff=["x", "y"])
SIZE = (48, 64)


def make_truth(generator: torch.Generator, objects: int, image_id: int, crowds: bool = True) -> Sample:
    """A sample of random rectangles; later ones cover earlier ones."""
    height, width = SIZE
    instances = torch.zeros(SIZE, dtype=torch.int32)
    semantic = (torch.rand(SIZE, generator=generator) > 0.5).to(torch.uint8)
    semantic[:, : width // 2] = 0
    boxes, labels, crowd = [], [], []
    for row in range(objects):
        y, x = (
            torch.randint(0, height - 8, (1,), generator=generator),
            torch.randint(0, width - 8, (1,), generator=generator),
        )
        h, w = torch.randint(3, 24, (2,), generator=generator).tolist()
        label = int(torch.randint(0, 3, (1,), generator=generator))
        y1, x1 = int(y), int(x)
        y2, x2 = min(height, y1 + h), min(width, x1 + w)
        is_crowd = crowds and row % 5 == 4
        instances[y1:y2, x1:x2] = 0 if is_crowd else row + 1
        semantic[y1:y2, x1:x2] = 2 + label
        boxes.append([x1, y1, x2, y2])
        labels.append(label)
        crowd.append(is_crowd)
    semantic[:4] = 255
    instances[:4] = 0
    return Sample(
        image=tv_tensors.Image(torch.zeros(3, *SIZE, dtype=torch.uint8)),
        boxes=tv_tensors.BoundingBoxes(torch.tensor(boxes).float().view(-1, 4), format="XYXY", canvas_size=SIZE),
        labels=torch.tensor(labels, dtype=torch.long),
        crowd=torch.tensor(crowd, dtype=torch.bool),
        supervision=Supervision.full(TAXONOMY),
        semantic=tv_tensors.Mask(semantic),
        instances=tv_tensors.Mask(instances),
        image_id=image_id,
    )


def make_prediction(generator: torch.Generator, truth: Sample, extra: int) -> Prediction:
    """The truth, moved a little, with false alarms, wrong classes and equal scores."""
    height, width = SIZE
    count = len(truth.labels)
    near = torch.as_tensor(truth.boxes) + torch.randint(-2, 3, (count, 4), generator=generator)
    low = torch.rand(extra, 2, generator=generator) * 30
    far = torch.cat((low, low + 3 + torch.rand(extra, 2, generator=generator) * 20), 1)
    boxes = torch.cat((near, far)).clamp(min=0).minimum(torch.tensor([width, height, width, height]).float())
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = torch.cat((truth.labels, torch.randint(0, 3, (extra,), generator=generator)))
    wrong = torch.rand(len(labels), generator=generator) < 0.15
    labels = torch.where(wrong, (labels + 1) % 3, labels)
    scores = (torch.rand(len(labels), generator=generator) * 10).round() / 10
    order = scores.argsort(descending=True, stable=True)
    boxes, labels, scores = boxes[order], labels[order], scores[order]
    instances = torch.zeros(SIZE, dtype=torch.int32)
    for row in reversed(range(len(labels))):
        x1, y1, x2, y2 = boxes[row].round().int().tolist()
        instances[y1:y2, x1:x2] = row + 1
    semantic = torch.as_tensor(truth.semantic).clone()
    flip = torch.rand(SIZE, generator=generator) < 0.1
    semantic[flip] = torch.randint(0, 5, (int(flip.sum()),), generator=generator).to(torch.uint8)
    semantic[semantic == 255] = 1
    panoptic, segments = torch.zeros(SIZE, dtype=torch.int32), []
    for row in range(len(labels)):
        own = (instances == row + 1) & (scores[row] > 0.3)
        if own.any():
            segments.append(Segment(len(segments) + 1, 2 + int(labels[row]), float(scores[row]), int(own.sum()), row))
            panoptic[own] = len(segments)
    for index in (0, 1):
        own = (panoptic == 0) & (semantic == index)
        if own.any():
            segments.append(Segment(len(segments) + 1, index, 1.0, int(own.sum())))
            panoptic[own] = len(segments)
    return Prediction(boxes, scores, labels, semantic, instances, panoptic, segments)


def make_case(seed: int, images: int, objects: int = 7, extra: int = 5) -> tuple[list[Prediction], list[Sample]]:
    generator = torch.Generator().manual_seed(seed)
    truths = [make_truth(generator, objects if i % 4 else 0, i) for i in range(images)]
    predictions = [make_prediction(generator, truth, extra if i % 3 else 0) for i, truth in enumerate(truths)]
    return predictions, truths
