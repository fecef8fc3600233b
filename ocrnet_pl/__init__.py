"""OCRNet-PL: joint object detection and semantic segmentation with PyTorch Lightning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ocrnet_pl.version import __version__

if TYPE_CHECKING:
    from ocrnet_pl.balancing.methods import Balancing
    from ocrnet_pl.cli.command import Command, NetworkCommand, NetworkRun, Run
    from ocrnet_pl.cli.main import main
    from ocrnet_pl.data.datamodule import JointDataModule
    from ocrnet_pl.data.records import RawBoxes, make_sample
    from ocrnet_pl.data.sources.base import Source
    from ocrnet_pl.data.transforms.base import MixingTransform, Transform
    from ocrnet_pl.drawing.overlays import draw_prediction, write_png
    from ocrnet_pl.errors import CheckpointError, DataError, LossError, RunError, UsageError
    from ocrnet_pl.imaging.images import read_image
    from ocrnet_pl.inference.film_prediction import predict_film
    from ocrnet_pl.inference.multiscale import MultiScale
    from ocrnet_pl.inference.object_tracks import ObjectTracks
    from ocrnet_pl.inference.tiled_inference import Tiling
    from ocrnet_pl.losses.assignment import Assigner
    from ocrnet_pl.losses.base import Loss
    from ocrnet_pl.losses.boxes import BoxLoss
    from ocrnet_pl.losses.pixels import PixelLoss
    from ocrnet_pl.losses.scores import ScoreLoss
    from ocrnet_pl.metrics.base import Metric
    from ocrnet_pl.metrics.figures import Figure
    from ocrnet_pl.models.base import (
        DetectionDecoder,
        Encoder,
        Features,
        Neck,
        PostProcess,
        SegmentationDecoder,
        Shapes,
    )
    from ocrnet_pl.models.ocrnet import OCRNet
    from ocrnet_pl.storage.recording import Recorded
    from ocrnet_pl.structures import (
        Batch,
        Category,
        DetectionOutput,
        Output,
        Placement,
        Prediction,
        Predictions,
        Sample,
        Segment,
        Supervision,
        Taxonomy,
    )
    from ocrnet_pl.training.starting import init_from, keep_classes
    from ocrnet_pl.training.task import OCRNetTask

__all__ = [
    "Assigner",
    "Balancing",
    "Batch",
    "BoxLoss",
    "Category",
    "CheckpointError",
    "Command",
    "DataError",
    "DetectionDecoder",
    "DetectionOutput",
    "Encoder",
    "Features",
    "Figure",
    "JointDataModule",
    "Loss",
    "LossError",
    "Metric",
    "MixingTransform",
    "MultiScale",
    "Neck",
    "NetworkCommand",
    "NetworkRun",
    "OCRNet",
    "OCRNetTask",
    "ObjectTracks",
    "Output",
    "PixelLoss",
    "Placement",
    "PostProcess",
    "Prediction",
    "Predictions",
    "RawBoxes",
    "Recorded",
    "Run",
    "RunError",
    "Sample",
    "ScoreLoss",
    "Segment",
    "SegmentationDecoder",
    "Shapes",
    "Source",
    "Supervision",
    "Taxonomy",
    "Tiling",
    "Transform",
    "UsageError",
    "__version__",
    "draw_prediction",
    "init_from",
    "keep_classes",
    "main",
    "make_sample",
    "predict_film",
    "read_image",
    "write_png",
]

_MODULES = {
    "balancing.methods": ("Balancing",),
    "cli.command": ("Command", "NetworkCommand", "NetworkRun", "Run"),
    "cli.main": ("main",),
    "data.datamodule": ("JointDataModule",),
    "data.records": ("RawBoxes", "make_sample"),
    "data.sources.base": ("Source",),
    "data.transforms.base": ("MixingTransform", "Transform"),
    "drawing.overlays": ("draw_prediction", "write_png"),
    "errors": ("CheckpointError", "DataError", "LossError", "RunError", "UsageError"),
    "imaging.images": ("read_image",),
    "inference.film_prediction": ("predict_film",),
    "inference.multiscale": ("MultiScale",),
    "inference.object_tracks": ("ObjectTracks",),
    "inference.tiled_inference": ("Tiling",),
    "losses.assignment": ("Assigner",),
    "losses.base": ("Loss",),
    "losses.boxes": ("BoxLoss",),
    "losses.pixels": ("PixelLoss",),
    "losses.scores": ("ScoreLoss",),
    "metrics.base": ("Metric",),
    "metrics.figures": ("Figure",),
    "models.base": ("DetectionDecoder", "Encoder", "Features", "Neck", "PostProcess", "SegmentationDecoder", "Shapes"),
    "models.ocrnet": ("OCRNet",),
    "storage.recording": ("Recorded",),
    "structures": (
        "Batch",
        "Category",
        "DetectionOutput",
        "Output",
        "Placement",
        "Prediction",
        "Predictions",
        "Sample",
        "Segment",
        "Supervision",
        "Taxonomy",
    ),
    "training.starting": ("init_from", "keep_classes"),
    "training.task": ("OCRNetTask",),
}
"""The module that each of the package's names comes from; type checkers read the imports above."""

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that ``import ocrnet_pl`` alone is cheap."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
