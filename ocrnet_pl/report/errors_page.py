"""Where a network errs, as one HTML page that needs no other file, with its pictures beside it."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from ocrnet_pl.drawing.error_plots import TITLES, plot_box_curves, plot_costs, plot_groups, plot_pixels
from ocrnet_pl.drawing.overlays import draw_prediction, draw_truth, panel, write_png
from ocrnet_pl.drawing.pages import as_data_url, png_data_url, write_document
from ocrnet_pl.drawing.plots import plot_confusion
from ocrnet_pl.metrics.errors.breakdown import groups, largest_confusions
from ocrnet_pl.metrics.errors.gallery import Shown
from ocrnet_pl.metrics.errors.kinds import MATCH, TOUCH, Kind
from ocrnet_pl.metrics.errors.objects import ERRORS, ObjectErrors
from ocrnet_pl.metrics.errors.pixels import CERTAIN, EDGE
from ocrnet_pl.metrics.errors.record import ErrorAnalysis
from ocrnet_pl.metrics.errors.tables import box_images, box_rows, confusion_names, curve_rows
from ocrnet_pl.metrics.figures import BY_NAME, FUSED
from ocrnet_pl.storage.files import complete_file

PAGE = "report.html"
_FOLDER = "report"
_MOST_PAIRS = 12
_MOST_CLASSES = 80
_SIDE = 256
_TILES = ("map", "map_50", "miou", "pq")
_MEANINGS = {
    Kind.CLASS: f"on an object of another class (IoU of at least {MATCH:g})",
    Kind.LOCATION: f"on an object of its class, but at an IoU of {TOUCH:g} to {MATCH:g}",
    Kind.BOTH: f"on an object of another class, at an IoU of {TOUCH:g} to {MATCH:g}",
    Kind.DUPLICATE: "on an object that a box of higher score already has",
    Kind.BACKGROUND: f"on no object (IoU of at most {TOUCH:g})",
    Kind.MISSED: "objects that nothing finds, not even a box whose error was corrected",
}


def write_errors_page(folder: Path, title: str, analysis: ErrorAnalysis, figures: Mapping[str, float]) -> Path:
    """Write ``report.html`` and, in ``report/``, its pictures and tables.

    Args:
        folder: Folder of the run.
        title: Title of the page.
        analysis: The errors.
        figures: The figures of the evaluation, by their names without the stage.

    Returns:
        Path of the page.
    """
    own = folder / _FOLDER
    if analysis.boxes:
        _write_boxes(own / "boxes.csv", analysis)
    body = [
        f"<h1>Where the network errs: {escape(title)}</h1>",
        f'<p class="soft">{len(analysis.images.ids):,} images; pictures and tables are those of the '
        f"{'predictions after fusion' if analysis.best == 'fused' else 'predictions'} where nothing else is said.</p>",
        f'<div class="tiles">{"".join(_tiles(analysis, figures))}</div>',
        *(_boxes(own, analysis) if analysis.boxes else ()),
        *(_pixels(own, analysis) if analysis.pixels else ()),
        *_galleries(own, analysis),
    ]
    write_document(folder / PAGE, f"Where the network errs: {title}", body)
    return folder / PAGE


def report_files(folder: Path) -> dict[str, Path]:
    """Return the pictures and tables of a run's page, by the names under which trackers show them.

    Those of the galleries are numbered, so that a name stays the same from one run to the next.

    Args:
        folder: Folder of the run.
    """
    files = {}
    for path in sorted((folder / _FOLDER).glob("*")):
        if path.suffix in (".png", ".csv"):
            numbered = re.match(r"[a-z_]+_\d+(?=_)", path.name)
            stem = numbered.group() if numbered else path.stem
            files[f"{_FOLDER}/{stem}{'.csv' if path.suffix == '.csv' else ''}"] = path
    return files


def _tiles(analysis: ErrorAnalysis, figures: Mapping[str, float]) -> Iterator[str]:
    yield f'<div class="tile"><b>{len(analysis.images.ids):,}</b>images</div>'
    if analysis.boxes:
        yield f'<div class="tile"><b>{int(analysis.boxes[analysis.best].objects.sum()):,}</b>objects</div>'
    for name in _TILES:
        for prefix, suffix in (("", ", raw"), (FUSED, ", fused")):
            value = figures.get(prefix + name, math.nan)
            if math.isfinite(value):
                alone = f"{FUSED}{name}" not in figures
                yield f'<div class="tile"><b>{value:.4f}</b>{BY_NAME[name].short}{"" if alone else suffix}</div>'


def _figure(png: Path, alt: str, width: str = "100%") -> str:
    return (
        f'<div class="card"><img alt="{escape(alt, quote=True)}" style="max-width:{width};background:#fff" '
        f'src="{png_data_url(png)}"></div>'
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1, above: str = "") -> str:
    """Return a table of cells that are HTML already; the first columns are text, and a row of heads may be above."""
    kinds = ['class="text"' if place < texts else "" for place in range(len(heads))]
    head = "".join(f"<th {kind}>{name}</th>" for kind, name in zip(kinds, heads, strict=True))
    lines = (
        "<tr>" + "".join(f"<td {kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>{above}<tr>{head}</tr>{"".join(lines)}</table></div>'


def _boxes(own: Path, analysis: ErrorAnalysis) -> Iterator[str]:
    boxes = analysis.boxes[analysis.best]
    yield "<h2>What each error costs</h2>"
    if not boxes.objects.any():
        yield '<p class="soft">The images have no labelled objects.</p>'
    else:
        yield (
            '<p class="soft">By how many points AP 50 would rise without the errors of one kind, each alone; the costs '
            "do not add up. In brackets is the number of errors, of any score. The kinds are those of TIDE (Bolya et "
            "al., ECCV 2020).</p>"
        )
        plot_costs({"boxes": analysis.boxes, "masks": analysis.masks}, own / "costs.png")
        yield _figure(own / "costs.png", "cost of each kind of error")
        yield _costs({"boxes": analysis.boxes, "masks": analysis.masks})
    yield "<h2>Confused classes</h2>"
    yield from _confusion(own, analysis, boxes)
    if boxes.objects.any():
        yield "<h2>Precision and recall</h2>"
        plot_box_curves(
            {name: found.curves for name, found in analysis.boxes.items()},
            analysis.taxonomy.detection_categories,
            own / "box_curves.png",
        )
        rows = ([*row[:2], *(f"{value:.5f}" for value in row[2:])] for row in curve_rows(analysis))
        _write_table(own / "box_curves.csv", ["boxes", "class", "score", "precision", "recall", "f1"], rows)
        yield _figure(own / "box_curves.png", "precision, recall and F1")
        yield from _classes(analysis)
        yield "<h2>Size and crowding</h2>"
        yield (
            f'<p class="soft">Objects that a box of their class finds at an IoU of {MATCH:g}: with a score of at least '
            f"{analysis.score:g}, only with a lower one, or not at all. The size is the square root of the area in "
            "pixels; the overlap is the largest IoU of the object&#39;s box with that of another object.</p>"
        )
        titles = {"size": "size", "overlap": "overlap with a neighbour", "count": "objects in the image"}
        plot_groups({titles[name]: found for name, found in groups(analysis).items()}, own / "groups.png")
        yield _figure(own / "groups.png", "objects found by size and crowding")


def _costs(errors: Mapping[str, Mapping[str, ObjectErrors]]) -> str:
    columns = [(what, name, found) for what, parts in errors.items() for name, found in parts.items()]
    single = all(len(parts) < 2 for parts in errors.values())
    heads = ["error", *(what if single else f"{what}, {name}" for what, name, _ in columns)]
    rows = [
        [f'{TITLES[kind]}<br><span class="soft">{_MEANINGS[kind]}</span>']
        + [f"{_points(found.costs.by_kind[kind])} ({found.counts[kind]:,})" for *_, found in columns]
        for kind in ERRORS
    ]
    rows.append(["all false alarms", *(_points(found.costs.alarms) for *_, found in columns)])
    rows.append(["all objects not found", *(_points(found.costs.misses) for *_, found in columns)])
    rows.append(["AP 50 now", *(_points(found.costs.ap) for *_, found in columns)])
    return _table(heads, rows)


def _points(value: float) -> str:
    return "&ndash;" if math.isnan(value) else f"{100 * value:.2f}"


def _confusion(own: Path, analysis: ErrorAnalysis, boxes: ObjectErrors) -> Iterator[str]:
    names = confusion_names(analysis)
    matrix = boxes.errors.confusion
    yield (
        f'<p class="soft">Boxes with a score of at least {analysis.score:g}, matched to objects at an IoU of at least '
        f"{MATCH:g}, first those of the right class. The column of the background has the objects that are missed, its "
        "row the boxes on nothing, duplicates among them. The numbers are in report/box_confusion.csv.</p>"
    )
    if matrix.any():
        plot_confusion(torch.from_numpy(matrix), names, own / "box_confusion.png")
        counts = (
            [kind, name, *row]
            for kind, found in analysis.boxes.items()
            for name, row in zip(names, found.errors.confusion.tolist(), strict=True)
        )
        _write_table(own / "box_confusion.csv", ["boxes", "true", *names], counts)
        yield _figure(own / "box_confusion.png", "confusion of boxes", "min(100%, 720px)")
    pairs = largest_confusions(matrix[:-1, :-1], matrix[:-1].sum(1), _MOST_PAIRS)
    if pairs:
        rows = [
            [escape(names[pair.true]), escape(names[pair.found]), f"{pair.count:,}", f"{pair.share:.1%}"]
            for pair in pairs
        ]
        yield _table(["true", "predicted", "objects", "of the true class"], rows, 2)
    else:
        yield '<p class="good">No object is taken for one of another class.</p>'


def _classes(analysis: ErrorAnalysis) -> Iterator[str]:
    categories = analysis.taxonomy.detection_categories
    objects = analysis.boxes[analysis.best].objects
    order = sorted(range(len(categories)), key=lambda number: -objects[number])
    heads = ["class", "objects", *(["precision", "recall", "F1", "best F1", "at"] * len(analysis.boxes))]
    columns = "".join(f'<th colspan="5" class="split">{name}</th>' for name in analysis.boxes)
    above = f'<tr><th colspan="2"></th>{columns}</tr>' if len(analysis.boxes) > 1 else ""
    rows = []
    for number in order[:_MOST_CLASSES]:
        cells = [escape(categories[number].name), f"{objects[number]:,}"]
        for found in analysis.boxes.values():
            curve = found.curves[number]
            cells += [_share(value) for value in curve.at(analysis.score)]
            best = curve.best
            cells += ["&ndash;"] * 2 if best is None else [_share(curve.at(best)[2]), f"{best:.3f}"]
        rows.append(cells)
    yield _table(heads, rows, above=above)
    more = f" The {_MOST_CLASSES} classes with most objects are shown." if len(order) > _MOST_CLASSES else ""
    yield (
        f'<p class="soft">At an IoU of {MATCH:g}, with a score of at least {analysis.score:g}; then the highest F1 '
        f"and the score at which it is reached. The curves of all classes are in report/box_curves.csv.{more}</p>"
    )


def _share(value: float) -> str:
    return "&ndash;" if math.isnan(value) else f"{value:.3f}"


def _write_table(path: Path, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with (
        complete_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", errors="replace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(heads)
        writer.writerows(rows)


def _pixels(own: Path, analysis: ErrorAnalysis) -> Iterator[str]:
    names = [category.name for category in analysis.taxonomy.semantic_categories]
    yield "<h2>Wrong pixels</h2>"
    if not analysis.pixels[analysis.best].labelled:
        yield '<p class="soft">The images have no labelled pixels.</p>'
        return
    rows = []
    for name, found in analysis.pixels.items():
        wrong, edges = found.wrong, int(found.edges.sum())
        inside = found.labelled - found.labelled_near
        rows.append(
            [
                name,
                f"{wrong / found.labelled:.2%}",
                f"{edges / wrong:.1%}" if wrong else "&ndash;",
                f"{found.labelled_near / found.labelled:.1%}",
                f"{edges / found.labelled_near:.2%}" if found.labelled_near else "&ndash;",
                f"{(wrong - edges) / inside:.2%}" if inside else "&ndash;",
            ]
        )
    heads = ["", "wrong", "of these near edges", "of all pixels near edges", "wrong near edges", "wrong inside"]
    yield (
        f'<p class="soft">A pixel is near an edge if another class, or an unlabelled pixel, is at most {EDGE:.1%} '
        "of the image&#39;s diagonal away, at least one pixel.</p>"
    )
    yield _table(heads, rows)
    found = analysis.pixels[analysis.best]
    matrix = found.inside + found.edges
    pixels = analysis.images.pixels
    totals = np.bincount(pixels.classes, pixels.values[:, 1], len(names)).astype(np.int64)
    pairs = largest_confusions(matrix, totals, _MOST_PAIRS, found.edges)
    if pairs:
        plot_pixels(pairs, names, found.labelled, own / "pixels.png")
        yield _figure(own / "pixels.png", "the largest confusions of pixels")
        rows = [
            [
                escape(names[pair.true]),
                escape(names[pair.found]),
                f"{pair.count / found.labelled:.3%}",
                f"{pair.share:.1%}",
                f"{pair.edges:.0%}",
            ]
            for pair in pairs
        ]
        yield _table(["true", "predicted", "of all pixels", "of the true class", "near edges"], rows, 2)


def _write_boxes(path: Path, analysis: ErrorAnalysis) -> None:
    """Write the boxes of the galleries' images, for trackers and for whoever looks for one error among many."""
    rows = (
        [row.image, row.result, row.category, "" if math.isnan(row.score) else f"{row.score:.4f}"]
        + [f"{value:.5f}" for value in (row.area, *row.box)]
        for shown in box_images(analysis)
        for row in box_rows(analysis, shown)
    )
    _write_table(path, ["image", "result", "class", "score", "area", "x1", "y1", "x2", "y2"], rows)


