"""The operators of :class:`~ocrnet_pl.export.graph.Graph` in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop
from torch.nn import functional as F

Number = int | float | bool
"""A constant of a single element."""
Operand = Tensor | Number | None
"""What an operator computes with; None where it has no such input."""
Lengths = Sequence[Any]
"""Lengths of axes: whole numbers, or torch's names for those that are known only when a program runs."""


def torch_type(code: int) -> torch.dtype:
    """Return torch's name of an ONNX type of elements."""
    return torch.from_numpy(np.empty(0, helper.tensor_dtype_to_np_dtype(code))).dtype


def _constant_of_shape(shape: Lengths, value: onnx.TensorProto) -> Tensor:
    content = numpy_helper.to_array(value)
    return torch.full(tuple(shape), content.item(), dtype=torch_type(value.data_type))


def _divided(one: Tensor, other: Operand) -> Tensor:
    whole = not isinstance(one, Tensor) or not one.is_floating_point()
    return torch.div(one, other, rounding_mode="trunc" if whole and _is_whole(other) else None)  # type: ignore[arg-type]


def _is_whole(value: Operand) -> bool:
    return not value.is_floating_point() if isinstance(value, Tensor) else isinstance(value, int)


def _larger(one: Tensor, other: Tensor | Number) -> Tensor:
    return torch.maximum(one, other) if isinstance(other, Tensor) else one.clamp(min=other)


def _smaller(one: Tensor, other: Tensor | Number) -> Tensor:
    return torch.minimum(one, other) if isinstance(other, Tensor) else one.clamp(max=other)


def _gather(values: Tensor, index: Tensor | int, axis: int = 0) -> Tensor:
    if not isinstance(index, Tensor):
        return values.select(axis, index)
    axis %= values.ndim
    if index.ndim == 1:
        return values.index_select(axis, index)
    found = values.index_select(axis, index.reshape(-1))
    return found.reshape(*values.shape[:axis], *index.shape, *values.shape[axis + 1 :])


def _gather_elements(values: Tensor, index: Tensor, axis: int = 0) -> Tensor:
    # Along the only axis, both are the same, and torch's gather takes longer.
    return values.index_select(0, index) if values.ndim == 1 else values.gather(axis, index)


_REDUCTIONS = {"max": "amax", "min": "amin", "add": "sum"}


def _scatter_elements(values: Tensor, index: Tensor, updates: Tensor, axis: int = 0, reduction: str = "none") -> Tensor:
    index = index.long()  # torch takes no other here
    if reduction == "none":
        return values.scatter(axis, index, updates)
    return values.scatter_reduce(axis, index, updates, _REDUCTIONS[reduction])


