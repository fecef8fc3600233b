"""The values that the type of an argument allows: what may be built or called there, and which texts stay texts."""

from __future__ import annotations

import dataclasses
import inspect
import os
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from ocrnet_pl.storage.recording import Recorded


@dataclasses.dataclass
class Kinds:
    """The values that a type allows.

    Attributes:
        built: Classes whose objects are allowed.
        called: Classes whose objects come from an allowed callable, so that these classes are allowed.
        items: Types of a list's items.
        mapped: Types of a dictionary's values.
        texts: Types of texts.
        unknown: Whether any value is allowed, as far as is known.
    """

    built: list[type] = dataclasses.field(default_factory=list)
    called: list[type] = dataclasses.field(default_factory=list)
    items: list[Any] = dataclasses.field(default_factory=list)
    mapped: list[Any] = dataclasses.field(default_factory=list)
    texts: list[Any] = dataclasses.field(default_factory=list)
    unknown: bool = False

    @classmethod
    def of(cls, kind: Any) -> Kinds:
        """Return what a type allows, or a tuple of types."""
        kinds = cls()
        for member in _members(kind):
            kinds.add(member)
        return kinds

    def add(self, kind: Any) -> None:
        """Allow what a type allows that is no union."""
        origin, arguments = get_origin(kind), get_args(kind)
        made: Any = origin or kind
        if kind is Any or kind is object:
            self.unknown = True
        elif origin is Literal or (inspect.isclass(kind) and issubclass(kind, Enum)):
            self.texts.append(kind)
        elif origin is type:
            self.called += [each for one in arguments for each in _members(one) if inspect.isclass(each)]
        elif made is Callable:
            self.called += [one for one in _members(arguments[-1]) if inspect.isclass(one)] if arguments else []
        elif not inspect.isclass(made):
            self.unknown = True
        elif issubclass(made, str | PurePath | os.PathLike):
            self.texts.append(str)
        elif made in (bool, int, float, complex, type(None)) or issubclass(made, int | float):
            pass
        elif issubclass(made, Mapping):
            self.mapped.append(arguments[1] if len(arguments) > 1 else Any)
        elif issubclass(made, Sequence | set | frozenset) and not hasattr(made, "_fields"):
            self.items += [one for one in arguments if one is not Ellipsis] or [Any]
        elif origin is not None and made.__module__ == "collections.abc":
            self.items += list(arguments) or [Any]
        else:
            self.built.append(made)

    def item(self) -> Any:
        """Return the type of a list's items."""
        return tuple(self.items) or Any

    def takes(self, text: str) -> bool:
        """Return whether a text is allowed as it is."""
        return any(
            text in get_args(kind)
            if get_origin(kind) is Literal
            else text in kind.__members__
            if inspect.isclass(kind) and issubclass(kind, Enum)
            else True
            for kind in self.texts
        )

    @property
    def structured(self) -> bool:
        """Whether something is allowed that contains or builds classes."""
        if self.built or self.called or self.unknown:
            return True
        return any(inner.structured for inner in map(Kinds.of, [*self.items, *self.mapped]))


def _members(kind: Any) -> list[Any]:
    """Return the types of a union or a tuple of types, or the type itself."""
    if isinstance(kind, tuple):
        return [member for one in kind for member in _members(one)]
    origin = get_origin(kind)
    if origin is Union or isinstance(kind, types.UnionType):
        return [member for one in get_args(kind) for member in _members(one)]
    if origin is Annotated:
        return _members(get_args(kind)[0])
    if hasattr(kind, "__supertype__"):
        return _members(kind.__supertype__)
    if hasattr(kind, "__value__"):
        return _members(kind.__value__)
    return [kind]


def argument_kinds(owner: type) -> tuple[dict[str, Any], bool]:
    """Return the types of a class's arguments, and whether it accepts others as well."""
    if hasattr(owner, "_fields"):
        return get_type_hints(owner), False
    found: dict[str, Any] = {}
    more = False
    for each in owner.__mro__:
        maker = each.__dict__.get("__init__") or each.__dict__.get("__new__")
        if each in (object, nn.Module, Recorded) or maker is None:
            continue
        try:
            parameters = inspect.signature(maker).parameters
        except (TypeError, ValueError):
            break
        try:
            kinds = get_type_hints(maker, include_extras=True)
        except Exception:  # A type that only type checkers can see.
            kinds = {}
        more = False
        for name, parameter in list(parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                more = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                found.setdefault(name, kinds.get(name, Any))
        if not more:
            # Arguments that it does not accept itself are not passed on to its base classes.
            break
    return found, more
