"""What ``OCRNet.predict`` is asked for, checked before an image is read."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from numbers import Integral
from typing import Any

ONE_WAY = "tile and multiscale are both given; set one of them to null"
"""The error message for requests with two ways of prediction at once."""


def check_count(name: str, value: object) -> None:
    """Raise an error for a number of images that is none.

    Args:
        name: Name of the option.
        value: The number; those of NumPy count as well.

    Raises:
        ValueError: It is not a whole number, below 1, or larger than any count of anything.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not 1 <= int(value) <= sys.maxsize:  # type: ignore[call-overload]
        raise ValueError(f"{name}: expected a whole number from 1, got {value!r}")


def one_way(tile: Any, multiscale: Any) -> Any:
    """Return how an image is predicted in several passes; None for one pass.

    Raises:
        ValueError: Both ways are given, or one is not a way.
    """
    if tile is not None and multiscale is not None:
        raise ValueError(ONE_WAY)
    for name, kind, way in (("tile", "Tiling", tile), ("multiscale", "MultiScale", multiscale)):
        # Calling a class, which is easily given for an object of it, would make one of the network and the image.
        if way is not None and (not callable(way) or isinstance(way, type)):
            raise ValueError(f"{name}: expected a {kind}, or None, got {way!r}")
    return multiscale if tile is None else tile


def boxes_asked_for(operating_point: object, classes: object) -> tuple[str, tuple[str, ...]]:
    """Return the operating point and the names of the classes.

    Raises:
        ValueError: They are no texts.
    """
    if not isinstance(operating_point, str):
        raise ValueError(f"operating_point: expected text, such as 'best_f1', got {operating_point!r}")
    names = (classes,) if isinstance(classes, str) else tuple(classes) if isinstance(classes, Iterable) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise ValueError(f"classes: expected the name of a class, or several, got {classes!r}")
    return operating_point, names
