"""The metrics against pycocotools, brute force, and themselves over two processes."""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.imaging.run_lengths import encode_instances
from ocrnet_pl.metrics.detection import DetectionMetric
from ocrnet_pl.metrics.panoptic import PanopticMetric
from ocrnet_pl.metrics.segmentation import SegmentationMetric
from ocrnet_pl.structures import Prediction, Sample, Segment, Supervision, Taxonomy
from tests.helpers.metric_cases import TAXONOMY, make_case, make_truth


def by_pycocotools(predictions: list[Prediction], truths: list[Sample], masks: bool) -> dict[str, float]:
    annotations, results = [], []
    for number, (prediction, truth) in enumerate(zip(predictions, truths, strict=True), 1):
        for row, (x1, y1, x2, y2) in enumerate(truth.boxes.tolist()):
            plane = (np.asarray(truth.instances) == row + 1).astype(np.uint8)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(truth.labels[row]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(plane.sum()) or (x2 - x1) * (y2 - y1),
                    "iscrowd": int(truth.crowd[row]),
                    "segmentation": rle.encode(np.asfortranarray(plane)),
                }
            )
        for row, (x1, y1, x2, y2) in enumerate(prediction.boxes.double().tolist()):
            entry = {
                "image_id": number,
                "category_id": int(prediction.labels[row]) + 1,
                "score": float(prediction.scores[row]),
            }
            if masks:
                plane = (np.asarray(prediction.instances) == row + 1).astype(np.uint8)
                entry["segmentation"] = rle.encode(np.asfortranarray(plane))
            else:
                entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            results.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "images": [{"id": n, "height": t.size[0], "width": t.size[1]} for n, t in enumerate(truths, 1)],
            "annotations": annotations,
            "categories": [{"id": i + 1} for i in range(3)],
        }
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), "segm" if masks else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        own = {"map_100": evaluation.stats[0], "mar_100": evaluation.stats[8]}
        # Its summary knows no other limit than 100.
        evaluation.params.maxDets = [10**6]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]
    parts = {"map": precision[..., 0], "map_50": precision[0, ..., 0], "map_75": precision[5, ..., 0]}
    parts |= {f"map_{size}": precision[..., area] for area, size in enumerate(("small", "medium", "large"), 1)}
    parts |= {f"map_per_class/{name}": precision[:, :, index, 0] for index, name in enumerate("abc")}
    parts["mar"] = recall[..., 0]
    means = {name: part[part > -1].mean() if (part > -1).any() else math.nan for name, part in parts.items()}
    return {name: float(value) for name, value in (own | means).items()}


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(("seed", "objects", "extra"), [(0, 7, 5), (1, 3, 0), (2, 12, 110), (11, 40, 420)])
def test_average_precision_equals_pycocotools(seed: int, objects: int, extra: int, masks: bool) -> None:
    predictions, truths = make_case(seed, 9, objects, extra)
    metric = DetectionMetric(TAXONOMY, masks=masks)
    for start in range(0, 9, 4):
        metric.update(predictions[start : start + 4], truths[start : start + 4])
    got = metric.compute()
    for name, value in by_pycocotools(predictions, truths, masks).items():
        key = f"mask_{name}" if masks else name
        assert float(got[key]) == pytest.approx(value, abs=1e-6, nan_ok=True), key


