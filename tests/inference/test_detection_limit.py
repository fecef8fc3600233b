"""The limit on detections: what the network may return is what the figures count, and whoever exceeds it is told."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision import tv_tensors

from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.doctor.result import Recipe
from ocrnet_pl.drawing.results_table import results_tables
from ocrnet_pl.inference.batch_prediction import detection_limits
from ocrnet_pl.inference.decode import Decode
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.metrics import matching
from ocrnet_pl.metrics.detection import DetectionMetric
from ocrnet_pl.metrics.object_limit import LIMIT_KEY, OverLimit
from ocrnet_pl.structures import DetectionOutput, Placement, Prediction, Sample, Supervision
from ocrnet_pl.training.task import OCRNetTask
from tests.helpers.builders import make_batch
from tests.helpers.doctor_data import check, config, findings, run, write_clean
from tests.helpers.metric_cases import TAXONOMY, make_case, make_prediction, make_truth
from tests.training.test_task import make_data, make_task, make_trainer


@pytest.mark.parametrize("masks", [False, True])
def test_images_are_compared_some_at_a_time_with_the_same_figures(masks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, truths = make_case(12, 7)
    figures = []
    for pairs in (2**20, 150, 1):
        monkeypatch.setattr(matching, "_TOGETHER", pairs)
        metric = DetectionMetric(TAXONOMY, masks=masks)
        metric.update(predictions, truths)
        figures.append(torch.stack(list(metric.compute().values())))
    for some in figures[1:]:
        assert torch.equal(some.nan_to_num(-1), figures[0].nan_to_num(-1))


def grid(objects: int) -> tuple[Prediction, Sample]:
    """A truth of one class, an object each in a cell of its own, and the perfect prediction for it."""
    side = math.isqrt(objects - 1) + 1
    size = (8 * side, 8 * side)
    corners = 8.0 * torch.stack((torch.arange(objects) % side, torch.arange(objects) // side), 1)
    boxes = torch.cat((corners, corners + 6), 1)
    cells = torch.arange(1, side**2 + 1, dtype=torch.int32).view(side, side)
    cells[cells > objects] = 0
    instances = torch.zeros(side, 8, side, 8, dtype=torch.int32)
    instances[:, :6, :, :6] = cells[:, None, :, None]
    truth = Sample(
        image=tv_tensors.Image(torch.zeros(3, *size, dtype=torch.uint8)),
        boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        labels=torch.zeros(objects, dtype=torch.long),
        crowd=torch.zeros(objects, dtype=torch.bool),
        supervision=Supervision.full(TAXONOMY),
        semantic=tv_tensors.Mask(torch.zeros(size, dtype=torch.uint8)),
        instances=tv_tensors.Mask(instances.view(size)),
    )
    scores = torch.linspace(1, 0.5, objects)
    return Prediction(boxes, scores, truth.labels, instances=instances.view(size)), truth


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("objects", [150, 1000])
def test_perfect_predictions_are_perfect_however_many_objects_there_are(objects: int, masks: bool) -> None:
    prediction, truth = grid(objects)
    metric = DetectionMetric(TAXONOMY, masks=masks)
    metric.update([prediction], [truth])
    got = metric.compute()
    prefix = "mask_" if masks else ""
    assert float(got[f"{prefix}map"]) == float(got[f"{prefix}mar"]) == 1.0
    # Of COCO's recalls 0, 0.01, ... 1 those are reached that the best hundred reach.
    assert float(got[f"{prefix}map_100"]) == pytest.approx((100 * 100 // objects + 1) / 101)
    assert float(got[f"{prefix}mar_100"]) == pytest.approx(100 / objects)


def naive_map(predictions: list[Prediction], truths: list[Sample], most: int) -> float:
    """The mean average precision over classes and thresholds, prediction by prediction; without crowds."""
    per_class = []
    for label in range(3):
        objects = sum(int((truth.labels == label).sum()) for truth in truths)
        for threshold in np.arange(0.5, 1, 0.05):
            hits: list[tuple[float, bool]] = []
            for prediction, truth in zip(predictions, truths, strict=True):
                true = torch.as_tensor(truth.boxes)[truth.labels == label]
                rows = (prediction.labels == label).nonzero()[:, 0]
                rows = rows[prediction.scores[rows].argsort(descending=True, stable=True)][:most]
                iou = torchvision.ops.box_iou(prediction.boxes[rows].double(), true.double())
                for row, each in zip(rows.tolist(), iou, strict=True):
                    best = int(each.argmax()) if len(true) else -1
                    hit = best >= 0 and float(each[best]) >= threshold
                    if hit:
                        iou[:, best] = -1
                    hits.append((float(prediction.scores[row]), hit))
            if not objects:
                continue
            hits.sort(key=lambda pair: -pair[0])
            found = np.cumsum([hit for _, hit in hits] or [0])
            precision = found / np.arange(1, len(found) + 1)
            reached = [max(precision[found / objects >= recall], default=0.0) for recall in np.linspace(0, 1, 101)]
            per_class.append(float(np.mean(reached)))
    return float(np.mean(per_class))


def test_all_predictions_count_by_a_naive_loop() -> None:
    generator = torch.Generator().manual_seed(13)
    truths = [make_truth(generator, 60, i, crowds=False) for i in range(2)]
    predictions = [make_prediction(generator, truth, 400) for truth in truths]
    for prediction in predictions:
        # No ties, neither of scores nor of overlaps.
        prediction.scores = torch.rand(len(prediction.scores), generator=generator)
        prediction.boxes = prediction.boxes + torch.rand(prediction.boxes.shape, generator=generator) / 8
    metric = DetectionMetric(TAXONOMY)
    metric.update(predictions, truths)
    got = metric.compute()
    assert float(got["map"]) == pytest.approx(naive_map(predictions, truths, 10**6), abs=1e-9)
    assert float(got["map_100"]) == pytest.approx(naive_map(predictions, truths, 100), abs=1e-9)
    assert got["map"] > got["map_100"] > 0


def over_limit_lines(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(each.message) for each in caught if LIMIT_KEY in str(each.message)]


def limited(most: int, **options: object) -> OCRNetTask:
    source = SyntheticSource(length=1, seed=0, size=64)
    return make_task(source.taxonomy, postprocess=FusionPostProcess(Decode(max_detections=most)), **options)


def test_the_first_validation_says_once_that_objects_exceed_the_limit(tmp_path: Path) -> None:
    val = SyntheticSource(length=9, seed=6, size=64, min_objects=2, max_objects=6)
    counts = [len(val[index].labels) for index in range(len(val))]
    most = max(counts)
    over = sum(count > most - 2 for count in counts)
    assert 1 < over < len(counts)
    task = limited(most - 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(tmp_path, max_epochs=2).fit(task, make_data(val, val))
    assert over_limit_lines(caught) == [f"val: {OverLimit(over, most, most - 2)}"]
    assert f"{over} images have" in str(OverLimit(over, most, most - 2))
    assert "\n" not in str(OverLimit(over, most, most - 2))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(tmp_path).validate(limited(most), make_data(val, val), verbose=False)
    assert not over_limit_lines(caught)


def test_tiles_and_several_scales_change_the_limit_with_what_they_return() -> None:
    batch = make_batch([[], []], [[], []])
    large = grid(900)[1]
    batch.truths = [large, large]
    network = limited(7).network
    assert detection_limits(network, batch, None) == [7, 7]
    assert detection_limits(limited(7, detection=None).network, batch, None) is None
    tile = Tiling(overlap=0.25)
    # 240 pixels in tiles of 64 that share 16: five on each side.
    assert tile.count(large.size, (64, 64)) == 25
    assert detection_limits(network, batch, tile) == [175, 175]
    assert Tiling(scale=0.5).count((240, 128), (64, 64)) == 3
    assert Tiling().count((64, 20), (64, 64)) == 1


def test_as_many_boxes_as_the_limit_says_come_out_of_several_candidates_each() -> None:
    boxes = torch.as_tensor(grid(300)[1].boxes)
    # Eight candidates of each object, the best ones of a few objects far above the rest.
    each = boxes.repeat(8, 1)[None]
    scores = torch.linspace(0.9, 0.3, 300).repeat(8)[None, :, None]
    output = DetectionOutput(each, scores[..., 0], scores, scores, torch.zeros(2400, 2), torch.ones(2400), ())
    (found,) = Decode(max_detections=300)(output, [Placement.identity((200, 200))])
    assert len(found.boxes) == 300
    assert Decode().max_candidates == 1000
    with pytest.raises(ValueError, match="max_candidates: 200 candidates cannot give 300 boxes"):
        Decode(max_candidates=200, max_detections=300)
    assert Decode(iou_threshold=None, max_candidates=200, max_detections=300).max_detections == 300
    with pytest.raises(ValueError, match="max_detections: expected at least 1"):
        Decode(max_detections=0)


def test_the_check_says_in_one_finding_a_split_that_boxes_exceed_the_limit(tmp_path: Path) -> None:
    recipes = {"val": Recipe(lambda: SyntheticSource(length=9, seed=6, size=64), SyntheticSource, {})}
    counts = [len(recipes["val"].make()[index].labels) for index in range(9)]
    limit = max(counts) - 1
    assert run(recipes, tmp_path / "out", object_limit=lambda size: limit) == 0
    (row,) = [row for row in findings(tmp_path / "out") if row["kind"] == "many_objects"]
    assert (row["level"], row["split"]) == ("warning", "val")
    assert row["message"] == str(OverLimit(counts.count(max(counts)), max(counts), limit))
    for enough in (lambda size: max(counts), None):
        run(recipes, tmp_path / "out", object_limit=enough)
        assert not [row for row in findings(tmp_path / "out") if row["kind"] == "many_objects"]


def test_the_check_knows_the_limit_of_the_config(tmp_path: Path) -> None:
    root = write_clean(tmp_path / "data", lengths=(3, 2))
    path = config(root, tmp_path / "config.yaml")
    assert check("--config", path, "--output", tmp_path / "out", f"--{LIMIT_KEY}", 2) == 0
    found = [row for row in findings(tmp_path / "out") if row["kind"] == "many_objects"]
    assert [row["split"] for row in found] == ["train", "val"]
    assert "its limit is 2" in found[0]["message"]


def test_the_check_knows_how_large_a_box_the_network_can_place(tmp_path: Path) -> None:
    root = write_clean(tmp_path / "data", lengths=(3, 2))
    path = config(root, tmp_path / "config.yaml")

    def wide(*words: str) -> list[str]:
        out = tmp_path / "out"
        assert check("--config", path, "--output", out, "--data.size", 1024, *words) == 0
        return [row["message"] for row in findings(out) if row["kind"] == "wide_boxes"]

    # One bin of the coarsest level to each side of a candidate.
    bins = "--model.detection.init_args.bins"
    one, *_ = wide(bins, "2", "--model.detection.init_args.max_stride", "16")
    assert re.fullmatch(r"\d+ boxes have a side of more than 32 pixels at the input size", one)
    shared = (
        "{class_path: OneToOneDecoder, init_args: {decoder: {class_path: AnchorFreeDecoder, init_args: {bins: 2}}}}"
    )
    assert "more than 64 pixels" in wide("--model.detection", shared)[0]
    assert wide() == wide(bins, "null") == []


def test_the_table_shows_the_best_hundred_where_they_are_not_all() -> None:
    figures = {"val/map": 0.5, "val/fused_map": 0.6, "val/map_100": 0.5, "val/fused_map_100": 0.6}
    figures |= {"val/mask_map": 0.4, "val/mask_map_100": 0.1, "val/fused_mask_map": 0.4, "val/fused_mask_map_100": 0.4}
    (table,) = results_tables(figures, "val")
    assert [*table.columns[0].cells] == ["box mAP 50-95", "mask mAP 50-95", "mask mAP 50-95, best 100"]
