"""The report as one HTML page that needs no other file."""

from __future__ import annotations

from html import escape
from pathlib import Path

from ocrnet_pl.doctor import charts
from ocrnet_pl.doctor.findings import Finding, Kind, Level, shown_path
from ocrnet_pl.doctor.pictures import draw
from ocrnet_pl.doctor.result import Examined, Result
from ocrnet_pl.doctor.statistics import BOX_EDGES, COUNT_EDGES, IMAGE_EDGES
from ocrnet_pl.doctor.summary import class_rows, count_text, image_sizes
from ocrnet_pl.drawing.pages import as_data_url, write_document

_PICTURES = 6
"""Number of findings of each kind that are drawn."""


def write_page(result: Result, path: Path, title: str) -> None:
    """Write the page.

    Args:
        result: Result of the check.
        path: Path of the page.
        title: Title of the page.
    """
    log = result.log
    counts = {level: log.total(level) for level in reversed(Level)}
    tiles = "".join(
        f'<div class="tile"><b class="{level.name.lower() if count else "good"}">{count:,}</b>'
        f"{count_text(count, level).partition(' ')[2]}</div>"
        for level, count in counts.items()
    )
    images = sum(entry.statistics.images for entry in result.examined)
    boxes = sum(int(entry.statistics.boxes.sum()) for entry in result.examined)
    tiles += f'<div class="tile"><b>{images:,}</b>images</div><div class="tile"><b>{boxes:,}</b>boxes</div>'
    partly = "" if result.complete else '<p class="warning">Only part of the images was examined (--limit).</p>'
    links = " ".join(f'<a href="#{_anchor(key)}">{escape(key[0].title)}</a>' for key in log.groups())
    body = [
        f"<h1>Data check: {escape(title)}</h1>",
        f'<p class="soft">{", ".join(escape(e.split.name) for e in result.examined) or "no split could be opened"}</p>',
        partly,
        f'<div class="tiles">{tiles}</div>',
        "<h2>Findings</h2>",
        f"<nav>{links}</nav>" if links else '<p class="good">Nothing was found.</p>',
        *(_group(result, key) for key in log.groups()),
    ]
    if result.examined:
        body += ["<h2>Splits</h2>", _splits(result.examined), "<h2>Distributions</h2>", _charts(result.examined)]
        body += ["<h2>Classes</h2>", _classes(result.examined), _class_sizes(result.examined)]
    write_document(path, f"Data check: {title}", body)


def _anchor(key: tuple[Kind, Level]) -> str:
    return f"{key[0].name}-{key[1].name}".lower().replace("_", "-")


def _group(result: Result, key: tuple[Kind, Level]) -> str:
    kind, level = key
    findings, count = result.log.first[key], result.log.counts[key]
    splits = {entry.split.name: entry.split for entry in result.examined}
    shown: list[str] = []
    # One picture per image first: ten faults of one image say less.
    for finding in sorted(findings, key=lambda f: [g.index for g in findings].index(f.index) != findings.index(f)):
        if len(shown) == _PICTURES:
            break
        picture = draw(finding, splits)
        if picture is not None:
            wide = ' class="wide"' if picture.width > 440 else ""
            alt = escape(f"{kind.title}: {finding.image}", quote=True)
            shown.append(
                f'<figure{wide}><img alt="{alt}" src="{as_data_url(picture)}" width="{picture.width}">'
                f"<figcaption>{_where(finding)}<br>{escape(finding.message)}</figcaption></figure>"
            )
    by_split = ", ".join(
        f"{name or 'all'} {number:,}" for (k, lv, name), number in result.log.splits.items() if (k, lv) == key
    )
    name = level.name.lower()
    more = f", the first {len(findings)} of {count:,}; all are in findings.csv" if count > len(findings) else ""
    rows = "".join(
        f'<tr><td class="text">{escape(f.split)}</td>'
        f'<td class="text fold"><code>{escape(shown_path(f.image))}</code></td>'
        f'<td class="text fold"><code>{escape(_annotation(f))}</code></td>'
        f'<td class="text fold">{escape(f.message)}</td></tr>'
        for f in findings
    )
    return (
        f'<section class="card" id="{_anchor(key)}"><header><h3>{escape(kind.title)}</h3>'
        f'<span class="badge {name}">{name}</span><span class="soft">{count:,} ({escape(by_split)})</span></header>'
        f'<p>{escape(kind.value.meaning)}</p><p class="soft">{escape(kind.value.advice)}</p>'
        + (f'<div class="pictures">{"".join(shown)}</div>' if shown else "")
        + f"<details{'' if shown else ' open'}><summary>Where{more}</summary><div class='scroll'><table><tr>"
        '<th class="text">split</th><th class="text">image</th><th class="text">annotation</th>'
        '<th class="text">what</th>'
        f"</tr>{rows}</table></div></details></section>"
    )


def _annotation(finding: Finding) -> str:
    return ": ".join(part for part in (shown_path(finding.file), finding.field) if part)


