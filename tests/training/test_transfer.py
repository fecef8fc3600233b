# Annotations are classes here and not text, as they may be in a user's own module.
"""Batches on their way to the device: every tensor once, and nobody waits for it."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import tv_tensors

from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.structures import Batch
from tests.training.test_task import make_data, make_task, make_trainer

TENSORS = 8


@dataclass
class Tracked(Batch):
    """A user's own batch, with a tensor more."""

    tracks: Tensor | None = None


class Copies(TorchDispatchMode):
    """Notes each copy between devices: what was copied, where to, and whether it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            self.found.append((args[0].data_ptr(), str(kwargs["device"]), bool(kwargs.get("non_blocking"))))
        return func(*args, **kwargs)


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}


def evaluation_batch(images: int = 2) -> Batch:
    source = SyntheticSource(length=images, seed=6, size=64)
    batch: Batch = next(iter(make_data(source, source).val_dataloader()))
    assert len(batch.truths) == images
    return batch


@pytest.fixture(scope="module")
def attached(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trainer whose strategy moves batches as in a run, and what it called while it ran each stage."""
    folder = tmp_path_factory.mktemp("run")
    source = SyntheticSource(length=4, seed=5, size=64)
    task, data = make_task(source.taxonomy), make_data(source, source, batch_size=2)
    trainer = make_trainer(folder, num_sanity_val_steps=0)
    moved: list[Batch] = []
    original = Batch.to

    def spy(batch: Batch, *arguments: Any, **options: Any) -> Batch:
        moved.append(batch)
        return original(batch, *arguments, **options)

    counts = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "to", spy)
        trainer.fit(task, data)
        counts["fit"] = len(moved)
        for stage in (trainer.validate, trainer.test):
            moved.clear()
            stage(task, data, verbose=False)
            counts[stage.__name__] = len(moved)
        moved.clear()
        trainer.predict(task, data.val_dataloader(), return_predictions=False)
        counts["predict"] = len(moved)
    return trainer, counts


def test_every_stage_moves_each_batch_once(attached: Any) -> None:
    assert attached[1] == {"fit": 4, "validate": 2, "test": 2, "predict": 2}


def test_every_tensor_is_copied_once_and_not_waited_for(attached: Any) -> None:
    """The device without memory takes part in all but the copying itself."""
    batch = evaluation_batch()
    size = (64, 64)
    typed = replace(
        batch,
        images=tv_tensors.Image(batch.images),
        boxes=tv_tensors.BoundingBoxes(batch.boxes.flatten(0, 1), format="XYXY", canvas_size=size),  # type: ignore[call-arg]
        semantic=tv_tensors.Mask(batch.semantic),
    )
    more = Tracked(**vars(batch), tracks=torch.ones(2, 3))
    for given, count in ((batch, TENSORS), (typed, TENSORS), (more, TENSORS + 1)):
        sources = {value.data_ptr() for value in tensors_of(given).values()}
        assert len(sources) == count
        with Copies() as copies:
            arrived = attached[0].strategy.batch_to_device(given, torch.device("meta"))
        assert {pointer for pointer, _, _ in copies.found} == sources and len(copies.found) == count
        assert all(device == "meta" and non_blocking for _, device, non_blocking in copies.found)
        assert type(arrived) is type(given) and all(value.is_meta for value in tensors_of(arrived).values())
        # What is evaluated against stays with the host, untouched.
        assert all(one is two for one, two in zip(arrived.truths, given.truths, strict=True))
        assert not any(value.is_meta for value in tensors_of(given).values())


def test_on_the_cpu_nothing_is_copied(attached: Any) -> None:
    batch = evaluation_batch()
    before = tensors_of(batch)
    with Copies() as copies:
        arrived = attached[0].strategy.batch_to_device(batch)
    assert arrived is batch and not copies.found
    assert all(value is before[name] for name, value in tensors_of(arrived).items())


class Recorder:
    """Stands in for a tensor on another device."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    def to(self, device: Any, non_blocking: bool = False) -> Tensor:
        self.asked.append((str(device), non_blocking))
        return torch.zeros(1)


@pytest.mark.parametrize(("device", "wanted"), [("cuda:1", True), ("xpu", True), ("cpu", False), ("mps", False)])
def test_only_the_way_to_an_accelerator_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: bool
) -> None:
    """The host reads at once what comes to it: a copy that has not arrived would be read as noise."""
    recorder = Recorder()
    batch = evaluation_batch(1)
    monkeypatch.setattr(Batch, "_map_tensors", lambda self, function: function(recorder))
    for name in (device, torch.device(device)):
        batch.to(name)
        batch.to(name, non_blocking=not wanted)
    assert [asked for _, asked in recorder.asked] == [wanted, not wanted] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_pinned_batch_arrives_whole_on_the_gpu() -> None:
    batch = evaluation_batch().pin_memory()
    assert all(value.is_pinned() for value in tensors_of(batch).values())
    back = batch.to("cuda").to("cpu")
    for name, value in tensors_of(batch).items():
        assert torch.equal(tensors_of(back)[name], value), name
