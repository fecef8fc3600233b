"""PNG: damage is found before anything is decoded, and false headers cost no time."""

from __future__ import annotations

import struct
import zlib
from typing import Any, BinaryIO, NamedTuple

from numpy.typing import NDArray

from ocrnet_pl.imaging.opencv import decode_exactly, opencv

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of any PNG, which one lacks that was cut off."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE = 3
_HEADER = len(SIGNATURE) + 25
_MAX_CHUNKS = 100_000
_SMALL = 1 << 16
_SAMPLE = 1 << 12


class Header(NamedTuple):
    """The first chunk.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        depth: Number of bits of each value.
        kind: PNG's color type: 0 grey, 2 RGB, 3 palette, 4 grey and transparency, 6 RGB and transparency.
        interlaced: Whether the rows are in Adam7's order.
    """

    height: int
    width: int
    depth: int
    kind: int
    interlaced: bool

    @property
    def raw_bytes(self) -> int:
        """The largest number of bytes that the pixels take before compression."""
        row = 1 + (self.width * _CHANNELS[self.kind] * self.depth + 7) // 8
        return self.height * row * (2 if self.interlaced else 1)


class Chunks(NamedTuple):
    """The positions of the parts of a PNG.

    Attributes:
        first: Start of the first chunk of pixels.
        last: End of the last chunk of pixels.
        pixels: (start, end) of the compressed bytes of each chunk.
        bare: Whether the file contains only pixels.
        palette: The RGB colors, three bytes each.
        exif: The block of EXIF tags.
    """

    first: int
    last: int
    pixels: list[tuple[int, int]]
    bare: bool
    palette: bytes
    exif: bytes


def read_header(data: bytes) -> Header:
    """Read the first chunk.

    Args:
        data: Bytes of the chunk, which more may follow.

    Raises:
        ValueError: It is cut short, damaged, or does not describe a PNG.
    """
    if len(data) < _HEADER:
        raise ValueError("the file is cut short")
    length, name, width, height, depth, kind, compression, filters, interlace, checksum = struct.unpack_from(
        ">I4sIIBBBBBI", data, len(SIGNATURE)
    )
    if name != b"IHDR" or length != 13:
        raise ValueError("its first chunk is not a header")
    if zlib.crc32(data[12 : _HEADER - 4]) != checksum:
        raise ValueError("the checksum of its header is wrong")
    if depth not in _DEPTHS.get(kind, ()) or compression or filters or interlace > 1:
        raise ValueError("its header does not describe a PNG")
    return Header(height, width, depth, kind, bool(interlace))


def read_exif(file: BinaryIO) -> bytes:
    """Return the block of EXIF tags, wherever it is, without reading the pixels.

    Args:
        file: The whole PNG, opened.

    Returns:
        The block; empty if there is none, or if the file is cut short.
    """
    position = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        start = file.read(8)
        if len(start) < 8:
            break
        length, name = struct.unpack(">I4s", start)
        if name == b"eXIf":
            return file.read(length)
        if name == b"IEND":
            break
        position += 12 + length
    return b""


def read_chunks(data: bytes, header: Header) -> Chunks:
    """Check the order of the chunks and their checksums.

    Args:
        data: The whole file.
        header: Header of the file.

    Raises:
        ValueError: The file is cut short or damaged, or contains far more than its size requires.
    """
    view = memoryview(data)
    position, first, last, bare, closed = _HEADER, 0, 0, True, False
    pixels: list[tuple[int, int]] = []
    palette = exif = b""
    for _ in range(_MAX_CHUNKS):
        if position + 12 > len(data):
            raise ValueError("the file is cut short")
        length, name = struct.unpack_from(">I4s", data, position)
        begin, end = position + 8, position + 8 + length
        if end + 4 > len(data):
            raise ValueError("the file is cut short")
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError(f"the checksum of a chunk is wrong ({name!r}, byte {position})")
        if name == b"IDAT":
            if closed:
                raise ValueError("its chunks are in a wrong order")
            first = first or position
            last = end + 4
            pixels.append((begin, end))
        elif name == b"IEND":
            break
        else:
            bare, closed = False, bool(pixels)
            if name == b"PLTE":
                if pixels or palette or length % 3 or length > 768:
                    raise ValueError("its palette is broken")
                palette = data[begin:end]
            elif name == b"eXIf":
                exif = data[begin:end]
            elif not name[0] & 0x20:
                raise ValueError(f"it has an unknown chunk ({name!r}, byte {position})")
        position = end + 4
    else:
        raise ValueError(f"it has more than {_MAX_CHUNKS} chunks")
    if not pixels:
        raise ValueError("it has no pixels")
    if header.kind == _PALETTE and not palette:
        raise ValueError("it has no palette")
    _check_length(view, pixels, header)
    return Chunks(first, last, pixels, bare, palette, exif)


