"""Films: read and written frame by frame, predicted on, and their objects followed."""

from __future__ import annotations

import csv
import math
import shutil
import signal
import struct
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from ocrnet_pl.cli.command import Run
from ocrnet_pl.cli.commands.film import predict_on_film
from ocrnet_pl.errors import DataError, UsageError
from ocrnet_pl.imaging.films import Film, FilmWriter, Frame
from ocrnet_pl.inference.film_prediction import PredictedFrame, predict_film, write_film
from ocrnet_pl.inference.object_tracks import ObjectTracks
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Prediction
from tests.helpers.builders import TAXONOMY, tiny_network

SIZE, FRAMES = (48, 80), 10


def frame(number: int) -> np.ndarray:
    """Return a grey picture with a red square that moves to the right by four pixels a frame."""
    picture = np.full((*SIZE, 3), 100, np.uint8)
    picture[16:32, 4 * number : 4 * number + 16] = (220, 40, 40)
    return picture


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a film of ten frames in a second, the fifth of which lasts as long as two, written by PyAV itself."""
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for number in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(frame(number), format="rgb24")
            picture.pts, picture.time_base = number + (number > 4), Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def boxed(*rows: tuple[float, float, float]) -> Prediction:
    """Return boxes of 20 pixels at (x, y) with a score."""
    boxes = torch.tensor([[x, y, x + 20, y + 20] for x, y, _ in rows]).reshape(-1, 4)
    return Prediction(boxes, torch.tensor([score for _, _, score in rows]), torch.zeros(len(rows), dtype=torch.int64))


def test_frames_and_their_times_are_those_of_the_film(film: Path) -> None:
    with Film(film) as opened:
        assert opened.count == FRAMES and 8 < opened.rate < 11
        frames = list(opened)
    assert [round(each.seconds, 3) for each in frames] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0]
    for number, each in enumerate(frames):
        assert each.image.shape == (3, *SIZE) and each.image.dtype == torch.uint8
        difference = each.image.permute(1, 2, 0).numpy().astype(int) - frame(number)
        assert np.abs(difference).mean() < 6


def test_a_film_from_a_telephone_is_turned(film: Path, tmp_path: Path) -> None:
    content = bytearray(film.read_bytes())
    # The matrix of the track's header, after 40 bytes: to show it, turn it clockwise by a quarter.
    start = content.index(b"tkhd") + 44
    content[start : start + 20] = struct.pack(">5i", 0, 1 << 16, 0, -(1 << 16), 0)
    (tmp_path / "turned.mp4").write_bytes(content)
    with Film(film) as straight, Film(tmp_path / "turned.mp4") as turned:
        for one, other in zip(straight, turned, strict=True):
            assert torch.equal(other.image, one.image.flip(1).mT)


def test_a_written_film_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "new" / "odd.mp4"
    image = torch.from_numpy(frame(3)).permute(2, 0, 1)[:, :47, :79]
    with FilmWriter(path, Fraction(30000, 1001)) as writer:
        for seconds in (0.0, 0.1, 0.1, 0.5):
            writer.add(Frame(image, seconds))
        assert not path.exists()
    with Film(path) as opened:
        frames = list(opened)
    # Sides of an odd length get one more pixel; frames of the same time follow each other.
    assert [each.image.shape for each in frames] == [(3, *SIZE)] * 4
    assert [round(each.seconds, 2) for each in frames] == [0.0, 0.1, 0.1, 0.5]
    assert (frames[0].image[:, :47, :79].float() - image.float()).abs().mean() < 6
    with pytest.raises(KeyError), FilmWriter(tmp_path / "lost.mp4", Fraction(25)) as writer:
        writer.add(Frame(image, 0.0))
        raise KeyError
    with (
        pytest.raises(DataError, match=r"empty\.mp4: there is no frame to write"),
        FilmWriter(tmp_path / "empty.mp4", Fraction(25)),
    ):
        pass
    with pytest.raises(DataError, match=r"film\.gif: no films are written with the ending '\.gif'; use \.mp4"):
        FilmWriter(tmp_path / "film.gif", Fraction(25))
    assert [each.name for each in tmp_path.iterdir()] == ["new"]


def test_what_is_no_film_is_named(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, cut = tmp_path / "text.mp4", tmp_path / "cut.mp4"
    text.write_text("no film")
    cut.write_bytes(film.read_bytes()[:1000])
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    for source, words in (
        (tmp_path / "gone.mp4", r"gone\.mp4: there is no such film"),
        (text, r"text\.mp4: the film cannot be read"),
        (cut, r"cut\.mp4: the film cannot be read"),
        (playlist, r"list\.mp4: the film cannot be read"),
        ("camera:/dev/none9", r"^camera:/dev/none9: the film cannot be read"),
        ("rtsp://me:secret1@127.0.0.1:9/live", r"^rtsp://me:<redacted>@127\.0\.0\.1:9/live: the film cannot be read"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            list(Film(source))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"film\.mp4: it is a film; give it to ocrnet_pl\.predict_film"):
        tiny_network().predict(film)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"films need the package av; install it with pip install 'ocrnet-pl\[video\]'"):
        Film(film)


def test_every_frame_is_predicted_drawn_and_listed(film: Path, tmp_path: Path) -> None:
    network = tiny_network()
    with Film(film) as opened:
        expected = network.predict([each.image for each in opened], stream=False)
    found = list(predict_film(network, film, batch_size=3))
    assert [each.prediction.image_id for each in found] == list(range(FRAMES))
    assert all(torch.equal(a.prediction.semantic, b.semantic) for a, b in zip(found, expected, strict=True))
    assert [round(each.seconds, 1) for each in found][4:6] == [0.4, 0.6] and found[0].prediction.path == str(film)

    def frames() -> Iterator[PredictedFrame]:
        for number, (seconds, prediction) in enumerate(found):
            box = boxed((4.0 * number, 16.0, 0.875), (0.0, 0.0, 0.125))
            box.tracks, box.taxonomy, box.image, box.image_id = torch.tensor([5, 0]), TAXONOMY, prediction.image, number
            yield PredictedFrame(seconds, box)

    with Film(film) as opened:
        assert len(list(write_film(frames(), tmp_path / "drawn.mp4", opened, score=0.5))) == FRAMES
    rows = list(csv.DictReader((tmp_path / "drawn.csv").open()))
    assert [int(row["frame"]) for row in rows] == list(range(FRAMES))
    assert rows[5] == dict(
        zip(rows[5], ("5", "0.6", "5", "disc", "0.875", "20.0", "16.0", "40.0", "36.0"), strict=True)
    )
    with Film(tmp_path / "drawn.mp4") as opened:
        drawn = list(opened)
    assert [round(each.seconds, 2) for each in drawn] == [round(each.seconds, 2) for each in found]
    # The frame around the object is where the box is.
    change = (drawn[2].image.float() - found[2].prediction.image.float()).abs().mean(0)
    assert change[16:36, 8:28].mean() > 3 * change[37:, 40:].mean()


def test_objects_keep_their_numbers() -> None:
    pytest.importorskip("trackers")
    tracks = ObjectTracks(rate=10)
    numbers = []
    for step in range(12):
        left, right = (4.0 * step, 10.0, 0.9), (200 - 4.0 * step, 100.0, 0.8)
        rows = [left, right] if step % 2 else [right, left]
        if 5 <= step < 8:
            rows.remove(left)  # it is hidden
        prediction = boxed(*rows, (300.0, 300.0, 0.2))
        found = tracks(prediction, step / 10)
        assert torch.equal(found.boxes, prediction.boxes) and prediction.tracks is None
        numbers.append({"left" if row == left else "right": int(n) for row, n in zip(rows, found.tracks, strict=False)})
        # What was never certain is not followed.
        assert found.tracks[-1] == 0
    assert numbers[0] == {"left": 0, "right": 0}
    seen = numbers[1]
    assert sorted(seen.values()) == [1, 2]
    for each in numbers[2:]:
        assert all(seen[name] == number for name, number in each.items())
    assert "left" in numbers[11] and tracks(boxed(), 1.2).tracks.tolist() == []
    with pytest.raises(ValueError, match=r"^tracks.score: expected 0 to 1, got 2$"):
        ObjectTracks(10, score=2)


Command = Callable[..., int]
"""Runs the command with changes of its config."""


@pytest.fixture
def command(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(OCRNet, "from_checkpoint", lambda *_: tiny_network().eval())
    monkeypatch.chdir(tmp_path)
    config = {
        "source": str(film), "output": None, "track": False, "min_score": 0.3, "seconds": 0.55, "overwrite": False,
        "ckpt_path": "last.ckpt", "trust": [], "trainer": {"accelerator": "cpu"},
        "model": {"postprocess": None, "tile": None, "multiscale": Namespace(scales=(1.0,), flip=False)},
    }  # fmt: skip

    def run(**changes: object) -> int:
        given: object = config | changes
        return predict_on_film(Run(given, given, given, str))  # type: ignore[arg-type]

    return run


def test_the_command_writes_the_film_and_the_table(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command() == 0
    assert "5 frames, 0 objects: film-predicted.mp4, film-predicted.csv" in capsys.readouterr().out
    with Film(tmp_path / "film-predicted.mp4") as opened:
        assert len(list(opened)) == 5
    for changes, words in (
        ({}, r"^output 'film-predicted\.mp4': it exists; give another --output, or --overwrite true"),
        ({"source": None}, "^source: there is no film"),
        ({"overwrite": True, "min_score": 3.0}, r"^min_score: expected 0 to 1, got 3\.0"),
        ({"overwrite": True, "seconds": -5.0}, r"^seconds: expected a length above 0, got -5\.0"),
        ({"overwrite": True, "seconds": math.inf}, r"^seconds: expected a length above 0, got inf"),
    ):
        with pytest.raises(UsageError, match=words):
            command(**changes)
    pytest.importorskip("trackers")
    assert command(overwrite=True, track=True) == 0


def test_a_film_does_not_replace_itself_and_its_ending_is_looked_at_before_the_network(
    command: Command, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(film, tmp_path / "own.mp4")
    (tmp_path / "link.mp4").symlink_to("own.mp4")
    for output in ("own.mp4", "link.mp4"):
        with pytest.raises(UsageError, match=rf"^output '{output}': it is the film itself, which would be lost; give"):
            command(source="own.mp4", output=Path(output), overwrite=True)
    assert (tmp_path / "own.mp4").read_bytes() == film.read_bytes()
    monkeypatch.delattr(OCRNet, "from_checkpoint")
    for output in (".", "drawn", "drawn.csv"):
        with pytest.raises(DataError, match=r": no films are written with the ending '.*'; use \.mp4$"):
            command(output=Path(output), overwrite=True)


def test_a_camera_that_is_interrupted_while_a_frame_is_written_leaves_the_film(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, add, written = Film.__init__, FilmWriter.add, []

    def as_camera(self: Film, source: str) -> None:
        opened(self, source)
        self.live, self.count = True, None

    def interrupted(self: FilmWriter, each: Frame) -> None:
        written.append(each.seconds)
        if len(written) == 3:
            signal.raise_signal(signal.SIGINT)
        add(self, each)

    monkeypatch.setattr(Film, "__init__", as_camera)
    monkeypatch.setattr(FilmWriter, "add", interrupted)
    assert command(seconds=None, output=Path("drawn.mp4")) == 0
    monkeypatch.setattr(Film, "__init__", opened)
    with Film(tmp_path / "drawn.mp4") as drawn:
        assert len(list(drawn)) == 3 and (tmp_path / "drawn.csv").exists()


def test_a_file_without_a_number_of_frames_is_no_camera(command: Command, film: Path, tmp_path: Path) -> None:
    with Film(film) as source, FilmWriter(tmp_path / "film.mkv", source.rate) as writer:
        for each in source:
            writer.add(each)
    with Film(tmp_path / "film.mkv") as opened:
        # Ten frames, of which one lasts as long as two.
        assert not opened.live and opened.count is not None and abs(opened.count - FRAMES) <= 1


def test_a_film_that_was_cut_off_is_predicted_as_far_as_it_goes_and_says_so(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("av")
    random = np.random.default_rng(0)
    with FilmWriter(tmp_path / "film.mkv", Fraction(10)) as writer:
        for number in range(60):
            writer.add(Frame(torch.from_numpy(random.integers(0, 256, (3, *SIZE), np.uint8)), number / 10))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert command(source="film.mkv", seconds=None) == 0
    content = (tmp_path / "film.mkv").read_bytes()
    (tmp_path / "film.mkv").write_bytes(content[: len(content) // 2])
    said = r"^film 'film\.mkv': its last picture is at [23]\.\d of 6\.\d s; it may have been cut off$"
    with pytest.warns(UserWarning, match=said):
        assert command(source="film.mkv", seconds=None, overwrite=True) == 0
