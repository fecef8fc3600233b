"""Small batches, networks and taxonomies for the tests."""

from __future__ import annotations

import torch
from torch import Tensor

from ocrnet_pl.models.base import Encoder
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.structures import Batch, DetectionOutput, Placement, Taxonomy

TAXONOMY = Taxonomy.build(things=["disc", "square", "star"], stuff=["sky", "ground"])


class TinyEncoder(Encoder):
    """Three strided convolutions: real feature maps in a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = [8, 12, 16], [4, 8, 16]
        self.mean, self.std, self.pretrained = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), False
        self.stages = torch.nn.ModuleList(
            [
                torch.nn.Conv2d(3, 8, 5, stride=4, padding=2),
                torch.nn.Conv2d(8, 12, 3, stride=2, padding=1),
                torch.nn.Conv2d(12, 16, 3, stride=2, padding=1),
            ]
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images).relu()
            maps.append(images)
        return maps


def tiny_network(
    taxonomy: Taxonomy = TAXONOMY, detection: bool = True, segmentation: bool = True, bins: int | None = 16
) -> OCRNet:
    """Return a seeded network small enough for any test.

    Without ``bins``, its boxes differ more, and fewer of their scores are alike.
    """
    from ocrnet_pl.inference.fusion import FusionPostProcess

    torch.manual_seed(0)
    return OCRNet(
        taxonomy,
        TinyEncoder(),
        lambda c, s: PathAggregationNeck(c, s, width=8),
        (lambda c, s, t: AnchorFreeDecoder(c, s, t, bins=bins)) if detection else None,
        (lambda s, t: SubPixelDecoder(s, t, width=8, detail=4)) if segmentation else None,
        FusionPostProcess(),
        input_size=(64, 64),
    )


def make_batch(
    boxes: list[list[list[float]]],
    labels: list[list[int]],
    size: tuple[int, int] = (64, 64),
    taxonomy: Taxonomy = TAXONOMY,
    rows: int = 8,
    seed: int = 0,
) -> Batch:
    """Return a batch of random images with the given boxes and a semantic map that the boxes were painted into."""
    generator = torch.Generator().manual_seed(seed)
    count = len(boxes)
    batch = Batch(
        images=torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8),
        boxes=torch.zeros(count, rows, 4),
        labels=torch.zeros(count, rows, dtype=torch.long),
        valid=torch.zeros(count, rows, dtype=torch.bool),
        crowd=torch.zeros(count, rows, dtype=torch.bool),
        semantic=torch.randint(0, 2, (count, *size), generator=generator),
        detection_classes=torch.ones(count, taxonomy.num_detection, dtype=torch.bool),
        semantic_classes=torch.ones(count, taxonomy.num_semantic, dtype=torch.bool),
        placements=[Placement.identity(size)] * count,
        image_ids=list(range(count)),
        paths=[f"{i}.png" for i in range(count)],
    )
    for i, (image_boxes, image_labels) in enumerate(zip(boxes, labels, strict=True)):
        for row, (box, label) in enumerate(zip(image_boxes, image_labels, strict=True)):
            batch.boxes[i, row] = torch.tensor(box)
            batch.labels[i, row] = label
            batch.valid[i, row] = True
            x1, y1, x2, y2 = (int(v) for v in box)
            batch.semantic[i, y1:y2, x1:x2] = taxonomy.detection_to_semantic[label]
    return batch


def detected(batch: Batch, seed: int = 0) -> DetectionOutput:
    """Return random candidates whose tensors are leaves."""
    with torch.no_grad():
        detection = tiny_network()(batch.images).detection
    assert detection is not None
    generator = torch.Generator().manual_seed(seed)
    leaves = [t + torch.randn(t.shape, generator=generator) for t in detection[:3]]
    boxes, confidence, classes = (leaf.requires_grad_() for leaf in leaves)
    scores = (confidence.detach().sigmoid()[..., None] * classes.detach().sigmoid()).sqrt()
    return detection._replace(boxes=boxes, confidence=confidence, classes=classes, scores=scores)
