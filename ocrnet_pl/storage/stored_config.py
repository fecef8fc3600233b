"""The part of the config in a checkpoint that evaluation needs, checked: the file may be from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.checkpoints import CONFIG_KEY
from ocrnet_pl.storage.earlier_settings import config_now, parts_now
from ocrnet_pl.storage.interpolation import InterpolationError, each_text, resolved
from ocrnet_pl.storage.plain_values import plain_values, shown
from ocrnet_pl.storage.saved_network import unrecorded_parts
from ocrnet_pl.storage.trusted_classes import trusted_parts

_OF_TRAINING = {
    "model": (
        "taxonomy",
        "input_size",
        "optimizer",
        "encoder_lr",
        "layer_decay",
        "frozen_norms",
        "scheduler",
        "scheduler_interval",
        "compile_backend",
        "compile_mode",
        "matmul_precision",
        "teacher",
    ),
    "data": ("train_transforms", "plain_epochs", "aspect_ratios", "predict_path", "cache"),
}
"""Options of training, and of the machine that it ran on."""

_OF_EVALUATION = {"model": ("metrics",)}
"""Options that only the subcommands that measure figures have a use for."""

_NOT_TAKEN = ("cache", "storage_options")
"""Options of sources that decide where files are written, and with which credentials they are read."""

_SOURCES = {
    "validate": ("val",),
    "calibrate": ("val",),
    "export": ("val",),
    "test": ("test", "val"),
    "predict": (),
    "auto-label": ("train",),
}
"""The sources that a subcommand reads, the first of them that exists; others read none."""


def stored_config(
    content: Mapping[str, Any],
    subcommand: str,
    kinds: Mapping[str, Mapping[str, Any]],
    given: Sequence[str],
    trust: Sequence[str],
    where: str,
) -> tuple[dict[str, Any], list[str]]:
    """Return what a subcommand takes from the config in a checkpoint.

    Everything about training or the machine is left out: optimiser, augmentation, callbacks, loggers, devices,
    strategy, folders, caches.

    Args:
        content: Content of the checkpoint.
        subcommand: A subcommand that needs a checkpoint.
        kinds: The types of the options of ``model``, ``data`` and other sections, by name.
        given: Dotted keys of the parts that the command line replaces as a whole.
        trust: Packages whose classes may be named besides the project's own.
        where: Name of the file for error messages.

    Returns:
        The config, and the dotted keys of what was left out and may be missed.

    Raises:
        CheckpointError: There is no config, or something in it is not trusted, or not of this version.
    """
    if content.get(CONFIG_KEY) is None:
        config = _from_python(content, subcommand, kinds, given, where)
        where = f"{where}: hyper_parameters"
    else:
        where = f"{where}: config"
        config = config_now(plain_values(content[CONFIG_KEY], where))
    for name in ("model", "data"):
        if not isinstance(config, dict) or not isinstance(config.get(name), dict):
            raise CheckpointError(f"{where}: there is no section {name!r}; give --config FILE")
    config["model"] = parts_now(config["model"])
    missed: list[str] = []
    taken: dict[str, Any] = {"name": _name(config.get("name", "run"), where)}
    if type(config.get("seed_everything")) in (bool, int):
        taken["seed_everything"] = config["seed_everything"]
    precision = config["trainer"].get("precision") if isinstance(config.get("trainer"), dict) else None
    if isinstance(precision, str | int):
        taken["trainer"] = {"precision": precision}
    unused = {} if subcommand in ("validate", "test") else _OF_EVALUATION
    for section in kinds:
        if not isinstance(config.get(section), dict):
            continue
        left = (*_OF_TRAINING.get(section, ()), *unused.get(section, ()))
        parts = {
            key: value for key, value in config[section].items() if key not in left and f"{section}.{key}" not in given
        }
        unknown = [key for key in parts if key not in kinds[section]]
        if unknown:
            raise CheckpointError(
                f"{where}.{section}: this version has no option {shown(unknown[0])}; give the config with --config FILE"
            )
        if section == "data":
            _choose_sources(parts, subcommand, given)
            _make_harmless(parts, "data", missed, where)
            _refuse_leaks(parts, where)
        taken[section] = trusted_parts(parts, kinds[section], trust, f"{where}.{section}")
    _let_paths_start_anew(taken["data"], config["data"].get("root"))
    return taken, missed


def _from_python(
    content: Mapping[str, Any],
    subcommand: str,
    kinds: Mapping[str, Mapping[str, Any]],
    given: Sequence[str],
    where: str,
) -> dict[str, Any]:
    """Return the config of a checkpoint that was trained from Python: its parts say how they were made, its data not.

    Raises:
        CheckpointError: It does not say how parts were made that the subcommand needs and that are not given.
    """
    parts = content.get("hyper_parameters")
    if not isinstance(parts, Mapping) or "encoder" not in {*parts, *unrecorded_parts(content, where)}:
        raise CheckpointError(f"{where}: it contains no config; give the one that it was trained with: --config FILE")
    for name, reason in unrecorded_parts(content, where).items():
        if name in kinds["model"] and name not in _OF_TRAINING["model"] and f"model.{name}" not in given:
            raise CheckpointError(
                f"{where}: hyper_parameters: no entry {name!r} ({reason}); give it with --config FILE"
            )
    sources = _SOURCES.get(subcommand, ())
    if sources and not any(f"data.{name}" in given for name in sources):
        raise CheckpointError(
            f"{where}: it was trained from Python, and does not say on which data; give --data.{sources[0]}, or "
            "--config FILE"
        )
    model = plain_values(parts, f"{where}: hyper_parameters")
    return {"model": model, "data": {"size": plain_values(content.get("input_size"), f"{where}: input_size")}}


def _name(name: Any, where: str) -> str:
    """Return a run's name, which becomes the name of a folder."""
    text = name if isinstance(name, str) else ""
    if not text.isprintable() or {"\\", "$"} & set(text) or {"", ".", ".."} & set(text.split("/")):
        raise CheckpointError(f"{where}.name: {shown(name)} is not a valid name of a run; give --name NAME")
    return text


