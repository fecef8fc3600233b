"""Writes where the network errs, after validate and test, and, if asked to, after training."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from ocrnet_pl.callbacks.run_folder import run_folder
from ocrnet_pl.metrics.errors.record import ErrorAnalysis
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.storage.files import records
from ocrnet_pl.tracking.files import show_files
from ocrnet_pl.tracking.wandb_report import report_items
from ocrnet_pl.tracking.wandb_tracker import WandbTracker


class ErrorReport(Callback):
    """Writes ``report.html`` after validate and test: costs of each kind of error, confused classes, the worst images.

    Its pictures and tables are in ``report/`` as well, and in all trackers. ``images.safetensors`` has what was found
    in each image; ``compare`` reads it.

    Args:
        enabled: Whether anything is written.
        in_training: Whether training ends with the report of its last validation. It is off by default because the
            errors then have to be recorded in each of its validations, which takes up to a tenth longer.
        score: Smallest score of the boxes that count where a threshold is needed, such as in the confusion matrix, 0 to
            1.
        pictures: Number of images in each gallery, such as the worst images; 0 for none.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, enabled: bool = True, in_training: bool = False, score: float = 0.3, pictures: int = 6) -> None:
        if not 0 <= score <= 1 or pictures < 0:
            raise ValueError("report: score must be from 0 to 1, and pictures at least 0")
        self.enabled = enabled
        self.in_training = in_training
        self.score = score
        self.pictures = pictures
        self._folder: Path | None = None
        self._last: ErrorAnalysis | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run's folder, on all processes."""
        wanted = self.enabled and (trainer.state.fn != TrainerFn.FITTING or self.in_training)
        self._folder = run_folder(trainer) if wanted else None
        self._last = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the errors be recorded."""
        if not trainer.sanity_checking:
            self._record(trainer, pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the errors be recorded."""
        self._record(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page, or keep what it says for the end of the training."""
        self._analyse(trainer, pl_module)
        if trainer.state.fn != TrainerFn.FITTING:
            self._write(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page."""
        self._analyse(trainer, pl_module)
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page of the last validation."""
        self._write(trainer)

    def _record(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = _metrics(trainer, pl_module)
        if self._folder is not None and metrics is not None:
            metrics.record_errors(self.score, self.pictures)

    def _analyse(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = _metrics(trainer, pl_module)
        if self._folder is not None and metrics is not None and metrics.errors is not None:
            # Together, as the errors of all processes are gathered.
            self._last = metrics.errors.compute()
            metrics.errors = None

    def _write(self, trainer: Trainer) -> None:
        analysis, self._last = self._last, None
        if self._folder is None or analysis is None:
            return
        # Those who only train need neither.
        from ocrnet_pl.report.errors_page import PAGE, report_files, write_errors_page
        from ocrnet_pl.report.image_file import IMAGES, write_images

        stage = "test/" if trainer.state.fn == TrainerFn.TESTING else "val/"
        logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
        figures = {key.removeprefix(stage): value for key, value in logged.items() if key.startswith(stage)}
        with records(IMAGES):
            write_images(self._folder / IMAGES, analysis)
        with records(PAGE):
            write_errors_page(self._folder, f"{self._folder.parent.name} {self._folder.name}", analysis, figures)
            show_files(trainer.loggers, report_files(self._folder), trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, WandbTracker):
                logger.show(report_items(analysis), trainer.global_step)


def _metrics(trainer: Trainer, pl_module: LightningModule) -> EvaluationMetrics | None:
    """Return the metrics of the images that are looked at."""
    metrics = getattr(pl_module, "test_metrics" if trainer.state.fn == TrainerFn.TESTING else "val_metrics", None)
    return metrics if isinstance(metrics, EvaluationMetrics) else None
