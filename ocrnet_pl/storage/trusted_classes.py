"""Which classes a checkpoint may name: the package's own, and those of packages that the user trusts."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ocrnet_pl.errors import CheckpointError, one_line
from ocrnet_pl.storage.allowed_values import Kinds, argument_kinds
from ocrnet_pl.storage.import_paths import current_path
from ocrnet_pl.storage.plain_values import plain_values, shown

T = TypeVar("T")

PACKAGE = "ocrnet_pl"

_OPTIMIZERS = "torch.optim"
"""Packages in which a class may be defined as well if it is an optimiser or a scheduler."""

_SPEC_KEYS = {"class_path", "init_args", "dict_kwargs"}
_LONGEST_PATH = 300
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_STRUCTURE = re.compile(r"[{\[&*!|>:\"'#%@`\n]")
"""Characters with which a YAML parser could see more than a text."""


def trusted_packages(trust: str | Sequence[str]) -> tuple[str, ...]:
    """Return the packages whose classes may be built: the project's own, and the given ones.

    Args:
        trust: Import paths of packages or modules, such as ``my_package``.

    Raises:
        ValueError: A name is not an import path.
    """
    names = [trust] if isinstance(trust, str) else list(trust)
    for name in names:
        if not isinstance(name, str) or not _IMPORT_PATH.fullmatch(name):
            raise ValueError(f"trust: {shown(name)} is not a package; give its import path, such as my_package")
    return (PACKAGE, *names)


def trusted_parts(
    parts: Mapping[str, Any], kinds: Mapping[str, Any], trust: str | Sequence[str], where: str
) -> dict[str, Any]:
    """Check what a checkpoint says about parts to build, before any named class is imported.

    A part is a ``class_path`` with its ``init_args``, or a plain value; parts may contain parts. Every class has to be
    defined in a trusted package, wherever it is named, and to be of the type that is expected in its place.

    Args:
        parts: The parts by name.
        kinds: The type of each part, by name; parts of other names are left out.
        trust: Packages that are trusted besides the project's own.
        where: Name of the file and the entry for error messages.

    Returns:
        The parts as plain values; each class is a dictionary with its full import path.

    Raises:
        CheckpointError: A class is not trusted or of another type, or a value could not occur in a config.
        ValueError: ``trust`` names something that is not a package.
    """
    check = _Check(trusted_packages(trust), where)
    chosen = plain_values({name: parts[name] for name in kinds if name in parts}, f"{where}")
    check.names(chosen, "")
    return {name: check.value(value, kinds[name], f".{name}") for name, value in chosen.items()}


def named_packages(config: Any) -> list[str]:
    """Return the packages of all classes in a config that its user wrote and that has been built before."""
    if isinstance(config, dict):
        own = config.get("class_path")
        below = {name for item in config.values() for name in named_packages(item)}
        return sorted(below | ({own.partition(".")[0]} if isinstance(own, str) else set()))
    if isinstance(config, list):
        return sorted({name for item in config for name in named_packages(item)})
    return []


def build_parts(
    parts: Mapping[str, Any],
    kinds: Mapping[str, Any],
    trust: str | Sequence[str],
    where: str,
    unrecorded: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Build a checkpoint's parts, after :func:`trusted_parts` has checked them.

    An encoder's ``weights`` are not loaded: the checkpoint contains them, and the file need not exist here.

    Args:
        parts: The parts by name.
        kinds: The type of each part, by name; all of them must be there.
        trust: Packages that are trusted besides the project's own.
        where: Name of the file and the entry for error messages.
        unrecorded: Why the file does not say how some parts were made, by name.

    Returns:
        The parts by name.

    Raises:
        CheckpointError: A part is missing, is not trusted, or cannot be built.
        ValueError: ``trust`` names something that is not a package.
    """
    from jsonargparse import ArgumentParser

    missing = [name for name in kinds if name not in parts]
    if missing:
        reason = (unrecorded or {}).get(missing[0])
        raise CheckpointError(
            f"{where}: no entry {missing[0]!r}{f' ({reason})' if reason else ''}; give it in Python: "
            f"{', '.join(f'{name}=...' for name in missing)}"
        )
    checked = trusted_parts(parts, kinds, trust, where)
    _leave_weights(checked.get("encoder"))
    parser = ArgumentParser(exit_on_error=False)
    for name, kind in kinds.items():
        parser.add_argument(f"--{name}", type=kind)
    return rebuilt(lambda: vars(parser.instantiate_classes(parser.parse_object(checked))), where)


def _leave_weights(part: Any) -> None:
    """Let an encoder, and those inside it, start without the weights that it was made with."""
    if isinstance(part, list):
        for item in part:
            _leave_weights(item)
    elif isinstance(part, dict):
        arguments = part.get("init_args")
        if isinstance(arguments, dict) and "weights" in arguments:
            arguments["weights"] = None
        for item in part.values():
            _leave_weights(item)


def rebuilt(build: Callable[[], T], where: str) -> T:
    """Return what a function builds from a checkpoint's entries, which may raise any error.

    Args:
        build: The function.
        where: Name of the file and the entry for error messages.

    Raises:
        CheckpointError: It cannot be built.
    """
    try:
        return build()
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{where}: the network cannot be built: {one_line(error)[:300]}") from error


