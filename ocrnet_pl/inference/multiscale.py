"""Prediction at several scales and mirrored: the boxes and pixels of the passes combined to one result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ocrnet_pl.errors import UsageError
from ocrnet_pl.imaging.geometry import Size, letterbox_image
from ocrnet_pl.imaging.images import MAX_PIXELS
from ocrnet_pl.inference.box_fusion import fuse_boxes
from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.fusion import FusionPostProcess, SemanticMap
from ocrnet_pl.inference.geometry import boxes_to_original, maps_to_original
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Placement, Predictions

_LEAST, _MOST = 0.1, 10.0
"""The range of the factors: beyond it, no network finds anything again that it has learned to find."""


@dataclass(frozen=True)
class MultiScale:
    """Predicts each image at several input sizes, as it is and mirrored, and fuses the results of all passes.

    Every pass starts from the original image, so a larger input shows more of its detail. The passes' logits are mapped
    to the image and averaged. Their boxes are merged as :mod:`ocrnet_pl.inference.box_fusion` explains. Then boxes and
    pixels are fused once.

    Attributes:
        scales: Factors of the network's input size, from 0.1 to 10, with one pass for each.
        flip: Whether each scale is also predicted mirrored left to right, which doubles the cost.
        flip_vertical: Whether each of these passes is also predicted upside down, which doubles the cost again; for
            images in which up has no meaning, such as microscopy and aerial images.
        iou_threshold: IoU above which boxes of two passes are the same object, between 0 and 1.

    Raises:
        ValueError: An option is out of range.
    """

    scales: tuple[float, ...] = (1.0, 1.25)
    flip: bool = True
    flip_vertical: bool = False
    iou_threshold: float = 0.6

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError("multiscale.scales: the list is empty; give at least one factor, such as 1.0")
        for scale in self.scales:
            if not _LEAST <= scale <= _MOST:
                raise ValueError(f"multiscale.scales: expected factors from {_LEAST:g} to {_MOST:g}, got {scale:g}")
        if len(set(self.scales)) != len(self.scales):
            raise ValueError(f"multiscale.scales: a factor occurs twice in {list(self.scales)}")
        if not 0 < self.iou_threshold < 1:
            raise ValueError(
                f"multiscale.iou_threshold: expected more than 0 and less than 1, got {self.iou_threshold}"
            )

    @property
    def cost(self) -> float:
        """Number of pixels that the network processes, as a multiple of one plain pass."""
        return len(self._mirrors) * sum(scale**2 for scale in self.scales)

    @property
    def _mirrors(self) -> list[tuple[int, ...]]:
        """The axes that each pass mirrors: -1 left to right, -2 upside down."""
        mirrors: list[tuple[int, ...]] = [()]
        if self.flip:
            mirrors += [(-1,)]
        if self.flip_vertical:
            mirrors += [(*axes, -2) for axes in mirrors]
        return mirrors

    def sizes(self, input_size: Size) -> list[Size]:
        """Return the (height, width) of the network's input at each scale.

        Args:
            input_size: (height, width) at scale 1.

        Raises:
            UsageError: One has too many pixels.
        """
        height, width = input_size
        sizes = [(max(1, round(height * scale)), max(1, round(width * scale))) for scale in self.scales]
        for scale, (own_height, own_width) in zip(self.scales, sizes, strict=True):
            if own_height * own_width > MAX_PIXELS:
                raise UsageError(
                    f"multiscale.scales: at {scale:g} the input is {own_width} x {own_height}, more than the limit of "
                    f"{MAX_PIXELS / 1e6:g} megapixels; give smaller factors"
                )
        return sizes

    def __str__(self) -> str:
        """Describe what decides about the scores, for people and to tell passes apart."""
        flips = {"left to right": self.flip, "upside down": self.flip_vertical}
        mirrored = " and ".join(name for name, is_done in flips.items() if is_done)
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return f"scales {scales}{f' mirrored {mirrored}' if mirrored else ''} (IoU {self.iou_threshold:g})"

    def __call__(self, network: OCRNet, image: Tensor) -> Predictions:
        """Return the prediction for one image, as :meth:`predict` does for several."""
        return self.predict(network, [image])

    @torch.inference_mode()
    def predict(self, network: OCRNet, images: Sequence[Tensor]) -> Predictions:
        """Return one prediction per image, raw and, with both tasks, fused.

        Args:
            network: The network, in evaluation mode.
            images: One uint8 tensor [C, H, W] per image, of any sizes, on the CPU.

        Returns:
            Predictions at the images' sizes, on the CPU.

        Raises:
            ValueError: The network's postprocess is not a ``FusionPostProcess``, whose parts the passes use.
            UsageError: The input of a pass would have too many pixels.
        """
        postprocess = _joining(network)
        parts = []
        for boxes, logits in self.found(network, images):
            semantic = (
                None if logits is None else SemanticMap.of((logits / postprocess.settings.temperature).softmax(0))
            )
            parts.append(postprocess.join(boxes, semantic, network.taxonomy))
        fused = [prediction for part in parts for prediction in part.fused or []]
        return Predictions([prediction for part in parts for prediction in part.raw], fused or None)

    @torch.inference_mode()
    def found(self, network: OCRNet, images: Sequence[Tensor]) -> list[tuple[Detections | None, Tensor | None]]:
        """Return for each image its merged boxes, and the mean logits [S, H, W] of all passes, at the image's size.

        The arguments are those of :meth:`predict`. Without one of the decoders there is None in its place.
        """
        postprocess = _joining(network)
        found: list[list[Detections]] = [[] for _ in images]
        total: list[Tensor] = []
        for boxed, placements, axes in self._passes(network, images):
            output = network(boxed)
            if output.detection is not None:
                decoded = postprocess.decode(output.detection, placements)
                for own, detections, placement in zip(found, decoded, placements, strict=True):
                    boxes = boxes_to_original(detections.boxes, placement)
                    own.append(detections._replace(boxes=_mirror_boxes(boxes, axes, placement.original_size)))
            if output.semantic is not None:
                maps = [
                    maps_to_original(logits.float(), output.stride, placement).flip(axes)
                    for logits, placement in zip(output.semantic, placements, strict=True)
                ]
                # Added at once: the maps of all passes would not fit into memory.
                total = [one.add_(other) for one, other in zip(total, maps, strict=True)] if total else maps
        count = len(self.scales) * len(self._mirrors)
        return [
            (
                fuse_boxes(own, self.iou_threshold, postprocess.decode.max_detections) if own else None,
                total[number].div_(count) if total else None,
            )
            for number, own in enumerate(found)
        ]

    def _passes(
        self, network: OCRNet, images: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, list[Placement], tuple[int, ...]]]:
        """Yield for each pass the network's input, the placement of the images in it, and the mirrored axes."""
        for size in self.sizes(network.input_size):
            parts = [letterbox_image(image, size) for image in images]
            placements = [placement for _, placement in parts]
            boxed = torch.stack([part for part, _ in parts]).to(network.mean.device)
            for axes in self._mirrors:
                yield _mirror(boxed, placements, axes), placements, axes


def _joining(network: OCRNet) -> FusionPostProcess:
    postprocess = network.postprocess
    if not isinstance(postprocess, FusionPostProcess):
        raise ValueError(f"multiscale: {type(postprocess).__name__} cannot join passes; extend FusionPostProcess")
    return postprocess


def _mirror(images: Tensor, placements: Sequence[Placement], axes: tuple[int, ...]) -> Tensor:
    """Mirror the images but not their padding, so that the placements remain valid."""
    if not axes:
        return images
    mirrored = images.clone()
    for image, placement in zip(mirrored, placements, strict=True):
        (height, width), (scale_y, scale_x) = placement.original_size, placement.scale
        content = image[:, : round(height * scale_y), : round(width * scale_x)]
        content.copy_(content.flip(axes))
    return mirrored


def _mirror_boxes(boxes: Tensor, axes: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    """Undo the mirroring of boxes in an image of this (height, width)."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    if -1 in axes:
        x1, x2 = size[1] - x2, size[1] - x1
    if -2 in axes:
        y1, y2 = size[0] - y2, size[0] - y1
    return torch.stack((x1, y1, x2, y2), -1)
