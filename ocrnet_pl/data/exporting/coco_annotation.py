"""One object as COCO's JSON has it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def coco_annotation(
    box: NDArray[np.floating[Any]], category: int, crowd: bool, mask: dict[str, Any] | None
) -> dict[str, Any]:
    """Return an annotation without its own id and that of its image.

    Args:
        box: [4], xyxy in pixels.
        category: Id of its category.
        crowd: Whether it is a crowd.
        mask: Run-length encoding; None for a box without a mask.
    """
    x0, y0, x1, y1 = (round(float(value), 3) for value in box)
    entry: dict[str, Any] = {
        "category_id": category,
        "bbox": [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)],
        "area": round((x1 - x0) * (y1 - y0), 3),
        "iscrowd": int(crowd),
    }
    if mask is not None:
        from faster_coco_eval import mask as mask_api

        counts = mask["counts"]
        text = counts.decode() if isinstance(counts, bytes) else counts
        entry["segmentation"] = {"size": [int(side) for side in mask["size"]], "counts": text}
        entry["area"] = float(mask_api.area(mask))
    return entry
