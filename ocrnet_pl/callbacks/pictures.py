"""Pictures of a fixed set of images, curves and the confusion matrix, as PNG files and in Weights & Biases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.distributed.gather import compute_on_first
from ocrnet_pl.drawing.overlays import (
    draw_prediction,
    draw_truth,
    drawn_categories,
    panel,
    panoptic_to_rgb,
    sheet,
    write_png,
)
from ocrnet_pl.drawing.picture_index import write_index
from ocrnet_pl.drawing.plots import plot_confusion, plot_curves
from ocrnet_pl.metrics.figures import figures_of
from ocrnet_pl.storage.files import records
from ocrnet_pl.structures import Batch, Prediction, Predictions, Sample, Taxonomy
from ocrnet_pl.tracking.files import show_files
from ocrnet_pl.tracking.wandb_media import to_wandb_image
from ocrnet_pl.tracking.wandb_tracker import WandbTracker

LONGER_SIDE = 512
"""Length in pixels of the longer side up to which a smaller image is enlarged."""


@dataclass
class _Picture:
    """One image's position in the data set, its truth, and its predictions before and after fusion."""

    position: int
    truth: Sample
    raw: Prediction
    fused: Prediction | None


class Pictures(Callback):
    """Draws the same few validation images each time: truth, raw prediction, fused prediction.

    They are spread evenly over the set, whatever the number of processes. They are written into ``pictures/`` of the
    run's folder, each alone and all on one sheet, and shown by Weights & Biases with boxes and masks that can be
    switched on and off. At the end, ``curves.png`` and ``confusion.png`` are written as well. ``index.html`` shows how
    the pictures changed in training. Validation and testing draw once.

    Args:
        count: Number of images, 0 for none.
        every_n_epochs: Number of epochs between two drawings in training, at least 1; they are drawn at the end as
            well.
        threshold: Score below which boxes are not drawn, 0 to 1.
        enabled: Whether anything is drawn.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, count: int = 4, every_n_epochs: int = 5, threshold: float = 0.3, enabled: bool = True) -> None:
        if count < 0 or every_n_epochs < 1:
            raise ValueError("pictures: count must be at least 0 and every_n_epochs at least 1")
        if not 0 <= threshold <= 1:
            raise ValueError(f"pictures.threshold: expected 0 to 1, got {threshold}")
        self.count = count
        self.every_n_epochs = every_n_epochs
        self.threshold = threshold
        self.enabled = enabled
        self._folder: Path | None = None
        self._wanted: set[int] = set()
        self._seen = 0
        self._pictures: list[_Picture] = []
        self._epoch = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Get the run's folder."""
        folder = run_folder(trainer)
        self._folder = None if folder is None or not self.enabled else folder / "pictures"
        self._pictures = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the images."""
        self._choose(trainer, trainer.val_dataloaders, trainer.num_val_batches)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the images."""
        self._choose(trainer, trainer.test_dataloaders, trainer.num_test_batches)

    def _choose(self, trainer: Trainer, loader: Any, batches: list[int | float]) -> None:
        self._seen, self._epoch = 0, trainer.current_epoch
        self._pictures = []
        self._wanted = set()
        if self._folder is None or trainer.sanity_checking:
            return
        loader = loader[0] if isinstance(loader, list | tuple) else loader
        total = min(len(loader.dataset), int(sum(batches)) * int(loader.batch_size or 1) * trainer.world_size)
        # The middles of equal parts of the set.
        self._wanted = {(2 * i + 1) * total // (2 * self.count) for i in range(min(self.count, total))}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the chosen images of the batch."""
        self._collect(trainer, outputs, batch)

    on_test_batch_end = on_validation_batch_end

    def _collect(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        if not self._wanted or not isinstance(outputs, Predictions) or not isinstance(batch, Batch):
            return
        for row, truth in enumerate(batch.truths):
            # Each process has every n-th image of the set.
            position = (self._seen + row) * trainer.world_size + trainer.global_rank
            if position in self._wanted:
                fused = None if outputs.fused is None else _on_cpu(outputs.fused[row])
                self._pictures.append(_Picture(position, truth, _on_cpu(outputs.raw[row]), fused))
        self._seen += len(batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, if it is due."""
        if trainer.sanity_checking or self._folder is None:
            return
        if trainer.state.fn != TrainerFn.FITTING:
            self._draw(trainer, pl_module, "validate")
        elif (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module, f"epoch-{self._epoch:04d}")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the images."""
        if self._folder is not None:
            self._draw(trainer, pl_module, "test")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the images of the last validation, if they were not drawn then."""
        if self._folder is not None:
            self._draw(trainer, pl_module, f"epoch-{self._epoch:04d}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Plot curves and the confusion matrix."""
        self._plot_curves(trainer)
        self._plot_confusion(trainer, pl_module)
        if self._folder is not None and self._folder.is_dir() and trainer.is_global_zero:
            with records("pictures"):
                write_index(self._folder)
            plots = {name: self._folder / f"{name}.png" for name in ("curves", "confusion")}
            show_files(trainer.loggers, plots, trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Plot the curves up to where the run came."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._plot_curves(trainer)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, name: str) -> None:
        own, self._pictures = self._pictures, []
        gathered: list[_Picture] = []
        # Tracking needs them in one place, and a few pictures are quickly sent.
        compute_on_first(own, lambda parts: gathered.extend(picture for part in parts for picture in part))
        if trainer.is_global_zero:
            gathered.sort(key=lambda picture: picture.position)
            with records("pictures"):
                self._write(trainer, pl_module.taxonomy, name, gathered)  # type: ignore[arg-type]
            if name in ("validate", "test"):
                self._plot_confusion(trainer, pl_module)

    def _write(self, trainer: Trainer, taxonomy: Taxonomy, name: str, pictures: list[_Picture]) -> None:
        assert self._folder is not None
        panels, shown = [], {}
        for picture in pictures:
            panels.append(self._panel(picture, taxonomy))
            stem = re.sub(r"[^\w.-]+", "_", Path(picture.truth.path or str(picture.truth.image_id)).stem)[:60]
            path = self._folder / f"{name}_{picture.position:05d}_{stem}.png"
            write_png(panels[-1], path)
            shown[f"pictures/{picture.position:05d}_{stem}"] = path
        if panels:
            write_png(sheet(panels), self._folder / f"{name}_sheet.png")
            write_index(self._folder)
            show_files(trainer.loggers, shown, trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, WandbTracker) and pictures:
                overlays = partial(_overlays, pictures, taxonomy)
                logger.show({"pictures": overlays}, trainer.global_step)

    def _panel(self, picture: _Picture, taxonomy: Taxonomy) -> Tensor:
        """Return truth, raw and fused prediction and the panoptic map next to each other."""
        truth = picture.truth
        predictions = {"prediction": picture.raw}
        if picture.fused is not None:
            predictions = {"raw": picture.raw, "fused": picture.fused}
        titles = ["ground truth", *predictions]
        drawn = [draw_truth(truth, taxonomy, min_side=LONGER_SIDE)]
        for prediction in predictions.values():
            drawn.append(
                draw_prediction(
                    truth.image,
                    prediction,
                    taxonomy,
                    threshold=self.threshold,
                    min_side=LONGER_SIDE,
                    placement=truth.placement,
                )
            )
        best = picture.fused or picture.raw
        if best.panoptic is not None:
            drawn.append(panoptic_to_rgb(best, taxonomy, placement=truth.placement, min_side=LONGER_SIDE))
            titles.append("panoptic")
        shown = drawn_categories(taxonomy, truth, [*predictions.values()], threshold=self.threshold)
        return panel(drawn, titles, shown)

    def _plot_curves(self, trainer: Trainer) -> None:
        if self._folder is None or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.save()
                table = Path(logger.log_dir, "metrics.csv")
                with records("curves"):
                    plot_curves(table, self._folder / "curves.png", figures_of(trainer.lightning_module))

    def _plot_confusion(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._folder is None or not trainer.is_global_zero:
            return
        confusion = getattr(pl_module, "confusion", None)
        if isinstance(confusion, Tensor) and bool(confusion.any()):
            taxonomy: Taxonomy = pl_module.taxonomy  # type: ignore[assignment]
            names = [category.name for category in taxonomy.semantic_categories]
            with records("the confusion matrix"):
                plot_confusion(confusion, names, self._folder / "confusion.png")


def _overlays(pictures: Sequence[_Picture], taxonomy: Taxonomy) -> list[Any]:
    """Return the pictures as Weights & Biases shows them, with boxes and masks to switch on and off."""
    found = ({"raw": each.raw} if each.fused is None else {"raw": each.raw, "fused": each.fused} for each in pictures)
    pairs = zip(pictures, found, strict=True)
    return [to_wandb_image(each.truth.image, each.truth, predictions, taxonomy) for each, predictions in pairs]


def _on_cpu(prediction: Prediction) -> Prediction:
    tensors: dict[str, Any] = {
        name: value.cpu() for name, value in vars(prediction).items() if isinstance(value, torch.Tensor)
    }
    return replace(prediction, **tensors)
