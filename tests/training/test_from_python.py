"""A task that was put together in Python: its checkpoints are read as those of the command line."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import timm
import torch
from lightning.pytorch import Trainer
from PIL import Image

from ocrnet_pl import CheckpointError, JointDataModule, OCRNet, OCRNetTask, keep_classes, main
from ocrnet_pl.balancing.methods import Uncertainty
from ocrnet_pl.callbacks.save_config import classes_to_keep
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.inference.decode import Decode
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.losses.pixels import CrossEntropy
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.metrics.boundary import BoundaryIoU
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.storage.trusted_classes import trusted_parts
from ocrnet_pl.training.hyperparameters import given_arguments
from tests.cli.test_cli import fails
from tests.helpers.builders import TinyEncoder
from tests.helpers.command_line import command_line_parser

SCENES = SyntheticSource(length=4, seed=1, size=64)

CONFIG = """
model:
  encoder: {class_path: tests.helpers.builders.TinyEncoder}
  neck: {class_path: PathAggregationNeck, init_args: {width: 8}}
  segmentation: {class_path: SubPixelDecoder, init_args: {width: 8, detail: 4}}
  postprocess:
    class_path: FusionPostProcess
    init_args: {decode: {class_path: Decode, init_args: {max_detections: 7}}, claim: 0.5}
  segmentation_loss:
    class_path: SegmentationLoss
    init_args: {terms: [{class_path: CrossEntropy, init_args: {weight: 2.0}}]}
  balancing: {class_path: Uncertainty}
  optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, weight_decay: 0.05}}
  metrics: [{class_path: BoundaryIoU, init_args: {width: 0.05}}]
  tile: {class_path: ocrnet_pl.inference.tiled_inference.Tiling, init_args: {overlap: 0.1}}
