"""What is said of settings that cannot be, with the file, the line and what was probably meant."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.loggers import CSVLogger, Logger

from ocrnet_pl.cli.command import Run
from ocrnet_pl.cli.library_errors import cause
from ocrnet_pl.cli.main import main
from ocrnet_pl.cli.option_types import accepts
from ocrnet_pl.cli.parser import Parser
from ocrnet_pl.cli.running import _one_line
from ocrnet_pl.cli.subcommands import OWN
from tests.helpers.command_line import command_line_parser, complaint
from tests.helpers.project import CONFIGS
from tests.helpers.tiny_run import fails

QUICKSTART = ("--config", str(CONFIGS / "quickstart.yaml"))


@pytest.fixture(scope="module")
def parser() -> Parser:
    return command_line_parser()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # A key.
        ("--model.lr=3", "there is no key 'model.lr'; did you mean 'model.optimizer.init_args.lr'?"),
        ("--batch_size 3", "there is no key 'batch_size'; did you mean 'data.batch_size'?"),
        ("--model.encoder_rl=1", "there is no key 'model.encoder_rl'; did you mean 'model.encoder_lr'?"),
        ("--modle.encoder_lr=1", "there is no key 'modle'; did you mean 'model'?"),
        ("--data.encoder_lr=1", "there is no key 'data.encoder_lr'; did you mean 'model.encoder_lr'?"),
        ("--model.class_path=x", "there is no key 'model.class_path'; what it has stands directly below 'model'"),
        ("--qqqq 1", "there is no key 'qqqq'"),
        ("--disagreements.finder.certanty=1", "'disagreements.finder.certainty'?"),
        ("--disagreements.finder=3", "disagreements.finder: expected keys, found '3'"),
        ("--version", "--version: the value is missing"),
        ("stray", "'stray' is not an option of fit; options begin with --"),
        # A class.
        ("--model.encoder=TimEncoder", "model.encoder: there is no class 'TimEncoder'; did you mean 'TimmEncoder'?"),
        ("--model.optimizer=Adma", "model.optimizer: there is no class 'Adma'; did you mean 'Ada"),
        ("--model.optimizer=TimmEncoder", "model.optimizer: there is no class 'TimmEncoder'"),
        pytest.param(
            "--model.optimizer=Muon",
            "model.optimizer: there are several classes 'Muon'; write the import path of the one: "
            # Others may have been imported by now.
            "ocrnet_pl.training.muon.Muon or ",
            marks=pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon"),
        ),
        ("--trainer.callbacks+=Timr", "trainer.callbacks: there is no class 'Timr'; did you mean 'Timer'?"),
        (
            "--model.encoder=ocrnet_pl.losses.boxes.GIoULoss",
            "model.encoder: 'ocrnet_pl.losses.boxes.GIoULoss' is not a kind of Encoder",
        ),
        ("--model.encoder=ocrnet_pl.models.encoder.TimEncoder", "did you mean 'TimmEncoder'?"),
        ("--model.encoder=no_such.Encoder", "'no_such.Encoder' cannot be imported (No module named 'no_such')"),
        (
            "--model.balancing=ocrnet_pl.losses.weighting.FixedWeights --model.balancing.detecton=1",
            "'detecton' of Fixed",
        ),
        ("--model.neck=os.system", "model.neck: 'os.system' is not a kind of Neck"),
        # An option of a class.
        ("--model.neck.init_args.widht=3", "model.neck: there is no option 'widht' of PathAggregationNeck; did you"),
        ("--model.neck.widht=3", "model.neck: there is no option 'widht' of PathAggregationNeck; did you"),
        ("--model.optimizer.init_args.lrr=3", "model.optimizer: there is no option 'lrr' of Muon; did you mean 'lr'?"),
        ("--trainer.callbacks+=Timer --trainer.callbacks.duratoin=3", "trainer.callbacks: there is no option 'durat"),
        ("--trainer.logger=TensorBoardLogger", "trainer.logger: TensorBoardLogger needs the option 'save_dir'"),
        # A value.
        ("--trainer.max_epochs many", "trainer.max_epochs: expected int or null, got 'many'"),
        ("--model.optimizer=SGD --model.optimizer.lr=fast", "model.optimizer.init_args.lr: expected float"),
        ("--data.train=SyntheticSource --data.train.length=many", "data.train.length: expected int, got 'many'"),
        ("--data.size=[1,2,3]", "data.size: expected int or tuple[int, int], got a list"),
        ("--data.scales=[nan]", "data.scales: expected list[float], got a list with 'nan'"),
        ("--auto.budget -5m", "--auto.budget: write --auto.budget=-5m, since the value begins with -"),
        ("--name -c", "--name: the value is missing"),
        ("--data.train_transforms RandomFlip", "expected a list; to add to it, write --data.train_transforms+=RandomF"),
        ("--data.on_error=ignore", "data.on_error: expected 'raise' or 'skip', got 'ignore'"),
        ("--data.cache.sizee=1", "data.cache: there is no option 'sizee' of CacheOptions"),
    ],
)
def test_a_word_is_compared_with_what_can_be_set(
    words: str, expected: str, parser: Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(parser, capsys, "fit", *QUICKSTART, *words.split())
    assert expected.replace(".init_args", "") in said.replace(".init_args", "")
    if "did you mean" in said:
        wrong, right = said.split("'")[1], said.split("'")[-2]
        assert wrong != right


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trainer:\n  max_epoch: 3\n", "line 2: there is no key 'trainer.max_epoch'; did you mean"),
        ("model:\n  neck:\n    class_path: PathAggregationNeck\n    width: 3\n", "line 4: model.neck: 'width' belongs"),
        (
            "trainer:\n  callbacks:\n  - class_path: Timer\n  - class_path: Timer\n    init_args: {duratoin: x}\n",
            "line 5: trainer.callbacks: there is no option 'duratoin' of Timer; did you mean 'duration'?",
        ),
        (
            "model:\n  segmentation_loss:\n    class_path: SegmentationLoss\n    init_args:\n      terms:\n"
            "      - class_path: Dice\n      - class_path: CrossEntropi\n",
            "line 7: model.segmentation_loss.terms: there is no class 'CrossEntropi'; did you mean 'CrossEntropy'?",
        ),
        ("model:\n  neck:\n    init_args:\n      widht: 3\n", "line 4: model.neck: there is no option 'widht' of Path"),
        ("data:\n  train_transforms+:\n  - class_path: TimmEncoder\n", "line 3: data.train_transforms: there is no"),
        ("data:\n  batch_size: 3.5\n", "line 2: data.batch_size: expected int, got '3.5'"),
        ("model: x.yaml\n", "x.yaml: there is no such config; check the path"),
        ("name: no\n", "line 1: name: expected str, got no, which YAML does not read as text; put it in quotes"),
        ("output: somewhere\n", "line 1: there is no key 'output'"),
    ],
)
def test_a_line_of_a_file_is_compared_with_what_can_be_set(
    text: str, expected: str, parser: Parser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    # A relative path: the parser changes to the folder of each config while it reads it.
    wrong = os.path.relpath(tmp_path / "wrong.yaml")
    said = complaint(parser, capsys, "fit", *QUICKSTART, "--config", wrong)
    assert said.endswith(expected) if expected.endswith("path") else expected in said
    assert "line" not in expected or said.startswith(f"config {wrong!r}, line ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # All values of a file are null, which the library takes for a text; beside others it takes them as they are.
        ("trainer:\n", "line 1: trainer: there is nothing below it; give it keys, or leave it out"),
        ("name:\n", "line 1: name: expected str, got nothing"),
        ("name: a\nema:\n", "line 2: ema: there is nothing below it; give it keys, or leave it out"),
        ("early_stopping: null\n", "line 1: early_stopping: there is nothing below it; give it keys, or leave it out"),
        (
            "model:\n  neck:\n    class_path: PathAggregationNeck\n    init_args:\n",
            "line 4: model.neck.init_args: there",
        ),
        ("model: {scheduler: null}\n", "line 1: model.scheduler: expected LRScheduler, got null; leave it out"),
        (
            "trainer: {accumulate_grad_batches: null}\n",
            "line 1: trainer.accumulate_grad_batches: expected int, got null",
        ),
        ("data:\n  scales:\n", "line 2: data.scales: expected list[float], got null; leave it out for the default"),
        ("data: {cache: {max_gb: null}}\n", "line 1: data.cache.max_gb: expected float, got null"),
        (
            "data:\n  train_transforms:\n  - class_path: RandomFlip\n  - class_path: RandomScaleJitter\n"
            "    init_args: {minimum: null}\n",
            "line 5: data.train_transforms.minimum: expected float, got null",
        ),
        (
            "model:\n  encoder:\n    class_path: TimmEncoder\n    init_args:\n      frozen_stages: null\n",
            "line 5: model.encoder.frozen_stages: expected int, got null",
        ),
    ],
)
def test_null_is_refused_where_nothing_can_use_it(
    text: str, expected: str, parser: Parser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "null.yaml").write_text(text)
    said = complaint(parser, capsys, "fit", *QUICKSTART, "--config", str(tmp_path / "null.yaml"))
    assert said.startswith(f"config {str(tmp_path / 'null.yaml')!r}, {expected}")


def test_null_is_taken_where_it_means_something(parser: Parser) -> None:
    words = ["--trainer.max_time=null", "--model.balancing=null", "--data.train_transforms=null", "--data.root=null"]
    words += ["--model.detection=null", "--trainer.callbacks+=LearningRateMonitor", "--name=null", "--name=mine"]
    Parser.words = ["fit", *QUICKSTART, *words]
    config = parser.parse_args(Parser.words)["fit"]
    assert config["model"]["detection"] is None
    assert config["trainer"]["callbacks"][0]["init_args"]["logging_interval"] is None
    # What follows it counts.
    assert config["name"] == "mine"


def test_null_is_a_value_of_some_types() -> None:
    kind = TypeVar("kind")
    for hint in (int | None, Any, object, Literal["a", None], kind, Callable[[int], Any] | None, list[int] | None):
        assert accepts(hint, None), hint
    for hint in (int, str, list[int | None], Literal["a"], Callable[[int], Logger], dict[str, Any], Logger):
        assert not accepts(hint, None), hint


def test_what_can_be_set_is_not_blamed(parser: Parser, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings of every kind that fit, before one that does not."""
    sound = [
        *("--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:00:01:00", "--model.optimizer=SGD"),
        *("--model.optimizer.momentum=.9", "--data.cache={max_gb: 2}", "--data.size=[64,32]", "--trainer.devices=2"),
        *("--trainer.logger=true", "--data.scales", "[1]", "--trainer.max_time=00:01:00:00"),
        *("--model.encoder={class_path: TimmEncoder}", "--model.encoder.name=resnet18"),
    ]
    for config in [CONFIGS / "overlays" / "losses" / "tutorial.yaml", CONFIGS / "formats" / "mixture.yaml"]:
        said = complaint(parser, capsys, "fit", *QUICKSTART, "--config", str(config), *sound, "--data.qqqqq=1")
        assert said == "there is no key 'data.qqqqq'", config


