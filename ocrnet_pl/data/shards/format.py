"""The format of a packed sample: members of a tar file, which is a shard.

WebDataset can read the shards: the members of a sample follow one another and are named by its number. ``NUMBER.json``
contains boxes, labels and what was labelled, ``NUMBER.jpg`` (or another ending) the image as it was encoded,
``NUMBER.semantic.png`` and ``NUMBER.instances.png`` the maps.
"""

from __future__ import annotations

import json
import math
import re
import struct
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.shards.description import read_description
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.image_files import Encoded
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.imaging.maps import read_map
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Taxonomy

MEMBERS = 4
"""Members of a sample: description, image, semantic map, instance map; the last two may be missing."""

_BLOCK = 512

_ARRAY = re.compile(
    rb"\x93NUMPY\x01\0..\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d{1,9}, \d{1,9}, \d{1,9})\), \} *\n",
    re.DOTALL,
)
"""The beginning of a file in which NumPy has saved bytes of three dimensions."""


@dataclass(frozen=True)
class Record:
    """A sample as bytes.

    Attributes:
        content: Tar members, with their headers.
        lengths: Bytes of each of the four members, without header; -1 for a missing one.
        size: (height, width) of the image.
        image_id: Id of the image in the data set.
        path: Path of the image file.
    """

    content: bytes
    lengths: tuple[int, ...]
    size: tuple[int, int]
    image_id: int | str
    path: str

    @property
    def check(self) -> int:
        """The content's checksum."""
        return zlib.crc32(self.content)


def encode(sample: Sample, number: int) -> Record:
    """Turn a sample into tar members.

    The image is stored as the bytes of its file if these decode to exactly the sample's pixels, else as a PNG, or as a
    NumPy array if it has neither one channel nor three.

    Args:
        sample: The sample, as a source returns it.
        number: Number of the sample, which names the members.

    Raises:
        DataError: There are more instances than a PNG of 16 bits can tell apart.
    """
    suffix, image, exif = _encode_image(sample)
    described: dict[str, Any] = {
        "id": sample.image_id,
        "path": sample.path,
        "size": list(sample.size),
        "channels": int(sample.image.shape[0]),
        "image": suffix,
        "exif": exif,
        "boxes": sample.boxes.as_subclass(Tensor).tolist(),
        "labels": sample.labels.tolist(),
        "crowd": sample.crowd.nonzero()[:, 0].tolist(),
        "labelled": {
            "detection": _chosen(sample.supervision.detection),
            "semantic": _chosen(sample.supervision.semantic),
        },
    }
    if sample.placement is not None:
        place = sample.placement
        described["placement"] = [place.original_size, place.input_size, place.scale, place.offset]
    members: list[tuple[str, bytes | None]] = [
        ("json", json.dumps(described).encode()),
        (suffix, image),
        ("semantic.png", _encode_map(sample.semantic, sample.path)),
        ("instances.png", _encode_map(sample.instances, sample.path)),
    ]
    content = b"".join(_member(f"{number:09d}.{end}", data) for end, data in members if data is not None)
    lengths = tuple(-1 if data is None else len(data) for _, data in members)
    return Record(content, lengths, sample.size, sample.image_id, sample.path)


def extent(lengths: NDArray[np.int64]) -> int:
    """Return how many bytes the members of a sample take in a shard.

    Args:
        lengths: int64 [4], the lengths of a record.
    """
    return int(extents(lengths[None])[0])


