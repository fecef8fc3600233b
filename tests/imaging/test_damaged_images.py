"""Damaged and hostile images: one line that names the file, or an image; no crash, no hang, no half picture."""

from __future__ import annotations

import functools
import io
import os
import resource
import socket
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from ocrnet_pl.cli.main import main
from ocrnet_pl.data.readers.class_map import read_colors, read_ids, read_values
from ocrnet_pl.data.readers.label_maps import read_id_map, read_rgba_map
from ocrnet_pl.data.sources.folder import ImageFolder
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import check_image, read_header, read_image
from tests.helpers.config_data import write_nuclei
from tests.helpers.project import CONFIGS

HEIGHT, WIDTH = 18, 26
PART = 50
"""Damages of each part, of which one alone finds most of what there is to find."""
MASK_READERS: tuple[Callable[..., Any], ...] = (read_id_map, read_values, read_colors, read_ids)


def _pixels() -> np.ndarray:
    ramp = np.add.outer(np.arange(HEIGHT) * 9, np.arange(WIDTH) * 5)[..., None] + (0, 40, 90)
    noise = np.random.default_rng(0).integers(0, 20, (HEIGHT, WIDTH, 3))
    return (ramp % 236 + noise).astype(np.uint8)


def _saved(mode: str, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_pixels()).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _deep(channels: int) -> bytes:
    """Return a PNG of 16 bits."""
    values = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return _png(_ihdr(WIDTH, HEIGHT, 16, {1: 0, 3: 2}[channels]), (b"IDAT", zlib.compress(rows)))


def _bands(**options: Any) -> bytes:
    from tifffile import imwrite

    buffer = io.BytesIO()
    bands = np.random.default_rng(2).integers(0, 256, (5, HEIGHT, WIDTH), dtype=np.uint8)
    imwrite(buffer, bands, photometric="minisblack", planarconfig="separate", **options)
    return buffer.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png(*chunks: tuple[bytes, bytes], end: bool = True) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in (*chunks, *([(b"IEND", b"")] if end else [])))


def _ihdr(width: int, height: int, depth: int = 8, kind: int = 2, *more: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, *(more or (0, 0, 0)))


IMAGES: dict[str, Callable[[], bytes]] = {
    "rgb.png": lambda: _saved("RGB", "PNG"),
    "grey.png": lambda: _saved("L", "PNG"),
    "bits.png": lambda: _saved("1", "PNG"),
    "palette.png": lambda: _saved("P", "PNG"),
    "rgba.png": lambda: _saved("RGBA", "PNG"),
    "la.png": lambda: _saved("LA", "PNG"),
    "16.png": lambda: _deep(1),
    "16rgb.png": lambda: _deep(3),
    "rgb.jpg": lambda: _saved("RGB", "JPEG"),
    "grey.jpg": lambda: _saved("L", "JPEG", restart_marker_rows=1),
    "progressive.jpg": lambda: _saved("RGB", "JPEG", progressive=True),
    "cmyk.jpg": lambda: _saved("CMYK", "JPEG"),
    "raw.tif": lambda: _saved("RGB", "TIFF"),
    "lzw.tif": lambda: _saved("P", "TIFF", compression="tiff_lzw"),
    "bands.tif": _bands,
    "deflate.tif": lambda: _bands(compression="zlib"),
    "lossy.webp": lambda: _saved("RGB", "WEBP"),
    "lossless.webp": lambda: _saved("RGBA", "WEBP", lossless=True),
    "a.gif": lambda: _saved("P", "GIF"),
    "a.bmp": lambda: _saved("RGB", "BMP"),
    "a.ppm": lambda: _saved("RGB", "PPM"),
}


