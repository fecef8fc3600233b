"""The notebooks: the quick start cell by cell, and what is stored in all; ``notebooks/execute.py`` runs them whole."""

from __future__ import annotations

import ast
import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

import ocrnet_pl
from tests.helpers.processes import in_a_process
from tests.helpers.project import ROOT

NOTEBOOKS = ROOT / "notebooks"
TRANSLATED = ("03_method.zh-CN",)
"""Translations, whose code and outputs are those of the originals (tests/test_translations.py)."""
_LARGEST = 1_000_000
"""Number of bytes of a notebook that still opens quickly, and that a page of the site may have."""


def shortened(runs: Path) -> Any:
    """Return the notebook with parameters of a short run."""
    notebook = nbformat.read(ROOT / "notebooks" / "01_quickstart.ipynb", as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"""
runs = Path({str(runs)!r})
options = [
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--data.num_workers=0",
    "--data.size=64",
    "--model.encoder.init_args.name=test_resnet",
]
"""
    return notebook


def check(runs: Path) -> None:
    run = runs / "notebook" / "version_0"
    assert (run / "my_prediction.png").stat().st_size > 1000


@pytest.fixture
def log_levels() -> Iterator[None]:
    """Give Lightning's loggers their levels back, which the notebook changes."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


@pytest.mark.usefixtures("log_levels")
def test_the_cells_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a kernel, and with the training in a fork of this process."""
    monkeypatch.chdir(ROOT / "notebooks")

    def run(words: list[str]) -> None:
        assert in_a_process(words) == 0

    monkeypatch.setattr(ocrnet_pl, "main", run)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in shortened(tmp_path).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    check(tmp_path)
    assert "map      raw 0." in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_every_cell_parses_and_what_it_imports_exists(name: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert [each.name for each in node.names if not hasattr(module, each.name)] == []
            elif isinstance(node, ast.Import):
                for each in node.names:
                    importlib.import_module(each.name)


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_the_stored_outputs_are_those_of_one_whole_run(name: str) -> None:
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [out for cell in code for out in cell.outputs]
    assert [out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"] == []
    for cell in code:
        assert ("plt.show()" in cell.source) <= any("image/jpeg" in out.get("data", {}) for out in cell.outputs)
    assert path.stat().st_size < _LARGEST


def test_all_notebooks_are_executed_and_their_outputs_go_into_translations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("execute", NOTEBOOKS / "execute.py")
    assert spec is not None and spec.loader is not None
    execute = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(execute)
    assert {*execute.NAMES, *TRANSLATED} == {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    monkeypatch.setattr(execute, "FOLDER", tmp_path)
    for name, text in (("one", "A text."), ("one.zh-CN", "文字。"), ("two", "Another.")):
        cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("1 + 1")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    executed = nbformat.read(tmp_path / "one.ipynb", as_version=4)
    executed.cells[1].update(execution_count=1, outputs=[nbformat.v4.new_output("stream", text="2")])
    execute.store("one", executed)
    stored = {path.stem: nbformat.read(path, as_version=4).cells for path in tmp_path.glob("*.ipynb")}
    assert [len(stored[name][1].outputs) for name in ("one", "one.zh-CN", "two")] == [1, 1, 0]
    assert stored["one.zh-CN"][0].source == "文字。" and stored["one.zh-CN"][1].execution_count == 1
