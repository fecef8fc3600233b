"""Which checkpoint ``validate``, ``test``, ``predict``, ``calibrate`` and ``fit`` take, and with which config."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ocrnet_pl.cli.checkpoint_option import EVALUATING, UsageError, settle_checkpoint
from ocrnet_pl.cli.main import main
from ocrnet_pl.cli.running import build
from ocrnet_pl.cli.sections import stored_sections
from ocrnet_pl.cli.subcommands import SUBCOMMANDS
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.storage.latest_run import latest_checkpoint
from ocrnet_pl.training.task import OCRNetTask
from tests.helpers.tiny_run import TINY, fails, summary

STORED = stored_sections(OCRNetTask, JointDataModule)

TRUST = ("--trust", "tests")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a config and of the run that it made."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(TINY)
    words = ["--config", str(folder / "tiny.yaml"), "--trainer.default_root_dir", str(folder / "runs")]
    main(["fit", *words, "--trainer.max_epochs=1", "--data.evaluate_at=input"])
    return folder


@pytest.fixture(scope="module")
def last(root: Path) -> Path:
    return root / "runs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt"


def settled(*words: str) -> tuple[list[str], dict[str, Any] | None]:
    return settle_checkpoint(list(words), STORED)


@pytest.mark.parametrize("subcommand", EVALUATING)
def test_without_a_checkpoint_nothing_is_evaluated(
    subcommand: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(root / "tiny.yaml"), "--trainer.default_root_dir", str(tmp_path / "none")]
    (tmp_path / "null.yaml").write_text(TINY + "ckpt_path: null\n")
    for more in ([], ["--config", str(tmp_path / "null.yaml")]):
        status, line = fails(capsys, subcommand, *words, *more)
        assert status == 2
        assert line.startswith(
            f"error: {subcommand}: there is no checkpoint; give --ckpt_path FILE, such as --ckpt_path"
        )
        assert line.count("\n") == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("subcommand", EVALUATING)
def test_the_checkpoint_may_stand_behind_the_subcommand(subcommand: str, last: Path) -> None:
    words = ["--trainer.devices=1", "--trust=tests"]
    assert settled(subcommand, str(last), *words) == settled(subcommand, f"--ckpt_path={last}", *words)
    with pytest.raises(UsageError, match=r"^ckpt_path: there is .*last\.ckpt' behind '.*', and --ckpt_path; leave one"):
        settled(subcommand, str(last), f"--ckpt_path={last}")


@pytest.mark.parametrize(
    ("subcommand", "asked", "line"),
    [
        *[(name, "", "ckpt_path: expected the file") for name in ("fit", *EVALUATING)],
        *[(name, "hpc", "ckpt_path 'hpc'") for name in ("fit", "validate")],
        *[(name, "registry:a:1", "ckpt_path 'registry:a:1'") for name in ("fit", "test")],
        ("fit", "best", "ckpt_path 'best': training continues from the last"),
    ],
)
def test_what_is_no_checkpoint_takes_one_line(
    subcommand: str, asked: str, line: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(root / "tiny.yaml"), "--trainer.default_root_dir", str(tmp_path / "none")]
    status, said = fails(capsys, subcommand, *words, f"--ckpt_path={asked}")
    assert status == 2
    assert said.startswith(f"error: {line}") and said.count("\n") == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("subcommand", ["fit", "predict"])
def test_the_help_says_what_holds_here(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([subcommand, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"{SUBCOMMANDS[subcommand].capitalize()}." in text and "Checkpoint: --ckpt_path" in text
    # Lightning's text of the option, half a sentence of its method, and an option that has no effect.
    for foreign in ("registry", "Useful to", "to predict. If", "weights_only"):
        assert foreign not in text.rpartition("Checkpoint: --ckpt_path")[2]


@pytest.mark.parametrize(
    ("subcommand", "there", "absent"),
    [
        (
            "fit",
            [
                "Whether input size, levels, scales",
                "Number format: 32-true, bf16-mixed, 16-mixed;",
                "Number of validations in a row without an improvement",
            ],
            ["Double precision", "quantity to be monitored"],
        ),
        ("predict", ["NAME/VERSION below it", "null, true and false add none"], ["--auto", "TensorBoardLogger`"]),
        ("memory", ["Memory that a step may take, in GiB; null for 90 % of the available memory."], ["%%"]),
        ("serve", ["Answer requests for predictions over HTTP, with an exported file."], ["answer requests"]),
    ],
)
def test_the_help_has_no_option_without_effect_and_says_what_it_does_here(
    subcommand: str, there: list[str], absent: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([subcommand, *(["a.onnx"] if subcommand == "serve" else []), "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(each in text for each in there) and not any(each in text for each in absent)


def test_code_in_checkpoints_is_refused(last: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = f"--trainer.default_root_dir={tmp_path / 'none'}"
    status, line = fails(capsys, "validate", f"--ckpt_path={last}", root, *TRUST, "--weights_only=false")
    assert status == 2
    assert line.splitlines()[-1].startswith("error: weights_only: checkpoints are always read as data")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("subcommand", ["export", "validate"])
def test_the_config_of_the_run_may_stand_after_its_checkpoint(subcommand: str, last: Path, tmp_path: Path) -> None:
    saved, text = tmp_path / "saved.yaml", (last.parents[1] / "config.yaml").read_text()
    assert "\nckpt_path: null\n" in text
    # Earlier versions saved this option as well.
    saved.write_text(f"{text}weights_only: null\n")
    root = f"--trainer.default_root_dir={tmp_path}"
    cli = build([subcommand, f"--ckpt_path={last}", "--config", str(saved), *TRUST, root])
    assert cli.config[subcommand]["ckpt_path"] == str(last)


def test_a_root_reaches_the_sources_of_a_saved_config(tmp_path: Path) -> None:
    source = {"class_path": "CocoInstances", "init_args": {"images": "val", "annotations": "a.json", "root": "/then"}}
    own = {"class_path": "CocoInstances", "init_args": source["init_args"] | {"root": "/own"}}  # type: ignore[operator]
    (tmp_path / "saved.yaml").write_text(yaml.safe_dump({"data": {"root": "/then", "val": source, "train": own}}))
    data = build(["check", "--config", str(tmp_path / "saved.yaml"), "--data.root=/now"]).config["check"]["data"]
    assert [data[split]["init_args"]["root"] for split in ("val", "train")] == ["/now", "/own"]


@pytest.mark.parametrize(
    ("subcommand", "word", "uses"),
    [
        ("export", "--model.tile.overlap=0.3", ""),
        ("export", "--model.postprocess", ""),
        ("calibrate", "--model.postprocess.init_args.claim=1", "; of model it uses tile and multiscale"),
        ("serve", "--model.encoder.init_args.name", "; of model it uses postprocess, tile and multiscale"),
        ("demo", "--model.metrics+=x", "; of model it uses postprocess, tile and multiscale"),
        ("film", "--model.optimizer", "; of model it uses postprocess, tile and multiscale"),
        (
            "auto-label",
            "--model.encoder_lr=1",
            "; of model it uses postprocess, tile, multiscale, compile_backend, compile_mode and matmul_precision",
        ),
    ],
)
def test_an_option_of_the_network_that_the_checkpoint_has_is_refused(
    subcommand: str, word: str, uses: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, line = fails(capsys, subcommand, "--ckpt_path", "absent.ckpt", word, "x")
    option = word.partition("=")[0].removesuffix("+")
    expected = f"error: {option}: {subcommand} takes the network from the checkpoint; leave the option out{uses}\n"
    assert (status, line) == (2, expected)


@pytest.mark.parametrize("subcommand", ["export", "serve", "film", "demo", "calibrate", "auto-label"])
def test_a_whole_section_of_the_network_is_looked_into(
    subcommand: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.yaml").write_text("tile: {overlap: 0.3}\nencoder_lr: 0.5\n")
    named = "tile" if subcommand == "export" else "encoder_lr"
    for words in (["--model", "{tile: {overlap: 0.3}, encoder_lr: 0.5}"], [f"--model={tmp_path / 'model.yaml'}"]):
        status, line = fails(capsys, subcommand, "--ckpt_path", "absent.ckpt", *words)
        assert status == 2 and line.startswith(f"error: --model.{named}: {subcommand} takes the network from the check")
    if subcommand != "export":
        _, line = fails(capsys, subcommand, "--ckpt_path", "absent.ckpt", "--model", "{tile: {overlap: 0.3}}")
        assert "absent.ckpt" in line


def test_options_of_prediction_are_not_taken_for_those_of_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    for subcommand in ("calibrate", "serve", "film"):
        _, line = fails(capsys, subcommand, "--ckpt_path", "absent.ckpt", "--model.tile.overlap=0.3")
        assert "absent.ckpt" in line


def test_the_options_and_their_values_are_shown_all_the_same() -> None:
    for words in (["validate", "--help"], ["calibrate", "-h"], ["test", "--print_config"], ["fit"], ["check"]):
        assert settled(*words) == (words, None)


def make_run(root: Path, name: str, version: str, age: int, files: tuple[str, ...] = ("last.ckpt",)) -> Path:
    folder = root / name / version / "checkpoints"
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_text("x")
        os.utime(folder / file, (10_000 - age, 10_000 - age))
    return folder


def test_the_newest_run_is_newest_by_time(tmp_path: Path) -> None:
    make_run(tmp_path, "a", "version_10", age=5)
    newest = make_run(tmp_path, "a", "version_2", age=1)
    make_run(tmp_path, "b", "version_0", age=0)
    # The folder of an evaluation, and that of a run which has just begun.
    (tmp_path / "a" / "version_11").mkdir()
    make_run(tmp_path, "a", "version_12", age=0, files=())
    assert latest_checkpoint("last", tmp_path, "a") == newest / "last.ckpt"
    (newest / "last.ckpt").unlink()
    (newest / "epoch.ckpt").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"the newest run, .*version_2.*, has no .*last\.ckpt"):
        latest_checkpoint("last", tmp_path, "a")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*absent.*; there are checkpoints of a, b; give"):
        latest_checkpoint("last", tmp_path, "absent")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in '.*nowhere/a/\*/checkpoints'; give the"):
        latest_checkpoint("best", tmp_path / "nowhere", "a")


def test_the_best_is_what_the_run_says(root: Path, last: Path, tmp_path: Path) -> None:
    said = summary(last.parents[1])["best_checkpoint"]
    assert latest_checkpoint("best", root / "runs", "tiny") == Path(said)
    # A folder that was moved, then without its summary, then without the file itself.
    moved = tmp_path / "runs" / "tiny" / "elsewhere"
    shutil.copytree(last.parents[1], moved)
    assert latest_checkpoint("best", tmp_path / "runs", "tiny") == Path(said)
    text = (moved / "summary.json").read_text().replace(str(last.parent), "/absent")
    (moved / "summary.json").write_text(text)
    best = moved / "checkpoints" / Path(said).name
    assert latest_checkpoint("best", tmp_path / "runs", "tiny") == best
    (moved / "summary.json").unlink()
    assert latest_checkpoint("best", tmp_path / "runs", "tiny") == Path(said)
    (moved / "summary.json").write_text(text)
    best.unlink()
    with pytest.raises(FileNotFoundError, match=r"'/absent/.*no longer exists"):
        latest_checkpoint("best", tmp_path / "runs", "tiny")
    for damage in ("{", "[]", '"x"'):
        (moved / "summary.json").write_text(damage)
        with pytest.raises(CheckpointError, match=r"summary\.json': damaged"):
            latest_checkpoint("best", tmp_path / "runs", "tiny")
    (moved / "summary.json").unlink()
    (moved / "checkpoints" / "last.ckpt").rename(moved / "checkpoints" / "other.ckpt")
    with pytest.raises(FileNotFoundError, match=r"neither .* nor .* says which"):
        latest_checkpoint("best", tmp_path / "runs", "tiny")


def test_last_and_best_are_those_of_the_configs_name(
    root: Path, last: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = summary(last.parents[1])["best_checkpoint"]
    (tmp_path / "named.yaml").write_text(
        f"name: tiny\ntrainer: {{default_root_dir: {root / 'runs'}}}\nckpt_path: last\n"
    )
    named, runs = ["--config", str(tmp_path / "named.yaml")], ["--trainer.default_root_dir", str(root / "runs")]
    whole = ["--config", str(root / "tiny.yaml")]
    for words, path in (
        (["fit", *whole, *runs, "--ckpt_path=last"], last),
        (["validate", *whole, *runs, "--ckpt_path", "best"], best),
        (["test", *whole, *runs, "--ckpt_path", "best", "--name", "other", "--name", "tiny"], best),
        (["predict", *whole, *named], last),
        (["calibrate", *TRUST, *named, "--ckpt_path=best"], best),
        (["validate", *TRUST, "--name=tiny", *runs, "--ckpt_path=last"], last),
    ):
        found, config = settled(*words)
        assert found[-1] == f"--ckpt_path={path}"
        said = capsys.readouterr().err.splitlines()
        assert said[0] in (f"ckpt_path last: {path}", f"ckpt_path best: {path}")
        assert (config is None) == (whole[1] in words)
        assert config is None or said[1:] == [f"config: the checkpoint's own, of {path}"]
    status, line = fails(capsys, "test", *whole, "--name=other", *runs, "--ckpt_path=last")
    assert status == 1
    assert "other/*/checkpoints" in line and "there are checkpoints of tiny" in line and line.count("\n") == 1


def test_a_checkpoint_is_enough(last: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another folder, with options and a config laid over the checkpoint's own."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "given.ckpt"
    shutil.copy(last, path)
    (tmp_path / "over.yaml").write_text(
        "pictures: {enabled: false}\nmodel: {multiscale: {scales: [1.0], flip: true}}\n"
    )
    words = ["--ckpt_path", str(path), *TRUST, "--config", "over.yaml", "--data.val.init_args.length=3"]
    main(["validate", *words])
    run = tmp_path / "runs" / "tiny" / "version_0"
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["data"]["evaluate_at"] == "input"
    assert written["data"]["val"]["init_args"]["length"] == 3
    assert written["data"]["train"] is None
    assert written["model"]["neck"]["init_args"]["width"] == 8
    assert written["model"]["multiscale"]["flip"] is True
    assert written["pictures"]["enabled"] is False
    Image.new("RGB", (40, 30)).save(tmp_path / "one.png")
    main(["predict", "--ckpt_path", str(path), *TRUST, "--data.predict_path=one.png", "--prediction.overlays=false"])
    assert (tmp_path / "runs" / "tiny" / "version_1" / "predictions" / "predictions.json").is_file()
    assert summary(run)["best_checkpoint"] == str(path)


@pytest.mark.parametrize(
    "words",
    [
        ["--trust", "tests", "--trust", "a.b"],
        ["--trust=tests", "--trust=a.b"],
        ["--trust", "tests", "a.b"],
        ["--trust", "[tests, a.b]"],
        ['--trust=["tests","a.b"]'],
        ["--trust=tests,a.b"],
    ],
)
def test_trust_may_be_given_again_or_as_a_list(words: list[str], root: Path) -> None:
    config = str(root / "tiny.yaml")
    found, own = settled("calibrate", *words, "--config", config, "--ckpt_path", "x.ckpt")
    assert found == ["calibrate", "--config", config, "--ckpt_path", "x.ckpt", '--trust=["tests", "a.b"]']
    assert own is None


@pytest.mark.parametrize("name", ["*", "", "a b", "os;"])
def test_only_packages_are_trusted(name: str) -> None:
    with pytest.raises(UsageError, match="is not a package"):
        settled("validate", "--ckpt_path", "x.ckpt", "--trust", name)


def test_a_whole_config_stands_for_itself(root: Path, last: Path, tmp_path: Path) -> None:
    """A config that names an encoder and a source is not mixed with the checkpoint's."""
    words = ["validate", "--config", str(root / "tiny.yaml"), "--ckpt_path", str(last)]
    assert settled(*words) == (words, None)
    over = tmp_path / "over.yaml"
    over.write_text("data: {val: {class_path: SyntheticSource}}\n")
    _, config = settled("validate", "--config", str(over), "--ckpt_path", str(last), *TRUST)
    assert config is not None and "val" not in config["data"]
    _, config = settled("validate", "--model.encoder", "tests.helpers.builders.TinyEncoder", "--ckpt_path", str(last))
    assert config is not None and "encoder" not in config["model"] and config["data"]["val"]
    with pytest.raises(UsageError, match="config of a checkpoint at an address"):
        settled("validate", "--ckpt_path", "https://example.com/last.ckpt")
