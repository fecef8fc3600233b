"""Walking through folders, and finding images: links to folders are followed, and each folder is visited once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from ocrnet_pl.errors import DataError, advice_on
from ocrnet_pl.imaging.films import SUFFIXES as FILM_SUFFIXES
from ocrnet_pl.imaging.images import check_image


class FoundImages(NamedTuple):
    """What a folder contains.

    Attributes:
        paths: The images by name.
        skipped: Path and reason of each file that is not an image.
    """

    paths: list[Path]
    skipped: list[tuple[str, str]]


def require_images(path: str | PathLike[str]) -> None:
    """Raise an error if there is no readable image; it looks no further than the first one.

    Args:
        path: Path of a folder or file.

    Raises:
        DataError: There is nothing, a folder cannot be listed, or there is no image in it.
    """
    if not any(_refusal(file) is None for file in _files(_existing(path))):
        # It says why.
        find_images(path)


def find_images(path: str | PathLike[str]) -> FoundImages:
    """Return the images of a folder and its subfolders, or one image; names that begin with a dot are left out.

    Every other file is expected to be an image. Only the headers are read: a file may turn out to be broken later.

    Args:
        path: Path of a folder or file.

    Raises:
        DataError: There is nothing, a folder cannot be listed, or there is no image in it.
    """
    root = _existing(path)
    found = FoundImages([], [])
    for file in sorted(_files(root)):
        reason = _refusal(file)
        if reason is None:
            found.paths.append(file)
        else:
            found.skipped.append((str(file), reason))
    if not found.paths:
        if not root.is_dir():
            raise DataError.at(root, found.skipped[0][1])
        films = sum(path.lower().endswith(FILM_SUFFIXES) for path, _ in found.skipped)
        advice = "give each film to the command `film`" if films else "give a folder of image files"
        raise DataError.at(root, "there is no readable image", advice=advice)
    return found


def _existing(path: str | PathLike[str]) -> Path:
    """Return a path, with the home folder for a tilde, if something is there."""
    root = Path(path).expanduser()
    if not root.exists():
        raise DataError.at(path, "there is no such folder or image", advice="check the path")
    return root


def _files(root: Path) -> Iterator[Path]:
    """Yield the files below a folder whose names do not begin with a dot, or one file."""
    if not root.is_dir():
        yield root
        return
    for folder, names in walk_folders(root):
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _refusal(file: Path) -> str | None:
    """Return why a file is no readable image; None if it is one."""
    try:
        check_image(file)
    except DataError as error:
        if file.name.lower().endswith(FILM_SUFFIXES):
            return "it is a film, on which the command `film` predicts"
        return str(error).removeprefix(f"{file}: ")
    return None


def walk_folders(root: str | PathLike[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and all folders below it, except those that begin with a dot, with the names in them.

    If links lead to a folder by several paths, the folder is yielded only once, under its own path where that is below
    the root. So circular links do no harm.

    Args:
        root: The folder to start at.

    Yields:
        A folder's path, starting with the root, and the names in it that are not folders.

    Raises:
        DataError: A folder cannot be listed.
    """
    seen: set[tuple[int, int]] = set()
    starts = [os.fspath(root)]
    while starts:
        links: list[str] = []
        for start in starts:
            for folder, below, names in os.walk(start, onerror=_refuse):
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in seen:
                    below.clear()
                    continue
                seen.add((status.st_dev, status.st_ino))
                below[:] = sorted(name for name in below if not name.startswith("."))
                links += [path for name in below if os.path.islink(path := os.path.join(folder, name))]
                yield folder, names
        starts = links


def _refuse(error: OSError) -> None:
    raise DataError.at(
        error.filename, f"the folder cannot be listed ({error.strerror})", advice=advice_on(error, "check the path")
    ) from error
