"""The datamodule: the same batches for any number of workers and processes, and nothing lost or counted twice."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from torch import Tensor

from ocrnet_pl.data.cache.shared_cache import Cached
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.sources.wrappers.mixture import Mixture
from ocrnet_pl.data.splits import check_splits
from ocrnet_pl.data.transforms import RandomFlip, Transform
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Batch, Sample, Supervision, Taxonomy
from tests.helpers.label_sources import Scenes


def make_module(**options: Any) -> JointDataModule:
    options = {"train": SyntheticSource(10, 0, 64), "val": SyntheticSource(5, 1, (48, 64))} | options
    return JointDataModule(**({"size": 64, "batch_size": 4, "num_workers": 0, "seed": 3} | options))


class HalfLabelled(Source):
    """Images with boxes only and images with pixels only, in turn."""

    @property
    def taxonomy(self) -> Taxonomy:
        return Taxonomy.build(things=["a"], stuff=["b"])

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Sample:
        boxes = index % 2 == 0
        return make_sample(
            torch.zeros(3, 40, 50, dtype=torch.uint8),
            boxes=[[5, 5, 20, 20]] if boxes else [],
            labels=[0] if boxes else [],
            crowd=[False] if boxes else [],
            semantic=None if boxes else np.ones((40, 50), dtype=np.uint8),
            supervision=Supervision.full(self.taxonomy, detection=boxes, semantic=not boxes),
        )


class Grow(Transform):
    """Leaves a size that nobody asked for."""

    def __call__(self, sample: Sample, size: tuple[int, int], generator: torch.Generator) -> Sample:
        return sample.replace(image=torch.zeros(3, 70, 30, dtype=torch.uint8), semantic=None, instances=None)


def test_training_batches() -> None:
    module = make_module()
    batches = list(module.train_dataloader())
    assert [len(batch) for batch in batches] == [4, 4]
    for batch in batches:
        assert tuple(batch.images.shape[2:]) in module.shapes.sizes and batch.images.dtype == torch.uint8
        assert batch.semantic.shape[1:] == batch.images.shape[2:]
        assert batch.truths == [] and len(batch.placements) == 4
        assert batch.detection_classes.all() and batch.semantic_classes.all()
    assert module.taxonomy == SyntheticSource(1).taxonomy


def collect(module: JointDataModule, epochs: int = 2) -> list[Batch]:
    loader = module.train_dataloader()
    found = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        found += list(loader)
    return found


@pytest.mark.parametrize("cache", [False, True])
def test_batches_do_not_depend_on_the_workers(cache: bool) -> None:
    alone, shared = collect(make_module()), collect(make_module(num_workers=2, cache=cache))
    assert len(alone) == len(shared) == 4
    for one, two in zip(alone, shared, strict=True):
        assert one.image_ids == two.image_ids
        for name in ("images", "boxes", "labels", "valid", "crowd", "semantic"):
            assert torch.equal(getattr(one, name), getattr(two, name))
    assert not torch.equal(alone[0].images[0], alone[2].images[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_truth_at_the_original_size(workers: int) -> None:
    source = SyntheticSource(5, 1, (48, 64))
    batches = list(make_module(num_workers=workers, size=128).val_dataloader())
    assert [image_id for batch in batches for image_id in batch.image_ids] == list(range(5))
    for batch in batches:
        for i, truth in enumerate(batch.truths):
            expected = source[int(batch.image_ids[i])]
            for name in ("image", "boxes", "labels", "crowd", "semantic", "instances"):
                one, two = getattr(truth, name), getattr(expected, name)
                assert type(one) is type(two) and one.dtype == two.dtype and torch.equal(one, two)
            assert truth.boxes.canvas_size == (48, 64) and truth.supervision.detection.all()
            placement = batch.placements[i]
            assert placement.original_size == (48, 64) and placement.scale == (2.0, 2.0)
            rows = batch.boxes[i][batch.valid[i]]
            assert torch.allclose(rows, expected.boxes.as_subclass(Tensor) * 2)


def test_truth_at_the_input_size() -> None:
    for batch in make_module(size=128, evaluate_at="input").val_dataloader():
        for i, truth in enumerate(batch.truths):
            assert truth.size == (128, 128) and batch.placements[i].scale == (1.0, 1.0)
            assert torch.equal(truth.image.as_subclass(Tensor), batch.images[i])
            assert torch.equal(truth.boxes.as_subclass(Tensor), batch.boxes[i][batch.valid[i]])
            assert (truth.semantic.as_subclass(Tensor)[96:] == 255).all()


def test_partly_labelled_images() -> None:
    source = HalfLabelled()
    module = make_module(train=source, val=source, scales=[1.0])
    batch = next(iter(module.train_dataloader()))
    for i in range(len(batch)):
        boxes = bool(batch.detection_classes[i].all())
        assert boxes == bool(batch.valid[i].any()) == bool((batch.semantic[i] == 255).all())
        assert batch.semantic_classes[i].tolist() == [not boxes] * 2
    assert len(list(module.val_dataloader())) == 2


def test_whatever_size_the_transforms_leave_is_letterboxed() -> None:
    module = make_module(train_transforms=[Grow()], scales=[1.0])
    assert next(iter(module.train_dataloader())).images.shape == (4, 3, 64, 64)


def test_test_falls_back_to_val() -> None:
    ids = [image_id for batch in make_module().test_dataloader() for image_id in batch.image_ids]
    assert ids == list(range(5))


@pytest.mark.parametrize("workers", [0, 2])
def test_predict_skips_and_reports_what_it_cannot_read(tmp_path: Path, workers: int) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / name)
    for name in ("b.png", "c.png"):  # readable headers, broken contents; a whole batch of them
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    (tmp_path / "notes.txt").write_text("hello")
    module = make_module(num_workers=workers, eval_batch_size=1, predict_path=str(tmp_path))
    batches = list(module.predict_dataloader())
    assert [batch.image_ids for batch in batches] == [["a.png"], ["d.png"], ["e.png"]]
    assert {Path(path).name for path, _ in module.skipped} == {"b.png", "c.png", "notes.txt"}
    assert all(reason and str(tmp_path) not in reason for _, reason in module.skipped)
    truth = batches[0].truths[0]
    assert truth.size == (40, 30) and len(truth.boxes) == 0 and truth.path == str(tmp_path / "a.png")
    assert batches[0].placements[0].original_size == (40, 30)


def test_a_broken_training_image_stops_with_its_name(tmp_path: Path) -> None:
    class Broken(SyntheticSource):
        def __getitem__(self, index: int) -> Sample:
            raise DataError.at(tmp_path / "a.png", "broken")

    for workers in (0, 1):
        with pytest.raises(DataError, match=r"a\.png"):
            next(iter(make_module(train=Broken(8), num_workers=workers).train_dataloader()))


class Empty(SyntheticSource):
    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "data.size"),
        ({"size": (1, 2, 3)}, "data.size"),
        ({"size": 100_000}, "data.size: 100000 has more than 200,000,000 pixels"),
        ({"size": 4096, "scales": [1.0, 4.0]}, "data.size: 4096 has more than .* at data.scales"),
        ({"batch_size": 0}, "data.batch_size"),
        ({"batch_size": 10**23}, f"data.batch_size: expected at most {sys.maxsize}"),
        ({"eval_batch_size": 0}, "data.eval_batch_size"),
        ({"num_workers": -1}, "data.num_workers"),
        ({"num_workers": 100_000}, "data.num_workers: expected at most [0-9]+ loading processes on this machine"),
        ({"plain_epochs": -1}, "data.plain_epochs"),
        ({"aspect_ratios": [0.5, -1]}, "data.aspect_ratios"),
        ({"on_error": "ignore"}, "data.on_error"),
        ({"root": "somewhere"}, "no source starts its paths from it"),
        ({"scales": []}, "scales"),
        ({"scales": [1.0, math.nan]}, "data.scales must be positive numbers"),
        ({"evaluate_at": "both"}, "data.evaluate_at"),
        ({"train": Empty()}, "data.train"),
        ({"val": HalfLabelled()}, "data.val.*8 categories against 2"),
    ],
)
def test_wrong_options_are_named_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_module(**options)


@pytest.mark.parametrize(
    ("things", "stuff", "words"),
    [
        (["b"], ["c"], "category 1 is 'a' against 'b'"),
        (["c"], ["a"], "category 0 is 'c' against 'a'"),
        (["a", "c"], [], "category 0 is 'c' against 'a'"),
        (["c", "a"], [], "category 0, 'c', has is_thing False against True, .*detection None against 0"),
    ],
)
def test_categories_that_differ_are_named(things: list[str], stuff: list[str], words: str) -> None:
    class Other(HalfLabelled):
        taxonomy = property(lambda self: Taxonomy.build(things=things, stuff=stuff))  # type: ignore[assignment]

    class One(HalfLabelled):
        taxonomy = property(lambda self: Taxonomy.build(things=["a"], stuff=["c"]))  # type: ignore[assignment]

    with pytest.raises(DataError, match=rf"data\.val: its categories differ from those of data\.train: {words};"):
        check_splits({"train": One(), "val": Other()})


def test_missing_sources_are_named() -> None:
    module = JointDataModule(num_workers=0)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"):
        with pytest.raises(DataError, match=r"data"):
            getattr(module, name)()
    with pytest.raises(DataError, match=r"data\.train"):
        _ = module.taxonomy


def test_cache_reads_once() -> None:
    class Counting(SyntheticSource):
        reads = 0

        def __getitem__(self, index: int) -> Sample:
            Counting.reads += 1
            return super().__getitem__(index)

    cached = Cached(Counting(4, 0, 64))
    first, second = cached[2], cached[2]
    assert torch.equal(first.image, second.image) and Counting.reads == 1 and len(cached) == 4
    assert cached.taxonomy == Counting(4).taxonomy


def test_the_seed_of_the_run_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    assert make_module(seed=None).seed == 17 and make_module(seed=4).seed == 4


def test_settings_from_yaml() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(JointDataModule, "data")
    settings = """
