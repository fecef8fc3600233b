"""Weights that a network takes from another one: by name and shape, and its classes' rows by the classes' names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.models.base import ClassKind, ClassRows
from ocrnet_pl.models.class_map import ClassMap, classes
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.transfer_report import KIND_TITLES, ClassReport, Count, TransferReport

_DECODERS: dict[str, tuple[ClassKind, ...]] = {"detection": ("detection",), "segmentation": ("semantic", "detection")}
"""The decoders of a network, and the kinds of classes that each may have rows for, its own first."""


@torch.no_grad()
def transfer(network: OCRNet, weights: Mapping[str, Tensor], names: ClassMap | None, where: str) -> TransferReport:
    """Let a network take what fits it from the weights of another one; the rest of it stays as it is.

    Args:
        network: The network, changed in place.
        weights: Weights by name, as a network's ``state_dict`` names them.
        names: How the classes of the weights relate to the network's; None if nothing is known about them, in which
            case tensors with one row per class are taken where their shapes are equal.
        where: Name of the file for error messages.

    Returns:
        What was taken, moved by class names, left out, and what stayed as it was.

    Raises:
        CheckpointError: Nothing fits.
    """
    own = network.state_dict()
    parts = [name for name, child in network.named_children() if any(key.startswith(f"{name}.") for key in own)]
    report = TransferReport.of(parts)
    declared, doubtful = _declared(network), _doubtful(network, names)
    moved: set[ClassKind] = set()
    unused = dict(weights)
    others: dict[str, list[str]] = {}
    for name, target in own.items():
        part = name.partition(".")[0]
        count = report.parts[part]
        source = unused.get(name)
        if source is None or source.is_floating_point() != target.is_floating_point():
            count.new.add(target)
            continue
        rows, known = declared.get(name), target.numel()
        if rows and names is not None:
            value, known = _moved(source, target, rows, names)
            if value is not None and not known:
                # All of its rows are those of classes that the other side does not have.
                count.new.add(target)
                continue
            if value is not None:
                moved |= {row.kind for row in rows if part in _DECODERS and row.kind == _DECODERS[part][0]}
        else:
            value = source if source.shape == target.shape and not _has(target, doubtful.get(part, ())) else None
        if value is None:
            count.new.add(target)
            if source.shape != target.shape:
                others.setdefault(part, []).append(f"{name} {list(source.shape)} for {list(target.shape)}")
            continue
        target.copy_(value)
        del unused[name]
        same = not rows or names is None or all(names.same(row.kind) for row in rows)
        (count.taken if same else count.mapped).add(target, known)
        count.new.weights += target.numel() - known
    for name, tensor in unused.items():
        report.part(name.partition(".")[0]).left_out.add(tensor)
    if not any(count.taken.weights or count.mapped.weights for count in report.parts.values()):
        raise CheckpointError(f"{where}: nothing in it fits this network: {_both(weights, own)}")
    for part, shapes in others.items():
        report.notes.append(f"{part}: {len(shapes)} of another shape start afresh, such as {shapes[0]}")
    _report_classes(report, network, names, moved, doubtful)
    encoder = report.parts["encoder"]
    if encoder.taken.weights > encoder.new.weights:
        network.encoder.pretrained = True
        report.notes.append("the encoder counts as pretrained: its learning rate is multiplied by model.encoder_lr")
    return report


def _declared(network: OCRNet) -> dict[str, Sequence[ClassRows]]:
    """Return the class rows that the decoders declare, by the tensors' names in the network."""
    found: dict[str, Sequence[ClassRows]] = {}
    for part in _DECODERS:
        decoder = getattr(network, part)
        own = None if decoder is None else decoder.class_rows()
        found |= {f"{part}.{name}": rows for name, rows in (own or {}).items()}
    return found


