"""Where a network errs, as what Weights & Biases shows: tables to filter, curves, confusion, the worst images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ocrnet_pl.metrics.errors.gallery import Shown
from ocrnet_pl.metrics.errors.record import ErrorAnalysis
from ocrnet_pl.metrics.errors.tables import CurveRow, box_images, box_rows, confusion_names, curve_rows
from ocrnet_pl.tracking.wandb_media import to_wandb_image

if TYPE_CHECKING:
    import wandb

_MOST_LINES = 10


def report_items(analysis: ErrorAnalysis) -> dict[str, Callable[[], Any]]:
    """Return what makes each item, by its name; nothing is made before it is called.

    Args:
        analysis: The errors.
    """
    items: dict[str, Callable[[], Any]] = {}
    if analysis.best in analysis.boxes and analysis.boxes[analysis.best].objects.any():
        items["report/box_curves"] = partial(_curve_table, analysis)
        items["report/precision_recall"] = partial(_curves, analysis, "recall", "precision", "Precision over recall")
        items["report/f1"] = partial(_curves, analysis, "score", "f1", "F1 over the smallest score")
        items["report/box_confusion"] = partial(_confusion, analysis)
    if box_images(analysis):
        items["report/boxes"] = partial(_boxes, analysis)
    galleries = {"worst": analysis.worst, "false_alarms": analysis.alarming, "sure_pixels": analysis.sure}
    return items | {f"report/{name}": partial(_gallery, analysis, shown) for name, shown in galleries.items() if shown}


def _boxes(analysis: ErrorAnalysis) -> wandb.Table:
    """Return one row per box of the worst and the surprising images, with the image and its overlays."""
    import wandb

    rows = []
    for shown in box_images(analysis):
        # The same object in all of its rows, so that it is stored once.
        image = _overlay(analysis, shown)
        for row in box_rows(analysis, shown):
            score = None if math.isnan(row.score) else row.score
            rows.append([image, row.image, row.result, row.category, score, row.area])
    return wandb.Table(columns=["overlay", "image", "result", "class", "score", "area"], data=rows)


def _gallery(analysis: ErrorAnalysis, images: Sequence[Shown]) -> list[wandb.Image]:
    return [_overlay(analysis, each) for each in images]


def _overlay(analysis: ErrorAnalysis, shown: Shown) -> wandb.Image:
    return to_wandb_image(shown.truth.image, shown.truth, {"prediction": shown.prediction}, analysis.taxonomy)


def _curve_table(analysis: ErrorAnalysis) -> wandb.Table:
    import wandb

    heads: list[str | int] = ["class" if name == "category" else name for name in CurveRow._fields]
    return wandb.Table(columns=heads, data=[_finite(row) for row in curve_rows(analysis)])


def _curves(analysis: ErrorAnalysis, x: str, y: str, title: str) -> Any:
    """Return one figure over another as a chart, for the classes with the most objects."""
    import wandb

    objects = analysis.boxes[analysis.best].objects
    names = [category.name for category in analysis.taxonomy.detection_categories]
    order = sorted(range(len(names)), key=lambda number: -objects[number])
    most = [names[number] for number in order[:_MOST_LINES] if objects[number]]
    lines: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in most}
    for row in curve_rows(analysis):
        if row.boxes == analysis.best and row.category in lines:
            lines[row.category][0].append(getattr(row, x))
            lines[row.category][1].append(getattr(row, y))
    xs, ys = zip(*lines.values(), strict=True)
    return wandb.plot.line_series(list(xs), list(ys), keys=list(lines), title=title, xname=x)


def _confusion(analysis: ErrorAnalysis) -> Any:
    """Return the confusion matrix of the boxes as a chart, rows true."""
    import wandb

    names = confusion_names(analysis)
    matrix = analysis.boxes[analysis.best].errors.confusion.tolist()
    data = [[true, found, matrix[i][j]] for i, true in enumerate(names) for j, found in enumerate(names)]
    columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        data_table=wandb.Table(columns=columns, data=data),
        vega_spec_name="wandb/confusion_matrix/v1",
        fields={str(name): str(name) for name in columns},
        string_fields={"title": f"Confusion of boxes with a score of at least {analysis.score:g}"},
    )


def _finite(row: CurveRow) -> list[Any]:
    """Return a row as JSON takes it: a recall without objects is empty."""
    return [None if isinstance(value, float) and math.isnan(value) else value for value in row]
