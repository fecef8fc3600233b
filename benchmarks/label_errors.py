"""Planted label errors found by disagreements, and pseudo-labels for unlabelled images: what both earn.

Of the training set, 5 % of the objects get an error of one of six kinds: missing, invented, moved, box too large, mask
too small, two objects as one. A network is trained on these labels; its disagreements on the same images are matched
with the errors. Then it is trained again with the labels of some images corrected: those of the highest rank, or random
ones. Second, a network is trained on a quarter of the images, labels the rest, and is trained on both. All runs take
equal steps. Run: ``python benchmarks/label_errors.py --data path/to/nuclei --output runs/label_errors``.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from faster_coco_eval import mask as mask_api

ROOT = Path(__file__).resolve().parents[1]
SHARE, FIRST = 0.05, 50
KINDS = ("missing", "invented", "moved", "box too large", "mask too small", "two as one")
Box = tuple[float, float, float, float]


def read(annotation: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return the mask of an annotation, uint8 [H, W]."""
    encoding = annotation["segmentation"]
    if isinstance(encoding["counts"], list):
        encoding = mask_api.frPyObjects([encoding], *encoding["size"])[0]
    return np.asarray(mask_api.decode(encoding))


def draw(annotation: dict[str, Any], mask: np.ndarray[Any, Any], box: bool = True) -> None:
    """Give an annotation another mask, and its box unless the box stays."""
    encoding = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    annotation["segmentation"] = {"size": list(encoding["size"]), "counts": encoding["counts"].decode()}
    if box:
        annotation["bbox"] = [float(side) for side in np.ravel(mask_api.toBbox([encoding]))]


def shifted(mask: np.ndarray[Any, Any], x: int, y: int) -> np.ndarray[Any, Any]:
    """Return a mask moved by whole pixels; what leaves the image is lost."""
    moved = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    rows, columns = rows + y, columns + x
    kept = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    moved[rows[kept], columns[kept]] = 1
    return moved


def plant(clean: dict[str, Any], seed: int) -> tuple[dict[str, Any], list[tuple[int, Box, str]]]:
    """Return the labels with errors, and for each error the image, the box and the kind."""
    dice = random.Random(seed)
    dirty = copy.deepcopy(clean)
    rows = {row["id"]: row for row in dirty["annotations"]}
    chosen = dice.sample(sorted(rows), round(SHARE * len(rows)))
    errors: list[tuple[int, Box, str]] = []
    for position, number in enumerate(chosen):
        if number not in rows:  # joined with another one
            continue
        row, kind = rows[number], KINDS[position % len(KINDS)]
        x, y, w, h = row["bbox"]
        place: Box = (x, y, x + w, y + h)
        mask = read(row)
        if kind == "missing":
            del rows[number]
        elif kind == "invented":
            copied = copy.deepcopy(row)
            copied["id"] = 10**6 + number
            moved = shifted(mask, dice.randint(-120, 120), dice.randint(-120, 120))
            if moved.sum() < 20:
                continue
            draw(copied, moved)
            rows[copied["id"]] = copied
            x, y, w, h = copied["bbox"]
            place = (x, y, x + w, y + h)
        elif kind == "moved":
            moved = shifted(mask, dice.choice([-1, 1]) * max(4, round(w * 0.6)), 0)
            if moved.sum() < 20:
                continue
            draw(row, moved)
        elif kind == "box too large":
            row["bbox"] = [max(0.0, x - w / 2), max(0.0, y - h / 2), 2 * w, 2 * h]
        elif kind == "mask too small":
            corner = np.zeros_like(mask)
            corner[int(y) : int(y + h / 3) + 1, int(x) : int(x + w / 3) + 1] = 1
            draw(row, corner, box=False)
        else:
            others = [r for r in rows.values() if r["image_id"] == row["image_id"] and r is not row]
            if not others:
                continue
            other = min(others, key=lambda r: abs(r["bbox"][0] - x) + abs(r["bbox"][1] - y))
            draw(row, np.maximum(mask, read(other)))
            del rows[other["id"]]
            x, y, w, h = row["bbox"]
            place = (x, y, x + w, y + h)
        errors.append((row["image_id"], place, kind))
    dirty["annotations"] = list(rows.values())
    return dirty, errors