def test_an_option_that_several_words_follow_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(command_line_parser("pack"), capsys, "pack", *QUICKSTART, "--splits", "train", "foo")
    assert said == "splits: expected 'train' or 'val' or 'test', got 'foo'"
    said = complaint(command_line_parser("check"), capsys, "check", *QUICKSTART, "--limit", "0")
    assert said == "limit: expected int > 0 or null, got '0'"


def test_words_without_an_option_are_not_blamed_for_the_options_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["runs/a", "runs/b", "--choices", "0"], "choices: expected int > 0, got '0'"),
        (["runs/a", "runs/b", "--choises", "5"], "there is no key 'choises'; did you mean 'choices'?"),
    ):
        assert complaint(command_line_parser("compare"), capsys, "compare", *words) == expected


def test_the_subcommand_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["fitt"], "error: there is no subcommand 'fitt'; did you mean 'fit'?\n"),
        (["--name=x", "fit"], "error: '--name=x' stands where the subcommand belongs, as in: train.py fit --config"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith(expected)
    main(["--version"])
    assert capsys.readouterr().out.startswith("ocrnet-pl ")


@pytest.mark.parametrize(
    "commands",
    [
        ("check",),
        # Their parsers are made in the same way.
        pytest.param(("pack", "joint-report", "memory"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_the_config_that_a_run_saved_works_for_each_command(
    commands: tuple[str, ...], parser: Parser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was continued: its config names a checkpoint."""
    parsed = parser.parse_args(["fit", *QUICKSTART, "--ckpt_path", "some/last.ckpt"]).fit
    saved = parser._subcommands_action.choices["fit"].dump(parsed)
    assert yaml.safe_load(saved)["ckpt_path"] == "some/last.ckpt"
    (tmp_path / "config.yaml").write_text(saved)
    for command in commands:
        own = command_line_parser(command)
        assert own.parse_args([command, "--config", str(tmp_path / "config.yaml")])[command].name == "quickstart"
    said = complaint(command_line_parser("check"), capsys, "check", "--ckpt_path=last")
    assert said.startswith("--ckpt_path is an option of fit")


def test_the_checkpoint_that_a_saved_config_names_is_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs of a joint report would continue from it."""
    configs = []

    def keep(run: Run) -> int:
        configs.append(run.written)
        return 0

    monkeypatch.setitem(OWN, "joint-report", dataclasses.replace(OWN["joint-report"], run=keep))
    (tmp_path / "continued.yaml").write_text("ckpt_path: some/last.ckpt")
    main(["joint-report", *QUICKSTART, "--config", str(tmp_path / "continued.yaml")])
    assert configs[0]["name"] == "quickstart" and "ckpt_path" not in configs[0] and "weights_only" not in configs[0]


class Unbuildable(CSVLogger):
    def __init__(self, word: str = "") -> None:
        raise ModuleNotFoundError(word)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Logger, {}),
        (Logger | Iterable[Logger] | bool | None, {}),
        (list[Logger] | Logger | None, [{}]),
        (bool | Unbuildable, {}),
    ],
)
def test_the_reason_of_a_part_that_cannot_be_built_is_kept(kind: Any, value: Any) -> None:
    part = {"class_path": f"{__name__}.Unbuildable", "init_args": {"word": "no\nsuch service"}}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=kind)
    parsed = parser.parse_object({"part": [part] if isinstance(value, list) else part})
    with pytest.raises(ValueError) as failed:
        parser.instantiate_classes(parsed)
    assert "no such service" in _one_line(failed.value)
    assert isinstance(cause(failed.value), ModuleNotFoundError)


@pytest.mark.parametrize("value", ["2024-99-99", "!!int x", "{2024-99-99: 1}", "[" * 5000, "{a: " * 5000])
def test_a_value_that_is_no_sound_yaml_is_named_by_its_option(
    value: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("data.batch_size", "auto"):
        status, line = fails(capsys, "fit", "--config", str(tiny), f"--{option}", value)
        assert status == 2 and line.startswith(f"error: {option}: ") and line.count("\n") == 1, line[:200]
