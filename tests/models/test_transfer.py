"""Weights move from one network to another: classes by their names, everything else by name and shape."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ocrnet_pl.errors import CheckpointError, UsageError
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.models import detection, object_context, segmentation, smp_models
from ocrnet_pl.models.base import DetectionDecoder, Features, SegmentationDecoder, Shapes
from ocrnet_pl.models.class_map import ClassMap, keeping
from ocrnet_pl.models.detection import AnchorFreeDecoder, OneToOneDecoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.object_context import GuidedObjectContextDecoder
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.models.transfer import transfer
from ocrnet_pl.models.transfer_report import TransferReport
from ocrnet_pl.structures import DetectionOutput, Taxonomy
from tests.helpers.builders import TinyEncoder

OLD = Taxonomy.build(things=["car", "truck", "person", "dog"], stuff=["road", "sky"], detected=["car", "truck", "dog"])
NEW = Taxonomy.build(things=["dog", "vehicle", "person", "kite"], stuff=["sky", "grass"])
NAMES = {"car": "vehicle", "truck": "vehicle", "road": ["grass"]}
BOXES = {"dog": ["dog"], "vehicle": ["car", "truck"], "person": [], "kite": []}
"""The old classes that each new class starts from, written by hand; old persons have no boxes."""
PIXELS = {
    "sky": ["sky"],
    "grass": ["road"],
    "dog": ["dog"],
    "vehicle": ["car", "truck"],
    "person": ["person"],
    "kite": [],
}


class OwnEncoder(TinyEncoder):
    """Three strided convolutions, the first under another name and the last of another width."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.channels = [8, 12, width]
        self.stages[2] = nn.Conv2d(12, width, 3, stride=2, padding=1)


def make(
    taxonomy: Taxonomy, seed: int, boxes: Any = AnchorFreeDecoder, pixels: Any = SubPixelDecoder, encoder: Any = None
) -> OCRNet:
    torch.manual_seed(seed)
    network = OCRNet(
        taxonomy,
        encoder or TinyEncoder(),
        functools.partial(PathAggregationNeck, width=8),
        boxes,
        None if pixels is None else functools.partial(pixels, width=8),
        FusionPostProcess(),
        input_size=(64, 64),
    )
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    return network


