"""Films, cameras and streams, frame by frame, and films that are written; by PyAV, which is optional."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ocrnet_pl.errors import DataError, advice_on
from ocrnet_pl.imaging.image_files import check_size
from ocrnet_pl.imaging.images import MAX_PIXELS
from ocrnet_pl.storage.ordinary_files import open_file
from ocrnet_pl.storage.secrets import hidden
from ocrnet_pl.storage.unfinished import unfinished_path

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")
"""Endings of films, in lower case."""
CAMERA = "camera:"
"""What the name of a camera begins with, before its number or its device."""
_DEVICES = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_ENCODERS = ("h264", "mpeg4")
_TIME_BASE = Fraction(1, 60_000)
"""Seconds per unit of a written frame's time; a frame at any usual rate lasts a whole number of these units."""
_WAIT = 30.0


class Frame(NamedTuple):
    """One frame of a film.

    Attributes:
        image: uint8 [3, H, W], RGB, turned as the film says.
        seconds: Time since the first frame.
    """

    image: Tensor
    seconds: float


class Film:
    """The frames of a film, a camera or a stream, decoded when their turn comes.

    Args:
        source: Path of a file; ``camera:0`` or ``camera:/dev/video0``; or an address, such as that of an RTSP stream.

    Attributes:
        name: Name for messages, without credentials.
        rate: Frames per second.
        seconds: Length that the file says it has; None if it says nothing.
        count: Number of frames, about; None if it is unknown.
        live: Whether it goes on until somebody stops it, as a camera does.

    Raises:
        DataError: The source cannot be opened, has no pictures, or PyAV is not installed.
    """

    def __init__(self, source: str | PathLike[str]) -> None:
        text = str(source)
        self.name = hidden(text)
        av = _av(self.name)
        options: dict[str, Any] = {}
        is_file = not text.startswith(CAMERA) and "://" not in text
        if text.startswith(CAMERA):
            text = text.removeprefix(CAMERA)
            options["format"] = _DEVICES.get(sys.platform, "v4l2")
            if text.isdecimal() and sys.platform.startswith("linux"):
                text = f"/dev/video{text}"
        elif not is_file:
            options["timeout"] = _WAIT
        else:
            open_file(text, "film").close()
            # A playlist, whatever its name is, could lead elsewhere.
            options["container_options"] = {"protocol_whitelist": "file"}
        with _one_line(self.name):
            self._container = av.open(text, **options)
        if not self._container.streams.video:
            self._container.close()
            raise DataError.at(self.name, "it has no pictures", advice="give a film")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = Fraction(rate) if rate else Fraction(25)
        # Damaged headers give any rate.
        if not 0 < self.rate <= 1000:
            self.rate = Fraction(25)
        duration = self._stream.duration and float(self._stream.duration * self._stream.time_base)
        if not duration and self._container.duration:
            # Matroska says how long the whole is, not how long its pictures are.
            duration = self._container.duration / av.time_base
        self.seconds: float | None = duration or None
        self.count: int | None = self._stream.frames or (round(duration * self.rate) if duration else 0) or None
        # Files of which nobody knows the length end all the same.
        self.live = self.count is None and not is_file

    def __iter__(self) -> Iterator[Frame]:
        first: float | None = None
        number = 0
        with _one_line(self.name, lambda: f" after {number} frames"):
            for frame in self._container.decode(self._stream):
                check_size(self.name, (frame.height, frame.width), MAX_PIXELS)
                pixels = frame.to_ndarray(format="rgb24")
                turns = round((frame.rotation or 0) / 90) % 4
                if turns:
                    pixels = np.ascontiguousarray(np.rot90(pixels, turns))
                time = number / float(self.rate) if frame.time is None else float(frame.time)
                first = time if first is None else first
                yield Frame(torch.from_numpy(pixels).permute(2, 0, 1), time - first)
                number += 1

    def close(self) -> None:
        """Close the file or the device."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def container_name(path: Path) -> str:
    """Return FFmpeg's name of the container that the ending of a film stands for.

    Args:
        path: Path of a film that is to be written.

    Raises:
        DataError: No films are written with this ending.
    """
    ending = path.suffix.lower()
    names = {".mkv": "matroska", ".m4v": "mp4", ".ts": "mpegts"}
    if ending not in (".mp4", ".mov", ".avi", *names):
        raise DataError.at(path, f"no films are written with the ending {ending!r}", advice="use .mp4")
    return names.get(ending, ending.removeprefix("."))


class FilmWriter:
    """Writes frames as a film, which appears under its name only when it is complete.

    Frames of odd sides get one more row or column, since the usual formats have none.

    Args:
        path: Path of the film; its ending, such as ``.mp4``, decides the container.
        rate: Frames per second, about.

    Raises:
        DataError: There is no container of such an ending, or PyAV is not installed.
    """

    def __init__(self, path: str | PathLike[str], rate: Fraction) -> None:
        self.path = Path(path)
        self._rate = rate.limit_denominator(1001)
        self._av = _av(str(path))
        self._unfinished = unfinished_path(self.path)
        self._last = -1
        self._stream: Any = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _one_line(str(path), lambda: "", "written"):
            kind = self._av.format.ContainerFormat(container_name(self.path), "w")
            self._container = self._av.open(str(self._unfinished), "w", format=kind.name)

    def add(self, frame: Frame) -> None:
        """Append a frame; frames of the same time, or of an earlier one, follow each other as closely as possible."""
        image = frame.image
        height, width = image.shape[-2:]
        image = F.pad(image.float()[None], (0, width % 2, 0, height % 2), "replicate")[0].to(torch.uint8)
        with _one_line(str(self.path), lambda: "", "written"):
            if self._stream is None:
                self._start(int(image.shape[-2]), int(image.shape[-1]))
            picture = self._av.VideoFrame.from_ndarray(image.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            self._last = max(self._last + 1, round(frame.seconds / _TIME_BASE))
            picture.pts, picture.time_base = self._last, _TIME_BASE
            self._container.mux(self._stream.encode(picture))

    def _start(self, height: int, width: int) -> None:
        for name in _ENCODERS:
            try:
                self._stream = self._container.add_stream(name, rate=self._rate)
                break
            except ValueError:  # this encoder is not in every build
                continue
        else:
            raise DataError.at(self.path, f"PyAV has no encoder {' or '.join(_ENCODERS)}", advice="install its wheel")
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = _TIME_BASE

    def finish(self) -> None:
        """Write what is left, and give the film its name.

        Raises:
            DataError: The film cannot be written, or has no frame.
        """
        if self._stream is None:
            raise DataError.at(self.path, "there is no frame to write", advice="check the source")
        with _one_line(str(self.path), lambda: "", "written"):
            self._container.mux(self._stream.encode())
            self._container.close()
        self._unfinished.replace(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._container.close()
            self._unfinished.unlink(missing_ok=True)


def _av(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        advice = "install it with pip install 'ocrnet-pl[video]'"
        raise DataError.at(name, "films need the package av", advice=advice) from error
    # Errors are reported in one line with the name of the film; FFmpeg's own log would add more.
    av.logging.set_level(None)
    return av


@contextmanager
def _one_line(name: str, where: Any = lambda: "", done: str = "read") -> Iterator[None]:
    """Turn any error of FFmpeg into one line.

    Args:
        name: Name of the film.
        where: Called for how far it came.
        done: What is done with it.
    """
    import av

    try:
        yield
    except DataError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = hidden(" ".join(str(getattr(error, "strerror", None) or error).split()))[:200]
        problem = f"the film cannot be {done}{where()} ({reason or type(error).__name__})"
        advice = advice_on(error, "check the source" if done == "read" else "check the path")
        raise DataError.at(name, problem, advice=advice) from error
