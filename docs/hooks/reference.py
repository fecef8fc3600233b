"""The reference: pages about every key, part, command, figure and public name, written from the code."""

from __future__ import annotations

import functools
import inspect
import posixpath
import re
from collections.abc import Iterable
from typing import Any

from mkdocs.structure.files import File, Files
from parsers import (
    Option,
    options_of,
    options_of_class,
    own_classes,
    subcommand_parsers,
    summary_of,
    titles_of,
)
from torch import nn

import ocrnet_pl
from ocrnet_pl.cli import exit_codes
from ocrnet_pl.cli.option_types import Made, fitting
from ocrnet_pl.cli.subcommands import OWN, SUBCOMMANDS
from ocrnet_pl.metrics.base import Metric
from ocrnet_pl.metrics.figures import FIGURES, FUSED, Figure, Place

KEYS, PARTS, API = "reference/keys/", "reference/parts/", "reference/api/"
INDEX = "index.md"
COMMANDS, FIGURE_NAMES = "reference/commands.md", "reference/figures.md"

_ROLE = re.compile(r":(?:\w+:)?\w+:`~?([^`<]*?)`")
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_PLACES = {Place.TABLE: "tables", Place.CURVES: "curves", Place.LOG: "log lines", Place.BAR: "progress bar"}


def on_config(config: Any) -> Any:
    """Put the pages that are written here below their entries of the navigation, and the version below each page."""
    below = {
        f"{folder}{INDEX}": [page for page in _pages() if page.startswith(folder)] for folder in (KEYS, PARTS, API)
    }

    def expanded(entries: list[Any]) -> list[Any]:
        found: list[Any] = []
        for entry in entries:
            title, value = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
            if isinstance(value, list):
                found.append({title: expanded(value)})
            elif value in below:
                found.append({title: below[value]})
            else:
                found.append(entry)
        return found

    config.nav = expanded(config.nav)
    config.copyright = f"Version {ocrnet_pl.__version__}"
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for path, text in _pages().items():
        files.append(File.generated(config, path, content=text))
    return files


@functools.cache
def _pages() -> dict[str, str]:
    """Return the text of each page by its path."""
    parsers = subcommand_parsers()
    options = list(options_of(parsers["fit"]))
    kinds = _kinds(options)
    return {
        COMMANDS: _commands(parsers),
        **_keys(options, titles_of(parsers["fit"]), kinds),
        **_part_pages(options, kinds),
        FIGURE_NAMES: _figures(),
        **_api(),
    }


def _prose(text: str) -> str:
    """Return a docstring's text as Markdown: in code as it is, elsewhere without meaning for Markdown."""
    text = _ROLE.sub(r"`\1`", text)
    text = re.sub(r"^\s*\.\. \w+::\s*", "", text, flags=re.MULTILINE)
    text = " ".join(text.split())
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [re.sub(r"([*_\[\]<>|{}])", r"\\\1", text[end : code.start()]), f"`{code[2]}`"]
        end = code.end()
    return "".join([*parts, re.sub(r"([*_\[\]<>|{}])", r"\\\1", text[end:])])


def _value(option: Option, kinds: dict[type, Made], here: str) -> str:
    """Return what an option takes and its default."""
    up = "../" * here.count("/")
    links = [f"[{made.kind.__name__}]({up}{_page_of(made.kind)})" for made in option.parts if made.kind in kinds]
    choice = f"; classes: {', '.join(dict.fromkeys(links))}" if links else ""
    default = "required" if option.default is None else f"default `{option.default}`"
    return f"`{option.kind}`, {default}{choice}"


def _kinds(options: Iterable[Option]) -> dict[type, Made]:
    """Return the kinds of parts with classes of the package, in the order in which options lead to them."""
    found: dict[type, Made] = {}
    pending = [made for option in options for made in option.parts]
    while pending:
        made = pending.pop(0)
        # Of torch's own base class nearly everything is a kind.
        if made.kind is nn.Module or made.kind in found or not own_classes(made):
            continue
        found[made.kind] = made
        for kind in own_classes(made):
            pending += [below for option in options_of_class(made, kind) for below in option.parts]
    return found


