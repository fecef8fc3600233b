"""What ``predict`` and ``film`` are given, where it is not what was meant."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from PIL import Image

from ocrnet_pl.cli.running import disk_full
from ocrnet_pl.cli.what_to_predict import refuse_film, refuse_image, refuse_runs_inside
from ocrnet_pl.errors import DataError, UsageError
from ocrnet_pl.imaging.folders import find_images


def predicting(path: Path) -> dict[str, object]:
    return {"ckpt_path": "my runs/last.ckpt", "data": {"predict_path": str(path)}}


def filming(path: Path) -> dict[str, object]:
    return {"ckpt_path": "last.ckpt", "source": str(path)}


def test_a_film_is_not_predicted_as_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])
    film = tmp_path / "a street.MP4"
    film.write_bytes(b"film")
    with pytest.raises(UsageError) as error:
        refuse_film(predicting(film))  # type: ignore[arg-type]
    assert str(error.value) == (
        f"data.predict_path {str(film)!r}: it is a film; predict with: python train.py film "
        f"--ckpt_path 'my runs/last.ckpt' --source '{film}'"
    )
    refuse_film(predicting(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no readable image; give each film to the command `film`"):
        find_images(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert find_images(tmp_path).skipped == [(str(film), "it is a film, on which the command `film` predicts")]


def test_an_image_or_a_folder_is_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["ocrnet"])
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    for path, what in ((tmp_path / "a.png", "an image"), (tmp_path, "a folder, not a film")):
        with pytest.raises(UsageError) as error:
            refuse_image(filming(path))  # type: ignore[arg-type]
        assert str(error.value) == (
            f"source {str(path)!r}: it is {what}; predict with: ocrnet predict --ckpt_path last.ckpt "
            f"--data.predict_path {path}"
        )
    for name in ("absent.png", "camera:0", "rtsp://host/a.png"):
        refuse_image(filming(Path(name)))  # type: ignore[arg-type]


def test_runs_are_not_written_among_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()

    def check(images: str, runs: str) -> None:
        refuse_runs_inside({"data": {"predict_path": images}, "trainer": {"default_root_dir": runs}})  # type: ignore[arg-type]

    for images, runs in ((".", "runs"), ("images", "images"), (str(tmp_path), "images/a/b")):
        with pytest.raises(UsageError, match="the runs are written below it"):
            check(images, runs)
    for images, runs in (("images", "runs"), ("images", "images2"), (".", ".runs"), ("images/a.png", "images")):
        check(images, runs)


def test_a_full_disk_is_said_with_its_place() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    said = "runs: the disk is full (No space left on device); make room, and go on with --resume"
    assert str(disk_full(full, "runs", True)) == said
    assert str(disk_full(full, "", False)) == "the disk is full (No space left on device); make room"
    full.filename = "a.png"
    assert str(disk_full(full, "", False)) == "a.png: the disk is full (No space left on device); make room"
    assert disk_full(OSError(errno.EACCES, "Permission denied", "a.png"), "runs", True) is None
