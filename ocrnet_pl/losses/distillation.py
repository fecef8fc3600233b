"""What a network learns from the raw output of another one on the same images, instead of from labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.distributed.global_batch import over_all_processes
from ocrnet_pl.losses.assignment import gather_rows
from ocrnet_pl.losses.base import zero_of
from ocrnet_pl.losses.boxes import GIoULoss, paired_iou
from ocrnet_pl.losses.detection import keep_in_graph, outside_crowds
from ocrnet_pl.losses.pixels import UNLABELLED
from ocrnet_pl.structures import IGNORE_INDEX, Batch, DetectionOutput, Output

_SAME_OBJECT = 0.6
"""IoU above which the teacher's box and a labelled one are taken for the same object."""
_TOGETHER = 16
"""Number of labelled boxes that are compared with all candidates at a time."""
_BOX_FACTOR = 2.0
"""Factor of the boxes' sides among the terms, as in the loss of labelled boxes."""
_NO_LABEL, _NEW_CLASS = -2, -1
"""Stand for a pixel's position among the shared classes: it has no label, or one of a class that only the student
has."""
_BLOCK = 8
"""Side in pixels of the smallest area that is taken for padding if it is of one colour."""


@dataclass(frozen=True)
class SharedClasses:
    """The classes of one kind that the teacher and the student both have; S of them.

    Attributes:
        student: int64 [S], their indices in the student.
        teacher: int64 [S], their indices in the teacher.
        new: int64 [N], indices of the student's classes that the teacher does not have.
        gone: int64 [G], indices of the teacher's classes that the student does not have.
        rest: int64 [R], positions among the shared classes of those that stand for whatever a network does not know:
            the background, or all uncountable ones. Used for pixels only.
    """

    student: Tensor
    teacher: Tensor
    new: Tensor
    gone: Tensor
    rest: Tensor

    @classmethod
    def make(
        cls,
        pairs: Sequence[tuple[int, int]],
        counts: tuple[int, int],
        rest: Sequence[int] = (),
        device: torch.device | str = "cpu",
    ) -> SharedClasses:
        """Relate the classes of two networks.

        Args:
            pairs: Index in the student and index in the teacher of each shared class, at least one.
            counts: Number of classes of the student, number of classes of the teacher.
            rest: Positions among the pairs of the classes that stand for what a network does not know.
            device: Device of the two networks.
        """
        student, teacher = ([pair[side] for pair in pairs] for side in (0, 1))
        others = [[i for i in range(counts[side]) if i not in own] for side, own in enumerate((student, teacher))]
        indices = (student, teacher, *others, list(rest))
        return cls(*(torch.tensor(each, dtype=torch.long, device=device) for each in indices))

    def taught(self, labelled: Tensor, unlabelled_only: bool) -> Tensor:
        """Return bool [B, S], which classes are taught in which image, from those that it is labelled for [B, K]."""
        own = labelled[:, self.student]
        return ~own if unlabelled_only else torch.ones_like(own)


