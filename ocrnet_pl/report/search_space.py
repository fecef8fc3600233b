"""The settings that a search varies, and how a trial's values become a config."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.storage.ordinary_files import read_bytes, text_of

if TYPE_CHECKING:
    import optuna

AUGMENTATION = "augmentation"
"""Name of the setting that scales the changes of colour in ``data.train_transforms``."""
RATE = "model.optimizer.init_args.lr"
"""Key of the learning rate."""
TASK_WEIGHT = "model.balancing.init_args.detection"
_JITTERED = ("brightness", "contrast", "saturation", "hue")
_SIZES = (0.75, 1.25)
_STRIDE = 32

Value = str | float | int | bool | None


@dataclass(frozen=True)
class Setting:
    """One setting to vary.

    Attributes:
        values: The values to choose from; none for a range.
        low: Smallest value of a range.
        high: Largest value of a range.
        log: Whether values of a range are spread evenly over their logarithm.
        whole: Whether a range has whole numbers only.
    """

    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """Let a trial choose a value."""
        if self.values:
            return trial.suggest_categorical(name, self.values)
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def contains(self, value: Any) -> bool:
        """Return whether the setting can have a value."""
        if self.values:
            return value in self.values
        return isinstance(value, int | float) and self.low <= value <= self.high


def default_space(config: Mapping[str, Any]) -> dict[str, Setting]:
    """Return what is worth varying in any config: learning rate, task weights, colour augmentation and input size.

    Args:
        config: The whole config, as plain values.
    """
    space: dict[str, Setting] = {}
    rate = value_at(config, RATE, None)
    if isinstance(rate, int | float) and rate > 0:
        space[RATE] = Setting(low=rate / 4, high=rate * 4, log=True)
    model = config["model"]
    balancing = (model.get("balancing") or {}).get("class_path", "FixedWeights")
    if model.get("detection") and model.get("segmentation") and balancing.rpartition(".")[2] == "FixedWeights":
        space[TASK_WEIGHT] = Setting(low=0.25, high=4.0, log=True)
    if any(_jitters(config)):
        space[AUGMENTATION] = Setting(low=0.0, high=2.0)
    size = config["data"].get("size")
    if isinstance(size, int):
        sizes = tuple(sorted({size, *(max(_STRIDE, _round(size * factor)) for factor in _SIZES)}))
        if len(sizes) > 1:
            space["data.size"] = Setting(sizes)
    return space


def _round(size: float) -> int:
    return round(size / _STRIDE) * _STRIDE


def space_in(path: Path, config: Mapping[str, Any]) -> dict[str, Setting]:
    """Read a space from a YAML file, as :func:`read_space` does.

    Args:
        path: Path of the file.
        config: The whole config, in which each key must be.

    Raises:
        ValueError: The file cannot be read or is not usable YAML, or :func:`read_space` raises it.
    """
    try:
        content = yaml_text.load(text_of(read_bytes(path, "space", yaml_text.MOST_BYTES), str(path)))
    except yaml_text.YamlError as error:
        raise ValueError(error.at(f"space {str(path)!r}")) from error
    return read_space(content, str(path), config)


def read_space(content: Any, where: str, config: Mapping[str, Any]) -> dict[str, Setting]:
    """Read a space as the ``parameters`` of a Weights & Biases sweep have it.

    Args:
        content: The parameters by their keys, or a whole sweep that has them.
        where: Name of the file for error messages.
        config: The whole config, in which each key must be.

    Raises:
        ValueError: A setting is not one, or the config does not have its key.
    """
    if isinstance(content, Mapping) and "parameters" in content:
        content = content["parameters"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{where}: expected settings by their keys, such as data.size: {{values: [256, 320]}}")
    space = {}
    for key, given in content.items():
        space[str(key)] = _setting(given, f"{where}: {key}")
        if key == AUGMENTATION:
            if not any(_jitters(config)):
                raise ValueError(f"{where}: {key}: data.train_transforms has no ColorJitter to scale")
        elif key != TASK_WEIGHT and value_at(config, str(key), _ABSENT) is _ABSENT:
            known = list(_keys(config))
            near = difflib.get_close_matches(str(key), known, n=1)
            raise ValueError(f"{where}: the config has no key {key!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    return space


_ABSENT = object()


def _setting(given: Any, where: str) -> Setting:
    if isinstance(given, Mapping) and isinstance(given.get("values"), Sequence) and given["values"]:
        return Setting(tuple(given["values"]))
    if isinstance(given, Mapping) and {"min", "max"} <= set(given):
        low, high = given["min"], given["max"]
        kind = str(given.get("distribution", "uniform"))
        number = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
        log = "log" in kind
        if number and low < high and (low > 0 or not log):
            whole = kind.startswith(("int", "q_")) or ("distribution" not in given and isinstance(low, int))
            return Setting(low=low, high=high, log=log, whole=whole and isinstance(high, int))
    raise ValueError(
        f"{where}: expected {{values: [...]}}, or {{min: ..., max: ...}} with min below max (above 0 if the "
        "distribution is log_uniform_values)"
    )


def value_at(config: Any, key: str, absent: Any) -> Any:
    """Return the value of a dotted key; numbers in it are places in lists."""
    for part in key.split("."):
        if isinstance(config, Mapping) and part in config:
            config = config[part]
        elif isinstance(config, list) and part.isdecimal() and int(part) < len(config):
            config = config[int(part)]
        else:
            return absent
    return config


def with_values(config: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """Return a config with the values of a trial.

    Args:
        config: The whole config, as plain values.
        values: Values by the keys of the space.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    for key, value in values.items():
        if key == AUGMENTATION:
            for options in _jitters(changed):
                options |= {name: options[name] * value for name in _JITTERED if name in options}
                options["hue"] = min(0.5, options.get("hue", 0.0))
            continue
        if key == TASK_WEIGHT and not changed["model"].get("balancing"):
            changed["model"]["balancing"] = {"class_path": "FixedWeights", "init_args": {}}
        parent, _, name = key.rpartition(".")
        place: Any = value_at(changed, parent, _ABSENT) if parent else changed
        place[int(name) if re.fullmatch(r"\d+", name) and isinstance(place, list) else name] = value
    return changed


def present_values(config: Mapping[str, Any], space: Mapping[str, Setting]) -> dict[str, Value]:
    """Return the config's own values, as far as they are in the space, so that the first trial is the config itself."""
    own = {AUGMENTATION: 1.0, TASK_WEIGHT: value_at(config, TASK_WEIGHT, 1.0)}
    found = {key: own[key] if key in own else value_at(config, key, _ABSENT) for key in space}
    return {key: value for key, value in found.items() if space[key].contains(value)}


def _jitters(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the options of the transforms that change colours."""
    for transform in config["data"].get("train_transforms") or []:
        if isinstance(transform, Mapping) and str(transform.get("class_path")).rpartition(".")[2] == "ColorJitter":
            yield transform.get("init_args") or {}


def _keys(config: Any, path: str = "") -> Iterator[str]:
    parts = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list) else ()
    for name, value in parts:
        yield f"{path}{name}"
        yield from _keys(value, f"{path}{name}.")
