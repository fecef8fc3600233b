"""The joint report as one HTML page that needs no other file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from ocrnet_pl.drawing.pages import as_data_url, write_document
from ocrnet_pl.imaging.image_files import open_with_pillow, opened
from ocrnet_pl.metrics.figures import BY_NAME
from ocrnet_pl.report.curves import draw_curves
from ocrnet_pl.report.table import Row, Seed

_WIDTH = 1500
_TILES = (*(BY_NAME[name].short for name in ("map", "miou", "pq")), "one pass, with decoding and fusion", "parameters")
_PICTURE = re.compile(r".*_(\d{5}_.*)\.png")
_COLORS = {"earned": "good", "cost": "error"}


def write_page(
    path: Path, title: str, seeds: Sequence[Seed], rows: Sequence[Row], folders: Mapping[tuple[int, str], Path]
) -> None:
    """Write the page.

    Args:
        path: Path of the page.
        title: Title of the experiment.
        seeds: The results of each seed.
        rows: Rows of the table.
        folders: Run folders by seed and name: ``joint``, ``detection``, ``segmentation``, ``twins``.
    """
    first = seeds[0]
    numbers = ", ".join(str(seed.seed) for seed in seeds)
    body = [
        f"<h1>Joint report: {escape(title)}</h1>",
        f'<p class="soft">One network for both tasks against one network per task, {first.joint["steps"]:,} steps each,'
        f" seed{'s' if len(seeds) > 1 else ''} {numbers}; passes timed on {escape(first.compare['device'])}, one image "
        "of the config's input size.</p>",
        f'<div class="tiles">{"".join(_tile(row) for row in rows if row.title in _TILES)}</div>',
        "<h2>What sharing earned and cost</h2>",
        _table(rows, numbers),
        _note(len(seeds)),
        "<h2>Curves</h2>",
        _curves(path, seeds, folders),
        "<h2>Pictures</h2>",
        *_pictures(folders[first.seed, "joint"], folders[first.seed, "twins"]),
    ]
    write_document(path, f"Joint report: {title}", body)


def _number(value: float, row: Row, sign: str = "") -> str:
    digits = 4 if not row.unit else 2 if abs(value) < 100 else 0
    return format(value, f"{sign},.{digits}f")


def _is_cost(row: Row) -> bool:
    return row.unit != ""


def _tile(row: Row) -> str:
    text = f"&times; {row.ratio:.2f}" if _is_cost(row) and row.ratio else _number(row.difference.mean, row, "+")
    return f'<div class="tile"><b class="{_COLORS.get(row.verdict, "")}">{text}</b>{escape(row.title)}</div>'


def _table(rows: Sequence[Row], numbers: str) -> str:
    lines = []
    for row in rows:
        mean, half, _ = row.difference
        interval = "&ndash;" if half is None else f"&plusmn; {_number(half, row)}"
        ratio = f"{row.ratio:.3f}" if row.ratio is not None else "&ndash;"
        of_seeds = ", ".join(
            f"{_number(joint, row)} / {_number(alone, row)}" for joint, alone in zip(row.joint, row.alone, strict=True)
        )
        cells = [
            _number(sum(row.joint) / len(row.joint), row),
            _number(sum(row.alone) / len(row.alone), row),
            _number(mean, row, "+"),
            interval,
            ratio,
        ]
        lines.append(
            f'<tr><td class="text">{escape(row.title)} <span class="soft">{escape(row.unit)}</span></td>'
            f'<td class="text soft">{escape(row.twins)}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}'
            f'<td class="text {_COLORS.get(row.verdict, "")}">{row.verdict}</td>'
            f'<td class="text soft">{of_seeds}</td></tr>'
        )
    heads = ("joint", "twins", "difference", "95 % interval", "ratio")
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        '<div class="scroll"><table><tr><th class="text">figure</th><th class="text">against</th>'
        f'{head}<th class="text">sharing</th><th class="text">joint / twins, seeds {numbers}</th></tr>'
        f"{''.join(lines)}</table></div>"
    )


def _note(count: int) -> str:
    text = (
        "There is one seed, so there is no interval: how much of a difference is chance is unknown."
        if count < 2
        else f"Intervals are Student's, of the {count} paired differences. A difference whose interval contains zero "
        "is not called clear."
    )
    merged = (
        "The twins' panoptic and fused figures are those of both networks' outputs, merged by the rules that merge the "
        "joint network's. Figures are those of the last validation."
    )
    return f'<p class="soft">{text} {merged}</p>'


def _curves(page: Path, seeds: Sequence[Seed], folders: Mapping[tuple[int, str], Path]) -> str:
    names = ("joint", "detection", "segmentation")
    png = page.with_name("curves.png")
    runs = {name: [folders[seed.seed, name] for seed in seeds] for name in names}
    if not draw_curves(runs, png, seeds[0].own_figures):
        return '<p class="soft">The runs logged no figures.</p>'
    with opened(png) as file, open_with_pillow(file) as image:
        source = as_data_url(image.convert("RGB"))
    return f'<div class="card"><img alt="curves" style="max-width:100%" src="{source}"></div>'


def _pictures(joint: Path, twins: Path) -> Iterator[str]:
    """Show the same validation images, drawn by both runs."""
    own, theirs = _last_pictures(joint), _last_pictures(twins)
    for key in sorted(own.keys() & theirs.keys()):
        figures = "".join(
            f'<figure class="wide"><img alt="{escape(f"{title}: {key}", quote=True)}" src="{_shown(path)}">'
            f"<figcaption>{title}</figcaption></figure>"
            for title, path in (("joint network", own[key]), ("both twins, merged alike", theirs[key]))
        )
        yield f'<section class="card"><h3>{escape(key[6:])}</h3><div class="pictures">{figures}</div></section>'


def _last_pictures(folder: Path) -> dict[str, Path]:
    """Return the last drawing of each image by its position and name."""
    found = {}
    for path in sorted((folder / "pictures").glob("*.png")):
        match = _PICTURE.fullmatch(path.name)
        if match:
            found[match[1]] = path
    return found


def _shown(path: Path) -> str:
    with opened(path) as file, open_with_pillow(file) as image:
        picture = image.convert("RGB")
    picture.thumbnail((_WIDTH, _WIDTH))
    return as_data_url(picture)