def _page_of(kind: type) -> str:
    return f"{PARTS}{kind.__name__}.md"


def _keys(options: list[Option], titles: dict[str, str], kinds: dict[type, Made]) -> dict[str, str]:
    """Return a page about the keys of each section, and the list of the sections."""
    sections: dict[str, list[Option]] = {}
    for option in options:
        sections.setdefault(option.name.partition(".")[0] if "." in option.name else "run", []).append(option)
    head = [
        "# Config keys",
        "",
        "Every key of a config, which is also an option of the command line: `--KEY VALUE`.",
        "",
    ]
    pages = {}
    for section, members in sorted(sections.items(), key=lambda each: each[0] != "run"):
        title = "The run" if section == "run" else f"`{section}`"
        about = titles.get(section, "Keys without a section.") if section != "run" else "Keys that stand at the top."
        here = f"{KEYS}{section}.md"
        lines = [f"# {title}", "", f"{_prose(about).rstrip('.')}.", ""]
        for option in members:
            lines += [f"## `{option.name}` {{ #{option.name} }}", "", _prose(option.meaning), ""]
            lines += [_value(option, kinds, here), ""]
        pages[here] = "\n".join(lines)
        head += [f"- [{title}]({posixpath.basename(here)}): {_prose(about).rstrip('.')}."]
    return {f"{KEYS}{INDEX}": "\n".join(head), **pages}


def _part_pages(options: list[Option], kinds: dict[type, Made]) -> dict[str, str]:
    """Return a page about the classes of each kind, and the list of the kinds."""
    users: dict[type, list[str]] = {}
    for option in options:
        for made in option.parts:
            users.setdefault(made.kind, []).append(f"`{option.name}`")
    for made in kinds.values():
        for kind in own_classes(made):
            for option in options_of_class(made, kind):
                for below in option.parts:
                    users.setdefault(below.kind, []).append(f"`{option.name}` of `{kind.__name__}`")
    head = [
        "# Parts",
        "",
        "What a config chooses by `class_path`, with the options of each for `init_args`. A class of your own is named "
        "by its import path.",
        "",
    ]
    pages = {}
    for base, made in sorted(kinds.items(), key=lambda each: each[0].__name__):
        here = _page_of(base)
        chosen = ", ".join(dict.fromkeys(users.get(base, [])))
        lines = [f"# {base.__name__}", "", _prose(summary_of(base)), "", f"Chosen by: {chosen}.", ""]
        for kind in own_classes(made):
            lines += [f"## `{kind.__name__}` {{ #{kind.__name__} }}", "", _prose(summary_of(kind)), ""]
            for option in options_of_class(made, kind):
                lines += [f"- **`{option.name}`** ({_value(option, kinds, here)}): {_prose(option.meaning)}"]
            lines += [""]
        others = sorted({each.__name__ for each in fitting(base) if not each.__module__.startswith("ocrnet_pl.")})
        if others:
            lines += [f"Of libraries, with options of their own: {', '.join(f'`{name}`' for name in others)}.", ""]
        pages[here] = "\n".join(lines)
        head += [f"- [{base.__name__}]({posixpath.basename(here)}): {_prose(summary_of(base))}"]
    return {f"{PARTS}{INDEX}": "\n".join(head), **pages}


