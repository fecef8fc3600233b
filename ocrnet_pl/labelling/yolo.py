"""YOLO: a text file for each image, and a data.yaml."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ocrnet_pl.labelling.base import AnnotationFormat
from ocrnet_pl.labelling.shapes import LabelledImage, Shape, joined
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Taxonomy


class Yolo(AnnotationFormat):
    """Writes ``labels/`` with a text file per image, ``data.yaml`` and ``images.txt``, the list of the images.

    An object is one row: a polygon, or a box without a mask. The format has no place for several parts of an object, of
    which the largest is kept, for holes, which a line joins to the outline, for scores, and for stuff.
    """

    folder: ClassVar[str] = "yolo"
    by_stem: ClassVar[bool] = True

    def write(self, image: LabelledImage, taxonomy: Taxonomy, folder: Path) -> Any:
        """Write the image's rows, and return its path."""
        rows = [self._row(shape, taxonomy, image.size) for shape in image.shapes if shape.is_thing]
        with complete_file(folder / "labels" / Path(image.name).with_suffix(".txt")) as unfinished:
            unfinished.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        return image.name

    def _row(self, shape: Shape, taxonomy: Taxonomy, size: tuple[int, int]) -> str:
        height, width = size
        number = taxonomy.categories[shape.category].detection
        parts = shape.outlines(self.tolerance)
        if parts:
            values = (joined(parts[0]) / [width, height]).reshape(-1).tolist()
        else:
            x1, y1, x2, y2 = shape.box
            values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        return " ".join([str(number), *(f"{value:.6f}" for value in values)])

    def finish(self, entries: Sequence[Any], taxonomy: Taxonomy, folder: Path) -> None:
        """Write the list of the images and the names of the classes."""
        # JSON is YAML, and quotes what needs it.
        names = "".join(f"  {i}: {json.dumps(c.name)}\n" for i, c in enumerate(taxonomy.detection_categories))
        with complete_file(folder / "data.yaml") as unfinished:
            unfinished.write_text(f"train: images\nval: images\nnames:\n{names}", encoding="utf-8")
        with complete_file(folder / "images.txt") as unfinished:
            unfinished.write_text("".join(f"images/{name}\n" for name in entries), encoding="utf-8")
