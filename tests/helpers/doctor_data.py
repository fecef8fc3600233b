"""A small clean data set on disk, for the tests of the data check to plant faults in."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.synthetic import DEFAULT_SHAPES, SyntheticSource
from ocrnet_pl.doctor.result import Recipe
from ocrnet_pl.doctor.run import run_check

SIZE = (96, 128)

Row = dict[str, str]


def write_clean(root: Path, size: tuple[int, int] = SIZE, lengths: tuple[int, int] = (24, 10)) -> Path:
    """Write drawn scenes as COCO instances: ``train/``, ``val/`` and a JSON for each."""
    for seed, (split, length) in enumerate(zip(("train", "val"), lengths, strict=True), 1):
        source = SyntheticSource(length=length, seed=seed, size=size, min_objects=4, min_size=0.15)
        (root / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(length):
            sample = source[index]
            name = f"{split}_{index:03d}.jpg"
            Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(root / split / name, quality=95)
            images.append({"id": 100 + index, "file_name": name, "height": size[0], "width": size[1]})
            for row, (box, label) in enumerate(zip(sample.boxes.tolist(), sample.labels.tolist(), strict=True)):
                code = rle.encode(np.asfortranarray(sample.instances.numpy() == row + 1, dtype=np.uint8))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": 100 + index,
                        "category_id": 10 + 3 * label,
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "area": float(rle.area(code)),
                        "iscrowd": 0,
                        "segmentation": {"size": list(size), "counts": code["counts"].decode()},
                    }
                )
        categories = [{"id": 10 + 3 * label, "name": name} for label, name in enumerate(DEFAULT_SHAPES)]
        save(root, split, {"images": images, "annotations": annotations, "categories": categories})
    return root


def load(root: Path, split: str = "train") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / f"instances_{split}.json").read_text())
    return content


def save(root: Path, split: str, content: dict[str, Any]) -> None:
    (root / f"instances_{split}.json").write_text(json.dumps(content))


def of_image(content: dict[str, Any], index: int) -> list[int]:
    """Return the places of the annotations of an image."""
    image_id = content["images"][index]["id"]
    return [i for i, entry in enumerate(content["annotations"]) if entry["image_id"] == image_id]


def pixels_of(entry: dict[str, Any]) -> np.ndarray:
    return np.asarray(rle.decode(entry["segmentation"])).astype(bool)


def set_pixels(entry: dict[str, Any], pixels: np.ndarray) -> None:
    code = rle.encode(np.asfortranarray(pixels, dtype=np.uint8))
    entry["segmentation"] = {"size": list(pixels.shape), "counts": code["counts"].decode()}


def rolled(pixels: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """Move pixels; what leaves the image is gone."""
    moved = np.zeros_like(pixels)
    height, width = pixels.shape
    source = pixels[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
    moved[max(0, dy) : max(0, dy) + source.shape[0], max(0, dx) : max(0, dx) + source.shape[1]] = source
    return moved


def config(root: Path, path: Path) -> Path:
    """Write a config for the data."""
    path.write_text(
        f"""
name: planted
data:
  root: {root}
  train:
    class_path: CocoInstances
    init_args: {{images: train, annotations: instances_train.json}}
  val:
    class_path: CocoInstances
    init_args: {{images: val, annotations: instances_val.json}}
  size: 128
  num_workers: 0
"""
    )
    return path


def recipe(root: Path, split: str, **more: Any) -> Recipe:
    """Return how to make the source of a split."""
    arguments = {"images": split, "annotations": f"instances_{split}.json", "root": str(root)} | more
    return Recipe(lambda **changes: CocoInstances(**(arguments | changes)), CocoInstances, arguments)


def run(
    recipes: dict[str, Recipe],
    output: Path,
    *,
    fix: Path | None = None,
    limit: int | None = None,
    workers: int = 0,
    **more: Any,
) -> int:
    """Run the check without the command line, whose parsers take longer than the check of so few images."""
    return run_check(
        recipes, output=output, fix=fix, limit=limit, input_size=(128, 128), workers=workers, title="planted", **more
    )


def findings(output: Path) -> list[Row]:
    """Return all findings of a check."""
    with (output / "findings.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def examine(root: Path, output: Path, **more: Any) -> list[Row]:
    """Check both splits and return the findings."""
    run({split: recipe(root, split) for split in ("train", "val")}, output, **more)
    return findings(output)


def above_note(found: list[Row]) -> list[Row]:
    return [row for row in found if row["level"] != "note"]


def check(*words: object) -> int:
    """Run the command line and return its status."""
    try:
        main(["check", *map(str, words)])
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0
