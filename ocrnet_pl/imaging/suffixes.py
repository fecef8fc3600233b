"""Endings of the files that are looked for as images and masks."""

from __future__ import annotations

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
"""Endings of masks, in lower case: formats without loss."""

IMAGE_SUFFIXES = (*MASK_SUFFIXES, ".jpg", ".jpeg", ".webp")
"""Endings of images, in lower case."""
