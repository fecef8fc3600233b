"""Label Studio: tasks with pre-annotations, and the interface that shows them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ocrnet_pl.labelling.base import AnnotationFormat, hex_color
from ocrnet_pl.labelling.runs import brush_runs
from ocrnet_pl.labelling.shapes import BACKGROUND, LabelledImage, Shape
from ocrnet_pl.storage.files import complete_file, write_json
from ocrnet_pl.structures import Taxonomy

_TAGS = (("box", "RectangleLabels"), ("polygon", "PolygonLabels"), ("brush", "BrushLabels"))


class LabelStudio(AnnotationFormat):
    """Writes ``tasks.json``, to import as tasks, and ``interface.xml``, the project's labelling interface.

    An object is a polygon, a brush where its mask has holes or several parts, or a rectangle without a mask; stuff is a
    brush. Tasks have ``uncertainty``, ``disagreement`` and ``remarks`` as data, by which the tool can sort.

    Args:
        prefix: What the images' paths begin with in the tasks: the address under which the tool finds the folder. By
            default that of local files, whose root is the folder that was predicted on.
        model_version: Name under which the tool lists the predictions.
        tolerance: Largest distance in pixels between an outline and its simplification; 0 for one that follows every
            pixel.
        masks: Whether masks and stuff are written, or only the boxes of objects.
    """

    folder: ClassVar[str] = "label_studio"

    def __init__(
        self,
        prefix: str = "/data/local-files/?d=",
        model_version: str = "ocrnet",
        tolerance: float = 1.0,
        masks: bool = True,
    ) -> None:
        super().__init__(tolerance, masks)
        self.prefix = prefix
        self.model_version = model_version

    def write(self, image: LabelledImage, taxonomy: Taxonomy, folder: Path) -> Any:
        """Return the task."""
        results = [self._result(shape, number, image) for number, shape in enumerate(image.shapes)]
        objects = [shape.score for shape in image.shapes if shape.is_thing]
        return {
            "data": {
                "image": self.prefix + quote(image.name),
                "uncertainty": round(image.uncertainty, 4),
                "disagreement": round(image.disagreement, 2),
                "remarks": "; ".join(image.remarks),
            },
            "predictions": [
                {
                    "model_version": self.model_version,
                    "score": round(sum(objects) / len(objects), 4) if objects else 0.0,
                    "result": results,
                }
            ],
        }

    def _result(self, shape: Shape, number: int, image: LabelledImage) -> dict[str, Any]:
        height, width = image.size
        parts = shape.outlines(self.tolerance) if shape.is_thing else []
        value: dict[str, Any]
        if shape.mask is None:
            x1, y1, x2, y2 = shape.box
            kind, value = (
                "rectangle",
                {
                    "x": 100 * x1 / width,
                    "y": 100 * y1 / height,
                    "width": 100 * (x2 - x1) / width,
                    "height": 100 * (y2 - y1) / height,
                    "rotation": 0,
                },
            )
        elif len(parts) == 1 and not parts[0].holes:
            points = [[100 * x / width, 100 * y / height] for x, y in parts[0].points.tolist()]
            kind, value = "polygon", {"points": points, "closed": True}
        else:
            kind, value = "brush", {"format": "rle", "rle": brush_runs(shape.whole_mask(image.size))}
        labels = f"{kind}labels"
        name = {"rectangle": "box"}.get(kind, kind)
        return {
            "id": hashlib.sha256(f"{image.name}/{number}".encode()).hexdigest()[:10],
            "type": labels,
            "from_name": name,
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": round(shape.score, 4),
            "value": value | {labels: [shape.label]},
        }

    def finish(self, entries: Sequence[Any], taxonomy: Taxonomy, folder: Path) -> None:
        """Write the tasks and the interface."""
        write_json(folder / "tasks.json", list(entries))
        labels = "".join(
            f"    <Label value={quoteattr(c.name)} background={quoteattr(hex_color(c.color))}/>\n"
            for c in taxonomy.categories
            if c.name != BACKGROUND
        )
        tags = "".join(f'  <{tag} name="{name}" toName="image">\n{labels}  </{tag}>\n' for name, tag in _TAGS if labels)
        with complete_file(folder / "interface.xml") as unfinished:
            unfinished.write_text(
                f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n{tags}</View>\n', encoding="utf-8"
            )
