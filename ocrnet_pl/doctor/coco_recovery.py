"""Reading a COCO instances JSON beyond the errors of its reader.

A reader stops at the first entry that it cannot use, as training must. The check is meant to name all of them, and to
examine the rest; so the faulty entries are left out of a temporary copy of the JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.json_fields import read_json
from ocrnet_pl.data.readers.values import is_number, is_text, is_whole, shown
from ocrnet_pl.doctor.findings import Finding, Kind
from ocrnet_pl.errors import DataError


class Salvaged(NamedTuple):
    """The usable part of a JSON.

    Attributes:
        content: The JSON without the faulty entries.
        numbers: Positions of the annotations of ``content`` in the original file.
        findings: One finding per entry that was left out or corrected.
    """

    content: dict[str, Any]
    numbers: NDArray[np.int64]
    findings: list[Finding]


def salvage(split: str, images: str, annotations: str) -> Salvaged | None:
    """Leave out the entries that the reader refuses.

    Args:
        split: Name of the split, for the findings.
        images: Folder of the images.
        annotations: Path of the JSON file.

    Returns:
        The rest; None if the whole file cannot be used.
    """
    try:
        content = read_json(annotations)
    except DataError:
        return None
    if not all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories")):
        return None
    if not all(isinstance(category, dict) and is_whole(category.get("id")) for category in content["categories"]):
        return None
    inspection = _Inspection(split, Path(images), annotations)
    kept_images = list(inspection.images(content["images"]))
    categories = [category["id"] for category in content["categories"]]
    kept = list(inspection.annotations(content["annotations"], categories))
    content |= {"images": kept_images, "annotations": [entry for _, entry in kept]}
    if not kept_images or not inspection.findings:
        return None
    return Salvaged(content, np.array([number for number, _ in kept], dtype=np.int64), inspection.findings)


class _Inspection:
    def __init__(self, split: str, folder: Path, file: str) -> None:
        self._split, self._folder, self._file = split, folder, file
        self._sizes: dict[Any, tuple[int, int]] = {}
        self._files: dict[Any, str] = {}
        self._lost: set[Any] = set()
        self.findings: list[Finding] = []

    def _add(self, kind: Kind, field: str, message: str, image: str = "") -> None:
        self.findings.append(Finding(kind, self._split, message, image=image, file=self._file, field=field))

    def images(self, entries: list[Any]) -> Iterator[dict[str, Any]]:
        for position, entry in enumerate(entries):
            where = f"images[{position}]"
            if not isinstance(entry, dict):
                self._add(Kind.ANNOTATION_BROKEN, where, f"expected an object, found {shown(entry)}")
                continue
            image_id, name = entry.get("id"), entry.get("file_name")
            sides = [entry.get("height"), entry.get("width")]
            if not is_whole(image_id) and not is_text(image_id):
                self._add(
                    Kind.ANNOTATION_BROKEN, f"{where}.id", f"expected an integer or text, found {shown(image_id)}"
                )
            elif image_id in self._sizes:
                self._add(Kind.ANNOTATION_BROKEN, f"{where}.id", f"{shown(image_id)} occurs more than once")
            elif (problem := self._file_problem(name)) is not None:
                self._lost.add(image_id)
                self._add(problem[0], f"{where}.file_name", problem[1], str(self._folder / str(name)))
            elif not all(is_number(side) and side >= 1 and side == int(side) for side in sides):
                self._lost.add(image_id)
                text = f"the height and width are {shown(sides[0])} and {shown(sides[1])}"
                self._add(Kind.ANNOTATION_BROKEN, where, text, str(self._folder / str(name)))
            else:
                self._sizes[image_id] = (int(sides[0]), int(sides[1]))  # type: ignore[arg-type]
                self._files[image_id] = str(self._folder / str(name))
                yield entry

    def _file_problem(self, name: Any) -> tuple[Kind, str] | None:
        if not is_text(name):
            return Kind.ANNOTATION_BROKEN, f"expected text, found {shown(name)}"
        normal = os.path.normpath(name)
        if os.path.isabs(normal) or normal.split(os.sep, 1)[0] == os.pardir:
            return Kind.ANNOTATION_BROKEN, f"{name!r:.200} leads out of the folder {self._folder}"
        if not os.path.isfile(self._folder / normal):
            return Kind.IMAGE_MISSING, f"there is no file {name!r:.200} in {self._folder}"
        return None

    def annotations(self, entries: list[Any], categories: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        known = set(categories)
        for position, entry in enumerate(entries):
            where = f"annotations[{position}]"
            if not isinstance(entry, dict):
                self._add(Kind.ANNOTATION_BROKEN, where, f"expected an object, found {shown(entry)}")
                continue
            image_id, category_id = entry.get("image_id"), entry.get("category_id")
            if isinstance(image_id, int | str) and image_id in self._lost:
                continue
            if not isinstance(image_id, int | str) or image_id not in self._sizes:
                self._add(Kind.UNKNOWN_ID, f"{where}.image_id", f"there is no image {shown(image_id)}")
                continue
            image = self._files[image_id]
            if not isinstance(category_id, int) or category_id not in known:
                self._add(Kind.UNKNOWN_ID, f"{where}.category_id", f"there is no category {shown(category_id)}", image)
                continue
            box = entry.get("bbox")
            if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
                text = f"expected 4 finite numbers, found {shown(box)}"
                self._add(Kind.BOX_DEGENERATE, f"{where}.bbox", text, image)
                continue
            problem = _mask_problem(entry.get("segmentation"), self._sizes[image_id])
            if problem is not None:
                self._add(problem[0], f"{where}.segmentation", problem[1], image)
                entry = {**entry, "segmentation": None}
            yield position, entry


def _mask_problem(segmentation: Any, size: tuple[int, int]) -> tuple[Kind, str] | None:
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(is_number, polygon)):
                return Kind.ANNOTATION_BROKEN, "a polygon is not a flat list of finite x, y pairs"
        return None
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        return Kind.ANNOTATION_BROKEN, "neither polygons nor a run-length encoding with `counts`"
    if segmentation.get("size") != list(size):
        return Kind.SIZE, f"the mask has the size {shown(segmentation.get('size'))}, but the image is {list(size)}"
    counts = segmentation["counts"]
    if isinstance(counts, list) and all(is_whole(count) and count >= 0 for count in counts):
        if sum(counts) == size[0] * size[1]:
            return None
        return Kind.ANNOTATION_BROKEN, "the run-length encoding does not add up to the pixels of the image"
    if isinstance(counts, str) and counts.isascii():
        return None  # damaged text is found when the mask is drawn
    return Kind.ANNOTATION_BROKEN, f"expected the lengths of runs, or text of them, found {shown(counts)}"


def write_salvaged(salvaged: Salvaged, path: Path) -> None:
    """Write the JSON for the reader."""
    path.write_text(json.dumps(salvaged.content), encoding="utf-8")
