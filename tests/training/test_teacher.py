"""A network that teaches another one: what moves, what is refused, and a run with it on the command line."""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ocrnet_pl import JointDataModule, init_from
from ocrnet_pl.cli.main import main
from ocrnet_pl.cli.preflight import check_sizes, training_figures
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.structures import Taxonomy
from ocrnet_pl.training.task import OCRNetTask
from ocrnet_pl.training.teacher import Teacher
from tests.helpers.builders import TAXONOMY, TinyEncoder, make_batch
from tests.helpers.project import CONFIGS
from tests.helpers.teachers import write_teacher
from tests.helpers.tiny_run import TINY, fails
from tests.training.test_task import make_task

NEW = Taxonomy.build(things=["ring", "star", "disc"], stuff=["ground", "sky"])
"""The classes of the teacher in another order, one gone and one new."""
BRANCHES = {"class_path": "ocrnet_pl.models.detection.OneToOneDecoder"}


class CoarseEncoder(TinyEncoder):
    """Has one map less, and takes single-channel images if it is asked to."""

    def __init__(self, gray: bool = False) -> None:
        super().__init__()
        self.channels, self.strides = self.channels[1:], self.strides[1:]
        if gray:
            self.mean, self.std = (0.5,), (0.25,)
            self.stages[0] = torch.nn.Conv2d(1, 8, 5, stride=4, padding=2)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return super().forward(images)[1:]


def told(task: OCRNetTask, batch: Any) -> dict[str, float]:
    terms = task.losses(task(batch.images), batch)[1]
    return {name: term.item() for name, term in terms.items() if name.startswith("teacher_")}


def batch_of_new() -> Any:
    batch = make_batch([[[8, 8, 40, 40]], []], [[0], []], taxonomy=NEW)
    batch.detection_classes[:, 1:] = False
    batch.semantic_classes[:, 3:] = False
    return batch


def test_the_classes_that_both_have_are_taught_and_the_teacher_stays_as_it_is(tmp_path: Path) -> None:
    write_teacher(tmp_path / "old.ckpt")
    teacher = Teacher(str(tmp_path / "old.ckpt"), trust=["tests"])
    task = make_task(NEW, teacher=teacher).train()
    batch = batch_of_new()
    output = task(batch.images)
    boxes, pixels = teacher(task.network, output, batch)
    assert {*boxes, *pixels} == {"teacher_boxes", "teacher_pixels"}
    (boxes["teacher_boxes"] + pixels["teacher_pixels"]).backward()
    head = task.network.detection.class_head[0].weight.grad  # type: ignore[union-attr, index]
    # The confidence, a new class, and two old ones.
    assert [bool(row.abs().sum() > 0) for row in head] == [True, False, True, True]
    assert teacher.network is not None and not teacher.network.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.network.parameters())
    assert all(parameter.grad is not None for parameter in task.network.parameters())
    count = sum(1 for _ in task.network.parameters())
    assert len(list(task.parameters())) == count == sum(len(g["params"]) for g in task.make_optimizer().param_groups)
    assert not any("teacher" in name for name in [*task.state_dict(), *task.hparams])
    # A folder without pickle teaches the same.
    teacher.network.save(tmp_path / "saved")
    saved = make_task(NEW, teacher=Teacher(str(tmp_path / "saved"), trust=["tests"])).train()
    saved.load_state_dict(task.state_dict())
    assert told(saved, batch) == pytest.approx({k: v.item() for k, v in (boxes | pixels).items()})
    # As an average of the weights copies the task.
    assert copy.deepcopy(task).teacher is teacher
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    assert told(task, batch) == pytest.approx({k: v.item() for k, v in (boxes | pixels).items()})
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())


def test_a_student_with_its_teachers_weights_is_told_nothing_new(tmp_path: Path) -> None:
    network = write_teacher(tmp_path / "old.ckpt")
    task = make_task(TAXONOMY, teacher=Teacher(str(tmp_path / "old.ckpt"), trust=["tests"])).eval()
    task.network.load_state_dict(network.state_dict())
    batch = make_batch([[[8, 8, 40, 40]], []], [[0], []], taxonomy=TAXONOMY)
    assert told(task, batch) == pytest.approx({"teacher_boxes": 0, "teacher_pixels": 0}, abs=1e-5)
    task.network.detection.class_head[0].bias.data += 1  # type: ignore[union-attr, index]
    assert told(task, batch)["teacher_boxes"] > 0.01


