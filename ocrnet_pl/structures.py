"""The contracts between the stages: the input and output of each stage.

Data flows one way through these types::

    source -> Sample -> transforms -> Sample -> collate -> Batch -> OCRNet -> Output
        -> losses, or -> PostProcess -> Prediction -> metrics, writers

Of the package it imports only the categories and the prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.prediction import Prediction as Prediction
from ocrnet_pl.prediction import Predictions as Predictions
from ocrnet_pl.taxonomy import IGNORE_INDEX as IGNORE_INDEX
from ocrnet_pl.taxonomy import Category as Category
from ocrnet_pl.taxonomy import Segment as Segment
from ocrnet_pl.taxonomy import Taxonomy as Taxonomy

_WAITED_FOR = ("cpu", "mps")
"""Kinds of devices to which tensors are not copied asynchronously."""
FUSION_KEY = "fusion"
"""Key under which a calibrated checkpoint keeps the settings of its post-processing."""
CALIBRATION_KEY = "calibration"
"""Key under which a calibrated checkpoint keeps what is known of the scores of its boxes."""


@dataclass(frozen=True)
class Supervision:
    """The classes that an image was labelled for, per task.

    A class that was not labelled gives no signal: neither its presence nor its absence is known.

    Attributes:
        detection: bool [num_detection], the labelled detection classes.
        semantic: bool [num_semantic], the labelled segmentation classes.
    """

    detection: Tensor
    semantic: Tensor

    @classmethod
    def full(cls, taxonomy: Taxonomy, *, detection: bool = True, semantic: bool = True) -> Supervision:
        """Return the supervision of an image labelled for all classes of the tasks that are True."""
        return cls(
            torch.full((taxonomy.num_detection,), detection, dtype=torch.bool),
            torch.full((taxonomy.num_semantic,), semantic, dtype=torch.bool),
        )


@dataclass(frozen=True)
class Placement:
    """The position of an original image in the network's input: ``input = original * scale + offset``.

    Coordinates are continuous pixel edges: a pixel (i, j) covers [j, j + 1) x [i, i + 1).

    Attributes:
        original_size: (height, width) of the original image.
        input_size: (height, width) of the network's input, including padding.
        scale: (y, x), exact: resized side divided by original side.
        offset: (y, x) in input pixels.
    """

    original_size: tuple[int, int]
    input_size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def identity(cls, size: tuple[int, int]) -> Placement:
        """Return the placement of an image that was not moved."""
        return cls(size, size)


@dataclass
class Sample:
    """One labelled image.

    Attributes:
        image: uint8 [C, H, W].
        boxes: float32 [N, 4], xyxy in pixels.
        labels: int64 [N], detection classes.
        crowd: bool [N]; a crowd is neither a target nor a false alarm.
        semantic: uint8 [H, W] of segmentation classes, 255 = ignore; None if the image has no such map.
        instances: int32 [H, W], the index of a box plus one, 0 = none; None if the image has no such map.
        supervision: What the image was labelled for.
        image_id: Id of the image in the data set.
        path: Path of the image file, or a description of a generated image.
        placement: Position and scale of the original image in ``image``; None before any transform.
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    crowd: Tensor
    supervision: Supervision
    semantic: tv_tensors.Mask | None = None
    instances: tv_tensors.Mask | None = None
    image_id: int | str = 0
    path: str = ""
    placement: Placement | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The image's (height, width)."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])

    def replace(self, **changes: Any) -> Sample:
        """Return a copy with the fields changed."""
        return replace(self, **changes)


@dataclass
class Batch:
    """Images of one size with padded targets.

    Attributes:
        images: uint8 [B, C, H, W].
        boxes: float32 [B, M, 4], xyxy in input pixels; rows beyond an image's own are zero.
        labels: int64 [B, M].
        valid: bool [B, M], whether the row is a target box (neither padding, nor a crowd, nor degenerate).
        crowd: bool [B, M], whether the row is a crowd region.
        semantic: uint8 [B, H, W], 255 = ignore.
        detection_classes: bool [B, num_detection], the detection supervision.
        semantic_classes: bool [B, num_semantic], the segmentation supervision.
        placements: One placement per image.
        truths: The samples to evaluate against, in the frame to which predictions are mapped; empty in training.
        image_ids: One id per image.
        paths: One path per image.
        has_crowds: Whether any row may be a crowd region, known on the host so that no loss has to ask the device.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    valid: Tensor
    crowd: Tensor
    semantic: Tensor
    detection_classes: Tensor
    semantic_classes: Tensor
    placements: list[Placement] = field(default_factory=list)
    truths: list[Sample] = field(default_factory=list)
    image_ids: list[int | str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    has_crowds: bool = True

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        changed: dict[str, Any] = {name: function(tensor) for name, tensor in tensors.items()}
        if all(changed[name] is tensor for name, tensor in tensors.items()):
            return self
        return replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> Batch:
        """Return the batch with its tensors on ``device``; the truths are not moved.

        While a copy is waited for, everything queued behind it waits as well, and a device would run out of work at
        each step. Lightning copies plain tensors asynchronously, but calls this method without saying so.

        Args:
            device: Target device; a batch that is already there is returned itself.
            non_blocking: Whether to continue before the copies have arrived, which happens only if they come from
                pinned memory. None means true for accelerators other than Apple's, where torch has lost data that way,
                and false for the CPU, which would read the values before they are there.
        """
        if non_blocking is None:
            non_blocking = torch.device(device).type not in _WAITED_FOR
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory; the DataLoader calls this."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())


class DetectionOutput(NamedTuple):
    """The output of the detection decoder, all levels joined: A candidates per image, in float32 at any precision.

    Attributes:
        boxes: float32 [B, A, 4], xyxy in input pixels.
        confidence: float32 [B, A], logits.
        classes: float32 [B, A, K], logits.
        scores: float32 [B, A, K], 0 to 1: confidence and class combined; candidates are ranked by them.
        points: float32 [A, 2], the candidates' (x, y) centres in input pixels.
        strides: float32 [A], the stride of each candidate's level in input pixels.
        grids: (height, width, stride) of each level; its candidates are row by row, with the levels in this order.
        distribution: float32 [B, A, 4, bins], logits over the distance from the point to the left, top, right and
            bottom side, 0 to ``bins - 1`` strides, whose mean gives ``boxes``; None if sides are regressed directly.
        one_to_many: Additional output in training of a decoder without suppression, to learn from many candidates per
            box; None otherwise.
    """

    boxes: Tensor
    confidence: Tensor
    classes: Tensor
    scores: Tensor
    points: Tensor
    strides: Tensor
    grids: tuple[tuple[int, int, int], ...]
    distribution: Tensor | None = None
    one_to_many: DetectionOutput | None = None


class Output(NamedTuple):
    """The output of the network, before any suppression.

    Attributes:
        detection: Output of the detection decoder; None if the network has none.
        semantic: float [B, S, h, w], logits over the padded input at the decoder's stride; None if the
            network has no segmentation decoder.
        stride: Distance of neighbouring logits in input pixels, ``H_padded / h``.
        auxiliary: Further logits of the segmentation decoder, each [B, S, h', w'], for its auxiliary losses.
    """

    detection: DetectionOutput | None
    semantic: Tensor | None
    stride: int = 1
    auxiliary: tuple[Tensor, ...] = ()
