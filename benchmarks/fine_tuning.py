"""Drawn scenes of five classes, fine-tuned to seven: how many steps it saves, and what the old classes lose.

Every seed trains a network on five shapes (*old*), then on all seven: from nothing (*scratch*) and, with a third of
the steps, from the old network (*tuned*). Then the old network learns the two new shapes from scenes in which only
these and the landscape are labelled: without anything that keeps the old ones (*kept*, with ``init_keep`` alone) and
with the old network as the teacher (*taught*).

All are evaluated on the same scenes with all seven shapes, in two ways. What the old classes lose is measured with the
new shapes as neither objects nor false alarms, for all networks alike, since the old one cannot know them. The other
figures count everything, so that an old class taken for a new one, or the reverse, is a mistake. Finished runs in the
folder are used as they are. Run: ``python benchmarks/fine_tuning.py --folder runs/fine_tuning``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import yaml
from compare import run_of
from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.synthetic import DEFAULT_SHAPES, STUFF, SyntheticSource
from ocrnet_pl.data.sources.wrappers.remapped import Remapped
from ocrnet_pl.data.sources.wrappers.widened import Widened
from ocrnet_pl.report.runs import Run
from ocrnet_pl.storage.files import write_json
from ocrnet_pl.training.task import OCRNetTask

OLD, NEW = list(DEFAULT_SHAPES), ["cross", "crescent"]
SHARE = 3
"""How many times the steps of fine-tuning are those of a training from nothing."""
EVERYTHING = [*NEW, *OLD]
MOST_LOST = {"old AP": 0.01, "old IoU": 0.005}


def scenes(seed: int, length: int, size: int, shapes: list[str]) -> dict[str, Any]:
    """Return a source of drawn scenes for a config."""
    settings = {"seed": seed, "length": length, "size": size, "shapes": shapes}
    return {"class_path": "SyntheticSource", "init_args": settings}


def written(folder: Path, size: int) -> dict[str, Path]:
    """Write the data of each training as a config, and return the files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    train, val = scenes(1, 1024, size, EVERYTHING), scenes(2, 128, size, EVERYTHING)
    unlabelled = [
        {"class_path": "Remapped", "init_args": {"drop": OLD, "source": source}}
        for source in (scenes(3, 1024, size, EVERYTHING), val)
    ]
    sources = {
        "old": (scenes(1, 1024, size, OLD), scenes(2, 128, size, OLD)),
        "scratch": (train, val),
        "new": unlabelled,
    }
    files = {}
    for name, (training, validation) in sources.items():
        files[name] = folder / f"{name}.yaml"
        data = {"train": training, "val": validation, "size": size}
        files[name].write_text(yaml.safe_dump({"data": data}, sort_keys=False))
    return files


def evaluated(run: Run, source: Source, size: int) -> OCRNetTask:
    """Return the network of a run, evaluated on a source that may lack some of its classes."""
    task = OCRNetTask.load_from_checkpoint(run.folder / "checkpoints" / "last.ckpt")
    trainer = Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    data = JointDataModule(val=Widened(source, task.taxonomy), size=size, batch_size=8, num_workers=0)
    trainer.validate(task, data, verbose=False)
    return task


def of_classes(task: OCRNetTask, figure: str, names: list[str]) -> float:
    """Return the mean of a figure of some classes in the last evaluation."""
    measured = task.trainer.callback_metrics
    return statistics.fmean(float(measured[f"val/{figure}_per_class/{name}"]) for name in names)


def iou_of_true(task: OCRNetTask, names: list[str]) -> float:
    """Return the mean IoU of some classes on the pixels that truly are of one of them, whatever they are taken for."""
    matrix = task.confusion
    assert isinstance(matrix, Tensor)
    places = [category.semantic for category in task.taxonomy.semantic_categories if category.name in names]
    matrix = matrix[places].double()
    hit = matrix[range(len(places)), places]
    return float((hit / (matrix[:, places].sum(0) + matrix.sum(1) - hit)).mean())


