"""Saying so when nothing, or a whole class, would be learned because its objects are crowds."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.distributed.first_process import tell

MOST_CROWDS = 0.5
"""Largest share of crowds among the boxes of a data set in which objects are marked one by one."""


def only_crowds(objects: NDArray[np.int64], crowds: NDArray[np.int64], names: Sequence[str]) -> str | None:
    """Return what cannot be learned for being crowds; None if there is nothing of the kind.

    Args:
        objects: [classes], number of boxes that are targets.
        crowds: [classes], number of boxes that are crowds.
        names: Names of the classes.
    """
    total = int(objects.sum() + crowds.sum())
    if total and crowds.sum() > MOST_CROWDS * total:
        return f"{int(crowds.sum()):,} of {total:,} objects are crowds or marked to be ignored, so they are not learned"
    alone = [name for name, own, many in zip(names, objects, crowds, strict=True) if many and not own]
    if not alone:
        return None
    shown = ", ".join(map(repr, alone[:5])) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
    return f"every object of {shown} is a crowd or marked to be ignored, so the class is not learned"


def tell_of_crowds(
    labels: NDArray[np.int64], crowd: NDArray[np.bool_], names: Sequence[str], place: str | PathLike[str], advice: str
) -> None:
    """Say so if most boxes, or all of a class, are crowds.

    Args:
        labels: [N], detection classes.
        crowd: [N].
        names: Names of the classes.
        place: Path of the file, for the message.
        advice: What to do about it.
    """
    counts = [np.bincount(labels[chosen], minlength=len(names)) for chosen in (~crowd, crowd)]
    text = only_crowds(counts[0], counts[1], names)
    if text is not None:
        tell(f"{place}: {text}; {advice}")
