"""Formats that are recognised by the columns of a CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from io import StringIO
from typing import Any

from ocrnet_pl.data.guessing.folder_look import FolderLook, Found, Guess
from ocrnet_pl.data.guessing.mask_folders import of_masks, value_names
from ocrnet_pl.data.readers.tables import ALIASES, TableFile, delimiter_of, json_cell
from ocrnet_pl.errors import DataError

_EXAMPLES = 40
_MAPS = ("masks", "mask_suffix", "semantic_names", "instances", "instance_suffix", "semantic_from_instances")
_LABELS = ("semantic", "instances", "panoptic", "boxes")


def of_csv(look: FolderLook) -> Guess | None:
    """Recognise Open Images, a CSV of boxes, and a CSV that lists images with the files of their labels."""
    found = [guess for name in look.ending(".csv") if (guess := _of_file(look, name)) is not None]
    if not found:
        return None
    page = found[0].page
    same = [guess for guess in found if guess.page == page]
    parts = tuple(part for guess in same for part in guess.parts)
    missing = next((guess.missing for guess in same if guess.missing), "")
    if page == "folder":
        parts, missing = _with_maps(look, parts)
    return Guess(page, same[0].reason, parts, missing)


def _of_file(look: FolderLook, name: str) -> Guess | None:
    head = look.head(name)
    reader = csv.reader(StringIO(head, newline=""), delimiter=delimiter_of(head.partition("\n")[0]))
    try:
        header, *rows = [[cell.strip() for cell in row] for row in reader]
    except (csv.Error, ValueError):  # not a CSV, or an empty one
        return None
    if {"ImageID", "LabelName", "XMin", "YMax"} <= {*header}:
        return _open_images(look, name, [row[header.index("ImageID")] for row in rows if len(row) == len(header)])
    if not {*ALIASES["image"]} & {cell.lower() for cell in header}:
        # It may be of any size.
        return None
    try:
        table = TableFile(look.path(name))
        images = table.column("image") or []
        corners = [table.column(key, required=False) for key in ("x1", "y1", "x2", "y2")]
        labels = table.column("label", required=False)
        if labels is not None and None not in corners:
            return _boxes(look, name, images, labels)
        return _table(look, name, table)
    except DataError:  # of another kind; what is recognised is opened, which says what is wrong
        return None


def _open_images(look: FolderLook, name: str, images: list[str]) -> Guess | None:
    folder = look.folder_of([f"{image}.jpg" for image in images], name)
    if folder is None:
        return None
    options: dict[str, Any] = {"images": folder, "boxes": name}
    tables = look.ending(".csv")
    described = [one for one in tables if "class-descriptions" in one]
    verified = [one for one in tables if "imagelabels" in one and os.path.basename(one)[:5] in name]
    options |= {"descriptions": described[0]} if described else {}
    options |= {"image_labels": verified[0]} if verified else {}
    return Guess("open_images", f"{name} has the columns of Open Images", (Found(name, "OpenImages", options),))


def _boxes(look: FolderLook, name: str, images: list[Any], labels: list[Any]) -> Guess | None:
    folder = look.folder_of([*dict.fromkeys(images)], name)
    if folder is None:
        return None
    classes = sorted({str(label).strip() for label in labels} - {""})
    options = {"images": folder, "classes": classes, "boxes": name}
    reason = f"{name} has columns for images, corners and labels"
    return Guess("folder", reason, (Found(name, "LabelledFolder", options),))


def _with_maps(look: FolderLook, parts: tuple[Found, ...]) -> tuple[tuple[Found, ...], str]:
    """Return sources of boxes with the maps of the same images, if there are any, and what to add by hand."""
    maps = of_masks(look)
    if maps is None:
        return parts, ""
    of_images = {part.options["images"]: part.options for part in maps.parts}
    joined = []
    for part in parts:
        beside = of_images.get(part.options["images"], {})
        options = {key: value for key, value in beside.items() if key in _MAPS}
        joined.append(part._replace(options=part.options | options))
    # The class of an instance is known by its box.
    unnamed = any("semantic_names" in part.options for part in joined) and "semantic_names" in maps.missing
    return tuple(joined), maps.missing if unnamed else ""


def _table(look: FolderLook, name: str, table: TableFile) -> Guess | None:
    """Recognise a table of the source ``Table``, whose paths start from the folder that is looked at."""
    images = [str(image) for image in table.column("image") or ()]
    columns = {key: cells for key in _LABELS if (cells := table.column(key, required=False)) is not None}
    if not columns or not any(os.path.isfile(look.path(image)) for image in images[:_EXAMPLES]):
        return None
    options: dict[str, Any] = {"table": name}
    classes = sorted({*_labels(table, "boxes")})
    missing = ""
    masks = [look.path(cell) for cell in columns.get("semantic", ()) if cell]
    if masks:
        options["semantic_names"], _ = value_names([mask for mask in masks if os.path.isfile(mask)][:_EXAMPLES])
        missing = "replace the names of `semantic_names` by those of the classes"
    segments = sorted({*_labels(table, "segments")})
    if segments:
        options |= {"semantic_names": segments, "boxes_from_instances": True}
        classes, missing = sorted({*classes, *segments}), "remove the names of stuff from `classes`"
    if any(columns.get("instances", ())) and "boxes" not in columns:
        options["boxes_from_instances"] = True
        classes, missing = classes or ["object"], missing or "name the class of the instance maps instead of `object`"
    reason = f"{name} lists images with the files of their labels"
    return Guess("table", reason, (Found(name, "Table", options | {"classes": classes}),), missing)


def _labels(table: TableFile, column: str) -> Iterator[str]:
    """Yield the labels of the objects in the cells of a column."""
    for row, cell in enumerate(table.column(column, required=False) or ()):
        for entry in json_cell(table, cell, row, column) or ():
            if isinstance(entry.get("label"), str):
                yield entry["label"].strip()
