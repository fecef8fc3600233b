"""Formats that are recognised by folders of masks and by the names of files."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from ocrnet_pl.data.guessing.folder_look import FolderLook, Found, Guess, alike, is_image, split_of
from ocrnet_pl.data.readers.class_map import read_colors, read_ids
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.maps import read_map

_BRUSH = re.compile(r"task-[^/]+-annotation-.*-tag-.+-\d+\.png")
_OBJECT = re.compile(r"(.+)([_-])([^_-]+)([_-])\d+")
_LOOKED_AT = 40
_MOST_CLASSES = 60
_SUFFIXES = ("_mask", "_masks", "_L", "_label", "_labels", "_gt", "_seg", "_segmentation", "-mask", "_instances")


def of_known_trees(look: FolderLook) -> Guess | None:
    """Recognise packed shards, Cityscapes, CVAT's masks, brushes of Label Studio, and a folder of masks per image."""
    packed = look.named("packed.json")
    if packed:
        parts = tuple(Found(name, "Packed", {"path": os.path.dirname(name) or os.curdir}) for name in packed)
        return Guess("../packed", f"{packed[0]} is of packed data", parts)
    if any("gtFine_" in name for name in look.names) and any("_leftImg8bit" in name for name in look.names):
        splits = [s for s in ("train", "val") if any(f"gtFine{os.sep}{s}{os.sep}" in name for name in look.names)]
        parts = tuple(Found(split, "Cityscapes", {"split": split}) for split in splits)
        return Guess("cityscapes", "there are files of leftImg8bit and gtFine", parts) if parts else None
    brushes = [name for name in look.ending(".png") if _BRUSH.fullmatch(os.path.basename(name))]
    if brushes:
        return _brushes(look, brushes)
    folders = [name for name in look.ending(".png") if f"{os.sep}masks{os.sep}" in name]
    above = [name.split(f"{os.sep}masks{os.sep}")[0] for name in folders]
    own = [name for name in dict.fromkeys(above) if is_single(look, f"{name}{os.sep}images")]
    if own and len(own) > 1:
        top = os.path.dirname(own[0]) or os.curdir
        options = {"images": top, "masks": top, "pattern": "{image}/masks/{any}", "classes": ["object"]}
        return Guess(
            "object_masks", f"{own[0]} has one image and its own folder of masks", (Found(top, "ObjectMasks", options),)
        )
    return None


def is_single(look: FolderLook, folder: str) -> bool:
    """Return whether a folder has exactly one image."""
    return len(look.images.get(folder, ())) == 1


def _brushes(look: FolderLook, brushes: list[str]) -> Guess:
    parts = []
    tasks = [name for name in look.ending(".json") if isinstance(look.json(name), list)]
    for folder in dict.fromkeys(os.path.dirname(name) for name in brushes):
        beside = [one for one in look.images if one != folder and split_of(one) == split_of(folder)]
        images = max(beside, key=lambda one: alike(one, folder), default=folder)
        pattern = "task-{image}-annotation-{any}-by-{any}-tag-{class}-{any}"
        options: dict[str, Any] = {"images": images or os.curdir, "masks": folder or os.curdir, "pattern": pattern}
        parts.append(Found(folder, "ObjectMasks", options | ({"tasks": tasks[0]} if tasks else {})))
    missing = "" if tasks else "if the images are not named by the numbers of the tasks, set `tasks` to the JSON export"
    return Guess("object_masks", f"{brushes[0]} is a brush of Label Studio", tuple(parts), missing)


def of_masks(look: FolderLook) -> Guess | None:
    """Recognise images with masks of their name, in another folder or with a suffix."""
    pairs = _paired(look)
    if not pairs:
        return None
    tables = [
        *look.named("class_dict.csv", "_classes.csv", "labelmap.txt", "label_colors.txt"),
        *look.named("categories.json"),
    ]
    parts: list[Found] = []
    missing = ""
    page = "folder"
    for images, masks, suffix in pairs:
        maps: dict[str, Any] = {"mask_suffix": suffix} if suffix else {}
        page = "suffixed_masks" if suffix else page
        examples = _mask_files(look, masks, suffix)[:_LOOKED_AT]
        table = max(tables, key=lambda name: alike(name, masks), default=None)
        objects = next(
            (
                one
                for one in look.images
                if one.endswith("SegmentationObject" + masks.partition("SegmentationClass")[2])
                and "SegmentationClass" in masks
            ),
            None,
        )
        options: dict[str, Any] = {"images": images or os.curdir, "masks": masks or os.curdir} | maps
        if table is not None:
            options["semantic_names"] = table
            if objects is not None:
                from ocrnet_pl.data.readers.class_map import Legend

                classes = [name for name in Legend(table, root=look.root).names if name != "background"]
                options |= {"instances": objects, "boxes_from_instances": True, "classes": classes}
                page = "cvat_masks"
            parts.append(Found(masks, "LabelledFolder", options))
            continue
        names, is_map = value_names(examples)
        if is_map:
            maps = {"instance_suffix": suffix} if suffix else {}
            derived = {"boxes_from_instances": True, "semantic_from_instances": True, "classes": ["object"]}
            options = {"images": images or os.curdir, "instances": masks or os.curdir} | maps | derived
            missing = "name the class of the instance maps instead of `object`"
        else:
            options["semantic_names"] = names
            missing = "replace the names of `semantic_names` by those of the classes"
        parts.append(Found(masks, "LabelledFolder", options))
    first = (
        f"{pairs[0][1] or look.root} has masks{f' that end in {pairs[0][2]}' if pairs[0][2] else ''} for the images of "
    )
    return Guess(page, first + (pairs[0][0] or look.root), tuple(parts), missing)


