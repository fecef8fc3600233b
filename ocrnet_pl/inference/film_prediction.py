"""Prediction on films, cameras and streams: frame by frame, with objects followed from one to the next."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.transforms.v2.functional import pil_to_tensor

from ocrnet_pl.imaging.films import Film, FilmWriter, Frame
from ocrnet_pl.inference.object_tracks import ObjectTracks
from ocrnet_pl.models.ocrnet import OCRNet, Way
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Prediction

COLUMNS = ("frame", "seconds", "track", "name", "score", "x1", "y1", "x2", "y2")
"""Columns of the table of a film's objects."""


class PredictedFrame(NamedTuple):
    """What was found in one frame.

    Attributes:
        seconds: Time since the first frame.
        prediction: The prediction, with the frame as its ``image`` and the frame's number from 0 as its ``image_id``.
    """

    seconds: float
    prediction: Prediction


def predict_film(
    network: OCRNet,
    source: str | PathLike[str] | Film,
    *,
    tracks: ObjectTracks | None = None,
    tile: Way | None = None,
    multiscale: Way | None = None,
    batch_size: int | None = None,
) -> Iterator[PredictedFrame]:
    """Yield the prediction for each frame of a film, a camera or a stream, as it comes.

    Args:
        network: The network, for images of three channels.
        source: Path of a file, ``camera:0``, an address, or an open film.
        tracks: Follows the objects; None to find them in each frame anew.
        tile: How to predict frames that are larger than the input; None scales them down to fit.
        multiscale: How to predict in several passes; None for one pass.
        batch_size: Number of frames per pass; more than 1 delays what comes from a camera.

    Raises:
        DataError: The source cannot be read, or PyAV is not installed.
    """
    film = source if isinstance(source, Film) else Film(source)
    times: deque[float] = deque()

    def images() -> Iterator[torch.Tensor]:
        for frame in film:
            times.append(frame.seconds)
            yield frame.image

    with film:
        found = network.predict(images(), tile, multiscale, stream=True, batch_size=batch_size)
        for prediction in found:
            seconds = times.popleft()
            prediction.path = film.name
            yield PredictedFrame(seconds, prediction if tracks is None else tracks(prediction, seconds))


def write_film(
    frames: Iterable[PredictedFrame], path: str | PathLike[str], film: Film, *, score: float = 0.3
) -> Iterator[PredictedFrame]:
    """Draw predicted frames as a film, and their objects as rows of a table beside it, and yield them again.

    The film is ``path``, the table has the same name with the ending ``.csv``; both appear when they are complete. The
    sound is left out.

    Args:
        frames: The frames.
        path: Path of the film; its ending, such as ``.mp4``, decides the container.
        film: The film of which they are.
        score: Score below which objects are neither drawn nor listed, 0 to 1.

    Raises:
        DataError: The film cannot be written.
    """
    with (
        complete_file(Path(path).with_suffix(".csv")) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
        FilmWriter(path, film.rate) as writer,
    ):
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for frame in frames:
            shown = frame.prediction.filter(score=score)
            writer.add(Frame(pil_to_tensor(shown.plot(score=score)), frame.seconds))
            table.writerows(_rows(frame.seconds, shown))
            yield frame


def _rows(seconds: float, prediction: Prediction) -> Iterator[tuple[object, ...]]:
    tracks = [""] * len(prediction.scores) if prediction.tracks is None else prediction.tracks.tolist()
    rows = zip(tracks, prediction.names, prediction.scores.tolist(), prediction.boxes.tolist(), strict=True)
    for track, name, score, box in rows:
        sides = (round(side, 2) for side in box)
        yield prediction.image_id, round(seconds, 3), track, name, round(score, 4), *sides
