"""Flat storage of large indices: sequences without a Python object per item, and files of arrays that are mapped.

A list of a million strings is gradually copied into every worker process, because reading a Python object writes its
reference count. Arrays remain shared, and so do mapped files, even between unrelated processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from os import PathLike
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.storage.ordinary_files import open_file

Arrays = dict[str, NDArray[Any]]

_DTYPES = {"BOOL": np.bool_, "U8": np.uint8, "I32": np.int32, "I64": np.int64, "F32": np.float32, "F64": np.float64}


class Texts(Sequence[str]):
    """Strings in one array of bytes.

    Args:
        data: uint8, the UTF-8 of all strings, one after the other.
        ends: int64 [N + 1], the end of each string; the first entry is 0.
    """

    def __init__(self, data: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.data = data
        self.ends = ends

    @classmethod
    def pack(cls, texts: Sequence[str]) -> Texts:
        """Pack strings."""
        encoded = [text.encode() for text in texts]
        ends = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), out=ends[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    def unpack(self) -> list[str]:
        """Return all strings."""
        data, ends = self.data.tobytes(), self.ends.tolist()
        return [data[start:end].decode() for start, end in pairwise(ends)]

    def check(self, count: int) -> None:
        """Check strings that were read from a file.

        Args:
            count: Expected number of strings.

        Raises:
            ValueError: The number differs, or the data are not strings.
        """
        if self.data.dtype != np.uint8 or self.ends.dtype != np.int64 or self.ends.shape != (count + 1,):
            raise ValueError("the texts are damaged")
        if self.ends[0] != 0 or self.ends[-1] != self.data.size or (np.diff(self.ends) < 0).any():
            raise ValueError("the texts are damaged")
        self.data.tobytes().decode()
        # No text begins in the middle of a character.
        begins = self.ends[:-1][np.diff(self.ends) > 0]
        if (self.data[begins] & 0xC0 == 0x80).any():
            raise ValueError("the texts are damaged")

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        return self.data[self.ends[position] : self.ends[position + 1]].tobytes().decode()


class Numbers(Sequence[int]):
    """Integers in one array, returned as Python's.

    Args:
        values: int64 [N], the integers.
    """

    def __init__(self, values: NDArray[np.int64]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return self.values[index].tolist()  # type: ignore[no-any-return]


def save_arrays(path: str | PathLike[str], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write a file of arrays in the safetensors format, completely or not at all.

    Args:
        path: Path of the file.
        arrays: Arrays of booleans, uint8, int32, int64, float32 or float64, by name.
        metadata: Texts that are stored with them, by name.
    """
    names = {np.dtype(kind): name for name, kind in _DTYPES.items()}
    # Wide types first, so that each array starts at a multiple of its own item size.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name, own in ordered:
        offsets = [position, position + own.nbytes]
        header[name] = {"dtype": names[own.dtype], "shape": list(own.shape), "data_offsets": offsets}
        position += own.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with complete_file(path) as unfinished, open(unfinished, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, own in ordered:
            file.write(np.ascontiguousarray(own).reshape(-1).view(np.uint8).data if own.size else b"")
        file.flush()
        os.fsync(file.fileno())  # after a power cut the name must not exist without its content


def map_arrays(path: str | PathLike[str]) -> tuple[Arrays, dict[str, str]]:
    """Map a file of :func:`save_arrays` into memory; nothing is read before it is used.

    Args:
        path: Path of the file.

    Returns:
        The arrays, read-only, and the metadata.

    Raises:
        DataError: There is no such file, or it cannot be read.
        ValueError: It is not such a file, or not complete.
    """
    with open_file(path) as file:
        content = np.memmap(file, dtype=np.uint8, mode="r")
    broken = ValueError(f"{path}: this is not a complete file of arrays")
    start = 8 + int(content[:8].view("<u8")[0]) if len(content) > 8 else 0
    if not 8 < start <= len(content):
        raise broken
    try:
        header = json.loads(content[8:start].tobytes())
        metadata = header.pop("__metadata__", {})
        arrays = {name: _array(content[start:], entry) for name, entry in header.items()}
    # The header may contain anything.
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise broken from error
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise broken
    return arrays, metadata


def _array(content: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    """Return one of the arrays, as the header describes it."""
    low, high = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not 0 <= low <= high <= len(content) or any(type(side) is not int or side < 0 for side in shape):
        raise ValueError("the array is outside of the file")
    own: NDArray[Any] = np.asarray(content[low:high]).view(_DTYPES[entry["dtype"]])
    return own.reshape(shape)