def distil_boxes(
    student: DetectionOutput,
    teacher: DetectionOutput,
    batch: Batch,
    shared: SharedClasses,
    *,
    temperature: float = 1.0,
    unlabelled_only: bool = False,
    exclusive: tuple[bool, bool] = (False, False),
) -> Tensor:
    """Return how far the student's candidates are from the teacher's: classes, confidence and sides, in float32.

    Each class is a question of its own, answered by yes or no, as the detector's scores are (Yang et al., "Bridging
    Cross-task Protocol Inconsistency for Distillation in Dense Object Detection", ICCV 2023), unless the student's
    classes exclude each other. The sides follow the teacher's distributions where both networks have them on the same
    grids (Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022), and its boxes by GIoU
    otherwise. A candidate counts with the square of its score, the teacher's or the student's, whichever is larger, so
    that the background counts where the student invents something there, and is next to nothing elsewhere (Chen et al.,
    "Learning Efficient Object Detection Models with Knowledge Distillation", NIPS 2017, weigh it for the same reason).

    Labels go first. Where the teacher's box is a labelled object of a class that is not taught, it is none of the
    taught classes. Within such boxes and in crowds, the confidence is only raised, never lowered; so it is in images
    where a class is neither labelled nor known to the teacher, whose objects may be anywhere.

    Args:
        student: Candidates of the network that learns.
        teacher: Candidates of the teacher on the same images, without gradient.
        batch: The images' labels.
        shared: The detection classes that both have.
        temperature: Divisor of all logits (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015), whose
            square multiplies the loss, above 0.
        unlabelled_only: Whether the classes that an image is labelled for are left to the labels.
        exclusive: Whether the classes of the student, and those of the teacher, exclude each other (a softmax).

    Returns:
        A scalar, at least 0; exactly zero if nothing is taught.
    """
    with torch.autocast(student.boxes.device.type, enabled=False):
        bins = [None if each.distribution is None else each.distribution.shape[-1] for each in (student, teacher)]
        comparable = bins[0] is not None and bins[0] == bins[1] and student.grids == teacher.grids
        teacher = best_in_cells(teacher, student)
        taught = shared.taught(batch.detection_classes, unlabelled_only)
        any_taught = taught.any(1, keepdim=True)
        inside, same = _labelled_objects(student, teacher, batch, shared, taught, unlabelled_only)
        with torch.no_grad():
            known = batch.detection_classes.clone()
            known[:, shared.student] |= taught
            lowers = known.all(1, keepdim=True) & ~inside
            own = (student.scores[..., shared.student].float() * taught[:, None]).amax(-1)
            score = (teacher.scores[..., shared.teacher].float() * taught[:, None]).amax(-1)
            certain = torch.maximum(own, score).square() * any_taught
            located = score.square() * ~same
            # Objects of other classes of the teacher's are background to the student.
            share = (score + 1e-9) / (teacher.scores.float().amax(-1) + 1e-9)
            confidence = (teacher.confidence / temperature).sigmoid() * share
            present = (student.confidence / temperature).sigmoid()
            target = torch.where(lowers, confidence, torch.maximum(confidence, present))
            raised = torch.maximum(teacher.confidence.sigmoid() * share, student.confidence.sigmoid()).square()
            raised = raised * any_taught * ~same
        if exclusive[0]:
            classes = _exclusive(student.classes, teacher.classes, shared, taught, temperature, exclusive[1])
            certain = certain * ~same
        else:
            logits, sure = student.classes[..., shared.student] / temperature, teacher.classes / temperature
            sure = (sure.softmax(-1) if exclusive[1] else sure.sigmoid())[..., shared.teacher]
            sure = sure.masked_fill(same[..., None], 0.0)
            classes = (_yes_or_no(logits, sure) * taught[:, None]).sum(-1)
        confident = _yes_or_no(student.confidence / temperature, target)
        if comparable:
            sides = _between(student.distribution, teacher.distribution, temperature) * temperature**2
        else:
            sides = GIoULoss()(student.boxes, teacher.boxes)
        weights = (certain, raised, located)
        losses = (classes * temperature**2, confident * temperature**2, sides)
        sums = [(loss * weight).sum() for loss, weight in zip(losses, weights, strict=True)]
        sums = list(over_all_processes(*sums, *(weight.sum() for weight in weights)))
        by_class, by_confidence, by_side = (
            part / total.clamp(min=1.0) for part, total in zip(sums[:3], sums[3:], strict=True)
        )
        return by_class + by_confidence + _BOX_FACTOR * by_side + keep_in_graph(student)


