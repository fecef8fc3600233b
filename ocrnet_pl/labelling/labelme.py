"""labelme: a JSON file for each image."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from ocrnet_pl.labelling.base import AnnotationFormat
from ocrnet_pl.labelling.shapes import BACKGROUND, LabelledImage, Shape
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Taxonomy

_VERSION = "5.5.0"


class Labelme(AnnotationFormat):
    """Writes a JSON file per image, named like the image, and ``labels.txt``; open the folder with labelme.

    An object is a polygon, a mask where it has holes or several parts, or a rectangle without a mask; stuff is a mask.
    The files name the images by their relative paths. ``labels.txt`` is for ``labelme --labels``.
    """

    folder: ClassVar[str] = "labelme"
    by_stem: ClassVar[bool] = True

    def write(self, image: LabelledImage, taxonomy: Taxonomy, folder: Path) -> Any:
        """Write the image's file."""
        file = folder / Path(image.name).with_suffix(".json")
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": [self._shape(shape) for shape in image.shapes],
            "imagePath": Path(os.path.relpath(image.path, file.parent)).as_posix(),
            "imageData": None,
            "imageHeight": image.size[0],
            "imageWidth": image.size[1],
        }
        with complete_file(file) as unfinished:
            unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return None

    def _shape(self, shape: Shape) -> dict[str, Any]:
        parts = shape.outlines(self.tolerance) if shape.is_thing else []
        own: dict[str, Any]
        x1, y1, x2, y2 = shape.box
        if shape.mask is None:
            own = {"shape_type": "rectangle", "points": [[x1, y1], [x2, y2]], "mask": None}
        elif len(parts) == 1 and not parts[0].holes:
            own = {"shape_type": "polygon", "points": parts[0].points.tolist(), "mask": None}
        else:
            (left, top), (height, width) = shape.corner, shape.mask.shape
            # The corners are pixels of the mask, both of them.
            corners = [[left, top], [left + width - 1, top + height - 1]]
            own = {"shape_type": "mask", "points": corners, "mask": _png(shape.mask)}
        description = f"score {shape.score:.3f}" if shape.is_thing else ""
        return own | {"label": shape.label, "group_id": None, "description": description, "flags": {}}

    def finish(self, entries: Sequence[Any], taxonomy: Taxonomy, folder: Path) -> None:
        """Write the list of labels."""
        names = [c.name for c in taxonomy.categories if c.name != BACKGROUND]
        with complete_file(folder / "labels.txt") as unfinished:
            unfinished.write_text("\n".join(["__ignore__", "_background_", *names]) + "\n", encoding="utf-8")


def _png(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
