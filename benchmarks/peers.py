"""Train the joint network and its peers on the same images, encoder weights, input size and time, and compare them.

Each model trains in a process of its own, one after the other, and leaves a JSON file: repeat the command to go on
after an interruption. Run: ``python benchmarks/peers.py --data path/to/nuclei --budgets 60 240 1200``.

The data is the config's: any source of the project. Where the config has ``auto``, the joint network's settings are
chosen from the data and the budget, and the peers take what the config says, or else the defaults. A config that names
COCO instances with semantic PNGs, such as ``CocoInstances`` with ``semantic_masks``, is read in the same way by all
models.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from side_by_side.models import ALL_NAMES, NAMES, missing, run_one
from side_by_side.settings import Settings
from side_by_side.table import write_curves, write_picture, write_table

from ocrnet_pl.errors import RunError
from ocrnet_pl.report.runs import Run
from ocrnet_pl.storage.files import write_json

ROOT = Path(__file__).resolve().parents[1]


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that the config's sources start from")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "nuclei.yaml", help="the joint network's")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--budget", type=seconds, default=240.0, help="seconds of training a model")
    length.add_argument(
        "--budgets", type=seconds, nargs="+", help="several budgets: a table of each, and the curve over all of them"
    )
    parser.add_argument("--size", type=int, default=256, help="input side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", help="timm model; by default the config's")
    parser.add_argument("--weights", help="as of TimmEncoder; by default the config's, or none with another encoder")
    parser.add_argument("--models", nargs="+", choices=ALL_NAMES, default=list(NAMES))
    parser.add_argument("--output", type=Path, default=Path("runs/peers"), help="folder of results")
    parser.add_argument("--steps", type=int, help="train for so many steps instead, to try the script")
    parser.add_argument("--one", choices=ALL_NAMES, help=argparse.SUPPRESS)
    return parser.parse_args()


def seconds(text: str) -> float:
    """Return a budget.

    Raises:
        argparse.ArgumentTypeError: It is no number above 0.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return value


def settings_of(options: argparse.Namespace, budget: float) -> Settings:
    """Return what all models have in common."""
    encoder = {"name": options.encoder, "weights": options.weights}
    given = {name: value for name, value in encoder.items() if value is not None}
    return Settings(options.config, options.data, budget, options.steps, options.size, given, options.seed)


def train_all(options: argparse.Namespace, budget: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Train what is left to train with one budget, and write its table and picture.

    Returns:
        The results, and the models that failed.
    """
    settings = settings_of(options, budget)
    # Results of other settings do not belong into one table.
    folder = options.output / folder_name(options, settings, f"{budget:g}s")
    results: list[dict[str, Any]] = []
    failed = []
    for number, model in enumerate(options.models, 1):
        head = f"[{number}/{len(options.models)}, {budget:g} s] {model}"
        reason = missing(model)
        if reason is not None:
            print(f"{head}: skipped: {reason}", flush=True)
            continue
        # Of the words that say how long, the last ones count: one budget.
        words = (*without_budgets(sys.argv[1:]), "--budget", f"{budget!r}", "--one", model)
        run = Run(model, folder / model, (__file__, *words), "result.json")
        print(f"{head} (log: {run.log})", flush=True)
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
    return results, failed


def folder_name(options: argparse.Namespace, settings: Settings, budgets: str) -> str:
    """Return the name of the folder of results of some budgets."""
    name = f"{settings.encoder_arguments()['name']}_{options.size}_{budgets}_seed{options.seed}"
    return name if options.steps is None else f"{name}_{options.steps}steps"


def without_budgets(words: list[str]) -> list[str]:
    """Return a command line without the options that say how long to train."""
    kept: list[str] = []
    within = False
    for word in words:
        if word.startswith("--"):
            within = word.partition("=")[0] in ("--budget", "--budgets")
        if not within:
            kept.append(word)
    return kept


def main() -> None:
    """Train what is left to train, then write tables, pictures and, for several budgets, the curve."""
    options = parse()
    budgets = sorted(set(options.budgets or [options.budget]))
    if options.one:
        settings = settings_of(options, options.budget)
        folder = options.output / folder_name(options, settings, f"{options.budget:g}s")
        run_one(options.one, settings, folder / options.one)
        return
    found: dict[float, list[dict[str, Any]]] = {}
    failed: list[str] = []
    for budget in budgets:
        results, lost = train_all(options, budget)
        found[budget] = results
        failed += lost
    if len(budgets) > 1 and any(found.values()):
        settings = settings_of(options, budgets[0])
        folder = options.output / folder_name(options, settings, "_".join(f"{budget:g}s" for budget in budgets))
        print(write_curves(found, folder))
        print(f"Curves: {folder}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
