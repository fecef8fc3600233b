"""What a network is certain of becomes labels, what is doubtful stays unlabelled, and both are read again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ocrnet_pl.callbacks.pseudo_labels import Certainty, PseudoLabelWriter, pseudo_labels
from ocrnet_pl.cli.commands.auto_label import _source
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.structures import IGNORE_INDEX, Prediction, Predictions, Supervision, Taxonomy

TAXONOMY = Taxonomy.build(things=["car", "person"], stuff=["background", "road"])
SIZE = (32, 48)


def _predicted(scores: list[float], name: str = "a.png") -> tuple[Prediction, Prediction]:
    """Three objects side by side, road below that is certain on its left half, one place that fusion changed."""
    semantic = torch.zeros(SIZE, dtype=torch.uint8)
    semantic[20:] = 1
    semantic[0, :5] = 3  # pixels of a person without an object
    instances = torch.zeros(SIZE, dtype=torch.int32)
    for row, label in enumerate((0, 1, 0)):
        instances[4:10, 2 + 15 * row : 10 + 15 * row] = row + 1
        semantic[4:10, 2 + 15 * row : 10 + 15 * row] = 2 + label
    certainty = torch.full(SIZE, 0.95)
    certainty[:, 24:] = 0.5
    boxes = torch.tensor([[2.0 + 15 * row, 4, 10 + 15 * row, 10] for row in range(3)])
    before = semantic.clone()
    before[30, :4] = 0
    labels, shown = torch.tensor([0, 1, 0]), torch.tensor(scores)
    raw = Prediction(boxes, shown, labels, before, image_id=name, certainty=certainty)
    return Prediction(boxes, shown, labels, semantic, instances, image_id=name), raw


def test_certain_objects_are_targets_and_doubtful_ones_crowds() -> None:
    best, raw = _predicted([0.9, 0.5, 0.7])
    certainty = Certainty(scores={"person": 0.8}, doubt=0.1)
    found = pseudo_labels(best, raw, TAXONOMY, certainty)
    rows = [(entry["category_id"], entry["iscrowd"], entry["bbox"][0]) for entry in found.annotations]
    assert rows == [(1, 0, 2), (2, 1, 17), (1, 0, 32)]
    semantic, boxes = found.semantic, best.boxes.int().tolist()
    assert semantic is not None and found.worth
    # By a plain loop over the pixels.
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            inside = [row for row, (x1, y1, x2, y2) in enumerate(boxes) if x1 <= x < x2 and y1 <= y < y2]
            if inside:
                expected = {0: 2, 1: IGNORE_INDEX, 2: 2}[inside[0]]
            elif x >= 24 or (y == 30 and x < 4) or (y == 0 and x < 5):
                expected = IGNORE_INDEX
            else:
                expected = 1 if y >= 20 else 0
            assert semantic[y, x] == expected, (y, x)
    lower = pseudo_labels(best, raw, TAXONOMY, Certainty(pixels={"road": 0.4})).semantic
    assert lower is not None and lower[25, 40] == 1 and lower[15, 40] == IGNORE_INDEX


def test_images_that_teach_nothing_are_left_out() -> None:
    best, raw = _predicted([0.3, 0.2, 0.05])
    assert pseudo_labels(best, raw, TAXONOMY, Certainty()).worth  # of its pixels
    nothing = pseudo_labels(best, raw, TAXONOMY, Certainty(pixel=0.99))
    assert not nothing.worth and [entry["iscrowd"] for entry in nothing.annotations] == [1, 1]


def test_the_folder_is_read_as_labels(tmp_path: Path) -> None:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    writer = PseudoLabelWriter(tmp_path / "out", Certainty())
    names, predictions = ["sub/b.png", "a.png", "c.png"], []
    for name, scores in zip(names, ([0.9, 0.5, 0.7], [0.2, 0.2, 0.9], [0.1, 0.1, 0.1]), strict=True):
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "images" / name)
        predictions.append(_predicted(scores, name))
        if name == "c.png":
            predictions[-1][1].certainty = torch.zeros(SIZE)
    trainer: Any = SimpleNamespace(
        predict_dataloaders=None,
        global_rank=0,
        is_global_zero=True,
        strategy=SimpleNamespace(barrier=lambda: None),
        progress_bar_callback=None,
    )
    module: Any = SimpleNamespace(taxonomy=TAXONOMY)
    writer.on_predict_start(trainer, module)
    for best, raw in predictions:
        truth = make_sample(
            torch.zeros(3, *SIZE, dtype=torch.uint8),
            boxes=[],
            labels=[],
            crowd=[],
            supervision=Supervision.full(TAXONOMY),
        )
        batch: Any = SimpleNamespace(truths=[truth])
        writer.on_predict_batch_end(trainer, module, Predictions([raw], [best]), batch, 0)
    writer.on_predict_end(trainer, module)
    assert writer.counts == (3, 1, 3, 3)
    options = _source(tmp_path / "images", tmp_path / "out", TAXONOMY)["init_args"]
    source = CocoInstances(**options)
    assert source.taxonomy == TAXONOMY and len(source) == 2
    for index, number in enumerate((1, 0)):
        sample, (best, raw) = source[index], predictions[number]
        assert sample.path.endswith(names[number])
        expected = pseudo_labels(best, raw, TAXONOMY, Certainty())
        assert sample.semantic is not None and expected.semantic is not None
        np.testing.assert_array_equal(sample.semantic.as_subclass(Tensor).numpy(), expected.semantic)
        assert sample.crowd.tolist() == [bool(entry["iscrowd"]) for entry in expected.annotations]
        assert torch.equal(sample.boxes.as_subclass(Tensor), best.boxes)


def test_wrong_thresholds_are_named() -> None:
    with pytest.raises(ValueError, match="doubt: expected 0 to 1"):
        Certainty(doubt=2)
    with pytest.raises(ValueError, match="there is no class 'road' with scores"):
        Certainty(scores={"road": 0.5}).of_boxes(TAXONOMY)
