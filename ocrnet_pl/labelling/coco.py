"""COCO: annotations that tools import, and results that its evaluation reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ocrnet_pl.labelling.base import AnnotationFormat
from ocrnet_pl.labelling.shapes import BACKGROUND, LabelledImage, Shape
from ocrnet_pl.storage.files import write_json
from ocrnet_pl.structures import Taxonomy


class Coco(AnnotationFormat):
    """Writes ``instances.json``, annotations with scores, and ``results.json`` with the same numbers of images.

    Masks without holes are polygons, others run-length encodings. Categories are numbered from 1 in the network's
    order. Stuff stands in the annotations only.
    """

    folder: ClassVar[str] = "coco"

    def write(self, image: LabelledImage, taxonomy: Taxonomy, folder: Path) -> Any:
        """Return the image and its annotations, without numbers."""
        height, width = image.size
        return {
            "image": {"file_name": image.name, "height": height, "width": width},
            "annotations": [self._annotation(shape, image) for shape in image.shapes],
        }

    def _annotation(self, shape: Shape, image: LabelledImage) -> dict[str, Any]:
        x1, y1, x2, y2 = shape.box
        entry: dict[str, Any] = {
            "category_id": shape.category + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            "score": shape.score,
            "isthing": int(shape.is_thing),
        }
        if shape.mask is None:
            return entry
        from faster_coco_eval import mask as mask_api

        parts = shape.outlines(self.tolerance)
        whole = mask_api.encode(np.asfortranarray(shape.whole_mask(image.size).astype(np.uint8)))
        whole = {"size": list(whole["size"]), "counts": whole["counts"].decode("ascii")}
        simple = all(not part.holes for part in parts)
        return entry | {
            "area": float(shape.mask.sum()),
            "segmentation": [part.points.reshape(-1).tolist() for part in parts] if parts and simple else whole,
        }

    def finish(self, entries: Sequence[Any], taxonomy: Taxonomy, folder: Path) -> None:
        """Write both files."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for number, entry in enumerate(entries, 1):
            images.append({"id": number, **entry["image"]})
            for shape in entry["annotations"]:
                is_thing = bool(shape.pop("isthing"))
                annotations.append({"id": len(annotations) + 1, "image_id": number, **shape})
                if is_thing:
                    kept = ("category_id", "bbox", "score", "segmentation")
                    results.append({"image_id": number, **{key: shape[key] for key in kept if key in shape}})
        categories = [
            {"id": number, "name": c.name, "isthing": int(c.is_thing)}
            for number, c in enumerate(taxonomy.categories, 1)
            if c.name != BACKGROUND
        ]
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
        write_json(folder / "instances.json", content)
        write_json(folder / "results.json", results)
