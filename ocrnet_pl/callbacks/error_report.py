"""Writes where the network errs, after validate and test."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.storage.files import records


class ErrorReport(Callback):
    """Writes ``report.html`` after validate and test: costs of each kind of error, confused classes, the worst images.

    Its pictures are in ``report/`` as well. ``images.safetensors`` has what was found in each image; ``compare`` reads
    it. Nothing is done in training.

    Args:
        enabled: Whether anything is written.
        score: Smallest score of the boxes that count where a threshold is needed, such as in the confusion matrix, 0 to
            1.
        pictures: Number of images in each gallery, such as the worst images; 0 for none.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, enabled: bool = True, score: float = 0.3, pictures: int = 6) -> None:
        if not 0 <= score <= 1 or pictures < 0:
            raise ValueError("report: score must be from 0 to 1, and pictures at least 0")
        self.enabled = enabled
        self.score = score
        self.pictures = pictures
        self._folder: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the errors be recorded, on all processes."""
        self._folder = None
        metrics = _metrics(trainer, pl_module)
        if self.enabled and metrics is not None:
            self._folder = run_folder(trainer)
            if self._folder is not None:
                metrics.record_errors(self.score, self.pictures)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page."""
        self._finish(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page."""
        self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = _metrics(trainer, pl_module)
        if self._folder is None or metrics is None or metrics.errors is None:
            return
        # Together, as the errors of all processes are gathered.
        analysis = metrics.errors.compute()
        metrics.errors = None
        if analysis is None:
            return
        # Those who only train need neither.
        from ocrnet_pl.report.errors_page import PAGE, write_errors_page
        from ocrnet_pl.report.image_file import IMAGES, write_images

        figures = {key.partition("/")[2]: float(value) for key, value in trainer.callback_metrics.items()}
        with records(IMAGES):
            write_images(self._folder / IMAGES, analysis)
        with records(PAGE):
            write_errors_page(self._folder, f"{self._folder.parent.name} {self._folder.name}", analysis, figures)


def _metrics(trainer: Trainer, pl_module: LightningModule) -> EvaluationMetrics | None:
    """Return the metrics of validate or test; None for anything else."""
    name = {TrainerFn.VALIDATING: "val_metrics", TrainerFn.TESTING: "test_metrics"}.get(trainer.state.fn)  # type: ignore[arg-type]
    metrics = getattr(pl_module, name, None) if name else None
    return metrics if isinstance(metrics, EvaluationMetrics) else None
