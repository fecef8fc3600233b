"""The operating points as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocrnet_pl.calibration.score_fit import ScoreReport
from ocrnet_pl.drawing.figures_table import figures_table
from ocrnet_pl.inference.operating_points import Curve
from ocrnet_pl.inference.score_calibration import ScoreCalibration

if TYPE_CHECKING:
    from rich.table import Table


def points_to_dict(scores: ScoreCalibration) -> dict[str, dict[str, Any]]:
    """Return the point of the best F1 and the whole curve of each class, by way, as plain numbers."""
    return {
        way: {
            name: {
                "objects": curve.objects,
                "best_f1": _best(curve),
                "curve": {
                    "score": list(curve.scores),
                    "precision": curve.precision.tolist(),
                    "recall": curve.recall.tolist(),
                },
            }
            | ({"bound": scores.bounds[way][name]._asdict()} if scores.bounds else {})
            for name, curve in own.items()
        }
        for way, own in scores.curves.items()
    }


def points_table(scores: ScoreCalibration) -> Table:
    """Return a table of the points of the best F1, of the boxes that ``predict`` gives out."""
    way = "fused" if "fused" in scores.curves else "raw"
    rows = []
    for name, curve in scores.curves[way].items():
        best = _best(curve)
        figures = (
            [f"{best[key]:.3f}" for key in ("score", "precision", "recall", "f1")]
            if best
            else ["", "", "0.000", "0.000"]
        )
        rows.append((name, str(curve.objects), *figures, f"{curve.recall.max(initial=0):.3f}"))
    header = ("", "objects", "score", "precision", "recall", "F1", "recall of all boxes")
    return figures_table(header, rows, f"Best F1 per class, {way} boxes: {scores.images} images")


def errors_table(report: ScoreReport) -> Table:
    """Return a table of the gaps between probability and truth before and after."""
    rows = [(name, f"{before.error:.4f}", f"{after.error:.4f}") for name, (before, after) in report.reliability.items()]
    return figures_table(("", "before", "after"), rows, f"Expected calibration error: {report.images} images")


def _best(curve: Curve) -> dict[str, float] | None:
    if not curve.scores:
        return None
    place = int(curve.f1.argmax())
    return {
        "score": curve.scores[place],
        "precision": float(curve.precision[place]),
        "recall": float(curve.recall[place]),
        "f1": float(curve.f1[place]),
    }