class _Check:
    """Walks through values together with the types that are expected for them."""

    def __init__(self, packages: tuple[str, ...], where: str) -> None:
        self.packages = packages
        self.where = where

    def refuse(self, key: str, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.where}{key}: {reason}")

    def names(self, value: Any, key: str) -> None:
        """Raise an error for classes of packages that are not trusted, wherever they are named; nothing is imported."""
        if isinstance(value, list):
            for position, item in enumerate(value):
                self.names(item, f"{key}[{position}]")
        elif isinstance(value, dict):
            for name, item in value.items():
                if name == "class_path":
                    self.name(item, key)
                self.names(item, f"{key}.{name}")

    def name(self, path: Any, key: str, packages: Sequence[str] | None = None) -> None:
        """Raise an error for a text that is not an import path, or whose package is not trusted."""
        if not isinstance(path, str) or len(path) > _LONGEST_PATH or not _IMPORT_PATH.fullmatch(path):
            raise self.refuse(key, f"{shown(path)} is not the import path of a class")
        allowed = (*self.packages, _OPTIMIZERS) if packages is None else packages
        if "." in path and not _inside(path, allowed):
            raise self.refuse(
                key,
                f"{shown(path)} is not a class of {PACKAGE}, and building it could run any code; if you know where the "
                f"file is from, trust its package: --trust {path.partition('.')[0]}, in Python and of a teacher "
                "trust=[...]",
            )

    def resolve(self, path: str, bases: Sequence[type], key: str) -> type:
        """Return the class at an import path."""
        packages = self.packages
        if any(issubclass(base, Optimizer | LRScheduler) for base in bases):
            packages = (*packages, _OPTIMIZERS)
        self.name(path, key, packages)
        if "." not in path:
            own = _own_classes(path)
            if len(own) != 1:
                raise self.refuse(key, f"{PACKAGE} has no class {shown(path)}; give its import path")
            found: Any = own[0]
        else:
            module, _, name = current_path(path).rpartition(".")
            try:
                found = getattr(importlib.import_module(module), name)
            except Exception as error:
                raise self.refuse(key, f"{shown(path)} cannot be imported: {one_line(error)[:300]}") from error
        if not inspect.isclass(found):
            raise self.refuse(key, f"{shown(path)} is not a class")
        if not _inside(found.__module__, packages):
            raise self.refuse(key, f"{shown(path)} is defined in {found.__module__}, which is not trusted")
        if bases and not issubclass(found, tuple(bases)):
            raise self.refuse(key, f"{shown(path)} is not of type {' or '.join(base.__name__ for base in bases)}")
        return found

    def value(self, value: Any, kind: Any, key: str) -> Any:
        """Return a value with all classes in it checked."""
        kinds = Kinds.of(kind)
        if isinstance(value, str):
            return self.text(value, kinds, key)
        if isinstance(value, list):
            return [self.value(item, kinds.item(), f"{key}[{i}]") for i, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if "class_path" in value:
            return self.spec(value, kinds, key)
        if kinds.mapped:
            return {name: self.value(item, tuple(kinds.mapped), f"{key}.{name}") for name, item in value.items()}
        concrete = [base for base in kinds.built if not inspect.isabstract(base)]
        if concrete:
            return self.arguments(concrete[0], value, key)
        if kinds.unknown:
            return {name: self.value(item, Any, f"{key}.{name}") for name, item in value.items()}
        raise self.refuse(key, "there is no class_path")

    def text(self, value: str, kinds: Kinds, key: str) -> Any:
        if kinds.takes(value) and not kinds.structured:
            return value
        if (kinds.built or kinds.called) and _IMPORT_PATH.fullmatch(value) and not kinds.takes(value):
            return self.spec({"class_path": value}, kinds, key)
        # A parser might see more than a text in it, where more would be accepted.
        if (kinds.takes(value) or kinds.unknown) and not _STRUCTURE.search(value) and not _importable(value):
            return value
        raise self.refuse(key, f"{shown(value)} is not valid here")

    def spec(self, spec: dict[Any, Any], kinds: Kinds, key: str) -> dict[str, Any]:
        """Check a class and its arguments."""
        foreign = [name for name in spec if name not in _SPEC_KEYS]
        if foreign:
            raise self.refuse(key, f"next to class_path and init_args there is {shown(foreign[0])}")
        bases = [*kinds.built, *kinds.called]
        if not bases and not kinds.unknown:
            raise self.refuse(key, "a class is not valid here")
        found = self.resolve(spec["class_path"], bases, key)
        if inspect.isabstract(found):
            raise self.refuse(key, f"{shown(spec['class_path'])} is only a base class")
        checked: dict[str, Any] = {"class_path": f"{found.__module__}.{found.__qualname__}"}
        for name in ("init_args", "dict_kwargs"):
            given = spec.get(name)
            if given is not None:
                if not isinstance(given, dict):
                    raise self.refuse(key, f"{name} is {shown(given)}, not a dictionary")
                checked[name] = self.arguments(found, given, key)
        return checked

    def arguments(self, owner: type, given: dict[Any, Any], key: str) -> dict[str, Any]:
        """Check the arguments of a class."""
        kinds, more = argument_kinds(owner)
        checked = {}
        for name, value in given.items():
            if name not in kinds and not (more and isinstance(name, str) and name.isidentifier()):
                raise self.refuse(key, f"{owner.__name__} has no option {shown(name)}")
            checked[name] = self.value(value, kinds.get(name, Any), f"{key}.{name}")
        return checked


def _own_classes(name: str) -> list[type]:
    """Return the package's own classes with a given name that have been imported."""
    return [
        value
        for module_name, module in list(sys.modules.items())
        if _inside(module_name, (PACKAGE,))
        for attribute, value in list(vars(module).items())
        if attribute == name and inspect.isclass(value) and value.__module__ == module_name
    ]


def _importable(text: str) -> bool:
    """Return whether a text could be an import path; nothing is imported."""
    first, dot, _ = text.partition(".")
    if not dot or not first.isidentifier():
        return False
    try:
        return importlib.util.find_spec(first) is not None
    except (ImportError, ValueError):
        return True


def _inside(path: str, packages: Sequence[str]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in packages)
