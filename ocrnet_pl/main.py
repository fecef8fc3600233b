"""The entry point, light enough to answer ``--help`` at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

SUBCOMMANDS = {
    "fit": "train and validate",
    "validate": "evaluate a checkpoint on the validation set",
    "test": "evaluate a checkpoint on the test set",
    "predict": "write predictions for a folder of images",
    "check": "look for faults in the data",
    "pack": "write the data as shards to train from, on a disk or in an object store",
    "calibrate": "choose the fusion's settings on the validation set",
    "memory": "measure the memory of training steps and find the largest batch size",
    "joint-report": "train the joint network and its single-task twins and compare them",
}
"""What the command line does; the first four names are Lightning's."""


EXIT_INTERRUPTED = 130
"""Somebody pressed Ctrl-C; what a shell says of a process that SIGINT ended."""


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process with one line and status 130 where it is interrupted, whatever it is doing."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _end(str(interrupt))
    except SystemExit as stop:
        # What Lightning makes of it.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        _end("")


def _end(text: str) -> None:
    # Of several processes, all of which the terminal tells, the first says it.
    if not int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))):
        sys.stderr.write(f"interrupted{text}\n")
    sys.exit(EXIT_INTERRUPTED)


def overview() -> str:
    """Return the help that lists the subcommands."""
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in SUBCOMMANDS.items()]
    return "\n".join(
        [
            "usage: train.py SUBCOMMAND --config FILE [--config FILE ...] [--KEY VALUE ...]",
            "",
            "Joint object detection and semantic segmentation: one network, one pass.",
            "",
            "subcommands:",
            *lines,
            "",
            "options of a subcommand:",
            "  --config FILE       a YAML file; a later one overrides an earlier one",
            "  --KEY VALUE         any key of the config, such as --trainer.max_epochs 20 or --data.batch_size 8",
            "  --ckpt_path FILE    a checkpoint to evaluate, predict with, or continue from; also `last` and `best`",
            "  --trust PACKAGE     allow the checkpoint to name classes of your own package; again for more",
            "  --fix DIR           of check: write a corrected copy; also --output DIR and --limit N",
            "  --output DIR        of pack: where the shards go; also --shard_mb N and --splits train val",
            "  --output FILE       of calibrate: the new checkpoint; also --calibration.images N and .holdout false",
            "  --limit_gb N        of memory: what a step may take; by default nine tenths of what there is",
            "  --seeds 0 1 2       of joint-report: train with each of them; also --output DIR",
            "  --print_config      print the whole configuration with its defaults, and exit",
            "  --help              every key with its type and meaning",
            "",
            "example: python train.py fit --config configs/quickstart.yaml",
        ]
    )


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Instead of the process's own arguments.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        if not words:
            sys.exit(2)
        return
    with interruptible():
        # Lightning takes seconds to import, which the overview has no use for.
        from ocrnet_pl.running import run

        run(words)
