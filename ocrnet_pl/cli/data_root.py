"""The folder that the paths of the data's sources start from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from jsonargparse import Namespace

from ocrnet_pl.cli.checkpoint_option import settings
from ocrnet_pl.data.split_keys import SPLITS


def start_at_root(data: Namespace, words: list[str]) -> None:
    """Give ``data.root`` to the sources, and to the sources inside them, that have no root of their own.

    Args:
        data: Config of the data.
        words: The command line; its config files exist and are YAML.
    """
    if data["root"] is None:
        return
    # In a config that a run has saved, the sources start at the root that it had.
    before = {".", *settings(words, "data.root")}
    for split in SPLITS:
        _start(data.get(split), data["root"], before)


def _start(config: Any, root: str, before: Collection[Any]) -> None:
    if isinstance(config, list):
        for item in config:
            _start(item, root, before)
    elif isinstance(config, Namespace | dict):
        for key, value in list(config.items() if isinstance(config, dict) else vars(config).items()):
            if key == "root" and value in before:
                config[key] = root
            else:
                _start(value, root, before)
