"""Reading a COCO instances JSON beyond the errors of its reader.

A reader stops at the first entry that it cannot use, as training must. The check is meant to name all of them, and to
examine the rest; so the faulty entries are left out of a temporary copy of the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.coco_entries import Ids, JoinedImages, entry_id, read_annotation, read_image_entry
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields, read_json
from ocrnet_pl.data.readers.values import is_text
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
    fields = Fields(annotations)
    try:
        content = read_json(annotations)
        entries = {key: fields.entries(content, key) for key in ("images", "annotations")}
        categories = [fields.integer(c, "categories", "id") for c in fields.objects(content, "categories")]
        inspection = _Inspection(split, FolderIndex(images, "images"), fields)
    except DataError:
        return None
    kept_images = list(inspection.images(entries["images"]))
    kept = list(inspection.annotations(entries["annotations"], categories))
    content |= {"images": kept_images, "annotations": [entry for _, entry in kept]}
    if not kept_images or not inspection.findings:
        return None
    return Salvaged(content, np.array([number for number, _ in kept], dtype=np.int64), inspection.findings)


class _Inspection:
    """Reads entry by entry as the reader does; each fault becomes a finding."""

    def __init__(self, split: str, folder: FolderIndex, fields: Fields) -> None:
        self._split, self._folder, self._fields = split, folder, fields
        self._lost: set[int | str] = set()
        self._joined = JoinedImages(fields)
        self.findings: list[Finding] = []

    def _add(self, error: DataError, image: str = "") -> None:
        file = str(self._fields.path)
        text = str(error).removeprefix(f"{file}: ")
        field, found, message = text.partition(": ")
        if not found:
            field, message = "", text
        self.findings.append(Finding(_kind(field, message), self._split, message, image=image, file=file, field=field))

    def images(self, entries: list[Any]) -> Iterator[dict[str, Any]]:
        for position, entry in enumerate(entries):
            where = f"images[{position}]"
            try:
                read = read_image_entry(self._fields.entry(entry, where), where, self._folder, self._fields)
                self._joined.add(read, where)
            except DataError as error:
                image = ""
                if isinstance(entry, dict) and is_text(entry.get("file_name")):
                    image = str(self._folder.root / entry["file_name"])
                    with suppress(DataError):
                        self._lost.add(entry_id(entry, where, self._fields))
                self._add(error, image)
                continue
            yield entry

    def annotations(self, entries: list[Any], categories: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        images, known, lost = Ids(entry.id for entry in self._joined.entries), Ids(categories), Ids(self._lost)
        sizes = [entry.size for entry in self._joined.entries]
        for position, entry in enumerate(entries):
            where = f"annotations[{position}]"
            image = ""
            try:
                entry = self._fields.entry(entry, where)
                row = images.find(entry.get("image_id"))
                if row is None and lost.find(entry.get("image_id")) is not None:
                    continue
                if row is not None:
                    image = str(self._folder.root / self._joined.entries[row].name)
                try:
                    read_annotation(entry, where, images, known, sizes, self._fields)
                except DataError as error:
                    if f"{where}.segmentation" not in str(error):
                        raise
                    self._add(error, image)
                    entry = {**entry, "segmentation": None}
                    read_annotation(entry, where, images, known, sizes, self._fields)
            except DataError as error:
                self._add(error, image)
                continue
            yield position, entry


def _kind(field: str, message: str) -> Kind:
    if "there is no file" in message:
        return Kind.IMAGE_MISSING
    if field.endswith(".bbox"):
        return Kind.BOX_DEGENERATE
    if field.endswith("segmentation.size"):
        return Kind.SIZE
    unknown = "there is no image" in message or "there is no category" in message
    return Kind.UNKNOWN_ID if unknown else Kind.ANNOTATION_BROKEN


def write_salvaged(salvaged: Salvaged, path: Path) -> None:
    """Write the JSON for the reader."""
    path.write_text(json.dumps(salvaged.content), encoding="utf-8")
