"""OpenCV for data that processes load side by side."""

from __future__ import annotations

import functools
from types import ModuleType


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
