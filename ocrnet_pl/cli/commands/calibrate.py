"""``calibrate``: choose the fusion settings and the operating points on the validation set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import NetworkCommand, NetworkRun

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the checkpoint, the new one, and how to choose."""
    from ocrnet_pl.calibration.search import Calibration

    parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to calibrate; required.")
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="File that the calibrated checkpoint is written to; null for NAME-calibrated.ckpt next to the old one.",
    )
    parser.add_class_arguments(Calibration, "calibration")
    parser.add_argument(
        "--probabilities",
        type=bool,
        default=False,
        help="Whether scores of boxes and the certainty of pixels become probabilities, and objects can be counted.",
    )
    parser.add_argument(
        "--miss_rate",
        type=float | None,
        default=None,
        help="Share of the objects of a class that the operating point bound may miss, above 0 and below 1; null for "
        "no such point. Two thirds of the images are then kept for it.",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.9,
        help="Confidence of the operating point bound and of the intervals of numbers of objects, above 0 and below 1.",
    )


def calibrate(run: NetworkRun) -> int:
    """Calibrate a checkpoint.

    Raises:
        DataError: The validation set does not fit the network, has too few images, or no labelled object.
        OSError: The output cannot be written.
        ValueError: The checkpoint is not one of this project, or its network detects nothing.
    """
    from ocrnet_pl.calibration.run import run_calibration
    from ocrnet_pl.calibration.score_options import ScoreOptions

    config, device = run.config, run.trainer.strategy.root_device
    # The parser keeps the options as it read them; the object is created here.
    options = run.objects["calibration"]
    scores = ScoreOptions(config["probabilities"], config["miss_rate"], config["confidence"])
    passes = run.task.tile or run.task.multiscale
    run_calibration(
        Path(config["ckpt_path"]), config["output"], run.data, options, device, config["trust"], scores, passes
    )
    return 0


COMMAND = NetworkCommand(
    name="calibrate",
    help="choose the fusion settings and the operating points on the validation set",
    run=calibrate,
    arguments=add_arguments,
    needs_checkpoint=True,
    uses_of_model=("tile", "multiscale"),
    options=(
        ("--output FILE", "of calibrate: the new checkpoint; also --calibration.images N and .holdout false"),
        ("--probabilities true", "of calibrate: scores become probabilities; also --miss_rate 0.05 for a bound"),
    ),
)
