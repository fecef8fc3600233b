"""CVAT for images: one XML file of all images and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from os.path import join
from typing import Literal
from xml.etree.ElementTree import Element

import numpy as np

from ocrnet_pl.data.readers.drawings import Bitmap, Drawings, Labels, Shape, ellipse, turned_box
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.values import as_flag, as_number, as_whole, shown
from ocrnet_pl.data.readers.xml_files import XmlFields, read_xml
from ocrnet_pl.data.sources.drawn import DrawnSource
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import MAX_PIXELS

_MOST_BYTES = 1 << 30
_MOST_ELEMENTS = 3_000_000
"""An element takes about a kilobyte of memory."""

_WITHOUT_AREA = ("points", "polyline", "skeleton", "cuboid", "tag")
_FLAG = "iscrowd"


class CvatImages(DrawnSource):
    """The export "CVAT for images 1.1".

    Polygons, ellipses and masks are objects with a mask, boxes are boxes (a turned one has its outline as mask), and
    shapes with the same label and group are one object. Points, lines, skeletons and cuboids are left out. An image
    without shapes has no objects. A shape with an attribute ``iscrowd`` that says yes is a crowd.

    Args:
        images: Folder of the images.
        annotations: Path of the XML file.
        classes: Names of the detection classes, in order; null for the labels of the file, in their order there,
            without those that are regions.
        subset: Name of the subset to read, such as Train; null for all images.
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
        annotations: str | PathLike[str] = "annotations.xml",
        classes: Sequence[str] | None = None,
        subset: str | None = None,
        stuff: Sequence[str] = (),
        ignored: Sequence[str] = (),
        others: Literal["refuse", "ignore"] = "refuse",
        semantic: bool = True,
        background: str | None = "background",
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        file = join(root, annotations)
        fields = XmlFields(file)
        content = read_xml(file, most=_MOST_BYTES, elements=_MOST_ELEMENTS)
        if classes is None:
            apart = {*stuff, *ignored, background}
            declared = [(name.text or "").strip() for name in content.findall("./meta//label/name")]
            classes = [name for name in dict.fromkeys(declared) if name and name not in apart] or None
        labels = Labels(classes, list(stuff), list(ignored), others)
        labels.check("CvatImages")
        pictures = FolderIndex(join(root, images), "images")
        drawings = Drawings(labels, "shape {}")
        taken: set[str] = set()
        for number, image in enumerate(content.findall("image")):
            if subset is not None and image.get("subset") != subset:
                continue
            place = f"image {number}"

            def fail(problem: str, advice: str, place: str = place) -> DataError:
                return fields.error(place, problem, advice)

            name = image.get("name") or ""
            if not name:
                raise fail("it has no name", "export it again")
            found = pictures.find(name, fail)
            if found in taken:
                raise fail(f"{found!r:.200} occurs more than once", "export the tasks one by one, or set `subset`")
            taken.add(found)
            size = (_whole(image, "height", fields, place), _whole(image, "width", fields, place))
            shapes = [
                shape
                for position, element in enumerate(image)
                if (shape := _shape(element, position, size, fields, f"{place}: shape {position}")) is not None
            ]
            drawings.add(found, size, shapes, file, place)
        if not taken and subset is not None:
            given = sorted({str(image.get("subset")) for image in content.findall("image")})
            raise fields.error("subset", f"no image is of {subset!r}", f"the file has {', '.join(given):.200}")
        self._use(
            drawings,
            labels,
            folder=pictures.root,
            semantic=semantic,
            background=background,
            channels=channels,
            place=file,
        )


def _shape(element: Element, number: int, size: tuple[int, int], fields: XmlFields, where: str) -> Shape | None:
    """Return a shape; None for one without area."""
    kind = element.tag
    if kind in _WITHOUT_AREA:
        return None
    label = (element.get("label") or "").strip()
    if not label:
        raise fields.error(where, "it has no label", "export it again")
    group = as_whole(element.get("group_id"))
    shape = Shape(label, number, crowd=_is_crowd(element), group=group or None)
    turn = _number(element, "rotation", fields, where) if element.get("rotation") else 0.0
    if kind == "box":
        x1, y1, x2, y2 = (_number(element, key, fields, where) for key in ("xtl", "ytl", "xbr", "ybr"))
        if turn % 360 == 0:
            return shape._replace(box=(x1, y1, x2, y2))
        return shape._replace(polygons=(turned_box(x1, y1, x2 - x1, y2 - y1, turn, ((x1 + x2) / 2, (y1 + y2) / 2)),))
    if kind == "polygon":
        return shape._replace(polygons=(_points(element.get("points") or "", fields, where),))
    if kind == "ellipse":
        x, y, wide, tall = (_number(element, key, fields, where) for key in ("cx", "cy", "rx", "ry"))
        return shape._replace(polygons=(ellipse(x, y, wide, tall, turn),))
    if kind == "mask":
        return shape._replace(bitmap=_bitmap(element, size, fields, where))
    raise fields.error(where, f"no shape {shown(kind)} is read", "export it as another shape")


def _bitmap(element: Element, size: tuple[int, int], fields: XmlFields, where: str) -> Bitmap:
    """Return a mask: lengths of runs along the rows of its window, beginning with one that is empty."""
    left, top, width, height = (_whole(element, key, fields, where) for key in ("left", "top", "width", "height"))
    if width * height > MAX_PIXELS or left + width > size[1] or top + height > size[0]:
        raise fields.error(where, f"its window is outside of the image of {size[1]} x {size[0]}", "export it again")
    words = (element.get("rle") or "").split(",")
    runs = [as_whole(word.strip()) for word in words]
    lengths = [run for run in runs if run is not None and 0 <= run <= width * height]
    if len(lengths) < len(runs) or sum(lengths) != width * height:
        raise fields.error(f"{where}: rle", f"its runs do not add up to {width} x {height} pixels", "export it again")
    values = np.arange(len(lengths)) % 2 == 1
    return Bitmap(left, top, np.repeat(values, lengths).reshape(height, width))


def _points(text: str, fields: XmlFields, where: str) -> list[float]:
    flat: list[float] = []
    for point in text.split(";"):
        pair = [as_number(word) for word in point.split(",")]
        if len(pair) != 2 or any(number is None for number in pair):
            raise fields.error(f"{where}: points", f"expected `x,y;x,y;...`, found {shown(point)}", "export it again")
        flat += [number for number in pair if number is not None]
    return flat


def _is_crowd(element: Element) -> bool:
    found = next((a.text for a in element.findall("attribute") if a.get("name") == _FLAG), None)
    return bool(as_flag(found))


def _number(element: Element, key: str, fields: XmlFields, where: str) -> float:
    value = as_number(element.get(key))
    if value is None:
        raise fields.error(f"{where}: {key}", f"expected a number, found {shown(element.get(key))}", "export it again")
    return value


def _whole(element: Element, key: str, fields: XmlFields, where: str) -> int:
    value = as_whole(element.get(key))
    if value is None or not 0 <= value < 1 << 31:
        text = f"expected a whole number from 0, found {shown(element.get(key))}"
        raise fields.error(f"{where}: {key}", text, "export it again")
    return value
