"""What a transform is: of one sample, of several, and of others in a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import overload

import torch

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import Size, letterbox_sample
from ocrnet_pl.structures import Sample


class Transform(ABC):
    """Makes one sample of another, without changing the tensors of the one it is given.

    The generator is seeded from the run's seed, the epoch and the image, so a sample comes out the same whatever the
    number of workers and processes; a transform must use no other randomness.
    """

    @abstractmethod
    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Transform a sample.

        Args:
            sample: Of any size.
            size: (height, width) of the batch that the sample is for. Whatever size the last transform leaves is
                letterboxed to it, so most transforms need not look at it.
            generator: To draw from.
        """


class MixingTransform(Transform):
    """Makes one sample of several.

    Attributes:
        partners: How many other samples it can use.
    """

    partners: int

    @abstractmethod
    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        """Mix a sample with others.

        Args:
            sample: Of any size; the mixture keeps its id and path.
            size: (height, width) of the batch that the sample is for.
            generator: To draw from.
            partners: Other samples as their source gives them, of any sizes. They are read one by one and only when
                they are used, so that a sequence may load them when it is asked. Without any, the sample is returned
                as it is.
        """


class Compose(MixingTransform):
    """Applies transforms one after the other; those that mix share out the partners in order.

    Args:
        transforms: In order.

    Attributes:
        partners: How many other samples the transforms can use together.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)
        self.partners = sum(t.partners for t in self.transforms if isinstance(t, MixingTransform))

    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        """Apply all."""
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
    """Some items in a row of another sequence, each read only when it is asked for, as a slice would not."""

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
    """Bring a partner to a size by transforms of its own; what they leave at another size is letterboxed.

    Args:
        partner: Of any size.
        size: (height, width) of the result.
        generator: To draw from.
        transforms: In order.
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
    """Raise a ``ValueError`` that names the class and the option unless each value lies in 0 to 1."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{type(owner).__name__}: {name} must lie in 0 to 1, got {value}")


def pick(draw: float, room: int) -> int:
    """Return a whole number from 0 to ``room``, all equally likely, from a draw in [0, 1)."""
    return min(room, int(draw * (room + 1)))
