"""Parts know how they were made, in the form in which a config says it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from ocrnet_pl import Recorded, Shapes, Taxonomy
from ocrnet_pl.balancing.methods import Balancing, GradNorm
from ocrnet_pl.cli.short_names import import_rooms
from ocrnet_pl.inference.decode import Decode
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.heuristic import HeuristicMerge
from ocrnet_pl.losses.assignment import Assigner
from ocrnet_pl.losses.base import Loss
from ocrnet_pl.losses.boxes import BoxLoss
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.pixels import CrossEntropy, Focal, PixelLoss
from ocrnet_pl.losses.scores import ScoreLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.metrics.base import Metric, MetricFactory
from ocrnet_pl.models.base import DetectionDecoder, Encoder, Neck, PostProcess, SegmentationDecoder
from ocrnet_pl.models.detection import AnchorFreeDecoder, OneToOneDecoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.network_parts import DetectionFactory, NeckFactory, SegmentationFactory
from ocrnet_pl.storage.plain_values import plain_values
from ocrnet_pl.storage.recording import (
    NotRecordedError,
    changed_record_of,
    plain_record,
    record_of,
    record_of_factory,
)
from ocrnet_pl.storage.trusted_classes import build_parts, trusted_parts
from ocrnet_pl.training.schedules import SchedulerFactory, WarmupCosine

TAXONOMY = Taxonomy.build(things=["disc"], stuff=["sky"])
CHANNELS, STRIDES = [8, 12, 16, 24], [4, 8, 16, 32]
SHAPES = Shapes(CHANNELS, STRIDES, CHANNELS, STRIDES)

KINDS: list[tuple[type, Any, tuple[Any, ...]]] = [
    (Encoder, Encoder, ()),
    (Neck, NeckFactory, (CHANNELS, STRIDES)),
    (DetectionDecoder, DetectionFactory, (CHANNELS, STRIDES, TAXONOMY)),
    (SegmentationDecoder, SegmentationFactory, (SHAPES, TAXONOMY)),
    (Metric, MetricFactory, (TAXONOMY,)),
    *((each, each, ()) for each in (PostProcess, Decode, Loss, BoxLoss, ScoreLoss, PixelLoss, Assigner, Balancing)),
]
"""Base classes of parts, the types of the options that take them, and what their factories are called with."""


class Colour(Enum):
    RED = 1


class Gate(Recorded):
    def __init__(self, sides: tuple[int, ...] = (3,), *, colour: Colour = Colour.RED) -> None:
        self.sides, self.colour = sides, colour


class Gated(PixelLoss):
    """Has an argument of a class of its own, one that it does not name, and one of any kind."""

    name = "gated"

    def __init__(self, gate: Gate, anything: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate, self.anything = gate, anything

    def forward(self, log_probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return log_probability.mean()


class Forwarding(PathAggregationNeck):
    def __init__(self, *args: Any, extra: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra = extra


def subclasses(kind: type) -> set[type]:
    return {kind, *(each for own in kind.__subclasses__() for each in subclasses(own))}


def all_parts() -> list[Any]:
    import_rooms()
    return [
        pytest.param(each, option, passed, id=each.__name__)
        for base, option, passed in KINDS
        for each in sorted(subclasses(base), key=lambda each: each.__name__)
        if each.__module__.startswith("ocrnet_pl.")
        and not inspect.isabstract(each)
        and not each.__name__.startswith("_")
    ]


@pytest.mark.parametrize(("kind", "option", "passed"), all_parts())
def test_every_part_of_the_package_is_made_again(kind: type, option: Any, passed: tuple[Any, ...]) -> None:
    try:
        made = kind(*passed)
    except TypeError as error:
        pytest.skip(f"it is a base class: {error}")
    record = plain_values(record_of(made, passed), "the record")
    assert record["class_path"] == f"{kind.__module__}.{kind.__name__}"
    again = build_parts({"part": record}, {"part": option}, (), "the record")["part"]
    again = again(*passed) if passed else again
    assert type(again) is kind
    if kind is OneToOneDecoder:
        # The factory inside it comes back with all its arguments.
        record = plain_values(record_of(again, passed), "the record")
        again = build_parts({"part": record}, {"part": option}, (), "the record")["part"](*passed)
    assert record_of(again, passed) == record
    if kind is OneToOneDecoder:
        return
    # And it is what a config is parsed to that names the class alone.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=option)
    parsed = parser.parse_object({"part": {"class_path": record["class_path"]}}).as_dict()["part"]
    assert flat(plain_record(parsed)) == flat(record)


def flat(value: Any) -> Any:
    """Return a record whose dataclasses are their fields alone, as a parser has it."""
    if isinstance(value, dict):
        if "class_path" in value and value["class_path"].endswith("HeuristicMerge"):
            return value["init_args"]
        return {key: flat(item) for key, item in value.items() if key != "init_args" or item}
    return [flat(item) for item in value] if isinstance(value, list) else value


def test_nested_parts_equal_what_the_command_line_keeps() -> None:
    made = SegmentationLoss([CrossEntropy(label_smoothing=0.1), Focal(weight=2.0)], auxiliary_weight=0.2)
    config = {
        "class_path": "SegmentationLoss",
        "init_args": {
            "terms": [
                {"class_path": "CrossEntropy", "init_args": {"label_smoothing": 0.1}},
                {"class_path": "Focal", "init_args": {"weight": 2.0}},
            ],
            "auxiliary_weight": 0.2,
        },
    }
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=Loss)
    parsed = parser.parse_object({"part": config}).as_dict()
    assert trusted_parts({"part": record_of(made)}, {"part": Loss}, (), "") == trusted_parts(
        parsed, {"part": Loss}, (), ""
    )


def test_copies_and_pickles_keep_the_record_and_it_is_no_part_of_the_object() -> None:
    made = FusionPostProcess(Decode(max_detections=7), claim=0.5, heuristic=HeuristicMerge(stuff_area=9))
    for other in (copy.deepcopy(made), copy.copy(made), pickle.loads(pickle.dumps(made))):
        assert record_of(other) == record_of(made)
    assert not made.state_dict() and [name for name, _ in made.named_modules()] == ["", "decode"]
    arguments = record_of(made)["init_args"]
    assert arguments["decode"]["init_args"]["max_detections"] == 7
    assert arguments["heuristic"]["init_args"]["stuff_area"] == 9
    # Whoever changes what was returned does not change the record.
    arguments["decode"]["init_args"]["max_detections"] = 0
    assert record_of(made)["init_args"]["decode"]["init_args"]["max_detections"] == 7


def test_signatures_are_those_of_the_constructors() -> None:
    for kind in (FusionPostProcess, QualityDetectionLoss, GradNorm, PathAggregationNeck):
        expected = list(inspect.signature(kind.__init__).parameters.values())[1:]
        assert list(inspect.signature(kind).parameters.values()) == expected
    with pytest.raises(TypeError, match="unexpected keyword argument 'evil'"):
        Decode(evil=1)  # type: ignore[call-arg]


def test_an_own_class_is_recorded_without_calling_anything() -> None:
    made = Gated(Gate((4, 5)), weight=np.float32(2), anything=[Path("a"), np.int64(3), {"b": (True, None)}])
    record = record_of(made)
    assert record == {
        "class_path": f"{__name__}.Gated",
        "init_args": {
            "gate": {"class_path": f"{__name__}.Gate", "init_args": {"sides": [4, 5], "colour": "RED"}},
            "anything": ["a", 3, {"b": [True, None]}],
        },
        "dict_kwargs": {"weight": 2.0},
    }
    again = build_parts({"part": record}, {"part": PixelLoss}, __name__.partition(".")[0], "")["part"]
    assert isinstance(again, Gated) and again.weight == 2.0
    assert tuple(again.gate.sides) == (4, 5) and again.gate.colour is Colour.RED


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0


def test_dataclasses_are_recorded_by_their_fields() -> None:
    record = record_of(Gated(Gate(), Point(1.0)))["init_args"]["anything"]
    assert record == {"class_path": f"{__name__}.Point", "init_args": {"x": 1.0, "y": 0.0}}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Gated(Gate(), lambda: 1), "argument 'anything' of Gated is a lambda"),
        (lambda: Gated(Gate(), subclasses), "argument 'anything' of Gated is the function subclasses"),
        (lambda: Gated(Gate(), [torch.zeros(1)]), "argument 'anything' of Gated is a Tensor, which is no plain value"),
        (lambda: Gated(Gate(), nn.ReLU()), "argument 'anything' of Gated is a ReLU, which is no plain value"),
        (
            lambda: SegmentationLoss([Gated(Gate(), print)]),
            "argument 'terms' of SegmentationLoss is argument 'anything'",
        ),
        (lambda: local_loss(), "the class Local, which is defined inside local_loss"),
        (lambda: nn.ReLU(), "a ReLU, which is no plain value"),
    ],
)
def test_what_cannot_be_recorded_is_named(make: Callable[[], Any], reason: str) -> None:
    with pytest.raises(NotRecordedError) as refused:
        record_of(make())
    assert str(refused.value).startswith(reason)


def local_loss() -> PixelLoss:
    class Local(CrossEntropy):
        pass

    return Local()


def test_what_a_factory_passes_is_left_out_only_if_it_was_passed_on() -> None:
    maps = (CHANNELS, STRIDES)
    width = {"width": 8, "finest": 4, "groups": 1}
    makers: list[NeckFactory] = [
        partial(PathAggregationNeck, width=8),
        lambda c, s: PathAggregationNeck(c, s, 8),
        lambda c, s: PathAggregationNeck(width=8, strides=s, channels=list(c)),
    ]
    for make in makers:
        assert record_of(make(*maps), maps)["init_args"] == width
    assert record_of(Forwarding(*maps, width=8), maps)["dict_kwargs"] == {"width": 8}
    with pytest.raises(NotRecordedError, match="nameless arguments by position"):
        record_of(Forwarding(*maps, 8), maps)
    with pytest.raises(NotRecordedError, match="not made with the 2 arguments"):
        record_of(PathAggregationNeck(CHANNELS[:3], STRIDES[:3], width=8), maps)


def test_a_factory_inside_a_part_is_recorded() -> None:
    passed = (CHANNELS, STRIDES, TAXONOMY)
    made = OneToOneDecoder(*passed, partial(AnchorFreeDecoder, depth=3))
    record = record_of(made, passed)
    assert record["init_args"]["decoder"]["init_args"] == {"depth": 3}
    again = build_parts({"part": record}, {"part": DetectionFactory}, (), "")["part"](*passed)
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (made, again)]
    assert shapes[0] == shapes[1]
    # A parser's own factory hands its options on as well.
    assert record_of(again, passed)["init_args"]["decoder"]["init_args"]["depth"] == 3
    with pytest.raises(NotRecordedError, match="cannot be called: got an unexpected keyword argument 'evil'"):
        record_of_factory(partial(AnchorFreeDecoder, evil=1), None)


def test_optimisers_and_schedules_are_recorded_by_class_or_partial() -> None:
    record = record_of_factory(partial(torch.optim.SGD, lr=0.5), 1)
    assert record["class_path"] == "torch.optim.sgd.SGD" and record["init_args"]["lr"] == 0.5
    again = build_parts({"part": record}, {"part": Callable[[Any], torch.optim.Optimizer]}, (), "")["part"]
    assert again([torch.zeros(1, requires_grad=True)]).param_groups[0]["lr"] == 0.5
    record = record_of_factory(partial(WarmupCosine, warmup_steps=3), 1)
    assert record["init_args"] == {"total_steps": -1, "warmup_steps": 3, "final_lr": 0.01}
    assert build_parts({"part": record}, {"part": SchedulerFactory}, (), "")["part"]
    for factory in (lambda p: torch.optim.SGD(p), partial(torch.optim.SGD, [torch.zeros(1)]), torch.zeros):
        with pytest.raises(NotRecordedError, match=r"give a class, or a functools\.partial"):
            record_of_factory(factory, 1)


def test_defaults_of_the_class_are_left_out_where_only_changes_count() -> None:
    assert changed_record_of(CrossEntropy(rare=0.05, weight=1.0)) == {
        "class_path": "ocrnet_pl.losses.pixels.CrossEntropy",
        "init_args": {"rare": 0.05},
    }
    assert changed_record_of(Focal()) == {"class_path": "ocrnet_pl.losses.pixels.Focal", "init_args": {}}
    with pytest.raises(NotRecordedError):
        changed_record_of(nn.Identity())