def taken(network: OCRNet, other: OCRNet, **names: Any) -> tuple[dict[str, Tensor], TransferReport]:
    """Let a network take another one's weights, and return its weights before that."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    relation = ClassMap.make(other.taxonomy, network.taxonomy, names or None)
    return before, transfer(network, other.state_dict(), relation, "checkpoint 'x'")


def index(taxonomy: Taxonomy, kind: str, name: str) -> int:
    found = {category.name: getattr(category, kind) for category in taxonomy.categories}[name]
    assert isinstance(found, int)
    return found


def check_rows(
    after: Tensor, before: Tensor, old: Tensor, kind: str, want: dict[str, list[str]], first: int = 0
) -> None:
    """Compare a tensor row by row with what the names say."""
    assert len(after) == first + len(want)
    for row in range(first):
        assert torch.equal(after[row], old[row])
    for name, parents in want.items():
        own = first + index(NEW, kind, name)
        if not parents:
            assert torch.equal(after[own], before[own]), name
            continue
        total = torch.zeros_like(after[own])
        for parent in parents:
            total += old[first + index(OLD, kind, parent)]
        assert torch.allclose(after[own], total / len(parents), atol=1e-6), name


@pytest.mark.parametrize("boxes", [AnchorFreeDecoder, functools.partial(AnchorFreeDecoder, shared=True, bins=4)])
@pytest.mark.parametrize(
    "pixels",
    [SubPixelDecoder, functools.partial(SubPixelDecoder, upscale=1, skip=True), GuidedObjectContextDecoder],
)
def test_rows_move_by_the_names_of_their_classes(boxes: Any, pixels: Any) -> None:
    old, new = make(OLD, 0, boxes, pixels), make(NEW, 1, boxes, pixels)
    before, report = taken(new, old, **NAMES)
    after, source = new.state_dict(), old.state_dict()
    heads = [name for name in after if name.startswith("detection.class_head.")]
    assert heads
    for name in heads:
        check_rows(after[name], before[name], source[name], "detection", BOXES, first=1)
    last = "classify" if isinstance(pixels, functools.partial) else "5"
    pixel_rows = [f"segmentation.head.{last}.weight", f"segmentation.head.{last}.bias"]
    if pixels is GuidedObjectContextDecoder:
        pixel_rows += ["segmentation.regions.1.weight", "segmentation.regions.1.bias"]
    for name in pixel_rows:
        check_rows(after[name], before[name], source[name], "semantic", PIXELS)
    moved = {*heads, *pixel_rows}
    if pixels is GuidedObjectContextDecoder:
        name = "segmentation.guide.weight"
        moved.add(name)
        for pixel, pixel_parents in PIXELS.items():
            for box, box_parents in BOXES.items():
                row, column = index(NEW, "semantic", pixel), index(NEW, "detection", box)
                own = [
                    float(source[name][index(OLD, "semantic", p), index(OLD, "detection", b)])
                    for p in pixel_parents
                    for b in box_parents
                ]
                want = sum(own) / len(own) if own else float(before[name][row, column])
                assert float(after[name][row, column]) == pytest.approx(want, abs=1e-6)
    # Everything else is the old network's, bit for bit.
    for name in after.keys() - moved:
        assert torch.equal(after[name], source[name]), name
    assert report.classes["classes of boxes"].mapped == {"vehicle": ["car", "truck"]}
    assert report.classes["classes of boxes"].taken == ["dog"]
    assert report.classes["classes of boxes"].new == ["person", "kite"]
    assert report.classes["classes of pixels"].mapped == {"grass": ["road"], "vehicle": ["car", "truck"]}
    assert report.classes["classes of pixels"].left_out == []
    assert report.parts["detection"].mapped.tensors == len(heads)
    assert report.parts["encoder"].taken.weights == sum(t.numel() for t in new.encoder.state_dict().values())
    assert new.encoder.pretrained


def test_what_is_counted_as_mapped_comes_from_the_file() -> None:
    old, new = make(Taxonomy.build(things=["nucleus"]), 0), make(NEW, 1)
    before, report = taken(new, old)
    after = new.state_dict()
    assert torch.equal(after["segmentation.head.5.weight"], before["segmentation.head.5.weight"])
    pixels, boxes = report.parts["segmentation"], report.parts["detection"]
    # None of the classes of pixels is in the file.
    heads = [name for name in after if name.startswith("segmentation.head.5.")]
    assert (pixels.mapped.tensors, pixels.new.tensors, pixels.left_out.tensors) == (0, len(heads), len(heads))
    assert report.classes["classes of pixels"].new == [each.name for each in NEW.semantic_categories]
    # Of the heads of boxes, only the row of the confidence is.
    heads = [name for name in after if name.startswith("detection.class_head.")]
    assert boxes.mapped.tensors == len(heads) and boxes.new.tensors == 0
    assert boxes.mapped.weights == sum(after[name][0].numel() for name in heads)
    assert boxes.new.weights == sum(after[name][1:].numel() for name in heads)
    counted = sum(count.weights for part in report.parts.values() for count in (part.taken, part.mapped, part.new))
    assert counted == sum(tensor.numel() for tensor in after.values() if tensor.is_floating_point())
    assert "detection: taken" in str(report) and f"new rows ({boxes.new.weights:,} weights)" in str(report)


def test_both_branches_move() -> None:
    old, new = make(OLD, 0, OneToOneDecoder), make(NEW, 1, OneToOneDecoder)
    before, _ = taken(new, old, **NAMES)
    for branch in ("one_to_many", "one_to_one"):
        name = f"detection.{branch}.class_head.1.weight"
        check_rows(new.state_dict()[name], before[name], old.state_dict()[name], "detection", BOXES, first=1)


def test_the_order_of_classes_does_not_matter() -> None:
    turned = Taxonomy(
        tuple(
            type(each)(
                each.name,
                each.is_thing,
                (0, 0, 0),
                None if each.detection is None else OLD.num_detection - 1 - each.detection,
                None if each.semantic is None else OLD.num_semantic - 1 - each.semantic,
            )
            for each in reversed(OLD.categories)
        )
    )
    old, new, back = make(OLD, 0), make(turned, 1), make(OLD, 2)
    taken(new, old)
    assert not torch.equal(new.state_dict()["segmentation.head.5.bias"], old.state_dict()["segmentation.head.5.bias"])
    taken(back, new)
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, old.state_dict()[name]), name


def test_an_entry_decides_alone_where_its_class_goes() -> None:
    old = Taxonomy.build(things=["a", "b", "c"])
    new = Taxonomy.build(things=["a", "b", "d"])
    assert ClassMap.make(old, new).parents == {"a": ("a",), "b": ("b",), "d": ()}
    assert ClassMap.make(old, new, {"a": "b", "b": "a"}).parents == {"a": ("b",), "b": ("a",), "d": ()}
    assert ClassMap.make(old, new, {"a": "b"}).parents == {"a": (), "b": ("a", "b"), "d": ()}
    assert ClassMap.make(old, new, {"a": ["a", "d"], "b": []}).parents == {"a": ("a",), "b": (), "d": ("a",)}
    assert [c.name for c in keeping(old, {"a": "x", "b": ["b", "x"]}).categories] == ["b", "c"]
    kept = keeping(OLD, {"car": []})
    assert [c.name for c in kept.detection_categories] == ["truck", "dog"]
    assert [c.name for c in kept.semantic_categories] == ["road", "sky", "truck", "person", "dog"]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ({"cat": "vehicle"}, "there is no class of the weights to start from 'cat'; did you mean 'car'?"),
        ({"car": "vehicel"}, "there is no class in the data 'vehicel'; did you mean 'vehicle'?"),
        ({"car": ["dog", "q"]}, "there is no class in the data 'q'; there are 'sky', 'grass'"),
    ],
)
def test_a_wrong_name_is_told(names: Any, line: str) -> None:
    with pytest.raises(UsageError) as raised:
        ClassMap.make(OLD, NEW, names)
    assert f"init_map: {line}" in str(raised.value)


def test_another_encoder_and_decoder_take_what_fits() -> None:
    old, new = make(OLD, 0), make(NEW, 1, functools.partial(AnchorFreeDecoder, bins=4), encoder=OwnEncoder(20))
    before, report = taken(new, old)
    after, source = new.state_dict(), old.state_dict()
    changed = [name for name in after if name in source and source[name].shape != after[name].shape]
    assert "encoder.stages.2.weight" in changed and "detection.box_head.0.weight" in changed
    for name in changed:
        if "class_head" not in name and "head.5" not in name:
            assert torch.equal(after[name], before[name])
    assert torch.equal(after["encoder.stages.1.weight"], source["encoder.stages.1.weight"])
    encoder = report.parts["encoder"]
    assert (encoder.taken.tensors, encoder.left_out.tensors, encoder.new.tensors) == (4, 2, 2)
    assert encoder.new.weights == 20 * 12 * 9 + 20
    line = "encoder: 2 of another shape start afresh, such as encoder.stages.2.weight [16, 12, 3, 3] for [20, 12, 3, 3]"
    assert line in report.notes
    # More of the encoder is new than old.
    assert encoder.taken.weights < encoder.new.weights and not new.encoder.pretrained


def test_a_task_that_is_not_there_is_left_out() -> None:
    old, new = make(OLD, 0), make(NEW, 1, boxes=None)
    _, report = taken(new, old)
    assert report.parts["detection"].left_out.tensors == len(old.detection.state_dict())  # type: ignore[union-attr]
    assert list(report.classes) == ["classes of pixels"]
    # And the other way round.
    _, report = taken(old, new)
    assert report.parts["detection"].taken.tensors == 0
    own = report.classes["classes of boxes"]
    assert (own.taken, own.new) == ([], ["car", "truck", "dog"])


class OwnBoxes(AnchorFreeDecoder):
    """Declares nothing."""

    def class_rows(self) -> None:
        return None


class OwnPixels(SegmentationDecoder):
    """One convolution, which declares nothing."""

    def __init__(self, shapes: Shapes, taxonomy: Taxonomy, width: int) -> None:
        super().__init__()
        self.stride = shapes.strides[0]
        self.inner = nn.Conv2d(shapes.channels[0], 32, 3, padding=1)
        self.last = nn.Conv2d(32, taxonomy.num_semantic, 1)

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        return (self.last(self.inner(features.maps[0])),)


def test_a_decoder_that_declares_nothing_moves_no_rows() -> None:
    # As many classes of boxes and of pixels, but not the same ones.
    other = Taxonomy.build(
        things=["x", "truck", "person", "dog"], stuff=["road", "sky"], detected=["x", "truck", "dog"]
    )
    old, new = make(OLD, 0, OwnBoxes, OwnPixels), make(other, 1, OwnBoxes, OwnPixels)
    before, report = taken(new, old)
    after, source = new.state_dict(), old.state_dict()
    for name in ("detection.class_head.0.weight", "detection.class_head.0.bias", "segmentation.last.weight"):
        assert torch.equal(after[name], before[name]), name
    for name in ("segmentation.inner.weight", "detection.box_tower.0.0.0.weight"):
        assert torch.equal(after[name], source[name]), name
    assert report.classes["classes of pixels"].taken == []
    assert any("OwnPixels declares no class rows" in note for note in report.notes)
    same = make(OLD, 2, OwnBoxes, OwnPixels)
    _, report = taken(same, old)
    assert all(torch.equal(tensor, source[name]) for name, tensor in same.state_dict().items())
    assert report.classes["classes of boxes"].taken == ["car", "truck", "dog"]


def test_without_names_the_rows_are_taken_in_order_where_they_fit() -> None:
    old, same, other = make(OLD, 0), make(OLD, 1), make(NEW, 2)
    report = transfer(same, old.state_dict(), None, "x")
    assert all(torch.equal(tensor, old.state_dict()[name]) for name, tensor in same.state_dict().items())
    assert any("the file names no classes" in note for note in report.notes)
    before = other.state_dict()["detection.class_head.0.weight"].clone()
    transfer(other, old.state_dict(), None, "x")
    assert torch.equal(other.state_dict()["detection.class_head.0.weight"], before)


def test_nothing_that_fits_is_an_error() -> None:
    weights = {"conv1.weight": torch.zeros(64, 3, 7, 7), "encoder.stages.0.bias": torch.zeros(9)}
    with pytest.raises(CheckpointError) as raised:
        transfer(make(NEW, 0), weights, None, "checkpoint 'x.pt'")
    line = str(raised.value)
    assert line.startswith("checkpoint 'x.pt': nothing in it fits this network: it holds 2 tensors (9,417 weights)")
    assert "such as conv1.weight [64, 3, 7, 7]; the network has" in line and "\n" not in line


def decoders() -> list[type]:
    """Every decoder of the package."""
    found = []
    for module in (detection, segmentation, object_context, smp_models):
        for value in vars(module).values():
            own = inspect.isclass(value) and value.__module__ == module.__name__
            if own and issubclass(value, DetectionDecoder | SegmentationDecoder):
                found.append(value)
    return found


@pytest.mark.parametrize("kind", decoders())
def test_every_decoder_declares_each_tensor_whose_shape_depends_on_the_classes(kind: type) -> None:
    few = Taxonomy.build(things=[f"t{i}" for i in range(5)], stuff=["s"], detected=["t0", "t1", "t2"])
    more = Taxonomy.build(things=[f"t{i}" for i in range(9)], stuff=["s"], detected=["t0", "t1", "t2", "t3", "t4"])
    shapes = Shapes([16, 16, 16], [8, 16, 32], [8, 8, 16, 16, 32], [2, 4, 8, 16, 32])

    def build(taxonomy: Taxonomy) -> Any:
        if issubclass(kind, DetectionDecoder):
            return kind([16, 16, 16], [8, 16, 32], taxonomy)  # type: ignore[call-arg]
        return kind(shapes, taxonomy)  # type: ignore[call-arg]

    small, large = build(few), build(more)
    declared = small.class_rows()
    differing = {name for name, tensor in small.state_dict().items() if tensor.shape != large.state_dict()[name].shape}
    assert differing and set(declared) == differing == set(large.class_rows())
    for name, rows in declared.items():
        lengths = list(small.state_dict()[name].shape)
        for row in rows:
            counts = [(t.num_detection if row.kind == "detection" else t.num_semantic) for t in (few, more)]
            assert lengths[row.dimension] == row.first + counts[0]
            lengths[row.dimension] += counts[1] - counts[0]
        assert lengths == list(large.state_dict()[name].shape)


def test_the_base_classes_declare_nothing() -> None:
    class Boxes(DetectionDecoder):
        def forward(self, features: Any) -> DetectionOutput:
            raise NotImplementedError

    assert Boxes().class_rows() is None