def corrected(dirty: dict[str, Any], clean: dict[str, Any], images: set[int]) -> dict[str, Any]:
    """Return the labels with those of some images corrected."""
    rows = [row for row in dirty["annotations"] if row["image_id"] not in images]
    rows += [row for row in clean["annotations"] if row["image_id"] in images]
    return dirty | {"annotations": rows}


def only(labels: dict[str, Any], images: set[int]) -> dict[str, Any]:
    """Return the labels of some images."""
    return labels | {
        "images": [image for image in labels["images"] if image["id"] in images],
        "annotations": [row for row in labels["annotations"] if row["image_id"] in images],
    }


class Runs:
    """Trains and evaluates by the command line, each run once.

    Args:
        options: The options of the script.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.output: Path = options.output
        self.output.mkdir(parents=True, exist_ok=True)

    def call(self, *words: str) -> None:
        """Run a subcommand."""
        subprocess.run([sys.executable, "-m", "ocrnet_pl", *words], check=True, cwd=ROOT)

    def source(self, name: str, labels: dict[str, Any]) -> dict[str, Any]:
        """Write labels, and return their source."""
        path = self.output / f"{name}.json"
        path.write_text(json.dumps(labels))
        data = self.options.data.resolve()
        return {
            "class_path": "CocoInstances",
            "init_args": {"images": str(data / "train"), "annotations": str(path.resolve())},
        }

    def config(self, name: str, train: dict[str, Any], val: dict[str, Any] | None = None) -> list[str]:
        """Write the config of a run, and return the words that name it."""
        size = self.options.size
        data: dict[str, Any] = {"train": train, "size": size, "scales": [1.0], "num_workers": 0, "cache": False}
        data["batch_size"] = self.options.batch_size
        data["train_transforms"] = [{"class_path": "RandomFlip"}, {"class_path": "RandomRotate90"}]
        if val is not None:
            data["val"] = val
        else:
            images, labels = self.options.data.resolve() / "val", self.options.data.resolve() / "instances_val.json"
            data["val"] = {
                "class_path": "CocoInstances",
                "init_args": {"images": str(images), "annotations": str(labels)},
            }
        trainer = {"max_steps": self.options.steps, "max_epochs": -1, "default_root_dir": str(self.output / "runs")}
        trainer |= {"check_val_every_n_epoch": None, "val_check_interval": self.options.steps}
        path = self.output / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, "data": data, "trainer": trainer}))
        return ["--config", "configs/nuclei.yaml", "--config", str(path.resolve()), "--version", "run"]

    def fit(self, name: str, train: dict[str, Any]) -> dict[str, float]:
        """Train, and return the figures of the last validation."""
        folder = self.output / "runs" / name / "run"
        if not (folder / "summary.json").is_file():
            self.call("fit", *self.config(name, train), "--checkpoint.save_last", "true")
        summary = json.loads((folder / "summary.json").read_text())
        return {key: summary["last"][f"val/{key}"] for key in ("map", "mask_map", "miou")}

    def last(self, name: str) -> str:
        """Return the checkpoint of a run."""
        return str((self.output / "runs" / name / "run" / "checkpoints" / "last.ckpt").resolve())


def overlap(one: Box, two: Box) -> float:
    """Return the part of the smaller box that the other one covers."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, two))
    return max(0.0, width) * max(0.0, height) / smaller if smaller > 0 else 0.0


