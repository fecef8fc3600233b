"""The report in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from ocrnet_pl.doctor.findings import Finding, Kind, Level, shown_path
from ocrnet_pl.doctor.result import Examined, Result
from ocrnet_pl.doctor.summary import class_rows, count_text, image_sizes

_STYLES = {Level.ERROR: "bold red", Level.WARNING: "yellow", Level.NOTE: "cyan"}
_SHOWN_CLASSES, _SHOWN_FINDINGS = 25, 3


def print_report(result: Result, console: Console, output: Path) -> None:
    """Print what the data contain, what is wrong with them, and where the page is.

    Args:
        result: Result of the check.
        console: Console to print to.
        output: Folder of the page.
    """
    if result.examined:
        console.print(_overview(result.examined))
        console.print(_classes(result.examined))
    for key in result.log.groups():
        _print_group(result, key, console)
    if not result.complete:
        console.print("Not all images were examined; classes with few examples are not judged.")
    counts = ", ".join(count_text(result.log.total(level), level) for level in reversed(Level))
    worst = max((level for _, level in result.log.counts), default=None)
    style = "bold green" if worst is None or worst is Level.NOTE else _STYLES[worst]
    console.print(f"\n[{style}]{counts}[/]")
    for name, what in (("check.html", "report"), ("findings.csv", "all findings")):
        console.print(f"{what}: {escape(shown_path(str(output / name)))}", soft_wrap=True, highlight=False)


def _overview(examined: list[Examined]) -> Table:
    table = Table(title="Data", title_justify="left", title_style="bold")
    table.add_column("split")
    crowds = any(entry.statistics.crowds.any() for entry in examined)
    names = ["images", "broken", "boxes", *(["crowds"] if crowds else []), "per image", "maps", "ignored"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("sizes", justify="right")
    for entry in examined:
        own = entry.statistics
        boxes, pixels = int(own.boxes.sum()), int(own.pixels.sum())
        table.add_row(
            own.name,
            f"{own.images:,}",
            f"{own.unreadable:,}",
            f"{boxes:,}",
            *([f"{int(own.crowds.sum()):,}"] if crowds else []),
            f"{boxes / own.boxed:.1f}" if own.boxed else "-",
            f"{own.maps:,}",
            f"{own.pixels[-1] / pixels:.1%}" if pixels else "-",
            image_sizes(entry).replace(" to ", "\nto "),
        )
    return table


def _classes(examined: list[Examined]) -> Table:
    rows = class_rows(examined)
    shown = rows[:_SHOWN_CLASSES]
    rest = f"; {len(rows) - len(shown)} more in the page" if len(rows) > len(shown) else ""
    table = Table(title=f"Classes: images / boxes / share of pixels{rest}", title_justify="left", title_style="bold")
    table.add_column("class")
    for entry in examined:
        table.add_column(entry.split.name, justify="right")
    for name, cells in shown:
        table.add_row(escape(name), *(f"{_number(c[0])} / {_number(c[1])} / {_share(c[2])}" for c in cells))
    return table


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _print_group(result: Result, key: tuple[Kind, Level], console: Console) -> None:
    """Print a kind of finding: its meaning, the first few, and what to do; paths are not broken over lines."""
    (kind, level), count = key, result.log.counts[key]
    name = level.name.lower()
    console.print(f"\n[{_STYLES[level]}]{name}[/] [bold]{kind.title}[/] ({count:,})", highlight=False)
    console.print(Padding(kind.value.meaning, (0, 0, 0, 2)))
    shown = result.log.first[key][: _SHOWN_FINDINGS if level else 1]
    for finding in shown:
        console.print(f"  - {escape(_line(finding))}", soft_wrap=True, highlight=False)
    if count > len(shown):
        console.print(f"  - and {count - len(shown):,} more", highlight=False)
    console.print(Padding(f"[dim]{kind.value.advice}[/]", (0, 0, 0, 2)))


def _line(finding: Finding) -> str:
    # The format is that of the whole file; its image is only an example for the picture.
    of_file = finding.file and (not finding.image or finding.kind is Kind.BOX_FORMAT)
    places = [finding.split, shown_path(finding.file if of_file else finding.image), finding.field]
    return ": ".join(part for part in (*places, finding.message) if part)
