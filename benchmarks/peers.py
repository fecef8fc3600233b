"""Train the joint network and its peers on the same images, encoder weights, input size and time, and compare them.

Each model trains in a process of its own, one after the other, and leaves a JSON file: repeat the command to go on
after an interruption. Run: ``python benchmarks/peers.py --data path/to/nuclei --budget 240``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from side_by_side.models import ALL_NAMES, NAMES, missing, run_one
from side_by_side.settings import Settings
from side_by_side.table import write_picture, write_table

from ocrnet_pl.errors import RunError
from ocrnet_pl.report.runs import Run
from ocrnet_pl.storage.files import write_json

ROOT = Path(__file__).resolve().parents[1]


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that the config's sources start from")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nuclei.yaml", help="the joint network's")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds of training a model")
    parser.add_argument("--size", type=int, default=256, help="input side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", help="timm model; by default the config's")
    parser.add_argument("--weights", help="as of TimmEncoder; by default the config's, or none with another encoder")
    parser.add_argument("--models", nargs="+", choices=ALL_NAMES, default=list(NAMES))
    parser.add_argument("--output", type=Path, default=Path("runs/peers"), help="folder of results")
    parser.add_argument("--steps", type=int, help="train for so many steps instead, to try the script")
    parser.add_argument("--one", choices=ALL_NAMES, help=argparse.SUPPRESS)
    return parser.parse_args()


def settings_of(options: argparse.Namespace) -> Settings:
    """Return what all models have in common."""
    encoder = {"name": options.encoder, "weights": options.weights}
    given = {name: value for name, value in encoder.items() if value is not None}
    return Settings(options.config, options.data, options.budget, options.steps, options.size, given, options.seed)


def main() -> None:
    """Train what is left to train, then write ``peers.csv``, ``peers.md``, ``peers.json`` and ``peers.png``."""
    options = parse()
    settings = settings_of(options)
    # Results of other settings do not belong into one table.
    name = f"{settings.encoder_arguments()['name']}_{options.size}_{options.budget:g}s_seed{options.seed}"
    folder = options.output / (name if options.steps is None else f"{name}_{options.steps}steps")
    if options.one:
        run_one(options.one, settings, folder / options.one)
        return
    results: list[dict[str, Any]] = []
    failed = []
    for number, model in enumerate(options.models, 1):
        reason = missing(model)
        if reason is not None:
            print(f"[{number}/{len(options.models)}] {model}: skipped: {reason}", flush=True)
            continue
        run = Run(model, folder / model, (__file__, *sys.argv[1:], "--one", model), "result.json")
        print(f"[{number}/{len(options.models)}] {model} (log: {run.log})", flush=True)
        try:
            results.append(run.execute())
        except RunError as error:
            failed.append(model)
            sys.stderr.write(f"error: {error}\n")
    if results:
        print(write_table(results, folder))
        write_json(folder / "peers.json", results)
        write_picture(results, folder)
        print(f"Results: {folder}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