def test_classes_in_another_order_are_taught_by_their_names(tmp_path: Path) -> None:
    write_teacher(tmp_path / "old.ckpt")
    order = Taxonomy.build(things=["star", "disc", "square"], stuff=["ground", "sky"])
    task = make_task(order, teacher=Teacher(str(tmp_path / "old.ckpt"), trust=["tests"])).eval()
    init_from(task, tmp_path / "old.ckpt")
    batch = make_batch([[[8, 8, 40, 40]], []], [[0], []], taxonomy=order)
    assert told(task, batch) == pytest.approx({"teacher_boxes": 0, "teacher_pixels": 0}, abs=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_other_encoders_strides_and_branches_teach_as_well(precision: torch.dtype, tmp_path: Path) -> None:
    batch = batch_of_new()
    coarse = {"encoder": {"class_path": "tests.training.test_teacher.CoarseEncoder"}}
    write_teacher(tmp_path / "coarse.ckpt", **coarse)
    write_teacher(tmp_path / "both.ckpt", detection=BRANCHES)
    for name, options in (
        ("coarse", {}),
        ("both", {}),
        ("coarse", {"pixel_weight": 0.0}),
        ("both", {"box_weight": 0.0}),
    ):
        teacher = Teacher(str(tmp_path / f"{name}.ckpt"), trust=["tests"], **options)
        task = make_task(NEW, teacher=teacher)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            terms = told(task, batch)
        assert all(value > 0 for value in terms.values()), (name, terms)
        assert len(terms) == 2 - len(options)


def test_both_branches_of_a_student_learn_from_those_of_its_teacher(tmp_path: Path) -> None:
    from ocrnet_pl.losses.one_to_one import OneToOneDetectionLoss
    from ocrnet_pl.models.detection import OneToOneDecoder

    network = write_teacher(tmp_path / "both.ckpt", detection=BRANCHES)
    teacher = Teacher(str(tmp_path / "both.ckpt"), trust=["tests"], pixel_weight=0)
    options: dict[str, Any] = {"detection": OneToOneDecoder, "detection_loss": OneToOneDetectionLoss()}
    task = make_task(TAXONOMY, teacher=teacher, **options).train()
    task.network.load_state_dict(network.state_dict())
    batch = make_batch([[[8, 8, 40, 40]], []], [[0], []], taxonomy=TAXONOMY)
    start = told(task, batch)["teacher_boxes"]
    for branch in ("one_to_one", "one_to_many"):
        changed = copy.deepcopy(task)
        getattr(changed.network.detection, branch).class_head[0].bias.data += 1
        assert told(changed, batch)["teacher_boxes"] > start + 0.01
    # Layers that behave otherwise in training stay as they are in evaluation.
    assert teacher.network is not None and teacher.network.detection is not None
    assert not any(module.training for branch in teacher.network.detection.children() for module in branch.modules())


def test_what_a_teacher_adds_to_the_loss_can_be_monitored(tmp_path: Path) -> None:
    write_teacher(tmp_path / "old.ckpt")
    task = make_task(NEW, teacher=Teacher(str(tmp_path / "old.ckpt"), trust=["tests"], pixel_weight=0))
    figures = training_figures(task, (64, 64))
    assert "train/loss_teacher_boxes" in figures and "train/loss_teacher_pixels" not in figures


def test_what_is_background_is_for_the_teacher_to_say_and_it_goes_where_the_student_is(tmp_path: Path) -> None:
    write_teacher(tmp_path / "old.ckpt")
    # To the student, the sky is a thing.
    student = make_task(Taxonomy.build(things=["sky", "disc"], stuff=["ground"])).network
    teacher = Teacher(str(tmp_path / "old.ckpt"), trust=["tests"])
    network = teacher.load(student)
    shared = teacher._shared["pixel_weight"]
    background = [student.taxonomy.semantic_categories[i].name for i in shared.student[shared.rest]]
    assert sorted(background) == ["ground", "sky"]
    assert teacher.load(student, "meta") is network and next(network.parameters()).device.type == "meta"
    assert all(each.student.device.type == "meta" for each in teacher._shared.values())


def test_a_teacher_for_one_size_is_refused_before_the_first_step(tmp_path: Path) -> None:
    write_teacher(tmp_path / "old.ckpt")
    teacher = Teacher(str(tmp_path / "old.ckpt"), trust=["tests"])
    task = make_task(NEW, teacher=teacher)
    data = JointDataModule(SyntheticSource(length=2, size=64), size=64, scales=(1.0, 1.5))
    check_sizes(task, data)
    teacher.load(task.network).encoder.fixed_size = (64, 64)
    with pytest.raises(MisconfigurationException, match=r"model\.teacher: .* takes images of 64x64 only, not 96x96"):
        check_sizes(task, data)


def test_what_cannot_teach_is_refused_in_a_line(tmp_path: Path) -> None:
    path = str(tmp_path / "old.ckpt")
    task = make_task(NEW)

    def refuses(pattern: str, student: OCRNet = task.network, **options: Any) -> None:
        with pytest.raises(CheckpointError, match=pattern) as refused:
            Teacher(path, trust=["tests"], **options).load(student)
        assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)

    refuses("there is no such file; training needs it")
    (tmp_path / "old.ckpt").mkdir()
    refuses(r"model\.teacher: network .*: there is no file network\.json")
    (tmp_path / "old.ckpt").rmdir()
    write_teacher(
        tmp_path / "old.ckpt",
        encoder={"class_path": "tests.training.test_teacher.CoarseEncoder", "init_args": {"gray": True}},
    )
    refuses("images of 1 channels, the network in training of 3")
    write_teacher(tmp_path / "old.ckpt")
    content = torch.load(tmp_path / "old.ckpt", weights_only=True)
    content["state_dict"]["network.encoder.stages.0.bias"][1] = float("inf")
    torch.save(content, tmp_path / "old.ckpt")
    refuses(r"1 of its tensors hold values that are not finite, such as 'encoder\.stages\.0\.bias'")
    write_teacher(tmp_path / "old.ckpt", detection=None)
    refuses("it has no detection decoder; set box_weight to 0")
    Teacher(path, trust=["tests"], box_weight=0).load(task.network)
    refuses("has nothing to learn", make_task(NEW, segmentation=None).network, box_weight=0)
    write_teacher(tmp_path / "old.ckpt", Taxonomy.build(things=["cow"], stuff=["sky"]))
    refuses(r"none of its classes of detection \('cow'\) is one of the network's; set box_weight to 0")
    write_teacher(tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match="trust"):
        Teacher(path).load(task.network)
    for options, message in (
        ({"box_weight": -1}, "box_weight: expected 0 or more"),
        ({"temperature": 0}, "temperature: expected a number above 0"),
        ({"box_weight": 0, "pixel_weight": 0}, "set model.teacher to null"),
    ):
        with pytest.raises(ValueError, match=message):
            Teacher(path, **options)  # type: ignore[arg-type]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


