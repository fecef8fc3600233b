"""The sections of a config besides the trainer's own, and what they hold by default."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser

from ocrnet_pl.callbacks.annotations import AnnotationWriter
from ocrnet_pl.callbacks.checkpoint import BestCheckpoint
from ocrnet_pl.callbacks.disagreements import Disagreements
from ocrnet_pl.callbacks.early_stopping import EarlyStopping
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.callbacks.error_report import ErrorReport
from ocrnet_pl.callbacks.gradients import GradientLog
from ocrnet_pl.callbacks.guard import LossGuard
from ocrnet_pl.callbacks.pictures import Pictures
from ocrnet_pl.callbacks.prediction_writer import PredictionWriter
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.storage.recording import changed_record_of, import_path
from ocrnet_pl.training.hyperparameters import argument_types
from ocrnet_pl.training.task import OCRNetTask

_MONITOR = "val/score"
_CALLBACKS: dict[str, type[Callback]] = {
    "checkpoint": BestCheckpoint,
    "early_stopping": EarlyStopping,
    "ema": EMA,
    "pictures": Pictures,
    "prediction": PredictionWriter,
    "annotations": AnnotationWriter,
    "guard": LossGuard,
    "gradients": GradientLog,
    "disagreements": Disagreements,
    "report": ErrorReport,
}


def add_sections(parser: LightningArgumentParser) -> None:
    """Add the callbacks' sections, and the defaults of all.

    Args:
        parser: The parser of a subcommand, which has the sections of the trainer, the model and the data already.
    """
    for section, callback in _CALLBACKS.items():
        parser.add_lightning_class_args(callback, section)
    parser.set_defaults(
        {
            "trainer.default_root_dir": "runs",
            "trainer.log_every_n_steps": 10,
            "early_stopping.monitor": _MONITOR,
            "early_stopping.mode": "max",
            "early_stopping.patience": 30,
            # A figure that there was nothing to measure for is no improvement, and no reason to stop at once.
            "early_stopping.check_finite": False,
            # Else a run that continues from an epoch's end looks for figures before it has validated.
            "early_stopping.check_on_train_epoch_end": False,
            "model.encoder": {"class_path": "ocrnet_pl.models.encoder.TimmEncoder"},
            "model.postprocess": {
                "class_path": "ocrnet_pl.inference.fusion.FusionPostProcess",
                "init_args": {"decode": {"class_path": "ocrnet_pl.inference.decode.Decode"}},
            },
            "model.detection_loss": _default_detection_loss(),
            "model.segmentation_loss": _default_segmentation_loss(),
            "model.scheduler": {"class_path": "ocrnet_pl.training.schedules.WarmupCosine"},
            "model.balancing": {"class_path": "ocrnet_pl.balancing.methods.FixedWeights"},
        }
    )


def stored_sections(task: type[OCRNetTask], data: type[JointDataModule]) -> dict[str, dict[str, Any]]:
    """Return the sections that an evaluation takes from the config in a checkpoint, with the types of their options.

    Args:
        task: The LightningModule.
        data: The data module.
    """
    kinds = {
        "model": task,
        "data": data,
        "disagreements": Disagreements,
        "report": ErrorReport,
        "pictures": Pictures,
        "prediction": PredictionWriter,
    }
    return {section: argument_types(kind) for section, kind in kinds.items()}


def lay_under(parser: LightningArgumentParser, config: dict[str, Any]) -> None:
    """Make a config the defaults of a parser."""
    absent = object()
    for action in list(parser._actions):
        value: Any = config
        for key in action.dest.split("."):
            value = value.get(key, absent) if isinstance(value, dict) else absent
        if value is not absent:
            parser.set_defaults({action.dest: value})


def _default_detection_loss() -> dict[str, Any]:
    """Return the detection loss by default with its parts, each of which an option can then set alone."""
    loss = QualityDetectionLoss()
    parts = {name: getattr(loss, name) for name in ("assigner", "box_loss", "confidence_loss", "class_loss")}
    return {
        "class_path": import_path(type(loss)),
        "init_args": {name: changed_record_of(part) for name, part in parts.items()},
    }


def _default_segmentation_loss() -> dict[str, Any]:
    """Return the segmentation loss by default with its terms."""
    loss = SegmentationLoss()
    return {
        "class_path": import_path(type(loss)),
        "init_args": {"terms": [changed_record_of(term) for term in loss.terms]},
    }
