"""Configs name classes and data of the current folder, wherever they stand themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ocrnet_pl.cli.main import main
from tests.helpers.project import ROOT

PARTS = """
from pathlib import Path

from ocrnet_pl.data.sources.synthetic import SyntheticSource


class Scenes(SyntheticSource):
    def __init__(self, root: str = ".") -> None:
        if not (Path(root) / "images").is_dir():
            raise FileNotFoundError(f"there are no images in {Path(root).absolute()}")
        super().__init__(length=2, seed=1, size=64)
"""


@pytest.mark.parametrize("first", ["", str(ROOT), "here"], ids=["python -c", "train.py elsewhere", "python -m"])
def test_parts_and_data_are_found_from_the_current_folder(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = tmp_path / "some" / "folder"
    configs.mkdir(parents=True)
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "my_scenes.py").write_text(PARTS)
    (configs / "my_scenes.py").write_text("raise ImportError('this is the folder of the config')")
    (configs / "c.yaml").write_text("data: {train: {class_path: my_scenes.Scenes}, root: data}")
    monkeypatch.chdir(tmp_path)
    path = [str(tmp_path) if first == "here" else first, *(entry for entry in sys.path if entry)]
    monkeypatch.setattr(sys, "path", list(path))
    monkeypatch.delitem(sys.modules, "my_scenes", raising=False)
    main(["check", "--config", "some/folder/c.yaml", "--output", "checked"])
    assert list((tmp_path / "checked").iterdir())
    assert sys.path == path
    monkeypatch.delitem(sys.modules, "my_scenes")


def test_a_folder_that_is_gone_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as stop:
        main(["check"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: the current folder does not exist any more; change to another one\n"
