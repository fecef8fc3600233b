"""Open Images: CSV files of boxes and of the classes that each image was verified for."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from os import PathLike
from os.path import join

from ocrnet_pl.data.readers.drawings import Drawings, Labels, Shape
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.values import as_flag, as_number, shown
from ocrnet_pl.data.sources.drawn import DrawnSource
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES
from ocrnet_pl.storage.ordinary_files import open_file

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_SLACK = 0.01


class OpenImages(DrawnSource):
    """Boxes of Open Images, versions 4 to 7, or of data sets in its format.

    Only the images in the folder count, and only those that a file names. With ``image_labels``, an image was labelled
    for the classes that have a box on it and those that were verified, present or absent; all others are unknown. A
    group (``IsGroupOf``) is a crowd.

    Args:
        images: Folder of the images, which are named by their ids.
        boxes: CSV of the boxes, such as ``train-annotations-bbox.csv``.
        descriptions: CSV of codes and names without a header, such as ``class-descriptions-boxable.csv``; null if the
            files have names.
        image_labels: CSV of the verified classes, such as ``train-annotations-human-imagelabels-boxable.csv``; null if
            every image was labelled for all classes.
        classes: Names of the detection classes, in order; others are left out. Null for all names of
            ``descriptions``, or else all that are found, in alphabetical order.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing or malformed.
    """

    _fractions = True

    def __init__(
        self,
        images: str | PathLike[str],
        boxes: str | PathLike[str],
        descriptions: str | PathLike[str] | None = None,
        image_labels: str | PathLike[str] | None = None,
        classes: Sequence[str] | None = None,
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        name_of = {} if descriptions is None else _read_descriptions(join(root, descriptions))
        if classes is None and name_of:
            classes = list(dict.fromkeys(name_of.values()))
        labels = Labels(classes, [], [], "ignore")
        labels.check("OpenImages")
        pictures = FolderIndex(join(root, images), "images")
        stems = {os.path.basename(stem): name for stem, name in pictures.by_stem(IMAGE_SUFFIXES).items()}
        file = join(root, boxes)
        shapes: dict[str, list[Shape]] = {}
        known: dict[str, set[str]] = {}
        for line, row in _rows(file, ("ImageID", "LabelName", *_CORNERS)):
            if row["ImageID"] not in stems:
                continue
            label = _label(row["LabelName"], name_of, file, line)
            corners = [as_number(row[key]) for key in _CORNERS]
            x1, y1, x2, y2 = (-1.0 if corner is None else corner for corner in corners)
            if not (-_SLACK <= x1 <= x2 <= 1 + _SLACK and -_SLACK <= y1 <= y2 <= 1 + _SLACK):
                text = f"expected XMin up to XMax and YMin up to YMax from 0 to 1, found {shown(corners)}"
                raise DataError.at(file, text, field=f"line {line}", advice="correct the row")
            crowd = as_flag(row.get("IsGroupOf"))
            shapes.setdefault(row["ImageID"], []).append(
                Shape(label, line, (max(x1, 0), max(y1, 0), min(x2, 1), min(y2, 1)), crowd=bool(crowd))
            )
            known.setdefault(row["ImageID"], set()).add(label)
        if image_labels is not None:
            verified = join(root, image_labels)
            for line, row in _rows(verified, ("ImageID", "LabelName")):
                if row["ImageID"] in stems:
                    known.setdefault(row["ImageID"], set()).add(_label(row["LabelName"], name_of, verified, line))
        drawings = Drawings(labels, "line {}")
        for image in sorted(known):
            own = None if image_labels is None else known[image]
            drawings.add(stems[image], None, shapes.get(image, []), file, known=own)
        self._use(
            drawings,
            labels,
            folder=pictures.root,
            semantic=False,
            background=None,
            channels=channels,
            place=file,
        )


def _rows(path: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line and the cells of each row; the files are larger than the memory.

    Raises:
        DataError: The file is missing or no such CSV.
    """
    with open_file(path, "table") as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in columns if name not in header]
            if missing:
                raise DataError.at(
                    path,
                    f"there is no column {missing[0]!r}, only {', '.join(header):.200}",
                    field="line 1",
                    advice="use a file of Open Images",
                )
            for cells in reader:
                if len(cells) != len(header):
                    text = f"{len(cells)} cells, but {len(header)} columns"
                    raise DataError.at(path, text, field=f"line {reader.line_num}", advice="download the file again")
                yield reader.line_num, dict(zip(header, cells, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError.at(
                path, f"this is not a CSV file in UTF-8 ({error})", advice="download it again"
            ) from error


def _read_descriptions(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    with open_file(path, "table") as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if len(cells) != 2 or not all(cell.strip() and cell.isprintable() for cell in cells):
                    text = f"expected a code and a name, found {shown(cells)}"
                    raise DataError.at(path, text, field=f"line {reader.line_num}", advice="download it again")
                if cells != ["LabelName", "DisplayName"]:
                    found[cells[0].strip()] = cells[1].strip()
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError.at(
                path, f"this is not a CSV file in UTF-8 ({error})", advice="download it again"
            ) from error
    return found


def _label(code: str, name_of: dict[str, str], path: str, line: int) -> str:
    label = name_of.get(code) if name_of else code
    if not label or not label.isprintable():
        advice = "use the descriptions of the same version"
        raise DataError.at(path, f"there is no name of the class {shown(code)}", field=f"line {line}", advice=advice)
    return label