def _doubtful(network: OCRNet, names: ClassMap | None) -> dict[str, set[int]]:
    """Return, by decoder that declares no class rows, the lengths of dimensions that may stand for other classes.

    A dimension may have one entry more than there are classes, for a confidence or a background.
    """
    found: dict[str, set[int]] = {}
    for part, kinds in _DECODERS.items():
        decoder = getattr(network, part)
        if names is None or decoder is None or decoder.class_rows() is not None:
            continue
        counts = {
            len(classes(taxonomy, kind)) + more
            for kind in kinds
            if not names.same(kind)
            for taxonomy in (names.old, names.new)
            for more in (0, 1)
        }
        if counts:
            found[part] = counts
    return found


def _has(tensor: Tensor, lengths: set[int] | tuple[()]) -> bool:
    """Return whether a dimension of a tensor has one of the lengths; a kernel's height and width are none."""
    sides = list(tensor.shape[:2] if tensor.ndim == 4 else tensor.shape)
    return any(side in lengths for place, side in enumerate(sides) if place == 0 or side > 1)


def _moved(source: Tensor, target: Tensor, rows: Sequence[ClassRows], names: ClassMap) -> tuple[Tensor | None, int]:
    """Return the target with its class rows moved from the source, or None if other dimensions differ.

    The number is that of the weights which come from the source.
    """
    wanted = list(target.shape)
    for row in rows:
        wanted[row.dimension] = row.first + len(classes(names.old, row.kind))
    if list(source.shape) != wanted:
        return None, 0
    value, known = source.to(target.device), torch.ones_like(target, dtype=torch.bool)
    for row in rows:
        others = [value.narrow(row.dimension, 0, row.first)]
        for index, parents in enumerate(names.rows(row.kind)):
            if parents:
                places = torch.tensor([row.first + parent for parent in parents], device=value.device)
                chosen = value.index_select(row.dimension, places)
                others.append(chosen.mean(row.dimension, keepdim=True))
            else:
                others.append(torch.zeros_like(value.narrow(row.dimension, 0, 1)))
                known.select(row.dimension, row.first + index).fill_(False)
        value = torch.cat(others, row.dimension)
    return torch.where(known, value.to(target.dtype), target), int(known.sum())


def _report_classes(
    report: TransferReport,
    network: OCRNet,
    names: ClassMap | None,
    moved: set[ClassKind],
    doubtful: Mapping[str, set[int]],
) -> None:
    for part, (kind, *_) in _DECODERS.items():
        decoder = getattr(network, part)
        if decoder is None:
            continue
        title, new = KIND_TITLES[kind], [category.name for category in classes(network.taxonomy, kind)]
        if names is None:
            report.notes.append(f"{title}: the file names no classes; their rows were taken in order where they fit")
            continue
        undeclared = decoder.class_rows() is None
        if part in doubtful:
            report.notes.append(
                f"{title}: {type(decoder).__name__} declares no class rows (class_rows), and the classes differ: "
                "tensors that may have one row per class start afresh"
            )
        taken = report.parts[part].taken.weights > 0 and part not in doubtful if undeclared else kind in moved
        old = [category.name for category in classes(names.old, kind)]
        parents = {
            name: [old[index] for index in rows] if taken else []
            for name, rows in zip(new, names.rows(kind), strict=True)
        }
        used = {name for own in parents.values() for name in own}
        report.classes[title] = ClassReport(
            taken=[name for name, own in parents.items() if own == [name]],
            mapped={name: own for name, own in parents.items() if own and own != [name]},
            left_out=[name for name in old if name not in used],
            new=[name for name, own in parents.items() if not own],
        )


def _both(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return what a file and a network hold, in a few words."""

    def text(tensors: Mapping[str, Tensor]) -> str:
        # The largest tells more than the first.
        name = max(tensors, key=lambda each: math.prod(tensors[each].shape), default=None)
        if name is None:
            return "no tensors"
        shown = name if len(name) <= 80 and name.isprintable() else f"{name[:80]!r}..."
        return f"{Count.many(tensors.values()).text()}, such as {shown} {list(tensors[name].shape)}"

    return f"it holds {text(weights)}; the network has {text(own)}"
