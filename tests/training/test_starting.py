"""A training that starts from the weights of another one, from Python."""

from __future__ import annotations

import lzma
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save_file
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl import init_from, keep_classes
from ocrnet_pl.callbacks.ema import EMA
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.sources.wrappers.widened import Widened
from ocrnet_pl.errors import CheckpointError, DataError, UsageError
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.losses.detection import QualityDetectionLoss, TutorialDetectionLoss
from ocrnet_pl.losses.pixels import CrossEntropy
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.storage.initial_weights import read_initial_weights
from ocrnet_pl.structures import FUSION_KEY, Batch, Output, Taxonomy
from ocrnet_pl.training.task import OCRNetTask
from tests.training.test_task import make_data, make_task, make_trainer

OLD = Taxonomy.build(things=["star", "disc", "cat"], stuff=["grass", "fog"])
HEAD = "network.detection.class_head.0.weight"


def scenes(length: int = 4) -> SyntheticSource:
    return SyntheticSource(length=length, seed=5, size=64, shapes=["disc", "square"])


def old_task(seed: int = 3, taxonomy: Taxonomy = OLD) -> OCRNetTask:
    torch.manual_seed(seed)
    return make_task(taxonomy)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with calibrated settings."""
    path = tmp_path_factory.mktemp("old") / "old.ckpt"
    settings = FusionSettings(spread=0.7, raw_boxes=("cat", "disc"), raw_pixels=("fog", "star"))
    content = {"state_dict": old_task().state_dict(), "taxonomy": OLD.to_dict(), FUSION_KEY: settings.to_dict()}
    torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", ["checkpoint", "folder", "bare", "nested", "network", "wrapped", "safetensors"])
def test_weights_come_from_files_of_several_kinds(kind: str, old: Path, tmp_path: Path) -> None:
    state = old_task().state_dict()
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pt")
    network = {name.removeprefix("network."): tensor for name, tensor in state.items()}
    contents: dict[str, Any] = {
        "bare": state,
        "nested": {"state_dict": state, "epoch": 3},
        "network": network,
        "wrapped": {f"module.{name}": tensor for name, tensor in state.items()},
    }
    if kind == "checkpoint":
        path = old
    elif kind == "folder":
        path = tmp_path / "network"
        old_task().network.save(path)
    elif kind == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(contents[kind], path)
    task = old_task(4)
    report = init_from(task, path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in task.state_dict().items())
    assert sum(part.new.tensors + part.left_out.tensors for part in report.parts.values()) == 0
    assert any("names no classes" in note for note in report.notes) == (kind not in ("checkpoint", "folder"))


def test_a_checkpoint_of_an_earlier_layout_serves_as_well(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    packed = Path(__file__).parents[1] / "storage" / "old_layout.ckpt.xz"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    given = read_initial_weights(path)
    assert given.taxonomy is not None and given.weights
    assert not any(name.startswith("network.") for name in given.weights)


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('it was executed')",))


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"encoder.x": 3}},
        {"encoder.x": torch.zeros(2), "epoch": 3},
        {"encoder.x": torch.zeros(2, device="meta")},
        {"encoder.x": torch.zeros(2, 2).to_sparse()},
        {"encoder.x": torch.zeros(2, dtype=torch.complex64)},
        {"encoder.stages.0.bias": torch.full((8,), math.nan)},
        {3: torch.zeros(2)},
        {"state_dict": {"encoder.x": torch.zeros(2)}, "taxonomy": {"categories": [{"name": "x"}]}},
        [torch.zeros(2)],
        {"encoder.x": torch.zeros(2), "run": Runs()},
    ],
)
def test_a_hostile_file_takes_one_line_that_names_it(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt") as raised:
        init_from(old_task(), tmp_path / "x.pt")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_damaged_or_missing_file_takes_one_line(suffix: str, old: Path, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    with pytest.raises(FileNotFoundError, match=rf"'{path}': no such file"):
        init_from(old_task(), path)
    state = {name: tensor.contiguous() for name, tensor in old_task().state_dict().items()}
    if suffix == ".ckpt":
        path.write_bytes(old.read_bytes()[:-2000])
    else:
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=rf"'{path}': unreadable") as raised:
        init_from(old_task(), path)
    assert "\n" not in str(raised.value)


def test_names_need_a_file_with_classes(tmp_path: Path) -> None:
    torch.save(old_task().state_dict(), tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"init_map: checkpoint '.*x\.pt' names no classes"):
        init_from(old_task(), tmp_path / "x.pt", {"star": "disc"})
    with pytest.raises(UsageError, match=r"init_keep: checkpoint '.*x\.pt' names no classes"):
        keep_classes(make_data(scenes(), scenes()), tmp_path / "x.pt")


class Before(Callback):
    """Keeps the weights that are validated before the first step."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            self.weights = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}


