"""Reading images: every kind of file gives the colors it shows, and what is none says so."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ocrnet_pl.data.readers.folder_index import FolderIndex, StemIndex
from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.decoding import decode
from ocrnet_pl.imaging.folders import require_images
from ocrnet_pl.imaging.image_files import opened
from ocrnet_pl.imaging.images import check_image, read_image
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES


def _pixels(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rgb_is_read_exactly(tmp_path: Path) -> None:
    pixels = _pixels()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8 and image.permute(1, 2, 0).is_contiguous()
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


def test_linked_folders_are_read_and_circles_end(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root / "z", elsewhere / "deep"):
        folder.mkdir(parents=True)
        Image.fromarray(_pixels()).save(folder / "a.png")
    for link, target in (("linked", elsewhere), ("again", elsewhere), ("b", root / "z"), ("circle", root)):
        (root / link).symlink_to(target)
    (elsewhere / "deep" / "back").symlink_to(root)
    folder = ImageFolder(root)
    # Each once, and under its own name where it has one here.
    assert [folder.identity(index)[0] for index in range(len(folder))] == ["again/deep/a.png", "z/a.png"]
    assert not folder.skipped
    assert FolderIndex(root, "images").walk((".png",)) == ["again/deep/a.png", "z/a.png"]


def test_endings_count_in_any_case_wherever_they_are_looked_for(tmp_path: Path) -> None:
    for name in ("a.Jpg", "b.JPG", "c.png", ".d.png", "sub/e.Png", "f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert dict(StemIndex(tmp_path, "images")) == {"a": "a.Jpg", "b": "b.JPG", "c": "c.png"}
    assert FolderIndex(tmp_path, "images").walk(IMAGE_SUFFIXES) == ["a.Jpg", "b.JPG", "c.png", "sub/e.Png"]


def test_whether_a_folder_has_images_is_known_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.txt", ".b.png"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="no readable image"):
        require_images(tmp_path)
    for name in ("c.png", "d.png", "e.png"):
        Image.new("L", (1, 1)).save(tmp_path / name)
    looked_at: list[str] = []
    monkeypatch.setattr("ocrnet_pl.imaging.folders.check_image", lambda path: looked_at.append(path.name))
    require_images(tmp_path)
    require_images(tmp_path / "e.png")
    assert len(looked_at) == 2


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable image"):
        ImageFolder(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        ImageFolder(tmp_path / "gone")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_fast_decoding_equals_pillow(tmp_path: Path, kind: str, mode: str) -> None:
    Image.fromarray(_pixels(37, 51)).convert(mode).save(tmp_path / f"a.{kind}")
    with opened(tmp_path / f"a.{kind}") as file:
        assert decode(file, "a", max_pixels=10**9) is not None
    expected = np.asarray(Image.open(tmp_path / f"a.{kind}").convert("RGB")).transpose(2, 0, 1)
    difference = read_image(tmp_path / f"a.{kind}").numpy().astype(int) - expected
    assert np.abs(difference).max() <= (2 if kind == "jpg" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_every_exif_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_pixels(16, 24)).save(tmp_path / f"a.{kind}", exif=exif, quality=95)
    stored = Image.open(tmp_path / f"a.{kind}")
    expected = np.asarray(ImageOps.exif_transpose(stored)).transpose(2, 0, 1).astype(int)
    shown = read_image(tmp_path / f"a.{kind}")
    assert shown.shape == expected.shape and np.abs(shown.numpy() - expected).max() <= 2
    assert read_image(tmp_path / f"a.{kind}", exif=False).shape == (3, 16, 24)


@pytest.mark.parametrize(("mode", "count"), [("L", 1), ("LA", 2), ("RGBA", 4), ("CMYK", 4), ("P", 3), ("1", 1)])
def test_channels_as_stored(tmp_path: Path, mode: str, count: int) -> None:
    stored = Image.fromarray(_pixels()).convert(mode)
    stored.save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif", channels=None)
    assert image.shape == (count, 5, 7)
    if count in (2, 4):
        assert np.array_equal(image.numpy(), np.asarray(stored).transpose(2, 0, 1))
    assert torch.equal(read_image(tmp_path / "a.tif", channels=count), image)
    with pytest.raises(DataError, match=rf"a\.tif: it has {count} channels, not 6; set `channels: {count}`"):
        read_image(tmp_path / "a.tif", channels=6)


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_tiff_of_many_channels(tmp_path: Path, depth: type, planar: bool) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, np.iinfo(depth).max + 1, (6, 9, 11), dtype=depth)
    stored = values if planar else values.transpose(1, 2, 0)
    layout = "separate" if planar else "contig"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=layout)
    expected = values if depth is np.uint8 else np.round(values / 257).astype(np.uint8)
    for channels in (None, 6):
        assert np.array_equal(read_image(tmp_path / "a.tif", channels=channels).numpy(), expected)
    assert check_image(tmp_path / "a.tif") == (9, 11)
    with pytest.raises(DataError, match="it has 6 channels, not 3"):
        read_image(tmp_path / "a.tif")


def test_tiff_pages_as_channels(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, 256, (5, 9, 11), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    assert np.array_equal(read_image(tmp_path / "a.tif", channels=5).numpy(), values)


def _png_of_size(path: Path, width: int, height: int) -> None:
    """Write a PNG whose header promises this size; there are no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [kind + content for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")))]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def test_absurd_size_is_refused_by_the_header(tmp_path: Path) -> None:
    _png_of_size(tmp_path / "a.png", 100_000, 50_000)
    for function in (read_image, check_image):
        with pytest.raises(DataError, match=r"a\.png: the image is 100000 x 50000, more than the limit of 200 megap"):
            function(tmp_path / "a.png")
    Image.new("L", (60, 50)).save(tmp_path / "b.bmp")
    for function in (read_image, check_image):
        with pytest.raises(DataError, match="60 x 50"):
            function(tmp_path / "b.bmp", max_pixels=2999)
        function(tmp_path / "b.bmp", max_pixels=3000)


def test_pillows_own_limit_does_not_interfere(tmp_path: Path) -> None:
    Image.new("1", (20_000, 9_500)).save(tmp_path / "a.tif", compression="group4")  # 190 megapixels in a few bytes
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_image(tmp_path / "a.tif") == (9_500, 20_000)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_are_named(tmp_path: Path, kind: str, share: float) -> None:
    Image.fromarray(_pixels(64, 64)).save(tmp_path / f"a.{kind}")
    whole = (tmp_path / f"a.{kind}").read_bytes()
    (tmp_path / f"a.{kind}").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=rf"a\.{kind}: ") as error:
        read_image(tmp_path / f"a.{kind}")
    assert "\n" not in str(error.value)


def test_reduced_decoding(tmp_path: Path) -> None:
    Image.fromarray(_pixels(40, 60)).resize((960, 640)).save(tmp_path / "a.jpg", quality=95)
    whole = read_image(tmp_path / "a.jpg")
    for wanted, size in (((160, 240), (160, 240)), ((161, 240), (320, 480)), ((600, 900), (640, 960))):
        small = read_image(tmp_path / "a.jpg", at_least=wanted)
        assert small.shape == (3, *size)
        expected = torch.nn.functional.interpolate(whole[None].float(), size=size, mode="area")[0]
        assert (small - expected).abs().mean() < 3
