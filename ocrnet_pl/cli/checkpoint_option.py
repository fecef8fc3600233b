"""The checkpoint that a command line refers to, and the parts of its config that are used."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from ocrnet_pl.cli.exported_file import with_option
from ocrnet_pl.cli.initial_weights import refuse_both
from ocrnet_pl.cli.subcommands import EVALUATING
from ocrnet_pl.data.split_keys import SPLITS
from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.errors import UsageError
from ocrnet_pl.storage.checkpoints import config_value, read_checkpoint
from ocrnet_pl.storage.interpolation import resolved
from ocrnet_pl.storage.latest_run import Which, latest_checkpoint
from ocrnet_pl.storage.same_checkpoint import expects_others
from ocrnet_pl.storage.stored_config import stored_config
from ocrnet_pl.storage.trusted_classes import trusted_packages

if TYPE_CHECKING:
    from jsonargparse import Namespace

_OPTION = "ckpt_path"
_WEIGHTS_ONLY = "weights_only"
_OF_LIGHTNING = ("hpc", "registry")
"""What Lightning takes for a checkpoint besides files, ``last`` and ``best``."""


def describe_checkpoint(parser: argparse.ArgumentParser, subcommand: str) -> None:
    """Let the help of one of Lightning's subcommands say what its checkpoint is here, and not what it is in Lightning.

    Args:
        parser: The subcommand's parser, with Lightning's options.
        subcommand: Name of the subcommand.
    """
    newest = "of the newest run with the config's name"
    what = "predict with" if subcommand == "predict" else "evaluate"
    text = f"Checkpoint to {what}: a file, or best or last for one {newest}; required."
    if subcommand == "fit":
        text = f"Checkpoint to continue from: a file, or last for the one {newest}; null begins a new training."
    for group in parser._action_groups:
        for action in group._group_actions:
            if action.dest == _OPTION:
                group.title, action.help = "Checkpoint", text
            elif action.dest == _WEIGHTS_ONLY:
                # Configs that earlier versions saved have it.
                action.help = argparse.SUPPRESS


def refuse_code(config: Namespace) -> None:
    """Raise an error where Lightning is told to run what a checkpoint contains, which is not done here.

    Args:
        config: The config of a subcommand.

    Raises:
        UsageError: It is.
    """
    if config.get(_WEIGHTS_ONLY) is False:
        raise UsageError(
            f"{_WEIGHTS_ONLY}: checkpoints are always read as data, without running code; leave it out, and name "
            "packages whose classes they may name with --trust"
        )


class Settled(NamedTuple):
    """A command line whose checkpoint is settled.

    Attributes:
        words: The command line.
        config: The parts of the checkpoint's config that the subcommand uses, which the command line overrides; None
            for none.
    """

    words: list[str]
    config: dict[str, Any] | None


def settle_checkpoint(words: list[str], kinds: Mapping[str, Mapping[str, Any]]) -> Settled:
    """Find the checkpoint that a command line means, before anything is built.

    Args:
        words: The command line; its config files exist and are YAML.
        kinds: The types of the options of ``model``, ``data`` and other sections, by name.

    Returns:
        The command line with the file for ``last`` or ``best``. Unless its configs name both an encoder and a source,
        the checkpoint's own comes with it.

    Raises:
        UsageError: There is no checkpoint where one is needed, or not such a one.
        FileNotFoundError: There is no such file or no such run.
        CheckpointError: The checkpoint is damaged, holds no config, or one that is not trusted.
    """
    subcommand = words[0]
    if subcommand not in ("fit", *EVALUATING) or {"-h", "--help"} & set(words):
        return Settled(words, None)
    if subcommand in EVALUATING:
        words = _join_trust(with_option(words))
    else:
        refuse_both(words)
    asked = resolved(setting(words, _OPTION))
    if asked is None:
        if subcommand == "fit" or any(word.startswith("--print_config") for word in words):
            return Settled(words, None)
        raise UsageError(
            f"{subcommand}: there is no checkpoint; give --ckpt_path FILE, such as "
            "--ckpt_path runs/NAME/version_0/checkpoints/last.ckpt, or `last` or `best` for those of the newest run"
        )
    if asked == "" or not isinstance(asked, str):
        raise UsageError(f"ckpt_path: expected the file of a checkpoint, or `last`, got {asked!r}")
    if asked in _OF_LIGHTNING or asked.startswith("registry:"):
        raise UsageError(f"ckpt_path {asked!r}: there is no such checkpoint here; give a file, or `last`")
    if asked == "best" and subcommand == "fit":
        raise UsageError(
            "ckpt_path 'best': training continues from the last checkpoint of a run; give `last`, or a file"
        )
    path = asked
    if _config_follows(words):
        # One that a run has saved has null, with which the weights would be random.
        words = [*words, f"--{_OPTION}={setting(words, _OPTION)}"]
    if asked in ("last", "best"):
        name, root = (resolved(setting(words, key)) for key in ("name", "trainer.default_root_dir"))
        which: Which = "last" if asked == "last" else "best"
        try:
            path = str(latest_checkpoint(which, Path(str(root or "runs")), str(name or "run")))
        except FileNotFoundError as error:
            if subcommand != "fit" or not expects_others():
                raise
            # Other processes, which may have one, would wait for this one: all hear of it, as soon as they can talk.
            say(f"warning: {error}")
            return Settled(words, None)
        say(f"ckpt_path {asked}: {path}")
        # After the word that named it.
        words = [*words, f"--{_OPTION}={path}"]
    if subcommand == "fit" or _is_whole(words):
        return Settled(words, None)
    if "://" in path:
        raise UsageError(
            f"ckpt_path {path!r}: the config of a checkpoint at an address is not read; give --config FILE"
        )
    given = [key for key in _keys(kinds) if setting(words, key, whole=True) is not None or _is_null(words, key)]
    where = f"checkpoint {path!r}"
    config, missed = stored_config(read_checkpoint(path, mmap=True), subcommand, kinds, given, _trust(words), where)
    say(
        f"config: the checkpoint's own, of {path}"
        + (f", without {', '.join(missed)}, which must be given here" if missed else "")
    )
    if Path(path).parent.name == "checkpoints" and len(Path(path).parents) > 3:
        runs = Path(path).parents[3]
        if Path(path).parents[2].name == config["name"]:
            config.setdefault("trainer", {})["default_root_dir"] = str(runs)
    return Settled(words, config)


def setting(words: list[str], key: str, whole: bool = False) -> Any:
    """Return what a command line and its configs set a key to, the last of them; None if they do not.

    Args:
        words: The command line; its config files exist and are YAML.
        key: Dotted.
        whole: Whether, for a part, only its class counts and not one of its options.
    """
    found = None
    for value in settings(words, key):
        replaces = not isinstance(value, dict) or "class_path" in value
        if replaces or not whole:
            found = value
    return found


def settings(words: list[str], key: str) -> Iterator[Any]:
    """Yield all that a command line and its configs set a key to, in their order.

    Args:
        words: The command line; its config files exist and are YAML.
        key: Dotted.
    """
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        value = value if equals else following
        if name in ("--config", "-c"):
            content = config_value(yaml.safe_load(Path(value).read_text(encoding="utf-8")), key)
            if content is not None:
                yield content
        elif name in (f"--{key}", f"--{key}.class_path"):
            yield None if value == "null" else value


def _config_follows(words: list[str]) -> bool:
    """Return whether a config stands after the last word that names a checkpoint, or no word does."""
    options = [word.partition("=")[0] for word in words]
    named = max((place for place, option in enumerate(options) if option == f"--{_OPTION}"), default=0)
    return bool({"--config", "-c"} & set(options[named:]))


def _is_null(words: list[str], key: str) -> bool:
    """Return whether the command line takes a part away."""
    return f"--{key}=null" in words or (f"--{key}", "null") in pairwise(words)


def _keys(kinds: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{section}.{name}" for section, own in kinds.items() for name in own]


def _is_whole(words: list[str]) -> bool:
    """Return whether the configs describe a network and data, and not only what to change."""
    sources = [setting(words, f"data.{name}", whole=True) for name in SPLITS]
    return setting(words, "model.encoder", whole=True) is not None and any(source is not None for source in sources)


def _join_trust(words: list[str]) -> list[str]:
    """Make one option of all ``--trust``, which may be given again and again, or with several packages."""
    kept: list[str] = []
    names: list[str] = []
    within = False
    for word in words:
        option, equals, value = word.partition("=")
        if option == "--trust":
            within, word = not equals, value
            if not equals:
                continue
        elif not within or word.startswith("-"):
            within = False
            kept.append(word)
            continue
        names += [name.strip(" '\"") for name in word.strip("[]").split(",")]
    if not names:
        return kept
    try:
        trusted_packages(names)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return [*kept, f"--trust={json.dumps(names)}"]


def _trust(words: list[str]) -> list[str]:
    found = setting(words, "trust")
    if isinstance(found, str):
        found = json.loads(found) if found.startswith("[") else [found]
    try:
        return list(trusted_packages(found or [])[1:])
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
