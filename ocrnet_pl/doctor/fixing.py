"""Writing a corrected copy as COCO instances; the originals are only read."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ocrnet_pl.data.exporting.coco_annotation import coco_annotation
from ocrnet_pl.data.loading.lost_workers import TakenUp, watched
from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.doctor.box_formats import Reading
from ocrnet_pl.doctor.boxes import degenerate, duplicates
from ocrnet_pl.doctor.examine import Split, as_raw
from ocrnet_pl.doctor.findings import Level, shown_path
from ocrnet_pl.doctor.masks import mask_bounds, shift
from ocrnet_pl.doctor.orientation import header_of, rotation_fault
from ocrnet_pl.doctor.result import IMAGES_PER_WORKER, Examined, Result
from ocrnet_pl.drawing.progress import Progress, Work
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.storage.files import complete_folder
from ocrnet_pl.structures import Sample


@dataclass(frozen=True)
class Fixed:
    """One image of the copy.

    Attributes:
        index: Index in its split.
        path: Path of the original image.
        size: (height, width) in pixels.
        pixels: A PNG, if the original file cannot be used; None otherwise.
        boxes: float64 [N, 4], xyxy.
        labels: int64 [N].
        crowd: bool [N].
        masks: COCO run-length encodings, None for a box without a mask.
        changes: Number of changes of each kind.
    """

    index: int
    path: str
    size: tuple[int, int]
    pixels: bytes | None
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    masks: list[dict[str, Any] | None]
    changes: Counter[str]


class Fixer(Dataset[Fixed | None]):
    """Corrects the images of a split, one at a time; None for one that cannot be read.

    Args:
        split: The split.
        reading: The format that the boxes are really in; None if they are read correctly.

    Attributes:
        taken_up: Where loading processes record what they read; None without such processes.
    """

    def __init__(self, split: Split, reading: Reading | None) -> None:
        self.split = split
        self.reading = reading
        self.taken_up: TakenUp | None = None

    def __len__(self) -> int:
        return len(self.split.source)

    def __getitem__(self, index: int) -> Fixed | None:
        if self.taken_up is not None:
            self.taken_up.note(index)
        try:
            sample = self.split.source[index]
        except DataError:
            return None
        raw = self.split.raw_boxes(index) or as_raw(sample)
        changes: Counter[str] = Counter()
        boxes, masks = raw.boxes.copy(), _masks(raw, sample)
        if self.reading is not None and len(boxes):
            boxes = self.reading.convert(boxes, sample.size)
            changes["boxes converted to the right format"] += len(boxes)
        raw = _with_boxes(raw, boxes)
        bounds = mask_bounds(raw, sample)
        if shift(raw, bounds, sample, self.split.source.taxonomy) is not None:
            masks, bounds = [None] * len(boxes), np.full_like(bounds, np.nan)
            changes["images left without their shifted masks"] += 1
        masked = np.isfinite(bounds).all(1)
        loose = masked & ~raw.crowd & ~np.isclose(bounds, boxes, atol=1.0, equal_nan=True).all(1)
        boxes[loose] = bounds[loose]
        changes["boxes fitted to their masks"] += int(loose.sum())
        height, width = sample.size
        # Crowds keep their boxes, but no box may extend beyond the image.
        clipped = np.clip(boxes, 0, [width, height, width, height])
        bad = degenerate(clipped) | (clipped[:, 2:] - clipped[:, :2] < 1e-3).any(1)
        changes["degenerate or outside boxes dropped"] += int(bad.sum())
        changes["boxes clipped"] += int(((np.abs(clipped - boxes) > 1e-6).any(1) & ~bad).sum())
        keep = ~bad
        twice = [row for row, _ in duplicates(_with_boxes(raw, clipped)) if keep[row]]
        keep[twice] = False
        changes["duplicate boxes dropped"] += len(twice)
        pixels = None
        header = header_of(sample.path)
        fault = None if header is None else rotation_fault(sample, raw.boxes, header)
        if header is None:
            pixels = _png(sample.image.as_subclass(Tensor))
        elif fault is not None and fault[2]:
            # The labels belong to the stored pixels: written again, without the tag that would turn them.
            stored = read_image(sample.path, exif=False)
            if stored.shape[1:] == sample.size:
                pixels = _png(stored)
                changes["images written without their EXIF rotation"] += 1
        return Fixed(
            index,
            sample.path,
            sample.size,
            pixels,
            clipped[keep],
            raw.labels[keep],
            raw.crowd[keep],
            [mask for mask, kept in zip(masks, keep, strict=True) if kept],
            changes,
        )


def _with_boxes(raw: RawBoxes, boxes: NDArray[np.float64]) -> RawBoxes:
    return replace(raw, boxes=boxes)


def _masks(raw: RawBoxes, sample: Sample) -> list[dict[str, Any] | None]:
    """Return the masks as stored, or else those of the instance map."""
    if raw.masks or sample.instances is None:
        return list(raw.masks) or [None] * len(raw.boxes)
    from faster_coco_eval import mask as mask_api

    instances = sample.instances.numpy()
    masks: list[dict[str, Any] | None] = []
    for row in raw.rows:
        own = np.asfortranarray(instances == row + 1, dtype=np.uint8) if row >= 0 else None
        masks.append(dict(mask_api.encode(own)) if own is not None and own.any() else None)
    return masks


def _png(image: Tensor) -> bytes:
    channels = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    buffer = io.BytesIO()
    Image.fromarray(channels.permute(1, 2, 0).contiguous().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def check_target(folder: Path) -> None:
    """Check that a copy can be written there.

    Raises:
        DataError: The folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError.at(folder, "it exists and is not empty", advice="give --fix a new folder")


