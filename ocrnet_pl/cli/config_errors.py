"""What is wrong with a config, in one line: its keys and classes are compared with those that the parser knows.

The parser says of each mistake something else, at length and in words that change with its version. What a user wrote
is compared here with what can be set instead, from the outside in, and the first setting that does not fit is named
with its file, its line and the closest valid name.
"""

from __future__ import annotations

import argparse
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader

from ocrnet_pl.cli.config_files import config_tree, kind_of
from ocrnet_pl.cli.option_types import Made, Shape, accepts, fitting, namesakes, readable, shape_of
from ocrnet_pl.cli.suggestions import closest, did_you_mean
from ocrnet_pl.cli.written_settings import Layer, layers, place, place_of
from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.errors import UsageError, one_line
from ocrnet_pl.storage.import_paths import current_path

_SPEC = ("class_path", "init_args", "dict_kwargs")
_FILES = (".yaml", ".yml", ".json")
_NULL = "tag:yaml.org,2002:null"
_NOTHING_BELOW = "there is nothing below it; give it keys, or leave it out"


def first_mistake(parser: Any, words: list[str]) -> str | None:
    """Return one line about the first setting of a command line that cannot be, or None if all of them fit.

    Args:
        parser: The subcommand's parser.
        words: The command line; its config files are sound YAML.
    """
    comparison = _Comparison(parser)
    positional = next((action for action in parser._actions if not action.option_strings), None)
    for layer in layers(words, parser._option_string_actions, positional):
        for mistake in comparison.of_layer(layer):
            return mistake
    return next(comparison.absent(), None)


def first_null(parser: Any, config: Namespace, words: list[str]) -> str | None:
    """Return one line about the first setting that is null and cannot be, or None if there is none.

    The library takes null for any type, and hands it on to what cannot use it.

    Args:
        parser: The subcommand's parser.
        config: What it found.
        words: The command line.
    """
    for path, expected in _nulls(parser, config, ""):
        return f"{place_of(path, '', words)}: {expected}"
    return None


def _nulls(parser: Any, config: Namespace, path: str) -> Iterator[tuple[str, str]]:
    """Yield the keys below one whose value is null and cannot be, each with what is expected there."""
    for action in parser._actions:
        own, hint = f"{path}.{action.dest}".lstrip("."), getattr(action, "_typehint", None)
        value = config.get(action.dest, "")
        if value is None and _is_section(action.dest, parser):
            yield own, _NOTHING_BELOW
        elif hint is None:
            continue
        elif value is None and (action.required or action.default is not None) and not accepts(hint, None):
            yield (
                own,
                f"expected {readable(hint)}, got null{'' if action.required else '; leave it out for the default'}",
            )
        else:
            shape = shape_of(hint)
            kind = (shape.items or shape) if isinstance(value, list) else shape
            for part in value if isinstance(value, list) else [value]:
                made = _default(part, kind) if isinstance(part, Namespace) else None
                inner = None if made is None else _parser_of(*made)
                options = part.get("init_args") if inner is not None and "class_path" in part else part
                if inner is not None and isinstance(options, Namespace):
                    yield from _nulls(inner, options, own)


def _is_section(dest: str, parser: Any) -> bool:
    """Return whether a key has keys below it."""
    return any(each.dest.startswith(f"{dest}.") for each in parser._actions if not each.dest.endswith(".help"))


