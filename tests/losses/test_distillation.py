"""What a student learns of a teacher, against plain loops over candidates and pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from ocrnet_pl.losses.boxes import GIoULoss
from ocrnet_pl.losses.distillation import SharedClasses, at_stride, best_in_cells, distil_boxes, distil_pixels
from ocrnet_pl.models.detection import make_points
from ocrnet_pl.structures import Batch, DetectionOutput, Output

GRIDS = ((2, 2, 8), (1, 1, 16))
T = 2.0


def candidates(
    classes: int, seed: int, grids: tuple[tuple[int, int, int], ...] = GRIDS, images: int = 2, bins: int = 0
) -> DetectionOutput:
    """Return random candidates, whose scores are those of sigmoids; the student's tensors are leaves."""
    generator = torch.Generator().manual_seed(seed)
    points, strides = make_points(grids, torch.zeros(1))
    reach = 2 + 6 * torch.rand(images, len(points), 4, generator=generator)
    boxes = torch.cat((points - reach[..., :2], points + reach[..., 2:]), -1).requires_grad_()
    confidence = torch.randn(images, len(points), generator=generator).requires_grad_()
    logits = torch.randn(images, len(points), classes, generator=generator).requires_grad_()
    scores = (confidence.sigmoid()[..., None] * logits.sigmoid()).sqrt().detach()
    sides = torch.randn(images, len(points), 4, bins, generator=generator).requires_grad_() if bins else None
    return DetectionOutput(boxes, confidence, logits, scores, points, strides, grids, sides)


def labels(
    classes: int, semantic_classes: int = 2, size: tuple[int, int] = (16, 16), rows: int = 3, images: int = 2
) -> Batch:
    """Return a batch without a box and without a labelled pixel that is labelled for everything."""
    generator = torch.Generator().manual_seed(7)
    return Batch(
        images=torch.randint(0, 256, (images, 3, *size), generator=generator, dtype=torch.uint8),
        boxes=torch.zeros(images, rows, 4),
        labels=torch.zeros(images, rows, dtype=torch.long),
        valid=torch.zeros(images, rows, dtype=torch.bool),
        crowd=torch.zeros(images, rows, dtype=torch.bool),
        semantic=torch.full((images, *size), 255, dtype=torch.uint8),
        detection_classes=torch.ones(images, classes, dtype=torch.bool),
        semantic_classes=torch.ones(images, semantic_classes, dtype=torch.bool),
    )


def with_box(batch: Batch, image: int, row: int, box: Tensor, label: int, crowd: bool = False) -> None:
    batch.boxes[image, row], batch.labels[image, row] = box, label
    batch.valid[image, row], batch.crowd[image, row] = not crowd, crowd


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def divergence(logit: float, target: float) -> float:
    """KL divergence of two coins."""
    q = sigmoid(logit)
    return sum(p * math.log(p / r) for p, r in ((target, q), (1 - target, 1 - q)) if p > 0)


