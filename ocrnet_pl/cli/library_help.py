"""What the help says of options of Lightning that have another meaning, default or range here."""

from __future__ import annotations

import argparse

from ocrnet_pl.cli.preflight import PRECISIONS

_TEXTS = {
    "seed_everything": "Seed of everything that is random, 0 to 4294967295; true draws one, and false sets none.",
    "trainer.default_root_dir": "Folder of the runs, each of which writes into NAME/VERSION below it.",
    "trainer.logger": "Trackers of a run besides its own table of figures, such as WandbTracker, one or a list; null, "
    "true and false add none.",
    "trainer.precision": f"Number format: {', '.join(PRECISIONS)}; null for 32-true.",
    "early_stopping.monitor": "Name of the figure that has to improve, such as ``val/map``.",
    "early_stopping.min_delta": "Change of the figure, at least 0, up to which it counts as no improvement.",
    "early_stopping.patience": "Number of validations in a row without an improvement after which the run ends.",
    "early_stopping.verbose": "Whether each improvement is told.",
    "early_stopping.mode": 'Whether a larger ("max") or a smaller ("min") figure is better.',
    "early_stopping.strict": "Whether a figure that the run does not log ends it with an error.",
    "early_stopping.check_finite": "Whether the run ends as soon as the figure is not finite.",
    "early_stopping.stopping_threshold": "Figure beyond which the run ends, since it is good enough; null for none.",
    "early_stopping.divergence_threshold": "Figure beyond which, to the worse, the run ends; null for none.",
    "early_stopping.check_on_train_epoch_end": "Whether the figure is looked at when an epoch ends, and not after each "
    "validation.",
    "early_stopping.log_rank_zero_only": "Whether only the first process tells what early stopping does.",
}


def describe_options(parser: argparse.ArgumentParser) -> None:
    """Put the words of this project in place of Lightning's.

    Args:
        parser: The parser of a subcommand, with Lightning's options.
    """
    for action in parser._actions:
        action.help = _TEXTS.get(action.dest, action.help)
