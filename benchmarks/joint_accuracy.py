"""Train the joint network and its two single-task twins for equal steps and compare each on its own metric.

Everything is the experiment's own config but the decoder that a twin lacks. Run:
``python benchmarks/joint_accuracy.py --seeds 0 1 2 -- --config configs/nuclei.yaml --data.root path/to/nuclei``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NETWORKS = {
    "joint": [],
    "detection alone": ["--model.segmentation", "null"],
    "segmentation alone": ["--model.detection", "null"],
}
METRICS = {"val/map": "detection alone", "val/miou": "segmentation alone"}


def train(arguments: list[str], seed: int, folder: Path) -> dict[str, float]:
    """Run one training and return its last figures."""
    command = [sys.executable, "train.py", "fit", *arguments, f"--seed_everything={seed}"]
    subprocess.run([*command, f"--trainer.default_root_dir={folder}"], check=True)
    (summary,) = folder.rglob("summary.json")
    content = json.loads(summary.read_text())
    figures: dict[str, float] = dict(content["last"])
    figures["time_s"] = content["time_s"]
    return figures


def main() -> None:
    """Train all, then print a row a seed and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="where to keep the runs; by default they are removed")
    parser.add_argument("arguments", nargs="+", help="what train.py fit takes, after --")
    options = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in NETWORKS}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            for name, extra in NETWORKS.items():
                folder = (options.folder or Path(temporary)) / f"{name.replace(' ', '_')}_{seed}"
                results[name].append(train([*options.arguments, *extra], seed, folder))
    for metric, twin in METRICS.items():
        print(f"\n{metric}: joint against {twin}, equal steps")
        pairs = [(a[metric], b[metric]) for a, b in zip(results["joint"], results[twin], strict=True)]
        for seed, (joint, alone) in zip(options.seeds, pairs, strict=True):
            print(f"  seed {seed}: {joint:.4f} against {alone:.4f}, {joint - alone:+.4f}")
        joint, alone = (statistics.mean(column) for column in zip(*pairs, strict=True))
        print(f"  mean:   {joint:.4f} against {alone:.4f}, {joint - alone:+.4f}")
    print("\nseconds a training:")
    for name, runs in results.items():
        print(f"  {name}: {statistics.mean(run['time_s'] for run in runs):.0f}")


if __name__ == "__main__":
    main()
