"""Fixtures for all tests."""

from __future__ import annotations

import importlib
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from ocrnet_pl.drawing import plots
from ocrnet_pl.storage.files import complete_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Where a shell starts the tests in the background, it has Ctrl-C ignored, also by the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
# The images of the tests are small: two threads would mostly wait for each other.
torch.set_num_threads(1)
for name in ("lightning.pytorch", "lightning.fabric"):
    # Its handlers hold on to the error stream of the moment, which a test's capture closes; caplog still sees all.
    importlib.import_module(name)
    logging.getLogger(name).handlers.clear()


_render = plots.save_figure


def _save_blank(figure: Figure, png: str | os.PathLike[str]) -> None:
    with complete_file(png) as unfinished:
        Image.new("RGB", (1, 1)).save(unfinished, "PNG")


# Each run ends with two plots, which take longer to render than a run of a few steps takes to train.
plots.save_figure = _save_blank


@pytest.fixture
def rendered_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at the plots of a run: they are rendered."""
    monkeypatch.setattr(plots, "save_figure", _render)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real sample images; the test is skipped where it is absent."""
    root = Path(os.environ.get("OCRNET_PL_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no sample data at {root} (set OCRNET_PL_DATA to its folder)")
    return root
