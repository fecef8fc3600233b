"""Each snippet of the page on Python runs as it stands there, one after the other in one folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import ocrnet_pl
from ocrnet_pl import OCRNet, write_png
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from tests.helpers.project import ROOT

TEXT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(EXAMPLES[name], f"docs/python.md: {name}", "exec"), names)
    return names


def test_the_page_has_these_snippets_and_no_other_and_the_readme_names_it() -> None:
    assert list(EXAMPLES) == ["trainer", "loop", "notebook"]
    assert TEXT.count("```python") == len(EXAMPLES)
    assert "docs/python.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_trainer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("trainer", folder, monkeypatch)
    assert names["trainer"].callback_metrics["val/score"] >= 0
    assert names["network"].neck.channels == [32] * len(names["network"].neck.channels)


def test_a_loop_of_ones_own_then_a_notebook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = run("loop", folder, monkeypatch)["network"].eval()
    assert {"model.safetensors", "network.json"} == {path.name for path in (folder / "scenes").iterdir()}
    assert json.loads((folder / "scenes" / "network.json").read_text())["input_size"] == [64, 64]
    image = SyntheticSource(length=1, seed=3, size=64)[0].image
    write_png(image, folder / "photo.png")
    names = run("notebook", folder, monkeypatch)
    assert isinstance(names["network"], OCRNet) and (folder / "drawn.png").stat().st_size > 100
    expected = network.predict(image)[0]
    for name in ("boxes", "scores", "labels", "semantic", "panoptic"):
        assert torch.equal(getattr(names["prediction"], name), getattr(expected, name)), name


def test_every_name_of_the_package_can_be_imported() -> None:
    for name in ocrnet_pl.__all__:
        assert getattr(ocrnet_pl, name) is not None
