"""Train variants of one config over several seeds and compare each with the first.

The variants are in a YAML file, each a name with the words that it adds to the command line; see
``benchmarks/variants/``. With several files, every combination is trained. Finished runs in the folder are used as they
are, so an interrupted comparison continues where it stopped. Run: ``python benchmarks/compare.py
benchmarks/variants/balancing.yaml --folder runs/balancing -- --config configs/nuclei.yaml --data.root path/to/nuclei``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from joint_speed import medians
from rich.console import Console
from rich.table import Table

from ocrnet_pl.metrics.figures import BY_NAME, FUSED
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.report.runs import Run
from ocrnet_pl.report.statistics import paired_difference
from ocrnet_pl.storage.files import write_json
from ocrnet_pl.structures import Placement, Predictions

METRICS = {f"val/{name}": BY_NAME[name].short for name in ("map", "miou", "pq")} | {
    f"val/{FUSED}{name}": f"fused {BY_NAME[name].short}" for name in ("map", "miou", "pq", "mask_map")
}

Results = dict[str, list[dict[str, Any]]]
"""The runs' summaries by variant, one per seed."""


def read_variants(path: Path) -> dict[str, list[str]]:
    """Return each variant's words; a file with any other content is refused."""
    variants = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(variants, dict) or not variants:
        raise SystemExit(f"{path}: expected a mapping from names to lists of words")
    for name, words in variants.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise SystemExit(f"{path}: {name}: expected a list of words, such as [--model.neck, BiFPNNeck]")
    return variants


def combined(files: Sequence[Path]) -> dict[str, list[str]]:
    """Return every combination of a variant of each file."""
    parts = [read_variants(path).items() for path in files]
    return {
        ", ".join(name for name, _ in chosen): [word for _, words in chosen for word in words]
        for chosen in itertools.product(*parts)
    }


def train(variants: Mapping[str, Sequence[str]], seeds: Sequence[int], folder: Path, words: Sequence[str]) -> Results:
    """Run all trainings, all variants of a seed before the next one."""
    results: Results = {name: [] for name in variants}
    for seed in seeds:
        for name, own in variants.items():
            results[name].append(run_of(name, seed, folder, [*words, *own]).execute())
    return results


def run_of(name: str, seed: int, folder: Path, words: Sequence[str]) -> Run:
    """Return the training of one variant with one seed."""
    place = folder / name.replace(", ", "__").replace(" ", "_") / f"seed_{seed}"
    settings = (
        *("--seed_everything", str(seed)),
        *("--trainer.default_root_dir", str(folder), "--name", place.parent.name, "--version", place.name),
        *("--pictures.enabled", "false", "--checkpoint.save_last", "true"),
        # A run that stopped early would have trained for fewer steps than the others.
        *("--early_stopping.patience", "1000000"),
    )
    return Run(f"{name}, seed {seed}", place, ("-m", "ocrnet_pl", "fit", *words, *settings))


def table_of(results: Results, seeds: Sequence[int], metrics: Mapping[str, str] = METRICS) -> Table:
    """Return the means over the seeds, and the paired differences from the first variant with 95 % intervals."""
    shown = {
        key: title for key, title in metrics.items() if all(key in run["last"] for run in results[next(iter(results))])
    }
    table = Table(
        "", *shown.values(), "seconds", title=f"Mean over seeds {list(seeds)}; below: difference from the first"
    )
    reference = next(iter(results))
    for name, runs in results.items():
        values = {key: [run["last"].get(key, float("nan")) for run in runs] for key in shown}
        seconds = statistics.fmean(run["time_s"] for run in runs)
        table.add_row(name, *(f"{statistics.fmean(own):.4f}" for own in values.values()), f"{seconds:.0f}")
        if name == reference:
            continue
        cells = []
        for key, own in values.items():
            difference = paired_difference(own, [run["last"][key] for run in results[reference]])
            spread = "" if difference.half is None else f" ±{difference.half:.4f}"
            cells.append(f"{difference.mean:+.4f}{spread}")
        table.add_row("", *cells, style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


@torch.inference_mode()
def costs(runs: Mapping[str, Run], size: int, rounds: int = 15) -> dict[str, dict[str, float]]:
    """Return each network's parameters and milliseconds for one image, fusion included; they take turns."""
    networks = {name: OCRNet.from_checkpoint(run.folder / "checkpoints" / "last.ckpt") for name, run in runs.items()}

    def predict(network: OCRNet) -> Predictions:
        image = torch.zeros(1, network.in_channels, size, size, dtype=torch.uint8)
        return network.postprocessed(network(image), [Placement.identity((size, size))])

    spent = medians([functools.partial(predict, network.eval()) for network in networks.values()], rounds)
    return {
        name: {"parameters": float(sum(p.numel() for p in network.parameters())), "ms": own * 1e3}
        for (name, network), own in zip(networks.items(), spent, strict=True)
    }


def main() -> None:
    """Train, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", type=Path, nargs="+", help="YAML: names and their words")
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--size", type=int, help="give parameters and the milliseconds of one image of this size as well"
    )
    parser.epilog = "After --: what train.py fit takes in all runs."
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, words = parser.parse_args(arguments[:end]), arguments[end + 1 :]
    variants = combined(options.variants)
    results = train(variants, options.seeds, options.folder, words)
    Console(width=160).print(table_of(results, options.seeds))
    content = {"seeds": options.seeds, "variants": variants, "runs": results}
    if options.size:
        first = {name: run_of(name, options.seeds[0], options.folder, words) for name in variants}
        content["costs"] = costs(first, options.size)
        table = Table("", "million parameters", "ms", title=f"One image of {options.size} x {options.size}")
        for name, own in content["costs"].items():
            table.add_row(name, f"{own['parameters'] / 1e6:.2f}", f"{own['ms']:.0f}")
        Console(width=160).print(table)
    write_json(options.folder / "compare.json", content)


if __name__ == "__main__":
    main()
