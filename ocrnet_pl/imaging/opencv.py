"""OpenCV for data that processes load in parallel."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


@functools.cache
def opencv() -> ModuleType:
    """Import OpenCV and restrict it to one thread.

    The parallelism here is that of the loading processes. OpenCV's own threads would compete with them, and a process
    that is forked after they were started would wait for them forever.
    """
    import cv2

    cv2.setNumThreads(0)
    # Errors of an image are reported once, with the file's name. Version 5 has moved the function.
    (getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(0)
    return cv2


def decode_exactly(data: bytes, flags: int, size: tuple[int, int]) -> NDArray[Any]:
    """Decode an image in memory whose size is known.

    Args:
        data: The encoded image.
        flags: OpenCV's flags for ``imdecode``.
        size: (height, width) from its header.

    Returns:
        [H, W] or [H, W, C], as OpenCV returns it.

    Raises:
        ValueError: It cannot be decoded, or has another size.
    """
    cv2 = opencv()
    try:
        pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError("its pixels are broken") from error
    if pixels is None or pixels.shape[:2] != size:
        raise ValueError("its pixels are broken, or some are missing")
    return pixels
