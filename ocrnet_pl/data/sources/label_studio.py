"""Label Studio: the JSON export of tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from os.path import join
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np

from ocrnet_pl.data.readers.drawings import Bitmap, Drawings, Labels, Shape, ellipse, flat_points, turned_box
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields
from ocrnet_pl.data.readers.json_text import read_json_value
from ocrnet_pl.data.readers.label_studio_brush import decode_brush
from ocrnet_pl.data.readers.values import as_flag, as_number, as_whole, is_text, shown
from ocrnet_pl.data.sources.drawn import DrawnSource
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import MAX_PIXELS
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES

_UPLOADED = re.compile(r"(?:.*/)?[0-9a-f]{8}-([^/]+)")


class LabelStudio(DrawnSource):
    """The exports "JSON" and "JSON-MIN" of Label Studio.

    Polygons, ellipses, brushes and turned rectangles are objects with a mask, other rectangles are boxes; key points
    and answers about the whole image are left out. Of several annotations of a task, the one marked as ground truth
    counts, or else the first that was not cancelled. A task without one was not labelled and is left out; a submitted
    one without regions has no objects.

    Args:
        images: Folder of the images.
        annotations: Path of the JSON.
        classes: Names of the detection classes, in order; null for all labels that are found, in alphabetical order.
        field: Name of the task's field that has the image; null for the only one that names an image.
        control: Name of the tag of the labelling interface whose regions are read, such as label; null for all.
        stuff: Labels of regions that have pixels, but are no objects, such as road or soil.
        ignored: Labels of regions whose pixels are ignored.
        others: What a region of any other label is: "refuse" ends the run, "ignore" leaves it out.
        semantic: Whether semantic maps are made of the regions.
        background: Name of the segmentation class of the pixels in no region; null ignores them.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing or malformed, or a label is unknown.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        annotations: str | PathLike[str],
        classes: Sequence[str] | None = None,
        field: str | None = None,
        control: str | None = None,
        stuff: Sequence[str] = (),
        ignored: Sequence[str] = (),
        others: Literal["refuse", "ignore"] = "refuse",
        semantic: bool = True,
        background: str | None = "background",
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        labels = Labels(classes, list(stuff), list(ignored), others)
        labels.check("LabelStudio")
        file = join(root, annotations)
        fields = Fields(file)
        tasks = read_tasks(file)
        pictures = FolderIndex(join(root, images), "images")
        drawings = Drawings(labels, "region {}")
        taken: set[str] = set()
        for number, task in enumerate(tasks):
            place = f"tasks[{number}]"
            results = _results(task, control, fields, place)
            if results is None:
                continue
            found = find_image(task, field, pictures, fields, place)
            if found in taken:
                raise fields.error(place, f"{found!r:.200} is in another task as well", "remove one of them")
            taken.add(found)
            drawings.add(found, *_read_results(results, fields, place), file, place)
        if tasks and not taken:
            raise fields.error("annotations", "no task has a submitted annotation", "label some, and export again")
        self._use(
            drawings,
            labels,
            folder=pictures.root,
            semantic=semantic,
            background=background,
            channels=channels,
            place=file,
        )


def read_tasks(file: str) -> list[dict[str, Any]]:
    """Return the tasks of an export.

    Raises:
        DataError: It is not a list of objects.
    """
    content = read_json_value(file)
    if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
        raise DataError.at(file, f"expected a list of tasks, found {shown(content)}", advice="export as JSON")
    return content


def find_image(task: dict[str, Any], field: str | None, pictures: FolderIndex, fields: Fields, place: str) -> str:
    """Return the file of a task's image, relative to the folder.

    Args:
        task: The task.
        field: Name of its field that has the image; None for the only one that names an image.
        pictures: The files that there are.
        fields: Access to the export, for messages.
        place: Position of the task, for messages.

    Raises:
        DataError: There is no such field, or no such image.
    """
    data = task.get("data", task)
    values = {key: value for key, value in data.items() if is_text(value)} if isinstance(data, dict) else {}
    if field is None:
        named = [key for key, value in values.items() if unquote(value).lower().endswith(IMAGE_SUFFIXES)]
        if len(named) != 1:
            text = f"{len(named)} fields name an image, of {', '.join(values):.200}"
            raise fields.error(f"{place}.data", text, "name the right one as `field`")
        field = named[0]
    if field not in values:
        raise fields.error(f"{place}.data.{field}", "there is no such text", f"it has {', '.join(values):.200}")
    given = values[field]

    def fail(problem: str, advice: str) -> DataError:
        return fields.error(f"{place}.data.{field}", problem, advice)

    path = unquote(given.partition("?d=")[2] or given.partition("://")[2] or given).replace("\\", "/").lstrip("/")
    base = path.rpartition("/")[2]
    # Label Studio puts eight characters in front of the name of an uploaded file.
    uploaded = _UPLOADED.fullmatch(path)
    for candidate in (path, base, *(uploaded.groups() if uploaded else ())):
        if candidate and ".." not in candidate.split("/") and "\0" not in candidate and candidate in pictures:
            return candidate
    return pictures.find(uploaded[1] if uploaded else base or given, fail)


