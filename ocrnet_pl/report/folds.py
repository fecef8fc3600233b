"""Trains the folds of a cross-validation and joins their figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrnet_pl.drawing.plots import new_figure, save_figure, style_axes
from ocrnet_pl.errors import RunError
from ocrnet_pl.metrics.figures import FIGURES, FUSED, Figure, Place
from ocrnet_pl.report.runs import Run
from ocrnet_pl.report.statistics import student_quantile
from ocrnet_pl.storage.files import complete_file, write_json

_SETTINGS = (
    # Stopping, or choosing a checkpoint, by the fold that is held out would favour lucky validations.
    ("--early_stopping.patience", "1000000"),
    ("--checkpoint.save_last", "true"),
)
_MEAN, _FOLD = "#2563eb", "#9ca3af"


@dataclass(frozen=True)
class FoldFigure:
    """One figure over the folds.

    Attributes:
        key: What the runs log it as, without ``val/``.
        title: Name for the reader.
        values: One value per fold; NaN where a fold had nothing to measure it on.
    """

    key: str
    title: str
    values: list[float]

    @property
    def known(self) -> list[float]:
        """The finite values."""
        return [value for value in self.values if math.isfinite(value)]

    @property
    def mean(self) -> float:
        """Mean over the folds that have the figure."""
        return statistics.fmean(self.known)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the folds, with one degree of freedom less; None with one fold."""
        return statistics.stdev(self.known) if len(self.known) > 1 else None

    @property
    def half(self) -> float | None:
        """Half of the 95 % interval of the mean; None with one fold.

        Two folds share most of their training images, so their figures are not independent. Nadeau and Bengio,
        "Inference for the generalization error", Machine Learning 52, 2003, therefore take 1 / k + 1 / (k - 1) instead
        of 1 / k times the variance.
        """
        if self.deviation is None:
            return None
        count, folds = len(self.known), len(self.values)
        return student_quantile(count - 1) * self.deviation * math.sqrt(1 / count + 1 / (folds - 1))

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; what cannot be computed is null."""
        low_high = None if self.half is None else [self.mean - self.half, self.mean + self.half]
        return {
            "figure": self.key,
            "title": self.title,
            "mean": self.mean,
            "standard_deviation": self.deviation,
            "interval_95": low_high,
            "folds": [value if math.isfinite(value) else None for value in self.values],
        }


def joined_figures(summaries: Sequence[dict[str, Any]]) -> list[FoldFigure]:
    """Return the figures of the last validation of all folds, those per class at the end.

    Args:
        summaries: ``summary.json`` of each fold.
    """
    own = [Figure(**{**each, "places": Place.TABLE}) for each in summaries[0].get("own_figures", [])]
    every = [each for each in (*FIGURES, *own) if Place.TABLE in each.places]
    titles: dict[str, str] = {}
    logged = dict.fromkeys(key.removeprefix("val/") for each in summaries for key in each["last"])
    for figure in sorted(every, key=lambda each: each.per_class):
        for prefix, suffix in (("", ""), (FUSED, ", fused")):
            name = f"{prefix}{figure.name}"
            if not figure.per_class:
                titles[name] = f"{figure.title}{suffix}"
                continue
            titles |= {
                key: f"{figure.title}{suffix}: {key[len(name) + 1 :]}" for key in logged if key.startswith(f"{name}/")
            }
    found = [
        FoldFigure(key, title, [_value(each, f"val/{key}") for each in summaries]) for key, title in titles.items()
    ]
    return [figure for figure in found if figure.known]


def _value(summary: dict[str, Any], key: str) -> float:
    value = summary["last"].get(key)
    return math.nan if value is None else float(value)


def run_folds(configs: Sequence[str], output: Path, title: str) -> list[FoldFigure]:
    """Train all folds, one after the other, and write ``folds.json`` and ``folds.png``.

    Finished runs in the folder are used as they are.

    Args:
        configs: The whole configuration of each fold, as YAML.
        output: Folder of the results and of the runs.
        title: Title of the picture.

    Raises:
        ValueError: The folder contains runs of another configuration.
        RunError: A run failed, or there is nothing to join.
    """
    files = [output / f"fold_{number}.yaml" for number in range(len(configs))]
    for path, config in zip(files, configs, strict=True):
        if path.is_file() and path.read_text(encoding="utf-8") != config:
            raise ValueError(
                f"output {str(output)!r}: it contains runs of another configuration; give another --output"
            )
    summaries = []
    for number, (path, config) in enumerate(zip(files, configs, strict=True)):
        with complete_file(path) as unfinished:
            unfinished.write_text(config, encoding="utf-8")
        run = _run(number, path, output)
        state = "already finished" if run.content() is not None else f"log: {run.log}"
        print(f"[{number + 1}/{len(configs)}] {run.title} ({state})", flush=True)
        summaries.append(run.execute())
    figures = joined_figures(summaries)
    if not figures:
        raise RunError(f"the folds in {output} measured nothing; is there a validation in trainer.max_epochs?")
    content = {
        "title": title,
        "folds": len(configs),
        "steps": [each["steps"] for each in summaries],
        "seed": summaries[0]["seed"],
        "figures": [figure.to_dict() for figure in figures],
    }
    write_json(output / "folds.json", content)
    draw_folds([figure for figure in figures if "/" not in figure.key], output / "folds.png", title)
    return figures


def _run(number: int, config: Path, output: Path) -> Run:
    runs = output / "runs"
    version = f"fold_{number}"
    place = ("--trainer.default_root_dir", str(runs), "--name", "folds", "--version", version)
    settings = (word for pair in _SETTINGS for word in pair)
    words = ("-m", "ocrnet_pl", "fit", "--config", str(config), *place, *settings)
    return Run(f"fold {number}", runs / "folds" / version, words)


def draw_folds(figures: Sequence[FoldFigure], png: Path, title: str) -> None:
    """Draw each figure's folds as dots, with its mean and interval.

    Args:
        figures: The figures, from top to bottom.
        png: Path of the file to write.
        title: Title of the picture.
    """
    picture = new_figure(7.5, 1.2 + 0.32 * len(figures))
    axes = picture.add_subplot()
    for row, figure in enumerate(reversed(figures)):
        axes.plot(figure.known, [row] * len(figure.known), "o", color=_FOLD, ms=4, alpha=0.7)
        axes.errorbar(figure.mean, row, xerr=figure.half, fmt="D", color=_MEAN, ms=5, capsize=4, lw=1.4)
    axes.set_yticks(range(len(figures)), [figure.title for figure in reversed(figures)])
    style_axes(axes, f"{title}: {len(figures[0].values)} folds, mean with 95 % interval", "")
    save_figure(picture, png)
