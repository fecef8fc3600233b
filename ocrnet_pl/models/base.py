"""The base classes of the network's parts. A part of your own extends one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from ocrnet_pl.errors import UsageError
from ocrnet_pl.storage.recording import Recorded
from ocrnet_pl.structures import DetectionOutput, Output, Placement, Predictions, Taxonomy

ClassKind = Literal["detection", "semantic"]
"""Detection classes or segmentation classes, each of which has its own indices."""


class ClassRows(NamedTuple):
    """The slices of a tensor that stand for the classes, one for each class in the order of their indices.

    Attributes:
        kind: Whether they are detection or segmentation classes.
        dimension: Dimension along which the classes follow one another.
        first: Index of the first class; the slices before it stand for something else, such as a confidence.
    """

    kind: ClassKind
    dimension: int = 0
    first: int = 0


DeclaredRows = Mapping[str, Sequence[ClassRows]]
"""The class rows of tensors by the tensor's name in the decoder; a tensor may have classes along two dimensions."""


def layer_rows(name: str, kind: ClassKind, first: int = 0) -> DeclaredRows:
    """Return the class rows of a convolution or linear layer, with a bias, whose outputs are the classes.

    Args:
        name: Name of the layer in the decoder.
        kind: Whether they are detection or segmentation classes.
        first: Index of the first class among the outputs.
    """
    return {f"{name}.{tensor}": (ClassRows(kind, 0, first),) for tensor in ("weight", "bias")}