def _scatter_nd(values: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    return values.index_put(index.unbind(-1), updates)


def best(values: Tensor, count: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Return the largest values along the last axis, best first, and their places, the earlier one first on a tie."""
    assert axis == -1
    if values.shape[-1] == count:
        found = values.sort(dim=-1, descending=True, stable=True)
        return found.values, found.indices
    # Those chosen, in the order of their places, so that a stable sort leaves equal ones in it.
    place = values.topk(count, -1).indices.sort(-1).values
    chosen = values.gather(-1, place).sort(dim=-1, descending=True, stable=True)
    return chosen.values, place.gather(-1, chosen.indices)


def non_max_suppression(boxes: Tensor, scores: Tensor, most: Tensor, iou_threshold: Tensor, least: Tensor) -> Tensor:
    """Return which boxes are kept, int64 [K, 3]: image, class (there is one), and row; not in the order of the scores.

    Args:
        boxes: float32 [B, N, 4].
        scores: float32 [B, 1, N].
        most: Number of boxes to keep in each image, at least N.
        iou_threshold: IoU above which a box is dropped in favour of a better one.
        least: Score up to which boxes are dropped.
    """
    ordered, order = scores[:, 0].sort(dim=-1, descending=True, stable=True)
    sides = boxes.gather(1, order[:, :, None].expand(-1, -1, 4))
    x1, y1, x2, y2 = sides.unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    # In place: what takes the time is new memory.
    shared = torch.minimum(x2[:, :, None], x2[:, None]).sub_(torch.maximum(x1[:, :, None], x1[:, None])).clamp_(min=0)
    high = torch.minimum(y2[:, :, None], y2[:, None]).sub_(torch.maximum(y1[:, :, None], y1[:, None])).clamp_(min=0)
    shared.mul_(high)
    iou = shared.div_((area[:, :, None] + area[:, None]).sub_(shared))
    # Which box (column) is dropped in favour of which (row), if that one is kept.
    drops = (iou > iou_threshold).float().triu_(1)
    there = ordered > least
    kept = _independent(drops, there)
    image, row = kept.nonzero().unbind(-1)
    return torch.stack((image, torch.zeros_like(image), order[image, row]), -1)


def _independent(drops: Tensor, there: Tensor) -> Tensor:
    """Return the rows, bool [B, N], of which no kept one drops another, going from the first to the last.

    Each round decides at least the first row that is not decided yet, and usually most of them at once.

    Args:
        drops: float32 [B, N, N], 1 where a row drops a later one (column), else 0.
        there: bool [B, N], the rows to choose from.
    """

    def changes(kept: Tensor, before: Tensor) -> Tensor:
        return (kept != before).any()

    def decide(kept: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        dropped_by = torch.bmm(kept.float()[:, None], drops)[:, 0]
        return there & (dropped_by == 0), kept.clone()

    kept, before = there.clone(), torch.zeros_like(there)
    if torch.compiler.is_exporting():
        kept, before = while_loop(changes, decide, (kept, before))
    else:
        while changes(kept, before):
            kept, before = decide(kept, before)
    return kept


def _resize(values: Tensor, _region: None, scales: Lengths | None, sizes: Lengths | None = None, **how: Any) -> Tensor:
    """Scale [B, C, H, W] or [B, H, W, C]; that the second axis is not scaled says which."""
    assert how == {"mode": "linear"}
    if scales is not None:
        last = scales[1] != 1
    else:
        assert sizes is not None
        # In this order: a length that is not known yet must not be compared.
        last = not (isinstance(sizes[1], int) and isinstance(values.shape[1], int) and sizes[1] == values.shape[1])
    sides = slice(1, 3) if last else slice(2, 4)
    found = F.interpolate(
        values.permute(0, 3, 1, 2) if last else values,
        None if sizes is None else list(sizes[sides]),
        None if scales is None else list(scales[sides]),
        mode="bilinear",
        align_corners=False,
    )
    return found.permute(0, 2, 3, 1) if last else found


def _pad(values: Tensor, pads: Lengths, fill: Number) -> Tensor:
    axes = values.ndim
    assert not any(pads[:axes])
    whole = values.new_full([side + extra for side, extra in zip(values.shape, pads[axes:], strict=True)], fill)
    inner = whole
    for axis, side in enumerate(values.shape):
        inner = inner.narrow(axis, 0, side)
    inner.copy_(values)
    return whole


def _slice(values: Tensor, starts: Lengths, ends: Lengths, axes: Lengths) -> Tensor:
    for start, end, axis in zip(starts, ends, axes, strict=True):
        values = values.narrow(axis, start, end - start)
    return values


def _reshape(values: Tensor, shape: Lengths) -> Tensor:
    return values.reshape([values.shape[axis] if side == 0 else side for axis, side in enumerate(shape)])


def _reduced(name: str) -> Callable[..., Tensor]:
    def reduce(values: Tensor, axes: Lengths | None = None, keepdims: int = 1) -> Tensor:
        chosen = list(range(values.ndim)) if axes is None else list(axes)
        found: Tensor = getattr(values, name)(chosen, bool(keepdims))
        return found

    return reduce


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "ArgMax": lambda values, axis, keepdims: values.argmax(axis, bool(keepdims)),
    "Cast": lambda values, to: values.to(torch_type(to)),
    "Ceil": torch.ceil,
    "Concat": lambda *values, axis: torch.cat(values, axis),
    "ConstantOfShape": _constant_of_shape,
    "CumSum": lambda values, axis: values.cumsum(axis[0], dtype=values.dtype),
    "Div": _divided,
    "Equal": torch.eq,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Identity": lambda values: values,
    "IsInf": torch.isinf,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Max": _larger,
    "Min": _smaller,
    "Mod": torch.remainder,
    "Mul": torch.mul,
    "NonMaxSuppression": non_max_suppression,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Pad": _pad,
    "Pow": torch.pow,
    "Range": lambda start, end, step: torch.arange(start[0], end[0], step[0]),
    "ReduceMax": _reduced("amax"),
    "ReduceMin": _reduced("amin"),
    "ReduceSum": _reduced("sum"),
    "Reshape": _reshape,
    "Resize": _resize,
    "Round": torch.round,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Shape": lambda values, start=0, end=None: values.shape[start:end],
    "Sigmoid": torch.sigmoid,
    "Slice": _slice,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tile": lambda values, times: values.repeat(list(times)),
    "TopK": lambda values, count, axis: best(values, count[0], axis),
    "Transpose": lambda values, perm: values.permute(perm),
    "Unsqueeze": lambda values, axes: values.unsqueeze(axes[0]),
    "Where": torch.where,
}
"""Takes an operator's inputs, those of :data:`IN_LENGTHS` as numbers, and its attributes by name."""

IN_LENGTHS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "ReduceMax": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
"""Which inputs of an operator are lengths or axes: numbers that decide the shape of its result."""


def _pairwise(operator: Callable[[int, int], int]) -> Callable[[Lengths, Lengths], list[int]]:
    def apply(one: Lengths, other: Lengths) -> list[int]:
        count = max(len(one), len(other))
        pairs = zip(*(list(each) * (count // len(each)) for each in (one, other)), strict=True)
        return [operator(*pair) for pair in pairs]

    return apply


OF_LENGTHS: dict[str, Callable[..., Lengths]] = {
    "Add": _pairwise(lambda one, other: one + other),
    "Concat": lambda *parts: [side for part in parts for side in part],
    "Mul": _pairwise(lambda one, other: one * other),
    "Squeeze": lambda sides: sides,
    "Sub": _pairwise(lambda one, other: one - other),
}
"""Operators that are computed with whole numbers where the shape of a later result depends on theirs."""
