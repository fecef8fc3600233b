"""Lists of images, such as those in the folder ``ImageSets`` of Pascal VOC: one name per line, without ending."""

from __future__ import annotations

import os
from os import PathLike

from ocrnet_pl.data.readers.file_names import with_nearest
from ocrnet_pl.data.readers.folder_index import StemIndex
from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import read_text


def read_image_list(path: str | PathLike[str], found: StemIndex) -> list[str]:
    """Return the names of the images in a list, without endings and in its order.

    Args:
        path: Path of the list.
        found: The images that there are.

    Raises:
        DataError: The list is missing or empty, or a name in it leads out of the folder, has no image, or is there
            twice.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(read_text(path, "list").splitlines(), 1):
        if not line.strip():
            continue
        listed = _listed(line.strip(), found)
        if listed is None:
            name = line.split()[0]
            if os.path.basename(name) != name or name == os.pardir:
                problem, advice = f"{name!r} leads out of the folder {found.root}", "write names"
            else:
                nearest = found.finder.nearest(line.strip())
                problem = with_nearest(f"there is no image {line.strip()!r:.200} in {found.root}", nearest)
                advice = "write names without ending, or check the folder"
            raise DataError.at(path, problem, field=f"line {number}", advice=advice)
        if listed in seen:
            raise DataError.at(path, f"{listed!r} is already in line {seen[listed]}", field=f"line {number}")
        seen[listed] = number
    if not seen:
        raise DataError.at(path, "the list is empty", advice="write one image name per line")
    return list(seen)


def _listed(line: str, found: StemIndex) -> str | None:
    """Return the image that a line of a list names, with or without ending and folder; None if there is none.

    The lists of single classes have a second column, and names may have blanks.
    """
    for name in (line, line.rsplit(None, 1)[0], line.split()[0]):
        for stem in (name, os.path.splitext(name)[0]):
            known = found.finder.find(stem)
            if known is not None:
                return known
    return None
