"""Half of the images with boxes only and half with masks only, against all labels and against each half alone.

The experiment is ``configs/formats/mixture.yaml``, whose two sources are the halves. All runs take equal steps, and
each task sees equally many labelled images per step in the mixture and alone. Run:
``python benchmarks/partial_labels.py --seeds 0 1 2 -- --data.root path/to/nuclei``.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PARTIAL, FULL, BOXES, MASKS = "half boxes, half masks", "all labels", "boxes of half", "masks of half"
METRICS = {"val/map": BOXES, "val/miou": MASKS}
TARGET = 0.95


def experiments(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the four experiments by name, made from the config of the partly labelled one."""
    sources = config["data"]["train"]["init_args"]["sources"]

    size = config["data"]["batch_size"]

    def variant(train: dict[str, Any], batch_size: int, **model: None) -> dict[str, Any]:
        changed = copy.deepcopy(config)
        changed["data"] |= {"train": train, "batch_size": batch_size}
        changed["model"] |= model
        return changed

    whole = sources["boxes"]["init_args"]["source"]["init_args"]["source"]
    return {
        PARTIAL: config,
        FULL: variant(whole, size),
        # Half a batch, as many images with their label as the mixture gives a task in each step.
        BOXES: variant(sources["boxes"], size // 2, segmentation=None),
        MASKS: variant(sources["masks"], size // 2, detection=None),
    }


def train(config: dict[str, Any], steps: int, arguments: list[str], seed: int, folder: Path) -> dict[str, float]:
    """Run one training and return its last figures."""
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(config)
    # Half of the images fill an epoch of half the steps: the steps, not the epochs, are made equal.
    config["trainer"] |= {"max_epochs": -1, "max_steps": steps, "check_val_every_n_epoch": None}
    config["trainer"]["val_check_interval"] = steps
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    command = [sys.executable, "-m", "ocrnet_pl", "fit", "--config", str(path), *arguments, f"--seed_everything={seed}"]
    subprocess.run([*command, f"--trainer.default_root_dir={folder}"], check=True)
    (summary,) = folder.rglob("summary.json")
    content = json.loads(summary.read_text())
    if content["steps"] != steps:
        raise RuntimeError(f"{folder}: {content['steps']} steps instead of {steps}")
    figures: dict[str, float] = dict(content["last"])
    figures["time_s"] = content["time_s"]
    return figures


def main() -> None:
    """Train all, then print a row an experiment and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=500, help="of each run; 500 are the 20 epochs of the config")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "formats" / "mixture.yaml")
    parser.add_argument("--folder", type=Path, help="where to keep the runs; by default they are removed")
    parser.add_argument("arguments", nargs="*", help="what train.py fit takes besides, after --")
    options = parser.parse_args()
    configs = experiments(yaml.safe_load(options.config.read_text()))
    results: dict[str, list[dict[str, float]]] = {name: [] for name in configs}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            for name, config in configs.items():
                folder = (options.folder or Path(temporary)) / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}"
                results[name].append(train(config, options.steps, options.arguments, seed, folder))

    print(f"\n{options.steps} steps, seeds {options.seeds}; mean over the seeds")
    print(f"{'':24}{'mAP':>9}{'mIoU':>9}{'seconds':>9}")

    def mean(name: str, metric: str) -> float:
        return statistics.mean(run.get(metric, float("nan")) for run in results[name])

    for name in configs:
        print(f"{name:24}{mean(name, 'val/map'):9.4f}{mean(name, 'val/miou'):9.4f}{mean(name, 'time_s'):9.0f}")
    for metric, alone in METRICS.items():
        partial, full, single = (mean(name, metric) for name in (PARTIAL, FULL, alone))
        ratio = partial / full if full else float("nan")
        print(
            f"\n{metric}: {ratio:.4f} of all labels (target {TARGET}: {'met' if ratio >= TARGET else 'missed'}); "
            f"{partial - single:+.4f} against {alone} ({'better' if partial > single else 'not better'})"
        )
        for seed, *row in zip(options.seeds, *(results[name] for name in (PARTIAL, FULL, alone)), strict=True):
            print(f"  seed {seed}: " + " / ".join(f"{run[metric]:.4f}" for run in row))


if __name__ == "__main__":
    main()
