"""Reading images: every kind of file gives the colors it shows, and what is none says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ocrnet_pl.data.errors import DataError
from ocrnet_pl.data.images import check_image, read_image
from ocrnet_pl.data.sources.folder import ImageFolder


def _pixels(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rgb_is_read_exactly(tmp_path: Path) -> None:
    pixels = _pixels()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8 and image.is_contiguous()
    assert np.array_equal(image.numpy(), pixels.transpose(2, 0, 1))
    assert check_image(tmp_path / "a.png") == (5, 7)


def test_gray_is_repeated(tmp_path: Path) -> None:
    gray = _pixels()[..., 0]
    Image.fromarray(gray).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png").numpy(), np.stack([gray] * 3))


def test_palette_gives_its_colors(tmp_path: Path) -> None:
    indexed = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8), mode="P")
    indexed.putpalette([10, 20, 30, 200, 100, 50])
    indexed.save(tmp_path / "a.png")
    expected = [[[10, 200], [200, 10]], [[20, 100], [100, 20]], [[30, 50], [50, 30]]]
    assert read_image(tmp_path / "a.png").tolist() == expected


def test_cmyk_jpeg_shows_its_color(tmp_path: Path) -> None:
    # 100 % magenta and yellow is red; JPEG may be a few levels off.
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert (image.float().mean((1, 2)) - torch.tensor([255.0, 0, 0])).abs().max() < 4


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257, 1), (32896, 128), (65535, 255)])
def test_16_bit_is_scaled_not_clipped(tmp_path: Path, value: int, expected: int) -> None:
    Image.fromarray(np.full((3, 4), value, dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").unique().tolist() == [expected]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "1"])
def test_other_modes_give_three_channels(tmp_path: Path, mode: str) -> None:
    Image.fromarray(_pixels()).convert(mode).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (3, 5, 7)


def test_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored picture has to be turned clockwise by a quarter
    stored = np.zeros((8, 16, 3), dtype=np.uint8)
    stored[:, :8] = 255  # white on the left as stored, so on top when shown
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = read_image(tmp_path / "a.jpg")
    assert shown.shape == (3, 16, 8)
    assert shown[:, :6].min() > 200 and shown[:, 10:].max() < 50
    assert read_image(tmp_path / "a.jpg", exif=False).shape == (3, 8, 16)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("not an image")
    Image.fromarray(_pixels(64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    Image.fromarray(_pixels()[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    for name, words in (
        ("note.png", "not an image"),
        ("cut.png", "cannot be read"),
        ("gone.png", "no such image"),
        ("float.tif", "floating-point"),
        (".", "folder"),
    ):
        with pytest.raises(DataError, match=words) as error:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_folder_lists_images_and_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Image.fromarray(_pixels()).save(tmp_path / "b.png")
    Image.fromarray(_pixels()).save(tmp_path / "sub" / "a.jpg")
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / ".hidden").write_text("hello")
    folder = ImageFolder(tmp_path)
    assert [folder[i].image_id for i in range(len(folder))] == ["b.png", "sub/a.jpg"]
    assert [Path(path).name for path, _ in folder.skipped] == ["readme.txt"]
    sample = folder[0]
    assert len(sample.boxes) == 0 and sample.semantic is None and sample.size == (5, 7)
    assert len(ImageFolder(tmp_path / "b.png")) == 1


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable image"):
        ImageFolder(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        ImageFolder(tmp_path / "gone")
