"""Settings whose default has changed, and with it the shapes of weights: a run that continues keeps its own."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from jsonargparse import Namespace

from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.storage.checkpoints import config_value

_DETECTION = "model.detection"
_SHAPING = ("init_args.bins", "init_args.decoder.init_args.bins")


def keep_shapes(config: Namespace, stored: Any, given: Container[str]) -> None:
    """Set what nobody asked for as the run that continues had it.

    Args:
        config: The config; changed.
        stored: The config in the checkpoint.
        given: Dotted keys, without ``init_args``, that the command line and its configs set.
    """
    same = config_value(stored, f"{_DETECTION}.class_path") == config.get(f"{_DETECTION}.class_path")
    for key in (f"{_DETECTION}.{name}" for name in _SHAPING):
        plain, earlier = key.replace(".init_args", ""), config_value(stored, key)
        if same and key in config and plain not in given and config[key] != earlier:
            say(f"{plain}: {earlier!r}, as in the checkpoint; the default is now {config[key]!r}")
            config[key] = earlier
