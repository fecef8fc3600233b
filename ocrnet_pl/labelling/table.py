"""CSV: one row per box."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ocrnet_pl.labelling.base import AnnotationFormat
from ocrnet_pl.labelling.shapes import LabelledImage
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Taxonomy

_COLUMNS = ("image", "x1", "y1", "x2", "y2", "label", "score")


class BoxTable(AnnotationFormat):
    """Writes ``boxes.csv`` with a row per object (image, x1, y1, x2, y2, label, score) and ``images.csv``.

    The source ``Table`` reads both. There is no place for masks and stuff.
    """

    folder: ClassVar[str] = "csv"

    def write(self, image: LabelledImage, taxonomy: Taxonomy, folder: Path) -> Any:
        """Return the image's name and rows."""
        rows = [[*(round(v, 2) for v in s.box), s.label, round(s.score, 4)] for s in image.shapes if s.is_thing]
        return [image.name, rows, round(image.uncertainty, 4), round(image.disagreement, 2)]

    def finish(self, entries: Sequence[Any], taxonomy: Taxonomy, folder: Path) -> None:
        """Write both tables."""
        boxes = [[name, *row] for name, rows, _, _ in entries for row in rows]
        images = [[name, uncertainty, disagreement] for name, _, uncertainty, disagreement in entries]
        for name, header, rows in (
            ("boxes.csv", _COLUMNS, boxes),
            ("images.csv", ("image", "uncertainty", "disagreement"), images),
        ):
            with (
                complete_file(folder / name) as unfinished,
                unfinished.open("w", encoding="utf-8", newline="") as file,
            ):
                writer = csv.writer(file)
                writer.writerow(header)
                writer.writerows(rows)