def of_object_masks(look: FolderLook) -> Guess | None:
    """Recognise a PNG for each object by names such as ``IMAGE_CLASS_3.png``."""
    parts = []
    example = ""
    for folder, names in look.images.items():
        stems = [os.path.splitext(name)[0] for name in names]
        for images, others in look.images.items():
            own = {os.path.splitext(name)[0] for name in others}
            if images == folder or split_of(images) != split_of(folder):
                continue
            matches = [match for stem in stems if (match := _OBJECT.fullmatch(stem)) is not None]
            if len(matches) == len(stems) and all(match[1] in own for match in matches):
                pattern = "{image}" + matches[0][2] + "{class}" + matches[0][4] + "{any}"
                options = {"images": images or os.curdir, "masks": folder or os.curdir, "pattern": pattern}
                parts.append(Found(folder, "ObjectMasks", options))
                example = os.path.join(folder, names[0])
                break
    return Guess("object_masks", f"{example} names an image, a class and a number", tuple(parts)) if parts else None


def _paired(look: FolderLook) -> list[tuple[str, str, str]]:
    """Return folders of images with the folders of their masks and the suffix of these."""
    found: list[tuple[str, str, str]] = []
    stems = {folder: {os.path.splitext(name)[0] for name in names} for folder, names in look.images.items()}
    lossless = {
        folder: {os.path.splitext(name)[0] for name in names if not name.lower().endswith((".jpg", ".jpeg", ".webp"))}
        for folder, names in look.images.items()
    }
    taken: set[str] = set()
    for suffix in ("", *_SUFFIXES):
        for folder, masks in lossless.items():
            own = {stem.removesuffix(suffix) for stem in masks if stem.endswith(suffix)}
            others = [one for one in stems if (one != folder or suffix) and own and own <= stems[one]]
            others = [one for one in others if split_of(one) == split_of(folder) and one not in taken]
            # Of two folders with the same names, the masks are those with few values.
            if folder in taken or not others or not _looks_like_masks(look, folder, suffix):
                continue
            images = max(others, key=lambda one: (not _looks_like_masks(look, one, ""), alike(one, folder)))
            if "SegmentationObject" in folder:
                continue
            if not suffix and _looks_like_masks(look, images, ""):
                continue
            found.append((images, folder, suffix))
            taken.add(folder)
    return found


def _mask_files(look: FolderLook, folder: str, suffix: str) -> list[str]:
    names = [name for name in look.images[folder] if os.path.splitext(name)[0].endswith(suffix)]
    return [look.path(os.path.join(folder, name)) for name in names if is_image(name)]


def _looks_like_masks(look: FolderLook, folder: str, suffix: str) -> bool:
    """Return whether the files are of one channel or of few colors."""
    for file in _mask_files(look, folder, suffix)[:3]:
        try:
            if read_map(file).pixels.ndim == 3 and len(np.unique(read_colors(file)[::2, ::2])) > _MOST_CLASSES:
                return False
            if len(np.unique(read_ids(file)[::2, ::2])) > 4 * _MOST_CLASSES:
                return False
        except DataError:
            return False
    return True


def value_names(files: list[str]) -> tuple[dict[Any, str], bool]:
    """Return names for the values or colors of masks, and whether they are instance maps instead."""
    values: set[int] = set()
    colors: set[int] = set()
    counts: list[int] = []
    for file in files:
        pixels = read_map(file).pixels
        if pixels.ndim == 3 and not (pixels[..., :1] == pixels[..., :3]).all():
            colors |= {int(value) for value in np.unique(read_colors(file))}
        else:
            own = {int(value) for value in np.unique(read_ids(file) if pixels.ndim == 2 else pixels[..., 0])}
            counts.append(max(own, default=0))
            values |= own
    if colors:
        texts = {value: f"#{value & 255:02x}{value >> 8 & 255:02x}{value >> 16:02x}" for value in sorted(colors)}
        return {text: "background" if not value else f"class_{text[1:]}" for value, text in texts.items()}, False
    # Numbered objects: a different highest number in most files, without gaps.
    if len(set(counts)) > len(counts) // 2 and len(values) > 4 and 255 not in values:
        return {}, True
    known = sorted(values - {255}) if len(values - {0, 255}) else sorted(values)
    return {value: "background" if not value else f"class_{value}" for value in known}, False