def write_copy(result: Result, folder: Path, workers: int, console: Console) -> None:
    """Write the corrected copy: per split a folder of images and a JSON, and ``data.yaml`` to train on it.

    The folder appears when it is complete. Images are hard links if the file system allows it, else copies.

    Args:
        result: Result of the check.
        folder: Path of a new or empty folder.
        workers: Number of loading processes; 0 for none.
        console: Console for the summary.

    Raises:
        DataError: No split could be opened, or a split has no readable image.
    """
    if not result.examined:
        raise DataError("--fix: no split could be opened, so there is nothing to copy")
    check_target(folder)
    names: dict[str, int] = {}
    for entry in result.examined:
        for category in entry.split.source.taxonomy.detection_categories:
            names.setdefault(category.name, len(names) + 1)
    changes: Counter[str] = Counter()
    with complete_folder(folder) as unfinished:
        with Progress() as progress:
            for entry in result.examined:
                changes["entries left out that the reader refuses"] += entry.split.refused
                work = progress.add(f"copying {entry.split.name}", len(entry.split.source))
                _write_split(entry, unfinished, names, workers, changes, work)
        (unfinished / "data.yaml").write_text(_config(result, folder), encoding="utf-8")
    for what, count in sorted(changes.items()):
        if count:
            console.print(f"  {what}: {count:,}")
    shown = shown_path(str(folder))
    console.print(f"corrected copy: {shown}; train on it with --config {shown}/data.yaml", soft_wrap=True)
    if result.log.total(Level.ERROR):
        console.print("Check the copy as well: not every fault can be corrected automatically.")


def _write_split(
    entry: Examined, folder: Path, names: dict[str, int], workers: int, changes: Counter[str], work: Work
) -> None:
    split = entry.split
    (folder / split.name).mkdir()
    fixer = Fixer(split, entry.reading)
    workers = min(workers, len(split.source) // IMAGES_PER_WORKER)
    fixer.taken_up = TakenUp(workers)
    loader: DataLoader[Fixed | None] = DataLoader(fixer, batch_size=8, num_workers=workers, collate_fn=list)
    ids = [names[category.name] for category in split.source.taxonomy.detection_categories]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    taken: set[str] = set()
    for fixed in itertools.chain.from_iterable(watched(loader, fixer.taken_up, split.source)):
        work.advance()
        if fixed is None:
            changes["images left out that cannot be used"] += 1
            continue
        changes.update(fixed.changes)
        number = len(images) + 1
        height, width = fixed.size
        name = _place(fixed, folder / split.name, taken)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for box, label, crowd, mask in zip(fixed.boxes, fixed.labels, fixed.crowd, fixed.masks, strict=True):
            annotations.append(coco_annotation(box, ids[label], bool(crowd), mask))
            annotations[-1] |= {"id": len(annotations), "image_id": number}
    if not images:
        raise DataError(f"--fix: data.{split.name} has no readable image")
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in names.items()],
    }
    (folder / f"instances_{split.name}.json").write_text(json.dumps(content), encoding="utf-8")


def _place(fixed: Fixed, folder: Path, taken: set[str]) -> str:
    """Put an image into the folder and return its name there."""
    original = Path(fixed.path)
    name = original.name if fixed.pixels is None else f"{original.stem}.png"
    if name in taken:
        name = f"{fixed.index:06d}_{name}"
    taken.add(name)
    target = folder / name
    if fixed.pixels is not None:
        target.write_bytes(fixed.pixels)
        return name
    try:
        os.link(original.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(original, target)
    return name


def _config(result: Result, folder: Path) -> str:
    """Return the settings that name the copy as the data."""
    data: dict[str, Any] = {"root": str(folder.resolve())}
    for entry in result.examined:
        arguments: dict[str, Any] = {
            "images": entry.split.name,
            "annotations": f"instances_{entry.split.name}.json",
            "semantic": bool(entry.statistics.maps),
        }
        data[entry.split.name] = {"class_path": "CocoInstances", "init_args": arguments}
    return yaml.safe_dump({"data": data}, sort_keys=False)
