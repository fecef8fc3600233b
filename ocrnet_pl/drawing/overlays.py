"""Drawing: images with boxes, masks and labels, as uint8 tensors; curves and matrices, as PNG files.

Nothing here changes its arguments or depends on a display.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from ocrnet_pl.colors import RGB
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import IGNORE_INDEX, Category, Placement, Prediction, Sample, Taxonomy

_STUFF_ALPHA = 0.35
_THING_ALPHA = 0.45
_CROWDED = 30
"""Number of boxes above which an image has no label texts."""
_SMALL = 28
"""Boxes whose typical side is shorter than this many drawn pixels have no label texts."""
_MARGIN = 12
_INK: RGB = (32, 33, 36)
_PAPER: RGB = (255, 255, 255)
_CROWD_COLOR: RGB = (150, 150, 150)


@dataclass
class _Layers:
    """What is drawn over an image; all layers have the same size."""

    image: Tensor
    semantic: Tensor | None
    instances: Tensor | None
    boxes: Tensor
    labels: list[int]
    texts: list[str]
    crowd: list[bool]
    placement: Placement | None = None
    """Position of the original image; what lies outside is padding."""


def semantic_to_rgb(semantic: Tensor, taxonomy: Taxonomy) -> Tensor:
    """Return a semantic map [H, W] in the taxonomy's colors, uint8 [3, H, W]; ignored pixels are black."""
    table = torch.zeros(256, 3, dtype=torch.uint8)
    for index, category in enumerate(taxonomy.semantic_categories):
        table[index] = torch.tensor(category.color, dtype=torch.uint8)
    return table[_plain(semantic).long()].permute(2, 0, 1).contiguous()


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
        color = _shade(category.color, segment.id) if category.is_thing else category.color
        table[segment.id] = torch.tensor(color, dtype=torch.uint8)
    colored = table[_plain(prediction.panoptic).long()].permute(2, 0, 1)
    factor = _factor(colored.shape[-2:], min_side)
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
    kept = (prediction.scores >= threshold).cpu()
    rows = kept.nonzero()[:, 0].tolist()
    instances = prediction.instances
    if instances is not None:
        # Numbers of the boxes that are drawn, zero for the others.
        numbers = torch.cat((torch.zeros(1, dtype=torch.long), torch.where(kept, kept.cumsum(0), 0)))
        instances = numbers[_plain(instances).long()]
    labels = [int(prediction.labels[row]) for row in rows]
    tracks = [0] * len(prediction.scores) if prediction.tracks is None else prediction.tracks.tolist()
    texts = [
        f"{taxonomy.detection_categories[label].name}{f' #{tracks[row]}' if tracks[row] else ''} "
        f"{float(prediction.scores[row]):.2f}"
        for row, label in zip(rows, labels, strict=True)
    ]
    boxes = _plain(prediction.boxes).float()[kept]
    layers = _Layers(image, prediction.semantic, instances, boxes, labels, texts, [False] * len(rows), placement)
    return _draw(layers, taxonomy, min_side)


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
    boxes = _plain(sample.boxes).float()
    layers = _Layers(sample.image, sample.semantic, sample.instances, boxes, labels, texts, crowd, sample.placement)
    return _draw(layers, taxonomy, min_side)


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
    font = _font(font_size)
    header = font_size + _MARGIN
    width = sum(image.shape[-1] for image in images) + _MARGIN * (len(images) + 1)
    height = max(image.shape[-2] for image in images) + header + 2 * _MARGIN
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    x = _MARGIN
    for image, title in zip(images, titles, strict=True):
        draw.text((x, _MARGIN), title, fill=_INK, font=font)
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
    font, width = _font(font_size), image.shape[-1]
    places, height = _legend_places(legend, font, font_size, width)
    strip = Image.new("RGB", (width, _MARGIN // 2 + height), _PAPER)
    draw = ImageDraw.Draw(strip)
    for category, (left, top) in zip(legend, places, strict=True):
        top += _MARGIN // 2
        draw.rectangle((left, top, left + font_size, top + font_size), fill=category.color, outline=_INK)
        draw.text((left + font_size + _MARGIN // 2, top - 1), category.name, fill=_INK, font=font)
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
    pixels -= _untinted(taxonomy)
    return [c for c in taxonomy.categories if c.detection in labels or c.semantic in pixels]


def _untinted(taxonomy: Taxonomy) -> set[int]:
    """Return a single stuff class: it is the background, and a tint would only dull the image."""
    stuff = {index for index, category in enumerate(taxonomy.semantic_categories) if not category.is_thing}
    return stuff if len(stuff) == 1 else set()


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
        to_pil_image(_plain(image)).save(unfinished, format="PNG")


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


def _shade(color: RGB, number: int) -> RGB:
    """Return a lighter or darker color, so that touching instances can be told apart."""
    # Multiples of the golden ratio are spread evenly, however many there are.
    shift = ((number * 0.618033988749895) % 1.0 - 0.5) * 0.7
    if shift >= 0:
        red, green, blue = (round(c + (255 - c) * shift) for c in color)
    else:
        red, green, blue = (round(c * (1 + shift)) for c in color)
    return red, green, blue


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _factor(size: Sequence[int], min_side: int) -> int:
    return max(1, math.ceil(min_side / max(size)))


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


def _enlarge(layers: _Layers, factor: int) -> _Layers:
    if factor == 1:
        return layers
    size = [layers.image.shape[-2] * factor, layers.image.shape[-1] * factor]
    image = F.interpolate(layers.image[None].float(), size, mode="bicubic")[0].round().clamp(0, 255).to(torch.uint8)

    def repeated(plane: Tensor | None) -> Tensor | None:
        return None if plane is None else plane.repeat_interleave(factor, 0).repeat_interleave(factor, 1)

    return replace(
        layers,
        image=image,
        semantic=repeated(layers.semantic),
        instances=repeated(layers.instances),
        boxes=layers.boxes * factor,
    )


def _draw(layers: _Layers, taxonomy: Taxonomy, min_side: int) -> Tensor:
    size = layers.image.shape[-2:]
    for name, plane in (("semantic", layers.semantic), ("instance", layers.instances)):
        if plane is not None and plane.shape != size:
            raise ValueError(f"the {name} map is {list(plane.shape)}, the image {list(size)}")
    layers = replace(
        layers,
        image=_rgb(layers.image),
        semantic=None if layers.semantic is None else _plain(layers.semantic).long(),
        instances=None if layers.instances is None else _plain(layers.instances).long(),
    )
    factor = _factor(size, min_side)
    layers = _enlarge(layers, factor)
    canvas = to_pil_image(_hatch_padding(_tint(layers, taxonomy), layers.placement, factor))
    _draw_boxes(canvas, layers, taxonomy.detection_categories)
    drawn: Tensor = pil_to_tensor(canvas)
    return drawn


def _tint(layers: _Layers, taxonomy: Taxonomy) -> Tensor:
    """Blend the classes' and the instances' colors over the image, and outline the instances."""
    height, width = layers.image.shape[-2:]
    color = torch.zeros(height, width, 3)
    alpha = torch.zeros(height, width, 1)
    if layers.semantic is not None:
        color = semantic_to_rgb(layers.semantic, taxonomy).permute(1, 2, 0).float()
        strength = torch.zeros(IGNORE_INDEX + 1)
        # Pixels of a thing that belong to no drawn instance are tinted like stuff.
        strength[: taxonomy.num_semantic] = _STUFF_ALPHA
        strength[list(_untinted(taxonomy))] = 0
        alpha = strength[layers.semantic][..., None]
    if layers.instances is not None and layers.labels:
        categories = taxonomy.detection_categories
        shades = [_shade(categories[label].color, row) for row, label in enumerate(layers.labels)]
        table = torch.tensor([(0, 0, 0), *shades], dtype=torch.float32)
        inside = (layers.instances > 0)[..., None]
        color = torch.where(inside, table[layers.instances], color)
        alpha = torch.where(inside, _THING_ALPHA, alpha)
        outline = _outline(layers.instances, max(1, round(max(height, width) / 400)))[..., None]
        pale = table + (255 - table) * 0.35
        color = torch.where(outline, pale[layers.instances], color)
        alpha = torch.where(outline, 0.95, alpha)
    blended = layers.image.permute(1, 2, 0).float() * (1 - alpha) + color * alpha
    return blended.round().clamp(0, 255).to(torch.uint8).permute(2, 0, 1).contiguous()


def _outline(instances: Tensor, width: int) -> Tensor:
    """Return the pixels of instances that have a neighbor outside within ``width`` pixels, bool [H, W]."""
    differs = torch.zeros_like(instances, dtype=torch.bool)
    for step in range(1, width + 1):
        across = instances[:, step:] != instances[:, :-step]
        differs[:, step:] |= across
        differs[:, :-step] |= across
        down = instances[step:] != instances[:-step]
        differs[step:] |= down
        differs[:-step] |= down
    return differs & (instances > 0)


def _draw_boxes(canvas: Image.Image, layers: _Layers, categories: Sequence[Category]) -> None:
    if not layers.labels:
        return
    draw = ImageDraw.Draw(canvas)
    longest = max(canvas.size)
    sides = (layers.boxes[:, 2:] - layers.boxes[:, :2]).amin(1)
    crowded = len(layers.labels) > _CROWDED or float(sides.median()) < _SMALL
    width = 1 if crowded else max(1, round(longest / 350))
    rows = list(zip(layers.boxes.tolist(), layers.labels, layers.texts, layers.crowd, strict=True))
    # The best boxes come first; they are drawn last, on top.
    for box, label, _, is_crowd in reversed(rows):
        color = _CROWD_COLOR if is_crowd else categories[label].color
        # Pixel j covers [j, j + 1): the last pixel inside ends at the box's edge.
        x1, y1, x2, y2 = (round(v) for v in box)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=width)
    if crowded:
        return
    font = _font(max(11, round(longest / 48)))
    taken: list[tuple[float, float, float, float]] = []
    for box, label, text, is_crowd in rows:
        color = _CROWD_COLOR if is_crowd else categories[label].color
        place = _label_place(draw, text, font, box, canvas.size, taken)
        if place is None:
            continue
        taken.append(place)
        draw.rectangle(place, fill=color)
        draw.text((place[0] + 3, place[1] + 1), text, fill=_readable_on(color), font=font)


def _label_place(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: Any,
    box: list[float],
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float] | None:
    """Return a free rectangle for a label above, in or below its box; None if there is none."""
    left, _, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom + 3
    x = min(max(0.0, box[0]), max(0.0, size[0] - width))
    for y in (box[1] - height, box[1], box[3] - height, box[3]):
        if 0 <= y <= size[1] - height:
            place = (x, y, x + width, y + height)
            if not any(place[0] < t[2] and t[0] < place[2] and place[1] < t[3] and t[1] < place[3] for t in taken):
                return place
    return None


def _readable_on(color: RGB) -> RGB:
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    return _INK if luminance > 140 else _PAPER