def _flipped(content: bytes, generator: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for bit in generator.integers(0, len(content) * 8, generator.integers(1, 4)):
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def _cut(content: bytes, generator: np.random.Generator) -> bytes:
    return content[: generator.integers(0, len(content))]


def _outcome(reader: Callable[..., Any], path: Path, **options: Any) -> Any:
    """Return what a reader makes of a file, None for one line that names it; whatever else it raises fails."""
    start = time.process_time()
    try:
        found = reader(path, **options)
    except DataError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        found = None
    assert time.process_time() - start < 2
    return found


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 3))])
@pytest.mark.parametrize("damage", [_flipped, _cut])
@pytest.mark.parametrize("name", IMAGES)
def test_damage_is_one_line_or_an_image(
    tmp_path: Path, name: str, damage: Callable[..., bytes], part: int, record_property: Callable[[str, object], None]
) -> None:
    content = IMAGES[name]()
    path = tmp_path / name
    path.write_bytes(content)
    channels = 5 if name in ("bands.tif", "deflate.tif") else 3
    whole = read_image(path, channels=channels)
    generator = np.random.default_rng(zlib.crc32(f"{name} {damage.__name__} {part}".encode()))
    images = 0
    for number in range(PART):
        damaged = damage(content, generator)
        path.write_bytes(damaged)
        found = _outcome(read_image, path, channels=channels)
        if found is not None and damaged != content:
            images += 1
            assert found.dtype == torch.uint8 and found.ndim == 3 and found.numel() > 0
            # What is missing is known; only padding may be.
            assert damage is _flipped or torch.equal(found, whole)
        _outcome(read_image, path, channels=None)
        _outcome(check_image, path)
        _outcome(MASK_READERS[number % len(MASK_READERS)], path)
    record_property("images", images)
    assert images == 0 or not name.endswith(".png")


