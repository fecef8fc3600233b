"""What the training loop and the evaluation need from a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.structures import Batch, Output, Prediction, Sample, Taxonomy


class Peer(nn.Module, ABC):
    """A model under comparison.

    Attributes:
        encoder: The encoder, which is trained at a lower rate than the rest.
        learning_rate: Learning rate of the rest, with AdamW.
    """

    encoder: TimmEncoder
    learning_rate: float = 0.001

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a training batch; ``batch.truths`` contains its samples, with their instance maps."""

    @abstractmethod
    def predict(self, images: Tensor) -> list[Prediction]:
        """Return the predictions for uint8 images [B, C, H, W], in their pixels."""

    def normalized(self, images: Tensor) -> Tensor:
        """Return images as the encoder needs them."""
        mean = images.new_tensor(self.encoder.mean, dtype=torch.float32).view(1, -1, 1, 1) * 255
        std = images.new_tensor(self.encoder.std, dtype=torch.float32).view(1, -1, 1, 1) * 255
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


class PixelPeer(Peer):
    """A model that segments only, from a decoder over the encoder's maps.

    Args:
        encoder: The encoder, whose maps are the decoder's input.
        taxonomy: Gives the class count.
    """

    def __init__(self, encoder: TimmEncoder, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.encoder = encoder
        self.num_classes = taxonomy.num_semantic
        self.criterion = SegmentationLoss()

    @abstractmethod
    def decode(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Return logits [B, S, h, w] of any resolution."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, S, H, W]."""
        images = self.normalized(images)
        logits = self.decode(self.encoder(images), images)
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def loss(self, batch: Batch) -> Tensor:
        """Return cross-entropy and Dice, the joint network's own."""
        return torch.stack(list(self.criterion(Output(None, self(batch.images)), batch).values())).sum()

    def predict(self, images: Tensor) -> list[Prediction]:
        """Return the best class of each pixel, without boxes."""
        semantic = self(images).max(1).indices.to(torch.uint8)
        none = torch.zeros(0, device=images.device)
        return [Prediction(none.view(0, 4), none, none.long(), semantic=plane) for plane in semantic]


def training_rows(sample: Sample) -> Tensor:
    """Return the rows of a training sample's boxes that are objects to find and at least a pixel wide."""
    boxes = sample.boxes.as_subclass(Tensor)
    return (~sample.crowd & ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)).nonzero()[:, 0]
