"""``joint-report``: train the joint network and its single-task twins and compare them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the folder of the report and the seeds."""
    from jsonargparse.typing import NonNegativeInt

    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Folder of the report and its runs; null for runs/NAME/joint.",
    )
    parser.add_argument(
        "--seeds", type=NonNegativeInt, nargs="+", default=[0, 1, 2], help="Seeds; one training per seed and network."
    )


def joint_report(run: Run) -> int:
    """Train a config's network and its twins, and write the joint report.

    Raises:
        ValueError: The config lacks one of the two tasks, or the output folder holds other runs.
        RunError: A run failed.
    """
    from ocrnet_pl.report.joint import run_joint_report
    from ocrnet_pl.storage.secrets import in_environment

    config = run.config
    for task in ("detection", "segmentation"):
        if config["model"][task] is None:
            raise ValueError(f"model.{task} is null: the report compares a network of both tasks with its twins")
    if config["init_keep"]:
        raise ValueError("init_keep: the twins of the report are evaluated on the data's classes; set it to false")
    output = config["output"] or Path(config["trainer"]["default_root_dir"], config["name"], "joint")
    # The runs' config is a file: they find the credentials in the environment, and resolve the references themselves.
    shared, variables = in_environment(run.written)
    os.environ.update(variables)
    for key in ("output", "seeds", "config"):
        shared.pop(key, None)
    run_joint_report(run.dump(shared), config["seeds"], output, config["name"])
    return 0


COMMAND = Command(
    name="joint-report",
    help="train the joint network and its single-task twins and compare them",
    run=joint_report,
    arguments=add_arguments,
    options=(("--seeds 0 1 2", "of joint-report: train with each of them; also --output DIR"),),
)
