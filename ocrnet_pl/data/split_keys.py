"""The names of a run's splits: keys of a config's ``data`` section, and of YOLO's ``data.yaml``."""

from __future__ import annotations

from typing import Literal, get_args

Split = Literal["train", "val", "test"]
"""One of the splits."""
SPLITS: tuple[str, ...] = get_args(Split)
"""All splits, in the order in which they are read and listed."""