class Encoder(Recorded, nn.Module, ABC):
    """Turns images into feature maps of decreasing resolution.

    Attributes:
        channels: Number of channels of each map, finest first.
        strides: Stride of each map in input pixels, finest first.
        mean: Mean of each input channel that the encoder expects, for values from 0 to 1.
        std: Standard deviation of each input channel that the encoder expects, for values from 0 to 1.
        pretrained: Whether weights were loaded, so that the optimiser may use a lower learning rate for them.
        fixed_size: (height, width) of the only images that it takes; None if it takes any size whose sides are
            multiples of the strides.
    """

    channels: list[int]
    strides: list[int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pretrained: bool
    fixed_size: tuple[int, int] | None = None

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that no pretrained weights are for, which learn at the rate of the decoders."""
        return iter(())

    def begin_step(self, epoch: int, step: int) -> bool:
        """Prepare for a training step; return whether other weights are trained from here on than before.

        Args:
            epoch: Number of epochs of the run that are done.
            step: Number of optimiser steps of the run that are done.
        """
        return False

    def hold_still(self) -> None:
        """Remove the gradients of weights that the optimiser must not move in this step."""

    def layer_depths(self) -> dict[str, int]:
        """Return how many layers each parameter is away from the decoders, by its name.

        Raises:
            ValueError: The encoder has no layers to tell apart.
        """
        raise ValueError(f"model.layer_decay: {type(self).__name__} names no layers (layer_depths); set it to null")

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images [B, C, H, W] to one per stride, [B, channels[i], H / strides[i], W / strides[i]]."""


class Neck(Recorded, nn.Module, ABC):
    """Turns encoder maps into maps of equal width.

    Attributes:
        channels: Number of channels of each output map, finest first.
        strides: Stride of each output map in input pixels, finest first.
    """

    channels: list[int]
    strides: list[int]

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map the encoder's maps to the neck's, finest first."""


class DetectionDecoder(Recorded, nn.Module, ABC):
    """Emits candidate boxes, each with a confidence and class scores, from the neck's maps.

    Attributes:
        exclusive_classes: Whether its class logits are those of a softmax rather than of one sigmoid each.
    """

    exclusive_classes: bool = False

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> DetectionOutput:
        """Return the candidates of all levels."""

    def class_rows(self) -> DeclaredRows | None:
        """Return which slices of which tensors stand for classes, so that they can move to other classes by name.

        A subclass that adds tensors with one row per class declares them as well. None declares nothing: such a decoder
        starts from another one's weights only where the classes are the same.
        """
        return None


class Shapes(NamedTuple):
    """Channels and strides of the maps that a segmentation decoder may read, finest first.

    Attributes:
        channels: Number of channels of each of the neck's maps.
        strides: Stride of each of the neck's maps.
        encoder_channels: Number of channels of each of the encoder's maps.
        encoder_strides: Stride of each of the encoder's maps.
    """

    channels: list[int]
    strides: list[int]
    encoder_channels: list[int]
    encoder_strides: list[int]


def last_of_each_stride(strides: Sequence[int]) -> dict[int, int]:
    """Return the index of the map to read of each stride: the last one, as dilated stages give several of one stride.

    Args:
        strides: Stride of each of the encoder's maps, finest first.
    """
    return {stride: index for index, stride in enumerate(strides)}


class Features(NamedTuple):
    """What a segmentation decoder may read.

    Attributes:
        maps: The neck's maps, finest first; empty if the network has no neck because nothing reads it.
        encoder_maps: The encoder's maps, finest first.
        detection: What the detection decoder found on the same images; None if the network has none.
    """

    maps: list[Tensor]
    encoder_maps: list[Tensor]
    detection: DetectionOutput | None = None


class SegmentationDecoder(Recorded, nn.Module, ABC):
    """Emits a class for every pixel from the neck's or the encoder's maps.

    Attributes:
        stride: Distance of neighbouring logits in input pixels.
        reads_neck: Whether it reads the neck's maps. A network in which nothing reads the neck is built without one.
    """

    stride: int
    reads_neck: bool = True

    @abstractmethod
    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Return the logits [B, S, h, w] first, then any auxiliary logits."""

    def class_rows(self) -> DeclaredRows | None:
        """Return which slices of which tensors stand for classes, as :meth:`DetectionDecoder.class_rows` does."""
        return None


class PostProcess(Recorded, nn.Module, ABC):
    """Turns the network's output into predictions at the original size; it has no weights."""

    @abstractmethod
    def forward(self, output: Output, placements: Sequence[Placement], taxonomy: Taxonomy) -> Predictions:
        """Return one prediction per placement, raw and, with both tasks, fused; all tensors are on the CPU."""

    @property
    def max_detections(self) -> int | None:
        """The largest number of boxes returned per image, or per tile where images are cut; None if unknown."""
        return None

    def dump_settings(self) -> dict[str, Any]:
        """Return what :meth:`load_settings` takes, as plain values; empty without such settings."""
        return {}

    def load_settings(self, settings: Mapping[str, Any], taxonomy: Taxonomy) -> None:
        """Apply the calibrated settings of a checkpoint; a post-processing without such settings ignores them.

        Args:
            settings: The settings as plain values.
            taxonomy: The categories that they name.
        """

    def moved_settings(self, settings: Mapping[str, Any], parents: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
        """Return calibrated settings for other categories; settings that name no category do not change.

        Args:
            settings: The settings as plain values.
            parents: By the name of each new category, the old ones that it stands for; none for a new class.
        """
        return settings

    def dump_calibration(self) -> dict[str, Any]:
        """Return what :meth:`load_calibration` takes, as plain values; empty where the scores were not calibrated."""
        return {}

    def load_calibration(self, calibration: Mapping[str, Any], taxonomy: Taxonomy) -> None:
        """Take over what ``calibrate`` found of the boxes' scores; a post-processing without a use for it ignores it.

        Args:
            calibration: What was found, as plain values.
            taxonomy: The categories that it names.
        """

    @property
    def chooses(self) -> bool:
        """Whether an operating point decides which boxes are given out."""
        return False

    def passes_note(self, way: object | None) -> str | None:
        """Return one line if what was found of the scores is of other passes than those to come; None if it holds.

        Args:
            way: How the images will be predicted, whose text tells passes apart; None for single passes.
        """
        return None

    def choose(self, operating_point: str, classes: Sequence[str], taxonomy: Taxonomy) -> tuple[str, ...]:
        """Give out only some of the boxes from now on.

        Args:
            operating_point: What is wanted of the boxes of each class: ``none``, ``best_f1``, ``precision=P``,
                ``recall=R``, or ``bound``.
            classes: Names of the classes whose boxes are given out; empty for all.
            taxonomy: The categories.

        Returns:
            One line for each class for which the wish cannot be met.

        Raises:
            UsageError: There is no such operating point or class.
            CheckpointError: The scores were not calibrated.
        """
        if operating_point != "none" or classes:
            raise UsageError(f"{type(self).__name__} cannot choose boxes; extend FusionPostProcess")
        return ()
