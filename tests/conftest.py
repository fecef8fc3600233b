"""Fixtures for all tests."""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from lightning.fabric.utilities import registry
from lightning.pytorch.trainer.connectors.logger_connector import result
from PIL import Image

from ocrnet_pl.callbacks import pictures
from ocrnet_pl.drawing import plots
from ocrnet_pl.storage.files import complete_file
from tests.helpers.signatures import remember_signatures
from tests.helpers.tiny_run import TINY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Where a shell starts the tests in the background, it has Ctrl-C ignored, also by the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
# The images of the tests are small: two threads would mostly wait for each other.
torch.set_num_threads(1)
# The first backward pass of a process decides whether autograd gets threads, with which no forked process can train.
# Without a GPU it gets none, unless an export came first: that pretends to have one.
torch.ones(1, requires_grad=True).sum().backward()
for name in ("lightning.pytorch", "lightning.fabric"):
    # Its handlers hold on to the error stream of the moment, which a test's capture closes; caplog still sees all.
    importlib.import_module(name)
    logging.getLogger(name).handlers.clear()
# Each trainer looks through all installed packages for callbacks.
registry.entry_points = functools.cache(registry.entry_points)
if not torch.accelerator.is_available():
    # Lightning moves the record of a figure to the figure's device each time it is logged, by copying all that is in
    # it, which takes a tenth of a short run. Here there is no other device.
    result._ResultMetric.to = lambda self, *_, **__: self  # type: ignore[assignment,method-assign]


remember_signatures()

# Most of what lives is modules and parsers, which the collector would walk through again and again.
gc.set_threshold(50_000, 20, 20)

_render, _curves, _confusion = plots.save_figure, pictures.plot_curves, pictures.plot_confusion


def _save_blank(figure: Figure | None, png: str | os.PathLike[str]) -> None:
    with complete_file(png) as unfinished:
        Image.new("RGB", (1, 1)).save(unfinished, "PNG")


def _blank_confusion(confusion: torch.Tensor, names: list[str], png: str | os.PathLike[str]) -> None:
    _save_blank(None, png)


def _blank_curves(metrics_csv: str | os.PathLike[str], png: str | os.PathLike[str], figures: object) -> bool:
    found = bool(plots.read_series(metrics_csv))
    if found:
        _save_blank(None, png)
    return found


# Each run ends with two plots and draws images, which takes longer than a run of a few steps takes to train.
plots.save_figure, pictures.plot_curves, pictures.plot_confusion = _save_blank, _blank_curves, _blank_confusion
_longer_side, pictures.LONGER_SIDE = pictures.LONGER_SIDE, 0


@pytest.fixture
def rendered_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at the plots and pictures of a run: they are those that a user gets."""
    monkeypatch.setattr(plots, "save_figure", _render)
    monkeypatch.setattr(pictures, "plot_curves", _curves)
    monkeypatch.setattr(pictures, "plot_confusion", _confusion)
    monkeypatch.setattr(pictures, "LONGER_SIDE", _longer_side)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real sample images; the test is skipped where it is absent."""
    root = Path(os.environ.get("OCRNET_PL_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no sample data at {root} (set OCRNET_PL_DATA to its folder)")
    return root


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the config of a run that takes two seconds."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path
