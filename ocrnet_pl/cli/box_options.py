"""The options of ``predict`` that say which boxes it gives out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ocrnet_pl.callbacks.chosen_boxes import ChosenBoxes
from ocrnet_pl.cli.classes_option import add_classes_option, chosen_classes
from ocrnet_pl.inference.box_choice import no_points
from ocrnet_pl.inference.operating_points import NO_POINT, OperatingPoint
from ocrnet_pl.structures import CALIBRATION_KEY

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from lightning.pytorch.cli import LightningArgumentParser


def add_box_options(parser: LightningArgumentParser) -> None:
    """Add the options to the parser of ``predict``."""
    parser.add_argument(
        "--operating_point",
        type=str,
        default=NO_POINT,
        help="Which boxes of each class count, by what calibrate found: best_f1, precision=0.95, recall=0.99, bound "
        "(the one of calibrate --miss_rate), or none for all boxes.",
    )
    add_classes_option(parser)


def refuse_without_points(config: Namespace, content: Mapping[str, Any]) -> None:
    """Refuse an operating point of a checkpoint that has none, before anything is written or replaced.

    Args:
        config: The config of ``predict``.
        content: Content of the checkpoint.

    Raises:
        CheckpointError: The checkpoint was not calibrated.
        UsageError: The operating point is none.
    """
    point = config["operating_point"]
    if OperatingPoint.parse(point).kind != NO_POINT and not content.get(CALIBRATION_KEY):
        raise no_points(point)


def chosen_boxes(config: Namespace) -> ChosenBoxes:
    """Return the callback for the options.

    Args:
        config: The config of ``predict``.

    Raises:
        UsageError: The operating point is none, or the list of classes is empty.
    """
    OperatingPoint.parse(config["operating_point"])
    return ChosenBoxes(config["operating_point"], chosen_classes(config))
