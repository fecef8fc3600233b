"""How a part was made: its class and the arguments of its constructor, as plain values that a file can hold.

The form is that of a config, ``{class_path: ..., init_args: {...}}``, so that a network that was put together in Python
is rebuilt as one that a config describes.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from numbers import Integral, Real
from typing import Any, TypeVar

R = TypeVar("R")

_RECORD = "_made_with"
"""Name of the attribute with the arguments of a part's constructor."""


class NotRecordedError(ValueError):
    """Something that a part was made with cannot be written as plain values."""


class Recorded:
    """Remembers the arguments of its constructor, so that a checkpoint can say how it was made.

    All base classes of parts extend it, and nothing has to be called. A class of your own that is an argument of a part
    extends it as well.
    """

    def __new__(cls: type[R], *args: Any, **kwargs: Any) -> R:
        """Record the arguments; they are kept as plain values, so that nothing is held on to and copies keep them."""
        self: R = super().__new__(cls)  # type: ignore[misc]
        self.__dict__[_RECORD] = _Arguments.of(cls, args, kwargs)
        return self


def record_of(part: Any, passed: Sequence[Any] = ()) -> dict[str, Any]:
    """Return how a part was made.

    Args:
        part: An object whose class extends :class:`Recorded`.
        passed: The first arguments of its constructor, which whoever rebuilds it will pass again: they are left out.

    Returns:
        ``class_path`` and ``init_args`` as a config has them, and ``dict_kwargs`` for arguments that the constructor
        does not name.

    Raises:
        NotRecordedError: An argument cannot be written as plain values, or the part was not made with the passed ones.
    """
    if not isinstance(part, Recorded):
        raise NotRecordedError(_kind(part))
    arguments: _Arguments = part.__dict__[_RECORD]
    return _spec(type(part), arguments.without(type(part), [plain_record(value) for value in passed]))


def changed_record_of(part: Any) -> dict[str, Any]:
    """Return how a part was made, without the arguments that are the defaults of its class.

    Where another class is chosen instead, it does not inherit them.

    Args:
        part: An object whose class extends :class:`Recorded`.

    Raises:
        NotRecordedError: An argument cannot be written as plain values.
    """
    record = record_of(part)
    defaults = record_of_factory(type(part), 0)["init_args"]
    changed = {name: value for name, value in record["init_args"].items() if value != defaults.get(name)}
    return record | {"init_args": changed}


def record_of_factory(factory: Any, passed: int | None) -> dict[str, Any]:
    """Return what a factory makes: a class, or a :class:`functools.partial` of a class.

    Args:
        factory: The class or the partial.
        passed: Number of arguments that whoever calls the factory passes first; None if it is not known, which leaves
            out the defaults.

    Raises:
        NotRecordedError: It is anything else, or an argument cannot be written as plain values.
    """
    kind, args, kwargs = factory, (), {}
    if isinstance(factory, partial):
        kind, args, kwargs = factory.func, factory.args, factory.keywords
        if getattr(kind, "__module__", "").partition(".")[0] == "jsonargparse" and args:
            # A factory that a config describes: the parser's own function, with the class as its last argument.
            kind, args = args[-1], ()
    if not inspect.isclass(kind) or args:
        found = "a partial of something else" if isinstance(factory, partial) else _kind(factory)
        raise NotRecordedError(f"{found}; give a class, or a functools.partial of a class with arguments by name")
    first = [None] * (passed or 0)
    signature = inspect.signature(kind.__init__)
    try:
        bound = signature.bind_partial(None, *first, **kwargs)
    except TypeError as error:
        raise NotRecordedError(f"a partial of {kind.__name__} that cannot be called: {error}") from None
    if passed is not None:
        bound.apply_defaults()
    return _spec(kind, _Arguments.sorted(bound).without(kind, first))


