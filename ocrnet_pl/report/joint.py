"""Trains the joint network and its single-task twins and writes the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocrnet_pl.errors import RunError
from ocrnet_pl.report.page import write_page
from ocrnet_pl.report.runs import Run
from ocrnet_pl.report.table import Seed, table_rows
from ocrnet_pl.storage.files import complete_file, write_json

JOINT, DETECTION, SEGMENTATION, COMPARE = "joint", "detection", "segmentation", "twins"

_TITLES = {
    JOINT: "joint network",
    DETECTION: "detection alone",
    SEGMENTATION: "segmentation alone",
    COMPARE: "both twins side by side",
}
_WITHOUT = {
    JOINT: (),
    DETECTION: ("--model.segmentation", "null"),
    SEGMENTATION: ("--model.detection", "null"),
}
_SETTINGS = (
    # A network that stopped early would have trained for fewer steps than the others.
    ("--early_stopping.patience", "1000000"),
    ("--checkpoint.save_last", "true"),
    ("--pictures.enabled", "true"),
)
_LAST = Path("checkpoints", "last.ckpt")


def run_joint_report(config: str, seeds: Sequence[int], output: Path, title: str) -> Path:
    """Train all networks over the seeds, one after the other, and write ``joint-report.html`` and ``.json``.

    Finished runs in the folder are used as they are.

    Args:
        config: The whole configuration of the experiment, as YAML.
        seeds: Seeds, each for one joint network and its twins.
        output: Folder of the report and of the runs.
        title: Title of the page.

    Returns:
        Path of the page.

    Raises:
        ValueError: A seed occurs twice, or the folder contains runs of another configuration.
        RunError: A run failed, or the runs differ in their steps.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds: expected at least one seed, each once, got {list(seeds)}")
    path = output / "config.yaml"
    if path.is_file() and path.read_text(encoding="utf-8") != config:
        raise ValueError(f"output {str(output)!r}: it contains runs of another configuration; give another --output")
    with complete_file(path) as unfinished:
        unfinished.write_text(config, encoding="utf-8")
    names = (JOINT, DETECTION, SEGMENTATION, COMPARE)
    runs = {(seed, name): _run(name, seed, output, path) for seed in seeds for name in names}
    results: dict[tuple[int, str], dict[str, Any]] = {}
    for number, (key, run) in enumerate(runs.items(), 1):
        state = "already finished" if run.content() is not None else f"log: {run.log}"
        print(f"[{number}/{len(runs)}] {run.title} ({state})", flush=True)
        results[key] = run.execute()
    steps = {run.title: results[key]["steps"] for key, run in runs.items() if key[1] != COMPARE}
    if len(set(steps.values())) > 1:
        raise RunError(f"the runs took different numbers of steps: {steps}; nothing can be compared")
    per_seed = [Seed(seed, *(results[seed, name] for name in names)) for seed in seeds]
    rows = table_rows(per_seed)
    content = {
        "title": title,
        "seeds": list(seeds),
        "steps": next(iter(steps.values())),
        "table": [row.to_dict() for row in rows],
        "runs": {f"{name}, seed {seed}": result for (seed, name), result in results.items()},
    }
    write_json(output / "joint-report.json", content)
    page = output / "joint-report.html"
    write_page(page, title, per_seed, rows, {(seed, name): run.folder for (seed, name), run in runs.items()})
    print(f"Joint report: {page}")
    return page


def _run(name: str, seed: int, output: Path, config: Path) -> Run:
    runs = output / "runs"
    folder = runs / name / f"seed_{seed}"
    place = ("--trainer.default_root_dir", str(runs), "--name", name, "--version", folder.name)
    title = f"{_TITLES[name]}, seed {seed}"
    common = ("--config", str(config), "--seed_everything", str(seed), *place)
    if name == COMPARE:
        checkpoints = (str(runs / part / folder.name / _LAST) for part in (JOINT, DETECTION, SEGMENTATION))
        words = ("-m", "ocrnet_pl.cli.compare_twins", *checkpoints, "validate", *common, "--pictures.enabled", "true")
        return Run(title, folder, words, "compare.json")
    settings = (word for pair in _SETTINGS for word in pair)
    return Run(title, folder, ("-m", "ocrnet_pl", "fit", *common, *settings, *_WITHOUT[name]))