def _choose_sources(data: dict[str, Any], subcommand: str, given: Sequence[str]) -> None:
    """Keep only the source that the subcommand reads: the others need not exist here."""
    names = [name for name in _SOURCES.get(subcommand, ()) if data.get(name) is not None or f"data.{name}" in given]
    for name in ("train", "val", "test"):
        if name not in names[:1]:
            data.pop(name, None)
    if not names:
        data.pop("root", None)


def _make_harmless(value: Any, key: str, missed: list[str], where: str) -> None:
    """Remove what decides where a source writes, and with which credentials it reads."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            _make_harmless(item, f"{key}[{position}]", missed, where)
    elif isinstance(value, dict):
        for name in [name for name in value if name in _NOT_TAKEN]:
            if value.pop(name) is not None:
                missed.append(f"{key}.{name}")
        for name, item in value.items():
            _make_harmless(item, f"{key}.{name}", missed, where)
    elif isinstance(value, str) and "::" in value:
        raise CheckpointError(f"{where}.{key}: {shown(value)} is not taken from a checkpoint; give --{key} instead")


def _refuse_leaks(data: dict[str, Any], where: str) -> None:
    """Raise an error for addresses next to references to environment variables, whose values would be sent there."""
    texts: list[tuple[str, str, str]] = []

    def note(path: str, text: str) -> str:
        try:
            texts.append((path, text, str(resolved(text, path))))
        except InterpolationError as error:
            raise CheckpointError(f"{where}.{path}: {error}") from error
        return text

    each_text(data, note, "data")
    reference = next((f"{path}: {shown(text)}" for path, text, _ in texts if "${" in text), None)
    address = next((shown(text) for _, text, meant in texts if "://" in meant), None)
    if reference is not None and address is not None:
        raise CheckpointError(
            f"{where}.{reference} is not taken from a checkpoint that also names the address {address}; give "
            "the source, or the config with --config FILE"
        )


def _let_paths_start_anew(data: dict[str, Any], root: Any) -> None:
    """Undo the effect of ``data.root`` of the command line, so that another one can be given."""

    def undo(value: Any) -> None:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            undo(item)
        if isinstance(value, dict) and root is not None and value.get("root") == root:
            value["root"] = "."

    for name in ("train", "val", "test"):
        undo(data.get(name))