def _where(finding: Finding) -> str:
    name = Path(finding.image).name or finding.file
    return f"{escape(finding.split)} · {escape(name)}" + (f" · {escape(finding.field)}" if finding.field else "")


def _splits(examined: list[Examined]) -> str:
    heads = ["images", "unreadable", "boxes", "crowds", "boxes per image", "maps of classes", "ignored pixels"]
    rows = []
    for entry in examined:
        own = entry.statistics
        boxes, pixels = int(own.boxes.sum()), int(own.pixels.sum())
        cells = [
            f"{own.images:,}",
            f"{own.unreadable:,}",
            f"{boxes:,}",
            f"{int(own.crowds.sum()):,}",
            f"{boxes / own.boxed:.1f}" if own.boxed else "&ndash;",
            f"{own.maps:,}",
            f"{own.pixels[-1] / pixels:.1%}" if pixels else "&ndash;",
            image_sizes(entry).replace("x", "&times;"),
        ]
        rows.append(f'<tr><td class="text">{escape(own.name)}</td>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    head = "".join(f"<th>{name}</th>" for name in [*heads, "image sizes"])
    return f'<div class="scroll"><table><tr><th class="text">split</th>{head}</tr>{"".join(rows)}</table></div>'


def _charts(examined: list[Examined]) -> str:
    names = [entry.split.name for entry in examined]
    key = "".join(
        f'<span style="background:{charts.COLORS[i % len(charts.COLORS)]}"></span>{escape(name)}'
        for i, name in enumerate(names)
    )
    own = {entry.split.name: entry.statistics for entry in examined}
    figures = [
        charts.histogram(
            [f"{edge:.0f}" if edge >= 4 else f"{edge:.2g}" for edge in BOX_EDGES[:-1]],
            {name: s.sizes.sum(0) for name, s in own.items()},
            "Box sizes",
            "square root of the area, pixels",
        ),
        charts.histogram(
            charts.bin_labels(COUNT_EDGES), {n: s.counts for n, s in own.items()}, "Boxes per image", "boxes"
        ),
        charts.histogram(
            charts.bin_labels(IMAGE_EDGES), {n: s.sides for n, s in own.items()}, "Image sizes", "longer side, pixels"
        ),
    ]
    return f'<p class="key soft">share of each split:{key}</p><div class="charts">{"".join(figures)}</div>'


def _classes(examined: list[Examined]) -> str:
    rows = class_rows(examined)
    most = max((cell[1] or 0 for _, cells in rows for cell in cells), default=0) or 1
    colors = {c.name: c.color for e in examined for c in e.statistics.taxonomy.categories}
    lines = []
    for name, cells in rows:
        swatch = f'<span class="swatch" style="background:rgb{colors[name]}"></span>'
        line = f'<tr><td class="text">{swatch} {escape(name)}</td>'
        for place, (images, boxes, share) in enumerate(cells):
            color = charts.COLORS[place % len(charts.COLORS)]
            width = 0 if boxes is None else round(70 * (boxes / most) ** 0.5)
            bar = f'<span class="bar" style="width:{width}px;background:{color}"></span>' if width else ""
            line += f'<td class="split">{"&ndash;" if images is None else f"{images:,}"}</td>'
            line += f'<td class="text">{"&ndash;" if boxes is None else f"{boxes:,}"}{bar}</td>'
            line += f"<td>{'&ndash;' if share is None else f'{share:.2%}'}</td>"
        lines.append(line + "</tr>")
    first = "".join(f'<th colspan="3" class="text split">{escape(entry.split.name)}</th>' for entry in examined)
    second = '<th class="split">images</th><th class="text">boxes</th><th>pixels</th>' * len(examined)
    return (
        f'<div class="scroll"><table><tr><th></th>{first}</tr><tr><th class="text">class</th>{second}</tr>'
        f'{"".join(lines)}</table></div><p class="soft">Bars grow with the square root; pixels are shares of the '
        "labelled ones.</p>"
    )


def _class_sizes(examined: list[Examined]) -> str:
    """Return one small histogram of box sizes per class, for the classes with most boxes."""
    names = [name for name, cells in class_rows(examined) if any(cell[1] for cell in cells)][:24]
    if len(names) < 2:
        return ""
    labels = [f"{edge:.0f}" if edge >= 4 else f"{edge:.2g}" for edge in BOX_EDGES[:-1]]
    figures = []
    for name in names:
        counts = {}
        for entry in examined:
            found = [c.detection for c in entry.statistics.taxonomy.detection_categories if c.name == name]
            if found and found[0] is not None:
                counts[entry.split.name] = entry.statistics.sizes[found[0]]
        figures.append(charts.histogram(labels, counts, name, "square root of the area, pixels"))
    return (
        f"<details><summary>Box sizes of each class{' (the most frequent 24)' if len(names) == 24 else ''}</summary>"
        f'<div class="charts" style="margin-top:12px">{"".join(figures)}</div></details>'
    )
