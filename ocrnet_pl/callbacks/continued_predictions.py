"""A prediction that was cut off goes on with the images that are left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.callbacks.annotations import AnnotationWriter
from ocrnet_pl.callbacks.disagreements import Disagreements
from ocrnet_pl.callbacks.prediction_writer import file_state
from ocrnet_pl.callbacks.process_lines import ProcessLines
from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.imaging import png

PREDICTIONS = "predictions"
"""Name of the folder below the run's."""


class ContinuedPredictions(Callback):
    """Leaves out the images whose files are complete; the others are predicted, also if they were begun or changed."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the images that are done, before the others are loaded."""
        folder = run_folder(trainer)
        if folder is None:
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        parts = [folder / PREDICTIONS]
        parts += [folder / "annotations" for each in callbacks if isinstance(each, AnnotationWriter) and each.formats]
        parts += [folder for each in callbacks if isinstance(each, Disagreements) and each.enabled]
        # The others get it from the first process: this one makes the earlier processes' files one.
        data = trainer.datamodule  # type: ignore[attr-defined]
        done = _done(folder, parts, _images(data.predict_path)) if trainer.is_global_zero else None
        done = trainer.strategy.broadcast(done)
        data.predicted = done
        if trainer.is_global_zero:
            say(f"resume: {len(done or ())} images in {folder} are complete")


def _images(path: str | None) -> dict[str, Path]:
    """Return the files of the images that are asked for, by their ids."""
    if path is None:
        return {}
    images = ImageFolder(path)
    return {str(images.identity(index)[0]): images.image_path(index) for index in range(len(images))}


def _done(folder: Path, parts: list[Path], images: dict[str, Path]) -> frozenset[str]:
    """Return the ids of the images that are complete, and forget what is known of others."""
    lines = [ProcessLines(part, 0) for part in parts]
    known = frozenset(images).intersection(*(each.names() for each in lines[1:]))
    predictions = folder / PREDICTIONS
    done = frozenset(
        name
        for name, entry in lines[0].pairs()
        if name in known and file_state(images[name]) == entry.get("source") and _complete(predictions, name, entry)
    )
    if done == images.keys():
        # Without any image to predict on, nothing would be joined.
        done -= {max(done, default="")}
    for each in lines:
        each.keep(done)
    return done


def _complete(folder: Path, name: str, entry: dict[str, Any]) -> bool:
    """Return whether the files of an image are there, each to its end."""
    return all(_whole(folder / kind / f"{name}.png") for kind in entry["kinds"])


def _whole(path: Path) -> bool:
    """Return whether a PNG is there and has its end, which one lacks that was cut off when a machine lost its power."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - len(png.END)))
            return file.read() == png.END
    except OSError:
        return False