"""


def arguments(**changes: Any) -> dict[str, Any]:
    """Return in Python what the config says, with lambdas where a factory may be one."""
    return {
        "encoder": TinyEncoder(),
        "neck": lambda c, s: PathAggregationNeck(c, s, width=8),
        "segmentation": partial(SubPixelDecoder, width=8, detail=4),
        "postprocess": FusionPostProcess(Decode(max_detections=7), claim=0.5),
        "segmentation_loss": SegmentationLoss([CrossEntropy(weight=2.0)]),
        "balancing": Uncertainty(),
        "optimizer": partial(torch.optim.SGD, lr=0.1, weight_decay=0.05),
        "metrics": [lambda taxonomy: BoundaryIoU(taxonomy, 0.05)],
        "tile": Tiling(overlap=0.1),
        "input_size": (64, 64),
    } | changes


def make_task(kind: type[OCRNetTask] = OCRNetTask, **changes: Any) -> OCRNetTask:
    torch.manual_seed(0)
    return kind(SCENES.taxonomy, **arguments(**changes))


def fit(task: OCRNetTask, path: Path, steps: int = 1, data: JointDataModule | None = None, **options: Any) -> Trainer:
    data = data or JointDataModule(train=SCENES, size=64, scales=(1.0,), batch_size=2, num_workers=0)
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        default_root_dir=path.parent,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data, **options)
    trainer.save_checkpoint(path)
    return trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[OCRNetTask, Path]:
    path = tmp_path_factory.mktemp("python") / "python.ckpt"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "OCRNetTask: checkpoints cannot say")
        task = make_task()
    fit(task, path)
    return task, path


def test_the_record_is_what_the_command_line_stores_for_the_same_network(tmp_path: Path) -> None:
    (tmp_path / "same.yaml").write_text(CONFIG)
    parsed = command_line_parser().parse_args(["fit", "--config", str(tmp_path / "same.yaml")])
    stored = parsed["fit"]["model"].as_dict()
    kinds = get_type_hints(OCRNetTask.__init__)
    names = ("encoder", "neck", "detection", "segmentation", "postprocess", "segmentation_loss", "balancing", "tile")
    own = {name: kinds[name] for name in (*names, "optimizer", "scheduler", "metrics", "encoder_lr")}
    found, expected = (
        trusted_parts({name: whole(name, value) for name, value in parts.items()}, own, ["tests"], "")
        for parts in (dict(make_task().hparams), {**stored, "taxonomy": None, "input_size": None})
    )
    assert found == expected


def whole(name: str, value: Any) -> Any:
    """Return a record with the class of its dataclasses left out, as a parser keeps them, and all its arguments."""
    if isinstance(value, dict):
        if str(value.get("class_path")).rpartition(".")[2] in ("HeuristicMerge", "Tiling"):
            return value["init_args"]
        found = {key: whole(name, item) for key, item in value.items()}
        return found | {"init_args": found.get("init_args", {})} if "class_path" in found else found
    return [whole(name, item) for item in value] if isinstance(value, list | tuple) else value


def test_python_code_reads_it(trained: tuple[OCRNetTask, Path]) -> None:
    task, path = trained
    network = OCRNet.from_checkpoint(path, trust="tests")
    image = SCENES[0].image
    expected, found = task.network.predict(image)[0], network.predict(image)[0]
    for name in ("boxes", "scores", "semantic", "panoptic"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    again = OCRNetTask.load_from_checkpoint(path, trust=["tests"])
    # Loaded and written again, it is still whole.
    assert dict(again.hparams) == dict(task.hparams)
    assert again.tile == Tiling(overlap=0.1) and isinstance(again.balancing, Uncertainty)
    assert [type(each) for each in again.val_metrics.own] == [BoundaryIoU]
    assert {group["lr"] for group in again.make_optimizer().param_groups} == {0.1}
    assert json.loads(json.dumps(dict(again.hparams))) == dict(task.hparams)
    with pytest.raises(CheckpointError, match="trust its package: --trust tests"):
        OCRNet.from_checkpoint(path)


def test_training_continues(trained: tuple[OCRNetTask, Path], tmp_path: Path) -> None:
    _, path = trained
    trainer = fit(make_task(), tmp_path / "more.ckpt", steps=2, ckpt_path=path)
    assert trainer.global_step == 2
    assert torch.load(tmp_path / "more.ckpt", weights_only=True)["global_step"] == 2


def test_the_command_line_reads_it(
    trained: tuple[OCRNetTask, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, path = trained
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (70, 50), (90, 30, 10)).save(tmp_path / "photo.png")
    words = ["--ckpt_path", str(path), "--trust=tests", "--trainer.accelerator=cpu", "--data.num_workers=0"]
    main(["predict", *words, "--data.predict_path", str(tmp_path / "photo.png")])
    assert list(tmp_path.glob("runs/run/version_0/**/*.json"))
    status, line = fails(capsys, "validate", *words)
    assert status == 1 and "trained from Python, and does not say on which data; give --data.val" in line
    (tmp_path / "data.yaml").write_text("data: {val: {class_path: SyntheticSource, init_args: {length: 2, size: 64}}}")
    main(["validate", *words, "--config", "data.yaml"])
    assert "boundary" in capsys.readouterr().out.lower()


def test_what_a_config_says_is_kept_as_it_stands_there() -> None:
    class Local(PathAggregationNeck):
        """Could not be recorded."""

    encoder = {"class_path": "TinyEncoder", "init_args": {"a": "${oc.env:B}"}}
    said = {"encoder_lr": "${oc.env:RATE}", "encoder": encoder, "neck": {"class_path": "my.Local"}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with given_arguments(said):
            task = make_task(encoder_lr=0.5, neck=Local)
        assert {name: task.hparams[name] for name in said} == said
        # What the constructor brings along itself is not missed, though it is a lambda.
        task = OCRNetTask(SCENES.taxonomy, TinyEncoder(), encoder_lr=0.5)
    assert task.hparams["encoder_lr"] == 0.5 and "optimizer" not in task.hparams


def test_a_checkpoint_says_that_classes_were_kept(trained: tuple[OCRNetTask, Path], tmp_path: Path) -> None:
    def train(name: str, old: Path | None) -> dict[str, Any]:
        source = SyntheticSource(length=2, seed=1, size=64, shapes=["cross", "disc"])
        data = JointDataModule(train=source, size=64, scales=(1.0,), batch_size=2, num_workers=0)
        if old is not None:
            keep_classes(data, old)
        torch.manual_seed(0)
        fit(OCRNetTask(data.taxonomy, **arguments()), tmp_path / name, data=data)
        return torch.load(tmp_path / name, weights_only=True)

    kept = classes_to_keep(train("kept.ckpt", trained[1]), "the file")
    assert kept is not None and {"cross", "disc", "triangle"} <= {category.name for category in kept.categories}
    assert classes_to_keep(train("other.ckpt", None), "the file") is None


def test_what_cannot_be_recorded_is_said_twice_and_given_again(tmp_path: Path) -> None:
    loss = SegmentationLoss([CrossEntropy(class_weights=torch.ones(7).tolist())])
    loss_with_tensor = SegmentationLoss([CrossEntropy(class_weights=torch.ones(7))])  # type: ignore[arg-type]
    with pytest.warns(UserWarning) as said:
        task = make_task(optimizer=lambda p: torch.optim.SGD(p, lr=0.1), segmentation_loss=loss_with_tensor)
    lines = [str(each.message) for each in said if "checkpoints cannot say" in str(each.message)]
    assert len(lines) == 2
    assert lines[0].startswith(
        "OCRNetTask: checkpoints cannot say how to make 'segmentation_loss' again (argument 'terms'"
    )
    assert "'optimizer' again (a lambda; give a class, or a functools.partial of a class" in lines[1]
    path = tmp_path / "python.ckpt"
    torch.save(saved(task), path)
    assert OCRNet.from_checkpoint(path, trust="tests").parts.unrecorded == {}
    with pytest.raises(CheckpointError) as refused:
        OCRNetTask.load_from_checkpoint(path, trust="tests")
    assert "no entry 'segmentation_loss' (argument 'terms' of SegmentationLoss is" in str(refused.value)
    with pytest.raises(CheckpointError, match=r"'optimizer' \(a lambda.*; give it in Python: optimizer=\.\.\."):
        OCRNetTask.load_from_checkpoint(path, trust="tests", segmentation_loss=loss)
    given = {"segmentation_loss": loss, "optimizer": partial(torch.optim.SGD, lr=0.3)}
    again = OCRNetTask.load_from_checkpoint(path, trust="tests", **given)
    assert again.hparams["optimizer"]["init_args"]["lr"] == 0.3


def saved(task: OCRNetTask) -> dict[str, Any]:
    """Return what a checkpoint has of a task that was not trained."""
    content: dict[str, Any] = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    content |= {"taxonomy": task.taxonomy.to_dict(), "input_size": list(task.network.input_size)}
    return content | {"unrecorded": dict(task._unrecorded)}


class OwnTask(OCRNetTask):
    """Chooses its encoder itself, and has an option of its own."""

    def __init__(self, taxonomy: Any, pull: float = 0.0, **kwargs: Any) -> None:
        kwargs.setdefault("encoder", TinyEncoder())
        super().__init__(taxonomy, **kwargs)
        self.pull = pull


def test_a_task_of_ones_own_is_made_again(tmp_path: Path) -> None:
    task = make_task(OwnTask, pull=0.5)
    assert task.hparams["pull"] == 0.5 and task.hparams["encoder"]["class_path"].endswith(".TinyEncoder")
    torch.save(saved(task), tmp_path / "own.ckpt")
    again = OwnTask.load_from_checkpoint(tmp_path / "own.ckpt", trust="tests")
    assert isinstance(again, OwnTask) and again.pull == 0.5
    assert isinstance(OCRNet.from_checkpoint(tmp_path / "own.ckpt", trust="tests").encoder, TinyEncoder)


def test_weights_of_the_encoder_are_not_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the encoder, nor for one inside it."""
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.pt")
    weights = {"name": "test_efficientnet", "weights": str(tmp_path / "weights.pt")}
    encoder = TimmEncoder(**weights)
    task = make_task(encoder=encoder)
    assert task.hparams["encoder"]["init_args"]["weights"] == str(tmp_path / "weights.pt")
    torch.save(saved(task), tmp_path / "python.ckpt")
    (tmp_path / "weights.pt").unlink()
    state = OCRNet.from_checkpoint(tmp_path / "python.ckpt").state_dict()
    for name, value in task.network.state_dict().items():
        assert torch.equal(value, state[name]), name
