"""Files of annotation tools, written by hand, and what a source makes of them."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 12, 20


def picture(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Write an image of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (90, 120, 30)).save(path)


def png_text(pixels: np.ndarray) -> str:
    """Return a PNG as base64."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def window(values: dict[int, Any], rest: int = 0) -> np.ndarray:
    """Return a map with values in windows, later ones over earlier ones."""
    found = np.full((HEIGHT, WIDTH), rest)
    for value, place in values.items():
        found[place] = value
    return found


def outline(x1: float, y1: float, x2: float, y2: float) -> list[list[float]]:
    """Return the corners of a rectangle."""
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def names(categories: Any) -> list[str]:
    """Return the names of categories."""
    return [category.name for category in categories]
