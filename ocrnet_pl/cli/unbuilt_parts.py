"""Parts of the config that a command builds itself, because the network is not built from the config."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace


def made(kind: Any, options: Any) -> Any:
    """Return the object that a part of the config describes; None for null.

    Args:
        kind: Its class.
        options: The part of the config.
    """
    return None if options is None else kind(**vars(options))


def named_part(kind: type, options: Any) -> Any:
    """Return the object of the class that a part of the config names by its class path; None for null.

    Args:
        kind: Its base class.
        options: The part of the config, which the command line's parser has checked.

    Raises:
        ValueError: It cannot be built from these options.
    """
    parser = ArgumentParser()
    parser.add_argument("--part", type=kind | None)
    return parser.instantiate_classes(Namespace(part=options).clone()).part
