"""The five examples of CONTRIBUTING.md are complete files, and work."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torchvision
from torch import full, uint8

from ocrnet_pl.cli import commands, subcommands
from ocrnet_pl.cli.main import main
from tests.helpers.project import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))

SHORT = """
trainer: {max_epochs: 1, limit_train_batches: 1, num_sanity_val_steps: 0}
pictures: {enabled: false}
early_stopping: {monitor: train/loss, mode: min}
"""

PARTS = """
name: parts
model:
  segmentation: {class_path: my_parts.decoder.CoarseDecoder, init_args: {width: 16}}
  segmentation_loss:
    class_path: SegmentationLoss
    init_args: {terms: [{class_path: my_parts.loss.PolyCrossEntropy, init_args: {epsilon: 2.0}}]}
  metrics: [{class_path: my_parts.metric.CountError, init_args: {score: 0.3}}]
checkpoint: {monitor: val/count_error, mode: min}
"""

FORMAT = """
name: format
model: {segmentation: null}
data:
  train: &images {class_path: my_parts.format.TextBoxes, init_args: {root: %s, classes: [cat, dog]}}
  val: *images
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package of the examples, which can be imported."""
    package = tmp_path / "my_parts"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, text in EXAMPLES.items():
        (package / f"{name}.py").write_text(text)
    (tmp_path / "short.yaml").write_text(SHORT)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_parts"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def words_of(tiny: Path, folder: Path, config: str) -> list[str]:
    (folder / "own.yaml").write_text(config)
    files = (tiny, folder / "short.yaml", folder / "own.yaml")
    return [*(f"--config={file}" for file in files), f"--trainer.default_root_dir={folder}"]


def test_there_are_five_short_ones() -> None:
    assert set(EXAMPLES) == {"decoder", "loss", "format", "metric", "command"}
    for name, text in EXAMPLES.items():
        assert len(text.splitlines()) <= 40, name


def test_decoder_loss_and_metric_train_together(parts: Path, tiny: Path) -> None:
    main(["fit", *words_of(tiny, parts, PARTS)])
    summary = json.loads((parts / "parts/version_0/summary.json").read_text())
    assert summary["best"]["val/count_error"] == summary["last"]["val/count_error"]
    assert "train/loss_poly" in summary["last"]


def test_the_format_trains_and_names_a_wrong_line(parts: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = parts / "images"
    images.mkdir()
    for name in ("a.png", "b.png"):
        torchvision.io.write_png(full((3, 48, 64), 90, dtype=uint8), str(images / name))
    lines = "a.png 2 3 20 30 cat\nb.png 5 5 40 40 dog\na.png 30 3 60 30 dog\n"
    (images / "boxes.txt").write_text(lines)
    words = ["fit", *words_of(tiny, parts, FORMAT % images)]
    main(words)
    assert (parts / "format/version_0/checkpoints/last.ckpt").exists()
    for wrong in ("b.png 1 1 9 9 cow", "b.png 1 1 9 cat"):
        (images / "boxes.txt").write_text(f"{lines}\n{wrong}\n")
        with pytest.raises(SystemExit):
            main(words)
        expected = "boxes.txt: line 5: expected `image x1 y1 x2 y2` and one of ['cat', 'dog']"
        assert expected in capsys.readouterr().err


def test_the_subcommand_is_found_and_counts(
    parts: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Count with the file in a second folder of the package ``commands``, as if it stood in the first."""
    folder = parts / "commands"
    folder.mkdir()
    (folder / "count.py").write_text(EXAMPLES["command"])
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(folder)])
    try:
        command = subcommands._found()["count"]
    finally:
        sys.modules.pop(f"{commands.__name__}.count", None)
    monkeypatch.setitem(subcommands.OWN, "count", command)
    monkeypatch.setitem(subcommands.SUBCOMMANDS, "count", command.help)
    capsys.readouterr()
    main(["count", *words_of(tiny, parts, PARTS)])
    found = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert set(found) == {"disc", "square", "triangle", "star", "ring"}
    assert sum(map(int, found.values())) > 0
