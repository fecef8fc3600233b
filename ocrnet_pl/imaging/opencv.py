"""OpenCV for data that processes load side by side."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


@functools.cache
def opencv() -> ModuleType:
    """Import OpenCV and keep it to one thread.

    The loading processes are what runs in parallel here. Threads of OpenCV's own would compete with them, and a process
    that is forked after they were started waits for them for ever.
    """
    import cv2

    cv2.setNumThreads(0)
    # What is wrong with an image is said once, with the file's name. Version 5 has moved the function.
    (getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(0)
    return cv2


def decode_exactly(data: bytes, flags: int, size: tuple[int, int]) -> NDArray[Any]:
    """Decode an image in memory of which the size is known.

    Args:
        data: The encoded image.
        flags: OpenCV's, for ``imdecode``.
        size: (height, width) that its header gives.

    Returns:
        [H, W] or [H, W, C], as OpenCV gives it.

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