def _commands(parsers: dict[str, Any]) -> str:
    """Return the page about the subcommands."""
    lines = [
        "# Options of commands",
        "",
        "[Commands](../commands.md) has all of them at a glance.",
        "",
        "```",
        "ocrnet SUBCOMMAND --config FILE [--config FILE ...] [--KEY VALUE ...]",
        "```",
        "",
        "`python train.py` in a clone and `python -m ocrnet_pl` are the same command line. `--config` takes a YAML "
        "file or the name of one in `configs/`; a later one overrides an earlier one. Every subcommand also takes "
        "every [key of the config](keys/index.md) as an option, `--print_config`, which prints the whole "
        "configuration, and `--help`.",
        "",
    ]
    shared = {option.name for option in options_of(parsers["fit"])}
    of_fit = ("ckpt_path", "init_from", "init_map", "init_keep")
    for name, text in SUBCOMMANDS.items():
        lines += [f"## `{name}` {{ #{name} }}", "", f"{text[0].upper()}{text[1:]}.", ""]
        command = OWN.get(name)
        options = {option.name: option for option in options_of(parsers[name])}
        taken = [options[each] for each in options if each not in shared or each in of_fit]
        if command is not None and not command.needs_checkpoint:
            taken = [option for option in taken if option.name != "ckpt_path"]
        positional = {action.dest for action in parsers[name]._actions if not action.option_strings}
        for option in taken:
            flag = option.name.upper() if option.name in positional else f"--{option.name}"
            lines += [f"- **`{flag}`** ({_value(option, {}, COMMANDS)}): {_prose(option.meaning)}"]
        lines += [""]
    lines += ["## Exit statuses", "", "| status | meaning |", "|---|---|", "| 0 | Everything was done. |"]
    source = inspect.getsource(exit_codes)
    for number, text in re.findall(r'^EXIT_\w+ = (\d+)\n"""(.*?)"""', source, re.MULTILINE | re.DOTALL):
        lines += [f"| {number} | {_prose(text)} |"]
    return "\n".join(lines)


def _figures() -> str:
    """Return the page about the figures of an evaluation."""
    lines = [
        "# Logged figures",
        "",
        f"Validation logs them below `val/`, testing below `test/`; after fusion, `{FUSED}` stands before the name. "
        "`metrics.csv` and `summary.json` hold all of them. [What a run writes](../runs.md#figures) says how they are "
        "computed, and what training logs.",
        "",
        "| name | title | better | shown in |",
        "|---|---|---|---|",
        *map(_row, FIGURES),
        "",
        "## Of metrics that a config adds",
        "",
        "| name | title | better | shown in |",
        "|---|---|---|---|",
    ]
    for kind in own_classes(Made(Metric)):
        own = getattr(kind, "figures", ())
        lines += [_row(figure) for figure in own if isinstance(own, tuple) and figure not in FIGURES]
    return "\n".join(lines)


def _row(figure: Figure) -> str:
    name = f"{figure.name}/<category>" if figure.per_class else figure.name
    shown = ", ".join(text for place, text in _PLACES.items() if place in figure.places)
    return f"| `{name}` | {figure.title} | {'higher' if figure.higher_is_better else 'lower'} | {shown} |"


def _api() -> dict[str, str]:
    """Return a page about the public names of each room, and the list of the names."""
    head = ["# Python", "", "Names that `ocrnet_pl` exports; everything else may change without notice.", ""]
    rooms: dict[str, list[str]] = {}
    for module, names in ocrnet_pl._MODULES.items():
        rooms.setdefault(module.partition(".")[0], []).extend(names)
    pages = {}
    for room, names in sorted(rooms.items()):
        here = f"{API}{room}.md"
        lines = [f"# {room}", ""]
        for name in names:
            lines += [f"::: ocrnet_pl.{name}", *_with_inherited(getattr(ocrnet_pl, name)), ""]
        pages[here] = "\n".join(lines)
        links = ", ".join(f"[`{name}`]({posixpath.basename(here)}#ocrnet_pl.{name})" for name in names)
        head += [f"- **{room}**: {links}"]
    return {f"{API}{INDEX}": "\n".join(head), **pages}


def _with_inherited(found: Any) -> list[str]:
    """Return the option by which a class's entry has what it inherits from classes without an entry of their own."""
    bases = inspect.getmro(found)[1:] if inspect.isclass(found) else ()
    own = [
        base for base in bases if base.__module__.startswith("ocrnet_pl.") and base.__name__ not in ocrnet_pl.__all__
    ]
    names = [name for base in own for name in vars(base) if not name.startswith("_")]
    return ["    options:", f"      inherited_members: {names}"] if names else []
