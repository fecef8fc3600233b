"""What stays on the screen of a terminal, and what a log has where there is none."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelSummary, TQDMProgressBar

from ocrnet_pl.callbacks.progress import NetworkSummary, RunBar, use_own_display
from ocrnet_pl.cli.main import main
from ocrnet_pl.drawing import progress
from tests.helpers.terminal import in_a_terminal, screen
from tests.helpers.tiny_run import TINY
from tests.training.test_task import make_trainer

ROWS = ["box mAP 50-95", "box mAP 50", "box mAP 75", "box mAP small", "box mAP medium", "box mAP large"]
ROWS += ["mask mAP 50-95", "mask mAP 50", "mIoU", "pixel accuracy"]
ROWS += ["panoptic quality", "segmentation quality", "recognition quality"]
CLASSES = ["disc", "square", "triangle", "star", "ring", "sky", "water", "grass"]


def words(folder: Path, command: str, *more: str) -> list[str]:
    (folder / "tiny.yaml").write_text(TINY)
    own = ["--config", str(folder / "tiny.yaml"), "--trainer.default_root_dir", str(folder), "--pictures.enabled=false"]
    return [command, *own, *more]


def table(lines: list[str], title: str) -> dict[str, list[str]]:
    """Return a table's cells by the first of each row."""
    start = next(number for number, line in enumerate(lines) if line.strip() == title)
    rows: dict[str, list[str]] = {}
    for line in lines[start + 1 :]:
        if line.startswith("└"):
            return rows
        if line.startswith("│"):
            first, *rest = (cell.strip() for cell in line.strip("│").split("│"))
            rows[first] = rest
    raise AssertionError("\n".join(["the table has no end:", *lines]))


def check_tables(lines: list[str], stage: str) -> None:
    """Look for all rows of the results, and for what has to stand below them."""
    text = "\n".join(lines)
    results, classes = table(lines, f"Results ({stage})"), table(lines, f"Per class ({stage})")
    missing = [row for row in ROWS if row not in results]
    # Rows that another version of the table may have besides stand in it as well.
    assert not missing, f"{missing}\n{text}"
    assert list(classes) == CLASSES, text
    assert all(re.fullmatch(r"\d\.\d{4}|-", cell) for row in (*results.values(), *classes.values()) for cell in row)
    end = max(number for number, line in enumerate(lines) if line.startswith("└"))
    assert [line[:12] for line in lines[end + 1 :]] == ["Run folder: "], text
    assert "v_num" not in text
    assert "FLOPs" not in text


@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_all_rows_of_the_results_stay_on_the_screen(columns: int, tmp_path: Path) -> None:
    """Of training, testing and, with 120 columns, validation, one after the other in one terminal."""
    validates = columns == 120
    last = tmp_path / "tiny" / "version_0" / "checkpoints" / "last.ckpt"
    source = ["--data.test=SyntheticSource", "--data.test.init_args.length=5", "--data.test.init_args.size=64"]

    def run() -> None:
        main(words(tmp_path, "fit", "--trainer.max_epochs=1"))
        if validates:
            main(words(tmp_path, "validate", "--ckpt_path", str(last)))
        main(words(tmp_path, "test", "--ckpt_path", str(last), *source))

    status, written = in_a_terminal(run, columns)
    assert status == 0, written
    assert "\x1b[" in written
    lines = screen(written, columns)
    ends = [number + 1 for number, line in enumerate(lines) if line.startswith("Run folder: ")]
    stages = ["val", *["val"] * validates, "test"]
    assert len(ends) == len(stages), "\n".join(lines)
    # The next command's begins where one ends, after the rest of a long path.
    for stage, start, end in zip(stages, [0, *ends], ends, strict=False):
        check_tables(lines[start:end], stage)
    # What is tested has figures of its own name.
    summary = json.loads((tmp_path / "tiny" / f"version_{len(stages) - 1}" / "summary.json").read_text())
    assert {"test/map", "test/fused_miou", "test/pq"} <= set(summary["last"])
    # A bar stays, and stands in no one's way.
    assert len([line for line in lines if re.match(r"(Epoch 0/0|Validation|Testing) +━+ 2/2 ", line)]) == len(stages)