def test_the_average_starts_from_the_weights_and_the_encoder_learns_slower(old: Path, tmp_path: Path) -> None:
    source, before, average = scenes(), Before(), EMA(0.9)
    torch.manual_seed(7)
    task = make_task(source.taxonomy)
    own = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    init_from(task, old)
    taken = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    assert not torch.equal(own[HEAD], taken[HEAD])
    trainer = make_trainer(tmp_path, callbacks=[average, before], max_steps=1, num_sanity_val_steps=1)
    trainer.fit(task, make_data(source, scenes()))
    # Averaged weights are what a validation sees.
    assert all(torch.equal(tensor, taken[name]) for name, tensor in before.weights.items())
    rates = {group["name"]: group["initial_lr"] for group in trainer.optimizers[0].param_groups}
    assert rates["encoder"] == pytest.approx(0.1 * rates["decoders"])


def test_calibrated_settings_of_classes_that_stay_are_kept(old: Path, tmp_path: Path) -> None:
    source = scenes()
    task = make_task(source.taxonomy)
    report = init_from(task, old, {"cat": "square", "fog": "sky", "star": ["square"]})
    want = FusionSettings(spread=0.7, raw_boxes=("disc",), raw_pixels=("sky",))
    assert isinstance(task.network.postprocess, FusionPostProcess)
    # Only one of the two classes that squares start from had unchanged boxes.
    assert task.network.postprocess.settings == want
    assert any("the new classes (water) have the defaults" in note for note in report.notes), report.notes
    trainer = make_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(task, make_data(source, scenes()))
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    content = torch.load(tmp_path / "new.ckpt", weights_only=True)
    assert content[FUSION_KEY] == want.to_dict()
    # A run that continues validates with them as well.
    other = make_task(source.taxonomy)
    further = make_trainer(tmp_path, max_steps=2, limit_val_batches=0)
    further.fit(other, make_data(source, scenes()), ckpt_path=tmp_path / "new.ckpt", weights_only=True)
    assert other.network.postprocess.settings == want  # type: ignore[union-attr]
    assert other.origin == task.origin


def test_settings_that_do_not_fit_are_left_out_and_said(tmp_path: Path) -> None:
    content = {"state_dict": old_task().state_dict(), "taxonomy": OLD.to_dict(), FUSION_KEY: {"of another kind": 1}}
    torch.save(content, tmp_path / "x.ckpt")
    task = old_task(4)
    report = init_from(task, tmp_path / "x.ckpt")
    assert any("settings of the fusion do not fit and were left out" in note for note in report.notes)
    assert task.network.postprocess.settings == FusionSettings()  # type: ignore[union-attr]


class Foggy(Source):
    """Images of stuff with one box, none of which is known to the old network."""

    taxonomy = property(lambda self: Taxonomy.build(things=["disc", "square"], stuff=["background"]))  # type: ignore[assignment]

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        sample = scenes()[index]
        semantic = sample.semantic.as_subclass(Tensor).long()  # type: ignore[union-attr]
        # All stuff of the scenes is background here.
        return sample.replace(
            semantic=tv_tensors.Mask((semantic - 2).clamp(min=0).to(torch.uint8)),
            supervision=type(sample.supervision).full(self.taxonomy),
        )


def kept_batch(old: Path) -> tuple[Batch, Taxonomy]:
    data = make_data(Foggy(), Foggy(), batch_size=2)
    union = keep_classes(data, old)
    assert data.taxonomy == union
    assert [c.name for c in union.detection_categories] == ["disc", "square", "star", "cat"]
    assert {c.name for c in union.semantic_categories} == {
        "background",
        "grass",
        "fog",
        "disc",
        "square",
        "star",
        "cat",
    }
    data.train_transforms = []
    batch: Batch = next(iter(data.train_dataloader()))
    return batch, union


