"""Nuclei with few images: a start from drawn scenes, from ImageNet and from nothing, as a table and a curve.

All trainings are those of ``configs/nuclei.yaml`` with images of half their size, smaller crops, no frozen stages and
equal steps. A seed draws its own images, of which a smaller number is always a part of a larger one, and all starts
train on the same. The checkpoint of drawn scenes begins at random weights. Finished runs in the folder are used as they
are. Run:
``python benchmarks/low_data.py --data path/to/nuclei --folder runs/low_data --picture low_data.png``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from compare import run_of
from rich.console import Console
from rich.table import Table

from ocrnet_pl.drawing.plots import add_legend, new_figure, save_figure, style_axes
from ocrnet_pl.report.runs import Run
from ocrnet_pl.report.statistics import paired_difference
from ocrnet_pl.storage.files import write_json

SIZE, CROP = 128, 64
"""Sides of the images, half of what they have, and of the crops from them: a step is cheap."""
RANDOM = ["--model.encoder.init_args.weights", "null", "--model.encoder.init_args.weights_by_order", "false"]
STARTS = ("drawn scenes", "ImageNet", "nothing")
FIGURES = {"val/map": "box mAP", "val/miou": "mIoU"}

Found = dict[str, dict[int, list[dict[str, Any]]]]
"""What the runs wrote at their ends, by start and number of images, one per seed."""


def part(images: int, total: int, seed: int) -> dict[str, Any]:
    """Return the training data with some of the nuclei images."""
    share = images / total
    parts = {"used": share, "left": 1 - share} if images < total else {"used": 1.0}
    nuclei = {"images": "train", "annotations": "instances_train.json"}
    source = {"class_path": "CocoInstances", "init_args": nuclei}
    split = {"part": "used", "parts": parts, "seed": seed, "source": source}
    return {"train": {"class_path": "Split", "init_args": split}}


def drawn() -> dict[str, Any]:
    """Return training and validation data of drawn scenes."""
    source = "SyntheticSource"
    return {
        "train": {"class_path": source, "init_args": {"length": 1024, "seed": 1, "size": SIZE}},
        "val": {"class_path": source, "init_args": {"length": 64, "seed": 2, "size": SIZE}},
    }


def content(data: Mapping[str, Any]) -> str:
    """Return the config of some data, cut into crops without scaling."""
    factor = {"minimum": SIZE / CROP, "maximum": SIZE / CROP}
    cut = [{"class_path": "RandomScaleJitter", "init_args": factor}]
    turned = [{"class_path": "RandomFlip"}, {"class_path": "RandomRotate90"}, {"class_path": "ColorJitter"}]
    crops = {"size": SIZE, "scales": [CROP / SIZE], "train_transforms": cut + turned}
    return yaml.safe_dump({"data": crops | data}, sort_keys=False)


def prepared(name: str, seed: int, folder: Path, steps: int, data: Mapping[str, Any], words: list[str]) -> Run:
    """Return a training that is evaluated at its end."""
    file = folder / name.replace(", ", "__").replace(" ", "_") / f"seed_{seed}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content(data), encoding="utf-8")
    ending = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps)]
    ending += ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", str(steps)]
    whole = ["--model.encoder.init_args.frozen_stages", "0"]
    return run_of(name, seed, folder, ["--config", "nuclei", "--config", str(file), *whole, *ending, *words])


def trainings(options: argparse.Namespace) -> tuple[Run, dict[tuple[str, int, int], Run]]:
    """Return the training on drawn scenes, and those on nuclei by start, number of images and seed."""
    total = len(json.loads((options.data / "instances_train.json").read_text(encoding="utf-8"))["images"])
    if not all(0 < images <= total for images in options.images):
        raise SystemExit(f"--images: the data has {total} images, so expected 1 to {total}, got {options.images}")
    words = [*RANDOM, *options.arguments]
    scenes = prepared("drawn", options.seeds[0], options.folder, options.drawn_steps, drawn(), words)
    checkpoint = scenes.folder / "checkpoints" / "last.ckpt"
    starts = {"drawn scenes": [*RANDOM, "--init_from", str(checkpoint)], "ImageNet": [], "nothing": RANDOM}
    others = {}
    for seed in options.seeds:
        for images in options.images:
            data = part(images, total, seed)
            for start in STARTS:
                words = ["--data.root", str(options.data), *starts[start], *options.arguments]
                name = f"{start}, {images}"
                others[start, images, seed] = prepared(name, seed, options.folder, options.steps, data, words)
    return scenes, others


def values(found: Found, start: str, images: int, figure: str) -> list[float]:
    """Return a figure of each seed."""
    return [run["last"][figure] for run in found[start][images]]


def table(found: Found, figure: str, seeds: list[int], steps: int) -> Table:
    """Return means over the seeds, and what the other starts have over the last one with 95 % intervals."""
    shown = Table("images", *STARTS, title=f"{FIGURES[figure]} after {steps} steps, mean over seeds {seeds}")
    for images in found[STARTS[0]]:
        reference = values(found, STARTS[-1], images, figure)
        cells = []
        for start in STARTS:
            own = values(found, start, images, figure)
            cell = f"{statistics.fmean(own):.3f}"
            if start != STARTS[-1]:
                difference = paired_difference(own, reference)
                spread = "" if difference.half is None else f" ±{difference.half:.3f}"
                cell += f" ({difference.mean:+.3f}{spread})"
            cells.append(cell)
        shown.add_row(str(images), *cells)
    return shown


def draw(found: Found, picture: Path, steps: int) -> None:
    """Draw the figures over the number of images, each with the range of its seeds."""
    page = new_figure(4.4 * len(FIGURES), 3.4)
    for position, (figure, title) in enumerate(FIGURES.items(), 1):
        axes = page.add_subplot(1, len(FIGURES), position)
        for start in STARTS:
            images = list(found[start])
            runs = [values(found, start, number, figure) for number in images]
            (line,) = axes.plot(images, [statistics.fmean(own) for own in runs], marker="o", ms=4, label=start)
            lowest, highest = [min(own) for own in runs], [max(own) for own in runs]
            axes.fill_between(images, lowest, highest, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_xticks(images, map(str, images))
        axes.minorticks_off()
        style_axes(axes, f"{title} after {steps} steps", "images")
        add_legend(axes)
    save_figure(page, picture)


def main() -> None:
    """Train all, print the tables, draw the curve, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of nuclei")
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--images", type=int, nargs="+", default=[25, 50, 100, 200], help="numbers of images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150, help="number of steps on nuclei")
    parser.add_argument("--drawn-steps", type=int, default=600, help="number of steps on drawn scenes")
    parser.add_argument("--picture", type=Path, help="PNG of the curve")
    parser.add_argument("arguments", nargs="*", help="what train.py fit takes besides, after --")
    options = parser.parse_args()
    scenes, others = trainings(options)
    scenes.execute()
    found: Found = {start: {images: [] for images in options.images} for start in STARTS}
    for (start, images, _), run in others.items():
        found[start][images].append(run.execute())
    for figure in FIGURES:
        Console(width=120).print(table(found, figure, options.seeds, options.steps))
    if options.picture:
        draw(found, options.picture, options.steps)
    settings = {"seeds": options.seeds, "steps": options.steps, "drawn_steps": options.drawn_steps}
    write_json(options.folder / "low_data.json", {**settings, "runs": found})


if __name__ == "__main__":
    main()
