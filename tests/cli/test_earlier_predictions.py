"""``predict`` into a folder that has predictions: ``--resume`` goes on, and ``--overwrite`` replaces them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from jsonargparse import Namespace
from PIL import Image

from ocrnet_pl.callbacks.prediction_writer import PredictionWriter
from ocrnet_pl.callbacks.process_lines import ProcessLines
from ocrnet_pl.cli.earlier_predictions import EarlierPredictions
from ocrnet_pl.cli.exit_codes import EXIT_SKIPPED
from ocrnet_pl.cli.main import main
from ocrnet_pl.errors import UsageError
from ocrnet_pl.inference import multiscale
from tests.helpers.processes import run_together

NAMES = ("a.png", "b.png", "sub/c.png", "sub/d.png", "e.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[list[str], Path]:
    """Return a command line that predicts on five images, and the folder of its runs, with a run called ``whole``."""
    root = tmp_path_factory.mktemp("earlier")
    (root / "images" / "sub").mkdir(parents=True)
    torch.manual_seed(0)
    for name in NAMES:
        torchvision.io.write_png(torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8), str(root / "images" / name))
    words = ["--config", str(tiny), "--trainer.default_root_dir", str(root)]
    main(["fit", *words, "--trainer.max_steps=1", "--name=trained", "--version=a"])
    checkpoint = root / "trained" / "a" / "checkpoints" / "last.ckpt"
    score = "--model.postprocess.init_args.decode.init_args.score_threshold=0.0001"
    words = ["predict", *words, "--ckpt_path", str(checkpoint), "--data.predict_path", str(root / "images"), score]
    words += ["--data.eval_batch_size=1", "--annotations.min_score=0.0001", "--format", "csv", "coco"]
    main([*words, "--version=whole"])
    return words, root / "tiny"


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all results of a run."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".parts" not in path.parts)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.name not in ("config.yaml", "status.json")
    }


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.png.png")}


def cut_off(monkeypatch: pytest.MonkeyPatch, words: list[str], after: int) -> None:
    """Predict, and lose the process in the middle of an image."""
    written = PredictionWriter._write_maps
    count = [0]

    def write(self: PredictionWriter, *arguments: Any) -> None:
        count[0] += 1
        if count[0] > after:
            raise KeyboardInterrupt
        written(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(PredictionWriter, "_write_maps", write)
        main(words)


def test_a_prediction_goes_on_where_it_was_cut_off(
    run: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, runs = run
    part = runs / "part"
    cut_off(monkeypatch, [*words, "--version=part"], after=3)
    assert not (part / "predictions" / "predictions.json").exists()
    before = times(part / "predictions" / "semantic")
    assert len(before) == 3
    # What a killed process had begun to write, and a picture that somebody has removed.
    with (part / "predictions" / ".parts" / "0.jsonl").open("a") as file:
        file.write('["sub/c.png", {"ima')
    (part / "predictions" / "panoptic" / "a.png.png").unlink()
    capsys.readouterr()
    main([*words, "--version=part", "--resume", "--data.num_workers=1"])
    assert "resume: 2 images in" in capsys.readouterr().err
    after = times(part / "predictions" / "semantic")
    assert [name for name in before if after[name] != before[name]] == ["a.png.png"]
    assert files(part) == files(runs / "whole")
    assert len(json.loads((part / "predictions" / "images.json").read_text())) == len(NAMES)


@pytest.mark.slow
def test_only_new_images_are_predicted_and_gone_ones_are_forgotten(
    run: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words, runs = run
    whole = runs / "whole"
    before, expected = times(whole / "predictions" / "overlay"), files(whole)
    main([*words, "--resume", "--version=whole"])
    assert "resume: 4 images in" in capsys.readouterr().err
    after = times(whole / "predictions" / "overlay")
    assert sum(after[name] != before[name] for name in before) == 1
    assert files(whole) == expected
    images = runs.parent / "images"
    (images / "e.png").rename(images / "f.png")
    main([*words, "--resume", "--version=whole"])
    (images / "f.png").rename(images / "e.png")
    listed = json.loads((whole / "predictions" / "images.json").read_text())
    assert [each["file_name"] for each in listed] == ["a.png", "b.png", "f.png", "sub/c.png", "sub/d.png"]
    main([*words, "--overwrite", "--version=whole"])
    assert files(whole) == expected
    for parts in list(whole.rglob(".parts")):
        shutil.rmtree(parts)
    capsys.readouterr()
    main([*words, "--resume", "--version=whole"])
    assert "resume: 0 images in" in capsys.readouterr().err
    assert files(whole) == expected


@pytest.mark.slow
def test_what_was_damaged_or_changed_since_is_predicted_again(
    run: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words, runs = run
    harmed, images = runs / "harmed", runs.parent / "images"
    shutil.copytree(runs / "whole", harmed)
    expected = files(harmed)
    predictions = harmed / "predictions"
    # What a machine that lost its power may leave: a picture that is cut short, and zeros instead of lines.
    with (predictions / "semantic" / "a.png.png").open("r+b") as file:
        file.truncate(20)
    with (predictions / ".parts" / "0.jsonl").open("a") as file:
        file.write("\0\0\0\0\n5\n")
    with (harmed / "annotations" / ".parts" / "0.jsonl").open("ab") as file:
        file.write(b"\xff\n")
    # Processes of a start that was killed while it made their files one.
    shutil.copy(predictions / ".parts" / "0.jsonl", predictions / ".parts" / "1.jsonl")
    changed = (images / "b.png").read_bytes()
    shutil.copy(images / "e.png", images / "b.png")
    capsys.readouterr()
    main([*words, "--resume", "--version=harmed"])
    assert "resume: 3 images in" in capsys.readouterr().err
    maps = predictions / "semantic"
    assert (maps / "b.png.png").read_bytes() == (maps / "e.png.png").read_bytes()
    (images / "b.png").write_bytes(changed)
    shutil.rmtree(maps)
    main([*words, "--resume", "--version=harmed"])
    assert "resume: 0 images in" in capsys.readouterr().err
    assert files(harmed) == expected


_SAID = {
    "absent": "there is no such folder or image",
    "": "expected a path, got ''",
    "notes": "there is no readable image",
    # Of a single file, it says what is wrong with it.
    "notes/a.txt": "this is not an image file",
}


@pytest.mark.parametrize("path", list(_SAID))
def test_without_images_there_is_no_folder(
    path: str,
    run: tuple[list[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, runs = run
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([*words, "--version=nothing", f"--data.predict_path={path}"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and _SAID[path] in line
    assert not (runs / "nothing").exists()


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--operating_point=best_f1", "the network has no operating points"),
        ("--data.predict_channels=4", "the images have 4 channels, the encoder takes 3"),
        ("--model.multiscale.scales=[10.0]", "multiscale.scales: at 10 the input is 640 x 640, more than the limit"),
    ],
)
def test_what_cannot_be_costs_no_predictions(
    earlier: bool,
    option: str,
    expected: str,
    run: tuple[list[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(multiscale, "MAX_PIXELS", 640 * 640 - 1)
    words, runs = run
    folder = runs / ("whole" if earlier else "without_points")
    before = files(folder)
    with pytest.raises(SystemExit):
        main([*words, "--version", folder.name, option, *["--overwrite"] * earlier])
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert files(folder) == before and folder.exists() == earlier


def test_images_whose_annotations_would_have_one_name_are_refused(
    run: tuple[list[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "a.bmp"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (50, 40)).save(tmp_path / "images" / name)
    words = [*run[0], f"--data.predict_path={tmp_path / 'images'}", f"--trainer.default_root_dir={tmp_path / 'runs'}"]
    with pytest.raises(SystemExit):
        main([*words, "--format", "coco", "yolo"])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("a.png: the files of yolo would be those of 'a.bmp' as well; rename one of the images")
    # Files of other formats name the images with their endings.
    main([*words, "--version=coco", "--format", "coco"])


def test_results_are_neither_mixed_nor_replaced_unasked(tmp_path: Path) -> None:
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.touch()
    config = {"ckpt_path": str(checkpoint), "prediction": {"min_score": 0.3}, "data": {"num_workers": 2}}
    asked, resume, overwrite = EarlierPredictions(), EarlierPredictions(resume=True), EarlierPredictions(overwrite=True)
    folder = tmp_path / "run"
    assert not resume.settle(folder, config)
    (folder / "predictions" / "overlay").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"^resume: run folder .*its config.yaml cannot be read; predict anew"):
        resume.settle(folder, config)
    for damaged in ("a: [1", "[" * 5000, "a: 2024-99-99", "a: !!int x"):
        (folder / "config.yaml").write_text(damaged)
        with pytest.raises(UsageError, match=r"^resume: run folder .*its config.yaml cannot be read; predict anew"):
            resume.settle(folder, config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"run; give another --version, or --resume or --overwrite$"):
        asked.settle(folder, config)
    # How fast images are loaded has no effect on what is found in them.
    assert resume.settle(folder, config | {"data": {"num_workers": 0}})
    with pytest.raises(UsageError, match=r"prediction.min_score was 0.3, now it is 0.5; predict anew with --overwrite"):
        resume.settle(folder, config | {"prediction": {"min_score": 0.5}})
    os.utime(checkpoint, (2**32, 2**32))
    with pytest.raises(UsageError, match=r"last.ckpt' was written after it; predict anew with --overwrite"):
        resume.settle(folder, config)
    assert overwrite.settle(folder, config)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "checkpoints").mkdir()
    for each in (resume, overwrite):
        with pytest.raises(FileExistsError, match=r"it has checkpoints of another command; give another --version$"):
            each.settle(folder, config)
    (folder / "checkpoints").rmdir()
    with pytest.raises(FileExistsError, match=r"it has no predictions; give another --version$"):
        overwrite.settle(folder, config)
    # A start that was cut off before its first image.
    (folder / "notes.txt").unlink()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "hparams.yaml").touch()
    (folder / ".status.json.1.part").touch()
    os.utime(checkpoint, (0, 0))
    assert resume.settle(folder, config) and (folder / "config.yaml").exists()
    assert overwrite.settle(folder, config) and not (folder / "config.yaml").exists()


def test_the_newest_predictions_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume = EarlierPredictions(resume=True)
    assert resume.version(tmp_path / "run", None) is None
    assert "resume: there are no predictions in" in capsys.readouterr().err
    for age, name in enumerate(("version_10", "version_9", "version_2")):
        folder = tmp_path / "run" / name / "predictions"
        folder.mkdir(parents=True)
        os.utime(folder, (1000 - age, 1000 - age))
    (tmp_path / "run" / "version_11" / "checkpoints").mkdir(parents=True)
    assert resume.version(tmp_path / "run", None) == "version_10"
    assert resume.version(tmp_path / "run", "mine") == "mine"
    assert EarlierPredictions().version(tmp_path / "run", None) is None
    with pytest.raises(UsageError, match=r"^resume, overwrite: both are given; leave out one of them$"):
        EarlierPredictions.asked(Namespace(resume=True, overwrite=True, version=None))
    with pytest.raises(UsageError, match=r"^overwrite: name the run whose predictions are replaced with --version$"):
        EarlierPredictions.asked(Namespace(resume=False, overwrite=True, version=None))


def test_lines_of_several_processes_become_those_of_one(tmp_path: Path) -> None:
    for rank, names in enumerate((("a", "b"), ("c",))):
        lines = ProcessLines(tmp_path, rank)
        lines.start()
        lines.add((name, {"of": rank}) for name in names)
    with (tmp_path / ".parts" / "1.jsonl").open("a") as file:
        file.write('["d", {"of"')
    lines = ProcessLines(tmp_path, 0)
    assert lines.names() == {"a", "b", "c"}
    lines.keep({"b", "c", "d"})
    assert lines.names() == {"b", "c"} and lines.own() == lines.joined() == [{"of": 0}, {"of": 1}]
    assert [path.name for path in (tmp_path / ".parts").iterdir()] == ["0.jsonl"]


def status(words: list[str]) -> object:
    """Run a command line, and return the status that the process would exit with."""
    try:
        main(words)
    except SystemExit as stop:
        return stop.code
    return 0


TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]


@pytest.mark.filterwarnings("ignore")
def test_a_process_without_images_waits_for_the_others(run: tuple[list[str], Path], tmp_path: Path) -> None:
    words, folder = run
    shutil.copytree(folder / "whole", folder / "shared")
    # Of the five images, all are complete: the last is predicted again, by one of the two processes.
    assert run_together(tmp_path, 2, status, [*words, *TWO, "--resume", "--version=shared"]) == [0, 0]
    assert files(folder / "shared") == files(folder / "whole")


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_another_process_could_not_read_is_told_by_the_first(
    run: tuple[list[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words, _ = run
    images = shutil.copytree(Path(words[words.index("--data.predict_path") + 1]), tmp_path / "images")
    # The first process takes a.png, the second b.png.
    whole = (images / "b.png").read_bytes()
    (images / "b.png").write_bytes(whole[: len(whole) // 2])
    words = [*words, *TWO, "--data.predict_path", str(images), "--version=damaged"]
    assert run_together(tmp_path / "results", 2, status, words) == [EXIT_SKIPPED, 0]
    said = capfd.readouterr().err
    assert said.count("skipped: ") == 1 and "b.png: the image cannot be read" in said
    assert said.count("error: 1 file(s) could not be read as images\n") == 1


def test_a_score_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^prediction.min_score: expected 0 to 1, got 7$"):
        PredictionWriter(min_score=7)