def overlap(a: list[float], b: list[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, wide) * max(0.0, high)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def by_loops(
    student: DetectionOutput, teacher: DetectionOutput, batch: Batch, pairs: list[tuple[int, int]], unlabelled: bool
) -> float:
    """The loss of boxes on the same grids, of classes that do not exclude each other, one candidate at a time."""
    student, teacher = (DetectionOutput(*(each.detach() for each in out[:6]), out.grids) for out in (student, teacher))
    sums, weights = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for image in range(len(batch)):
        labelled = batch.detection_classes[image].tolist()
        taught = [(own, other) for own, other in pairs if not (unlabelled and labelled[own])]
        if not taught:
            continue
        everything_known = all(labelled[k] or k in [own for own, _ in taught] for k in range(len(labelled)))
        others = [
            (box.tolist(), bool(crowd))
            for box, label, valid, crowd in zip(
                batch.boxes[image], batch.labels[image], batch.valid[image], batch.crowd[image], strict=True
            )
            if crowd or (valid and int(label) not in [own for own, _ in taught])
        ]
        for row in range(student.points.shape[0]):
            x, y = student.points[row].tolist()
            theirs = teacher.boxes[image, row].tolist()
            inside = any(b[0] <= x < b[2] and b[1] <= y < b[3] for b, _ in others)
            same = any(overlap(theirs, b) > 0.6 for b, crowd in others if not crowd)
            own_score = max(float(student.scores[image, row, k]) for k, _ in taught)
            score = max(float(teacher.scores[image, row, k]) for _, k in taught)
            by_class = 0.0
            for own, other in taught:
                target = 0.0 if same else sigmoid(float(teacher.classes[image, row, other]) / T)
                by_class += divergence(float(student.classes[image, row, own]) / T, target)
            share = score / float(teacher.scores[image, row].max())
            target = share * sigmoid(float(teacher.confidence[image, row]) / T)
            logit = float(student.confidence[image, row])
            if inside or not everything_known:
                target = max(target, sigmoid(logit / T))
            certain = max(own_score, score) ** 2
            confident = (
                0.0 if same else max(share * sigmoid(float(teacher.confidence[image, row])), sigmoid(logit)) ** 2
            )
            located = 0.0 if same else score**2
            side = float(GIoULoss()(student.boxes[image, row], teacher.boxes[image, row]))
            losses = (T * T * by_class, T * T * divergence(logit / T, target), side)
            for at, (loss, weight) in enumerate(zip(losses, (certain, confident, located), strict=True)):
                sums[at] += loss * weight
                weights[at] += weight
    means = [total / max(1.0, weight) for total, weight in zip(sums, weights, strict=True)]
    return means[0] + means[1] + 2 * means[2]


# The student has the classes a, b, new; the teacher b, gone, a.
PAIRS = [(0, 2), (1, 0)]


@pytest.mark.parametrize("unlabelled", [False, True])
@pytest.mark.parametrize("case", ["plain", "labels", "unknown"])
def test_boxes_are_taught_as_loops_say(case: str, unlabelled: bool) -> None:
    student, teacher = candidates(3, 1), candidates(3, 2)
    batch = labels(3)
    batch.detection_classes[0] = torch.tensor([False, False, True])
    batch.detection_classes[1] = torch.tensor([False, True, True])
    if case != "plain":
        # A new object where the teacher sees one of its own, one that it does not see, a crowd, and one of its class.
        with_box(batch, 0, 0, teacher.boxes[0, 1].detach() + 0.3, 2)
        with_box(batch, 0, 1, torch.tensor([0.0, 7.0, 7.0, 16.0]), 2)
        with_box(batch, 1, 0, torch.tensor([8.0, 0.0, 16.0, 8.0]), 2, crowd=True)
        with_box(batch, 1, 1, torch.tensor([0.0, 0.0, 9.0, 9.0]), 1)
    if case == "unknown":
        batch.detection_classes[:, 2] = False
    shared = SharedClasses.make(PAIRS, (3, 3))
    loss = distil_boxes(student, teacher, batch, shared, temperature=T, unlabelled_only=unlabelled)
    assert loss.item() == pytest.approx(by_loops(student, teacher, batch, PAIRS, unlabelled), rel=1e-4)
    assert loss.dtype == torch.float32


def test_a_new_object_keeps_its_confidence_and_an_image_labelled_for_all_is_left_to_its_labels() -> None:
    student, teacher = candidates(3, 1), candidates(3, 2)
    batch = labels(3)
    batch.detection_classes[:, :2] = False
    with_box(batch, 0, 0, torch.tensor([0.0, 0.0, 16.0, 16.0]), 2)
    shared = SharedClasses.make(PAIRS, (3, 3))
    silent = teacher._replace(confidence=torch.full_like(teacher.confidence, -9.0))
    distil_boxes(student, silent, batch, shared, temperature=T).backward()
    assert student.confidence.grad is not None
    assert (student.confidence.grad[0] == 0).all() and (student.confidence.grad[1] > 0).all()
    batch.detection_classes[:] = True
    nothing = distil_boxes(student, teacher, batch, shared, unlabelled_only=True)
    assert nothing.item() == 0
    student.classes.grad = None
    nothing.backward()
    assert student.classes.grad is not None and (student.classes.grad == 0).all()


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_student_that_equals_its_teacher_learns_nothing_whatever_the_order_of_classes(exclusive: bool) -> None:
    teacher = candidates(3, 2, bins=5)
    order = [2, 0, 1]
    student = DetectionOutput(
        teacher.boxes.detach().clone().requires_grad_(),
        teacher.confidence.detach().clone().requires_grad_(),
        teacher.classes.detach()[..., order].clone().requires_grad_(),
        teacher.scores[..., order],
        *teacher[4:7],
        distribution=teacher.distribution.detach().clone().requires_grad_(),  # type: ignore[union-attr]
    )
    shared = SharedClasses.make(list(enumerate(order)), (3, 3))
    taught = {"temperature": T, "exclusive": (exclusive, exclusive)}
    loss = distil_boxes(student, teacher, labels(3), shared, **taught)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss.backward()
    for leaf in (student.boxes, student.confidence, student.classes, student.distribution):
        assert leaf is not None and leaf.grad is not None and leaf.grad.abs().max() < 1e-6
    wrong = SharedClasses.make(list(enumerate([0, 1, 2])), (3, 3))
    assert distil_boxes(student, teacher, labels(3), wrong, **taught).item() > 0.05  # type: ignore[arg-type]


def test_classes_that_exclude_each_other_and_distributions_are_compared_as_such() -> None:
    student, teacher = candidates(3, 1, images=1, bins=4), candidates(3, 2, images=1, bins=4)
    shared = SharedClasses.make(PAIRS, (3, 3))
    batch = labels(3, images=1)
    loss = distil_boxes(student, teacher, batch, shared, temperature=T, exclusive=(True, True))
    only = student._replace(confidence=torch.full_like(student.confidence, -9), distribution=teacher.distribution)
    deaf = teacher._replace(confidence=torch.full_like(teacher.confidence, -9))
    classes = distil_boxes(only, deaf, batch, shared, temperature=T, exclusive=(True, True)).item()
    student, teacher = (
        each._replace(classes=each.classes.detach(), distribution=each.distribution.detach())  # type: ignore[union-attr]
        for each in (student, teacher)
    )
    total = weights = sides = places = 0.0
    for row in range(5):
        q = (student.classes[0, row] / T).softmax(-1)
        p = (teacher.classes[0, row, [2, 0]] / T).softmax(-1)
        own, score = student.scores[0, row, :2].max(), teacher.scores[0, row, [2, 0]].max()
        weight = float(torch.maximum(own, score)) ** 2
        total += weight * T * T * sum(float(a * (a / b).log()) for a, b in zip(p, q[[0, 1]], strict=True))
        weights += weight
        for side in range(4):
            a = (teacher.distribution[0, row, side] / T).softmax(-1)  # type: ignore[index]
            b = (student.distribution[0, row, side] / T).softmax(-1)  # type: ignore[index]
            sides += float(score) ** 2 * T * T * float((a * (a / b).log()).sum()) / 4
        places += float(score) ** 2
    assert classes == pytest.approx(total / max(1.0, weights), rel=1e-3)
    without = distil_boxes(
        student._replace(distribution=teacher.distribution),
        teacher,
        batch,
        shared,
        temperature=T,
        exclusive=(True, True),
    )
    assert (loss - without).item() == pytest.approx(2 * sides / max(1.0, places), rel=1e-3)


def test_a_new_object_is_called_none_of_the_classes_that_exclude_each_other() -> None:
    student, teacher = candidates(3, 1), candidates(3, 2)
    batch = labels(3)
    with_box(batch, 0, 0, teacher.boxes[0, 1].detach(), 2)
    distil_boxes(student, teacher, batch, SharedClasses.make(PAIRS, (3, 3)), exclusive=(True, True)).backward()
    assert student.classes.grad is not None
    moved = student.classes.grad.abs().sum(-1) > 0
    assert not moved[0, 1] and moved[1].all()


def test_distributions_on_other_grids_are_compared_by_their_boxes() -> None:
    student, teacher = candidates(3, 1, bins=4), candidates(3, 2, ((4, 4, 4), (2, 2, 8)), bins=4)
    shared = SharedClasses.make(PAIRS, (3, 3))
    loss = distil_boxes(student, teacher, labels(3), shared)
    direct = (each._replace(distribution=None) for each in (student, teacher))
    assert loss.item() == pytest.approx(distil_boxes(*direct, labels(3), shared).item()) and loss > 0


def test_other_grids_are_searched_for_the_best_candidate_of_each_cell() -> None:
    teacher = candidates(2, 3, ((4, 6, 4), (1, 2, 16), (1, 1, 32)))
    student = candidates(2, 4, ((2, 3, 8), (1, 2, 16)))
    found = best_in_cells(teacher, student)
    starts, grids = (0, 24, 26), teacher.grids
    # Each student's level with the teacher's levels that it looks at.
    for row, (point, stride) in enumerate(zip(student.points.tolist(), student.strides.tolist(), strict=True)):
        levels = [0] if stride == 8 else [1, 2]
        for image in range(2):
            choices = []
            for level in levels:
                height, width, step = grids[level]
                corner = (point[0] - stride / 2, point[1] - stride / 2)
                for y, x in product(range(height), range(width)):
                    low, high = (x * step, y * step), ((x + 1) * step, (y + 1) * step)
                    touches = all(low[i] < corner[i] + stride and high[i] > corner[i] for i in (0, 1))
                    if touches:
                        choices.append(starts[level] + y * width + x)
            best = max(choices, key=lambda k: float(teacher.scores[image, k].max()))
            assert torch.equal(found.boxes[image, row], teacher.boxes[image, best])
            assert torch.equal(found.classes[image, row], teacher.classes[image, best])
            assert found.confidence[image, row] == teacher.confidence[image, best]
    assert found.grids == student.grids and best_in_cells(teacher, teacher) is teacher


# The student has the segmentation classes back, a, new, b; the teacher b, gone, a, back.
PIXELS = [(0, 3), (1, 2), (3, 0)]


def pixels_by_loops(
    student: Tensor, teacher: Tensor, batch: Batch, rest: bool, unlabelled: bool, padded: list[tuple[int, int, int]]
) -> float:
    """The loss of pixels at a common stride of 1, one pixel at a time."""
    total, count = 0.0, 0
    for image, y, x in product(range(len(batch)), range(student.shape[2]), range(student.shape[3])):
        labelled = batch.semantic_classes[image].tolist()
        taught = [own for own, _ in PIXELS if not (unlabelled and labelled[own])]
        label: int | None = int(batch.semantic[image, y, x])
        if label == 255 or not labelled[label]:  # type: ignore[index]
            label = None
        if not taught or (image, y, x) in padded or (label == 2 and not rest):
            continue
        q = (student[image, :, y, x] / T).exp().tolist()
        p = (teacher[image, :, y, x] / T).exp().tolist()
        own, told = {k: q[k] for k, _ in PIXELS}, {k: p[other] for k, other in PIXELS}
        if rest:
            own[0] += q[2]
            told[0] += p[1]
        if label == 2:
            told = {k: float(k == 0) for k in own}
        if unlabelled and label is not None:
            stays = {0 if label == 2 else label, *taught}
            own, told = ({k: v for k, v in each.items() if k in stays} for each in (own, told))
        own, told = ({k: v / sum(each.values()) for k, v in each.items()} for each in (own, told))
        total += sum(v * math.log(v / own[k]) for k, v in told.items() if v > 0)
        count += 1
    return T * T * total / max(1, count)


@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("unlabelled", [False, True])
def test_pixels_are_taught_as_loops_say(rest: bool, unlabelled: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(2, 4, 12, 16, generator=generator).requires_grad_()
    teacher = torch.randn(2, 4, 12, 16, generator=generator)
    batch = labels(3, 4, (12, 16))
    batch.semantic = torch.randint(0, 5, (2, 12, 16), generator=generator)
    batch.semantic[batch.semantic == 4] = 255
    batch.semantic_classes[0] = torch.tensor([True, False, True, False])
    batch.semantic_classes[1] = torch.tensor([True, True, True, False])
    # The right half of the second image is padding.
    batch.images[1, :, :, 8:], batch.semantic[1, :, 8:] = 114, 255
    padded = [(1, y, x) for y in range(12) for x in range(8, 16)]
    shared = SharedClasses.make(PIXELS, (4, 4), [0] if rest else [])
    outputs = Output(None, student), Output(None, teacher)
    loss = distil_pixels(*outputs, batch, shared, temperature=T, unlabelled_only=unlabelled)
    want = pixels_by_loops(student.detach(), teacher, batch, rest, unlabelled, padded)
    assert loss.item() == pytest.approx(want, rel=1e-4)
    loss.backward()
    assert student.grad is not None and (student.grad[1, :, :, 8:] == 0).all() and student.grad[0].abs().sum() > 0
    batch.semantic_classes[:] = False
    assert torch.isfinite(distil_pixels(*outputs, batch, shared, unlabelled_only=unlabelled))
    batch.semantic_classes[:] = True
    nothing = distil_pixels(*outputs, batch, shared, unlabelled_only=True)
    assert nothing.item() == 0


def test_several_background_classes_stand_together_for_what_the_teacher_does_not_know() -> None:
    # The teacher knows sky, grass and disc; the student a star as well, which is sky or grass to the teacher.
    teacher = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2
    student = torch.cat((teacher, torch.full((1, 1, 2, 2), -30.0)), 1).requires_grad_()
    shared = SharedClasses.make([(0, 0), (1, 1), (2, 2)], (4, 3), [0, 1])
    batch = labels(1, 4, (2, 2), images=1)
    batch.semantic_classes[:, 2] = False

    def loss(logits: Tensor) -> Tensor:
        return distil_pixels(Output(None, logits), Output(None, teacher), batch, shared)

    batch.semantic[:] = 0
    assert loss(student).item() == pytest.approx(0, abs=1e-6)
    # Mass that a star takes from the background in proportion is no mistake; what it takes from the disc is one.
    moved = student.detach().softmax(1)
    moved[:, 3], moved[:, :2] = 0.3 * moved[:, :2].sum(1), 0.7 * moved[:, :2]
    assert loss(moved.log()).item() == pytest.approx(0, abs=1e-6)
    taken = student.detach().softmax(1)
    taken[:, 3], taken[:, 2] = 0.5 * taken[:, 2], 0.5 * taken[:, 2]
    assert loss(taken.log()).item() > 0.01
    # A pixel that is labelled as a star is no disc, and nothing is said of sky against grass.
    batch.semantic[:] = 3
    wrong = loss(student)
    disc = student.detach().softmax(1)[:, 2]
    assert wrong.item() == pytest.approx(-(1 - disc).log().mean().item(), rel=1e-4)
    wrong.backward()
    assert student.grad is not None and (student.grad[:, 2] > 0).all()
    ratio = student.grad[:, 0] / student.grad[:, 1]
    assert torch.allclose(ratio, (student[:, 0] - student[:, 1]).exp(), rtol=1e-3)


def test_maps_of_other_strides_are_moved_to_the_students_cells() -> None:
    ramp = torch.arange(8.0)[None, None, None].expand(1, 1, 4, 8) * 4 + 2  # The middle of each cell at stride 4.
    finer, coarser = at_stride(ramp, 4, 2, (10, 18)), at_stride(ramp, 4, 8, (2, 4))
    assert finer.shape == (1, 1, 10, 18)
    assert torch.allclose(finer[0, 0, 3, 2:14], torch.arange(2.0, 14) * 2 + 1)
    assert (finer[..., 16:] == finer[..., 15:16]).all()
    assert torch.allclose(coarser[0, 0, 1], torch.arange(4.0) * 8 + 4)


def test_what_is_empty_is_finite_and_leaves_everything_in_the_graph() -> None:
    student, teacher = candidates(3, 1), candidates(3, 2)
    batch = replace(labels(3, rows=0), detection_classes=torch.zeros(2, 3, dtype=torch.bool))
    loss = distil_boxes(student, teacher, batch, SharedClasses.make([(0, 0)], (3, 3)), unlabelled_only=True)
    loss.backward()
    for leaf in (student.boxes, student.confidence, student.classes):
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all()
