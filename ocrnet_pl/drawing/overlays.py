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

from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import IGNORE_INDEX, Category, Prediction, Sample, Taxonomy

RGB = tuple[int, int, int]

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
_MAX_SHOWN_CLASSES = 40


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


def semantic_to_rgb(semantic: Tensor, taxonomy: Taxonomy) -> Tensor:
    """Return a semantic map [H, W] in the taxonomy's colors, uint8 [3, H, W]; ignored pixels are black."""
    table = torch.zeros(256, 3, dtype=torch.uint8)
    for index, category in enumerate(taxonomy.semantic_categories):
        table[index] = torch.tensor(category.color, dtype=torch.uint8)
    return table[_plain(semantic).long()].permute(2, 0, 1).contiguous()


def panoptic_to_rgb(prediction: Prediction, taxonomy: Taxonomy) -> Tensor:
    """Return a panoptic map in the taxonomy's colors, with a different shade for each instance, uint8 [3, H, W].

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
    return table[_plain(prediction.panoptic).long()].permute(2, 0, 1).contiguous()


def draw_prediction(
    image: Tensor, prediction: Prediction, taxonomy: Taxonomy, *, threshold: float = 0.3, min_side: int = 512
) -> Tensor:
    """Draw a prediction over its image: classes as tints, instances with outlines, boxes with names and scores.

    Args:
        image: uint8 [C, H, W].
        prediction: The prediction, in the frame of the image.
        taxonomy: The categories with their names and colors.
        threshold: Score below which boxes are left out, 0 to 1.
        min_side: Length in pixels of the longer side up to which a smaller image is enlarged, by a whole factor; 0
            keeps the size.

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
    texts = [
        f"{taxonomy.detection_categories[label].name} {float(prediction.scores[row]):.2f}"
        for row, label in zip(rows, labels, strict=True)
    ]
    boxes = _plain(prediction.boxes).float()[kept]
    layers = _Layers(image, prediction.semantic, instances, boxes, labels, texts, [False] * len(rows))
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
    layers = _Layers(sample.image, sample.semantic, sample.instances, boxes, labels, texts, crowd)
    return _draw(layers, taxonomy, min_side)


def panel(images: Sequence[Tensor], titles: Sequence[str]) -> Tensor:
    """Place images next to each other on white, each under its title.

    Args:
        images: One uint8 tensor [3, H, W] per image.
        titles: One title per image.

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
    return drawn


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
    longest = max(size)
    layers = _enlarge(layers, max(1, math.ceil(min_side / longest)))
    canvas = to_pil_image(_tint(layers, taxonomy))
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
        stuff = [index for index, category in enumerate(taxonomy.semantic_categories) if not category.is_thing]
        if len(stuff) == 1:
            # A single stuff class is the background: a tint would only dull the image.
            strength[stuff] = 0
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