def label_errors(runs: Runs, clean: dict[str, Any]) -> dict[str, Any]:
    """Plant errors, rank them, and correct some images."""
    seed, count = runs.options.seed, runs.options.images
    dirty, errors = plant(clean, seed)
    source = runs.source("dirty", dirty)
    figures = {"with errors": runs.fit("dirty", source), "clean": runs.fit("clean", runs.source("clean", clean))}
    folder = runs.output / "runs" / "ranking" / "run"
    if not (folder / "disagreements.csv").is_file():
        # Boxes of disagreements are then in pixels of the original images, as those of the errors are.
        words = [*runs.config("ranking", source, source), "--data.evaluate_at", "original"]
        runs.call("validate", *words, "--ckpt_path", runs.last("dirty"), "--disagreements.rows", "2000")
    with (folder / "disagreements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_name = {image["file_name"]: image["id"] for image in clean["images"]}

    def hit(row: dict[str, str]) -> str | None:
        x1, y1, x2, y2 = map(float, row["box"].split())
        image = by_name[Path(row["image"]).name]
        found = [kind for number, box, kind in errors if number == image and overlap((x1, y1, x2, y2), box) > 0.5]
        return found[0] if found else None

    def precision(chosen: list[dict[str, str]]) -> float | None:
        return sum(hit(row) is not None for row in chosen[:FIRST]) / len(chosen[:FIRST]) if chosen else None

    against = [row for row in rows if row["labels"].startswith("neither")]
    ranked = list(dict.fromkeys(by_name[Path(row["image"]).name] for row in [*against, *rows]))
    every = sorted(by_name.values())
    ranked += [image for image in every if image not in ranked]
    chosen = {"first by rank": set(ranked[:count]), "random": set(random.Random(seed).sample(every, count))}
    for name, images in chosen.items():
        labels = corrected(dirty, clean, images)
        run = f"corrected {name}".replace(" ", "_")
        figures[f"{count} images corrected, {name}"] = runs.fit(run, runs.source(run, labels))
    in_images = {name: sum(image in images for image, _, _ in errors) for name, images in chosen.items()}
    kinds = {kind: sum(hit(row) == kind for row in rows[:FIRST]) for kind in KINDS}
    return {
        "errors": len(errors),
        "rows": len(rows),
        f"precision at {FIRST}": precision(rows),
        f"precision at {FIRST}, rows against which the labels are": precision(against),
        "share of objects with errors": len(errors) / len(clean["annotations"]),
        "kinds among the first": kinds,
        "errors in the corrected images": in_images,
        "figures": figures,
    }


def pseudo_labels(runs: Runs, clean: dict[str, Any]) -> dict[str, Any]:
    """Train on a quarter of the images, label the others, and train on both."""
    every = sorted(image["id"] for image in clean["images"])
    labelled = set(random.Random(runs.options.seed).sample(every, len(every) // 4))
    source = runs.source("quarter", only(clean, labelled))
    figures = {"a quarter labelled": runs.fit("quarter", source)}
    folder, labels = runs.output / "unlabelled", runs.output / "pseudo"
    if not labels.is_dir():
        folder.mkdir(exist_ok=True)
        for image in clean["images"]:
            link = folder / image["file_name"]
            if image["id"] not in labelled and not link.is_symlink():
                link.symlink_to((runs.options.data / "train" / image["file_name"]).resolve())
        words = ["--ckpt_path", runs.last("quarter"), "--data.predict_path", str(folder.resolve())]
        runs.call("auto-label", *runs.config("quarter", source)[:4], *words, "--output", str(labels.resolve()))
    mixture = yaml.safe_load((labels / "train.yaml").read_text())["data"]["train"]
    figures["and the others by pseudo-labels"] = runs.fit("with_pseudo", mixture)
    content = json.loads((labels / "instances.json").read_text())
    certain = sum(not row["iscrowd"] for row in content["annotations"])
    return {
        "images": len(content["images"]),
        "certain": certain,
        "doubtful": len(content["annotations"]) - certain,
        "true": len(only(clean, set(every) - labelled)["annotations"]),
        "figures": figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the nuclei")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs; finished ones are used again")
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    parser.add_argument("--size", type=int, default=128, help="input size")
    parser.add_argument("--batch_size", type=int, default=8, help="images per step")
    parser.add_argument("--images", type=int, default=40, help="number of images that are corrected")
    parser.add_argument("--seed", type=int, default=0, help="seed of the errors and of the choices")
    options = parser.parse_args()
    clean = json.loads((options.data / "instances_train.json").read_text())
    runs = Runs(options)
    results: dict[str, Any] = {"steps": options.steps, "size": options.size}
    for name, measure in (("label errors", label_errors), ("pseudo-labels", pseudo_labels)):
        results[name] = measure(runs, clean)
        (options.output / "results.json").write_text(json.dumps(results, indent=2))
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
