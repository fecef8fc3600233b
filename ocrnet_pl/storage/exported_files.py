"""How files that ``export`` writes are told from checkpoints; needs no torch."""

from __future__ import annotations

ENDINGS = (".onnx", ".xml", ".pt2")
"""Endings of exported files, in lower case; the last is for torch alone, which opening one says."""


def is_exported(path: str | None) -> bool:
    """Return whether a path has the ending of an exported file."""
    return path is not None and path.lower().endswith(ENDINGS)
