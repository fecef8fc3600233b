"""Batch norms that keep their statistics in training, as they do where old classes are kept."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ocrnet_pl import JointDataModule, init_from, keep_classes
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.structures import Batch
from ocrnet_pl.training.task import OCRNetTask
from tests.training.test_starting import OLD, scenes
from tests.training.test_task import make_data, make_task, make_trainer

RATE = 0.05


def with_norms(**options: object) -> TimmEncoder:
    return TimmEncoder("test_resnet", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose norms have statistics of their own."""
    torch.manual_seed(3)
    task = make_task(OLD, encoder=with_norms())
    for module in task.modules():
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("old") / "old.ckpt"
    torch.save({"state_dict": task.state_dict(), "taxonomy": OLD.to_dict()}, path)
    return path


def prepared(old: Path, keep: bool, **options: Any) -> tuple[OCRNetTask, JointDataModule]:
    data = make_data(scenes(8), scenes(2))
    data.train_transforms = []
    taxonomy = keep_classes(data, old) if keep else data.taxonomy
    torch.manual_seed(5)
    optimizer = functools.partial(torch.optim.SGD, lr=RATE)
    # At a constant rate.
    constant = functools.partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    parts = {"encoder": with_norms(), "optimizer": optimizer, "scheduler": constant, "encoder_lr": 1.0}
    task = make_task(taxonomy, **(parts | options))
    init_from(task, old)
    return task, data


def statistics(task: OCRNetTask) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in task.named_buffers() if "running" in name or "tracked" in name}


@pytest.mark.parametrize(
    ("keep", "chosen", "still"),
    [
        (1, None, 1),
        (0, None, 0),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, False, 0), (0, True, 1))),
    ],
)
def test_kept_classes_or_the_option_keep_the_statistics(
    keep: bool, chosen: bool | None, still: bool, old: Path, tmp_path: Path
) -> None:
    # A stage that begins to train must not take its norms along, nor must a validation in between.
    encoder = with_norms(frozen_stages=1, unfreeze_at={"step": 1})
    task, data = prepared(old, keep, frozen_norms=chosen, encoder=encoder)
    before, weights = statistics(task), [weight.detach().clone() for weight in task.parameters()]
    make_trainer(tmp_path, callbacks=[EMA(0.5)], max_steps=2, val_check_interval=1, num_sanity_val_steps=1).fit(
        task, data
    )
    after = statistics(task)
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert len(before) > 30 and len(moved) == (0 if still else len(before))
    assert not all(torch.equal(a, b) for a, b in zip(weights, task.parameters(), strict=True))


class Seen(Callback):
    """Keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.batches.append(batch)


def test_training_is_that_of_the_network_as_it_predicts(old: Path, tmp_path: Path) -> None:
    task, data = prepared(old, True)
    seen = Seen()
    make_trainer(tmp_path, callbacks=[seen], max_steps=2, limit_val_batches=0).fit(task, data)
    by_hand, _ = prepared(old, True)
    by_hand.eval()
    for batch in seen.batches:
        by_hand.zero_grad()
        by_hand.losses(by_hand(batch.images), batch)[0].backward()
        with torch.no_grad():
            for weight in by_hand.parameters():
                if weight.grad is not None:
                    weight -= RATE * weight.grad
    got = dict(task.named_parameters())
    for name, weight in by_hand.named_parameters():
        torch.testing.assert_close(got[name], weight, atol=1e-5, rtol=1e-4)


def test_a_run_that_continues_keeps_them_still(old: Path, tmp_path: Path) -> None:
    def run(folder: Path, path: Path | None = None) -> dict[str, Any]:
        task, data = prepared(old, True)
        saved = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_last=True)
        options = {"max_epochs": 2, "limit_val_batches": 0, "enable_checkpointing": True}
        make_trainer(folder, callbacks=[saved], **options).fit(task, data, ckpt_path=path, weights_only=True)
        content: dict[str, Any] = read_checkpoint(folder / "last.ckpt")["state_dict"]
        return content

    whole = run(tmp_path / "whole")
    again = run(tmp_path / "again", tmp_path / "whole" / "epoch=0.ckpt")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    first = prepared(old, True)[0].state_dict()
    names = [name for name in whole if "running" in name]
    assert names and all(torch.equal(whole[name], first[name]) for name in names)
