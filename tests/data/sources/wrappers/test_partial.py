"""Classes that were not labelled: no target, no background, no gradient, no figure."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.sources.wrappers.partial import Partial
from ocrnet_pl.data.sources.wrappers.taxonomy_mapping import keep_rows
from ocrnet_pl.errors import DataError
from ocrnet_pl.losses.base import Loss
from ocrnet_pl.losses.detection import QualityDetectionLoss, TutorialDetectionLoss
from ocrnet_pl.losses.pixels import CrossEntropy
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.metrics.panoptic import PanopticMetric
from ocrnet_pl.metrics.segmentation import SegmentationMetric
from ocrnet_pl.structures import Batch, Output, Prediction, Sample, Segment, Supervision
from tests.helpers.builders import tiny_network
from tests.helpers.label_sources import STREET, Scenes

NO_TRUCK: dict[str, Any] = {"boxes": ["car", "person"], "pixels": ["background", "road", "car", "person"]}
LOSSES: list[Loss] = [QualityDetectionLoss(), TutorialDetectionLoss(), SegmentationLoss()]


def test_what_is_labelled_stays() -> None:
    whole, part = Scenes()[0], Partial(Scenes(), **NO_TRUCK)[0]
    assert part.supervision.detection.tolist() == [True, False, True]
    assert part.supervision.semantic.tolist() == [True, True, True, False, True]
    assert part.labels.tolist() == [0, 2] and torch.equal(part.boxes, whole.boxes[[0, 2]])
    semantic, instances = np.asarray(whole.semantic), np.asarray(whole.instances)
    want = np.where(semantic == 3, 255, semantic)
    assert (np.asarray(part.semantic) == want).all()
    assert (np.asarray(part.instances) == np.array([0, 1, 0, 2])[instances]).all()
    assert torch.equal(part.image, whole.image)


@pytest.mark.parametrize(
    ("options", "boxes", "semantic", "instances"),
    [
        ({"pixels": False}, 3, False, False),  # boxes alone: no mask may tighten them
        ({"boxes": False}, 0, True, False),
        ({}, 3, True, True),
        ({"pixels": ["background", "car"]}, 3, True, False),
        ({"boxes": ["car"], "pixels": ["background", "car"]}, 1, True, True),
    ],
)
def test_tasks(options: dict[str, Any], boxes: int, semantic: bool, instances: bool) -> None:
    part = Partial(Scenes(), **options)[0]
    assert len(part.boxes) == boxes
    assert (part.semantic is not None, part.instances is not None) == (semantic, instances)
    assert part.supervision.detection.sum() == boxes and part.supervision.semantic.any() == semantic


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"boxes": ["kar"]}, r"boxes: there is no category with boxes 'kar'; did you mean 'car'\?"),
        ({"boxes": ["road"]}, "boxes: there is no category with boxes 'road'"),
        ({"pixels": ["background", "Road"]}, r"did you mean 'road'\?"),
        ({"pixels": ["car"]}, "a single class"),
        ({"boxes": False, "pixels": False}, "neither"),
        ({"boxes": [], "pixels": []}, "neither"),
        ({"boxes": ["car", "car"]}, "more than once"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as found:
        Partial(Scenes(), **options)
    assert "\n" not in str(found.value)


def _gradients(loss: Loss, batch: Batch) -> tuple[float, list[torch.Tensor], list[torch.Tensor]]:
    """Return the loss, the gradients on the decoders' outputs, and those on all parameters."""
    network = tiny_network(STREET)
    output = network(batch.images)
    detection, semantic = output.detection, output.semantic
    raw = [detection.boxes, detection.confidence, detection.classes, semantic]
    for tensor in raw:
        tensor.retain_grad()
    total = sum(loss(Output(detection, semantic, output.stride), batch).values())
    total.backward()
    outputs = [torch.zeros_like(t) if t.grad is None else t.grad for t in raw]
    return total.item(), outputs, [p.grad for p in network.parameters() if p.grad is not None]


