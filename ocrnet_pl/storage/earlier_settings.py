"""Settings as earlier versions wrote them, under other keys and import paths: they still work.

Whatever reads a config, a command line or a checkpoint brings it up to date here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocrnet_pl.storage.import_paths import with_current_paths

_SCHEDULE = ("warmup_steps", "final_lr")
"""Keys of the model that are options of its default schedule now."""
_DEFAULT = "ocrnet_pl.training.schedules.WarmupCosine"
_SUB_PIXEL = "ocrnet_pl.models.segmentation.SubPixelDecoder"


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


def parts_now(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a saved network's parts were made, with today's keys and arguments."""
    now = model_now(parts)
    pixels = now.get("segmentation")
    if isinstance(pixels, Mapping) and pixels.get("class_path") == _SUB_PIXEL:
        arguments = pixels.get("init_args")
        if isinstance(arguments, Mapping):
            # Before there was this argument, there was nothing that it could turn on.
            now["segmentation"] = {**pixels, "init_args": {"skip": False, **arguments}}
    return now


def config_now(config: Any) -> Any:
    """Return a config, or any part of one, with today's keys and import paths.

    Args:
        config: Parsed YAML; it is not changed.
    """
    now = with_current_paths(config)
    if isinstance(now, dict) and isinstance(now.get("model"), dict):
        now["model"] = model_now(now["model"])
    return now


def words_now(words: list[str]) -> list[str]:
    """Return a command line with today's keys."""
    moved = {f"--model.{key}": f"--model.scheduler.init_args.{key}" for key in _SCHEDULE}
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        found.append(moved.get(key, key) + equals + value)
    return found
