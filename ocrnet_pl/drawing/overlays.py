"""Drawing: images with boxes, masks and labels, as uint8 tensors; curves and matrices, as PNG files.

Nothing here changes its arguments or depends on a display.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from ocrnet_pl.runtime.painting import (
    INK,
    PAPER,
    Layers,
    draw_boxes,
    enlarged,
    enlargement,
    kept_layers,
    load_font,
    shade,
    tinted,
    untinted,
)
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Category, Placement, Prediction, Sample, Taxonomy

_MARGIN = 12


def panoptic_to_rgb(
    prediction: Prediction, taxonomy: Taxonomy, *, placement: Placement | None = None, min_side: int = 0
) -> Tensor:
    """Return a panoptic map in the taxonomy's colors, with a different shade for each instance.

    Args:
        prediction: The prediction.
        taxonomy: The categories with their colors.
        placement: Position of the original image in the map, so that padding is drawn as padding; None for none.
        min_side: Length in pixels of the longer side up to which a smaller map is enlarged, by a whole factor; 0 keeps
            the size.

    Returns:
        uint8 [3, H', W'].

    Raises:
        ValueError: The prediction has no panoptic map.
    """
    if prediction.panoptic is None:
        raise ValueError("the prediction has no panoptic map")
    table = torch.zeros(max([s.id for s in prediction.segments], default=0) + 1, 3, dtype=torch.uint8)
    for segment in prediction.segments:
        category = taxonomy.categories[segment.category]
        color = shade(category.color, segment.id) if category.is_thing else category.color
        table[segment.id] = torch.tensor(color, dtype=torch.uint8)
    colored = table[_plain(prediction.panoptic).long()].permute(2, 0, 1)
    factor = enlargement(colored.shape[-2:], min_side)
    colored = colored.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return _hatch_padding(colored, placement, factor).contiguous()


def draw_prediction(
    image: Tensor,
    prediction: Prediction,
    taxonomy: Taxonomy,
    *,
    threshold: float = 0.3,
    min_side: int = 512,
    placement: Placement | None = None,
) -> Tensor:
    """Draw a prediction over its image: classes as tints, instances with outlines, boxes with names and scores.

    Objects that are followed through a film have their number between both.

    Args:
        image: uint8 [C, H, W].
        prediction: The prediction, in the frame of the image.
        taxonomy: The categories with their names and colors.
        threshold: Score below which boxes are left out, 0 to 1.
        min_side: Length in pixels of the longer side up to which a smaller image is enlarged, by a whole factor; 0
            keeps the size.
        placement: Position of the original image in ``image``, so that padding is drawn as padding; None for none.

    Returns:
        uint8 [3, H', W'].

    Raises:
        ValueError: A map's size is not the image's.
    """
    layers = kept_layers(
        _pixels(image),
        _array(prediction.semantic),
        _array(prediction.instances),
        _plain(prediction.boxes).float().numpy(),
        _plain(prediction.scores).numpy(),
        _plain(prediction.labels).numpy(),
        _array(prediction.tracks),
        threshold,
        taxonomy,
    )
    return _draw(layers, taxonomy, min_side, placement)


def draw_truth(sample: Sample, taxonomy: Taxonomy, *, min_side: int = 512) -> Tensor:
    """Draw a sample's labels over its image, as :func:`draw_prediction` does; crowds are grey.

    Args:
        sample: The sample; any of its labels may be missing.
        taxonomy: The categories with their names and colors.
        min_side: Length in pixels of the longer side up to which a smaller image is enlarged, by a whole factor; 0
            keeps the size.

    Returns:
        uint8 [3, H', W'].

    Raises:
        ValueError: A map's size is not the image's.
    """
    labels = [int(label) for label in sample.labels]
    texts = [taxonomy.detection_categories[label].name for label in labels]
    crowd = [bool(flag) for flag in sample.crowd]
    boxes = _plain(sample.boxes).float().numpy()
    maps = _array(sample.semantic), _array(sample.instances)
    layers = Layers(_pixels(sample.image), *maps, boxes, labels, texts, crowd)
    return _draw(layers, taxonomy, min_side, sample.placement)


def panel(images: Sequence[Tensor], titles: Sequence[str], legend: Sequence[Category] = ()) -> Tensor:
    """Place images next to each other on white, each under its title, with the classes' colors below.

    Args:
        images: One uint8 tensor [3, H, W] per image.
        titles: One title per image.
        legend: Categories whose colors and names are shown.

    Returns:
        uint8 [3, H', W'].
    """
    font_size = max(14, round(max(image.shape[-1] for image in images) / 32))
    font = load_font(font_size)
    header = font_size + _MARGIN
    width = sum(image.shape[-1] for image in images) + _MARGIN * (len(images) + 1)
    height = max(image.shape[-2] for image in images) + header + 2 * _MARGIN
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    x = _MARGIN
    for image, title in zip(images, titles, strict=True):
        draw.text((x, _MARGIN), title, fill=INK, font=font)
        page.paste(to_pil_image(_plain(image)), (x, header + _MARGIN))
        x += image.shape[-1] + _MARGIN
    drawn: Tensor = pil_to_tensor(page)
    return with_legend(drawn, legend, font_size)


def with_legend(image: Tensor, legend: Sequence[Category], font_size: int = 14) -> Tensor:
    """Add a white strip below an image that shows the colors and names of categories.

    Args:
        image: uint8 [3, H, W].
        legend: The categories; none for no strip.
        font_size: Height of the names in pixels.

    Returns:
        uint8 [3, H', W].
    """
    if not legend:
        return image
    font, width = load_font(font_size), image.shape[-1]
    places, height = _legend_places(legend, font, font_size, width)
    strip = Image.new("RGB", (width, _MARGIN // 2 + height), PAPER)
    draw = ImageDraw.Draw(strip)
    for category, (left, top) in zip(legend, places, strict=True):
        top += _MARGIN // 2
        draw.rectangle((left, top, left + font_size, top + font_size), fill=category.color, outline=INK)
        draw.text((left + font_size + _MARGIN // 2, top - 1), category.name, fill=INK, font=font)
    return torch.cat((_plain(image), pil_to_tensor(strip)), 1)


def sheet(panels: Sequence[Tensor]) -> Tensor:
    """Place panels below each other on white.

    Args:
        panels: At least one uint8 tensor [3, H, W], of any sizes.

    Returns:
        uint8 [3, H', W'].
    """
    width = max(each.shape[-1] for each in panels)
    return torch.cat([F.pad(_plain(each), (0, width - each.shape[-1]), value=255) for each in panels], 1)


def drawn_categories(
    taxonomy: Taxonomy, sample: Sample, predictions: Sequence[Prediction] = (), *, threshold: float = 0.3
) -> list[Category]:
    """Return the categories whose colors appear where a sample and its predictions are drawn, in the taxonomy's order.

    Args:
        taxonomy: The categories.
        sample: The sample with its labels.
        predictions: Predictions for its image.
        threshold: Score below which boxes are left out, 0 to 1.

    Returns:
        The categories, without a background that is not tinted.
    """
    boxes = [sample.labels.cpu(), *(each.labels[each.scores >= threshold].cpu() for each in predictions)]
    maps = [sample.semantic, *(each.semantic for each in predictions)]
    labels = set(torch.cat(boxes).tolist())
    pixels = {value for each in maps if each is not None for value in _plain(each).unique().tolist()}
    pixels -= untinted(taxonomy)
    return [c for c in taxonomy.categories if c.detection in labels or c.semantic in pixels]


def _legend_places(
    legend: Sequence[Category], font: Any, font_size: int, width: int
) -> tuple[list[tuple[int, int]], int]:
    """Return the upper left corner of each entry, in rows that fit into the width, and the height of all."""
    places: list[tuple[int, int]] = []
    x, y = _MARGIN, 0
    for category in legend:
        taken = round(font.getlength(category.name)) + font_size + 2 * _MARGIN
        if x > _MARGIN and x + taken > width:
            x, y = _MARGIN, y + font_size + _MARGIN
        places.append((x, y))
        x += taken
    return places, y + font_size + _MARGIN


def write_png(image: Tensor, path: str | os.PathLike[str]) -> None:
    """Write uint8 [3, H, W] as a PNG, which appears under its name only when complete."""
    with complete_file(path) as unfinished:
        # Slower ones make it a little smaller, in several times the time.
        to_pil_image(_plain(image)).save(unfinished, format="PNG", compress_level=1)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().as_subclass(Tensor).cpu()


def _rgb(image: Tensor) -> Tensor:
    """Convert any number of channels to three."""
    image = _plain(image)
    channels = image.shape[0]
    if channels == 3:
        return image
    if channels < 3:
        return image[:1].expand(3, -1, -1)
    return image[:3]


def _hatch_padding(image: Tensor, placement: Placement | None, factor: int) -> Tensor:
    """Replace what lies outside of the original image by grey stripes."""
    if placement is None:
        return image
    edges = []
    for axis in (0, 1):
        start = placement.offset[axis]
        end = start + placement.original_size[axis] * placement.scale[axis]
        edges.append((round(start) * factor, round(end) * factor))
    height, width = image.shape[-2:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    (top, bottom), (left, right) = edges
    outside = (rows < top) | (rows >= bottom) | (columns < left) | (columns >= right)
    period = max(8, max(height, width) // 32)
    striped = torch.where((rows + columns) % period < period // 4, 205, 235).to(torch.uint8)
    return torch.where(outside, striped, image)


def _draw(layers: Layers, taxonomy: Taxonomy, min_side: int, placement: Placement | None) -> Tensor:
    size = layers.image.shape[:2]
    for name, plane in (("semantic", layers.semantic), ("instance", layers.instances)):
        if plane is not None and plane.shape != size:
            raise ValueError(f"the {name} map is {list(plane.shape)}, the image {list(size)}")
    factor = enlargement(size, min_side)
    layers = enlarged(layers, factor)
    tints = torch.from_numpy(tinted(layers, taxonomy)).permute(2, 0, 1).contiguous()
    canvas = to_pil_image(_hatch_padding(tints, placement, factor))
    draw_boxes(canvas, layers, taxonomy.detection_categories)
    drawn: Tensor = pil_to_tensor(canvas)
    return drawn


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """Return an image of any number of channels as uint8 [H, W, 3]."""
    pixels: NDArray[np.uint8] = _rgb(image).permute(1, 2, 0).numpy()
    return pixels


def _array(plane: Tensor | None) -> NDArray[Any] | None:
    return None if plane is None else _plain(plane).numpy()
