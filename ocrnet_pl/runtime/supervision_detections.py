"""Objects in the form of the package ``supervision``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def supervision_detections(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    names: Sequence[str],
    masks: NDArray[np.bool_] | None,
    tracks: NDArray[np.int64] | None = None,
) -> Any:
    """Return objects as ``supervision.Detections``.

    Args:
        boxes: float32 [N, 4], xyxy in pixels.
        scores: float32 [N], 0 to 1.
        labels: int64 [N], detection classes.
        names: The name of each box's class.
        masks: bool [N, H, W]; None for none.
        tracks: int64 [N], numbers of followed objects; None if they are not followed.

    Raises:
        ImportError: The package is not installed.
    """
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError("to_supervision needs the package supervision: pip install 'ocrnet-pl[video]'") from error
    return Detections(
        xyxy=boxes,
        mask=masks,
        confidence=scores,
        class_id=labels.astype(int),
        tracker_id=None if tracks is None else tracks.astype(int),
        data={"class_name": np.array(names, dtype=str)},
    )
