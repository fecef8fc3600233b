"""The results as a table and a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ocrnet_pl.drawing.plots import new_figure, save_figure, style_axes
from ocrnet_pl.metrics.figures import BY_NAME
from ocrnet_pl.storage.files import complete_file


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _figure(key: str, result: dict[str, Any]) -> str:
    return _text(result.get(key), 4)


_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "model": lambda r: r["name"],
    **{BY_NAME[key].short: partial(_figure, key) for key in ("map", "mask_map", "miou", "pq")},
    "million parameters": lambda r: _text(r["parameters"] / 1e6, 2),
    "ms, batch 1": lambda r: _text(r["latency_1_ms"], 1),
    "ms, batch 8": lambda r: _text(r["latency_8_ms"], 1),
    "training s": lambda r: _text(r["train_s"], 0),
    "steps": lambda r: str(r["steps"]),
    "images/s": lambda r: _text(r["images_per_s"], 1),
    "memory MiB": lambda r: _text(r["peak_memory_mb"]["ram"], 0),
    "GPU MiB": lambda r: _text(r["peak_memory_mb"]["gpu"], 0),
}
_HIGHLIGHT, _PLAIN = "#2563eb", "#64748b"
_LINES = ("#64748b", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#a16207", "#be185d", "#4d7c0f", "#000000")


def write_table(results: Sequence[dict[str, Any]], folder: Path) -> str:
    """Write ``peers.csv`` and ``peers.md``.

    Returns:
        The table as markdown.
    """
    rows = [[column(result) for column in _COLUMNS.values()] for result in results]
    return _written(list(_COLUMNS), rows, folder, "peers")


def _written(header: list[str], rows: list[list[str]], folder: Path, name: str) -> str:
    """Write a table as CSV and as markdown, and return the latter."""
    with (
        complete_file(folder / f"{name}.csv") as unfinished,
        unfinished.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([header, *rows])
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *([cell or "-" for cell in row] for row in rows)]
    markdown = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    with complete_file(folder / f"{name}.md") as unfinished:
        unfinished.write_text(markdown, encoding="utf-8")
    return markdown


def write_picture(results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write ``peers.png``: accuracy against the time of one pass, one point per model."""
    figure = new_figure(11, 4.6)
    panels = ("map", "miou")
    for position, key in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), position)
        for result in results:
            if result.get(key) is None:
                continue
            color = _HIGHLIGHT if result["name"].startswith("joint") else _PLAIN
            place = (result["latency_1_ms"], result[key])
            axes.plot(*place, "o", color=color, ms=7)
            axes.annotate(result["name"], place, (6, 4), textcoords="offset points", fontsize=8, color=color)
        style_axes(axes, BY_NAME[key].title, "milliseconds per pass, batch 1")
        axes.margins(x=0.18, y=0.12)
        axes.set_xscale("log")
    save_figure(figure, folder / "peers.png")


_CURVES = ("map", "miou", "pq")


def write_curves(results: Mapping[float, Sequence[dict[str, Any]]], folder: Path) -> str:
    """Write ``curves.csv``, ``curves.md`` and ``curves.png``: accuracy over the seconds of training, a line per model.

    Args:
        results: Results of the models by budget in seconds.
        folder: Folder for the files, made if it is absent.

    Returns:
        The table as markdown, with a row per model and figure, and one per model for the seconds that it trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(result["name"] for own in results.values() for result in own))
    found = {(budget, result["name"]): result for budget, own in results.items() for result in own}

    def over_budgets(name: str, key: str) -> list[float | None]:
        return [found.get((budget, name), {}).get(key) for budget in results]

    # A budget is planned from the speed of the first steps: what counts is the time that the training took.
    times = {name: over_budgets(name, "train_s") for name in names}
    header = ["model", "figure", *(f"{budget:g} s" for budget in results)]
    rows = []
    figure = new_figure(5.2 * len(_CURVES), 4.6)
    for position, key in enumerate(_CURVES, 1):
        axes = figure.add_subplot(1, len(_CURVES), position)
        for number, name in enumerate(names):
            values = over_budgets(name, key)
            points = [point for point in zip(times[name], values, strict=True) if None not in point]
            if not points:
                continue
            rows.append([name, BY_NAME[key].short, *(_text(value, 4) for value in values)])
            joint = name.startswith("joint")
            color = _HIGHLIGHT if joint else _LINES[number % len(_LINES)]
            axes.plot(*zip(*points, strict=True), "o-", color=color, lw=2.5 if joint else 1.2, ms=4, label=name)
        style_axes(axes, BY_NAME[key].title, "seconds of training")
        axes.set_xscale("log")
        axes.set_xticks(list(results), [f"{budget:g}" for budget in results])
        axes.minorticks_off()
        if axes.has_data():
            axes.legend(fontsize=7, frameon=False)
    rows += [[name, "training s", *(_text(seconds, 0) for seconds in times[name])] for name in names]
    save_figure(figure, folder / "curves.png")
    return _written(header, rows, folder, "curves")
