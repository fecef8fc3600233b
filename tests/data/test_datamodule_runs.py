"""What a trainer sees of the loaders: epochs, processes, the last epochs, going on in the middle of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image
from torch import Tensor

from ocrnet_pl.callbacks.continuation import Continuation
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.sources.wrappers.mixture import Mixture
from ocrnet_pl.data.transforms import Transform
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.structures import Batch, Sample
from tests.data.test_datamodule import collect, make_module
from tests.helpers.label_sources import Scenes
from tests.helpers.processes import run_together


class Recorder(pl.LightningModule):
    """Notes what it is given, one JSON line a batch."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def _note(self, stage: str, batch: Batch) -> None:
        entry = {
            "stage": stage,
            "epoch": self.current_epoch,
            "size": list(batch.images.shape[2:]),
            "ids": batch.image_ids,
            "counted": [bool(truth.supervision.detection.any()) for truth in batch.truths],
        }
        with open(self.folder / f"rank{self.global_rank}.jsonl", "a") as file:
            file.write(json.dumps(entry) + "\n")

    def training_step(self, batch: Batch, index: int) -> Tensor:
        self._note("train", batch)
        return self.weight.sum()

    def validation_step(self, batch: Batch, index: int) -> None:
        self._note("val", batch)

    def on_validation_epoch_end(self) -> None:
        # Every process has to come here, or this gathering would wait for ever.
        self.all_gather(torch.ones(1))

    def predict_step(self, batch: Batch, index: int) -> None:
        self._note("predict", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def _run(tmp_path: Path, module: JointDataModule, **options: Any) -> list[list[dict[str, Any]]]:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(accelerator="cpu", max_epochs=3, num_sanity_val_steps=0, **quiet, **options)
    recorder = Recorder(tmp_path)
    trainer.fit(recorder, module)
    if module.predict_path is not None:
        trainer.predict(recorder, module, return_predictions=False)
    return _entries(tmp_path)


def _entries(folder: Path) -> list[list[dict[str, Any]]]:
    """Return what each process noted."""
    paths = sorted(folder.glob("rank*.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


@pytest.mark.filterwarnings("ignore")
def test_lightning_counts_the_epochs_on_one_process(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (30, 40)).save(images / "a.png")
    module = make_module(predict_path=str(images))
    (entries,) = _run(tmp_path, module, devices=1)
    train = [entry for entry in entries if entry["stage"] == "train"]
    expected = list(collect(make_module(), epochs=3))
    assert [entry["ids"] for entry in train] == [batch.image_ids for batch in expected]
    assert [entry["size"] for entry in train] == [list(batch.images.shape[2:]) for batch in expected]
    assert len({json.dumps(entry["ids"]) for entry in train}) == 6  # shuffled anew each epoch
    assert [entry["ids"] for entry in entries if entry["stage"] == "val"] == [[0, 1, 2, 3], [4]] * 3
    assert [entry["ids"] for entry in entries if entry["stage"] == "predict"] == [["a.png"]]


def share(folder: Path) -> None:
    """Train, validate and predict as one of two processes."""
    module = make_module(batch_size=2, val=SyntheticSource(1, 1, 64), predict_path=str(folder / "images"))
    _run(folder, module, devices=2, strategy="ddp")


@pytest.mark.filterwarnings("ignore")
def test_two_processes_share_without_duplicates_or_hanging(tmp_path: Path) -> None:
    """One validation and one prediction image for two processes."""
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (30, 40)).save(images / "a.png")
    run_together(tmp_path / "results", 2, share, tmp_path)
    one, two = _entries(tmp_path)
    for epoch in range(3):
        shares = [[e for e in rank if e["stage"] == "train" and e["epoch"] == epoch] for rank in (one, two)]
        assert [e["size"] for e in shares[0]] == [e["size"] for e in shares[1]] and len(shares[0]) == 2
        ids = [i for share in shares for e in share for i in e["ids"]]
        assert len(ids) == len(set(ids)) == 8
    assert [e["counted"] for e in one if e["stage"] == "val"] == [[True]] * 3
    assert [e["counted"] for e in two if e["stage"] == "val"] == [[False]] * 3
    assert [e["stage"] for e in one + two].count("predict") == 1


class Paint(Transform):
    """Leaves nothing of the image."""

    def __call__(self, sample: Sample, size: Size, generator: torch.Generator) -> Sample:
        return sample.replace(image=torch.full_like(sample.image, 7))


class Painted(Recorder):
    """Notes which batches were augmented."""

    def _note(self, stage: str, batch: Batch) -> None:
        with open(self.folder / f"rank{self.global_rank}.jsonl", "a") as file:
            file.write(json.dumps({"stage": stage, "plain": bool((batch.images != 7).any())}) + "\n")


QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("length", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 6}])
def test_the_last_epochs_are_plain_with_persistent_workers(tmp_path: Path, length: dict[str, int]) -> None:
    module = make_module(train_transforms=[Paint()], plain_epochs=1, num_workers=1, scales=[1.0])
    pl.Trainer(**QUIET, **length).fit(Painted(tmp_path), module)
    entries = [json.loads(line) for line in (tmp_path / "rank0.jsonl").read_text().splitlines()]
    assert [entry["plain"] for entry in entries if entry["stage"] == "train"] == [False] * 4 + [True] * 2