def test_average_precision_on_real_nuclei(shared_data: Path) -> None:
    from ocrnet_pl.data.sources.coco import CocoInstances

    root = shared_data / "nuclei"
    source = CocoInstances("val", "instances_val.json", root=str(root))
    generator = torch.Generator().manual_seed(0)
    truths = [source[i] for i in range(0, 60, 4)]
    predictions = []
    for truth in truths:
        boxes = torch.as_tensor(truth.boxes) + torch.randn(len(truth.labels), 4, generator=generator)
        scores = torch.rand(len(boxes), generator=generator)
        order = scores.argsort(descending=True)
        predictions.append(Prediction(boxes[order][:100], scores[order][:100], truth.labels[order][:100]))
    metric = DetectionMetric(source.taxonomy)
    metric.update(predictions, truths)
    got = metric.compute()
    for name, value in by_pycocotools(predictions, truths, False).items():
        if not name.startswith("map_per_class"):
            assert float(got[name]) == pytest.approx(value, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize("masks", [False, True])
def test_the_size_of_an_object_is_that_of_its_pixels(masks: bool) -> None:
    """Halves of boxes: what is small by its pixels has a medium box, and what is medium a large one."""
    size = (128, 160)
    boxes = [[0, 0, 40, 40], [45, 5, 155, 115], [0, 60, 30, 90]]
    pixels = [(0, 0, 40, 20), (45, 5, 155, 65), (0, 60, 30, 80), (0, 20, 40, 40)]

    def drawn(*rows: int) -> Tensor:
        plane = torch.zeros(size, dtype=torch.int32)
        for number, row in enumerate(rows, 1):
            x1, y1, x2, y2 = pixels[row]
            plane[y1:y2, x1:x2] = number
        return plane

    truth = Sample(
        image=tv_tensors.Image(torch.zeros(3, *size, dtype=torch.uint8)),
        boxes=tv_tensors.BoundingBoxes(torch.tensor(boxes).float(), format="XYXY", canvas_size=size),
        labels=torch.zeros(3, dtype=torch.long),
        crowd=torch.zeros(3, dtype=torch.bool),
        supervision=Supervision.full(TAXONOMY),
        instances=tv_tensors.Mask(drawn(0, 1, 2)),
    )
    # The small ones are found, and not the medium one; the other class has a false alarm of a small mask.
    found = Prediction(
        torch.tensor([boxes[0], boxes[0], boxes[2]]).float(),
        torch.tensor([0.9, 0.8, 0.7]),
        torch.tensor([1, 0, 0]),
        instances=drawn(3, 0, 2),
    )
    other = truth.replace(
        boxes=tv_tensors.BoundingBoxes(torch.tensor([boxes[2]]).float(), format="XYXY", canvas_size=size),
        labels=torch.ones(1, dtype=torch.long),
        crowd=torch.zeros(1, dtype=torch.bool),
        instances=tv_tensors.Mask(drawn(2)),
        image_id=1,
    )
    hit = Prediction(torch.tensor([boxes[2]]).float(), torch.tensor([0.5]), torch.tensor([1]), instances=drawn(2))
    metric = DetectionMetric(TAXONOMY, masks=masks)
    metric.update([found, hit], [truth, other])
    got = {name.removeprefix("mask_"): float(value) for name, value in metric.compute().items()}
    for name, value in by_pycocotools([found, hit], [truth, other], masks).items():
        assert got[name] == pytest.approx(value, nan_ok=True), name
    assert got["map_medium"] == 0 and math.isnan(got["map_large"])
    assert got["map_small"] == pytest.approx(0.75 if masks else 1)


def test_average_precision_without_boxes_on_either_side() -> None:
    predictions, truths = make_case(3, 3)
    nothing = Prediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    metric = DetectionMetric(TAXONOMY)
    metric.update([nothing] * 3, truths)
    assert float(metric.compute()["map"]) == 0.0
    metric.reset()
    empty = make_truth(torch.Generator(), 0, 0)
    metric.update([predictions[1]], [empty])
    assert math.isnan(metric.compute()["map"])


def test_images_and_classes_without_detection_labels_do_not_count() -> None:
    predictions, truths = make_case(4, 4)
    none = Supervision(torch.zeros(3, dtype=torch.bool), torch.ones(5, dtype=torch.bool))
    partly = Supervision(torch.tensor([True, False, True]), torch.ones(5, dtype=torch.bool))
    metric = DetectionMetric(TAXONOMY)
    metric.update(
        predictions, [*truths[:2], truths[2].replace(supervision=none), truths[3].replace(supervision=partly)]
    )
    kept = predictions[3].labels != 1
    third = Prediction(predictions[3].boxes[kept], predictions[3].scores[kept], predictions[3].labels[kept])
    want = DetectionMetric(TAXONOMY)
    want.update([*predictions[:2], third], [*truths[:2], truths[3]])
    for key, value in want.compute().items():
        assert float(metric.compute()[key]) == pytest.approx(float(value), nan_ok=True), key


def test_iou_by_a_naive_loop() -> None:
    predictions, truths = make_case(5, 6)
    matrix = np.zeros((5, 5), dtype=int)
    for prediction, truth in zip(predictions, truths, strict=True):
        for t, p in zip(truth.semantic.flatten().tolist(), prediction.semantic.flatten().tolist(), strict=True):
            if t != 255:
                matrix[t, p] += 1
    metric = SegmentationMetric(TAXONOMY)
    metric.update(predictions, truths)
    got = metric.compute()
    ious = [matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]) for k in range(5)]
    assert float(got["miou"]) == pytest.approx(np.mean(ious), abs=1e-9)
    assert float(got["iou_per_class/b"]) == pytest.approx(ious[3], abs=1e-9)
    assert metric.confusion is not None
    assert metric.confusion.tolist() == matrix.tolist()


