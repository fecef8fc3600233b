"""Objects that are followed through a film, by ByteTrack of the package ``trackers``, which is optional."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Prediction


class ObjectTracks:
    """Gives the same number to the same object in all frames, whatever its class is in each of them.

    An object gets a number in the second frame in a row in which it is found.

    Args:
        rate: Frames per second.
        score: Score from which an object is followed from, 0 to 1; objects below it continue a track only.
        patience: Seconds for which an object may be hidden, at least 0.
        overlap: Smallest IoU of an object with where it is expected, 0 to 1.

    Raises:
        DataError: The package is not installed.
        ValueError: An option is out of range.
    """

    def __init__(self, rate: float, score: float = 0.5, patience: float = 1.0, overlap: float = 0.1) -> None:
        for name, value in (("score", score), ("overlap", overlap)):
            if not 0 <= value <= 1:
                raise ValueError(f"tracks.{name}: expected 0 to 1, got {value}")
        if patience < 0:
            raise ValueError(f"tracks.patience: expected at least 0 seconds, got {patience}")
        try:
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise DataError(
                "tracks: objects are followed by the package trackers; pip install 'ocrnet-pl[video]'"
            ) from error
        self._tracker: Any = ByteTrackTracker(
            # The package counts in frames of a thirtieth of a second.
            lost_track_buffer=round(patience * 30),
            frame_rate=float(rate),
            track_activation_threshold=score,
            high_conf_det_threshold=score,
            minimum_iou_threshold=overlap,
        )

    def __call__(self, prediction: Prediction, seconds: float) -> Prediction:
        """Return the prediction for the next frame with the numbers of its objects.

        Args:
            prediction: The prediction.
            seconds: Time of the frame, later than that of the one before.
        """
        from supervision import Detections

        count = len(prediction.scores)
        found = Detections(
            xyxy=prediction.boxes.cpu().numpy().astype(np.float64),
            confidence=prediction.scores.cpu().numpy().astype(np.float64),
            class_id=prediction.labels.cpu().numpy().astype(int),
            data={"row": np.arange(count)},
        )
        followed = self._tracker.update(found, timestamp=seconds)
        tracks = torch.zeros(count, dtype=torch.int64)
        if len(followed):
            # Its numbers begin at 0, and -1 stands for none.
            tracks[torch.from_numpy(followed.data["row"])] = torch.from_numpy(followed.tracker_id).long() + 1
        return replace(prediction, tracks=tracks)
