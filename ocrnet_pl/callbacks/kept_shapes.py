"""Settings whose default has changed, and with it the shapes of weights: a run that continues keeps its own."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from jsonargparse import Namespace

from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.storage.checkpoints import config_value

_SHAPING = (
    ("detection", "init_args.bins"),
    ("detection", "init_args.decoder.init_args.bins"),
    ("segmentation", "init_args.skip"),
)
"""Names of a part and of one of its arguments."""


def keep_shapes(config: Namespace, parts: Mapping[str, Any], given: Container[str]) -> None:
    """Set what nobody asked for as the run that continues had it.

    Args:
        config: The config; changed.
        parts: How the parts of the checkpoint's network were made.
        given: Dotted keys, without ``init_args``, that the command line and its configs set.
    """
    for part, name in _SHAPING:
        record, key = parts.get(part), f"model.{part}.{name}"
        if key not in config or config_value(record, "class_path") != config.get(f"model.{part}.class_path"):
            continue
        plain, earlier = key.replace(".init_args", ""), config_value(record, name)
        if plain not in given and config[key] != earlier:
            say(f"{plain}: {earlier!r}, as in the checkpoint; the default is now {config[key]!r}")
            config[key] = earlier
