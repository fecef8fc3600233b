"""Object-contextual representations: each pixel sees the objects' regions before it is classified."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ocrnet_pl.models.base import ClassRows, DeclaredRows, Features, SegmentationDecoder, Shapes, layer_rows
from ocrnet_pl.models.layers import ConvNorm
from ocrnet_pl.models.segmentation import PyramidSum, SubPixelHead, semantic_count
from ocrnet_pl.structures import DetectionOutput, Taxonomy


class ObjectContext(nn.Module):
    """Adds to each pixel the representations of the regions that it is related to.

    Yuan, Chen, Wang, "Object-Contextual Representations for Semantic Segmentation", ECCV 2020, equations 1 to 4: a
    region's representation is the mean of the pixels, weighted by how much each belongs to it; a pixel's context is the
    mean of the regions, weighted by its relation to each; pixel and context together form the augmented representation.
    The relation is scaled by the square root of the number of its channels, as in the authors' code.

    Args:
        width: Number of channels of the pixels, in and out.
        key: Number of channels in which pixels and regions are compared.
    """

    def __init__(self, width: int, key: int) -> None:
        super().__init__()
        self.pixel_key = nn.Sequential(ConvNorm(width, key, 1), ConvNorm(key, key, 1))
        self.region_key = nn.Sequential(ConvNorm(width, key, 1), ConvNorm(key, key, 1))
        self.region_value = ConvNorm(width, key, 1)
        self.context = ConvNorm(key, width, 1)
        self.join = ConvNorm(2 * width, width, 1)

    @staticmethod
    def regions(pixels: Tensor, membership: Tensor) -> Tensor:
        """Return the regions' representations (equation 2).

        Args:
            pixels: float [B, C, h, w].
            membership: float [B, R, h, w], logits of how much each pixel belongs to each region.

        Returns:
            float [B, C, R, 1].
        """
        share = membership.flatten(2).softmax(2)
        return torch.einsum("bri,bci->bcr", share, pixels.flatten(2))[..., None]

    def forward(self, pixels: Tensor, membership: Tensor) -> Tensor:
        """Return the augmented pixels, float [B, C, h, w]; arguments as for :meth:`regions`."""
        regions = self.regions(pixels, membership)
        query, key = self.pixel_key(pixels).flatten(2), self.region_key(regions).flatten(2)
        value = self.region_value(regions).flatten(2)
        relation = torch.einsum("bci,bcr->bir", query, key) * key.shape[1] ** -0.5
        context = torch.einsum("bir,bcr->bci", relation.softmax(2), value)
        context = self.context(context.unflatten(2, pixels.shape[-2:]))
        augmented: Tensor = self.join(torch.cat((pixels, context), 1))
        return augmented


class ObjectContextDecoder(SegmentationDecoder):
    """The default decoder with object context before its logits.

    The soft object regions have their own logits, which are trained as auxiliary logits.

    Args:
        shapes: Channels and strides of the maps, of which the neck's are read; set by the network.
        taxonomy: The categories, which give the number of classes; each class is a region. Set from the data.
        width: Number of channels at the finest stride.
        key: Number of channels in which pixels and regions are compared.
        upscale: Factor by which the logits are finer than the neck's finest map.
        detail: Number of channels at the resolution of the logits.
        dropout: Share of channels, 0 to 1, that is zeroed before the logits in training; 0 for none.

    Raises:
        ValueError: The taxonomy has no segmentation class.
    """

    def __init__(
        self,
        shapes: Shapes,
        taxonomy: Taxonomy,
        width: int = 64,
        key: int = 32,
        upscale: int = 2,
        detail: int = 16,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        classes = semantic_count(taxonomy)
        self.stride = shapes.strides[0] // upscale
        self.pixels = PyramidSum(shapes.channels, width)
        self.regions = nn.Sequential(ConvNorm(width, width, 1), nn.Conv2d(width, classes, 1))
        self.context = ObjectContext(width, key)
        self.head = SubPixelHead(width, classes, upscale, detail, dropout)

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Return the logits [B, S, H / stride, W / stride] and those of the soft object regions."""
        pixels = self.pixels(features.maps)
        regions = self.regions(pixels)
        augmented = self.context(pixels, self.membership(regions, features))
        return self.head(augmented), regions

    def class_rows(self) -> DeclaredRows:
        """Return the rows of the head and of the regions, each of which is a class."""
        return {**self.head.class_rows("head"), **layer_rows("regions.1", "semantic")}

    def membership(self, regions: Tensor, features: Features) -> Tensor:
        """Return the logits of how much each pixel belongs to each region, which here are those of its class."""
        return regions


