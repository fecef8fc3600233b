"""Drawn scenes of five classes, fine-tuned to seven: how many steps it saves, and what the old classes lose.

Every seed trains a network on five shapes (*old*), then on all seven: from nothing (*scratch*) and, with a third of
the steps, from the old network (*tuned*). Then the old network learns the two new shapes from scenes in which only
these and the landscape are labelled: with ``init_keep`` alone (*kept*) and with the old network as the teacher
(*taught*). All are evaluated on the same scenes with all seven shapes; for the old network the new ones are neither
objects nor false alarms. Finished runs in the folder are used as they are. Run:
``python benchmarks/fine_tuning.py --folder runs/fine_tuning``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from compare import run_of
from rich.console import Console
from rich.table import Table

from ocrnet_pl.data.sources.synthetic import DEFAULT_SHAPES, STUFF
from ocrnet_pl.report.runs import Run
from ocrnet_pl.storage.files import write_json

OLD, NEW = list(DEFAULT_SHAPES), ["cross", "crescent"]
SHARE = 3
"""How many times the steps of fine-tuning are those of a training from nothing."""
MOST_LOST = {"AP": 0.01, "IoU": 0.005}


def scenes(seed: int, length: int, shapes: list[str]) -> dict[str, Any]:
    """Return a source of drawn scenes."""
    return {"class_path": "SyntheticSource", "init_args": {"seed": seed, "length": length, "shapes": shapes}}


def sources() -> dict[str, dict[str, Any]]:
    """Return the training and validation sources of each run, by name."""
    everything = [*NEW, *OLD]
    train, val = scenes(1, 1024, everything), scenes(2, 128, everything)
    unlabelled = {"drop": OLD, "source": scenes(3, 1024, everything)}
    without_new = {"class_path": "Remapped", "init_args": {"ignore": NEW, "source": val}}
    new_alone = {"class_path": "Remapped", "init_args": unlabelled}
    return {
        "old": {"train": scenes(1, 1024, OLD), "val": scenes(2, 128, OLD)},
        "scratch": {"train": train, "val": val},
        "new": {"train": new_alone, "val": {**new_alone, "init_args": {**unlabelled, "source": val}}},
        "without new": {"train": None, "val": without_new},
        "all": {"train": None, "val": val},
    }


def written(folder: Path) -> dict[str, Path]:
    """Write the sources as configs, and return their files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, data in sources().items():
        files[name] = folder / f"{name.replace(' ', '_')}.yaml"
        files[name].write_text(yaml.safe_dump({"data": data}, sort_keys=False))
    return files


def figures(content: Mapping[str, Any], shapes: list[str]) -> dict[str, float]:
    """Return the mean AP and IoU of some classes from a summary."""
    last = content["last"]
    return {
        "AP": statistics.fmean(last[f"val/map_per_class/{name}"] for name in shapes),
        "IoU": statistics.fmean(last[f"val/iou_per_class/{name}"] for name in [*STUFF, *shapes]),
    }


def of_seed(seed: int, folder: Path, steps: int, files: Mapping[str, Path], words: list[str]) -> dict[str, Any]:
    """Train and evaluate everything with one seed, and return the figures by run."""

    def fit(name: str, data: str, length: int, *more: str) -> Run:
        # The figures of the end are what counts.
        ending = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(length)]
        ending += ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", str(length)]
        configs = ["--config", "quickstart", "--config", str(files[data])]
        run = run_of(name, seed, folder, [*configs, *words, *ending, *more])
        run.execute()
        return run

    def validate(run: Run, data: str) -> dict[str, Any]:
        place = folder / f"{run.folder.parent.name}_{data.replace(' ', '_')}" / run.folder.name
        checkpoint = str(run.folder / "checkpoints" / "last.ckpt")
        own = ("--trainer.default_root_dir", str(folder), "--name", place.parent.name, "--version", place.name)
        command = ("-m", "ocrnet_pl", "validate", "--ckpt_path", checkpoint, "--config", str(files[data]), *own)
        return Run(f"{place.parent.name}, seed {seed}", place, command).execute()

    short = steps // SHARE
    old = fit("old", "old", steps)
    start = ["--init_from", str(old.folder / "checkpoints" / "last.ckpt")]
    teacher = ["--model.teacher.checkpoint", start[1]]
    runs = {
        "scratch": fit("scratch", "scratch", steps),
        "tuned": fit("tuned", "scratch", short, *start),
        "kept": fit("kept", "new", short, *start, "--init_keep", "true"),
        "taught": fit("taught", "new", short, *start, "--init_keep", "true", *teacher),
    }
    before = validate(old, "without new")
    found: dict[str, Any] = {"old": {"old classes": figures(before, OLD)}}
    for name, run in runs.items():
        content = validate(run, "all")
        found[name] = {"old classes": figures(content, OLD), "new classes": figures(content, NEW)}
        found[name]["mAP"] = content["last"]["val/map"]
    return found


def mean(found: list[dict[str, Any]], run: str, *keys: str) -> float:
    """Return the mean of a figure over the seeds."""
    values = []
    for own in found:
        value: Any = own[run]
        for key in keys:
            value = value[key]
        values.append(value)
    return statistics.fmean(values)


def main() -> None:
    """Train all, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1024, help="of the trainings from nothing")
    parser.add_argument("arguments", nargs="*", help="what train.py fit takes besides, after --")
    options = parser.parse_args()
    files = written(options.folder)
    found = [of_seed(seed, options.folder, options.steps, files, options.arguments) for seed in options.seeds]
    table = Table("", "steps", *(f"{kind}, {figure}" for kind in ("old", "new") for figure in MOST_LOST), "mAP")
    for name in found[0]:
        cells = [
            f"{mean(found, name, kind, figure):.4f}" if kind in found[0][name] else "-"
            for kind in ("old classes", "new classes")
            for figure in MOST_LOST
        ]
        overall = f"{mean(found, name, 'mAP'):.4f}" if "mAP" in found[0][name] else "-"
        table.add_row(name, str(options.steps // (1 if name in ("old", "scratch") else SHARE)), *cells, overall)
    Console(width=120).print(table)
    ahead = mean(found, "tuned", "mAP") - mean(found, "scratch", "mAP")
    print(f"tuned against scratch, with 1/{SHARE} of the steps: {ahead:+.4f} mAP ({'met' if ahead >= 0 else 'missed'})")
    for name in ("kept", "taught"):
        for figure, most in MOST_LOST.items():
            lost = mean(found, "old", "old classes", figure) - mean(found, name, "old classes", figure)
            verdict = "met" if lost <= most else "missed"
            print(f"{name}: the old classes lose {lost:.4f} {figure} (target {most}: {verdict})")
    write_json(options.folder / "fine_tuning.json", {"seeds": options.seeds, "steps": options.steps, "runs": found})


if __name__ == "__main__":
    main()
