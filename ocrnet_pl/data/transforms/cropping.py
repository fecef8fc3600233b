"""Cutting out a part of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from ocrnet_pl.data.transforms.base import Transform, check_share, pick
from ocrnet_pl.imaging.geometry import Size, cut_boxes, place
from ocrnet_pl.structures import Sample


class RandomCrop(Transform):
    """Cuts out a random window that keeps at least one object, as in SSD (Liu et al., ECCV 2016).

    The window keeps its own size; put the scaling after it. An image without objects may be cut anywhere. If none of
    the windows tried keeps an object, the whole image is kept.

    Args:
        minimum: Shortest side of the window, as a fraction of the image's side, above 0.
        maximum: Longest side of the window, as a fraction of the image's side, at most 1.
        aspect: Largest factor by which the window's aspect ratio may differ from the image's, at least 1; 1 keeps it.
        min_visible: Share of an object, 0 to 1, that has to remain for it to stay a target; others become crowds.
        tries: Largest number of windows to draw, at least 1.
        p: Probability that the image is cut, 0 to 1.
    """

    def __init__(
        self,
        minimum: float = 0.3,
        maximum: float = 1.0,
        aspect: float = 2.0,
        min_visible: float = 0.3,
        tries: int = 20,
        p: float = 1.0,
    ) -> None:
        if not 0 < minimum <= maximum <= 1:
            raise ValueError(f"RandomCrop: expected 0 < minimum <= maximum <= 1, got {minimum} and {maximum}")
        if aspect < 1:
            raise ValueError(f"RandomCrop: aspect must be at least 1, got {aspect}")
        if tries < 1:
            raise ValueError(f"RandomCrop: tries must be at least 1, got {tries}")
        check_share(self, min_visible=min_visible, p=p)
        self.minimum = minimum
        self.maximum = maximum
        self.aspect = aspect
        self.min_visible = min_visible
        self.tries = tries
        self.p = p

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        """Cut out a window."""
        if float(torch.rand(1, generator=generator)) >= self.p:
            return sample
        for draws in torch.rand(self.tries, 4, generator=generator).tolist():
            window = self._window(sample.size, draws)
            if self._keeps_an_object(sample, window):
                cut = (window[2], window[3])
                return place(sample, window, cut, cut, (0, 0), min_visible=self.min_visible)
        return sample

    def _window(self, size: Size, draws: list[float]) -> tuple[int, int, int, int]:
        share = self.minimum + (self.maximum - self.minimum) * draws[0]
        stretch = self.aspect ** (draws[1] - 0.5)
        height, width = (
            min(side, max(1, round(side * min(self.maximum, max(self.minimum, share * factor)))))
            for side, factor in zip(size, (stretch, 1 / stretch), strict=True)
        )
        return pick(draws[2], size[0] - height), pick(draws[3], size[1] - width), height, width

    def _keeps_an_object(self, sample: Sample, window: tuple[int, int, int, int]) -> bool:
        crowd = sample.crowd.numpy()
        if crowd.all():
            return True
        instances = None if sample.instances is None else sample.instances.as_subclass(Tensor)
        _, keep, demote = cut_boxes(sample, instances, window, self.min_visible)
        return bool((keep & ~demote & ~crowd).any())
