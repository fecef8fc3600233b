"""VGG Image Annotator: one JSON of all images and regions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from os import PathLike
from os.path import join
from typing import Any, Literal, NamedTuple

from ocrnet_pl.data.readers.drawings import Drawings, Labels, Shape, ellipse, flat_points
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields, read_json
from ocrnet_pl.data.readers.values import as_flag, as_number, is_text, shown
from ocrnet_pl.data.sources.drawn import DrawnSource
from ocrnet_pl.errors import DataError

_WITHOUT_AREA = ("point", "polyline", "line")
_SHAPES_OF_3 = {1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon"}
_OBJECT = "object"


class _Region(NamedTuple):
    """A region as it is in the file: its number, its shape's name and numbers, and its attributes."""

    number: int
    name: Any
    values: dict[str, Any]
    attributes: dict[str, Any]


class Via(DrawnSource):
    """Projects and JSON exports of the VGG Image Annotator, versions 1 to 3.

    Polygons, circles and ellipses are objects with a mask, rectangles are boxes; points and lines are left out. An
    image of the file without regions has no objects.

    Args:
        images: Folder of the images.
        annotations: Path of the JSON, a project or an export of the annotations.
        attribute: Name of the region attribute that has the class; null for the only one. Without any attribute, all
            regions are of one class, which ``classes`` names.
        classes: Names of the detection classes, in order; null for all values that are found, in alphabetical order.
        stuff: Values of regions that have pixels, but are no objects, such as road or soil.
        ignored: Values of regions whose pixels are ignored.
        others: What a region of any other value is: "refuse" ends the run, "ignore" leaves it out.
        empty_are_labelled: Whether an image without regions has no objects; otherwise it is left out.
        semantic: Whether semantic maps are made of the regions.
        background: Name of the segmentation class of the pixels in no region; null ignores them.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing or malformed, or a class is unknown.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        annotations: str | PathLike[str],
        attribute: str | None = None,
        classes: Sequence[str] | None = None,
        stuff: Sequence[str] = (),
        ignored: Sequence[str] = (),
        others: Literal["refuse", "ignore"] = "refuse",
        empty_are_labelled: bool = True,
        semantic: bool = True,
        background: str | None = "background",
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        labels = Labels(classes, list(stuff), list(ignored), others)
        labels.check("Via")
        file = join(root, annotations)
        fields = Fields(file)
        content = read_json(file)
        pictures = FolderIndex(join(root, images), "images")
        entries = list(_of_version_3(content, fields) if "view" in content else _of_version_2(content, fields))
        if attribute is None:
            attribute = _only_attribute(entries, fields)
        only = None
        if attribute is None:
            only = _OBJECT if classes is None else classes[0] if len(classes) == 1 else None
            if only is None:
                raise fields.error("regions", "no region has an attribute", "give one name as `classes`")
        drawings = Drawings(labels, "region {}")
        taken: set[str] = set()
        for place, name, regions in entries:
            if not regions and not empty_are_labelled:
                continue

            def fail(problem: str, advice: str, place: str = place) -> DataError:
                return fields.error(place, problem, advice)

            found = pictures.find(name, fail)
            if found in taken:
                raise fail(f"{found!r:.200} occurs more than once", "remove one of the entries")
            taken.add(found)
            shapes = []
            for region in regions:
                where = f"{place}: region {region.number}"
                shape = _shape(region, fields, where)
                if shape is not None:
                    label = only or _label(region, attribute or "", fields, where)
                    shapes.append(shape._replace(label=label, number=region.number))
            drawings.add(found, None, shapes, file, place)
        self._use(
            drawings,
            labels,
            folder=pictures.root,
            semantic=semantic,
            background=background,
            channels=channels,
            place=file,
        )


def _of_version_2(content: dict[str, Any], fields: Fields) -> Iterator[tuple[str, str, list[_Region]]]:
    """Yield the place, the name and the regions of each image of a project or an export of version 1 or 2."""
    images = content.get("_via_img_metadata", content)
    if not isinstance(images, dict):
        raise fields.error("_via_img_metadata", f"expected an object, found {shown(images)}", "export it again")
    for number, image in enumerate(images.values()):
        place = f"image {number}"
        if not isinstance(image, dict) or "filename" not in image:
            raise fields.error(place, f"expected an object with a filename, found {shown(image)}", "is it a VIA file?")
        given = image.get("regions") or []
        if isinstance(given, dict):  # version 1
            given = list(given.values())
        if not isinstance(given, list):
            raise fields.error(f"{place}: regions", f"expected a list, found {shown(given)}", "export it again")
        regions = []
        for position, region in enumerate(given):
            shape = region.get("shape_attributes") if isinstance(region, dict) else None
            if not isinstance(shape, dict):
                raise fields.error(f"{place}: region {position}", "it has no shape_attributes", "export it again")
            attributes = region.get("region_attributes")
            regions.append(
                _Region(position, shape.get("name"), shape, attributes if isinstance(attributes, dict) else {})
            )
        yield place, fields.text(image, place, "filename"), regions


def _of_version_3(content: dict[str, Any], fields: Fields) -> Iterator[tuple[str, str, list[_Region]]]:
    """Yield the same of a project of version 3."""
    files, views, metadata = (content.get(key) for key in ("file", "view", "metadata"))
    if not isinstance(files, dict) or not isinstance(views, dict) or not isinstance(metadata, dict):
        raise fields.error("view", "`file`, `view` and `metadata` are not three objects", "export it again")
    regions: dict[str, list[_Region]] = {}
    declared = content.get("attribute")
    names = declared if isinstance(declared, dict) else {}
    for number, entry in enumerate(metadata.values()):
        place = f"metadata {number}"
        numbers = entry.get("xy") if isinstance(entry, dict) else None
        if not isinstance(numbers, list):
            raise fields.error(f"{place}: xy", f"expected a list of numbers, found {shown(numbers)}", "export it again")
        if not numbers:  # about the whole image
            continue
        kind = as_number(numbers[0])
        values = entry.get("av")
        attributes = {
            str(names[key].get("aname", key)) if isinstance(names.get(key), dict) else str(key): value
            for key, value in (values.items() if isinstance(values, dict) else ())
        }
        region = _Region(number, _SHAPES_OF_3.get(int(kind or 0), kind), {"xy": numbers[1:]}, attributes)
        regions.setdefault(str(entry.get("vid")), []).append(region)
    for number, (key, view) in enumerate(views.items()):
        place = f"view {number}"
        listed = view.get("fid_list") if isinstance(view, dict) else None
        file = files.get(str(listed[0])) if isinstance(listed, list) and len(listed) == 1 else None
        if not isinstance(file, dict):
            raise fields.error(f"{place}: fid_list", f"expected one image, found {shown(listed)}", "export it again")
        yield place, fields.text(file, place, "fname"), regions.get(str(key), [])


def _only_attribute(entries: Sequence[tuple[str, str, list[_Region]]], fields: Fields) -> str | None:
    """Return the name of the only attribute of all regions; None if there is none."""
    names = sorted({name for _, _, regions in entries for region in regions for name in region.attributes})
    if len(names) > 1:
        raise fields.error(
            "region_attributes", f"there are several: {', '.join(names):.200}", "name that of the class as `attribute`"
        )
    return names[0] if names else None


def _label(region: _Region, attribute: str, fields: Fields, where: str) -> str:
    value = region.attributes.get(attribute)
    if isinstance(value, dict):  # a group of boxes to tick
        ticked = [name for name, state in value.items() if as_flag(state)]
        value = ticked[0] if len(ticked) == 1 else value
    if not is_text(value) or not value.strip():
        raise fields.error(f"{where}: {attribute}", f"expected one class, found {shown(value)}", "label the region")
    return value.strip()


def _shape(region: _Region, fields: Fields, where: str) -> Shape | None:
    """Return a shape; None for one without area."""
    if region.name in _WITHOUT_AREA:
        return None
    bare = Shape("", 0)
    if region.name in ("polygon", "polyline"):
        return bare._replace(polygons=(_outline(region.values, fields, where),))
    keys = {
        "rect": ("x", "y", "width", "height"),
        "circle": ("cx", "cy", "r"),
        "ellipse": ("cx", "cy", "rx", "ry"),
    }.get(region.name if is_text(region.name) else "")
    if keys is None:
        raise fields.error(where, f"no shape {shown(region.name)} is read", "draw a polygon instead")
    given = region.values.get("xy", [region.values.get(key) for key in keys])
    numbers = [as_number(value) for value in given] if len(given) >= len(keys) else []
    if not numbers or any(number is None for number in numbers):
        raise fields.error(where, f"expected {', '.join(keys)}, found {shown(given)}", "draw it again")
    values = [float(number or 0) for number in numbers]
    if region.name == "rect":
        x, y, width, height = values[:4]
        return bare._replace(box=(x, y, x + width, y + height))
    if region.name == "circle":
        x, y, radius = values[:3]
        return bare._replace(polygons=(ellipse(x, y, radius, radius),))
    turn = as_number(region.values.get("theta")) or 0.0
    x, y, wide, tall = values[:4]
    return bare._replace(polygons=(ellipse(x, y, wide, tall, math.degrees(turn)),))


def _outline(values: dict[str, Any], fields: Fields, where: str) -> list[float]:
    def fail(problem: str, advice: str) -> DataError:
        return fields.error(where, problem, advice)

    if "xy" in values:
        pairs: Any = [values["xy"][i : i + 2] for i in range(0, len(values["xy"]), 2)]
    else:
        across, down = values.get("all_points_x"), values.get("all_points_y")
        if not isinstance(across, list) or not isinstance(down, list) or len(across) != len(down):
            raise fail("expected all_points_x and all_points_y of one length", "draw it again")
        pairs = [list(pair) for pair in zip(across, down, strict=True)]
    return flat_points(pairs, fail)
