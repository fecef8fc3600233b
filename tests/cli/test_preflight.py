"""What can only fail later is refused before the first step, in one line; what works really works."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    DeviceStatsMonitor,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
)
from torch import Tensor

from ocrnet_pl.cli import running
from ocrnet_pl.cli.library_errors import mistake
from ocrnet_pl.cli.lightning_cli import OCRNetCLI
from ocrnet_pl.cli.preflight import check_classes, training_figures, validation_figures, validation_losses
from ocrnet_pl.errors import DataError
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.structures import Taxonomy
from tests.helpers.builders import TinyEncoder
from tests.helpers.tiny_run import fails


@pytest.fixture(scope="module")
def built(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> OCRNetCLI:
    root = tmp_path_factory.mktemp("runs")
    words = [f"--trainer.default_root_dir={root}", "--trainer.max_epochs=1", "--pictures.enabled=false"]
    return running.build(["fit", "--config", str(tiny), *words, "--trainer.limit_train_batches=1"])


@pytest.fixture
def cli(built: OCRNetCLI, monkeypatch: pytest.MonkeyPatch) -> Iterator[OCRNetCLI]:
    """The one command line, whose settings a test may change."""
    config = built.config_init
    monkeypatch.setattr(built, "config_init", config.clone())
    yield built


def start(cli: OCRNetCLI, settings: dict[str, Any]) -> None:
    """Start the run with other settings: of the trainer, or by their dotted keys of the callbacks."""
    config = cli.config_init["fit"]
    for key, value in settings.items():
        owner, _, name = key.rpartition(".")
        if owner:
            setattr(config[owner], name, value)
        else:
            config["trainer"][key] = value() if callable(value) else value
    cli.trainer = cli.instantiate_trainer()
    running._execute(cli)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_epochs": -1}, "trainer.max_epochs: the schedule WarmupCosine needs the end of the run"),
    ({"max_epochs": -1, "max_time": "00:01:00:00"}, "set max_epochs or max_steps, also beside max_time"),
    ({"max_epochs": 0}, "trainer.max_epochs: expected at least 1, or -1 for no limit, got 0"),
    ({"max_steps": 0}, "trainer.max_steps: expected at least 1, or -1 for no limit, got 0"),
    ({"max_time": "00:00:00:00"}, "trainer.max_time: it is over before the run begins"),
    ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches: expected at least 1, got 0"),
    ({"gradient_clip_val": -1.0}, "trainer.gradient_clip_val: expected at least 0, got -1.0"),
    ({"gradient_clip_val": float("nan")}, "trainer.gradient_clip_val: expected at least 0, got nan"),
    ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch: expected at least 1, got 0"),
    ({"val_check_interval": 0}, "trainer.val_check_interval: expected more than 0"),
    ({"num_sanity_val_steps": -2}, "trainer.num_sanity_val_steps: expected at least 0, or -1 for no limit, got -2"),
    ({"limit_train_batches": 0}, "trainer.limit_train_batches: with 0 there is nothing to train on"),
    ({"log_every_n_steps": -1}, "trainer.log_every_n_steps: expected at least 0, got -1"),
    ({"devices": 999}, "trainer.devices: 999 processes on"),
    ({"precision": "64-true"}, "trainer.precision: 64-true does not work here; choose one of 32-true, bf16-mixed"),
    (
        {"val_check_interval": 100},
        "`val_check_interval` (100) must be less than or equal to the number of the training",
    ),
    ({"limit_val_batches": 0.0001}, "You requested to check 0.0001 of the `val_dataloader`"),
    ({"early_stopping.patience": -1}, "early_stopping.patience: expected at least 0, got -1"),
    (
        {"early_stopping.monitor": "val/fused_moiu"},
        "early_stopping.monitor: this run logs no figure 'val/fused_moiu'; did you mean 'val/fused_miou'?",
    ),
    ({"early_stopping.mode": "min"}, "early_stopping.mode: 'val/score' is better where it is higher; set mode to max"),
    ({"checkpoint.monitor": "fused_map"}, "checkpoint.monitor: this run logs no figure 'fused_map'; did you mean"),
    ({"checkpoint.monitor": "val/map_per_class/disk"}, "did you mean 'val/map_per_class/disc'?"),
    ({"checkpoint.monitor": "train/loss_dise"}, "did you mean 'train/loss_dice'?"),
    ({"callbacks": lambda: [LearningRateFinder()]}, "LearningRateFinder works by its own name alone, in a config"),
    ({"callbacks": lambda: [BatchSizeFinder()]}, "BatchSizeFinder works by its own name alone, in a config"),
    ({"callbacks": lambda: [StochasticWeightAveraging(swa_lrs=0.1)]}, "already, as ema.decay says"),
    ({"callbacks": lambda: [EMAWeightAveraging()]}, "already, as ema.decay says"),
    ({"callbacks": lambda: [ModelPruning("l1_unstructured")]}, "ModelPruning does not work here; its masks would"),
    (
        {"callbacks": lambda: [BackboneFinetuning()]},
        "set frozen_stages and unfreeze_at of model.encoder",
    ),
    (
        {"callbacks": lambda: [ModelCheckpoint(monitor="val/moiu")]},
        "trainer.callbacks: ModelCheckpoint.monitor: this run logs no figure 'val/moiu'; did you mean 'val/miou'?",
    ),
    ({"callbacks": lambda: [EarlyStopping("val/none")]}, "trainer.callbacks: EarlyStopping.monitor: this run logs no"),
    (
        {"callbacks": lambda: [ModelCheckpoint(monitor="val/miou")], "limit_val_batches": 0},
        "there will be no figure 'val/miou', since trainer.limit_val_batches is 0",
    ),
]


# A function's address would be another one in each process of the tests.
@pytest.mark.parametrize(("settings", "expected"), REFUSED, ids=[expected[:60] for _, expected in REFUSED])
def test_what_cannot_work_is_refused_before_the_first_step(
    cli: OCRNetCLI, settings: dict[str, Any], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [cli.config_init["fit"][key.rpartition(".")[0]] for key in settings if "." in key]
    before = [copy.copy(vars(each)) for each in changed]
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as stopped:
            start(cli, settings)
    finally:
        for each, old in zip(changed, before, strict=True):
            vars(each).update(old)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert expected in error
    assert cli.trainer.global_step == 0
    folder = Path(cli.trainer.default_root_dir, "tiny")
    assert not folder.exists() or not any(folder.rglob("*.ckpt"))


def test_a_negative_learning_rate_is_one_line(cli: OCRNetCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    def negative(params: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=-1.0)

    monkeypatch.setattr(cli.model._optimizer, "factory", negative)
    with pytest.raises(Exception, match=r"^model\.optimizer: Invalid learning rate: -1\.0"):
        cli.execute()


class Ends(Callback):
    """Keeps the names of what was logged."""

    names: set[str]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.names = set(trainer.callback_metrics)


@pytest.mark.filterwarnings("ignore")
def test_callbacks_and_settings_that_work_do(cli: OCRNetCLI, tmp_path: Path) -> None:
    """The names that a monitor may have are those that the run then logs, all of them."""
    ends, best = Ends(), ModelCheckpoint(tmp_path, monitor="val/map_per_class/disc", mode="max")
    stops = [EarlyStopping(name) for name in ("train/loss_dice", "val/loss_detection", "lr-Muon/decoders")]
    callbacks = [ends, best, *stops, DeviceStatsMonitor()]
    start(cli, {"callbacks": lambda: callbacks, "num_sanity_val_steps": -1, "overfit_batches": 1})
    assert Path(best.best_model_path).is_file()
    known = {*validation_figures(cli.model), *validation_losses(cli.model, (64, 64))}
    known |= {*training_figures(cli.model, (64, 64))}
    assert {name for name in ends.names if not name.startswith("lr-")} == known - {"train/images_per_s"}


def test_a_run_may_go_without_validation(cli: OCRNetCLI, recwarn: pytest.WarningsRecorder) -> None:
    # The folder of another run, which this one knows.
    start(cli, {"limit_val_batches": 0, "checkpoint.dirpath": None})
    folder = Path(str(cli.trainer.log_dir)) / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    assert "There will be no best checkpoint and no early stopping, since trainer.limit_val_batches is 0." in [
        str(warning.message) for warning in recwarn
    ]


def raised(function: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as found:
        function()
    return found.value


class SquareEncoder(TinyEncoder):
    def forward(self, images: Tensor) -> list[Tensor]:
        if images.shape[-2] != images.shape[-1]:
            raise AssertionError("squares only")
        return super().forward(images)


def test_classes_are_not_taken_for_each_other() -> None:
    trained = Taxonomy.build(things=["cat", "dog"], stuff=["sky"])
    check_classes(Taxonomy.build(things=["cat", "dog"], stuff=["sky"]), trained)
    for classes, reason in (
        (["cat", "cow"], r"only the data has 'cow'; only the checkpoint has 'dog'"),
        (["dog", "cat"], r"they have another order, or other tasks"),
        (["cat"], r"only the checkpoint has 'dog'"),
    ):
        with pytest.raises(DataError, match=rf"^data: its classes are not those of the checkpoint \({reason}\); give"):
            check_classes(Taxonomy.build(things=classes, stuff=["sky"]), trained)


def test_only_what_the_config_is_to_blame_for_becomes_one_line() -> None:
    error = raised(lambda: SquareEncoder()(torch.zeros(1, 3, 64, 32)))
    line = mistake(error)
    assert line is not None and "\n" not in line
    assert line.startswith("model.encoder: SquareEncoder does not take images of 64 x 32 (squares only)")
    assert mistake(raised(lambda: torch.zeros(2) @ torch.zeros(3))) is None
    assert mistake(raised(lambda: Trainer(max_epochs=1, accelerator="cpu").fit(torch.nn.Linear(1, 1)))) is not None


def test_an_encoder_that_cannot_be_built_is_named() -> None:
    with pytest.raises(ValueError, match=r"model\.encoder\.drop_path: expected 0 to below 1, got 7"):
        TimmEncoder("test_resnet", drop_path=7)
    with pytest.raises(ValueError, match=r"model\.encoder: timm cannot build 'test_resnet' with these options"):
        TimmEncoder("test_resnet", in_channels=-1)


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["--checkpoint.monitor=val/mapp", "--model.segmentation=null"], 1, "did you mean 'val/map'?"),
        (["--early_stopping.mode=up"], 1, "early_stopping.mode: expected 'min' or 'max', got 'up'"),
        (["--trainer.max_time={minute: 1}"], 1, "'minute'"),
    ],
)
def test_the_command_line_leaves_nothing_behind(
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    expected: str,
) -> None:
    found, error = fails(
        capsys, "fit", "--config", str(tiny), f"--trainer.default_root_dir={tmp_path / 'runs'}", *words
    )
    assert found == status and error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "runs").exists()
