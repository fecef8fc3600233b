"""Four images in one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.data.transforms.base import MixingTransform, check_channels, check_share, pick
from ocrnet_pl.data.transforms.sample_mixing import agree, instance_maps, join_rows, semantic_maps
from ocrnet_pl.imaging.geometry import Size, place
from ocrnet_pl.structures import Sample


class Mosaic(MixingTransform):
    """Arranges parts of four images around a random point (Bochkovskiy et al., YOLOv4, 2020).

    Each image is scaled and cut so that it fills its quarter: there is no grey, and only visible pixels are scaled. The
    result has the batch's size, so put this transform first; scale jitter after it zooms in and out of the whole. With
    fewer than three partners the images are used again, each cut differently.

    The result is labelled for the classes that all four images are labelled for.

    Args:
        minimum: Smallest factor of an image's scale, above 0; 1 is the scale at which it fits the batch's size alone.
            If an image would not fill its quarter, the factor is larger.
        maximum: Largest factor of an image's scale, at least ``minimum``.
        spread: Largest distance of the point from the middle, as a fraction of the half sides, from 0 to below 1.
        min_visible: Share of a cut object, 0 to 1, that has to remain for it to stay a target; others become crowds.
        p: Probability that images are mixed, 0 to 1.
    """

    partners = 3

    def __init__(
        self,
        minimum: float = 0.4,
        maximum: float = 1.0,
        spread: float = 0.5,
        min_visible: float = 0.2,
        p: float = 0.5,
    ) -> None:
        if not 0 < minimum <= maximum:
            raise ValueError(f"Mosaic: expected 0 < minimum <= maximum, got {minimum} and {maximum}")
        if not 0 <= spread < 1:
            raise ValueError(f"Mosaic: spread must be at least 0 and below 1, got {spread}")
        check_share(self, min_visible=min_visible, p=p)
        self.minimum = minimum
        self.maximum = maximum
        self.spread = spread
        self.min_visible = min_visible
        self.p = p

    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        """Arrange the four images."""
        chance, *center = torch.rand(3, generator=generator).tolist()
        if not len(partners) or chance >= self.p or min(size) < 2:
            return sample
        rows, columns = (
            min(side - 1, max(1, round(side / 2 * (1 + self.spread * (2 * draw - 1)))))
            for side, draw in zip(size, center, strict=True)
        )
        corners = [(0, 0), (0, columns), (rows, 0), (rows, columns)]
        cells = [
            (rows if not top else size[0] - rows, columns if not left else size[1] - columns) for top, left in corners
        ]
        images = [sample, *(partners[i] for i in range(min(3, len(partners))))]
        check_channels(images)
        # The image that gives the sample its id may be in any corner.
        order = torch.randperm(4, generator=generator).tolist()
        parts = [
            self._fill(images[number % len(images)], cell, size, generator)
            for number, cell in zip(order, cells, strict=True)
        ]
        parts = agree(parts)
        joined = join_rows(parts, corners, size)
        semantic, instances = semantic_maps(parts), instance_maps(parts)
        return joined.replace(
            image=tv_tensors.Image(_quarters([part.image.as_subclass(Tensor) for part in parts])),
            semantic=None if semantic is None else tv_tensors.Mask(_quarters(semantic)),
            instances=None if instances is None else tv_tensors.Mask(_quarters(instances)),
            image_id=sample.image_id,
            path=sample.path,
        )

    def _fill(self, sample: Sample, cell: Size, size: Size, generator: torch.Generator) -> Sample:
        """Cut a window out of an image that fills a cell after scaling."""
        draws = torch.rand(3, generator=generator).tolist()
        fit = min(size[0] / sample.size[0], size[1] / sample.size[1])
        scale = fit * self.minimum * (self.maximum / self.minimum) ** draws[0]
        scale = max(scale, cell[0] / sample.size[0], cell[1] / sample.size[1])
        height, width = (
            min(side, max(1, round(target / scale))) for side, target in zip(sample.size, cell, strict=True)
        )
        top, left = pick(draws[1], sample.size[0] - height), pick(draws[2], sample.size[1] - width)
        return place(sample, (top, left, height, width), cell, cell, (0, 0), min_visible=self.min_visible)


def _quarters(parts: Sequence[Tensor]) -> Tensor:
    """Join four parts, row by row."""
    return torch.cat([torch.cat(list(parts[:2]), -1), torch.cat(list(parts[2:]), -1)], -2)