KEPT = ("star", "cat", "grass", "fog")


def test_pixels_say_nothing_of_the_kept_classes(old: Path) -> None:
    batch, union = kept_batch(old)
    size = batch.images.shape[-2:]
    torch.manual_seed(0)
    logits = torch.randn(2, union.num_semantic, *size, requires_grad=True)
    loss = SegmentationLoss([CrossEntropy()])
    loss(Output(None, logits, 1), batch)["ce"].backward()
    assert logits.grad is not None
    places = {c.name: int(c.semantic or 0) for c in union.semantic_categories}
    for name in KEPT:
        assert torch.equal(logits.grad[:, places[name]], torch.zeros(2, *size)), name
    # Background is a label: by hand, the softmax over the data's own classes minus the truth.
    known = [places[name] for name in ("background", "disc", "square")]
    labelled = int((batch.semantic != 255).sum())
    assert labelled
    for image, y, x in ((0, 3, 5), (1, 40, 20), (0, 63, 63), (1, 10, 50)):
        values = [float(logits.detach()[image, place, y, x]) for place in known]
        total = sum(math.exp(value) for value in values)
        truth = int(batch.semantic[image, y, x])
        for place, value in zip(known, values, strict=True):
            want = 0.0 if truth == 255 else (math.exp(value) / total - (place == truth)) / labelled
            assert float(logits.grad[image, place, y, x]) == pytest.approx(want, abs=1e-8)


@pytest.mark.parametrize("kind", [QualityDetectionLoss, TutorialDetectionLoss])
def test_boxes_say_nothing_of_the_kept_classes(kind: type, old: Path) -> None:
    batch, union = kept_batch(old)
    assert batch.valid.any()
    torch.manual_seed(0)
    with torch.no_grad():
        base = make_task(union)(batch.images).detection
    assert base is not None
    classes = torch.randn(base.classes.shape, requires_grad=True)
    confidence = torch.randn(base.confidence.shape, requires_grad=True)
    found = base._replace(classes=classes, confidence=confidence, scores=classes.detach().sigmoid())
    terms = kind()(Output(found, None), batch)
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert classes.grad is not None and confidence.grad is not None
    places = {c.name: int(c.detection or 0) for c in union.detection_categories}
    for name in ("star", "cat"):
        assert torch.equal(classes.grad[..., places[name]], torch.zeros_like(classes.grad[..., 0])), name
    assert classes.grad[..., places["disc"]].abs().sum() > 0
    # A candidate whose confidence learns at all learns that something is there.
    background = torch.tensor([not any(near(point, boxes) for boxes in batch.boxes[0]) for point in base.points])
    assert background.any()
    assert torch.equal(confidence.grad[0, background], torch.zeros(int(background.sum())))


def near(point: Tensor, box: Tensor) -> bool:
    return bool((point >= box[:2]).all() and (point <= box[2:]).all() and (box[2:] > box[:2]).all())


def test_a_step_leaves_the_rows_of_the_kept_classes_without_a_gradient(old: Path) -> None:
    batch, union = kept_batch(old)
    task = make_task(union)
    init_from(task, old)
    total, _ = task.losses(task(batch.images), batch)
    total.backward()
    head = dict(task.named_parameters())[HEAD].grad
    pixels = dict(task.named_parameters())["network.segmentation.head.5.weight"].grad
    assert head is not None and pixels is not None
    for category in union.categories:
        kept = category.name in KEPT
        if category.detection is not None:
            assert (head[1 + category.detection] == 0).all() == kept, category.name
        if category.semantic is not None:
            assert (pixels[category.semantic] == 0).all() == kept, category.name


def test_a_source_cannot_have_what_the_categories_lack() -> None:
    source = scenes()
    with pytest.raises(DataError, match="the class 'square', which is not among"):
        Widened(source, Taxonomy.build(things=["disc"], stuff=["sky", "water", "grass"]))
    without = Taxonomy.build(things=["disc", "square"], stuff=["sky", "water", "grass"], detected=["disc"])
    with pytest.raises(DataError, match="has boxes of the class 'square', which has none"):
        Widened(source, without)
