"""``--classes``: the classes whose boxes are given out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrnet_pl.taxonomy import names_in

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_classes_option(parser: ArgumentParser) -> None:
    """Add the option to the parser of a subcommand that predicts."""
    parser.add_argument(
        "--classes",
        type=str | None,
        default=None,
        help="Names of the classes whose boxes are given out, separated by commas; null for all.",
    )


def chosen_classes(config: Namespace) -> tuple[str, ...]:
    """Return the names that the option of a subcommand's config lists; none for all classes.

    Raises:
        UsageError: The list is empty.
    """
    return () if config["classes"] is None else names_in(config["classes"])
