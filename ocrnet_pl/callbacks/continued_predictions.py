"""A prediction that was cut off goes on with the images that are left."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.callbacks.annotations import AnnotationWriter
from ocrnet_pl.callbacks.disagreements import Disagreements
from ocrnet_pl.callbacks.process_lines import ProcessLines
from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.distributed.first_process import say

PREDICTIONS = "predictions"
"""Name of the folder below the run's."""
_KINDS = ("overlay", "semantic", "panoptic")


class ContinuedPredictions(Callback):
    """Leaves out the images whose files are complete; the others are predicted, also if they were begun."""

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
        done = _done(folder, parts, _ids(data.predict_path)) if trainer.is_global_zero else None
        done = trainer.strategy.broadcast(done)
        data.predicted = done
        if trainer.is_global_zero:
            say(f"resume: {len(done or ())} images in {folder} are complete")


def _ids(path: str | None) -> frozenset[str]:
    """Return the ids of the images that are asked for."""
    if path is None:
        return frozenset()
    images = ImageFolder(path)
    return frozenset(str(images.identity(index)[0]) for index in range(len(images)))


def _done(folder: Path, parts: list[Path], ids: frozenset[str]) -> frozenset[str]:
    """Return the ids of the images that are complete, and forget what is known of others."""
    lines = [ProcessLines(part, 0) for part in parts]
    done = ids.intersection(*(each.names() for each in lines))
    kinds = [folder / PREDICTIONS / kind for kind in _KINDS if (folder / PREDICTIONS / kind).is_dir()]
    done = frozenset(name for name in done if all((kind / f"{name}.png").is_file() for kind in kinds))
    if done == ids:
        # Without any image to predict on, nothing would be joined.
        done -= {max(done, default="")}
    for each in lines:
        each.keep(done)
    return done
