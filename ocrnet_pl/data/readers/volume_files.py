"""Slices of medical volumes: NIfTI by nibabel, DICOM by pydicom, both optional."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.errors import DataError, one_line
from ocrnet_pl.imaging.images import MAX_PIXELS
from ocrnet_pl.storage.ordinary_files import open_file

NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm",)
_MOST_VALUES = 1 << 31


class Shape(NamedTuple):
    """The size of a volume: number of slices, and (height, width) of each."""

    slices: int
    height: int
    width: int


def volume_stem(name: str) -> str:
    """Return a volume's name without its ending."""
    lower = name.lower()
    ending = next((end for end in sorted((*NIFTI, *DICOM), key=len, reverse=True) if lower.endswith(end)), "")
    return name[: -len(ending)] if ending else os.path.splitext(name)[0]


def volume_shape(path: str, axis: int) -> Shape:
    """Return the size of a volume, from its header.

    Args:
        path: Path of the file.
        axis: Axis of a NIfTI along which the slices lie, 0 to 2.

    Raises:
        DataError: The file is missing, broken or too large, or the library is not installed.
    """
    with _one_line(path):
        if path.lower().endswith(NIFTI):
            sides = [int(side) for side in _open_nifti(path).shape]
            while len(sides) > 3 and sides[-1] == 1:
                sides.pop()
            if len(sides) != 3:
                raise DataError.at(
                    path, f"it has {len(sides)} axes, not 3", advice="give each channel a file of its own"
                )
            across, down = (side for place, side in enumerate(sides) if place != axis)
            shape = Shape(sides[axis], down, across)
        else:
            header = _open_dicom(path, pixels=False)
            shape = Shape(int(getattr(header, "NumberOfFrames", 1) or 1), int(header.Rows), int(header.Columns))
    if (
        min(shape) < 1
        or shape.height * shape.width > MAX_PIXELS
        or shape.slices * shape.height * shape.width > _MOST_VALUES
    ):
        raise DataError.at(path, f"it is {shape.width} x {shape.height} x {shape.slices}", advice="cut it into parts")
    return shape


class Volume(NamedTuple):
    """A volume in memory.

    Attributes:
        values: float32 or integers [slices, H, W], in the units of the file: Hounsfield units for CT.
        window: (level, width) that the file suggests; None for none.
    """

    values: NDArray[Any]
    window: tuple[float, float] | None


def read_volume(path: str, axis: int) -> Volume:
    """Read a volume; arguments and errors as of :func:`volume_shape`."""
    shape = volume_shape(path, axis)
    with _one_line(path):
        if path.lower().endswith(NIFTI):
            values = np.asanyarray(_open_nifti(path).dataobj)
            values = values.reshape(values.shape[:3])
            # Rows come last but one: the stored order is x, y, z.
            values = np.moveaxis(values, axis, 0).swapaxes(1, 2)
            return Volume(np.nan_to_num(values) if values.dtype.kind == "f" else values, None)
        content = _open_dicom(path, pixels=True)
        stored = content.pixel_array.reshape(shape)
        slope, start = (float(getattr(content, key, default)) for key, default in _RESCALE)
        values = stored.astype(np.float32) * slope + start
        if getattr(content, "PhotometricInterpretation", "") == "MONOCHROME1":
            values = values.max() + values.min() - values
        level, width = (_first(getattr(content, key, None)) for key in ("WindowCenter", "WindowWidth"))
        return Volume(values, None if level is None or width is None or width <= 0 else (level, width))


_RESCALE = (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))


def windowed(values: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    """Return values as 8 bits: black below the window, white above it.

    Args:
        values: Numbers of any type.
        window: Its middle (level) and its width.
    """
    level, width = window
    low = level - width / 2
    scaled = (values.astype(np.float32) - low) * (255 / width)
    return np.asarray(scaled.round().clip(0, 255).astype(np.uint8))


def _first(value: Any) -> float | None:
    """Return a number, or the first of several."""
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)


def _open_nifti(path: str) -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise DataError.at(path, "NIfTI needs nibabel", advice="run `pip install nibabel`") from error
    with open_file(path, "volume"):  # only ordinary files
        pass
    return nibabel.load(path)


def _open_dicom(path: str, *, pixels: bool) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise DataError.at(path, "DICOM needs pydicom", advice="run `pip install pydicom`") from error
    with open_file(path, "volume") as file:
        return pydicom.dcmread(file, stop_before_pixels=not pixels)


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the libraries raise almost anything on broken files
        reason = one_line(error)
        raise DataError.at(path, f"the volume cannot be read ({reason:.300})", advice="replace or remove it") from error
