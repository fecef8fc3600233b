"""labelme: one JSON of shapes for each image."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from os import PathLike
from os.path import join
from typing import Any, Literal

import numpy as np

from ocrnet_pl.data.readers.drawings import Bitmap, Drawings, Labels, Shape, ellipse, flat_points
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields, read_json
from ocrnet_pl.data.readers.values import as_whole, is_text, shown
from ocrnet_pl.data.sources.drawn import DrawnSource
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.image_files import Encoded
from ocrnet_pl.imaging.maps import read_map
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES

_OUTLINES = ("polygon", "rotation", "oriented_rectangle", "quadrilateral")
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_MOST_SIDE = 1 << 16


class Labelme(DrawnSource):
    """JSON files of labelme, AnyLabeling and X-AnyLabeling.

    Polygons, circles and masks are objects with a mask, rectangles are boxes, and shapes with the same label and
    ``group_id`` are one object. Points and lines have no area: they are left out, and the check names them. An image
    without a JSON was not labelled and is left out; one whose JSON has no shapes has no objects.

    Args:
        images: Folder of the images.
        classes: Names of the detection classes, in order; null for all labels that are found, in alphabetical order.
        annotations: Folder of the JSON files, in folders like those of the images; null for that of the images.
        stuff: Labels of regions that have pixels, but are no objects, such as road or soil.
        ignored: Labels of regions whose pixels are ignored.
        others: What a shape of any other label is: "refuse" ends the run, "ignore" leaves it out.
        semantic: Whether semantic maps are made of the shapes.
        background: Name of the segmentation class of the pixels in no shape; null ignores them.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing or malformed, or a label is unknown.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        classes: Sequence[str] | None = None,
        annotations: str | PathLike[str] | None = None,
        stuff: Sequence[str] = (),
        ignored: Sequence[str] = ("__ignore__",),
        others: Literal["refuse", "ignore"] = "refuse",
        semantic: bool = True,
        background: str | None = "background",
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        labels = Labels(classes, list(stuff), list(ignored), others)
        labels.check("Labelme")
        pictures = FolderIndex(join(root, images), "images")
        listing = pictures if annotations is None else FolderIndex(join(root, annotations), "JSON files")
        drawings = Drawings(labels, "shapes[{}]")
        stems = pictures.by_stem(IMAGE_SUFFIXES)
        owners: dict[str, str] = {}
        for name in listing.walk((".json",)):
            file = join(listing.root, name)
            content = read_json(file)
            if "shapes" not in content:
                continue  # another tool's file beside these
            image = _image_of(name, content, stems, pictures, file)
            if owners.setdefault(image, file) != file:
                raise DataError.at(file, f"its image {image!r} has another JSON, {owners[image]}", advice="remove one")
            size, shapes = read_labelme(content, file)
            drawings.add(image, size, shapes, file)
        self._use(
            drawings,
            labels,
            folder=pictures.root,
            semantic=semantic,
            background=background,
            channels=channels,
            place=listing.root,
        )


def read_labelme(content: dict[str, Any], file: str) -> tuple[tuple[int, int] | None, list[Shape]]:
    """Return the (height, width) of an image, None if the file does not say, and its shapes.

    Args:
        content: The JSON.
        file: Its path, for messages.

    Raises:
        DataError: A field is missing or wrong.
    """
    fields = Fields(file)
    size = as_whole(content.get("imageHeight")), as_whole(content.get("imageWidth"))
    known = size[0] is not None and size[1] is not None and 0 < size[0] < _MOST_SIDE and 0 < size[1] < _MOST_SIDE
    shapes: list[Shape] = []
    for number, item in enumerate(fields.objects(content, "shapes")):
        where = f"shapes[{number}]"
        label = fields.text(item, where, "label").strip()
        if not label:
            raise fields.error(f"{where}.label", "it is empty", "name the object")
        group = item.get("group_id")
        if not isinstance(group, int | str) or isinstance(group, bool):
            group = None
        shape = _shape(item, fields, where)
        crowd = item.get("difficult") is True
        shapes.append(shape._replace(label=label, number=number, crowd=crowd, group=group))
    return ((int(size[0] or 0), int(size[1] or 0)) if known else None), shapes


def _shape(item: dict[str, Any], fields: Fields, where: str) -> Shape:
    kind = item.get("shape_type") or "polygon"

    def fail(problem: str, advice: str) -> DataError:
        return fields.error(f"{where}.points", problem, advice)

    flat = flat_points(item.get("points"), fail)
    columns, rows = flat[::2], flat[1::2]
    if not flat:
        raise fail("there is no point", "draw the shape again, or remove it")
    bare = Shape("", 0)
    if kind in _OUTLINES:
        return bare._replace(polygons=(flat,))
    if kind in _WITHOUT_AREA:
        return bare._replace(box=(flat[0], flat[1], flat[0], flat[1]))
    if kind == "rectangle" and len(flat) in (4, 8):
        return bare._replace(box=(min(columns), min(rows), max(columns), max(rows)))
    if kind == "circle" and len(flat) == 4:
        radius = float(np.hypot(flat[2] - flat[0], flat[3] - flat[1]))
        x, y = flat[0], flat[1]
        return bare._replace(
            box=(x - radius, y - radius, x + radius, y + radius), polygons=(ellipse(x, y, radius, radius),)
        )
    if kind == "mask" and len(flat) == 4:
        pixels = read_map(Encoded(_decoded(item.get("mask"), fields, f"{where}.mask"), f"{fields.path}: {where}.mask"))
        drawn = pixels.pixels if pixels.pixels.ndim == 2 else pixels.pixels[..., 0]
        return bare._replace(bitmap=Bitmap(round(min(columns)), round(min(rows)), drawn > 0))
    raise fields.error(
        f"{where}.shape_type", f"no shape {shown(kind)} of {len(flat) // 2} points is read", "draw a polygon instead"
    )


def _decoded(text: Any, fields: Fields, where: str) -> bytes:
    if is_text(text):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise fields.error(where, f"expected a PNG in base64, found {shown(text)}", "export it again")


def _image_of(name: str, content: dict[str, Any], stems: dict[str, str], pictures: FolderIndex, file: str) -> str:
    """Return the image that a JSON belongs to: that of its name, or else the one that it names."""
    found = stems.get(os.path.splitext(name)[0])
    if found is not None:
        return found
    given = content.get("imagePath")

    def fail(problem: str, advice: str) -> DataError:
        return DataError.at(file, problem, field="imagePath", advice=advice)

    if not is_text(given):
        raise fail(f"there is no image of its name in {pictures.root}", "set `images`")
    # It starts from the folder of the JSON.
    forward = given.replace("\\", "/")
    beside = os.path.relpath(os.path.join(os.path.dirname(file), forward), pictures.root)
    known = set(stems.values())
    for candidate in (beside, os.path.join(os.path.dirname(name), os.path.basename(forward))):
        if candidate in known:
            return candidate
    return pictures.find(given, fail)
