"""JPEG: decoders silently fill what is missing with grey, so the end of the data is found before decoding."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.imaging.opencv import decode_exactly, opencv

SIGNATURE = b"\xff\xd8\xff"

_EOI, _SOS, _DRI, _APP1 = 0xD9, 0xDA, 0xDD, 0xE1
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = 0xC2
_BETWEEN_SCANS = frozenset((0xC4, 0xDA, 0xDB, 0xDC, _DRI, 0xFE, *range(0xE0, 0xF0)))
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_MAX_SEGMENTS = 4096
_MAX_SCANS = 100
_MAX_SCANNED = 4_000_000_000
"""Limit of pixels times scans: a decoder goes over all pixels for each scan, however little it contains."""

_PADDING = bytes(16)


class Header(NamedTuple):
    """What comes before the pixels.

    Attributes:
        height: Height in pixels, as stored.
        width: Width in pixels, as stored.
        components: Number of components: 1 for grey, 3 for colors, 4 for those of print.
        process: Code of the coding process.
        depth: Number of bits of each value.
        exif: The block of EXIF tags.
        restarts: Whether restart markers divide the pixels into parts.
        scan: Position where the data of the first scan begins.
        whole: Whether the first scan contains all components.
    """

    height: int
    width: int
    components: int
    process: int
    depth: int
    exif: bytes
    restarts: bool
    scan: int
    whole: bool

    @property
    def usual(self) -> bool:
        """Whether :func:`decode` can read it."""
        return self.process in (0xC0, 0xC1, _PROGRESSIVE) and self.depth == 8 and self.components in (1, 3)


def read_header(file: BinaryIO) -> Header:
    """Read the segments up to the pixels.

    Args:
        file: The JPEG, opened at its beginning.

    Raises:
        ValueError: It is cut short or damaged.
    """
    position, size, exif, restarts = 2, None, b"", False
    for _ in range(_MAX_SEGMENTS):
        file.seek(position)
        start = file.read(4)
        if len(start) < 4:
            raise ValueError("the file is cut short")
        if start[0] != 0xFF:
            raise ValueError(f"there is no segment at byte {position}")
        marker = start[1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:
            position += 1 if marker == 0xFF else 2
            continue
        length = start[2] << 8 | start[3]
        if marker in (0, _EOI, 0xD8) or length < 2:
            raise ValueError(f"the segment at byte {position} is broken")
        wanted = marker in _SIZES or marker in (_SOS, _DRI, _APP1)
        content = file.read(length - 2) if wanted else b""
        if wanted and len(content) < length - 2:
            raise ValueError("the file is cut short")
        if marker in _SIZES:
            if size is not None or len(content) < 6:
                raise ValueError(f"the segment at byte {position} is broken")
            size = (marker, *struct.unpack(">BHHB", content[:6]))
        elif marker == _DRI:
            restarts = any(content)
        elif marker == _APP1 and content.startswith(b"Exif\0\0") and not exif:
            exif = content
        elif marker == _SOS:
            if size is None or not content:
                raise ValueError("its pixels come before their size")
            process, depth, height, width, components = size
            scan = position + 2 + length
            return Header(height, width, components, process, depth, exif, restarts, scan, content[0] == components)
        position += 2 + length
    raise ValueError(f"there are more than {_MAX_SEGMENTS} segments before its pixels")


def check_amount(coded: int, header: Header) -> None:
    """Raise an error for a size that the data cannot fill: every block of 8x8 pixels takes at least one bit.

    Args:
        coded: Number of bytes of coded pixels.
        header: Header of the file.

    Raises:
        ValueError: There are too few.
    """
    if coded * 8 * 64 < header.height * header.width:
        raise ValueError(f"it holds too little data for {header.width} x {header.height} pixels")


def decode(data: bytes, header: Header, *, rgb: bool) -> NDArray[np.uint8]:
    """Decode the pixels, in the orientation of the file.

    Args:
        data: The whole file.
        header: Header of the file.
        rgb: Whether grey is returned as RGB.

    Returns:
        uint8 [H, W] for grey, else [H, W, 3].

    Raises:
        ValueError: The file or its data ends before all pixels are there.
    """
    end, stopped = _end(data, header)
    if stopped:
        # A decoder that meets a marker too early makes the rest grey; one that runs out of data fails.
        data = b"".join((memoryview(data)[:end], _PADDING))
    cv2 = opencv()
    color = rgb or header.components == 3
    flags = (cv2.IMREAD_COLOR_RGB if color else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = decode_exactly(data, flags, (header.height, header.width))
    return pixels


def _end(data: bytes, header: Header) -> tuple[int, bool]:
    """Return where the pixels end, and whether a decoder can be prevented from seeing that they do."""
    first = _MARKER.search(data, header.scan)
    if first is not None and data[first.start() + 1] == _EOI:
        # The most common case: nothing follows.
        check_amount(first.start() - header.scan, header)
        return first.start(), header.whole and header.process != _PROGRESSIVE
    values = np.frombuffer(data, np.uint8)[header.scan :]
    places = np.flatnonzero(values[:-1] == 0xFF)
    following = values[places + 1]
    real = (following != 0) & (following != 0xFF)
    places, kinds = places[real], following[real]
    row, begin, scans, segments, coded = 0, 0, 1, 0, 0
    restarts = header.restarts
    while True:
        others = np.flatnonzero((kinds[row:] & 0xF8) != 0xD0)
        stop = row + int(others[0]) if len(others) else len(kinds)
        numbers = kinds[row:stop] & 7
        if len(numbers) and (not restarts or (numbers != np.arange(len(numbers)) % 8).any()):
            raise ValueError("its pixels are broken: parts of them are missing")
        if stop == len(kinds):
            raise ValueError("the file is cut short")
        place, kind = int(places[stop]), int(kinds[stop])
        coded += place - begin
        # Segments between two scans.
        while kind in _BETWEEN_SCANS:
            length = int.from_bytes(data[header.scan + place + 2 : header.scan + place + 4], "big")
            begin = place + 2 + length
            segments += 1
            if segments > _MAX_SEGMENTS:
                raise ValueError(f"there are more than {_MAX_SEGMENTS} segments between its pixels")
            if kind == _DRI:
                restarts = any(data[header.scan + place + 4 : header.scan + begin])
            row = int(np.searchsorted(places, begin))
            if kind == _SOS:
                break
            if row == len(places) or places[row] != begin:
                raise ValueError(f"the segment at byte {header.scan + place} is broken")
            place, kind = begin, int(kinds[row])
        if kind == _SOS:
            scans += 1
            if scans > _MAX_SCANS or scans * header.height * header.width > _MAX_SCANNED:
                raise ValueError(f"its pixels are in more than {scans - 1} scans")
            continue
        if kind != _EOI:
            raise ValueError(f"its pixels are broken at byte {header.scan + place}")
        check_amount(coded, header)
        single = scans == 1 and header.whole and header.process != _PROGRESSIVE
        return header.scan + place, single
