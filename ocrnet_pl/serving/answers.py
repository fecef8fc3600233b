"""The answers to a request: numbers as JSON, or the drawn image as PNG."""

from __future__ import annotations

import io
import json

from ocrnet_pl.serving.inquiry import Inquiry
from ocrnet_pl.serving.served import Result

MEDIA_TYPES = {"json": "application/json", "png": "image/png"}
"""The media type of each kind of answer."""


def answer(prediction: Result, inquiry: Inquiry, name: str) -> bytes:
    """Return the content of an answer.

    Args:
        prediction: The prediction, with its image and its taxonomy.
        inquiry: What is wanted of it.
        name: Name of the image, which becomes the ``image_id``.
    """
    wanted = prediction.filter(inquiry.classes or None, inquiry.score)
    if inquiry.kind == "png":
        return png_bytes(wanted, inquiry.score)
    values = wanted.to_dict(masks=inquiry.masks) | {"image_id": name}
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8")


def png_bytes(prediction: Result, score: float) -> bytes:
    """Return the drawn image as the content of a PNG file.

    Args:
        prediction: The prediction, with its image and its taxonomy.
        score: Score below which boxes are not drawn, 0 to 1.
    """
    file = io.BytesIO()
    # Photographs hardly get any smaller at higher levels, and take several times as long.
    prediction.plot(score=score).save(file, "PNG", compress_level=1)
    return file.getvalue()
