"""What the type of an option admits: classes to choose from, lists, keys with values, or plain values."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import operator
import re
import sys
import types
from argparse import ArgumentError
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

_LISTS = (list, tuple, set, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_VALUES = (int, float, str, bool, complex, bytes, dict, list, tuple, set, type(None), Enum, PurePath, timedelta)


@dataclass(frozen=True)
class Made:
    """A class to choose a subclass of.

    Attributes:
        kind: The class.
        given: How many of the constructor's first arguments the program passes; 0 if the parser builds the object.
    """

    kind: type
    given: int = 0

    def takes(self, found: Any) -> bool:
        """Return whether something imported can be chosen: a class of this kind, or a function that returns one."""
        if not inspect.isclass(found):
            try:
                found = get_type_hints(found).get("return")
            except (TypeError, NameError):
                return False
        return inspect.isclass(found) and issubclass(found, self.kind)


@dataclass(frozen=True)
class Shape:
    """What a type admits.

    Attributes:
        hint: The type.
        anything: Nothing can be said of its values.
        parts: Classes to choose from.
        items: What stands in a list; None if there is none.
        values: The type of a mapping's values; None if there is none.
        without_parts: The type without the classes; None if nothing remains.
    """

    hint: Any
    anything: bool
    parts: tuple[Made, ...]
    items: Shape | None
    values: Any
    without_parts: Any


def shape_of(hint: Any, appended: bool = False) -> Shape:
    """Return what a type admits.

    Args:
        hint: The type of an option.
        appended: The value may be one item of the list that the type admits.
    """
    parts: list[Made] = []
    items: list[Any] = []
    plain: list[Any] = []
    values: Any = None
    anything = False
    for each in _alternatives(hint):
        origin, arguments = get_origin(each), get_args(each)
        if each is Any or each is object or isinstance(each, TypeVar) or each is inspect.Parameter.empty:
            anything = True
        elif origin is collections.abc.Callable and arguments:
            made = shape_of(arguments[-1]).parts
            given = len(arguments[0]) if isinstance(arguments[0], list) else 1
            parts += [Made(part.kind, given) for part in made]
            anything = anything or not made
        elif origin in _LISTS:
            items += [argument for argument in arguments if argument is not Ellipsis]
            plain.append(each)
        elif origin in _MAPPINGS:
            values = arguments[1] if len(arguments) == 2 else Any
            plain.append(each)
        elif inspect.isclass(each) and origin is None and _is_part(each):
            parts.append(Made(each))
        elif origin is None or origin is Literal:
            plain.append(each)
        else:
            anything = True
    inner = shape_of(functools.reduce(operator.or_, items[1:], items[0])) if items else None
    if appended and inner is not None:
        parts += inner.parts
    return Shape(hint, anything, tuple(parts), inner, values, functools.reduce(_or, plain) if plain else None)


def _or(one: Any, other: Any) -> Any:
    return Union[one, other]  # noqa: UP007 - not all types of the typing module know the operator


def _alternatives(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, of those in it, and of those that a name stands for."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        for each in get_args(hint):
            yield from _alternatives(each)
    elif origin is Annotated:
        yield from _alternatives(get_args(hint)[0])
    elif type(hint).__name__ == "TypeAliasType":
        yield from _alternatives(hint.__value__)
    else:
        yield hint


def _is_part(kind: type) -> bool:
    """Return whether a config chooses a class of this kind, rather than giving a value."""
    return not issubclass(kind, _VALUES) and not kind.__module__.startswith("jsonargparse")


def accepts(hint: Any, value: Any) -> bool:
    """Return whether the parser takes a value for an option of a type; None for the type takes nothing."""
    if hint is None:
        return False
    if value is None:
        # The library takes null for any type.
        named = [
            each for one in _alternatives(hint) for each in (get_args(one) if get_origin(one) is Literal else [one])
        ]
        return shape_of(hint).anything or None in named or type(None) in named
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        parser.parse_object({"value": value})
    except (ArgumentError, TypeError, ValueError):
        return False
    return True


def fitting(kind: type) -> list[type]:
    """Return the classes of a kind that have been imported and can be built."""
    return [
        each
        for each in _all_kinds(kind)
        if not inspect.isabstract(each) and "<locals>" not in each.__qualname__ and "._" not in f".{each.__module__}"
        if not each.__name__.startswith("_")
    ]


def namesakes(kind: type, name: str) -> list[str]:
    """Return the import paths of all classes of a kind with a name that can be built, without private modules."""
    found = []
    for each in _all_kinds(kind):
        if each.__name__ == each.__qualname__ == name and not inspect.isabstract(each):
            package = f".{each.__module__}".partition("._")[0][1:]
            if getattr(sys.modules.get(package), name, None) is each:
                found.append(f"{package}.{name}")
    return sorted(found)


def _all_kinds(kind: type) -> dict[type, None]:
    found: dict[type, None] = {}
    pending = [kind]
    while pending:
        each = pending.pop()
        if each not in found:
            found[each] = None
            pending += type.__subclasses__(each)
    return found


def readable(hint: Any) -> str:
    """Return a type as one writes it to a person: ``int or null``."""
    names = [_readable(each) for each in _alternatives(hint)]
    null = [name for name in names if name == "null"]
    return " or ".join(dict.fromkeys([name for name in names if name != "null"] + null))


def _readable(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is type(None):
        return "null"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is collections.abc.Callable:
        return readable(arguments[-1])
    if origin in _LISTS + _MAPPINGS:
        inside = ", ".join("..." if each is Ellipsis else readable(each) for each in arguments)
        name = "dict" if origin in _MAPPINGS else origin.__name__ if origin in (tuple, set) else "list"
        return f"{name}[{inside}]"
    restrictions = getattr(hint, "_expression", None)
    if restrictions is not None and hasattr(hint, "_type"):
        return re.sub(r"\s*([<>]=?|==)\s*", r" \1 ", str(restrictions).replace("v", hint._type.__name__))
    return getattr(hint, "__name__", str(hint))
