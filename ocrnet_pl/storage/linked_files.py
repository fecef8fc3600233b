"""One file under two names, which takes no extra space where the file system has hard links."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ocrnet_pl.storage.files import complete_file


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that is never changed a second name; copy it where links are not possible.

    Args:
        source: The file.
        target: The other name. It appears only when the file is complete.

    Raises:
        OSError: The source cannot be read, or the target cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        # Another file system, or one without links.
        with complete_file(target, durable=True) as unfinished:
            shutil.copyfile(source, unfinished)
