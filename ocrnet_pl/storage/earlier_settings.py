"""Settings of earlier versions under other keys: configs, command lines and checkpoints that have them still work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SCHEDULE = ("warmup_steps", "final_lr")
"""Keys of the model that are options of its default schedule now."""
_DEFAULT = "ocrnet_pl.training.schedules.WarmupCosine"


def model_now(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section ``model`` of a config, or a checkpoint's hyper-parameters, with today's keys."""
    now = {key: value for key, value in model.items() if key not in _SCHEDULE}
    moved = {key: model[key] for key in _SCHEDULE if key in model}
    if moved:
        given = now.get("scheduler")
        scheduler = dict(given) if isinstance(given, Mapping) else {"class_path": given or _DEFAULT}
        options = scheduler.get("init_args")
        now["scheduler"] = scheduler | {"init_args": moved | dict(options if isinstance(options, Mapping) else {})}
    return now


def config_now(config: Any) -> Any:
    """Return a config with today's keys; what has no section ``model`` comes back as it is."""
    if isinstance(config, Mapping) and isinstance(config.get("model"), Mapping):
        return {**config, "model": model_now(config["model"])}
    return config


def words_now(words: list[str]) -> list[str]:
    """Return a command line with today's keys."""
    moved = {f"--model.{key}": f"--model.scheduler.init_args.{key}" for key in _SCHEDULE}
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        found.append(moved.get(key, key) + equals + value)
    return found
