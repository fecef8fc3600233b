"""What a network took from the weights of another one, as texts and as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from ocrnet_pl.models.base import ClassKind

KIND_TITLES: dict[ClassKind, str] = {"detection": "classes of boxes", "semantic": "classes of pixels"}
HEADER = ("tensors (weights)", "taken", "mapped", "left out", "new")
_MOST_NAMES = 12


@dataclass
class Count:
    """A number of tensors and of the weights in them.

    Counters, which are no weights, count as tensors only. A tensor of which only some rows come from a file counts as
    mapped, and its other rows as new weights without a tensor.
    """

    tensors: int = 0
    weights: int = 0

    def add(self, tensor: Tensor, weights: int | None = None) -> None:
        """Count a tensor, with all of its weights or some of them."""
        self.tensors += 1
        if tensor.is_floating_point():
            self.weights += tensor.numel() if weights is None else weights

    @classmethod
    def many(cls, tensors: Iterable[Tensor]) -> Count:
        """Count tensors."""
        count = cls()
        for tensor in tensors:
            count.add(tensor)
        return count

    def text(self) -> str:
        """Return the numbers in words."""
        if not self.tensors:
            return f"rows ({self._weights} weights)" if self.weights else "-"
        return f"{self.tensors} tensor{'' if self.tensors == 1 else 's'} ({self._weights} weights)"

    def cell(self) -> str:
        """Return the numbers, for a narrow column; a dash for nothing."""
        return f"{self.tensors or 'rows'} ({self._weights})" if self.tensors or self.weights else "-"

    @property
    def _weights(self) -> str:
        return f"{self.weights / 1e6:.2f} M" if self.weights >= 10**6 else f"{self.weights:,}"


@dataclass
class PartReport:
    """One part of the network.

    Attributes:
        taken: Tensors that are those of the file.
        mapped: Tensors whose class rows were moved by the classes' names, with the weights that come from the file.
        left_out: Tensors of the file that were not used.
        new: Tensors of the network that stayed as they were, and the weights of new rows in mapped ones.
    """

    taken: Count = field(default_factory=Count)
    mapped: Count = field(default_factory=Count)
    left_out: Count = field(default_factory=Count)
    new: Count = field(default_factory=Count)

    @property
    def counts(self) -> tuple[Count, Count, Count, Count]:
        """The four, in the order of :data:`HEADER`."""
        return self.taken, self.mapped, self.left_out, self.new


@dataclass
class ClassReport:
    """The classes of one task, by name.

    Attributes:
        taken: Classes that keep their rows.
        mapped: New classes that start from others, with those.
        left_out: Classes of the file from which nothing starts.
        new: Classes that start afresh.
    """

    taken: list[str]
    mapped: dict[str, list[str]]
    left_out: list[str]
    new: list[str]

    def cells(self) -> list[str]:
        """Return the names, in the order of :data:`HEADER`; a dash for none."""
        mapped = [f"{' + '.join(parents)} -> {name}" for name, parents in self.mapped.items()]
        return [_listed(names) for names in (self.taken, mapped, self.left_out, self.new)]


@dataclass
class TransferReport:
    """What a network took from a file.

    Attributes:
        parts: The parts of the network, and of the file.
        classes: The classes of boxes and of pixels.
        notes: What else there is to say, one sentence each.
    """

    parts: dict[str, PartReport]
    classes: dict[str, ClassReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, parts: Iterable[str]) -> TransferReport:
        """Return an empty report on the parts of a network."""
        return cls({name: PartReport() for name in parts})

    def part(self, name: str) -> PartReport:
        """Return a part of the file; what is not a part of any network of this project is ``other``."""
        known = name in self.parts or name in ("neck", "detection", "segmentation")
        return self.parts.setdefault(name if known else "other", PartReport())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of a table under :data:`HEADER`."""
        rows: list[tuple[str, ...]] = []
        for name, part in self.parts.items():
            rows.append((name, *(count.cell() for count in part.counts)))
        return rows + [(title, *own.cells()) for title, own in self.classes.items()]

    def lines(self) -> list[str]:
        """Return the same in sentences, for a log."""
        texts = {name: [count.text() for count in part.counts] for name, part in self.parts.items()}
        found = []
        for name, cells in (texts | {title: own.cells() for title, own in self.classes.items()}).items():
            said = [f"{title} {cell}" for title, cell in zip(HEADER[1:], cells, strict=True) if cell != "-"]
            found.append(f"{name}: {'; '.join(said) or 'nothing'}")
        return [*found, *self.notes]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "-"
    more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"
