"""Contradictions between boxes and pixels: planted ones are found, with the side that the labels are on."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torchvision import tv_tensors

from ocrnet_pl.callbacks.disagreements import COLUMNS, Disagreements
from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.disagreements import (
    AGAINST_BOTH,
    BOX_WITHOUT_PIXELS,
    LABEL_OF_ANOTHER_SIZE,
    LABEL_WITHOUT_OBJECT,
    OBJECT_WITHOUT_LABEL,
    PIXELS_WITHOUT_BOX,
    Finder,
)
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.pixels import SemanticMap
from ocrnet_pl.structures import Batch, Prediction, Predictions, Sample, Supervision
from tests.helpers.builders import TAXONOMY

SIZE = (60, 100)
DISC, SQUARE = 2, 3


def planted(path: str = "a.png", shift: int = 0) -> tuple[Prediction, Sample]:
    """A square's box over ground, a disc's pixels without a box, and what is no contradiction.

    The labels have the disc, with box and pixels, and not the square.
    """
    labels = torch.full(SIZE, 1)
    labels[5:25, 5:25] = DISC  # found by both
    labels[30:50, 40 + shift : 56 + shift] = DISC  # its box is missing
    probability = torch.nn.functional.one_hot(labels, 5).permute(2, 0, 1).float() * 0.8 + 0.04
    probability[:, 50:56, 5:11] = torch.tensor([0.1, 0.38, 0.52, 0, 0])[:, None, None]  # unsure pixels
    probability[:, 5:25, 26:27] = probability[:, 10:11, 10:11]  # a sliver beside a box
    boxes = torch.tensor([[5.0, 5, 25, 25], [70, 10, 90, 20], [60, 50, 70, 58]])
    detections = Detections(boxes, torch.tensor([0.9, 0.8, 0.3]), torch.tensor([0, 1, 1]))
    prediction = FusionPostProcess().merge(detections, SemanticMap.of(probability), TAXONOMY)
    true_boxes = torch.tensor([[5.0, 5, 25, 25], [40 + shift, 30, 56 + shift, 50]])
    sample = Sample(
        tv_tensors.Image(torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)),
        tv_tensors.BoundingBoxes(true_boxes, format="XYXY", canvas_size=SIZE),
        torch.tensor([0, 0]),
        torch.zeros(2, dtype=torch.bool),
        Supervision.full(TAXONOMY),
        tv_tensors.Mask(labels.to(torch.uint8)),
        path=path,
    )
    return prediction, sample


def test_planted_contradictions_are_found_and_nothing_else() -> None:
    prediction, sample = planted()
    found = sorted(Finder()(prediction, sample, TAXONOMY), key=lambda each: each.kind)
    assert [(f.kind, f.category, f.box) for f in found] == [
        (BOX_WITHOUT_PIXELS, "square", (70.0, 10.0, 90.0, 20.0)),
        (PIXELS_WITHOUT_BOX, "disc", (40.0, 30.0, 56.0, 50.0)),
    ]
    assert [f.area for f in found] == [200, 320]
    assert [f.score for f in found] == pytest.approx([0.8, 0.84])
    # The labels have no square, neither box nor pixels, and have the disc: the pixels are right both times.
    assert [f.labels for f in found] == ["pixels", "pixels"]
    assert found[0].rank == pytest.approx(0.8 * 200**0.5)
    assert found[0].image == "a.png"


def test_labels_may_be_on_the_other_side_contradict_themselves_or_be_absent() -> None:
    prediction, sample = planted()
    first = sample.boxes[:1]
    boxes = torch.cat((first, torch.tensor([[70.0, 10, 90, 20]])))
    labels = torch.full(SIZE, 1, dtype=torch.uint8)
    labels[10:20, 70:90] = SQUARE
    swapped = sample.replace(
        boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=SIZE),
        labels=torch.tensor([0, 1]),
        semantic=tv_tensors.Mask(labels),
    )
    assert [f.labels for f in Finder()(prediction, swapped, TAXONOMY)] == ["box", "box"]
    both = tv_tensors.Mask(torch.where(labels == SQUARE, 1, sample.semantic))
    # A labelled square without labelled pixels, and labelled pixels of a disc without a labelled disc.
    torn = {f.kind: f.labels for f in Finder()(prediction, swapped.replace(semantic=both), TAXONOMY)}
    assert torn == {BOX_WITHOUT_PIXELS: "neither", PIXELS_WITHOUT_BOX: "neither"}
    unlabelled = sample.replace(supervision=Supervision.full(TAXONOMY, detection=False))
    assert [f.labels for f in Finder()(prediction, unlabelled, TAXONOMY)] == ["", ""]
    ignored = sample.replace(semantic=tv_tensors.Mask(torch.full(SIZE, 255, dtype=torch.uint8)))
    assert Finder()(prediction, ignored, TAXONOMY) == []
    none = torch.zeros(0, dtype=torch.bool)
    to_predict = sample.replace(supervision=Supervision(none, none), semantic=None)
    assert [f.labels for f in Finder()(prediction, to_predict, TAXONOMY)] == ["", ""]
    without = Prediction(prediction.boxes, prediction.scores, prediction.labels)
    assert Finder()(without, sample, TAXONOMY) == []


def run_callback(callback: Disagreements, folder: Path, images: int, fn: TrainerFn = TrainerFn.VALIDATING) -> None:
    trainer: Any = SimpleNamespace(
        log_dir=str(folder),
        state=SimpleNamespace(fn=fn),
        is_global_zero=True,
        loggers=[],
        global_step=0,
        fast_dev_run=False,
    )
    module: Any = SimpleNamespace(taxonomy=TAXONOMY)
    callback.setup(trainer, module, "validate")
    for number in range(images):
        prediction, sample = planted(f"{number}.png", number % 30)
        empty = torch.zeros(1)
        batch = Batch(*([empty] * 8), truths=[sample])  # type: ignore[arg-type]
        callback.on_validation_batch_end(trainer, module, Predictions([prediction]), batch, number)
    callback.on_validation_end(trainer, module)


def test_the_table_holds_the_worst_and_no_more(tmp_path: Path) -> None:
    run_callback(Disagreements(rows=7, pictures=3), tmp_path, 5)
    with (tmp_path / "disagreements.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    ranks = [float(row[4]) * float(row[5]) ** 0.5 for row in rows]
    assert len(rows) == 7
    assert ranks == sorted(ranks, reverse=True)
    # Larger regions first, then as many of the boxes as there is room for.
    assert [row[1] for row in rows] == [PIXELS_WITHOUT_BOX] * 5 + [BOX_WITHOUT_PIXELS] * 2
    assert rows[0][3] == "40.0 30.0 56.0 50.0"
    assert rows[0][6] == "pixels"
    with Image.open(tmp_path / "disagreements.png") as sheet:
        assert sheet.width > 3 * 300
        assert sheet.height < 2 * 200


def test_training_and_switched_off_lists_write_nothing(tmp_path: Path) -> None:
    run_callback(Disagreements(), tmp_path, 1, TrainerFn.FITTING)
    run_callback(Disagreements(enabled=False), tmp_path, 1)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="rows"):
        Disagreements(rows=0)
    with pytest.raises(ValueError, match=r"disagreements\.certainty"):
        Finder(certainty=2.0)


def against_labels(
    true: list[list[float]], boxes: list[list[float]], scores: list[float], seen: list[int]
) -> list[Any]:
    """Find what contradicts labelled discs, where the network sees pixels of discs in some of its boxes."""
    labels = torch.full(SIZE, 1)
    for row in seen:
        x1, y1, x2, y2 = (int(side) for side in boxes[row])
        labels[y1:y2, x1:x2] = DISC
    probability = torch.nn.functional.one_hot(labels, 5).permute(2, 0, 1).float() * 0.8 + 0.04
    detections = Detections(torch.tensor(boxes), torch.tensor(scores), torch.zeros(len(boxes), dtype=torch.long))
    prediction = FusionPostProcess().merge(detections, SemanticMap.of(probability), TAXONOMY)
    _, sample = planted()
    sample = sample.replace(
        boxes=tv_tensors.BoundingBoxes(torch.tensor(true).reshape(-1, 4), format="XYXY", canvas_size=SIZE),
        labels=torch.zeros(len(true), dtype=torch.long),
        crowd=torch.zeros(len(true), dtype=torch.bool),
        semantic=tv_tensors.Mask(torch.full(SIZE, 1, dtype=torch.uint8)),
    )
    return Finder()(prediction, sample, TAXONOMY)


def test_labels_against_both_decoders_are_found() -> None:
    first, second, third = [5.0, 5, 25, 25], [40.0, 5, 60, 25], [70.0, 30, 90, 50]
    # The first fits its label, the second has none, the third's label is half as wide, a fourth label has nothing.
    true = [first, [70.0, 30, 80, 50], [5.0, 30, 25, 50]]
    found = against_labels(true, [first, second, third], [0.9, 0.8, 0.7], [0, 1, 2])
    by_kind = {each.kind: each for each in found}
    assert {kind: each.box for kind, each in by_kind.items()} == {
        OBJECT_WITHOUT_LABEL: tuple(second),
        LABEL_OF_ANOTHER_SIZE: tuple(third),
        LABEL_WITHOUT_OBJECT: (5.0, 30.0, 25.0, 50.0),
    }
    assert {each.labels for each in found} == {AGAINST_BOTH}
    assert by_kind[OBJECT_WITHOUT_LABEL].score == pytest.approx(0.8)
    assert by_kind[LABEL_OF_ANOTHER_SIZE].score == pytest.approx(0.7 * 0.5)
    assert by_kind[LABEL_WITHOUT_OBJECT].score == 1.0


def test_doubts_and_duplicates_are_no_errors_of_the_labels() -> None:
    box = [5.0, 5, 25, 25]
    # A duplicate beside a box that fits, an unsure box, and an unlabelled box without pixels, which has its own kind.
    found = against_labels(
        [box], [box, [9.0, 5, 29, 25], [40.0, 5, 60, 25], [70.0, 5, 90, 25]], [0.9, 0.8, 0.4, 0.7], [0, 1, 2]
    )
    assert [each.kind for each in found] == [BOX_WITHOUT_PIXELS]
    # An object that one of the two sees is not lost.
    assert against_labels([box], [box], [0.25], []) == []