def _galleries(own: Path, analysis: ErrorAnalysis) -> Iterator[str]:
    kinds = (
        (
            "worst",
            "The worst images",
            "The lowest mean of the F1 of the boxes (IoU of at least "
            f"{MATCH:g}, score of at least {analysis.score:g}) and the mIoU of the image.",
            analysis.worst,
            lambda shown: f"quality {-shown.rank:.3f}",
        ),
        (
            "false_alarms",
            "Surprising boxes",
            "The false alarms with the highest scores: errors of the network, or of the labels.",
            analysis.alarming,
            lambda shown: f"a false alarm with score {shown.rank:.3f}",
        ),
        (
            "sure_pixels",
            "Surprising pixels",
            "The most pixels away from edges that are wrong with a probability of at least "
            f"{CERTAIN:g}, before fusion.",
            analysis.sure,
            lambda shown: f"{shown.rank:.2%} of the pixels",
        ),
    )
    drawings: dict[str, torch.Tensor] = {}
    for name, title, meaning, images, caption in kinds:
        if images:
            if images is analysis.sure:
                # These are of the predictions before fusion.
                drawings = {}
            pictures = "".join(
                _picture(own / f"{name}_{number}_{_stem(shown)}.png", shown, analysis, caption(shown), drawings)
                for number, shown in enumerate(images, 1)
            )
            yield f'<h2>{title}</h2><p class="soft">{meaning}</p><div class="pictures">{pictures}</div>'


