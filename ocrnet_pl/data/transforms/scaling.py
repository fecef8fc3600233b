"""Bringing a sample to a size: letterboxing and scale jitter."""

from __future__ import annotations

import torch

from ocrnet_pl.data.transforms.base import Transform, check_share, pick
from ocrnet_pl.imaging.geometry import Size, letterbox_sample, place
from ocrnet_pl.structures import Sample


class Letterbox(Transform):
    """Scales to fit, with the aspect ratio kept, and pads at the bottom and right: grey, no instance, ignored pixels.

    Args:
        size: (height, width) in pixels; null for the batch's.
    """

    def __init__(self, size: Size | None = None) -> None:
        self.size = size

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Letterbox the sample and record the placement."""
        return letterbox_sample(sample, self.size or size)


class RandomScaleJitter(Transform):
    """Scales by a random factor, then cuts out or pads to the batch's size at a random position.

    The placement is dropped: training images are never mapped back. With ``minimum: 0.1`` and ``maximum: 2.0`` this is
    large-scale jitter (Ghiasi et al., CVPR 2021).

    Args:
        minimum: Smallest factor, above 0; 1 fits the image to the batch's size.
        maximum: Largest factor, at least ``minimum``.
        min_visible: Share of a cut object, 0 to 1, that has to remain for it to stay a target; others become crowds.
        aspect: Largest factor by which the aspect ratio may change, at least 1; 1 keeps it.
    """

    def __init__(
        self, minimum: float = 0.6, maximum: float = 1.6, min_visible: float = 0.2, aspect: float = 1.0
    ) -> None:
        if not 0 < minimum <= maximum:
            raise ValueError(f"RandomScaleJitter: expected 0 < minimum <= maximum, got {minimum} and {maximum}")
        check_share(self, min_visible=min_visible)
        if aspect < 1:
            raise ValueError(f"RandomScaleJitter: aspect must be at least 1, got {aspect}")
        self.minimum = minimum
        self.maximum = maximum
        self.min_visible = min_visible
        self.aspect = aspect

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Scale, then cut or pad."""
        draws = torch.rand(6, generator=generator).tolist()
        fit = min(size[0] / sample.size[0], size[1] / sample.size[1])
        # Uniform in the logarithm: halving is as likely as doubling.
        factor = fit * self.minimum * (self.maximum / self.minimum) ** draws[0]
        stretch = self.aspect ** (draws[1] - 0.5)
        scales = (factor * stretch, factor / stretch)
        window: list[tuple[int, int]] = []
        resized: list[int] = []
        offset: list[int] = []
        for axis in range(2):
            side, target, scale = sample.size[axis], size[axis], scales[axis]
            scaled = max(1, round(side * scale))
            if scaled > target:
                # The window is cut in whole pixels of the source before scaling; the scale changes by less than a
                # pixel.
                length = min(side, max(1, round(target / scale)))
                window.append((pick(draws[2 + axis], side - length), length))
                resized.append(target)
                offset.append(0)
            else:
                window.append((0, side))
                resized.append(scaled)
                offset.append(pick(draws[4 + axis], target - scaled))
        (top, height), (left, width) = window
        return place(
            sample,
            (top, left, height, width),
            (resized[0], resized[1]),
            size,
            (offset[0], offset[1]),
            min_visible=self.min_visible,
        )
