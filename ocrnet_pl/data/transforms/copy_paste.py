"""Objects of one image pasted into another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.data.transforms.base import MixingTransform, Transform, check_channels, check_share, fit_partner
from ocrnet_pl.data.transforms.occlusion import hide
from ocrnet_pl.data.transforms.sample_mixing import agree, instance_maps, join_rows, semantic_maps
from ocrnet_pl.data.transforms.scaling import RandomScaleJitter
from ocrnet_pl.data.transforms.turning import RandomFlip
from ocrnet_pl.imaging.geometry import TIGHT, Size, object_bounds, wrap_boxes
from ocrnet_pl.structures import Sample


class CopyPaste(MixingTransform):
    """Cuts objects out of another image and pastes them in front of this one's (Ghiasi et al., CVPR 2021).

    Both images need an instance map, or must have no objects; otherwise the sample does not change. Pasted objects
    bring their box, class and pixels. Objects behind them get the box of the remaining part, and become crowds if too
    little remains; objects that are hidden completely are dropped. The result has the sample's own size: put this
    transform after the scaling.

    The result is labelled for the classes that both images are labelled for.

    Args:
        share: Probability that an object of the other image is pasted, 0 to 1.
        min_visible: Share of an object, 0 to 1, that has to stay visible for it to remain a target.
        min_area: Number of pixels below which objects are not pasted, at least 1.
        partner_transforms: Transforms that bring the partner to the sample's size; null for scale jitter and left-right
            flip.
        p: Probability that anything is pasted, 0 to 1.
    """

    partners = 1

    def __init__(
        self,
        share: float = 0.5,
        min_visible: float = 0.2,
        min_area: int = 16,
        partner_transforms: list[Transform] | None = None,
        p: float = 0.5,
    ) -> None:
        check_share(self, share=share, min_visible=min_visible, p=p)
        if min_area < 1:
            raise ValueError(f"CopyPaste: min_area must be at least 1, got {min_area}")
        self.share = share
        self.min_visible = min_visible
        self.min_area = min_area
        self.partner_transforms = (
            [RandomScaleJitter(), RandomFlip()] if partner_transforms is None else partner_transforms
        )
        self.p = p

    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        """Paste the objects."""
        if not len(partners) or float(torch.rand(1, generator=generator)) >= self.p:
            return sample
        if partners[0].instances is None or (sample.instances is None and not sample.crowd.all()):
            return sample
        partner = fit_partner(partners[0], sample.size, generator, self.partner_transforms)
        check_channels([sample, partner])
        target, partner = agree([sample, partner])
        chosen = self._choose(partner, generator)
        if not chosen.any():
            return sample
        objects = _only(partner, chosen)
        assert objects.instances is not None
        mask = objects.instances.as_subclass(Tensor) > 0
        target = hide(target, mask, self.min_visible)
        parts = [target, objects]
        semantic, instances = semantic_maps(parts), instance_maps(parts)
        assert instances is not None
        return join_rows(parts, [(0, 0)] * 2, sample.size).replace(
            image=tv_tensors.Image(
                torch.where(mask, objects.image.as_subclass(Tensor), target.image.as_subclass(Tensor))
            ),
            semantic=None if semantic is None else tv_tensors.Mask(torch.where(mask, semantic[1], semantic[0])),
            instances=tv_tensors.Mask(torch.where(mask, instances[1], instances[0])),
        )

    def _choose(self, partner: Sample, generator: torch.Generator) -> Tensor:
        """Return bool [N], the partner's objects to paste."""
        assert partner.instances is not None
        count = len(partner.labels)
        pixels = partner.instances.as_subclass(Tensor).numpy().reshape(-1)
        areas = torch.from_numpy(np.bincount(pixels, minlength=count + 1)[1:])
        lucky = torch.rand(count, generator=generator) < self.share
        return lucky & ~partner.crowd & (areas >= self.min_area)


def _only(partner: Sample, chosen: Tensor) -> Sample:
    """Return the sample with its chosen rows only; a box that is larger than the object's pixels shrinks to them.

    What hid the rest of such an object is not pasted, so only its pixels are left.
    """
    assert partner.instances is not None
    rows = chosen.nonzero()[:, 0]
    numbers = np.zeros(len(chosen) + 1, dtype=np.int32)
    numbers[rows.numpy() + 1] = np.arange(1, len(rows) + 1)
    pixels = np.take(numbers, partner.instances.as_subclass(Tensor).numpy())
    boxes = partner.boxes.as_subclass(Tensor)[rows]
    for i in range(len(rows)):
        tight = object_bounds(pixels, i + 1, boxes[i].numpy())
        if tight is not None and np.abs(tight - boxes[i].numpy()).max() > TIGHT:
            boxes[i] = torch.from_numpy(tight)
    return partner.replace(
        boxes=wrap_boxes(boxes, partner.size),
        labels=partner.labels[rows],
        crowd=partner.crowd[rows],
        instances=tv_tensors.Mask(torch.from_numpy(pixels)),
    )