def measured(run: Run, size: int) -> dict[str, float]:
    """Return the figures of a run, which are kept in its folder."""
    place = run.folder / "figures.json"
    if not place.exists():
        write_json(place, evaluate(run, size))
    figures: dict[str, float] = json.loads(place.read_text(encoding="utf-8"))
    return figures


def evaluate(run: Run, size: int) -> dict[str, float]:
    """Evaluate a run in both ways, and return the figures."""
    val = SyntheticSource(seed=2, length=128, size=size, shapes=EVERYTHING)
    task = evaluated(run, Remapped(val, ignore=NEW), size)
    found = {"old AP": of_classes(task, "map", OLD)}
    if len(task.taxonomy.detection_categories) == len(OLD):
        return found | {"old IoU": iou_of_true(task, [*STUFF, *OLD])}
    task = evaluated(run, val, size)
    found["old IoU"] = iou_of_true(task, [*STUFF, *OLD])
    for kind, names in (("old", OLD), ("new", NEW)):
        found[f"all, {kind} AP"] = of_classes(task, "map", names)
        found[f"all, {kind} IoU"] = of_classes(task, "iou", names)
    return found | {"mAP": float(task.trainer.callback_metrics["val/map"])}


def of_seed(seed: int, options: argparse.Namespace, files: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Train and evaluate everything with one seed, and return the figures by run."""

    def fit(name: str, data: str, length: int, *more: str) -> Run:
        # The figures of the end are what counts.
        ending = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(length)]
        ending += ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", str(length)]
        configs = ["--config", "quickstart", "--config", str(files[data])]
        run = run_of(name, seed, options.folder, [*configs, *options.arguments, *ending, *more])
        run.execute()
        return run

    short = options.steps // SHARE
    old = fit("old", "old", options.steps)
    start = ["--init_from", str(old.folder / "checkpoints" / "last.ckpt")]
    keep = [*start, "--init_keep", "true", "--model.optimizer.init_args.lr", str(options.keeping_lr)]
    runs = {
        "old": old,
        "scratch": fit("scratch", "scratch", options.steps),
        "tuned": fit("tuned", "scratch", short, *start),
        "kept": fit("kept", "new", short, *keep),
        "taught": fit("taught", "new", short, *keep, "--model.teacher.checkpoint", start[1]),
    }
    return {name: measured(run, options.size) for name, run in runs.items()}


def main() -> None:
    """Train all, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1024, help="of the trainings from nothing")
    parser.add_argument("--size", type=int, default=160, help="side of the scenes in pixels")
    parser.add_argument("--keeping-lr", type=float, default=5e-4, help="learning rate where the old classes are kept")
    parser.add_argument("arguments", nargs="*", help="what train.py fit takes besides, after --")
    options = parser.parse_args()
    files = written(options.folder, options.size)
    found = [of_seed(seed, options, files) for seed in options.seeds]
    means = {
        name: {figure: statistics.fmean(own[name][figure] for own in found) for figure in figures}
        for name, figures in found[0].items()
    }
    table = Table("", "steps", *means["tuned"])
    for name, figures in means.items():
        steps = options.steps // (1 if name in ("old", "scratch") else SHARE)
        cells = (f"{figures[figure]:.4f}" if figure in figures else "-" for figure in means["tuned"])
        table.add_row(name, str(steps), *cells)
    Console(width=140).print(table)
    ahead = means["tuned"]["mAP"] - means["scratch"]["mAP"]
    print(f"tuned against scratch, with 1/{SHARE} of the steps: {ahead:+.4f} mAP ({'met' if ahead >= 0 else 'missed'})")
    for name in ("kept", "taught"):
        for figure, most in MOST_LOST.items():
            lost = means["old"][figure] - means[name][figure]
            print(f"{name}: lost {lost:.4f} {figure} (at most {most}: {'met' if lost <= most else 'missed'})")
    write_json(options.folder / "fine_tuning.json", {"seeds": options.seeds, "steps": options.steps, "runs": found})


if __name__ == "__main__":
    main()
