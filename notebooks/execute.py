"""Run notebooks whole, each in a kernel of its own; with ``--store``, keep what they show.

    python notebooks/execute.py --jobs 2            # all of them, as CI does
    python notebooks/execute.py --store 03_method   # after a change: into the notebook and its translations

Needs ``pip install -e '.[test]'``.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb") if "." not in path.stem)
"""Names of the notebooks; translations have the code of their originals (``tests/test_translations.py``)."""


def execute(name: str) -> Any:
    """Return the notebook with what its cells show now.

    Args:
        name: Its name without ``.ipynb``.

    Raises:
        CellExecutionError: A cell failed, or took longer than ten minutes.
    """
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    about = dict(notebook.metadata)
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources, record_timing=False).execute()
    # Without the version of this Python, on which nothing in the notebook depends.
    notebook.metadata = nbformat.from_dict(about)
    # The temporary folder has another name each time.
    for output in (output for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output):
        output.text = re.sub(rf"{re.escape(tempfile.gettempdir())}/\w+", "...", output.text)
    return notebook


def store(name: str, executed: Any) -> None:
    """Write the outputs into the notebook and its translations."""
    for path in sorted(FOLDER.glob(f"{name}*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell, shown in zip(notebook.cells, executed.cells, strict=True):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = shown.outputs, shown.execution_count
        nbformat.write(notebook, path)


def measured(name: str) -> tuple[Any, str]:
    """Return the executed notebook, and how long it took."""
    start, before = time.perf_counter(), _cpu_seconds()
    executed = execute(name)
    seconds, used = time.perf_counter() - start, _cpu_seconds() - before
    return executed, f"{seconds:.0f} s, {used:.0f} s of processors"


def main() -> None:
    """Run the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks, without .ipynb; if none is named, all")
    parser.add_argument("--store", action="store_true", help="keep the outputs in the notebooks and their translations")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at a time, each with its share of the cores")
    options = parser.parse_args()
    unknown = set(options.names) - {*NAMES}
    if unknown:
        parser.error(f"there is no notebook {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if options.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // options.jobs))
    names = options.names or NAMES
    with ProcessPoolExecutor(options.jobs) as pool:
        for name, (executed, duration) in zip(names, pool.map(measured, names), strict=True):
            print(f"{name}: {duration}", flush=True)
            if options.store:
                store(name, executed)


def _cpu_seconds() -> float:
    """Return the time of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