def _hostile_pngs() -> dict[str, bytes]:
    """PNGs whose checksums hold and whose contents do not."""
    pixels = _pixels()
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    packed = zlib.compress(rows)
    filters = bytearray(rows)
    filters[10 * (1 + 3 * WIDTH)] = 77
    header = _ihdr(WIDTH, HEIGHT)
    grey = zlib.compress(b"".join(b"\0" + row[:, 0].tobytes() for row in pixels))

    def data(content: bytes) -> tuple[bytes, bytes]:
        return b"IDAT", content

    lying = _png(header, end=False) + struct.pack(">I", 0x7FFFFFFF) + b"IDAT" + packed
    return {
        "too few rows": _png(header, data(zlib.compress(rows[: len(rows) // 2]))),
        "stream cut": _png(header, data(packed[: len(packed) // 2])),
        "stream broken": _png(header, data(packed[:600] + b"\xff" * 200 + packed[800:])),
        "wrong sum of the stream": _png(header, data(packed[:-1] + bytes([packed[-1] ^ 1]))),
        "unknown filter": _png(header, data(zlib.compress(bytes(filters)))),
        "no stream": _png(header, data(b"")),
        "no pixels": _png(header),
        "nothing but a header": _png(header, end=False),
        "no end": _png(header, data(packed), end=False),
        "header behind": _png(data(packed), header),
        "two headers": _png(header, _ihdr(WIDTH, 2 * HEIGHT), data(packed)),
        "pixels in two places": _png(header, data(packed[:99]), (b"tEXt", b"a\0b"), data(packed[99:])),
        "taller": _png(_ihdr(WIDTH, 2 * HEIGHT), data(packed)),
        "wider": _png(_ihdr(WIDTH + 5, HEIGHT), data(packed)),
        "no width": _png(_ihdr(0, HEIGHT), data(packed)),
        "sixteen bits": _png(_ihdr(WIDTH, HEIGHT, 16), data(packed)),
        "three bits": _png(_ihdr(WIDTH, HEIGHT, 3), data(packed)),
        "kind 5": _png(_ihdr(WIDTH, HEIGHT, 8, 5), data(packed)),
        "method": _png(_ihdr(WIDTH, HEIGHT, 8, 2, 1, 0, 0), data(packed)),
        "filters": _png(_ihdr(WIDTH, HEIGHT, 8, 2, 0, 64, 0), data(packed)),
        "interlace": _png(_ihdr(WIDTH, HEIGHT, 8, 2, 0, 0, 1), data(packed)),
        "interlace 2": _png(_ihdr(WIDTH, HEIGHT, 8, 2, 0, 0, 2), data(packed)),
        "no palette": _png(_ihdr(WIDTH, HEIGHT, 8, 3), data(grey)),
        "palette of halves": _png(_ihdr(WIDTH, HEIGHT, 8, 3), (b"PLTE", b"1234"), data(grey)),
        "unknown and needed": _png(header, (b"ABCD", b""), data(packed)),
        "length": lying,
        "huge": _png(_ihdr(14_000, 14_000), data(packed)),
    }


@pytest.mark.parametrize("name", _hostile_pngs())
def test_a_png_that_lies_with_right_checksums(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_hostile_pngs()[name])
    for reader in (read_image, *MASK_READERS, read_rgba_map):
        assert _outcome(reader, path) is None


def test_a_jpeg_that_ends_early_is_not_made_grey(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    for options in ({}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_rows": 1}):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90, **options)
        content = buffer.getvalue()
        path = tmp_path / "a.jpg"
        path.write_bytes(content + b"what a telephone appends")
        expected = np.asarray(Image.open(io.BytesIO(content))).astype(int)
        assert np.abs(read_image(path).permute(1, 2, 0).numpy() - expected).max() <= 2
        half = content[: len(content) // 2].removesuffix(b"\xff")
        # The end where no end is; a marker that stands nowhere; nothing at all.
        for damaged in (half + b"\xff\xd9", half + b"\xff\x33" + content[len(half) :], half, half + bytes(5000)):
            path.write_bytes(damaged)
            if not ("progressive" in options and damaged.endswith(b"\xff\xd9") and len(damaged) < len(content)):
                assert _outcome(read_image, path) is None
    path.write_bytes(content.replace(b"\xff\xd1", b"\xff\xd4", 1))
    assert _outcome(read_image, path) is None


@functools.cache
def _zeros() -> bytes:
    return zlib.compress(bytes(100_000_000), 1)


def _swollen() -> bytes:
    """Return a TIFF, one of whose planes unpacks to far more than the plane."""
    content = _bands(compression="zlib")
    first = struct.unpack_from("<I", content, 4)[0]
    end = len(content)
    zeros = _zeros()
    for place in range(first + 2, first + 2 + 12 * struct.unpack_from("<H", content, first)[0], 12):
        tag, _, _, value = struct.unpack_from("<HHII", content, place)
        if tag == 273:
            content = content[:value] + struct.pack("<I", end) + content[value + 4 :]
        elif tag == 279:
            content = content[:value] + struct.pack("<I", len(zeros)) + content[value + 4 :]
    return content + zeros


def _bombs() -> dict[str, Callable[[], bytes]]:
    pixels = (b"IDAT", zlib.compress(b"".join(b"\0" + bytes(24) for _ in range(8))))
    jpeg, progressive = _saved("RGB", "JPEG"), _saved("RGB", "JPEG", progressive=True)
    size, scan = progressive.index(b"\xff\xc2") + 5, progressive.rindex(b"\xff\xda")
    cmyk = _saved("CMYK", "JPEG")
    gif = _saved("P", "GIF")
    large = struct.pack(">HH", 14_000, 14_000)
    bands = _bands()

    def sized(content: bytes, place: int) -> bytes:
        return content[:place] + large + content[place + 4 :]

    def circle() -> bytes:
        """Let the first page of a TIFF be followed by itself."""
        first = struct.unpack_from("<I", bands, 4)[0]
        place = first + 2 + 12 * struct.unpack_from("<H", bands, first)[0]
        return bands[:place] + struct.pack("<I", first) + bands[place + 4 :]

    def entry(tag: int, value: int) -> bytes:
        """Change a value of a TIFF."""
        first = struct.unpack_from("<I", bands, 4)[0]
        for place in range(first + 2, first + 2 + 12 * struct.unpack_from("<H", bands, first)[0], 12):
            if struct.unpack_from("<H", bands, place)[0] == tag:
                return bands[: place + 8] + struct.pack("<I", value) + bands[place + 12 :]
        raise AssertionError(tag)

    return {
        "pixels.png": lambda: _png(_ihdr(8, 8), (b"IDAT", _zeros())),
        "more pixels.png": lambda: _png(_ihdr(1000, 1000), (b"IDAT", _zeros())),
        "text.png": lambda: _png(_ihdr(8, 8), *[(b"zTXt", b"a\0\0" + _zeros())] * 4, pixels),
        "profile.png": lambda: _png(_ihdr(8, 8), (b"iCCP", b"a\0\0" + _zeros()), pixels),
        "chunks.png": lambda: _png(_ihdr(8, 8), *[(b"tEXt", b"")] * 200_000, pixels),
        "segments.jpg": lambda: jpeg[:2] + b"\xff\xfe\0\2" * 5_000_000 + jpeg[2:],
        "fill.jpg": lambda: jpeg[:2] + b"\xff" * 20_000_000 + jpeg[2:],
        "size.jpg": lambda: sized(jpeg, jpeg.index(b"\xff\xc0") + 5),
        "size progressive.jpg": lambda: sized(progressive, size),
        "scans.jpg": lambda: progressive[:-2] + progressive[scan:-2] * 5000 + progressive[-2:],
        "between.jpg": lambda: progressive[:-2] + b"\xff\xfe\0\2" * 5_000_000 + progressive[-2:],
        "size cmyk.jpg": lambda: sized(cmyk, cmyk.index(b"\xff\xc0") + 5),
        "comment.gif": lambda: gif[:205] + b"!\xfe" + (b"\xff" + b"a" * 255) * 50_000 + b"\0" + gif[205:],
        "empty.gif": lambda: gif[:205] + b"!\xfe\0" * 5_000_000 + gif[205:],
        "space.ppm": lambda: b"P6 " + b" " * 20_000_000 + b"8 8 255 " + bytes(192),
        "comment.ppm": lambda: b"P6 #" + b"a" * 20_000_000 + b"\n8 8 255 " + bytes(192),
        "circle.tif": circle,
        "strips.tif": lambda: entry(279, 0xFFFFFFF0),
        "pixels.tif": _swollen,
        "channels.tif": lambda: entry(277, 65535),
        "size.tif": lambda: entry(257, 10_000_000),
    }


@pytest.mark.parametrize("name", _bombs())
def test_what_lies_about_its_size_takes_neither_time_nor_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(_bombs()[name]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = [_outcome(read_image, path, channels=channels) for channels in (3, 5)]
    found += [_outcome(reader, path) for reader in (read_ids, check_image)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes
    # A header alone is not found to lie, and what is merely beside the pixels is left alone.
    read = 1 if name == "pixels.tif" else 0  # Its first plane is an image, which is unpacked to its end and no further.
    assert found[read:2] == [None] * (2 - read) or name in ("text.png", "profile.png", "circle.tif")


def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket.png"))
    (tmp_path / "folder.png").mkdir()
    os.symlink("/dev/zero", tmp_path / "device.png")
    os.symlink("nowhere", tmp_path / "link.png")
    os.symlink("loop.png", tmp_path / "loop.png")
    words = {"pipe": "a named pipe", "socket": "a socket", "device": "a device", "folder": "a folder"}
    for reader in (read_image, check_image, read_header, *MASK_READERS):
        for name in (*words, "link", "loop"):
            with pytest.raises(DataError) as error:
                reader(tmp_path / f"{name}.png")
            assert str(error.value).startswith(f"{tmp_path / name}.png: ")
            assert words.get(name, "") in str(error.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_image(f"{tmp_path}/a\0.png")
    Image.fromarray(_pixels()).save(tmp_path / "good.png")
    folder = ImageFolder(tmp_path)
    assert len(folder) == 1 and len(folder.skipped) == 5
    server.close()


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 20 20
%%EndComments
%%BeginProlog
%%EndProlog
0 0 20 20 rectfill
showpage
%%EOF
"""


def test_no_file_is_run_as_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs, called = tmp_path / "programs", tmp_path / "called"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\necho called >> {called}\nexit 0\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    # This is what it would do.
    with pytest.raises(OSError), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert called.exists()
    called.unlink()
    write_nuclei(tmp_path / "data")
    images = [*(tmp_path / "data").glob("*/1.png")]
    for path in images:
        path.write_bytes(EPS)
        for reader in (read_image, check_image, read_header, *MASK_READERS, read_rgba_map):
            assert _outcome(reader, path) is None
        source = ImageFolder(path.parent)
        assert [skipped for skipped, _ in source.skipped] == [str(path)]
    words = ["--config", str(CONFIGS / "nuclei.yaml"), "--data.root", str(tmp_path / "data"), "--data.num_workers=0"]
    for command in ("check", "pack"):
        with pytest.raises(SystemExit) as stopped:
            main([command, *words, "--output", str(tmp_path / command)])
        assert stopped.value.code == 1
    said = capsys.readouterr()
    assert "1.png: this is not an image file" in said.err and not called.exists()
