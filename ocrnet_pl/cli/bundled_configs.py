"""The project's own configs by name: ``--config quickstart`` finds them from any folder."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def bundled_folder() -> Path:
    """Return the folder of the configs: the package's own where it is installed, that beside it in a clone."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def bundled_names() -> list[str]:
    """Return the names of all configs, such as ``overlays/decoders/unet``."""
    folder = bundled_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def found_config(name: str) -> str:
    """Return the file that ``--config`` means.

    Args:
        name: A file, which always comes first, or a bundled config with or without ``.yaml``.
    """
    bundled = name.removesuffix(".yaml")
    if os.path.exists(name) or bundled not in bundled_names():
        return name
    return str(bundled_folder() / f"{bundled}.yaml")


def with_found_configs(words: list[str]) -> list[str]:
    """Return a command line with the file of each bundled config in the place of its name."""
    found, is_config = [], False
    for word in words:
        option, equals, value = word.partition("=")
        if is_config:
            word = found_config(word)
        elif option == "--config" and equals:
            word = f"--config={found_config(value)}"
        is_config = word in ("--config", "-c")
        found.append(word)
    return found


def similar_config(name: str) -> str | None:
    """Return the config whose name is like that of a file that does not exist: beside it, or else a bundled one."""
    path = Path(name)
    beside = {each.name: str(path.parent / each.name) for each in path.parent.glob("*.yaml")}
    bundled = {each.rpartition("/")[2]: each for each in reversed(bundled_names())}
    whole = {each: each for each in bundled_names()}
    for names, asked in ((beside, path.name), (whole, name.removesuffix(".yaml")), (bundled, path.stem)):
        near = difflib.get_close_matches(asked, list(names), n=1, cutoff=0.5 if names is beside else 0.7)
        if near:
            return names[near[0]]
    return None
