"""The adapter between the decoders of segmentation-models-pytorch and this network."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn

from ocrnet_pl.models.base import (
    DeclaredRows,
    Features,
    SegmentationDecoder,
    Shapes,
    last_of_each_stride,
    layer_rows,
)
from ocrnet_pl.structures import Taxonomy


class Pyramid(NamedTuple):
    """The encoder's maps as the package needs them: one for each halving of the input, the input first.

    Attributes:
        indices: Index of each map among the encoder's; None for the input itself, and for stride 2 where the encoder
            has no such map.
        channels: Number of channels of each map, 0 where the index is None.
        strides: Stride of each map: 1, 2, 4, and so on; an encoder's dilated last map repeats the stride before it.
    """

    indices: list[int | None]
    channels: list[int]
    strides: list[int]

    @property
    def depth(self) -> int:
        """The number of halvings."""
        return len(self.strides) - 1

    @classmethod
    def of(cls, shapes: Shapes, coarsest: int) -> Pyramid:
        """Choose the maps up to the stride ``coarsest``, and the last one where several have the same stride.

        Raises:
            ValueError: ``coarsest`` is not a power of two from 8, or the encoder lacks one of the strides from 4 up to
                it.
        """
        if coarsest < 8 or coarsest & (coarsest - 1):
            raise ValueError(f"segmentation: coarsest is {coarsest}; give 8, 16 or 32")
        wanted = [2**level for level in range(int(math.log2(coarsest)) + 1)]
        last = last_of_each_stride(shapes.encoder_strides)
        missing = [stride for stride in wanted[2:] if stride not in last]
        if missing:
            raise ValueError(
                f"segmentation: the encoder's strides are {shapes.encoder_strides}, this decoder also reads "
                f"{missing}; set `coarsest` of the decoder to a smaller stride or take another encoder"
            )
        indices = [None, *(last.get(stride) for stride in wanted[1:])]
        channels = [0 if index is None else shapes.encoder_channels[index] for index in indices]
        return cls(indices, channels, wanted)


class SmpDecoder(SegmentationDecoder):
    """A decoder of segmentation-models-pytorch, followed by the convolution to the classes.

    :mod:`ocrnet_pl.models.smp_models` has a class for each decoder of that package.

    Args:
        taxonomy: The categories, which give the number of classes.
        pyramid: The maps that the decoder reads.
        decoder: A decoder of the package: from maps, the input first, to one map.
        width: Number of channels of the decoder's map.
        stride: Stride of the decoder's map in input pixels.
        kernel_size: Side of the kernel of the convolution to the classes.
        pools: Whether the decoder normalises what it has pooled to one value per image, which needs at least two images
            per batch in training.

    Raises:
        ValueError: The taxonomy has no segmentation class.
    """

    reads_neck = False

    def __init__(
        self,
        taxonomy: Taxonomy,
        pyramid: Pyramid,
        decoder: nn.Module,
        width: int,
        stride: int,
        kernel_size: int,
        pools: bool = False,
    ) -> None:
        super().__init__()
        from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head

        if taxonomy.num_semantic == 0:
            raise ValueError("segmentation: the taxonomy has no segmentation class; set the decoder to null")
        self.stride = stride
        self.decoder = decoder
        self.classify = nn.Conv2d(width, taxonomy.num_semantic, kernel_size, padding=kernel_size // 2)
        initialize_decoder(self.decoder)
        initialize_head(self.classify)
        self._pyramid = pyramid
        self._pools = pools

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Return the logits [B, S, H / stride, W / stride].

        Raises:
            ValueError: A batch of one image in training, where the decoder needs two.
        """
        maps = features.encoder_maps
        if self.training and self._pools and maps[-1].shape[0] == 1:
            raise ValueError(
                "segmentation: this decoder normalises one value per image and cannot train with one image per batch; "
                "set data.batch_size to at least 2"
            )
        # The decoders use nothing of the input but its size.
        deepest = self._pyramid.indices[-1] or 0
        height, width = (side * self._pyramid.strides[-1] for side in maps[deepest].shape[-2:])
        read = [
            maps[deepest].new_empty((maps[deepest].shape[0], 0, height // stride, width // stride))
            if index is None
            else maps[index]
            for index, stride in zip(self._pyramid.indices, self._pyramid.strides, strict=True)
        ]
        logits: Tensor = self.classify(self.decoder(read))
        return (logits,)

    def class_rows(self) -> DeclaredRows:
        """Return the rows of the convolution to the classes."""
        return layer_rows("classify", "semantic")