class _Comparison:
    """Compares one layer of settings after another with what can be set.

    Args:
        parser: What can be set.
    """

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self._chosen: dict[str, tuple[Any, int]] = {}
        self._places: dict[str, str] = {}
        self._given: set[str] = set()
        self._file = ""

    def of_layer(self, layer: Layer) -> Iterator[str]:
        """Yield the mistakes of a layer, the first of which is certain."""
        self._file = layer.file
        if isinstance(layer.node, yaml.MappingNode):
            yield from self._keys(layer.node, "", self._parser, "", None)
        if layer.problem:
            yield layer.problem

    def absent(self) -> Iterator[str]:
        """Yield the options that a class needs and no layer has."""
        for path, where in self._places.items():
            made, skipped = self._chosen.get(path, (None, 0))
            parser = None if made is None else _parser_of(made, skipped)
            for action in () if parser is None else parser._actions:
                if action.required and not any(f"{path}.{action.dest}" == given for given in self._given):
                    yield f"{where}{_shown(path)}: {_name(made)} needs the option {action.dest!r}"

    def _keys(self, node: Any, path: str, parser: Any, prefix: str, owner: Any) -> Iterator[str]:
        """Compare the keys of a mapping with the options of a parser.

        Args:
            node: The mapping.
            path: Dotted key of the mapping.
            parser: Parser of a class's options, or of the subcommand's.
            prefix: Beginning of the names of those of the parser's options that belong here.
            owner: The class whose options they are; None for the subcommand.
        """
        for key, value in node.value:
            name = str(key.value).rstrip("+")
            own = f"{path}.{name}".lstrip(".")
            self._given.add(own)
            dest = prefix + name
            actions = {action.dest: action for action in parser._actions}
            if _is_section(dest, parser):
                yield from self._group(value, own, parser, f"{dest}.", owner)
            elif (action := parser._option_string_actions.get(f"--{dest}", actions.get(dest))) is not None:
                hint = getattr(action, "_typehint", None)
                if hint is not None:
                    appended = str(key.value).endswith("+")
                    if not self._file and not appended and _needs_list(hint, value):
                        yield f"{_shown(own)}: expected a list; to add to it, write --{own}+={value.value}"
                    shape = shape_of(hint, appended or not self._file)
                    several = action.nargs is not None and isinstance(value, yaml.SequenceNode)
                    for each in value.value if several else [value]:
                        yield from self._value(each, own, shape, action.default)
            elif owner is not None:
                valid = sorted({each.partition(".")[0] for each in actions if each != "help"})
                hint = closest(name, valid) or (f"; it has {', '.join(valid)}" if valid else "; it has none")
                yield (
                    f"{place(self._file, key)}{_shown(path)}: there is no option {name!r} of {_name(owner)}"
                    f"{hint if valid else ''}"
                )
            else:
                yield f"{place(self._file, key)}there is no key {own!r}{self._near(own, parser)}"

    def _group(self, node: Any, path: str, parser: Any, prefix: str, owner: Any) -> Iterator[str]:
        if isinstance(node, yaml.MappingNode):
            yield from self._keys(node, path, parser, prefix, owner)
        elif _names_file(node):
            yield from self._in_file(node, lambda tree: self._group(tree, path, parser, prefix, owner))
        elif isinstance(node, yaml.SequenceNode) or node.value not in ("", "null", "~"):
            yield f"{place(self._file, node)}{_shown(path)}: expected keys, found {kind_of(node)}"
        else:
            yield f"{place(self._file, node)}{_shown(path)}: {_NOTHING_BELOW}"

    def _in_file(self, node: Any, compare: Any) -> Iterator[str]:
        """Compare what stands in a file that a setting names."""
        outer, self._file = self._file, str(Path(self._file).parent / node.value if self._file else node.value)
        try:
            tree = config_tree(self._file)
        except UsageError as error:
            yield str(error)
        else:
            yield from () if tree is None else compare(tree)
        self._file = outer

    def _value(self, node: Any, path: str, shape: Shape, default: Any = None) -> Iterator[str]:
        """Compare a value with the type that an option has."""
        if shape.anything:
            return
        if isinstance(node, yaml.MappingNode) and shape.parts:
            yield from self._part(node, path, shape, default)
        elif isinstance(node, yaml.MappingNode) and shape.values is not None:
            for key, value in node.value:
                yield from self._value(value, f"{path}.{key.value}", shape_of(shape.values))
        elif isinstance(node, yaml.SequenceNode) and shape.items is not None and shape.items.parts:
            for number, item in enumerate(node.value):
                yield from self._value(item, f"{path}[{number}]", shape.items)
        elif isinstance(node, yaml.ScalarNode) and shape.parts and _names_file(node):
            yield from self._in_file(node, lambda tree: self._value(tree, path, shape, default))
        elif isinstance(node, yaml.ScalarNode) and shape.parts and not _plain(node, shape):
            yield from self._part(node, path, shape, default)
        elif "${" not in str(node.value) and not accepts(shape.hint, _plain_value(node)):
            found = _found_value(node, shape)
            yield f"{place(self._file, node)}{_shown(path)}: expected {readable(shape.hint)}, got {found}"

    def _part(self, node: Any, path: str, shape: Shape, default: Any) -> Iterator[str]:
        """Compare a class with those that fit, and its options with those that it has."""
        keys = {str(key.value): value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
        name = keys.get("class_path", node if isinstance(node, yaml.ScalarNode) else None)
        if name is not None:
            found = _found(str(name.value), shape)
            if isinstance(found, str) and isinstance(node, yaml.ScalarNode) and not _means_class(node, shape):
                found = f"expected {readable(shape.hint)}, got {node.value!r}"
            if isinstance(found, str):
                yield f"{place(self._file, name)}{_shown(path)}: {found}"
                return
            self._choose(path, found, place(self._file, name))
        chosen = self._chosen.get(path) or _default(default, shape)
        parser = None if chosen is None else _parser_of(*chosen)
        if chosen is None or parser is None or isinstance(node, yaml.ScalarNode):
            return
        options = keys.get("init_args")
        if options is not None and options.tag == _NULL:
            yield f"{place(self._file, options)}{_shown(path)}.init_args: {_NOTHING_BELOW}"
        if isinstance(options, yaml.MappingNode):
            yield from self._keys(options, path, parser, "", chosen[0])
        others = [pair for pair in node.value if str(pair[0].value) not in _SPEC]
        if others and name is not None:
            key = others[0][0]
            yield f"{place(self._file, key)}{_shown(path)}: {key.value!r} belongs below init_args"
        elif others:
            yield from self._keys(yaml.MappingNode(node.tag, others), path, parser, "", chosen[0])

    def _choose(self, path: str, found: tuple[Any, int], where: str) -> None:
        if self._chosen.get(path) == found and not path.endswith("]"):
            return
        for kept in (self._chosen, self._places):
            for below in [each for each in kept if each.startswith((f"{path}.", f"{path}["))]:
                del kept[below]
        self._given = {each for each in self._given if not each.startswith(f"{path}.")}
        self._chosen[path], self._places[path] = found, where

    def _near(self, key: str, parser: Any) -> str:
        """Return a hint at the valid key that an unknown one may stand for."""
        if key.rpartition(".")[2] in _SPEC:
            return f"; what it has stands directly below {key.rpartition('.')[0]!r}" if "." in key else ""
        return did_you_mean(key, [*self._valid(parser)])

    def _valid(self, parser: Any) -> Iterator[str]:
        """Yield all keys that can be set, with the options of the classes that are chosen."""
        for action in parser._actions:
            if action.dest.endswith(".help") or (action.help == argparse.SUPPRESS and not hasattr(action, "_typehint")):
                if not action.dest.endswith(".help") and action.dest != "help":
                    yield action.dest
                continue
            yield action.dest
            hint = getattr(action, "_typehint", None)
            shape = None if hint is None else shape_of(hint)
            if shape is None or not shape.parts:
                continue
            chosen = self._chosen.get(action.dest) or _default(action.default, shape)
            own = None if chosen is None else _parser_of(*chosen)
            for each in () if own is None else own._actions:
                if each.dest != "help" and not each.dest.endswith(".help"):
                    yield f"{action.dest}.init_args.{each.dest}"


def _found(name: str, shape: Shape) -> tuple[Any, int] | str:
    """Return the class of a name and how many of its arguments are not the config's, or what is wrong with the name."""
    candidates = {each.__name__: (each, part.given) for part in shape.parts for each in fitting(part.kind)}
    expected = " or ".join(part.kind.__name__ for part in shape.parts)
    short = name.rpartition(".")[2]
    if "." not in name:
        same = sorted({path for part in shape.parts for path in namesakes(part.kind, name)})
        if len(same) > 1:
            return f"there are several classes {name!r}; write the import path of the one: {' or '.join(same)}"
        if name in candidates:
            return candidates[name]
        hint = closest(name, sorted(candidates), 0.7) or _choice(candidates)
        return f"there is no class {name!r}{hint}"
    try:
        found = pkgutil.resolve_name(current_path(name))
    except AttributeError:
        return f"there is no class {name!r}{closest(short, sorted(candidates), 0.7)}"
    except Exception as error:
        return f"{name!r} cannot be imported ({one_line(error)}){closest(short, sorted(candidates), 0.7, same=True)}"
    for part in shape.parts:
        if part.takes(found):
            return found, part.given
    return f"{name!r} is not a kind of {expected}{closest(short, sorted(candidates), 0.7)}"


def _choice(candidates: dict[str, Any]) -> str:
    return f"; choose from {', '.join(sorted(candidates))}" if 0 < len(candidates) <= 30 else ""


def _default(default: Any, shape: Shape) -> tuple[Any, int] | None:
    """Return the class that is built where a config names none."""
    name = default.get("class_path") if hasattr(default, "get") else None
    if name is not None:
        found = _found(str(name), shape)
        return None if isinstance(found, str) else found
    alone: list[Made] = [part for part in shape.parts if not inspect.isabstract(part.kind)]
    return (alone[0].kind, alone[0].given) if len(shape.parts) == 1 and alone else None


_parsers: dict[tuple[Any, int], Any] = {}


def _parser_of(made: Any, skipped: int) -> Any:
    """Return a parser of the options of a class or function; None if they cannot be known.

    Args:
        made: The class or function.
        skipped: How many of its first arguments the program passes.
    """
    if (made, skipped) not in _parsers:
        parser = ArgumentParser(exit_on_error=False)
        skip: Any = {skipped} if skipped else None
        try:
            if inspect.isclass(made):
                parser.add_class_arguments(made, skip=skip)
            else:
                parser.add_function_arguments(made, skip=skip)
        except (ValueError, TypeError):
            parser = None  # type: ignore[assignment]
        _parsers[made, skipped] = parser
    return _parsers[made, skipped]


def _names_file(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and str(node.value).endswith(_FILES)


def _means_class(node: Any, shape: Shape) -> bool:
    """Return whether a text that is no value of the type can only be meant for a class."""
    if "." in node.value or shape.without_parts in (None, type(None)):
        return True
    return bool(closest(node.value, [each.__name__ for part in shape.parts for each in fitting(part.kind)], 0.7))


def _plain(node: Any, shape: Shape) -> bool:
    """Return whether a scalar is a value of the type as it stands, and no class."""
    return accepts(shape.without_parts, _plain_value(node))


def _needs_list(hint: Any, node: Any) -> bool:
    """Return whether a value names a class where only a list of such can stand."""
    shape = shape_of(hint)
    names_class = isinstance(node, yaml.ScalarNode) and node.tag != _NULL and not _names_file(node)
    return names_class and shape.items is not None and bool(shape.items.parts) and not shape.parts


def _found_value(node: Any, shape: Shape) -> str:
    """Return what stands where a value does not fit, with what is wrong with it where that is not seen at once."""
    if isinstance(node, yaml.SequenceNode) and shape.items is not None and not shape.items.anything:
        wrong = [each for each in node.value if not accepts(shape.items.hint, _plain_value(each))]
        return f"a list with {kind_of(wrong[0])}" if wrong else kind_of(node)
    if isinstance(node, yaml.ScalarNode) and node.value and accepts(shape.hint, node.value):
        return f"{node.value}, which YAML does not read as text; put it in quotes"
    return "nothing" if node.value == "" and node.tag == _NULL else kind_of(node)


def _plain_value(node: Any) -> Any:
    if node.tag == _NULL or node.value == "":
        return None if node.tag == _NULL else ""
    try:
        return get_loader("yaml")(yaml.serialize(node))
    except yaml_text.YamlError:  # not what it is marked as
        return node.value


def _shown(path: str) -> str:
    return path.partition("[")[0] + path.rpartition("]")[2] if "[" in path else path


def _name(made: Any) -> str:
    return str(getattr(made, "__name__", made))
