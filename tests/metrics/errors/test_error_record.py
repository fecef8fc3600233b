"""What an evaluation records of its errors: pixels, images, galleries, and the same on two processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.metrics.errors.gallery import Gallery, reduced
from ocrnet_pl.metrics.errors.pixels import Edges, PixelErrors, _near_edges, pixel_errors
from ocrnet_pl.metrics.errors.record import ErrorAnalysis
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.metrics.runs import Overlay
from ocrnet_pl.structures import Prediction, Predictions, Sample
from tests.helpers.metric_cases import TAXONOMY, make_case


def evaluated(
    predictions: list[Prediction], truths: list[Sample], step: int = 3, boxes: bool = True, pixels: bool = True
) -> tuple[ErrorAnalysis | None, dict[str, torch.Tensor]]:
    """The analysis and the figures of these images, in batches."""
    metrics = EvaluationMetrics(TAXONOMY, boxes=boxes, pixels=pixels)
    metrics.record_errors(0.3, 2)
    for start in range(0, len(truths), step):
        own, found = truths[start : start + step], predictions[start : start + step]
        metrics.update(Predictions(found, found if boxes and pixels else None), collate(own, own))
    figures = metrics.compute()
    assert metrics.errors is not None
    return metrics.errors.compute(), figures


def case(images: int = 8) -> tuple[list[Prediction], list[Sample]]:
    predictions, truths = make_case(4, images)
    for number, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        prediction.certainty = torch.full(truth.size, 0.95 if number % 2 else 0.5)
        truth.path = f"{number}.png"
    return predictions, truths


def test_wrong_pixels_along_edges_and_inside() -> None:
    predictions, truths = case()
    analysis, _ = evaluated(predictions, truths)
    assert analysis is not None
    expected = PixelErrors.nothing(5)
    for prediction, truth in zip(predictions, truths, strict=True):
        true, found = torch.as_tensor(truth.semantic).long(), prediction.semantic.long()
        # Five thousandths of the diagonal of 80 pixels are less than one.
        largest = F.max_pool2d(true[None].float(), 3, 1, 1)[0]
        near = (largest != true) | (-F.max_pool2d(-true[None].float(), 3, 1, 1)[0] != true)
        wrong = (true != 255) & (true != found)
        for y, x in wrong.nonzero().tolist():
            (expected.edges if near[y, x] else expected.inside)[true[y, x], found[y, x]] += 1
        expected = expected._replace(
            labelled=expected.labelled + int((true != 255).sum()),
            labelled_near=expected.labelled_near + int(((true != 255) & near).sum()),
        )
    pixels = analysis.pixels["fused"]
    assert pixels.inside.tolist() == expected.inside.tolist()
    assert pixels.edges.tolist() == expected.edges.tolist()
    assert (pixels.labelled, pixels.labelled_near) == (expected.labelled, expected.labelled_near)
    assert pixels.edges.sum() > 100 and pixels.inside.sum() > 100


@pytest.mark.parametrize(("height", "width", "pixels"), [(30, 40, 1), (30, 41, 3), (1, 20, 2), (20, 1, 1), (1, 1, 4)])
def test_edges_are_as_far_as_the_square_around_a_pixel_reaches(height: int, width: int, pixels: int) -> None:
    plane = np.random.default_rng(pixels).integers(0, 30, (height, width)) // 29
    expected = [
        [
            len(set(plane[max(y - pixels, 0) : y + pixels + 1, max(x - pixels, 0) : x + pixels + 1].flat)) > 1
            for x in range(width)
        ]
        for y in range(height)
    ]
    assert _near_edges(plane, pixels).tolist() == expected


def test_pixels_of_unlabelled_classes_are_not_wrong() -> None:
    (prediction, *_), (truth, *_) = case(1)
    truth.supervision.semantic[1] = False
    edges = Edges.of(truth)
    assert edges is not None
    errors = pixel_errors(Overlay.of(prediction, truth), truth, edges, 5)
    assert errors.wrong > 0
    for matrix in (errors.inside, errors.edges):
        assert matrix[1].sum() == matrix[:, 1].sum() == 0


def test_sums_of_images_give_the_figures_of_the_set() -> None:
    predictions, truths = case()
    analysis, figures = evaluated(predictions, truths)
    assert analysis is not None
    table = analysis.images
    hit, true, found = (np.bincount(table.pixels.classes, table.pixels.values[:, i], 5) for i in range(3))
    assert np.nanmean(hit / (true + found - hit)) == pytest.approx(float(figures["fused_miou"]))
    iou, hits, alarms, misses = (np.bincount(table.segments.classes, table.segments.values[:, i], 5) for i in range(4))
    assert np.nanmean(iou / (hits + (alarms + misses) / 2)) == pytest.approx(float(figures["fused_pq"]))
    assert analysis.boxes["fused"].costs.ap == pytest.approx(float(figures["fused_map_50"]))
    assert analysis.masks["raw"].costs.ap == pytest.approx(float(figures["mask_map_50"]))


def test_galleries_hold_the_worst_and_the_most_certain() -> None:
    predictions, truths = case()
    analysis, _ = evaluated(predictions, truths)
    assert analysis is not None
    table = analysis.images
    assert table.names == [f"{number}.png" for number in range(8)]
    worst = np.argsort(table.quality, kind="stable")[:2]
    assert [shown.truth.path for shown in analysis.worst] == [f"{number}.png" for number in worst]
    assert [-shown.rank for shown in analysis.worst] == pytest.approx(table.quality[worst].tolist())
    # Only images of odd numbers are certain.
    assert {int(Path(shown.truth.path).stem) % 2 for shown in analysis.sure} == {1}
    loudest = analysis.boxes["fused"].errors.loudest
    assert [shown.rank for shown in analysis.alarming] == sorted(loudest.tolist(), reverse=True)[:2]
    inside = [(np.asarray(p.semantic) != np.asarray(t.semantic)) for p, t in zip(predictions, truths, strict=True)]
    for number, (wrong, truth) in enumerate(zip(inside, truths, strict=True)):
        edges = Edges.of(truth)
        assert edges is not None
        wrong = wrong & (np.asarray(truth.semantic) != 255) & ~edges.near.reshape(wrong.shape)
        assert table.sure[number] == pytest.approx(wrong.mean() if number % 2 else 0)
    # The quality of one image by hand.
    prediction, truth = predictions[1], truths[1]
    alone, figures = evaluated([prediction], [truth])
    assert alone is not None
    hits, alarms, misses = alone.boxes["fused"].errors.tallies[0].tolist()
    f1 = 2 * hits / (2 * hits + alarms + misses)
    assert table.quality[1] == pytest.approx((f1 + float(figures["fused_miou"])) / 2)


def test_one_task_only_and_nothing_at_all() -> None:
    predictions, truths = case(3)
    boxes, _ = evaluated(predictions, truths, pixels=False)
    pixels, _ = evaluated(predictions, truths, boxes=False)
    nothing, _ = evaluated([], [])
    assert boxes is not None and pixels is not None and nothing is not None
    assert (set(boxes.boxes), boxes.masks, boxes.pixels, boxes.best) == ({"raw"}, {}, {}, "raw")
    assert (pixels.boxes, set(pixels.pixels), pixels.images.boxed.any()) == ({}, {"raw"}, False)
    assert nothing.images.ids == [] and nothing.worst == []
    assert math.isnan(nothing.boxes["fused"].costs.ap)


def test_a_large_image_is_reduced_with_all_that_belongs_to_it() -> None:
    (prediction, *_), (truth, *_) = make_case(1, 2)[0][1:], make_case(1, 2)[1][1:]
    large = truth.replace(
        image=truth.image.repeat_interleave(20, -1).repeat_interleave(20, -2),
        boxes=type(truth.boxes)(truth.boxes * 20, format="XYXY", canvas_size=(960, 1280)),
        semantic=type(truth.semantic)(truth.semantic.repeat_interleave(20, -1).repeat_interleave(20, -2)),
        instances=type(truth.instances)(truth.instances.repeat_interleave(20, -1).repeat_interleave(20, -2)),
    )
    small, _ = reduced(large, prediction)
    assert small.size == (320, 427) and small.boxes.tolist() == (large.boxes / 3).tolist()
    assert tuple(small.semantic.shape) == tuple(small.instances.shape) == small.size
    gallery = Gallery(0)
    gallery.offer(1.0, "a", truth, prediction)
    assert gallery.images() == []


def _share(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    predictions, truths = case()
    # The first process has one image, the other all others.
    own = slice(0, 1) if rank == 0 else slice(1, None)
    analysis, _ = evaluated(predictions[own], truths[own])
    assert (analysis is None) == (rank == 1)
    if analysis is not None:
        torch.save(plain(analysis), f"{folder}/found.pt")
    dist.destroy_process_group()


def plain(analysis: ErrorAnalysis) -> dict[str, Any]:
    """What must not depend on the number of processes."""
    found = analysis.boxes["fused"]
    return {
        "ids": analysis.images.ids,
        "quality": analysis.images.quality.tolist(),
        "pixels": [each.tolist() for each in analysis.images.pixels],
        "segments": [each.tolist() for each in analysis.images.segments],
        "confusion": found.errors.confusion.tolist(),
        "costs": [found.costs.ap, *found.costs.by_kind.values(), found.costs.alarms, found.costs.misses],
        "counts": list(found.counts.values()),
        "curves": [[each.tolist() for each in curve] for curve in found.curves],
        "wrong": analysis.pixels["raw"].inside.tolist(),
        "sizes": analysis.surroundings.sizes.tolist(),
        "worst": [(shown.rank, shown.key) for shown in analysis.worst],
        "alarming": [(shown.rank, shown.key) for shown in analysis.alarming],
    }


def test_two_processes_record_what_one_does(tmp_path: Path) -> None:
    mp.start_processes(_share, args=(str(tmp_path),), nprocs=2, start_method="fork")
    analysis, _ = evaluated(*case())
    assert analysis is not None
    assert torch.load(tmp_path / "found.pt", weights_only=True) == plain(analysis)
