"""Broken files for the tests of readers."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def huge_png(path: Path, color: int = 2) -> None:
    """Write a header that claims ten gigapixels.

    Args:
        path: The file.
        color: PNG's color type: 0 greyscale, 2 RGB, 3 palette, 6 RGBA.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, color, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(6)) if color == 3 else b""
    data = chunk(b"IDAT", zlib.compress(b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + data + chunk(b"IEND", b""))
