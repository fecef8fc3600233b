"""Augmentations: each moves image, boxes and maps together, and draws only from the generator it is given.

There is one file per kind: ``scaling``, ``cropping``, ``turning``, ``colors``, ``quality``, ``erasing``, and those that
mix several images: ``mosaic``, ``mixup``, ``copy_paste``.
"""

from __future__ import annotations

from ocrnet_pl.data.transforms.base import Compose, MixingTransform, Transform
from ocrnet_pl.data.transforms.colors import ColorJitter, RandomGamma, RandomGrayscale, adjust_colors
from ocrnet_pl.data.transforms.copy_paste import CopyPaste
from ocrnet_pl.data.transforms.cropping import RandomCrop
from ocrnet_pl.data.transforms.erasing import RandomErase
from ocrnet_pl.data.transforms.mixup import MixUp
from ocrnet_pl.data.transforms.mosaic import Mosaic
from ocrnet_pl.data.transforms.quality import RandomBlur, RandomNoise
from ocrnet_pl.data.transforms.scaling import Letterbox, RandomScaleJitter
from ocrnet_pl.data.transforms.turning import RandomFlip, RandomRotate, RandomRotate90, rotate90
from ocrnet_pl.imaging.geometry import letterbox_image, letterbox_placement

__all__ = [
    "ColorJitter",
    "Compose",
    "CopyPaste",
    "Letterbox",
    "MixUp",
    "MixingTransform",
    "Mosaic",
    "RandomBlur",
    "RandomCrop",
    "RandomErase",
    "RandomFlip",
    "RandomGamma",
    "RandomGrayscale",
    "RandomNoise",
    "RandomRotate",
    "RandomRotate90",
    "RandomScaleJitter",
    "Transform",
    "adjust_colors",
    "default_train_transforms",
    "letterbox_image",
    "letterbox_placement",
    "rotate90",
]


def default_train_transforms() -> list[Transform]:
    """Return transforms that suit most photographs: scale jitter, left-right flip, colors."""
    return [RandomScaleJitter(), RandomFlip(), ColorJitter()]
