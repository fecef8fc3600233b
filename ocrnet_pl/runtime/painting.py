"""Pictures of results: tints, outlines, boxes, names and scores over an image, with numpy and Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ocrnet_pl.colors import RGB
from ocrnet_pl.taxonomy import IGNORE_INDEX, Category, Taxonomy

INK: RGB = (32, 33, 36)
PAPER: RGB = (255, 255, 255)
_STUFF_ALPHA = 0.35
_THING_ALPHA = 0.45
_CROWDED = 30
"""Number of boxes above which an image has no label texts."""
_SMALL = 28
"""Boxes whose typical side is shorter than this many drawn pixels have no label texts."""
_LONGEST = 10_000
"""Side in pixels to which images may be enlarged."""
_CROWD_COLOR: RGB = (150, 150, 150)


@dataclass
class Layers:
    """What is drawn over an image; all layers have the same size.

    Attributes:
        image: uint8 [H, W, 3].
        semantic: Integers [H, W] of segmentation classes, 255 = none; None for no map.
        instances: Integers [H, W], the row of a drawn box plus one, 0 = none; None for no map.
        boxes: float32 [N, 4], xyxy in pixels, best first.
        labels: Detection class of each box.
        texts: What stands at each box.
        crowd: Whether each box is a crowd, which is grey.
    """

    image: NDArray[np.uint8]
    semantic: NDArray[Any] | None
    instances: NDArray[Any] | None
    boxes: NDArray[np.float32]
    labels: list[int]
    texts: list[str]
    crowd: list[bool]


def kept_layers(
    image: NDArray[np.uint8],
    semantic: NDArray[Any] | None,
    instances: NDArray[Any] | None,
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    tracks: NDArray[np.int64] | None,
    threshold: float,
    taxonomy: Taxonomy,
) -> Layers:
    """Return what is drawn of a prediction.

    Args:
        image: uint8 [H, W, 3].
        semantic: Integers [H, W] of segmentation classes; None for no map.
        instances: Integers [H, W], the row of a box plus one, 0 = none; None for no map.
        boxes: float32 [N, 4], xyxy in pixels, best first.
        scores: float32 [N], 0 to 1.
        labels: int64 [N], detection classes.
        tracks: int64 [N], numbers of followed objects, 0 = none; None if they are not followed.
        threshold: Score below which boxes are left out, 0 to 1.
        taxonomy: The categories with their names.
    """
    # A threshold out of a tensor does not compare with an array.
    kept = scores >= float(threshold)
    rows = np.flatnonzero(kept).tolist()
    if instances is not None:
        # Numbers of the boxes that are drawn, zero for the others.
        numbers = np.concatenate((np.zeros(1, np.int64), np.where(kept, kept.cumsum(), 0)))
        instances = numbers[instances]
    of_rows = [int(labels[row]) for row in rows]
    followed = [0] * len(scores) if tracks is None else tracks.tolist()
    texts = [
        f"{taxonomy.detection_categories[label].name}{f' #{followed[row]}' if followed[row] else ''} "
        f"{float(scores[row]):.2f}"
        for row, label in zip(rows, of_rows, strict=True)
    ]
    return Layers(image, semantic, instances, boxes[kept], of_rows, texts, [False] * len(rows))


def enlargement(size: Sequence[int], min_side: int) -> int:
    """Return the whole factor that makes the longer side of an image of this size at least ``min_side`` pixels.

    Raises:
        ValueError: ``min_side`` is no number of pixels from 0 to 10,000.
    """
    if not isinstance(min_side, int) or not 0 <= min_side <= _LONGEST:
        raise ValueError(f"min_side: expected a number of pixels from 0 to {_LONGEST}, got {min_side!r}")
    return max(1, math.ceil(min_side / max(size)))


def enlarged(layers: Layers, factor: int) -> Layers:
    """Return layers whose sides are a whole number of times as long."""
    if factor == 1:
        return layers
    height, width = layers.image.shape[:2]
    image = Image.fromarray(layers.image).resize((width * factor, height * factor), Image.Resampling.BICUBIC)

    def repeated(plane: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if plane is None else plane.repeat(factor, 0).repeat(factor, 1)

    return replace(
        layers,
        image=np.asarray(image),
        semantic=repeated(layers.semantic),
        instances=repeated(layers.instances),
        boxes=layers.boxes * factor,
    )


def class_colors(taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Return the color of each value of a semantic map, uint8 [256, 3]; ignored pixels are black."""
    table = np.zeros((IGNORE_INDEX + 1, 3), np.uint8)
    for index, category in enumerate(taxonomy.semantic_categories):
        table[index] = category.color
    return table