def plain_record(value: Any) -> Any:
    """Return a value as a config would give it: numbers, texts, lists, dictionaries, and the records of parts.

    Args:
        value: An argument of a part.

    Raises:
        NotRecordedError: It is, or contains, something else.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Recorded):
        return record_of(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str | os.PathLike):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, type):
        return import_path(value)
    if isinstance(value, partial):
        return record_of_factory(value, None)
    names = _fields(value)
    if names is not None:
        return _spec(type(value), {"init_args": {name: plain_record(getattr(value, name)) for name in names}})
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str | int):
                raise NotRecordedError(f"a dictionary with the key {str(name)[:60]!r}, which is no text")
        return {name: plain_record(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_record(item) for item in value]
    raise NotRecordedError(_kind(value))


def import_path(kind: type) -> str:
    """Return the import path of a class.

    Raises:
        NotRecordedError: It has none, because it is defined inside a function or another class.
    """
    if "." in kind.__qualname__:
        place = kind.__qualname__.rpartition(".")[0].removesuffix(".<locals>")
        raise NotRecordedError(f"the class {kind.__name__}, which is defined inside {place}; move it to the file's top")
    return f"{kind.__module__}.{kind.__qualname__}"


class _Missing:
    """Stands for an argument that cannot be written.

    Args:
        reason: What it is.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason


@dataclasses.dataclass
class _Arguments:
    """The arguments of a constructor, as plain values or as :class:`_Missing`.

    Attributes:
        positional: Those that can be given by position, by name and in order.
        more: Those beyond them that were given by position.
        named: All others, by name.
        unknown: Those that the constructor does not name itself.
    """

    positional: dict[str, Any] = dataclasses.field(default_factory=dict)
    more: list[Any] = dataclasses.field(default_factory=list)
    named: dict[str, Any] = dataclasses.field(default_factory=dict)
    unknown: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, kind: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Arguments:
        try:
            bound = inspect.signature(kind.__init__).bind(None, *args, **kwargs)  # type: ignore[misc]
        except (TypeError, ValueError):
            # The constructor itself will say it better; and a copy is made without arguments, and then filled.
            return cls()
        bound.apply_defaults()
        return cls.sorted(bound)

    @classmethod
    def sorted(cls, bound: inspect.BoundArguments) -> _Arguments:
        found = cls()
        for name, value in list(bound.arguments.items())[1:]:
            way = bound.signature.parameters[name].kind
            if way is inspect.Parameter.VAR_POSITIONAL:
                found.more = [_tried(item) for item in value]
            elif way is inspect.Parameter.VAR_KEYWORD:
                found.unknown = {key: _tried(item) for key, item in value.items()}
            elif way is inspect.Parameter.KEYWORD_ONLY:
                found.named[name] = _tried(value)
            else:
                found.positional[name] = _tried(value)
        return found

    def without(self, kind: type, passed: list[Any]) -> dict[str, Any]:
        """Return the arguments by name without the first ones, which are known."""
        first = [*self.positional.values(), *self.more][: len(passed)]
        if first != passed:
            raise NotRecordedError(
                f"{_a(kind.__name__)} that was not made with the {len(passed)} arguments that its factory is called "
                "with, as the first ones and unchanged"
            )
        if len(self.positional) + len(self.more) > len(passed) and self.more:
            raise NotRecordedError(f"{_a(kind.__name__)} with nameless arguments by position; give them by name")
        rest = list(self.positional.items())[len(passed) :]
        spec = {"init_args": dict(rest) | self.named} | ({"dict_kwargs": self.unknown} if self.unknown else {})
        for group in spec.values():
            for name, value in group.items():
                if isinstance(value, _Missing):
                    raise NotRecordedError(f"argument {name!r} of {kind.__name__} is {value.reason}")
        return spec


def _tried(value: Any) -> Any:
    try:
        return plain_record(value)
    except NotRecordedError as error:
        return _Missing(str(error))


def _spec(kind: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    # Copies: what a checkpoint holds may be changed by whoever reads it.
    return {"class_path": import_path(kind), **_copied(arguments)}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _fields(value: Any) -> list[str] | None:
    """Return the names of the fields of a dataclass's or a named tuple's object; None for anything else."""
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value) if field.init]
    return list(value._fields) if isinstance(value, tuple) and hasattr(value, "_fields") else None


def _kind(value: Any) -> str:
    """Return what a value is, for an error."""
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return "a lambda" if value.__name__ == "<lambda>" else f"the function {value.__name__}"
    return f"{_a(type(value).__name__)}, which is no plain value; a class of your own can extend ocrnet_pl.Recorded"


def _a(name: str) -> str:
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"