class Trucks(Scenes):
    """The same images, their trucks marked, marked as crowds, or not marked at all."""

    def __init__(self, marked: str) -> None:
        super().__init__()
        self.marked = marked

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        if self.marked == "one by one":
            return sample
        instances, semantic = sample.instances.clone(), sample.semantic.clone()
        instances[instances == 2] = 0
        if self.marked == "as crowds":
            return sample.replace(instances=instances, crowd=sample.labels == 1)
        semantic[semantic == 3] = 255
        return keep_rows(sample.replace(semantic=semantic), sample.labels != 1)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_unlabelled_objects_change_no_gradient(loss: Loss) -> None:
    """However the trucks are marked, everything learnt from the image is the same to the last bit."""
    found = []
    for marked in ("one by one", "as crowds", "not at all"):
        source = Partial(Trucks(marked), **NO_TRUCK)
        found.append(_gradients(loss, collate([source[0], source[1]])))
    for other in found[1:]:
        assert other[0] == found[0][0] != 0
        assert all(torch.equal(a, b) for a, b in zip(other[1] + other[2], found[0][1] + found[0][2], strict=True))
    whole = _gradients(loss, collate([Trucks("one by one")[0], Trucks("one by one")[1]]))
    assert whole[0] != found[0][0]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_every_unlabelled_set_of_classes_gives_its_outputs_no_gradient(loss: Loss) -> None:
    """All 2 ** 3 sets of things: their logits get nothing, the others' something."""
    things = ["car", "truck", "person"]
    for bits in range(1, 8):
        chosen = [name for i, name in enumerate(things) if bits >> i & 1]
        part = Partial(Scenes(), boxes=chosen, pixels=["background", "road", *chosen])
        _, (boxes, confidence, classes, semantic), _ = _gradients(loss, collate([part[0], part[1]]))
        for i, name in enumerate(things):
            known = name in chosen
            if isinstance(loss, SegmentationLoss):
                assert bool(semantic[:, 2 + i].any()) == known
            else:
                assert bool(classes[..., i].any()) == known or (known and len(chosen) == 1)
        if isinstance(loss, SegmentationLoss):
            # The pixels that a truck covers, and no others near, teach nothing to any class.
            assert semantic[:, :2].any()
        else:
            assert boxes.any()
            # Candidates without a box are nobody's background while some class is unknown.
            full = bits == 7
            count = int((confidence[0] != 0).sum())
            assert (count == confidence.shape[1]) == full and count > 0


def test_pixels_of_an_unlabelled_class_by_brute_force() -> None:
    """The loss is that of a softmax over the known classes at the known pixels, and moving any one logit shows it."""
    batch = collate([Partial(Scenes(), **NO_TRUCK)[0]])
    torch.manual_seed(0)
    logits = torch.randn(1, 5, 40, 64, dtype=torch.float32, requires_grad=True)
    loss = SegmentationLoss([CrossEntropy()])
    value = loss(Output(None, logits, 1), batch)["ce"]
    value.backward()
    known, total, count = [0, 1, 2, 4], 0.0, 0
    truth = np.asarray(Scenes()[0].semantic)
    want = torch.zeros_like(logits)
    for y in range(40):
        for x in range(64):
            if truth[y, x] == 3:
                continue
            own = logits.detach()[0, known, y, x].double()
            probability = (own - own.logsumexp(0)).exp()
            total -= float(probability[known.index(truth[y, x])].log())
            probability[known.index(truth[y, x])] -= 1
            want[0, known, y, x] = probability.float()
            count += 1
    assert value.item() == pytest.approx(total / count, rel=1e-5)
    torch.testing.assert_close(logits.grad, want / count, atol=1e-7, rtol=1e-4)
    assert not logits.grad[0, :, 6:14, 18:26].any()


def test_boxes_of_unlabelled_classes_never_reach_the_losses() -> None:
    """Whoever writes a source of their own may leave them in."""
    sample = Scenes()[0]
    careless = sample.replace(supervision=Supervision(torch.tensor([True, False, True]), torch.ones(5) > 0))
    batch = collate([careless])
    assert batch.labels[0, :2].tolist() == [0, 2] and batch.valid[0].sum() == 2


def _prediction(semantic: np.ndarray) -> Prediction:
    panoptic = torch.zeros(40, 64, dtype=torch.int32)
    segments = []
    for number, value in enumerate(np.unique(semantic).tolist(), 1):
        panoptic[torch.from_numpy(semantic == value)] = number
        segments.append(Segment(number, value, 1.0, int((semantic == value).sum())))
    none = torch.zeros(0)
    return Prediction(
        none.view(0, 4), none, none.long(), torch.from_numpy(semantic), panoptic.clone(), panoptic, segments
    )


def test_metrics_skip_unlabelled_classes() -> None:
    truth = Partial(Scenes(), **NO_TRUCK)[0]
    predicted = np.asarray(Scenes()[0].semantic).copy()
    predicted[20:30, 40:60] = 3  # a truck that nobody has marked, on what is labelled background
    predicted[33:36, 0:20] = 0  # a real mistake: road taken for background
    metric = SegmentationMetric(STREET)
    metric.update([_prediction(predicted)], [truth])
    iou = {name: float(value) for name, value in metric.compute().items()}
    true = np.asarray(Scenes()[0].semantic)
    counts = (true != 3) & (predicted != 3)
    for i, name in enumerate(["background", "road", "car", "person"]):
        index = [0, 1, 2, 4][i]
        a, b = (true == index) & counts, (predicted == index) & counts
        assert iou[f"iou_per_class/{name}"] == pytest.approx((a & b).sum() / (a | b).sum())
    assert np.isnan(iou["iou_per_class/truck"])
    panoptic = PanopticMetric(STREET)
    panoptic.update([_prediction(predicted)], [truth])
    figures = {name: float(value) for name, value in panoptic.compute().items()}
    assert np.isnan(figures["pq_per_class/truck"]) and figures["pq_per_class/road"] > 0.5
    whole = PanopticMetric(STREET)
    full = Supervision.full(STREET)
    whole.update([_prediction(predicted)], [dataclasses.replace(truth, supervision=full)])
    assert float(whole.compute()["pq_per_class/truck"]) == 0.0