def untinted(taxonomy: Taxonomy) -> set[int]:
    """Return a single stuff class: it is the background, and a tint would only dull the image."""
    stuff = {index for index, category in enumerate(taxonomy.semantic_categories) if not category.is_thing}
    return stuff if len(stuff) == 1 else set()


def shade(color: RGB, number: int) -> RGB:
    """Return a lighter or darker color, so that touching instances can be told apart."""
    # Multiples of the golden ratio are spread evenly, however many there are.
    shift = ((number * 0.618033988749895) % 1.0 - 0.5) * 0.7
    if shift >= 0:
        red, green, blue = (round(c + (255 - c) * shift) for c in color)
    else:
        red, green, blue = (round(c * (1 + shift)) for c in color)
    return red, green, blue


def tinted(layers: Layers, taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Blend the classes' and the instances' colors over the image, and outline the instances.

    Args:
        layers: The layers.
        taxonomy: The categories with their colors.

    Returns:
        uint8 [H, W, 3].
    """
    height, width = layers.image.shape[:2]
    # What a pixel gets depends only on its kind: its class or, in an instance, the row of the box, inside or outline.
    kinds = np.full((height, width), IGNORE_INDEX, np.int32)
    if layers.semantic is not None:
        kinds[:] = layers.semantic
    color = class_colors(taxonomy).astype(np.float32)
    alpha = np.zeros(len(color), np.float32)
    # Pixels of a thing that belong to no drawn instance are tinted like stuff.
    alpha[: taxonomy.num_semantic] = _STUFF_ALPHA
    alpha[list(untinted(taxonomy))] = 0
    if layers.instances is not None and layers.labels:
        categories = taxonomy.detection_categories
        inside = np.array(
            [(0, 0, 0), *(shade(categories[label].color, row) for row, label in enumerate(layers.labels))], np.float32
        )
        pale = inside + (255 - inside) * np.float32(0.35)
        of_instance = (layers.instances + len(color)).astype(np.int32)
        # Of a long thin image, not so wide that it would take forever.
        line = max(1, min(round(max(height, width) / 400), min(height, width) // 16))
        of_instance[_outline(layers.instances, line)] += len(inside)
        np.copyto(kinds, of_instance, where=layers.instances > 0)
        color = np.concatenate((color, inside, pale))
        alpha = np.concatenate((alpha, np.repeat(np.array([_THING_ALPHA, 0.95], np.float32), len(inside))))
    blended: NDArray[np.float32] = layers.image * (1 - alpha).take(kinds)[..., None]
    blended += (color * alpha[:, None]).take(kinds, 0)
    return np.rint(blended, out=blended).astype(np.uint8)


def _outline(instances: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Return the pixels of instances that have a neighbor outside within ``width`` pixels, bool [H, W]."""
    differs = np.zeros(instances.shape, bool)
    for step in range(1, width + 1):
        across = instances[:, step:] != instances[:, :-step]
        differs[:, step:] |= across
        differs[:, :-step] |= across
        down = instances[step:] != instances[:-step]
        differs[step:] |= down
        differs[:-step] |= down
    return differs & (instances > 0)


def draw_boxes(canvas: Image.Image, layers: Layers, categories: Sequence[Category]) -> None:
    """Draw the boxes with their texts, of which those that find no room, or stand in a crowd, are left out.

    Args:
        canvas: The picture to draw on.
        layers: The layers.
        categories: The detection classes.
    """
    if not layers.labels:
        return
    draw = ImageDraw.Draw(canvas)
    longest = max(canvas.size)
    sides = np.sort((layers.boxes[:, 2:] - layers.boxes[:, :2]).min(1))
    crowded = len(layers.labels) > _CROWDED or float(sides[(len(sides) - 1) // 2]) < _SMALL
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
    font = load_font(max(11, round(longest / 48)))
    taken: list[tuple[float, float, float, float]] = []
    for box, label, text, is_crowd in rows:
        color = _CROWD_COLOR if is_crowd else categories[label].color
        place = _label_place(draw, text, font, box, canvas.size, taken)
        if place is None:
            continue
        taken.append(place)
        draw.rectangle(place, fill=color)
        draw.text((place[0] + 3, place[1] + 1), text, fill=_readable_on(color), font=font)


def load_font(size: int) -> Any:
    """Return the font of all texts.

    Args:
        size: Its height in pixels.
    """
    return ImageFont.load_default(size)


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
    return INK if luminance > 140 else PAPER
