"""The name of the program, for help and advice."""

from __future__ import annotations

import sys
from pathlib import Path


def program() -> str:
    """Return how the command line was called: ``train.py``, a script of another name, or ``ocrnet``."""
    name = Path(sys.argv[0]).name
    return "python -m ocrnet_pl" if name == "__main__.py" else name
