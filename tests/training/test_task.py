from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.optim import SGD

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.structures import Sample, Supervision, Taxonomy
from ocrnet_pl.training.task import OCRNetTask
from tests.helpers.builders import TinyEncoder


class PartlyLabelled(Source):
    """Drawn scenes, some of them stripped of labels."""

    def __init__(self, length: int, boxes: Callable[[int], bool], pixels: Callable[[int], bool]) -> None:
        self.inner = SyntheticSource(length=length, seed=5, size=64)
        self.boxes, self.pixels = boxes, pixels

    @property
    def taxonomy(self) -> Taxonomy:
        return self.inner.taxonomy

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Sample:
        sample = self.inner[index]
        boxes, pixels = self.boxes(index), self.pixels(index)
        sample = sample.replace(supervision=Supervision.full(self.taxonomy, detection=boxes, semantic=pixels))
        if not boxes:
            none = sample.boxes[:0]
            sample = sample.replace(
                boxes=type(sample.boxes)(none, format="XYXY", canvas_size=sample.size),  # type: ignore[call-arg]
                labels=sample.labels[:0],
                crowd=sample.crowd[:0],
                instances=None,
            )
        return sample if pixels else sample.replace(semantic=None)


def never(index: int) -> bool:
    return False


def always(index: int) -> bool:
    return True


def even(index: int) -> bool:
    return index % 2 == 0


def odd(index: int) -> bool:
    return index % 2 == 1


def make_task(taxonomy: Taxonomy, **options: object) -> OCRNetTask:
    parts: dict[str, object] = {
        "encoder": TinyEncoder(),
        # Not lambdas: starting further processes pickles the task.
        "neck": functools.partial(PathAggregationNeck, width=8),
        "segmentation": functools.partial(SubPixelDecoder, width=8, detail=4),
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.05),
        "input_size": (64, 64),
    }
    return OCRNetTask(taxonomy, **(parts | options))  # type: ignore[arg-type]


def make_data(train: Source, val: Source, batch_size: int = 4) -> JointDataModule:
    return JointDataModule(train, val, size=64, scales=[1.0], batch_size=batch_size, num_workers=0, seed=0)


def make_trainer(tmp_path, **options: object) -> Trainer:
    settings: dict[str, object] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        "max_epochs": 1,
    }
    return Trainer(**(settings | options))  # type: ignore[arg-type]


def run_fit(tmp_path, train: Source, task: OCRNetTask | None = None, **options: object) -> dict[str, torch.Tensor]:
    seed_everything(0, verbose=False)
    trainer = make_trainer(tmp_path, **options)
    val = SyntheticSource(length=5, seed=6, size=64)
    trainer.fit(task or make_task(train.taxonomy), make_data(train, val))
    return dict(trainer.callback_metrics)


def test_the_promised_keys_are_logged(tmp_path) -> None:
    figures = run_fit(tmp_path, SyntheticSource(length=8, seed=5, size=64))
    promised = {"train/loss", *(f"train/loss_{term}" for term in ("box", "confidence", "class", "ce", "dice"))}
    for name in ("map", "map_50", "map_75", "miou", "pq"):
        promised |= {f"val/{name}", f"val/fused_{name}"}
    assert promised <= set(figures)
    assert {"val/fused_mask_map", "val/score", "val/map_per_class/star", "val/iou_per_class/sky"} <= set(figures)
    assert all(math.isfinite(figures[key]) for key in promised)


def test_the_bar_shows_a_loss_that_is_fetched_at_logged_steps_only(tmp_path) -> None:
    shown, losses = [], []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
            if trainer.global_step:
                shown.append(float(trainer.progress_bar_metrics["loss"]))
                losses.append(float(trainer.callback_metrics["train/loss"]))

    run_fit(tmp_path, SyntheticSource(length=28, seed=5, size=64), callbacks=[Watch()], log_every_n_steps=3)
    assert len(set(losses)) == 6
    assert shown == [losses[0]] * 3 + [losses[3]] * 3


@pytest.mark.parametrize("alone", ["detection", "segmentation"])
def test_each_task_trains_alone(tmp_path, alone: str) -> None:
    other = {"detection": "segmentation", "segmentation": "detection"}[alone]
    source = SyntheticSource(length=8, seed=5, size=64)
    figures = run_fit(tmp_path, source, make_task(source.taxonomy, **{other: None}))
    assert ("val/map" in figures) == (alone == "detection")
    assert ("val/miou" in figures) == (alone == "segmentation")
    assert "val/pq" not in figures