def _labelled_objects(
    student: DetectionOutput,
    teacher: DetectionOutput,
    batch: Batch,
    shared: SharedClasses,
    taught: Tensor,
    unlabelled_only: bool,
) -> tuple[Tensor, Tensor]:
    """Return bool [B, A] each: whether the centre is in a labelled object, and whether the teacher's box is the object.

    Objects of taught classes do not count; crowds do, for the first.
    """
    if not (unlabelled_only or len(shared.new)):
        inside = ~outside_crowds(student, batch)
        return inside, torch.zeros_like(inside)
    by_teacher = torch.zeros_like(batch.detection_classes)
    by_teacher[:, shared.student] = taught
    own = batch.valid & ~by_teacher.gather(1, batch.labels)
    same = torch.zeros_like(teacher.confidence, dtype=torch.bool)
    # A few at a time: all pairs of candidates and boxes would fill the memory.
    for boxes, counts in zip(batch.boxes.float().split(_TOGETHER, 1), own.split(_TOGETHER, 1), strict=True):
        iou = paired_iou(teacher.boxes[:, :, None], boxes[:, None])
        same |= ((iou > _SAME_OBJECT) & counts[:, None]).any(-1)
    return ~outside_crowds(student, replace(batch, crowd=batch.crowd | own, has_crowds=True)), same


def _yes_or_no(logits: Tensor, target: Tensor) -> Tensor:
    """Return the divergence of each logit's probability from its target, at least 0."""
    # Without the target's own entropy, which has no gradient, a student that equals its teacher has no loss.
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return loss + torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target)


def _between(logits: Tensor | None, target: Tensor | None, temperature: float) -> Tensor:
    """Return the divergence of the distributions over each side [B, A, 4, bins], as the mean over the sides [B, A]."""
    assert logits is not None and target is not None
    log_p, log_q = ((each / temperature).log_softmax(-1) for each in (target, logits))
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean(-1)


def _exclusive(
    logits: Tensor, teacher: Tensor, shared: SharedClasses, taught: Tensor, temperature: float, softmax: bool
) -> Tensor:
    """Return the divergence of classes that exclude each other [B, A]; the teacher's are only those that it teaches."""
    log_q = (logits / temperature).log_softmax(-1)[..., shared.student]
    teacher = teacher / temperature
    log_p = (teacher if softmax else F.logsigmoid(teacher))[..., shared.teacher]
    log_p = log_p.masked_fill(~taught[:, None], UNLABELLED).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@torch.no_grad()
def best_in_cells(teacher: DetectionOutput, student: DetectionOutput) -> DetectionOutput:
    """Return for each candidate of the student one of the teacher's: the one with the best score in its cell.

    Levels are paired by their strides: each level of the student looks at the nearest one of the teacher's, and at
    those that have no nearer one among the student's. Where a cell of the student is smaller than the teacher's, it
    looks at the cell around it; where it is larger, at all cells in it. Nothing is averaged: a mean of two boxes is
    neither.

    Args:
        teacher: The candidates to choose from; returned as they are if the grids are the same.
        student: The candidates of the other network on the same images.
    """
    if teacher.grids == student.grids:
        return teacher
    score = teacher.scores.amax(-1)
    rows = [_cells(level, levels, score.device) for level, levels in _paired_levels(student.grids, teacher.grids)]
    best = []
    for cells in rows:
        choices = score[:, cells.flatten()].unflatten(1, cells.shape)
        chosen = choices.argmax(-1, keepdim=True)
        best.append(cells.expand(len(score), -1, -1).gather(2, chosen)[..., 0])
    index = torch.cat(best, 1)
    return DetectionOutput(
        gather_rows(teacher.boxes, index),
        teacher.confidence.gather(1, index),
        gather_rows(teacher.classes, index),
        gather_rows(teacher.scores, index),
        student.points,
        student.strides,
        student.grids,
    )


Level = tuple[int, int, int]
"""Height, width and stride."""


