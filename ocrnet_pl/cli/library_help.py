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
}


def describe_options(parser: argparse.ArgumentParser) -> None:
    """Put the words of this project in place of Lightning's.

    Args:
        parser: The parser of a subcommand, with Lightning's options.
    """
    for action in parser._actions:
        action.help = _TEXTS.get(action.dest, action.help)