@pytest.mark.parametrize(
    ("boxes", "pixels"), [(never, always), (always, never), (never, never), (even, always), (always, even)]
)
def test_missing_labels_train_on(tmp_path, boxes: Callable[[int], bool], pixels: Callable[[int], bool]) -> None:
    figures = run_fit(tmp_path, PartlyLabelled(8, boxes, pixels))
    assert math.isfinite(figures["train/loss"])


def test_a_decoder_does_not_learn_from_images_not_labelled_for_it(tmp_path) -> None:
    source = PartlyLabelled(8, never, always)
    task = make_task(source.taxonomy, optimizer=lambda params: SGD(params, lr=0.1))
    assert task.network.detection is not None
    before = [p.clone() for p in task.network.detection.parameters()]
    run_fit(tmp_path, source, task)
    assert all(torch.equal(a, b) for a, b in zip(before, task.network.detection.parameters(), strict=True))


def test_norms_and_biases_have_no_decay_and_a_pretrained_encoder_a_lower_rate(tmp_path) -> None:
    source = SyntheticSource(length=8, seed=5, size=64)
    task = make_task(source.taxonomy, encoder_lr=0.1)
    task.network.encoder.pretrained = True
    trainer = make_trainer(tmp_path, max_steps=1, max_epochs=None)
    task.trainer = trainer
    trainer.strategy.connect(task)
    trainer.fit(task, make_data(source, source))
    (optimizer,) = trainer.optimizers
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert set(groups) == {"encoder", "encoder_no_decay", "decoders", "decoders_no_decay"}
    for part in ("encoder", "encoder_no_decay"):
        assert groups[part]["initial_lr"] == pytest.approx(0.1 * groups["decoders"]["initial_lr"]), part
    assert groups["decoders_no_decay"]["initial_lr"] == groups["decoders"]["initial_lr"]
    for name, group in groups.items():
        assert all((p.ndim > 1) != name.endswith("no_decay") for p in group["params"])
        assert (group["weight_decay"] == 0) == name.endswith("no_decay")
    counted = sum(p.numel() for group in groups.values() for p in group["params"])
    assert counted == sum(p.numel() for p in task.network.parameters())


def test_bf16_trains(tmp_path) -> None:
    figures = run_fit(tmp_path, SyntheticSource(length=8, seed=5, size=64), precision="bf16-mixed")
    assert math.isfinite(figures["train/loss"])


def test_the_same_seed_gives_the_same_training(tmp_path) -> None:
    runs = [run_fit(tmp_path, SyntheticSource(length=8, seed=5, size=64)) for _ in range(2)]
    for key, value in runs[0].items():
        torch.testing.assert_close(runs[1][key], value, rtol=0, atol=0, equal_nan=True)


def test_two_processes_train_with_a_rank_without_boxes_or_masks_and_validate_like_one(tmp_path) -> None:
    """Five validation images over two ranks; of the training images each rank sees its own kind of label only."""
    val = SyntheticSource(length=5, seed=6, size=64)
    task = make_task(val.taxonomy)
    single = make_trainer(tmp_path).validate(copy.deepcopy(task), make_data(val, val), verbose=False)[0]
    both = {"strategy": "ddp_fork", "devices": 2}
    double = make_trainer(tmp_path, **both).validate(task, make_data(val, val), verbose=False)[0]
    assert set(double) == set(single)
    for key, value in single.items():
        assert double[key] == pytest.approx(value, abs=1e-6, nan_ok=True), key
    # A rank's share is every other image of the shuffled order; stripping by parity leaves it mixed batches, and a
    # batch of one is then always of a single kind, often another than the other rank's at the same step.
    train = PartlyLabelled(8, even, odd)
    trainer = make_trainer(tmp_path, **both)
    task = make_task(train.taxonomy)
    before = [p.detach().clone() for p in task.parameters()]
    trainer.fit(task, make_data(train, val, batch_size=1))
    # What the processes trained comes back with the first one's weights and figures.
    assert all(not torch.equal(old, new) for old, new in zip(before, task.parameters(), strict=True))
    assert math.isfinite(trainer.callback_metrics["val/score"])