def test_a_class_that_is_nowhere_is_left_out_and_one_only_predicted_counts_as_zero() -> None:
    semantic = tv_tensors.Mask(torch.tensor([[0, 0], [1, 1]], dtype=torch.uint8))
    truth = make_truth(torch.Generator(), 0, 0).replace(semantic=semantic, instances=None)
    predicted = Prediction(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    predicted.semantic = torch.tensor([[0, 0], [1, 2]], dtype=torch.uint8)
    metric = SegmentationMetric(TAXONOMY)
    metric.update([predicted], [truth])
    got = metric.compute()
    assert float(got["miou"]) == pytest.approx((1 + 0.5 + 0) / 3)
    assert math.isnan(got["iou_per_class/b"])


def naive_pq(predictions: list[Prediction], truths: list[Sample], taxonomy: Taxonomy) -> dict[str, float]:
    """The panopticapi's rules, segment by segment."""
    names = [c.name for c in taxonomy.categories]
    sums = {name: [0.0, 0, 0, 0] for name in names}
    for prediction, truth in zip(predictions, truths, strict=True):
        semantic, instances = torch.as_tensor(truth.semantic), torch.as_tensor(truth.instances)
        true: list[tuple[str, Tensor]] = []
        crowds: dict[str, Tensor] = {}
        free = (instances == 0) & (semantic != 255)
        for category in taxonomy.semantic_categories:
            mask = free & (semantic == category.semantic)
            if category.is_thing:
                crowds[category.name] = mask
            elif mask.any():
                true.append((category.name, mask))
        for row, label in enumerate(truth.labels.tolist()):
            if (instances == row + 1).any():
                true.append((taxonomy.detection_categories[label].name, instances == row + 1))
        void = (instances == 0) & (semantic == 255)
        matched = set()
        for segment in prediction.segments:
            mask, name = prediction.panoptic == segment.id, names[segment.category]
            hit = False
            for index, (other, area) in enumerate(true):
                overlap = (mask & area).sum().item()
                union = mask.sum().item() + area.sum().item() - overlap - (mask & void).sum().item()
                if other == name and overlap / union > 0.5:
                    sums[name][0] += overlap / union
                    sums[name][1] += 1
                    matched.add(index)
                    hit = True
            excuse = void | crowds.get(name, torch.zeros_like(void))
            if not hit and (mask & excuse).sum().item() / mask.sum().item() <= 0.5:
                sums[name][2] += 1
        for index, (name, _) in enumerate(true):
            sums[name][3] += index not in matched
    quality = {n: s[0] / (s[1] + s[2] / 2 + s[3] / 2) for n, s in sums.items() if s[1] + s[2] + s[3]}
    return {"pq": float(np.mean(list(quality.values()))), **{f"pq_per_class/{n}": q for n, q in quality.items()}}


@pytest.mark.parametrize("seed", [6, 7])
def test_panoptic_quality_by_a_naive_loop(seed: int) -> None:
    predictions, truths = make_case(seed, 8)
    metric = PanopticMetric(TAXONOMY)
    metric.update(predictions, truths)
    got = metric.compute()
    for key, value in naive_pq(predictions, truths, TAXONOMY).items():
        assert float(got[key]) == pytest.approx(value, abs=1e-9), key
    assert 0 < float(got["pq"]) < 1


def test_panoptic_quality_on_a_real_case(shared_data: Path) -> None:
    from ocrnet_pl.data.sources.coco_panoptic import CocoPanoptic

    root = shared_data / "formats" / "coco_panoptic"
    source = CocoPanoptic("input_images", "panoptic_examples.json", "panoptic_examples", root=str(root))
    predictions, truths = [], [source[i] for i in range(len(source))]
    position = {c.name: i for i, c in enumerate(source.taxonomy.categories)}
    for truth in truths:
        # The truth shifted by a few pixels, so that some segments match and some do not.
        instances, semantic = (torch.roll(torch.as_tensor(m), 6, 1) for m in (truth.instances, truth.semantic))
        panoptic, segments = torch.zeros(truth.size, dtype=torch.int32), []
        for row, label in enumerate(truth.labels.tolist()):
            if (instances == row + 1).any():
                name = source.taxonomy.detection_categories[label].name
                segments.append(Segment(len(segments) + 1, position[name], 0.5, 1, row))
                panoptic[instances == row + 1] = len(segments)
        for category in source.taxonomy.semantic_categories:
            own = (panoptic == 0) & (semantic == category.semantic)
            if own.any():
                segments.append(Segment(len(segments) + 1, position[category.name], 1.0, 1))
                panoptic[own] = len(segments)
        empty = torch.zeros(0)
        predictions.append(Prediction(empty.view(0, 4), empty, empty.long(), panoptic=panoptic, segments=segments))
    metric = PanopticMetric(source.taxonomy)
    metric.update(predictions, truths)
    got = metric.compute()
    want = naive_pq(predictions, truths, source.taxonomy)
    for key, value in want.items():
        assert float(got[key]) == pytest.approx(value, abs=1e-9), key
    assert 0.2 < want["pq"] < 1


def _share(rank: int, world: int, images: int, folder: str) -> None:
    """One process: its share of the images, then every metric; the collective calls are counted."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    calls: list[str] = []
    for name in ("gather_object", "all_gather", "all_gather_object", "all_reduce"):
        original = getattr(dist, name)

        def counted(*args, _name=name, _original=original, **kwargs):
            calls.append(_name)
            return _original(*args, **kwargs)

        setattr(dist, name, counted)
    predictions, truths = make_case(8, images)
    figures = {}
    for metric in metrics():
        metric.update(predictions[rank::world], truths[rank::world])
        assert not calls, "a collective call inside update can hang"
        figures |= metric.compute()
        # gather_object sends the sizes first, through all_gather.
        assert len([call for call in calls if call != "all_gather"]) == 1, calls
        calls.clear()
    torch.save(figures, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def metrics() -> list[DetectionMetric | SegmentationMetric | PanopticMetric]:
    detection = [DetectionMetric(TAXONOMY, masks=masks) for masks in (False, True)]
    return [*detection, SegmentationMetric(TAXONOMY), PanopticMetric(TAXONOMY)]


@pytest.mark.parametrize("images", [7, 1], ids=["uneven", "one rank empty"])
def test_two_processes_give_the_figures_of_one(tmp_path: Path, images: int) -> None:
    mp.start_processes(_share, args=(2, images, str(tmp_path)), nprocs=2, start_method="fork")
    predictions, truths = make_case(8, images)
    want = {}
    for metric in metrics():
        metric.update(predictions, truths)
        want |= metric.compute()
    for rank in (0, 1):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert set(got) == set(want)
        for key, value in want.items():
            assert float(got[key]) == pytest.approx(float(value), abs=1e-6, nan_ok=True), key


@pytest.mark.parametrize("seed", range(6))
def test_instances_are_encoded_as_coco_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width, count = (int(n) for n in random.integers(1, 40, 3))
    plane = random.integers(0, count + 2, (height, width)).astype(np.int32)
    if seed % 2:
        plane = np.kron(plane[: height // 3 + 1, : width // 3 + 1], np.ones((3, 3), np.int32))
    # One that is absent, and the last pixel inside and outside.
    plane[plane == 1] = 0
    plane[-1, -1] = 0 if seed < 3 else count
    expected = [rle.encode(np.asfortranarray(plane == i, dtype=np.uint8))["counts"] for i in range(1, count + 1)]
    encoded, areas = encode_instances(torch.from_numpy(plane), count)
    assert encoded == expected
    assert areas.tolist() == [(plane == i).sum() for i in range(1, count + 1)]