# configs/test_configs.py takes a step with overlays/transfer/teacher.yaml.
@pytest.mark.slow
def test_a_run_with_a_teacher_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old.ckpt"
    write_teacher(old, Taxonomy.build(things=["star", "disc", "cow"], stuff=["grass", "sky"]))
    (tmp_path / "tiny.yaml").write_text(TINY)
    constant = str(CONFIGS / "overlays/schedules/constant.yaml")
    words = ["--config", str(tmp_path / "tiny.yaml"), f"--trainer.default_root_dir={tmp_path}"]
    words += ["--config", constant]
    taught = [f"--model.teacher.checkpoint={old}", "--model.teacher.trust=[tests]"]
    main(["fit", *words, *taught, "--version=whole"])
    whole = tmp_path / "tiny" / "whole"
    rows = [row for row in rows_of(whole) if row["train/loss"]]
    assert len(rows) == 4 and all(
        float(row[f"train/loss_teacher_{side}"]) > 0 for row in rows for side in ("boxes", "pixels")
    )
    last = read_checkpoint(whole / "checkpoints" / "last.ckpt")
    assert len(last["state_dict"]) == len(make_task(NEW).state_dict()) == len(last["current_model_state"])
    assert (
        "teacher" not in last["hyper_parameters"]
        and last["config"]["model"]["teacher"]["init_args"]["temperature"] == 2
    )

    half = whole / "checkpoints" / "previous.ckpt"
    assert read_checkpoint(half)["global_step"] == 2
    main(["fit", *words, *taught, "--version=rest", f"--ckpt_path={half}"])
    rest = read_checkpoint(tmp_path / "tiny" / "rest" / "checkpoints" / "last.ckpt")
    assert [row["train/loss_teacher_boxes"] for row in rows_of(tmp_path / "tiny" / "rest")[-3:]] == [
        row["train/loss_teacher_boxes"] for row in rows_of(whole)[-3:]
    ]
    assert all(torch.equal(value, rest["state_dict"][name]) for name, value in last["state_dict"].items())

    old.unlink()
    main(["validate", "--trust=tests", f"--ckpt_path={half}", f"--trainer.default_root_dir={tmp_path}"])
    status, error = fails(capsys, "fit", *words, *taught, f"--ckpt_path={half}")
    line = error.splitlines()[-1]
    assert status != 0 and "model.teacher: checkpoint" in line and "there is no such file" in line
