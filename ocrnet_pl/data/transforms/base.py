"""The base classes of transforms: of one sample, of several, and of a sequence of transforms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import overload

import torch

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import Size, letterbox_sample
from ocrnet_pl.structures import Sample


class Transform(ABC):
    """Makes a sample from another, without changing the tensors of its input.

    The generator is seeded from the run's seed, the epoch and the image, so the result is the same for any number of
    workers and processes; a transform must use no other randomness.
    """

    @abstractmethod
    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Transform a sample.

        Args:
            sample: A sample of any size.
            size: (height, width) of the batch that the sample is for. Any other size that the last transform leaves is
                letterboxed to it, so most transforms can ignore it.
            generator: Random generator to draw from.
        """


class MixingTransform(Transform):
    """Makes one sample from several.

    Attributes:
        partners: Number of other samples that it can use.
    """

    partners: int

    @abstractmethod
    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        """Mix a sample with others.

        Args:
            sample: A sample of any size; the mixture keeps its id and path.
            size: (height, width) of the batch that the sample is for.
            generator: Random generator to draw from.
            partners: Other samples as their source returns them, of any sizes. They are read one by one and only when
                they are used, so that a sequence may load them on request. Without any, the sample is returned
                unchanged.
        """


class Compose(MixingTransform):
    """Applies transforms one after the other; those that mix use the partners in order.

    Args:
        transforms: Transforms in the order in which they are applied.

    Attributes:
        partners: Number of other samples that the transforms can use together.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)
        self.partners = sum(t.partners for t in self.transforms if isinstance(t, MixingTransform))

    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        """Apply all transforms."""
        start = 0
        for transform in self.transforms:
            if isinstance(transform, MixingTransform):
                own = _Part(partners, start, start + transform.partners)
                start += transform.partners
                sample = transform(sample, size, generator, own)
            else:
                sample = transform(sample, size, generator)
        return sample


class _Part(Sequence[Sample]):
    """A range of items of another sequence, each read only when it is requested, unlike in a slice."""

    def __init__(self, whole: Sequence[Sample], start: int, stop: int) -> None:
        self._whole = whole
        self._range = range(start, min(stop, len(whole)))

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self._whole[i] for i in self._range[index]]
        return self._whole[self._range[index]]


def fit_partner(partner: Sample, size: Size, generator: torch.Generator, transforms: Sequence[Transform]) -> Sample:
    """Bring a partner to a size with its own transforms; if they leave another size, it is letterboxed.

    Args:
        partner: A sample of any size.
        size: (height, width) of the result.
        generator: Random generator to draw from.
        transforms: Transforms in the order in which they are applied.
    """
    for transform in transforms:
        partner = transform(partner, size, generator)
    return partner if partner.size == size else letterbox_sample(partner, size)


def check_channels(samples: Sequence[Sample]) -> None:
    """Raise a :class:`DataError` if the images of a mixture differ in their number of channels."""
    first = samples[0]
    for sample in samples[1:]:
        if len(sample.image) != len(first.image):
            raise DataError.at(
                sample.path,
                f"an image of {len(sample.image)} channels cannot be mixed with {first.path}, which has "
                f"{len(first.image)}",
                advice="read all images with the same number of channels, or leave mixing out",
            )


def check_share(owner: object, **options: float) -> None:
    """Raise a ``ValueError`` that names the class and the option unless each value is from 0 to 1."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{type(owner).__name__}: {name} must be from 0 to 1, got {value}")


def pick(draw: float, room: int) -> int:
    """Return an integer from 0 to ``room``, all equally likely, from a draw in [0, 1)."""
    return min(room, int(draw * (room + 1)))
