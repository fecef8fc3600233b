"""torchvision's detectors over the timm encoder and a feature pyramid."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.structures import Batch, Prediction, Taxonomy
from side_by_side.base import Peer, training_rows

_WIDTH = 128
"""Channels of the pyramid: torchvision's own number, 256, is for encoders many times as large."""
_STRIDES = (4, 8, 16, 32)
_RATIOS = (0.5, 1.0, 2.0)
_DETECTIONS = 100
_SCORE = 0.02
_PASTE_SCORE = 0.5
"""Objects with a higher score than this are drawn into the semantic map."""


class Pyramid(nn.Module):
    """The encoder's maps of strides 4 to 32 at one width, as torchvision's detectors take them.

    Args:
        encoder: The timm encoder.
    """

    def __init__(self, encoder: TimmEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.levels = [index for index, stride in enumerate(encoder.strides) if stride in _STRIDES]
        self.pyramid = FeaturePyramidNetwork([encoder.channels[i] for i in self.levels], _WIDTH)
        self.out_channels = _WIDTH

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps by level, finest first."""
        maps = self.encoder(images.contiguous(memory_format=torch.channels_last))
        chosen = OrderedDict((str(place), maps[i]) for place, i in enumerate(self.levels))
        pyramid: dict[str, Tensor] = self.pyramid(chosen)
        return pyramid


class DetectorPeer(Peer):
    """A torchvision detector.

    Args:
        encoder: The timm encoder.
        taxonomy: The categories.
        build: Makes the detector from the pyramid, the class count and what all of them take.
        first_label: 1 where the detector keeps 0 for the background.
        masks: Whether it learns and predicts masks.
        learning_rate: Learning rate; heads without normalization need a lower one.
    """

    def __init__(
        self,
        encoder: TimmEncoder,
        taxonomy: Taxonomy,
        build: Any,
        first_label: int,
        masks: bool = False,
        learning_rate: float = 0.0005,
    ) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.first_label = first_label
        self.masks = masks
        self.learning_rate = learning_rate
        # The data module has scaled the images to their size.
        common = {"image_mean": list(encoder.mean), "image_std": list(encoder.std), "_skip_resize": True}
        backbone = Pyramid(encoder)
        self.detector: nn.Module = build(backbone, taxonomy.num_detection + first_label, common)
        self._background = [c.semantic for c in taxonomy.semantic_categories if not c.is_thing]

    @property
    def encoder(self) -> TimmEncoder:  # type: ignore[override]
        """The timm encoder inside the detector."""
        encoder: TimmEncoder = self.detector.backbone.encoder  # type: ignore[union-attr, assignment]
        return encoder

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of the detector's own losses."""
        targets = []
        for sample in batch.truths:
            rows = training_rows(sample)
            target = {"boxes": sample.boxes.as_subclass(Tensor)[rows], "labels": sample.labels[rows] + self.first_label}
            if self.masks:
                assert sample.instances is not None
                plane = sample.instances.as_subclass(Tensor)
                target["masks"] = (plane[None] == (rows + 1)[:, None, None]).to(torch.uint8)
            targets.append({name: value.to(batch.images.device) for name, value in target.items()})
        losses: dict[str, Tensor] = self.detector(list(batch.images.float() / 255), targets)
        return torch.stack(list(losses.values())).sum()

    def predict(self, images: Tensor) -> list[Prediction]:
        """Return the boxes and, with masks, the instance and the semantic map drawn from them."""
        predictions = []
        for found in self.detector(list(images.float() / 255)):
            prediction = Prediction(found["boxes"], found["scores"], found["labels"] - self.first_label)
            if self.masks:
                self._paint(prediction, found["masks"][:, 0] > 0.5)
            predictions.append(prediction)
        return predictions

    def _paint(self, prediction: Prediction, masks: Tensor) -> None:
        instances = torch.zeros(masks.shape[-2:], dtype=torch.int32, device=masks.device)
        # The best come first, so they are painted last.
        for row in range(len(masks) - 1, -1, -1):
            instances[masks[row]] = row + 1
        prediction.instances = instances
        if len(self._background) != 1:
            return
        semantic = torch.full_like(instances, int(self._background[0] or 0), dtype=torch.uint8)
        for row in range(len(masks) - 1, -1, -1):
            kind = self.taxonomy.detection_to_semantic[int(prediction.labels[row])]
            if float(prediction.scores[row]) >= _PASTE_SCORE and kind >= 0:
                semantic[masks[row]] = kind
        prediction.semantic = semantic


def _pairs(levels: int) -> tuple[tuple[int, ...], ...]:
    """Return two anchor sizes per level, from 1.5 and 2.25 times the stride: 6 to 72 pixels."""
    return tuple((round(1.5 * stride), round(2.25 * stride)) for stride in _STRIDES[:levels])


def _box_arguments(backbone: Pyramid) -> dict[str, Any]:
    levels = len(backbone.levels)
    return {
        # The pyramid has no pooled extra level: nothing is that large.
        "rpn_anchor_generator": AnchorGenerator(_pairs(levels), (_RATIOS,) * levels),
        "box_roi_pool": MultiScaleRoIAlign(
            [str(i) for i in range(levels)], 7, 2, canonical_scale=64, canonical_level=4
        ),
        "rpn_pre_nms_top_n_train": 1000,
        "rpn_post_nms_top_n_train": 500,
        "rpn_pre_nms_top_n_test": 1000,
        "rpn_post_nms_top_n_test": 300,
        "box_batch_size_per_image": 128,
        "box_score_thresh": _SCORE,
        "box_detections_per_img": _DETECTIONS,
    }


def _faster_rcnn(backbone: Pyramid, classes: int, common: dict[str, Any]) -> nn.Module:
    return FasterRCNN(backbone, classes, **_box_arguments(backbone), **common)


def _mask_rcnn(backbone: Pyramid, classes: int, common: dict[str, Any]) -> nn.Module:
    pool = MultiScaleRoIAlign(
        [str(i) for i in range(len(backbone.levels))], 14, 2, canonical_scale=64, canonical_level=4
    )
    return MaskRCNN(backbone, classes, **_box_arguments(backbone), mask_roi_pool=pool, **common)


def _retinanet(backbone: Pyramid, classes: int, common: dict[str, Any]) -> nn.Module:
    anchors = AnchorGenerator(_pairs(len(backbone.levels)), (_RATIOS,) * len(backbone.levels))
    norm = partial(nn.GroupNorm, 32)
    head = RetinaNetHead(_WIDTH, anchors.num_anchors_per_location()[0], classes, norm_layer=norm)
    limits = {"score_thresh": _SCORE, "detections_per_img": _DETECTIONS}
    return RetinaNet(backbone, classes, anchor_generator=anchors, head=head, **limits, **common)


def _fcos(backbone: Pyramid, classes: int, common: dict[str, Any]) -> nn.Module:
    levels = len(backbone.levels)
    # One point per cell; the size decides which boxes a level learns: those with sides 4 to 8 times as far.
    anchors = AnchorGenerator(tuple((stride,) for stride in _STRIDES[:levels]), ((1.0,),) * levels)
    limits = {"score_thresh": _SCORE, "detections_per_img": _DETECTIONS}
    return FCOS(backbone, classes, anchor_generator=anchors, **limits, **common)


def faster_rcnn(encoder: TimmEncoder, taxonomy: Taxonomy) -> Peer:
    """Return Faster R-CNN."""
    return DetectorPeer(encoder, taxonomy, _faster_rcnn, 1)


def mask_rcnn(encoder: TimmEncoder, taxonomy: Taxonomy) -> Peer:
    """Return Mask R-CNN; its masks also make a semantic map."""
    return DetectorPeer(encoder, taxonomy, _mask_rcnn, 1, masks=True)


def retinanet(encoder: TimmEncoder, taxonomy: Taxonomy) -> Peer:
    """Return RetinaNet with group normalization in the head."""
    return DetectorPeer(encoder, taxonomy, _retinanet, 0, learning_rate=0.001)


def fcos(encoder: TimmEncoder, taxonomy: Taxonomy) -> Peer:
    """Return FCOS."""
    return DetectorPeer(encoder, taxonomy, _fcos, 0, learning_rate=0.001)
