"""Any source as COCO instances: a JSON that names the images where they are, and PNGs of the classes of pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from ocrnet_pl.data.exporting.coco_annotation import coco_annotation
from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample

_NAMES = "semantic_names.json"
_ABSENT = "neg_category_ids"


class Written(NamedTuple):
    """A split that was written.

    Attributes:
        source: Class and options of the source that reads it, as in a config.
        images: Number of images.
        boxes: Number of boxes.
        skipped: Path and error of each image that was left out.
    """

    source: dict[str, Any]
    images: int
    boxes: int
    skipped: list[tuple[str, str]]


def write_coco(source: Source, split: str, folder: Path, *, tolerant: bool, advance: Callable[[int], None]) -> Written:
    """Write a source as ``instances_SPLIT.json``, with PNGs below ``semantic_SPLIT`` if it has classes of pixels.

    Images that were not labelled for all classes get ``neg_category_ids``, as in LVIS. The masks are whole where the
    source has them, and otherwise what other objects leave visible.

    Args:
        source: The source.
        split: Name of the split.
        folder: Folder to write to.
        tolerant: Whether images that cannot be read are left out.
        advance: Called with the number of images done.

    Raises:
        DataError: The source has no classes of objects or no files of images, or an image cannot be read.
    """
    taxonomy = source.taxonomy
    if not taxonomy.num_detection:
        raise DataError(f"data.{split}: there are no classes of objects, which COCO instances are about")
    paths = [_file_of(source, index) for index in range(len(source))]
    top = os.path.commonpath([os.path.dirname(path) for path in paths])
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    skipped: list[tuple[str, str]] = []
    maps = partial = False
    for index, path in enumerate(paths):
        advance(index + 1)
        try:
            sample = source[index]
        except DataError as error:
            if not tolerant:
                raise
            skipped.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        height, width = sample.size
        number = len(images) + 1
        entry: dict[str, Any] = {
            "id": number,
            "file_name": os.path.relpath(path, top),
            "height": height,
            "width": width,
        }
        known = sample.supervision.detection
        partial = partial or not bool(known.all())
        absent = {*known.nonzero().flatten().tolist()} - {*sample.labels.tolist()}
        images.append(entry | {_ABSENT: sorted(label + 1 for label in absent)})
        masks = _masks(sample, source.raw_boxes(index))
        for row, (box, label, crowd) in enumerate(
            zip(sample.boxes.as_subclass(Tensor).numpy(), sample.labels.tolist(), sample.crowd.tolist(), strict=True)
        ):
            annotation = coco_annotation(box, label + 1, crowd, masks[row])
            annotations.append({"id": len(annotations) + 1, "image_id": number} | annotation)
        if sample.semantic is not None and bool(sample.supervision.semantic.all()):
            maps = True
            target = folder / f"semantic_{split}" / f"{os.path.splitext(entry['file_name'])[0]}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.semantic.as_subclass(Tensor).numpy()).save(target)
    if not images:
        raise DataError(f"data.{split}: no image can be read")
    if not partial:
        images = [{key: value for key, value in entry.items() if key != _ABSENT} for entry in images]
    categories = [{"id": n, "name": c.name} for n, c in enumerate(taxonomy.detection_categories, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    name = f"instances_{split}.json"
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    options: dict[str, Any] = {"images": top, "annotations": name}
    if maps and not partial:
        names = [
            {"id": place, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
            for place, c in enumerate(taxonomy.semantic_categories)
        ]
        (folder / _NAMES).write_text(json.dumps(names), encoding="utf-8")
        options |= {"semantic_masks": f"semantic_{split}", "semantic_names": _NAMES}
    elif not partial:
        options["semantic"] = False
    kind = "Lvis" if partial else "CocoInstances"
    return Written({"class_path": kind, "init_args": options}, len(images), len(annotations), skipped)


def _file_of(source: Source, index: int) -> str:
    """Return the absolute path of an image's file."""
    path = os.path.abspath(source.identity(index)[1])
    if not os.path.isfile(path):
        raise DataError.at(path, "it is no file, so a JSON cannot name it", advice="convert the set as it was before")
    return path


def _masks(sample: Sample, raw: RawBoxes | None) -> list[dict[str, Any] | None]:
    """Return the mask of each box of a sample."""
    from faster_coco_eval import mask as mask_api

    found: list[dict[str, Any] | None] = [None] * len(sample.labels)
    if raw is not None and raw.masks:
        for row, mask in zip(raw.rows.tolist(), raw.masks, strict=True):
            if row >= 0:
                found[row] = mask
        return found
    if sample.instances is None:
        return found
    instances = sample.instances.as_subclass(Tensor).numpy()
    for row in range(len(found)):
        own = np.asfortranarray(instances == row + 1, dtype=np.uint8)
        found[row] = dict(mask_api.encode(own)) if own.any() else None
    return found
