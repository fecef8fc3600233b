"""Walking through folders: links to folders are followed, and each folder is visited once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import PathLike

from ocrnet_pl.errors import DataError


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
        error.filename, f"the folder cannot be listed ({error.strerror})", advice="check its permissions"
    ) from error