def _results(
    task: dict[str, Any], control: str | None, fields: Fields, place: str
) -> list[tuple[int, dict[str, Any]]] | None:
    """Return the regions of a task with their positions; None if it was not labelled."""
    if "annotations" in task or "completions" in task:
        key = "annotations" if "annotations" in task else "completions"
        given = [a for a in fields.objects(task, key) if not as_flag(a.get("was_cancelled"))]
        if not given:
            return None
        chosen = next((a for a in given if as_flag(a.get("ground_truth"))), given[0])
        results = fields.objects(chosen, "result")
        return [
            (number, result)
            for number, result in enumerate(results)
            if control is None or result.get("from_name") == control
        ]
    # JSON-MIN has a list of regions for each tag.
    lists = [value for key, value in task.items() if isinstance(value, list) and control in (None, key)]
    regions = [item for value in lists for item in value if isinstance(item, dict)]
    return [(number, {"value": region} | region) for number, region in enumerate(regions)] if lists else None


def _read_results(
    results: Sequence[tuple[int, dict[str, Any]]], fields: Fields, place: str
) -> tuple[tuple[int, int] | None, list[Shape]]:
    """Return the size of the image, None without a region, and the shapes."""
    size: tuple[int, int] | None = None
    shapes: list[Shape] = []
    for number, result in results:
        where = f"{place}: region {number}"
        value = result.get("value")
        names = [key for key in value if is_text(key) and key.endswith("labels")] if isinstance(value, dict) else []
        if not isinstance(value, dict) or not names:
            continue
        given = value[names[0]]
        if not isinstance(given, list) or len(given) != 1 or not is_text(given[0]) or not given[0].strip():
            raise fields.error(f"{where}: {names[0]}", f"expected one label, found {shown(given)}", "label it")
        own = as_whole(result.get("original_height")), as_whole(result.get("original_width"))
        if own[0] is None or own[1] is None or min(own[0], own[1]) < 1 or own[0] * own[1] > MAX_PIXELS:
            raise fields.error(where, "it has no original_width and original_height", "export it again")
        if as_number(result.get("image_rotation")):
            raise fields.error(where, "the image was turned", "turn the file itself, and label it again")
        if size is not None and size != (own[0], own[1]):
            raise fields.error(where, "the regions are of images of several sizes", "set `control`")
        size = (own[0], own[1])
        shape = _shape(value, size, fields, where)
        if shape is not None:
            shapes.append(shape._replace(label=given[0].strip(), number=number))
    return size, shapes


def _shape(value: dict[str, Any], size: tuple[int, int], fields: Fields, where: str) -> Shape | None:
    """Return a shape, whose numbers are percent of the image's sides; None for one without area."""
    across, down = size[1] / 100, size[0] / 100
    bare = Shape("", 0)

    def fail(problem: str, advice: str) -> DataError:
        return fields.error(where, problem, advice)

    if "rle" in value:
        try:
            return bare._replace(bitmap=Bitmap(0, 0, decode_brush(value["rle"], size)))
        except ValueError as error:
            raise fail(f"the brush is broken ({error})", "export it again") from error
    if "points" in value:
        points = np.array(flat_points(value["points"], fail)).reshape(-1, 2) * (across, down)
        return bare._replace(polygons=(points.ravel().tolist(),))
    if "width" not in value and "radiusX" not in value:
        return None
    turn = as_number(value.get("rotation")) or 0.0
    keys = ("x", "y", "radiusX", "radiusY") if "radiusX" in value else ("x", "y", "width", "height")
    numbers = [as_number(value.get(key)) for key in keys]
    if any(number is None for number in numbers):
        raise fail(f"expected numbers in {', '.join(keys)}, found {shown(numbers)}", "export it again")
    x, y, wide, tall = (float(n or 0) * s for n, s in zip(numbers, (across, down, across, down), strict=True))
    if "radiusX" in value:
        return bare._replace(polygons=(ellipse(x, y, wide, tall, turn),))
    if turn % 360:
        return bare._replace(polygons=(turned_box(x, y, wide, tall, turn, (x, y)),))
    return bare._replace(box=(x, y, x + wide, y + tall))
