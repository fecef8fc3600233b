"""Flat storage of large indices: sequences without a Python object per item, and files of arrays that are mapped.

A list of a million strings is gradually copied into every worker process, because reading a Python object writes its
reference count. Arrays remain shared, and so do mapped files, even between unrelated processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from os import PathLike
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.storage.ordinary_files import open_file

Arrays = dict[str, NDArray[Any]]

_DTYPES = tuple(map(np.dtype, (np.bool_, np.uint8, np.int32, np.int64, np.float32, np.float64)))


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
    """Write a safetensors file of arrays, completely or not at all.

    Args:
        path: Path of the file.
        arrays: Arrays of booleans, uint8, int32, int64, float32 or float64, by name.
        metadata: Texts that are stored with them, by name.
    """
    with complete_file(path, durable=True) as unfinished:
        save_file({name: np.ascontiguousarray(own) for name, own in arrays.items()}, unfinished, dict(metadata))


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
    open_file(path).close()
    try:
        # Torch maps the file, where numpy would read it.
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, TypeError, RuntimeError, OSError) as error:
        raise ValueError(f"{path}: this is not a complete file of arrays") from error
    for name, own in arrays.items():
        if own.dtype not in _DTYPES:
            raise ValueError(f"{path}: {name!r} is an array of {own.dtype}, which is not expected here")
        own.flags.writeable = False
    return arrays, metadata
