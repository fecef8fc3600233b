"""Every format that the Datumaro library reads, for those that have no source of their own."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from os.path import join
from typing import Any, Literal

import numpy as np

from ocrnet_pl.data.readers.drawings import Bitmap, Drawings, Labels, Shape
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.values import as_flag
from ocrnet_pl.data.sources.drawn import DrawnSource
from ocrnet_pl.errors import DataError, one_line

_CROWD = ("is_crowd", "iscrowd", "is_group")


class DatumaroSet(DrawnSource):
    """A data set that the Datumaro library reads, such as KITTI, ADE20K, DOTA or VoTT; needs `pip install datumaro`.

    Polygons, ellipses and masks are objects with a mask, boxes are boxes (a turned one has its outline as mask), and
    annotations with the same label and group are one object. Everything else is left out. An image without annotations
    has no objects. The library reads all annotations before training begins, and is not made for files of unknown
    origin.

    Args:
        path: Folder or file that the library opens.
        format: The library's name of the format, such as kitti or ade20k2020; null lets it find out.
        subset: Name of the subset to read, such as train; null for all images.
        classes: Names of the detection classes, in order; null for the library's labels, without those that are
            regions.
        stuff: Labels of regions that have pixels, but are no objects, such as road or soil.
        ignored: Labels of regions whose pixels are ignored.
        others: What an annotation of any other label is: "refuse" ends the run, "ignore" leaves it out.
        semantic: Whether semantic maps are made of the annotations.
        background: Name of the segmentation class of the pixels in no annotation; null ignores them.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the path starts from; ``data.root`` on the command line.

    Raises:
        DataError: The library is not installed, or cannot read the data, or a label is unknown.
    """

    def __init__(
        self,
        path: str | PathLike[str] = ".",
        format: str | None = None,
        subset: str | None = None,
        classes: Sequence[str] | None = None,
        stuff: Sequence[str] = (),
        ignored: Sequence[str] = (),
        others: Literal["refuse", "ignore"] = "refuse",
        semantic: bool = True,
        background: str | None = "background",
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        place = join(root, path)
        pictures = FolderIndex(root, "data set")
        names, items = _read(place, format)
        if classes is None:
            apart = {*stuff, *ignored, background}
            classes = [name for name in dict.fromkeys(names) if name not in apart] or None
        labels = Labels(classes, list(stuff), list(ignored), others)
        labels.check("DatumaroSet")
        drawings = Drawings(labels, "annotation {}")
        subsets: set[str] = set()
        for item in items:
            subsets.add(str(item.subset))
            if subset is not None and item.subset != subset:
                continue
            where = f"item {item.id}"

            def fail(problem: str, advice: str, where: str = where) -> DataError:
                return DataError.at(place, problem, field=where, advice=advice)

            file = getattr(item.media, "path", None)
            if not file:
                raise fail("it has no image file", "keep the images where the format expects them")
            found = pictures.find(str(file), fail)
            shapes = [
                shape
                for number, annotation in enumerate(item.annotations)
                if (shape := _shape(annotation, number, names)) is not None
            ]
            size = item.media.size if any(shape.bitmap is not None for shape in shapes) else None
            drawings.add(found, None if size is None else (int(size[0]), int(size[1])), shapes, place, where)
        if subset is not None and subset not in subsets:
            raise DataError.at(place, f"there is no subset {subset!r}, only {', '.join(sorted(subsets)):.200}")
        self._use(
            drawings,
            labels,
            folder=pictures.root,
            semantic=semantic,
            background=background,
            channels=channels,
            place=place,
        )


def _read(place: str, kind: str | None) -> tuple[list[str], list[Any]]:
    """Return the names of the labels, and the items."""
    try:
        import datumaro
    except ImportError as error:
        raise DataError.at(
            "DatumaroSet", "the library is not installed", advice="run `pip install datumaro`"
        ) from error
    try:
        found = datumaro.Dataset.import_from(place, kind)
        categories = found.categories().get(datumaro.AnnotationType.label)
        return [entry.name for entry in categories or ()], list(found)
    except DataError:
        raise
    except Exception as error:  # its errors share no base class with those of the libraries below it
        reason = one_line(error)
        advice = "name its `format`" if kind is None else "check `path` and `format`"
        raise DataError.at(place, f"Datumaro cannot read it ({reason:.300})", advice=advice) from error


def _shape(annotation: Any, number: int, names: Sequence[str]) -> Shape | None:
    """Return a shape; None for what is no region of the image, or has no label."""
    label = getattr(annotation, "label", None)
    if label is None or not 0 <= label < len(names):
        return None
    crowd = any(as_flag(annotation.attributes.get(key)) for key in _CROWD)
    shape = Shape(names[label], number, crowd=crowd, group=annotation.group or None)
    kind = annotation.type.name
    if kind == "bbox":
        x, y, width, height = (float(side) for side in annotation.get_bbox())
        return shape._replace(box=(x, y, x + width, y + height))
    if kind == "mask":
        pixels = np.asarray(annotation.image)
        return shape._replace(bitmap=Bitmap(0, 0, pixels > 0))
    if kind in ("polygon", "ellipse", "rotated_bbox"):
        corners = np.asarray(annotation.as_polygon(), dtype=np.float64).ravel().tolist()
        return shape._replace(polygons=(corners,))
    return None