def _stem(shown: Shown) -> str:
    return re.sub(r"[^\w.-]+", "_", Path(shown.truth.path or str(shown.truth.image_id)).stem)[:60]


def _picture(png: Path, shown: Shown, analysis: ErrorAnalysis, caption: str, drawings: dict[str, torch.Tensor]) -> str:
    """Write a picture and return its part of the page; an image of two galleries is drawn once."""
    drawn = drawings.get(shown.key)
    if drawn is None:
        sides = [
            draw_truth(shown.truth, analysis.taxonomy, min_side=_SIDE),
            draw_prediction(
                shown.truth.image, shown.prediction, analysis.taxonomy, threshold=analysis.score, min_side=_SIDE
            ),
        ]
        drawn = drawings[shown.key] = panel(sides, ["labels", "prediction"])
    write_png(drawn, png)
    picture = to_pil_image(drawn)
    # The default filter takes half as long again, for a difference that JPEG does not keep.
    picture.thumbnail((840, 840), Image.Resampling.BILINEAR)
    name = shown.truth.path or str(shown.truth.image_id)
    return (
        f'<figure class="wide"><img alt="{escape(name, quote=True)}" src="{as_data_url(picture)}" '
        f'width="{picture.width}"><figcaption>{escape(name)}<br>{caption}</figcaption></figure>'
    )
