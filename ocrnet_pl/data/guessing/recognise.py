"""From a folder to its format."""

from __future__ import annotations

from os import PathLike
from typing import Any

from ocrnet_pl.data.guessing.annotation_files import of_json, of_xml, of_yolo
from ocrnet_pl.data.guessing.csv_tables import of_csv
from ocrnet_pl.data.guessing.folder_look import FolderLook, Found, Guess, split_of
from ocrnet_pl.data.guessing.mask_folders import of_known_trees, of_masks, of_object_masks
from ocrnet_pl.data.split_keys import SPLITS
from ocrnet_pl.errors import DataError

_SHARE = 0.2
"""Share of the images that validate, where the folder has no split."""

Parts = dict[str, tuple[str, dict[str, Any]]]
"""The class and the options of the source of each split."""


def recognise(root: str | PathLike[str]) -> Guess:
    """Return the format of a folder.

    Args:
        root: Path of the folder.

    Raises:
        DataError: There is no such folder, no image in it, or no labels that are known.
    """
    look = FolderLook(root)
    # From the most certain to the least: a JSON says what it is, a folder of pictures may be anything.
    for find in (of_known_trees, of_yolo, of_json, of_xml, of_csv, of_object_masks, of_masks):
        found = find(look)
        if found is not None:
            return found._replace(parts=_of_same_classes(found.parts))
    if not look.images:
        raise DataError.at(look.root, "there is no image below it", advice="give the folder that contains the images")
    raise DataError.at(
        look.root,
        f"there are {sum(map(len, look.images.values()))} images, but no labels of a format that is known",
        advice="docs/formats has the known ones; to predict on images alone, use `predict`",
    )


def _of_same_classes(parts: tuple[Found, ...]) -> tuple[Found, ...]:
    """Give all parts the classes that were found in any of them: a split may lack a rare one."""
    for key in ("classes", "semantic_names"):
        given = [part.options[key] for part in parts if key in part.options]
        if all(each == given[0] for each in given):
            continue
        if all(isinstance(each, list) for each in given):
            shared: Any = sorted({name for each in given for name in each})
        elif all(isinstance(each, dict) for each in given):
            shared = dict(sorted({value: name for each in given for value, name in each.items()}.items()))
        else:
            continue
        parts = tuple(p._replace(options=p.options | {key: shared}) if key in p.options else p for p in parts)
    return parts


def arranged(guess: Guess) -> Parts:
    """Return the source of each split; a part without a split is divided into training and validation.

    Args:
        guess: The format.
    """
    found: dict[str, Found] = {}
    for part in guess.parts:
        found.setdefault(split_of(part.path) or "train", part)
    if "train" not in found:
        first = next(iter(found))
        found["train"] = found.pop(first)
    order = [name for name in SPLITS if name in found]
    sources: Parts = {name: (found[name].source, found[name].options) for name in order}
    if "val" not in sources:
        inner = {"class_path": sources["train"][0], "init_args": sources["train"][1]}
        shares = {"train": 1 - _SHARE, "val": _SHARE}
        divided = {name: ("Split", {"source": inner, "part": name, "parts": shares}) for name in ("train", "val")}
        return {**divided, **{name: sources[name] for name in order if name == "test"}}
    return sources
