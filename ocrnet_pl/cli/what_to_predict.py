"""What ``predict`` and ``film`` are given, where it would be read but is not what was meant."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.program import program
from ocrnet_pl.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import Namespace


def refuse_film(config: Namespace) -> None:
    """Raise an error if ``predict`` was given a film.

    Args:
        config: The config of ``predict``.

    Raises:
        UsageError: It was.
    """
    from ocrnet_pl.imaging.films import SUFFIXES

    path = config["data"]["predict_path"]
    if path and path.lower().endswith(SUFFIXES) and os.path.isfile(os.path.expanduser(path)):
        raise UsageError(f"data.predict_path {path!r}: it is a film; {_command(config, 'film', '--source', path)}")


def refuse_runs_inside(config: Namespace) -> None:
    """Raise an error if ``predict`` would take the pictures that it wrote before for images to predict on.

    Args:
        config: The config of ``predict``.

    Raises:
        UsageError: The runs are written below the folder of the images.
    """
    path, runs = config["data"]["predict_path"], config["trainer"]["default_root_dir"]
    if not path or not runs or "://" in str(runs):
        return
    images, runs = (Path(each).expanduser().resolve() for each in (path, runs))
    hidden = any(part.startswith(".") for part in runs.parts[len(images.parts) :])
    if images.is_dir() and runs.is_relative_to(images) and not hidden:
        raise UsageError(
            f"data.predict_path {path!r}: the runs are written below it, in {str(runs)!r}, and the next start would "
            "predict on their pictures; give a --trainer.default_root_dir elsewhere, or another folder"
        )


def refuse_image(config: Namespace) -> None:
    """Raise an error if ``film`` was given an image or a folder.

    Args:
        config: The config of ``film``.

    Raises:
        UsageError: It was.
    """
    from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES

    path = config["source"]
    is_folder = os.path.isdir(path)
    if is_folder or (path.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(path)):
        what = "a folder, not a film" if is_folder else "an image"
        raise UsageError(f"source {path!r}: it is {what}; {_command(config, 'predict', '--data.predict_path', path)}")


def _command(config: Namespace, name: str, option: str, path: str) -> str:
    called = program()
    words = [called, name, "--ckpt_path", shlex.quote(str(config["ckpt_path"])), option, shlex.quote(path)]
    return f"predict with: {'python ' if called.endswith('.py') else ''}{' '.join(words)}"