def extents(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the :func:`extent` of many samples.

    Args:
        lengths: int64 [N, 4], the lengths of each record.
    """
    whole: NDArray[np.int64] = np.where(lengths >= 0, _BLOCK + -(-lengths // _BLOCK) * _BLOCK, 0).sum(1)
    return whole


def split_members(content: bytes, lengths: Sequence[int]) -> list[bytes | None]:
    """Return the members of a sample, without headers.

    Args:
        content: Content of a record, or its beginning.
        lengths: Lengths of the requested members.
    """
    members: list[bytes | None] = []
    position = 0
    for length in lengths:
        if length < 0:
            members.append(None)
            continue
        members.append(content[position + _BLOCK : position + _BLOCK + length])
        position += _BLOCK + -(-length // _BLOCK) * _BLOCK
    return members


def decode(content: bytes, lengths: Sequence[int], taxonomy: Taxonomy, name: str) -> Sample:
    """Turn tar members back into the sample.

    Args:
        content: Content of a record.
        lengths: Lengths of a record.
        taxonomy: Categories of the data set.
        name: Position of the image, for messages.

    Raises:
        DataError: The sample is damaged, or its image cannot be decoded.
    """
    description, image, semantic, instances = split_members(content, lengths)
    described = read_description(description or b"", taxonomy, name)
    stored = Encoded(image or b"", name)
    if described.image == "npy":
        pixels = _decode_array(stored, (described.channels, *described.size))
    else:
        pixels = read_image(stored, exif=described.exif, channels=described.channels)
    if pixels.shape[1:] != described.size:
        raise DataError.at(name, f"the image is {tuple(pixels.shape[1:])}, not {described.size} as it was packed")
    classes = _decode_map(semantic, described.size, name)
    numbers = _decode_map(instances, described.size, name)
    if classes is not None and (classes[classes != IGNORE_INDEX] >= taxonomy.num_semantic).any():
        raise DataError.at(name, "its semantic map has a class that does not exist", advice="pack it again")
    if numbers is not None and numbers.max(initial=0) > len(described.labels):
        raise DataError.at(name, "its instance map has an instance without a box", advice="pack it again")
    sample = make_sample(
        pixels,
        boxes=described.boxes,
        labels=described.labels,
        crowd=described.crowd,
        supervision=described.supervision,
        semantic=None if classes is None else classes.astype(np.uint8, copy=False),
        instances=None if numbers is None else numbers.astype(np.int32),
        image_id=described.image_id,
        path=described.path,
    )
    return sample if described.placement is None else sample.replace(placement=described.placement)


def _member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _BLOCK)


def _encode_image(sample: Sample) -> tuple[str, bytes, bool]:
    """Return the ending, the bytes, and whether decoding turns the image as its EXIF tag says."""
    pixels = sample.image.as_subclass(Tensor)
    channels = int(pixels.shape[0])
    suffix = PurePath(sample.path).suffix[1:].lower()
    if suffix not in ("", "json", "npy"):
        try:
            data = Path(sample.path).read_bytes()
        except OSError:
            data = b""  # a generated sample, or a part of an image
        for exif in (True, False) if data else ():
            try:
                stored = read_image(Encoded(data, sample.path), exif=exif, channels=channels)
            except DataError:
                continue
            if torch.equal(stored, pixels):
                return suffix, data, exif
    if channels in (1, 3):
        from torchvision.io import encode_png

        return "png", encode_png(pixels.contiguous()).numpy().tobytes(), True
    file = BytesIO()
    np.save(file, pixels.contiguous().numpy())
    return "npy", file.getvalue(), True


def _encode_map(plane: Tensor | None, path: str) -> bytes | None:
    if plane is None:
        return None
    values = plane.as_subclass(Tensor).numpy()
    largest = int(values.max(initial=0))
    if largest > 65535:
        raise DataError.at(path, f"there are {largest} instances, more than 65535", advice="cut the image into tiles")
    # Rows are not filtered: PNG's filters make maps of numbers larger, and slower to decode.
    rows = np.ascontiguousarray(values, dtype=np.uint8 if largest < 256 else ">u2")
    height, width = rows.shape
    raw = np.zeros((height, 1 + width * rows.itemsize), dtype=np.uint8)
    raw[:, 1:] = rows.view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 8 * rows.itemsize, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _decode_map(data: bytes | None, size: tuple[int, ...], name: str) -> NDArray[Any] | None:
    if data is None:
        return None
    found = read_map(Encoded(data, name))
    if found.pixels.shape != size or found.mode not in ("L", "I", "I;16", "I;16B"):
        raise DataError.at(name, "a map of it has another size or kind", advice="copy the shard again, or pack again")
    return found.pixels


def _decode_array(stored: Encoded, shape: tuple[int, ...]) -> Tensor:
    """Return the pixels of an image that is stored as an array, which must have the given shape."""
    # NumPy would evaluate the header as Python, and allocate memory for any shape that it names.
    header = _ARRAY.match(stored.data)
    if header is not None and tuple(map(int, header[1].split(b","))) == shape:
        pixels = np.frombuffer(bytearray(stored.data[header.end() :]), dtype=np.uint8)
        if pixels.size == math.prod(shape):
            return torch.from_numpy(pixels.reshape(shape))
    raise DataError.at(stored, "its pixels are damaged", advice="copy the shard again, or pack again")


def _chosen(flags: Tensor) -> bool | list[int]:
    if flags.all():
        return True
    return flags.nonzero()[:, 0].tolist() if flags.any() else False