def box_evidence(detection: DetectionOutput, size: tuple[int, int], stride: int, count: int) -> Tensor:
    """Draw the best candidates' boxes as soft ellipses of their class scores.

    A pixel's evidence for a class is the probability that at least one box of the class covers it, by a Poisson
    approximation: ``1 - exp(-sum of score x ellipse)``, so that it stays below 1 however many candidates an object has.

    Args:
        detection: What was detected; no gradient flows back to it.
        size: (height, width) of the map to draw.
        stride: Side of a cell of the map in input pixels.
        count: Number of candidates per image.

    Returns:
        float32 [B, K, height, width], 0 to 1.
    """
    scores = detection.scores.detach()
    best = scores.amax(2).topk(min(count, scores.shape[1]), 1).indices
    scores = scores.gather(1, best[..., None].expand(-1, -1, scores.shape[2]))
    boxes = detection.boxes.detach().gather(1, best[..., None].expand(-1, -1, 4)) / stride

    def profile(low: Tensor, high: Tensor, cells: int) -> Tensor:
        """Return a Gaussian that falls to exp(-1) at the box's sides, [B, N, cells]."""
        place = torch.arange(cells, device=low.device, dtype=low.dtype) + 0.5
        half = ((high - low) / 2).clamp(min=0.5)
        return torch.exp(-(((place - (low + high)[..., None] / 2) / half[..., None]) ** 2))

    rows = profile(boxes[..., 1], boxes[..., 3], size[0])
    columns = profile(boxes[..., 0], boxes[..., 2], size[1])
    # The sum over candidates as one matrix product per class and image.
    drawn = torch.einsum("bnk,bny,bnx->bkyx", scores, rows, columns)
    return 1 - torch.exp(-drawn)


class GuidedObjectContextDecoder(ObjectContextDecoder):
    """Object context whose regions are sharpened by what was detected.

    The paper finds that better regions help more than anything else in the method ("ideal" regions, its table 1). Here
    the detection decoder knows where the objects are: the boxes' evidence is added to the regions' logits through a
    learned map from detection to segmentation classes, in which each class is at first raised by its own boxes. No
    gradient flows from the pixels back to the boxes. A network without a detection decoder has no evidence, and this
    decoder is then plain object context.

    Args:
        shapes: Channels and strides of the maps, of which the neck's are read; set by the network.
        taxonomy: The categories, which relate detection classes to segmentation classes; set from the data.
        width: Number of channels at the finest stride.
        key: Number of channels in which pixels and regions are compared.
        upscale: Factor by which the logits are finer than the neck's finest map.
        detail: Number of channels at the resolution of the logits.
        dropout: Share of channels, 0 to 1, that is zeroed before the logits in training; 0 for none.
        candidates: Number of boxes per image that give evidence, the best first.
        gain: Amount by which a certain box raises its class's logits before training.

    Raises:
        ValueError: The taxonomy has no segmentation class.
    """

    def __init__(
        self,
        shapes: Shapes,
        taxonomy: Taxonomy,
        width: int = 64,
        key: int = 32,
        upscale: int = 2,
        detail: int = 16,
        dropout: float = 0.0,
        candidates: int = 100,
        gain: float = 2.0,
    ) -> None:
        super().__init__(shapes, taxonomy, width, key, upscale, detail, dropout)
        self.candidates = candidates
        self.map_stride = shapes.strides[0]
        self.guide = nn.Conv2d(taxonomy.num_detection, taxonomy.num_semantic, 1, bias=False)
        nn.init.zeros_(self.guide.weight)
        with torch.no_grad():
            for detected, segmented in enumerate(taxonomy.detection_to_semantic):
                if segmented >= 0:
                    self.guide.weight[segmented, detected] = gain

    def class_rows(self) -> DeclaredRows:
        """Return the rows of the head and the regions, and both sides of the map from boxes to pixels."""
        guide = (ClassRows("semantic"), ClassRows("detection", 1))
        return {**super().class_rows(), "guide.weight": guide}

    def membership(self, regions: Tensor, features: Features) -> Tensor:
        """Return the regions' logits, raised where boxes of their class are."""
        size = (regions.shape[-2], regions.shape[-1])
        if features.detection is None:
            evidence = regions.new_zeros(len(regions), self.guide.in_channels, *size)
        else:
            evidence = box_evidence(features.detection, size, self.map_stride, self.candidates)
        sharpened: Tensor = regions + self.guide(evidence.to(regions.dtype))
        return sharpened