def _check_length(view: memoryview, pixels: list[tuple[int, int]], header: Header) -> None:
    """Raise an error for data that unpacks to far more than the image's size, which a decoder would unpack in full."""
    raw = header.raw_bytes
    packed = sum(end - begin for begin, end in pixels)
    # Allows for the longest way of writing data that cannot be compressed, with a flush after each row.
    most = raw + raw // 8 + 16 * header.height + 4096
    if packed <= most and packed > _SMALL:
        begin, end = pixels[-1]
        sample = view[max(begin, end - _SAMPLE) : end]
        # Data that can be compressed once more stands for long runs: it is unpacked, which is fast, up to the limit.
        if len(zlib.compress(sample, 1)) < len(sample) // 2 and _unpacks_to_more(view, pixels, raw):
            packed = most + 1
    if packed > most:
        raise ValueError(f"it holds more data than {header.width} x {header.height} pixels take")


def _unpacks_to_more(view: memoryview, pixels: list[tuple[int, int]], limit: int) -> bool:
    unpacking = zlib.decompressobj()
    for begin, end in pixels:
        for start in range(begin, end, _SMALL):
            piece: bytes | memoryview = view[start : min(start + _SMALL, end)]
            while piece:
                limit -= len(unpacking.decompress(piece, _SMALL * 16))
                if limit < 0:
                    return True
                piece = unpacking.unconsumed_tail
    return False


def decode(data: bytes, header: Header, chunks: Chunks, *, rgb: bool) -> NDArray[Any]:
    """Decode the pixels, from a file that contains nothing else.

    Args:
        data: The whole file.
        header: Header of the file.
        chunks: Positions of the parts of the file.
        rgb: Whether grey of 8 bits or fewer is returned as RGB.

    Returns:
        uint8 or uint16, as stored: [H, W] for grey or a palette's indices; else [H, W, C] with 2 (grey and
        transparency), 3 or 4 channels.

    Raises:
        ValueError: The pixels are broken, or there are too few.
    """
    palette = header.kind == _PALETTE
    if not chunks.bare or palette:
        start = data[:_HEADER] if not palette else _as_grey(data)
        data = b"".join((start, memoryview(data)[chunks.first : chunks.last], END))
    cv2 = opencv()
    as_rgb = header.kind == 2 or (rgb and header.kind == 0)
    flags = cv2.IMREAD_COLOR_RGB if as_rgb and header.depth <= 8 else cv2.IMREAD_UNCHANGED
    pixels = decode_exactly(data, flags, (header.height, header.width))
    if header.kind == 4:
        return pixels[..., [0, 3]]
    if flags == cv2.IMREAD_UNCHANGED and pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    # OpenCV scales values of few bits to 0 to 255, which is right for grey and wrong for indices.
    return pixels // (255 // ((1 << header.depth) - 1)) if palette and header.depth < 8 else pixels


def _as_grey(data: bytes) -> bytes:
    """Return a palette image's header as that of a grey one, so that indices are decoded instead of colors."""
    chunk = bytearray(data[12 : _HEADER - 4])
    chunk[13] = 0
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk))
