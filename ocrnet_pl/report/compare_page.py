"""A comparison of runs in the terminal and as a page."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.drawing.pages import png_data_url, write_document
from ocrnet_pl.drawing.plots import new_figure, plot_text, save_figure, style_axes
from ocrnet_pl.report.compare import ComparedRun, Comparison, Estimate

if TYPE_CHECKING:
    from rich.table import Table

_COLOR = "#2563eb"
_CLASSES = {"better": "good", "worse": "error"}


def _shown(estimate: Estimate | None, sign: str = "") -> tuple[str, str]:
    if estimate is None:
        return "", ""
    return f"{estimate.value:{sign}.4f}", f"{estimate.low:{sign}.4f} to {estimate.high:{sign}.4f}"


def _note(comparison: Comparison) -> str:
    return (
        f"{comparison.images:,} images, predictions after fusion where there is fusion. 95 % intervals from "
        f"{comparison.choices:,} random choices of the images with repetition, the same for all runs: they show what "
        "another choice of such images could change, not another training."
    )


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Build a table of each figure for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape as escape_markup
    from rich.table import Table

    tables = []
    for title, runs in comparison.figures.items():
        # Without vertical lines, names of runs are whole at 80 columns.
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("run", overflow="fold")
        for heading in ("value", "interval", "difference", "interval"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("")
        for run in runs:
            table.add_row(escape_markup(run.run), *_cells(run))
        tables.append(table)
    tables[-1].caption, tables[-1].caption_justify = _note(comparison), "left"
    return tables


def _cells(run: ComparedRun) -> list[str]:
    return [*_shown(run.figure), *_shown(run.difference, "+"), run.verdict]


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page, and its picture beside it.

    Args:
        path: Path of the page.
        comparison: The comparison.
    """
    png = path.with_suffix(".png")
    _draw(comparison, png)
    body = ["<h1>Runs on the same images</h1>", f'<p class="soft">{_note(comparison)}</p>']
    body.append(
        '<div class="card"><img alt="figures with intervals" style="max-width:100%;background:#fff" '
        f'src="{png_data_url(png)}"></div>'
    )
    heads = "".join(f"<th>{name}</th>" for name in ("value", "95 % interval", "difference", "95 % interval"))
    for title, runs in comparison.figures.items():
        lines = "".join(
            f'<tr><td class="text fold">{escape(run.run)}</td>'
            + "".join(f"<td>{cell}</td>" for cell in _cells(run)[:-1])
            + f'<td class="text {_CLASSES.get(run.verdict, "soft")}">{run.verdict}</td></tr>'
            for run in runs
        )
        body.append(
            f'<h2>{escape(title)}</h2><div class="scroll"><table><tr><th class="text">run</th>{heads}'
            f'<th class="text"></th></tr>{lines}</table></div>'
        )
    write_document(path, "Runs on the same images", body)


def _draw(comparison: Comparison, png: Path) -> None:
    figures = comparison.figures
    count = max(len(runs) for runs in figures.values())
    picture = new_figure(3 + 3.4 * len(figures), 1.4 + 0.4 * count)
    for place, (title, runs) in enumerate(figures.items(), 1):
        axes = picture.add_subplot(1, len(figures), place)
        for row, run in enumerate(runs):
            low, high = run.figure.value - run.figure.low, run.figure.high - run.figure.value
            # Intervals of percentiles need not contain the value.
            error = [[max(low, 0)], [max(high, 0)]]
            axes.errorbar(run.figure.value, row, xerr=error, fmt="D", color=_COLOR, ms=5, capsize=4, lw=1.4)
        axes.set_yticks(range(len(runs)), [plot_text(run.run) if place == 1 else "" for run in runs])
        axes.set_ylim(len(runs) - 0.5, -0.5)
        style_axes(axes, title, "")
    save_figure(picture, png)
