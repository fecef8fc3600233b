from __future__ import annotations

import nbformat
from nbclient import NotebookClient

from tests.helpers.project import ROOT


def test_the_quickstart_notebook_runs(tmp_path) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "01_quickstart.ipynb", as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"""
runs = Path({str(tmp_path)!r})
options = [
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--data.num_workers=0",
]
"""
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    run = tmp_path / "notebook" / "version_0"
    assert (run / "my_prediction.png").stat().st_size > 1000
    assert any("raw" in out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
