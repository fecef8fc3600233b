"""``auto``: settings that follow from the data, and what is kept."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig

from ocrnet_pl.callbacks.same_choice import SameChoice
from ocrnet_pl.cli import auto_choices
from ocrnet_pl.cli.auto_choices import AutoChoice
from ocrnet_pl.cli.auto_option import seconds_of
from ocrnet_pl.cli.data_choices import (
    Statistics,
    augmentation,
    batch_size,
    cache,
    epochs,
    frozen_stages,
    input_size,
    learning_rate,
    levels,
    measure,
    scales,
    short,
    validations,
)
from ocrnet_pl.cli.main import main
from ocrnet_pl.cli.written_settings import given_settings
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.transforms import RandomFlip
from ocrnet_pl.errors import UsageError
from tests.helpers.tiny_run import TINY, fails


def chosen(source: SyntheticSource) -> dict[str, Any]:
    found = measure(source)
    size = input_size(found)
    pair = (size.value, size.value) if isinstance(size.value, int) else tuple(size.value)
    own = [size, *levels(found, pair), *scales(found, pair), batch_size(found, pair)]
    return {choice.key.rpartition(".")[2]: choice.value for choice in own}


def test_small_objects_get_the_finest_level_and_crops() -> None:
    # Sides of 5 to 15 pixels: less than two cells of stride 8, and never four of stride 16.
    found = chosen(SyntheticSource(32, 1, 256, min_size=0.02, max_size=0.06))
    assert (found["size"], found["min_stride"], found["max_stride"], found["scales"]) == (256, 4, 16, [0.75])
    # The images keep their size: crops of 192 pixels out of 256.
    jitter = found["train_transforms"][0]["init_args"]
    assert jitter == {"minimum": 1.3333, "maximum": 1.3333} and found["batch_size"] == 16


def test_large_objects_get_coarse_levels_and_whole_images() -> None:
    found = chosen(SyntheticSource(12, 1, 256, min_size=0.4, max_size=0.6))
    assert (found["size"], found["min_stride"], found["max_stride"]) == (256, 8, 32)
    assert found["scales"] == [1.0] and "train_transforms" not in found


def test_short_runs_on_a_cpu_cut_objects_for_cheaper_steps() -> None:
    # Objects of a quarter to a third of the image, none of which a short run has to see whole.
    found = measure(SyntheticSource(32, 1, 256, min_size=0.25, max_size=0.35))
    size = (256, 256)
    assert [choice.value for choice in scales(found, size)] == [[1.0]]
    crops, transforms = scales(found, size, cheap=True)
    assert crops.value == [0.75] and "short run on a CPU" in crops.reason and len(transforms.value) == 3
    # Crops of what is larger than half of the image would mostly show parts.
    large = found._replace(large_side=140.0)
    assert [choice.value for choice in scales(large, size, cheap=True)] == [[1.0]]
    assert short(240.0, False) and short(3600.0, False)
    assert not short(240.0, True) and not short(7200.0, False) and not short(None, False)


@pytest.mark.parametrize(("strides", "stages"), [((2, 4, 8, 16, 32), 2), ((4, 8, 16, 32), 1), ((8, 16), None)])
def test_the_stages_up_to_stride_4_are_not_trained(strides: tuple[int, ...], stages: int | None) -> None:
    choice = frozen_stages(strides)
    assert (None if choice is None else choice.value) == stages


def test_a_short_run_keeps_in_memory_what_is_small() -> None:
    found = measure(SyntheticSource(32, 1, 256))
    choice = cache(found)
    assert choice is not None and choice.value is True and "into 0.017 GB" in choice.reason
    assert cache(found._replace(images=2000)) is None


def test_a_run_that_sees_images_often_varies_them_more() -> None:
    found = measure(SyntheticSource(32, 1, 256, min_size=0.02, max_size=0.06))

    def changed(statistics: Statistics, crops: bool, turned: bool = False) -> list[dict[str, Any]] | None:
        choice = augmentation(statistics, 61, crops, lambda: turned)
        assert choice is None or (choice.key == "data.train_transforms" and "61 times" in choice.reason)
        return None if choice is None else choice.value

    def kinds(transforms: list[dict[str, Any]] | None) -> list[str]:
        return [transform["class_path"] for transform in transforms or []]

    assert found.outlined and augmentation(found, 30, True, lambda: pytest.fail("looked at for nothing")) is None
    crops = changed(found, crops=True)
    assert crops is not None and kinds(crops) == ["RandomScaleJitter", "CopyPaste", "RandomFlip", "ColorJitter"]
    assert crops[0]["init_args"] == {"minimum": 1.0667, "maximum": 1.6667}
    # Pasted objects have the sizes of the others.
    assert crops[1]["init_args"]["partner_transforms"] == [crops[0], crops[2]]
    boxes_only = found._replace(outlined=False)
    assert kinds(changed(boxes_only, crops=True)) == ["RandomScaleJitter", "RandomFlip", "ColorJitter"]
    assert changed(boxes_only, crops=False) is None
    # Before crops are cut, whose sides may differ; pasted objects are turned as well.
    turned = changed(boxes_only, crops=False, turned=True)
    assert kinds(turned) == ["RandomRotate90", "RandomScaleJitter", "RandomFlip", "ColorJitter"]
    both = changed(found, crops=True, turned=True)
    assert both is not None and kinds(both)[:3] == ["RandomRotate90", "RandomScaleJitter", "CopyPaste"]
    assert kinds(both[2]["init_args"]["partner_transforms"]) == ["RandomRotate90", "RandomScaleJitter", "RandomFlip"]
    whole = changed(found, crops=False)
    assert whole is not None and whole[0]["init_args"] == {}


@pytest.mark.parametrize(("words", "pastes"), [((), True), (("--data.train_transforms", "null"), False)])
def test_a_long_run_pastes_objects_unless_the_transforms_are_given(
    words: tuple[str, ...], pastes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the budget held sixty passes over the images, of which a single step is trained.
    monkeypatch.setattr(auto_choices, "epochs_within", lambda *_: 60.0)
    path = config(tmp_path)
    main(["fit", "--config", str(path), *words])
    saved = yaml.safe_load((tmp_path / "runs/tiny/version_0/config.yaml").read_text())
    assert saved["trainer"]["max_steps"] == 1
    assert ("CopyPaste" in str(saved["data"]["train_transforms"])) == pastes


def test_few_images_get_a_small_batch_and_many_epochs() -> None:
    few = measure(SyntheticSource(6, 1, 256, min_size=0.4, max_size=0.6))
    assert batch_size(few, (256, 256)).value == 3 and epochs(few, 3).value == 300
    many = few._replace(images=100_000)
    assert batch_size(many, (256, 256)).value == 16 and epochs(many, 16).value == 20
    assert batch_size(many, (256, 256), accelerated=False).value == 4
    assert validations(300).value == 10 and validations(20).value == 1


def test_a_budget_is_a_duration() -> None:
    assert [seconds_of(text) for text in ("90", 90, "90s", "1.5m", "30min", "2h", "1d")] == [
        *(90, 90, 90, 90, 1800, 7200, 86400)
    ]
    for text in ("soon", "0", "-3s", "30 weeks", "nan"):
        with pytest.raises(UsageError, match=r"auto\.budget: expected a duration above 0"):
            seconds_of(text)


def test_what_is_set_on_the_command_line_and_in_configs_is_found(tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("data: {size: 64}\nmodel:\n  detection: {init_args: {min_stride: 8}}\n")
    words = ["fit", "--config", str(config), "--trainer.max_epochs=3", "--data", "{scales: [1.0]}"]
    found = given_settings(words)
    assert found["trainer.max_epochs"] == found["data.scales"] == ""
    assert found["data.size"] == f" in {str(config)!r}, line 1" and "model.detection.min_stride" in found
    assert "data.batch_size" not in found


def config(folder: Path) -> Path:
    """Write the tiny config without what is chosen, except for the size and the epochs, which would take long."""
    content = yaml.safe_load(TINY)
    for section, key in (("data", "scales"), ("data", "batch_size"), ("trainer", "max_epochs")):
        del content[section][key]
    content["data"]["train"]["init_args"] |= {"min_size": 0.5, "max_size": 0.8}
    content["data"]["val"]["init_args"]["length"] = 2
    content["pictures"] = {"enabled": False}
    # Far less than ten steps take, on any machine.
    content |= {"auto": {"budget": "0.02s"}}
    content["trainer"]["default_root_dir"] = str(folder / "runs")
    path = folder / "auto.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("lengths", "words", "length", "interval"),
    [
        ({"max_epochs": 50, "check_val_every_n_epoch": 2}, (), (-1, 1), (None, 1)),
        ({"max_epochs": 50, "check_val_every_n_epoch": 2}, ("--trainer.max_epochs=2",), (2, -1), (2, None)),
        # As in the config of an earlier run with a budget.
        (
            {"max_epochs": -1, "max_steps": 90, "check_val_every_n_epoch": None, "val_check_interval": 30},
            (),
            (-1, 1),
            (None, 1),
        ),
    ],
)
def test_a_budget_on_the_command_line_overrides_the_length_in_a_config(
    lengths: dict[str, Any],
    words: tuple[str, ...],
    length: tuple[int, int],
    interval: tuple[int | None, int | None],
    tmp_path: Path,
) -> None:
    path = config(tmp_path)
    content = yaml.safe_load(path.read_text())
    del content["auto"]
    content["trainer"] |= lengths | {"limit_train_batches": 1}
    path.write_text(yaml.safe_dump(content))
    main(["fit", "--config", str(path), "--auto.budget", "0.02s", *words])
    saved = yaml.safe_load((tmp_path / "runs/tiny/version_0/config.yaml").read_text())["trainer"]
    assert (saved["max_epochs"], saved["max_steps"]) == length
    assert (saved["check_val_every_n_epoch"], saved["val_check_interval"]) == interval


@pytest.mark.parametrize(("words", "batch"), [((), 4), (("--auto.budget=2h",), 16)])
def test_a_cpu_gets_small_batches_unless_a_budget_decides(
    words: tuple[str, ...],
    batch: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = config(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["auto"] = True
    content["data"]["train"]["init_args"]["length"] = 64
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    main(["check", "--config", str(path), "--limit", "1", "--output", str(tmp_path / "check"), *words])
    assert re.search(rf"data\.batch_size +{batch} ", capsys.readouterr().out)


def pretrained_config(folder: Path, weighted: bool = True) -> tuple[Path, dict[str, torch.Tensor]]:
    """Write a config with an encoder that has stages, and its weights file; return the config and the weights."""
    model = timm.create_model("resnet10t", pretrained=False)
    torch.save(model.state_dict(), folder / "w.pt")
    path = config(folder)
    content = yaml.safe_load(path.read_text())
    encoder = {"name": "resnet10t", "weights": str(folder / "w.pt") if weighted else None}
    content["model"]["encoder"] = {"class_path": "TimmEncoder", "init_args": encoder}
    content["trainer"] |= {"limit_train_batches": 1, "limit_val_batches": 0}
    path.write_text(yaml.safe_dump(content))
    return path, model.state_dict()


@pytest.mark.parametrize(
    ("words", "weighted", "stages"),
    [
        ((), True, 2),
        (("--model.encoder.init_args.frozen_stages", "1"), True, 1),
        (("--auto.budget=2h", "--trainer.max_epochs=1"), True, 0),
        # What begins at random has to be trained.
        ((), False, 0),
    ],
)
def test_a_short_run_on_a_cpu_does_not_train_a_pretrained_encoders_first_stages(
    words: tuple[str, ...],
    weighted: bool,
    stages: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    path, begun = pretrained_config(tmp_path, weighted)
    main(["fit", "--config", str(path), *words])
    run = tmp_path / "runs/tiny/version_0"
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["encoder"]["init_args"]["frozen_stages"] == stages
    assert saved["data"]["cache"] is ("--auto.budget=2h" not in words)
    said = re.search(r"model\.encoder\.frozen_stages +2  \(a short run on a CPU", capsys.readouterr().out)
    assert (said is not None) == (stages == 2)
    # Averaged like all others, from equal values.
    trained = weights(run)["network.encoder.model.layer1.0.conv1.weight"]
    assert torch.allclose(trained, begun["layer1.0.conv1.weight"], atol=1e-6) == (stages == 2)


def test_processes_that_do_not_measure_freeze_the_same_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(AutoChoice, "from_measurement", AutoChoice.show)
    path, _ = pretrained_config(tmp_path)
    main(["fit", "--config", str(path), "--trainer.max_epochs=1"])
    saved = yaml.safe_load((tmp_path / "runs/tiny/version_0/config.yaml").read_text())
    assert saved["model"]["encoder"]["init_args"]["frozen_stages"] == 2


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    found: dict[str, torch.Tensor] = content["state_dict"]
    return found


def test_a_run_chooses_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path)
    main(["fit", "--config", str(path), "--model.detection.init_args.max_stride", "32"])
    printed = capsys.readouterr()
    lines = [line.split("  ") for line in printed.out.splitlines() if line.startswith("  data.") or "stride" in line]
    shown = {words[1]: " ".join(words[2:]) for words in lines}
    assert "set by you in" in shown["data.size"] and "set by you" in shown["model.detection.max_stride"]
    assert "4 (there are only 8 images)" in shown["data.batch_size"]
    assert re.search("auto.budget: .* s is too short for 8 images", printed.err)
    runs = tmp_path / "runs/tiny"
    saved = yaml.safe_load((runs / "version_0/config.yaml").read_text())
    assert saved["auto"] is False and saved["trainer"]["max_steps"] == 1 and saved["data"]["batch_size"] == 4
    assert (saved["trainer"]["max_epochs"], saved["trainer"]["check_val_every_n_epoch"]) == (-1, None)
    assert saved["data"]["size"] == 64 and saved["data"]["scales"] == [1.0]
    strides = {key: saved["model"]["detection"]["init_args"][f"{key}_stride"] for key in ("min", "max")}
    # Objects of 32 to 50 pixels would need no level of stride 32, which is given.
    assert strides == {"min": 8, "max": 32}

    # Its config gives the same network: measuring has left no trace in the random numbers.
    main(["fit", "--config", str(runs / "version_0/config.yaml")])
    first, second = weights(runs / "version_0"), weights(runs / "version_1")
    assert all(torch.equal(value, second[name]) for name, value in first.items())

    # What continues does not choose, and takes its settings from the run, also those of other defaults here.
    checkpoint = str(runs / "version_0/checkpoints/last.ckpt")
    capsys.readouterr()
    main(["fit", "--config", str(path), "--ckpt_path", checkpoint, "--trainer.max_steps", "3"])
    said = capsys.readouterr()
    assert "auto: nothing is chosen again" in said.err and "too short" not in said.err
    continued = yaml.safe_load((runs / "version_2/config.yaml").read_text())
    assert continued["model"]["detection"] == saved["model"]["detection"]
    assert continued["data"]["batch_size"] == 4 and continued["trainer"]["max_steps"] == 3
    assert continued["trainer"]["val_check_interval"] == 1 and continued["trainer"]["check_val_every_n_epoch"] is None


def test_the_other_processes_take_what_the_first_one_measured(tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", max_epochs=7, check_val_every_n_epoch=7, default_root_dir=tmp_path, logger=False
    )
    data = JointDataModule(SyntheticSource(8, 1, 64), batch_size=16)
    trainer._data_connector.attach_datamodule(LightningModule(), data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.strategy, "broadcast", lambda own: (4, 2, [RandomFlip()], -1, 50, None, 5))
        SameChoice().setup(trainer, LightningModule(), "fit")
    assert (trainer.max_epochs, trainer.max_steps) == (-1, 50)
    assert (trainer.check_val_every_n_epoch, trainer.val_check_interval) == (None, 5)
    assert (data.batch_size, data.loading.eval_batch_size) == (4, 2)
    assert [type(transform) for transform in data.train_transforms] == [RandomFlip]


def test_the_other_processes_take_the_rates_of_the_first_one(tmp_path: Path) -> None:
    def begun(rate: float) -> Trainer:
        trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, logger=False)
        weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
        optimizer = torch.optim.SGD([{"params": [weights[0]], "lr": rate / 10}, {"params": [weights[1]]}], lr=rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        trainer.strategy.optimizers = [optimizer]
        trainer.strategy.lr_scheduler_configs = [LRSchedulerConfig(schedule)]
        return trainer

    first, other = begun(0.8), begun(0.2)
    sent: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first.strategy, "broadcast", lambda own: sent.append(copy.deepcopy(own)) or own)
        SameChoice().on_fit_start(first, LightningModule())
        patch.setattr(other.strategy, "broadcast", lambda own: sent[0])
        SameChoice().on_fit_start(other, LightningModule())
    for _ in range(2):
        rates = [[group["lr"] for group in each.optimizers[0].param_groups] for each in (first, other)]
        assert rates[0] == rates[1]
        for each in (first, other):
            each.optimizers[0].step()
            each.lr_scheduler_configs[0].scheduler.step()
    assert other.optimizers[0].param_groups[1]["lr"] == pytest.approx(0.8 / 3)


def test_a_wrong_budget_and_missing_data_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(config(tmp_path))
    status, said = fails(capsys, "fit", "--config", path, "--auto.budget", "soon")
    assert status and said.startswith("error: auto.budget: expected a duration") and said.count("\n") == 1
    status, said = fails(capsys, "fit", "--config", path, "--data.train", "null")
    assert status and said == "error: auto: there is no data to choose settings for; set data.train\n"


@pytest.mark.parametrize(("steps", "rate"), [(30, 0.008), (1000, 0.008), (4000, 0.004), (6000, 0.0033), (10**6, 0.001)])
def test_short_runs_have_high_rates(steps: int, rate: float) -> None:
    assert learning_rate(steps).value == rate


@pytest.mark.parametrize(
    ("words", "rate"),
    [
        ((), 0.008),
        (("--model.optimizer.init_args.lr", "0.002"), 0.002),
        (("--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.lr", "0.1"), 0.1),
        # The default, which another class keeps.
        (("--model.optimizer", "torch.optim.SGD"), 0.003),
    ],
)
def test_the_rate_follows_from_the_length_unless_it_is_given(
    words: tuple[str, ...], rate: float, tmp_path: Path
) -> None:
    path = config(tmp_path)
    main(["fit", "--config", str(path), "--trainer.max_steps", "1", *words])
    saved = yaml.safe_load((tmp_path / "runs/tiny/version_0/config.yaml").read_text())
    assert saved["model"]["optimizer"]["init_args"]["lr"] == rate
