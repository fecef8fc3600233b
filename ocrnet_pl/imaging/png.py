"""PNG: what is damaged is found before anything is decoded, and what lies costs no time."""

from __future__ import annotations

import struct
import zlib
from typing import Any, BinaryIO, NamedTuple

from numpy.typing import NDArray

from ocrnet_pl.imaging.opencv import decode_exactly, opencv

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE = 3
_HEADER = len(SIGNATURE) + 25
_END = b"\0\0\0\0IEND\xaeB`\x82"
_MAX_CHUNKS = 100_000
_SMALL = 1 << 16
_SAMPLE = 1 << 12


class Header(NamedTuple):
    """The first chunk.

    Attributes:
        height: In pixels.
        width: In pixels.
        depth: Bits of each value.
        kind: PNG's color type: 0 grey, 2 RGB, 3 palette, 4 grey and transparency, 6 RGB and transparency.
        interlaced: Whether the rows come in Adam7's order.
    """

    height: int
    width: int
    depth: int
    kind: int
    interlaced: bool

    @property
    def raw_bytes(self) -> int:
        """The most bytes that the pixels take before they are compressed."""
        row = 1 + (self.width * _CHANNELS[self.kind] * self.depth + 7) // 8
        return self.height * row * (2 if self.interlaced else 1)


class Chunks(NamedTuple):
    """Where the parts of a PNG stand.

    Attributes:
        first: Begin of the first chunk of pixels.
        last: End of the last chunk of pixels.
        pixels: (begin, end) of the compressed bytes, chunk by chunk.
        bare: Whether there is nothing but pixels.
        palette: RGB, three bytes for each color.
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
        data: Its bytes and any more.

    Raises:
        ValueError: It is cut short, damaged, or describes no PNG.
    """
    if len(data) < _HEADER:
        raise ValueError("the file is cut short")
    length, name, width, height, depth, kind, compression, filters, interlace, checksum = struct.unpack_from(
        ">I4sIIBBBBBI", data, len(SIGNATURE)
    )
    if name != b"IHDR" or length != 13:
        raise ValueError("its first chunk is no header")
    if zlib.crc32(data[12 : _HEADER - 4]) != checksum:
        raise ValueError("the checksum of its header is wrong")
    if depth not in _DEPTHS.get(kind, ()) or compression or filters or interlace > 1:
        raise ValueError("its header describes no PNG")
    return Header(height, width, depth, kind, bool(interlace))


def read_exif(file: BinaryIO) -> bytes:
    """Return the block of EXIF tags, wherever it stands, without reading the pixels.

    Args:
        file: Of the whole PNG.

    Returns:
        Empty where there is none, or where the file breaks off.
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
        header: Of the file.

    Raises:
        ValueError: The file is cut short or damaged, or holds far more than its size takes.
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
    """Refuse what unpacks to far more than the image's size, which a decoder would unpack to its end."""
    raw = header.raw_bytes
    packed = sum(end - begin for begin, end in pixels)
    # Room for the longest way of writing data that cannot be packed, with a flush after each row.
    most = raw + raw // 8 + 16 * header.height + 4096
    if packed <= most and packed > _SMALL:
        begin, end = pixels[-1]
        sample = view[max(begin, end - _SAMPLE) : end]
        # What can be packed again stands for long runs: unpack it, which is fast, to no more than it may be.
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
    """Decode the pixels, from a file that has nothing else.

    Args:
        data: The whole file.
        header: Of the file.
        chunks: Of the file.
        rgb: Whether grey of 8 bits or fewer is to come as RGB.

    Returns:
        uint8 or uint16, as it is stored: [H, W] of grey or of a palette's indices; else [H, W, C], with 3 channels,
        with 2, which are grey and transparency, or with 4.

    Raises:
        ValueError: The pixels are broken, or there are too few.
    """
    palette = header.kind == _PALETTE
    if not chunks.bare or palette:
        start = data[:_HEADER] if not palette else _as_grey(data)
        data = b"".join((start, memoryview(data)[chunks.first : chunks.last], _END))
    cv2 = opencv()
    as_rgb = header.kind == 2 or (rgb and header.kind == 0)
    flags = cv2.IMREAD_COLOR_RGB if as_rgb and header.depth <= 8 else cv2.IMREAD_UNCHANGED
    pixels = decode_exactly(data, flags, (header.height, header.width))
    if header.kind == 4:
        return pixels[..., [0, 3]]
    if flags == cv2.IMREAD_UNCHANGED and pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    # OpenCV spreads few bits over 0 to 255, which is right for grey and wrong for indices.
    return pixels // (255 // ((1 << header.depth) - 1)) if palette and header.depth < 8 else pixels


def _as_grey(data: bytes) -> bytes:
    """Return a palette's header as one of grey, so that the indices are decoded and not their colors."""
    chunk = bytearray(data[12 : _HEADER - 4])
    chunk[13] = 0
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk))
