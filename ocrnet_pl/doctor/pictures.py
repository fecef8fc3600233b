"""A picture of a finding: the place in the image, its labels thin, the fault thick and red."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFile
from torch import Tensor

from ocrnet_pl.doctor.examine import Split, as_raw
from ocrnet_pl.doctor.findings import Finding, Kind
from ocrnet_pl.doctor.orientation import header_of
from ocrnet_pl.drawing.overlays import draw_truth
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.image_files import open_with_pillow, opened
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.structures import Sample

_WIDTH, _HEIGHT = 420, 300
_RED = (255, 45, 60)
_GREY = (96, 100, 108)
_WITHOUT_LABELS = {Kind.SAME_IMAGE, Kind.SIMILAR_IMAGE, Kind.IMAGE_REPEATED, Kind.GREYSCALE, Kind.UNLISTED}

Box = tuple[float, float, float, float]


def draw(finding: Finding, splits: Mapping[str, Split]) -> Image.Image | None:
    """Draw a finding.

    Args:
        finding: The finding, with the image's index.
        splits: The splits by name.

    Returns:
        About 420 x 300 pixels, two of them next to each other for a pair; None if there is nothing to show.
    """
    if finding.kind in (Kind.IMAGE_UNREADABLE, Kind.UNLISTED) or finding.index < 0:
        return _file(finding)
    split = splits.get(finding.split)
    if split is None:
        return None
    try:
        sample = split.source[finding.index]
    except DataError:
        return _file(finding)
    picture = _draw(finding, sample, split)
    if finding.other is not None and finding.other[0] in splits:
        other = splits[finding.other[0]].source[finding.other[1]]
        return _side_by_side(_draw(finding, other, splits[finding.other[0]]), picture)
    return picture


def _draw(finding: Finding, sample: Sample, split: Split) -> Image.Image:
    taxonomy = split.source.taxonomy
    image = sample.image.as_subclass(Tensor)
    if finding.kind in _WITHOUT_LABELS:
        return _fitted(_picture(image))
    raw = split.raw_boxes(finding.index) or as_raw(sample)
    tinted = _picture(
        draw_truth(
            sample.replace(boxes=sample.boxes[:0], labels=sample.labels[:0], instances=None), taxonomy, min_side=0
        )
    )
    height, width = sample.size
    region = _region(finding.box, width, height)
    scale = min(_WIDTH / (region[2] - region[0]), _HEIGHT / (region[3] - region[1]), 12.0)
    canvas = Image.new(
        "RGB", (max(1, round((region[2] - region[0]) * scale)), max(1, round((region[3] - region[1]) * scale))), _GREY
    )
    whole = (
        max(0, int(region[0])),
        max(0, int(region[1])),
        min(width, int(np.ceil(region[2]))),
        min(height, int(np.ceil(region[3]))),
    )
    if whole[2] > whole[0] and whole[3] > whole[1]:
        part = tinted.crop(whole)
        size = (max(1, round(part.width * scale)), max(1, round(part.height * scale)))
        smooth = (
            Image.Resampling.LANCZOS
            if scale < 1
            else Image.Resampling.BICUBIC
            if scale < 3
            else Image.Resampling.NEAREST
        )
        canvas.paste(
            part.resize(size, smooth), (round((whole[0] - region[0]) * scale), round((whole[1] - region[1]) * scale))
        )
    pen = ImageDraw.Draw(canvas)
    colors = [category.color for category in taxonomy.detection_categories]
    for box, label in zip(raw.boxes.tolist(), raw.labels.tolist(), strict=True):
        if all(abs(value) < 1e6 for value in box):
            _rectangle(pen, box, region, scale, colors[label], 1 if finding.box is not None else 2)
    if finding.box is not None:
        _rectangle(pen, _within(finding.box, region), region, scale, _RED, 3)
    return canvas


def _region(box: Box | None, width: int, height: int) -> Box:
    """Return what to show: the whole image, or the surroundings of a box and a part of the image with it."""
    if box is None:
        return 0.0, 0.0, float(width), float(height)
    x0, x1 = sorted((box[0], box[2]))
    y0, y1 = sorted((box[1], box[3]))
    # A box far away would reduce the image to a speck.
    x0, x1 = np.clip([x0, x1], -width, 2 * width).tolist()
    y0, y1 = np.clip([y0, y1], -height, 2 * height).tolist()
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        # Outside the image: how far says more than what is near.
        return min(0.0, x0 - 8), min(0.0, y0 - 8), max(float(width), x1 + 8), max(float(height), y1 + 8)
    side = max(64.0, 2.5 * (x1 - x0), 2.5 * (y1 - y0) * _WIDTH / _HEIGHT)
    side_y = side * _HEIGHT / _WIDTH
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    left, right = middle_x - side / 2, middle_x + side / 2
    top, bottom = middle_y - side_y / 2, middle_y + side_y / 2
    # Beyond the image's edge, only what the box needs.
    left, right = max(left, x0 - 8 if x0 < 0 else 0.0), min(right, x1 + 8 if x1 > width else float(width))
    top, bottom = max(top, y0 - 8 if y0 < 0 else 0.0), min(bottom, y1 + 8 if y1 > height else float(height))
    # Part of the image has to be visible, so that it can be recognised.
    left, right = min(left, width - 32.0), max(right, 32.0)
    top, bottom = min(top, height - 32.0), max(bottom, 32.0)
    return left, top, right, bottom


def _within(box: Box, region: Box) -> Box:
    """Return a box that is too far away to be shown as one that begins at the region's edge."""
    x0, y0, x1, y1 = box
    left, top, right, bottom = region
    x0, y0 = right - 8 if x0 >= right else x0, bottom - 8 if y0 >= bottom else y0
    return x0, y0, left + 8 if x1 <= left else x1, top + 8 if y1 <= top else y1


def _rectangle(
    pen: ImageDraw.ImageDraw, box: Box | list[float], region: Box, scale: float, color: tuple[int, int, int], width: int
) -> None:
    x0, x1 = sorted(round((value - region[0]) * scale) for value in (box[0], box[2]))
    y0, y1 = sorted(round((value - region[1]) * scale) for value in (box[1], box[3]))
    pen.rectangle((x0, y0, max(x0 + 1, x1 - 1), max(y0 + 1, y1 - 1)), outline=color, width=width)
    if width > 2 and min(x1 - x0, y1 - y0) < 8:
        # A box without width would be overlooked.
        pen.ellipse((x0 - 14, y0 - 14, x1 + 14, y1 + 14), outline=color, width=width)


def _picture(image: Tensor) -> Image.Image:
    channels = image if image.shape[0] == 3 else image[:3] if image.shape[0] > 3 else image[:1].expand(3, -1, -1)
    return Image.fromarray(channels.permute(1, 2, 0).contiguous().numpy())


def _fitted(image: Image.Image) -> Image.Image:
    factor = min(_WIDTH / image.width, _HEIGHT / image.height, 8.0)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC)


def _side_by_side(one: Image.Image, two: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (one.width + two.width + 6, max(one.height, two.height)), "white")
    canvas.paste(one, (0, 0))
    canvas.paste(two, (one.width + 6, 0))
    return canvas


def _file(finding: Finding) -> Image.Image | None:
    """Show what is readable of a file that no source returns: all of it, or the part before it breaks off."""
    if not finding.image:
        return None
    try:
        return _fitted(_picture(read_image(finding.image)))
    except DataError:
        pass
    if header_of(finding.image) is None:
        return None
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with opened(finding.image) as file, open_with_pillow(file) as image:
            return _fitted(image.convert("RGB"))
    except DataError:
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