class Planned(Recorder):
    """Asks for the length of the schedule, as the task does, which sets the loaders up before their state is there."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


class Save(pl.Callback):
    """Saves after one step, or breaks in the middle of it."""

    def __init__(self, path: Path, step: int, fail: bool) -> None:
        self.path, self.step, self.fail = path, step, fail

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.step and not self.fail:
            trainer.save_checkpoint(self.path)

    def on_before_zero_grad(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == self.step and self.fail:
            trainer.save_checkpoint(self.path)
            raise RuntimeError("broken off")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("step", "fail", "workers"),
    [
        *((step, fail, 0) for step, fail in ((2, False), (7, False), (8, False), (7, True))),
        (7, True, 2),
        *(pytest.param(step, False, 2, marks=pytest.mark.slow) for step in (2, 7, 8)),
    ],
)
def test_a_run_goes_on_in_the_middle_of_an_epoch(tmp_path: Path, workers: int, step: int, fail: bool) -> None:
    """Four batches an epoch, three epochs; what follows is what the uninterrupted run did."""

    def run(folder: str, *callbacks: pl.Callback, ckpt_path: Path | None = None) -> list[dict[str, Any]]:
        (tmp_path / folder).mkdir()
        train = Mixture({"a": Scenes(length=9), "b": Scenes(length=7)}, {"a": 2.0, "b": 1.0})
        module = make_module(train=train, val=Scenes(), num_workers=workers)
        trainer = pl.Trainer(**QUIET, max_epochs=3, callbacks=list(callbacks))
        try:
            trainer.fit(Planned(tmp_path / folder), module, ckpt_path=ckpt_path)
        except RuntimeError as error:
            assert "broken off" in str(error)
        lines = (tmp_path / folder / "rank0.jsonl").read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["stage"] == "train"]

    path = tmp_path / "middle.ckpt"
    whole = run("whole", *([] if fail else [Save(path, step, fail)]))
    assert len(whole) == 12
    if fail:
        run("broken", Save(path, step, fail))
    continued = run("continued", ckpt_path=path)
    assert continued == whole[step:]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("before", "step", "after", "done"), [(4, 2, 2, 4), (2, 5, 4, 2), (4, 4, 2, 8), (2, 8, 4, 4)])
def test_a_run_goes_on_with_batches_of_another_size(
    tmp_path: Path, before: int, step: int, after: int, done: int
) -> None:
    """As where processes come or go: the epoch goes on after as many images, and is validated at its end."""

    def run(folder: str, size: int, *callbacks: pl.Callback, ckpt_path: Path | None = None) -> list[dict[str, Any]]:
        (tmp_path / folder).mkdir()
        module = make_module(train=Scenes(length=16), val=Scenes(), batch_size=size, scales=[1.0])
        pl.Trainer(**QUIET, max_epochs=2, callbacks=list(callbacks)).fit(
            Planned(tmp_path / folder), module, ckpt_path=ckpt_path
        )
        return [json.loads(line) for line in (tmp_path / folder / "rank0.jsonl").read_text().splitlines()]

    def epochs(entries: list[dict[str, Any]], stage: str) -> list[int]:
        return [entry["epoch"] for entry in entries if entry["stage"] == stage]

    path = tmp_path / "middle.ckpt"
    run("before", before, Save(path, step, False))
    whole = run("whole", after)
    continued = run("continued", after, Continuation(tmp_path, step), ckpt_path=path)
    train = [entry for entry in whole if entry["stage"] == "train"]
    assert [entry for entry in continued if entry["stage"] == "train"] == train[done:]
    # A save at an epoch's last batch is one before its validation, which Lightning leaves out.
    validated = set(epochs(whole, "val")) - ({0} if done == 16 // after else set())
    assert set(epochs(continued, "val")) == validated


def test_the_loader_alone_goes_on_too() -> None:
    loader = make_module(train=Scenes(length=16), val=None).train_dataloader()
    loader.sampler.set_epoch(2)
    whole, state = [], {}
    for batch in loader:
        whole.append(batch.image_ids)
        if len(whole) == 3:
            state = loader.state_dict()
    assert state == {"epoch": 2, "batches": 3, "length": 4, "images_per_batch": 4}
    other = make_module(train=Scenes(length=16), val=None, num_workers=1).train_dataloader()
    other.load_state_dict(state)
    other.sampler.set_epoch(2)
    assert [batch.image_ids for batch in other] == whole[3:]
    assert other.state_dict() == state | {"batches": 4}
    assert len(list(other)) == 4  # only once


@pytest.mark.filterwarnings("ignore")
def test_skipped_files_stand_in_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lightning.pytorch.loggers import CSVLogger

    from ocrnet_pl.callbacks.memory import PeakMemory
    from ocrnet_pl.callbacks.summary import Summary
    from ocrnet_pl.callbacks.throughput import Throughput

    module = make_module(train=Scenes(length=8, broken=(3,)), val=Scenes(length=4, broken=(1, 2)), on_error="skip")
    options = QUIET | {"logger": CSVLogger(tmp_path, "run"), "callbacks": [Summary(Throughput(), PeakMemory())]}
    pl.Trainer(**options, max_epochs=2).fit(Recorder(tmp_path), module)
    content = json.loads((tmp_path / "run" / "version_0" / "summary.json").read_text())
    assert content["skipped"] == 3 and content["steps"] == 4
    assert content["skipped_files"] == {"1.png": "broken", "2.png": "broken", "3.png": "broken"}
    assert "skipped: 3.png: broken" in capsys.readouterr().out
