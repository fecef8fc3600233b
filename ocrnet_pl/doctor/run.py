"""A whole check of the data: every split examined, then the report, the page and the corrected copy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from torch import get_num_threads, set_num_threads

from ocrnet_pl.doctor.check import check
from ocrnet_pl.doctor.findings import FindingLog, Level
from ocrnet_pl.doctor.result import Recipe
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.storage.files import complete_file


def run_check(
    recipes: Mapping[str, Recipe],
    *,
    output: Path,
    fix: Path | None,
    limit: int | None,
    input_size: Size,
    workers: int,
    title: str,
    object_limit: Callable[[Size], int] | None = None,
    widest: float | None = None,
) -> int:
    """Check the data, print and write the report, and write the corrected copy if requested.

    Args:
        recipes: How to make the source of each split.
        output: Folder of the report: ``check.html`` and ``findings.csv``, which replace those of an earlier check.
        fix: Folder for the corrected copy, which must not exist or be empty; None for no copy.
        limit: Largest number of images to examine per split; None for all.
        input_size: (height, width) of the network's input.
        workers: Number of loading processes; 0 for none.
        title: Title of the page.
        object_limit: Returns the largest number of boxes that the network returns for an image of a given size; None
            for any number.
        widest: The longest side at the input size, in pixels, that the network can give a box; None for any.

    Returns:
        The number of errors.

    Raises:
        DataError: The folder for the copy is in use, or nothing is left to write there.
    """
    from ocrnet_pl.doctor.fixing import check_target, write_copy
    from ocrnet_pl.doctor.page import write_page
    from ocrnet_pl.doctor.terminal import print_report

    if fix is not None:
        check_target(fix)
    console = Console(stderr=False)
    with ExitStack() as stack:
        # One image is too little work to share: if other programs are busy, threads mostly wait for one another.
        stack.callback(set_num_threads, get_num_threads())
        set_num_threads(1)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ocrnet_pl_check_")))
        with (
            complete_file(output / "findings.csv") as unfinished,
            unfinished.open("w", newline="", encoding="utf-8") as f,
        ):
            log = FindingLog(f)
            result = check(
                recipes,
                input_size=input_size,
                object_limit=object_limit,
                widest=widest,
                workers=workers,
                limit=limit,
                log=log,
                folder=folder,
            )
        write_page(result, output / "check.html", title)
        print_report(result, console, output)
        if fix is not None:
            write_copy(result, fix, workers, console)
        elif log.total(Level.ERROR) or log.total(Level.WARNING):
            console.print(
                "--fix FOLDER writes a corrected COCO copy there; the originals are not changed", soft_wrap=True
            )
    return log.total(Level.ERROR)