data:
  train:
    class_path: ocrnet_pl.data.sources.synthetic.SyntheticSource
    init_args: {length: 12, size: [64, 96]}
  val:
    class_path: ocrnet_pl.data.sources.synthetic.SyntheticSource
    init_args: {length: 3, seed: 1, size: 64}
  size: [64, 96]
  scales: [1.0, 1.5]
  num_workers: 0
  train_transforms:
    - class_path: ocrnet_pl.data.transforms.RandomFlip
      init_args: {vertical: 0.5}
"""
    module = parser.instantiate_classes(parser.parse_string(settings)).data
    assert module.size == (64, 96) and module.shapes.sizes == [(64, 96), (96, 128)]
    assert isinstance(module.train_transforms[0], RandomFlip) and module.train_transforms[0].vertical == 0.5


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_replaced_from_their_own_source(workers: int) -> None:
    sources: dict[str, Source] = {"good": Scenes(length=12), "bad": Scenes(length=12, broken=(1, 4, 5))}
    train = Mixture(sources, {"good": 1, "bad": 1})
    module = make_module(train=train, val=Scenes(length=5, broken=(2,)), num_workers=workers, on_error="skip")
    found = collect(module)
    assert [len(batch) for batch in found] == [4] * 12
    for batch in found:
        names = [str(image_id).split("/") for image_id in batch.image_ids]
        assert [name for name, _ in names].count("bad") == 2
        assert not any(name == "bad" and number in "145" for name, number in names)
    assert sorted(module.skipped) == [(f"{i}.png", "broken") for i in (1, 4, 5)]
    again = collect(make_module(train=train, on_error="skip", val=Scenes()))
    assert [batch.image_ids for batch in again] == [batch.image_ids for batch in found]
    assert [i for batch in module.val_dataloader() for i in batch.image_ids] == [0, 1, 3, 4]
    assert ("2.png", "broken") in module.skipped


def test_nothing_readable_ends_the_run_with_the_first_file() -> None:
    module = make_module(train=Scenes(length=8, broken=tuple(range(8))), val=None, on_error="skip")
    with pytest.raises(DataError, match=r"^\d\.png: broken; nor could"):
        next(iter(module.train_dataloader()))


def test_aspect_ratios_fall_back_to_one_shape_without_sizes() -> None:
    options: dict[str, Any] = {"val": None, "aspect_ratios": [0.5, 2.0], "size": 128, "scales": [1.0]}
    known = make_module(train=SyntheticSource(8, 0, (48, 96)), **options)
    assert {tuple(b.images.shape[2:]) for b in known.train_dataloader()} == {(96, 192)}
    unknown = make_module(train=Scenes(length=8), **options)
    assert {tuple(b.images.shape[2:]) for b in unknown.train_dataloader()} == {(128, 128)}


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save("a.png")
    for path in (None, ""):
        with pytest.raises(DataError, match="there is nothing to predict on"):
            make_module(predict_path=path).predict_dataloader()