def _paired_levels(student: Sequence[Level], teacher: Sequence[Level]) -> list[tuple[Level, list[tuple[int, Level]]]]:
    """Return for each level of the student the teacher's that it looks at, each with the index of its first row."""

    def nearest(stride: int, levels: Sequence[Level]) -> int:
        return min(range(len(levels)), key=lambda i: max(stride, levels[i][2]) / min(stride, levels[i][2]))

    starts = [sum(h * w for h, w, _ in teacher[:i]) for i in range(len(teacher))]
    pairs = []
    for own, level in enumerate(student):
        seen = {nearest(level[2], teacher)} | {i for i, each in enumerate(teacher) if nearest(each[2], student) == own}
        pairs.append((level, [(starts[i], teacher[i]) for i in sorted(seen)]))
    return pairs


def _cells(level: Level, teacher: Sequence[tuple[int, Level]], device: torch.device) -> Tensor:
    """Return int64 [cells, choices], for each cell of a level the rows of the teacher's cells that it looks at."""
    height, width, stride = level
    found = []
    for start, (rows, columns, coarse) in teacher:
        along = max(1, -(-stride // coarse))
        # As many points along each side of a cell as there are cells of the teacher's.
        steps = (torch.arange(along, device=device) + 0.5) / along
        y, x = (
            (((torch.arange(n, device=device)[:, None] + steps) * stride / coarse).long().clamp(max=most - 1))
            for n, most in ((height, rows), (width, columns))
        )
        found.append((start + y[:, None, :, None] * columns + x[None, :, None, :]).reshape(height * width, -1))
    return torch.cat(found, 1)


def distil_pixels(
    student: Output,
    teacher: Output,
    batch: Batch,
    shared: SharedClasses,
    *,
    temperature: float = 1.0,
    unlabelled_only: bool = False,
) -> Tensor:
    """Return the mean divergence of the student's classes of the pixels from the teacher's, in float32.

    What the teacher does not know is background to it, so the student's background and its new classes together are
    what the teacher calls background (Cermelli et al., "Modeling the Background for Incremental Learning in Semantic
    Segmentation", CVPR 2020); what only the teacher knows is background to the student. Where several classes are
    background, such as sky and grass, this holds for their sum, and they are compared among themselves. Where none is,
    only the shared classes are compared.

    Labels go first: a pixel of a class that the teacher does not know is background to it, whatever it says; without
    any background such a pixel is left out. Padding is left out.

    Args:
        student: Output of the network that learns.
        teacher: Output of the teacher on the same images, without gradient.
        batch: The images and their labels.
        shared: The segmentation classes that both have.
        temperature: Divisor of all logits, whose square multiplies the loss, above 0.
        unlabelled_only: Whether only the classes that an image is not labelled for are taught: each pixel's label is
            compared with them alone, and the other labelled classes are left out of the softmax of both networks.

    Returns:
        A scalar, at least 0; exactly zero if nothing is taught.
    """
    assert student.semantic is not None and teacher.semantic is not None
    with torch.autocast(batch.images.device.type, enabled=False):
        logits = student.semantic.float().contiguous()
        height, width = logits.shape[-2:]
        with torch.no_grad():
            place = _places(batch, shared, student.stride, (height, width))
            taught = shared.taught(batch.semantic_classes, unlabelled_only)
            counts = ~_padding(batch, student.stride, (height, width)) & taught.any(1)[:, None, None]
            new = place == _NEW_CLASS
            if not len(shared.rest):
                counts = counts & ~new
            target = at_stride(teacher.semantic.float(), teacher.stride, student.stride, (height, width))
            target = _grouped(target / temperature, shared.teacher, shared.gone, shared.rest)
            left = torch.zeros_like(target, dtype=torch.bool)
            if unlabelled_only:
                positions = torch.arange(len(shared.student), device=logits.device)[:, None, None]
                free = (place == _NO_LABEL)[:, None] | (positions == place[:, None])
                at_rest = torch.zeros_like(positions, dtype=torch.bool).index_fill(0, shared.rest, True)
                free = free | (new[:, None] & at_rest)
                left = ~(taught[:, :, None, None] | free)
            log_p = target.masked_fill(left, UNLABELLED).log_softmax(1)
        grouped = _grouped(logits / temperature, shared.student, shared.new, shared.rest)
        log_q = grouped.masked_fill(left, UNLABELLED).log_softmax(1)
        if len(shared.rest):
            # The label says that it is no class of the teacher's; as what else, is not for the teacher to say.
            among = grouped.detach().index_select(1, shared.rest).log_softmax(1)
            certain = torch.full_like(log_p, UNLABELLED).index_copy(1, shared.rest, among)
            log_p = torch.where(new[:, None], certain, log_p)
        loss = (log_p.exp() * (log_p - log_q)).sum(1)
        total, pixels = over_all_processes(torch.where(counts, loss, 0.0).sum(), counts.sum().float())
        return temperature**2 * total / pixels.clamp(min=1.0) + zero_of(student.semantic)


def at_stride(logits: Tensor, stride: int, wanted: int, size: tuple[int, int]) -> Tensor:
    """Return logits [B, S, h, w] at another stride, cut or continued to ``size`` at the bottom and the right."""
    if stride != wanted:
        logits = F.interpolate(logits, scale_factor=stride / wanted, mode="bilinear", align_corners=False)
    logits = logits[..., : size[0], : size[1]]
    below, right = size[0] - logits.shape[-2], size[1] - logits.shape[-1]
    return F.pad(logits, (0, right, 0, below), mode="replicate") if below or right else logits


def _grouped(logits: Tensor, shared: Tensor, others: Tensor, rest: Tensor) -> Tensor:
    """Return the logits [B, S, h, w] of the shared classes, to whose rest the probability of the others is added."""
    own = logits.index_select(1, shared)
    if not len(rest) or not len(others):
        return own
    background = own.index_select(1, rest)
    together = torch.cat((background, logits.index_select(1, others)), 1)
    more = together.logsumexp(1, keepdim=True) - background.logsumexp(1, keepdim=True)
    return own.index_copy(1, rest, background + more)


def _places(batch: Batch, shared: SharedClasses, stride: int, size: tuple[int, int]) -> Tensor:
    """Return int64 [B, h, w], the position of the label in the middle of each cell among the shared classes.

    A label that the image was not labelled for is none.
    """
    middle = stride // 2
    label = batch.semantic[:, middle::stride, middle::stride][:, : size[0], : size[1]].long()
    label = F.pad(label, (0, size[1] - label.shape[-1], 0, size[0] - label.shape[-2]), value=IGNORE_INDEX)
    count = batch.semantic_classes.shape[1]
    # A row for each label, the last one for none.
    position = label.new_full((len(batch), count + 1), _NO_LABEL)
    position[:, shared.student] = torch.arange(len(shared.student), device=label.device).expand(len(batch), -1)
    position = position.index_fill(1, shared.new, _NEW_CLASS)
    position[:, :count] = torch.where(batch.semantic_classes, position[:, :count], _NO_LABEL)
    return position.gather(1, label.clamp(max=count).flatten(1)).view_as(label)


def _padding(batch: Batch, stride: int, size: tuple[int, int]) -> Tensor:
    """Return bool [B, h, w], the cells outside of the images: areas of one colour without any label.

    Training images are moved and cut, and what they were padded with may have changed its colour since.
    """
    height, width = batch.images.shape[-2:]
    block = stride * max(1, _BLOCK // stride)
    images = batch.images.float()
    darkest = -F.max_pool2d(-images, block, ceil_mode=True)
    flat = (F.max_pool2d(images, block, ceil_mode=True) == darkest).all(1)
    labelled = (batch.semantic != IGNORE_INDEX).float()[:, None]
    blank = flat & (F.max_pool2d(labelled, block, ceil_mode=True)[:, 0] == 0)
    cells = blank.repeat_interleave(block // stride, 1).repeat_interleave(block // stride, 2)
    cells = cells[:, : size[0], : size[1]]
    cells = F.pad(cells, (0, size[1] - cells.shape[-1], 0, size[0] - cells.shape[-2]), value=True)
    cells[:, -(-height // stride) :] = True
    cells[:, :, -(-width // stride) :] = True
    return cells