def test_a_log_has_a_line_per_epoch_and_one_per_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(words(tmp_path, "fit", "--trainer.callbacks+=Timer"))
    printed, log = capsys.readouterr()
    assert "Epoch" not in printed
    assert "FLOPs" not in printed
    lines = [line for line in log.splitlines() if line.startswith("epoch ")]
    number = r"\d+\.\d{4}"
    fused = rf"{number} raw, {number} fused"
    validation = rf"validation: score {number}; box mAP {fused}; mask mAP {fused}; mIoU {fused}; PQ {fused}"
    rest = rf"loss ({number}), lr (\d\.\d\de-\d\d)( to \S+)?, \d+\.\d images/s, 0:00:\d\d left"
    patterns = [f"epoch {n} of 2, step {2 * n}, {kind}" for n in (1, 2) for kind in (validation, rest)]
    assert len(lines) == 4, log
    found = [re.fullmatch(pattern, line) for pattern, line in zip(patterns, lines, strict=True)]
    assert all(found), log
    with (tmp_path / "tiny" / "version_0" / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    for match, own in zip(found[1::2], (losses[:2], losses[2:]), strict=True):
        assert match is not None
        assert float(match[1]) == pytest.approx(sum(own) / 2, abs=1e-4)
    assert lines[-1].endswith(" 0:00:00 left")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.mark.parametrize(
    ("total", "step", "expected"),
    [
        # Seconds of a step, and the steps at which a line is due.
        (100, 0.05, []),
        (100, 2.0, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]),
        (20, 30.0, list(range(2, 21, 2))),
        (4, 300.0, [1, 2, 3, 4]),
        (None, 20.0, [3, 6, 9]),
    ],
)
def test_long_work_has_a_line_a_minute_or_a_tenth(
    total: int | None,
    step: float,
    expected: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock(monkeypatch)
    with progress.Progress() as shown:
        work = shown.add("packing train", total)
        for _ in range(total or 10):
            clock.now += step
            work.advance()
    said = capsys.readouterr().err.splitlines()
    assert [int(line.split()[2]) for line in said] == expected
    if total == 100 and said:
        assert said[3] == "packing train: 40 of 100 (40%), 0:02:00 left"


def test_what_goes_on_after_a_pause_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that were done before, as by a pack that continues, are no work of this one."""
    clock = Clock(monkeypatch)
    pace = progress.Pace(1000)
    pace.start_at(900)
    clock.now += 60
    assert pace.due(950)
    assert pace.text(950) == "950 of 1000 (95%), 0:01:00 left"


def test_the_bar_of_a_config_is_left_alone(tmp_path: Path) -> None:
    own = TQDMProgressBar()
    trainer = make_trainer(tmp_path, callbacks=[own], enable_progress_bar=True, enable_model_summary=True)
    use_own_display(trainer, [own])
    assert trainer.progress_bar_callback is own
    assert [type(each) for each in trainer.callbacks if isinstance(each, ModelSummary)] == [NetworkSummary]
    trainer = make_trainer(tmp_path, enable_progress_bar=True)
    use_own_display(trainer, [])
    assert isinstance(trainer.progress_bar_callback, RunBar)
    assert trainer.progress_bar_callback.is_disabled


@pytest.mark.parametrize(("epochs", "said"), [(-1, "Epoch 12"), (20, "Epoch 12/19")])
def test_the_bar_names_a_number_of_epochs_only_if_there_is_one(tmp_path: Path, epochs: int, said: str) -> None:
    bar = RunBar()
    trainer = make_trainer(tmp_path, callbacks=[bar], enable_progress_bar=True, max_epochs=epochs)
    bar.setup(trainer, LightningModule(), "fit")
    text = bar._get_train_description(12)
    assert text.rstrip() == said and len(text) >= len("Validation")
