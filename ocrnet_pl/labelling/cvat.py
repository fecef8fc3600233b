"""CVAT for images 1.1: one XML file for all images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from xml.sax.saxutils import quoteattr

from ocrnet_pl.labelling.base import AnnotationFormat, hex_color
from ocrnet_pl.labelling.runs import run_lengths
from ocrnet_pl.labelling.shapes import BACKGROUND, LabelledImage, Shape
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Taxonomy


class Cvat(AnnotationFormat):
    """Writes ``annotations.xml``, to upload to a task with the same images as "CVAT for images 1.1".

    An object is a polygon, a mask where it has holes or several parts, or a box without a mask; stuff is a mask. Images
    are in the order of their need of a look, and named as below the folder that was predicted on.
    """

    folder: ClassVar[str] = "cvat"

    def write(self, image: LabelledImage, taxonomy: Taxonomy, folder: Path) -> Any:
        """Return the image's element, without its number."""
        height, width = image.size
        shapes = "".join(self._shape(shape, order) for order, shape in enumerate(image.shapes))
        return f'name={quoteattr(image.name)} width="{width}" height="{height}">\n{shapes}  </image>\n'

    def _shape(self, shape: Shape, order: int) -> str:
        common = f'label={quoteattr(shape.label)} source="auto" occluded="0" z_order="{order}"'
        parts = shape.outlines(self.tolerance) if shape.is_thing else []
        if shape.mask is None:
            x1, y1, x2, y2 = shape.box
            return f'    <box {common} xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}"></box>\n'
        if len(parts) == 1 and not parts[0].holes:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in parts[0].points.tolist())
            return f'    <polygon {common} points="{points}"></polygon>\n'
        (left, top), (height, width) = shape.corner, shape.mask.shape
        runs = ", ".join(map(str, run_lengths(shape.mask).tolist()))
        where = f'left="{left}" top="{top}" width="{width}" height="{height}"'
        return f'    <mask {common} rle="{runs}" {where}></mask>\n'

    def finish(self, entries: Sequence[Any], taxonomy: Taxonomy, folder: Path) -> None:
        """Write the file."""
        labels = "".join(
            f"        <label><name>{quoteattr(c.name)[1:-1]}</name><color>{hex_color(c.color)}</color>"
            "<type>any</type><attributes></attributes></label>\n"
            for c in taxonomy.categories
            if c.name != BACKGROUND
        )
        images = "".join(f'  <image id="{number}" {entry}' for number, entry in enumerate(entries))
        with complete_file(folder / "annotations.xml") as unfinished:
            unfinished.write_text(
                '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
                f"  <meta>\n    <task>\n      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
                f"{images}</annotations>\n",
                encoding="utf-8",
            )
