"""Images passed by Python code: paths, folders, patterns, addresses, arrays, tensors, and lists of any of them."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.arrays import PixelFormat
from ocrnet_pl.imaging.downloads import SCHEMES, fetch_image
from ocrnet_pl.imaging.films import SUFFIXES as FILM_SUFFIXES
from ocrnet_pl.imaging.folders import find_images
from ocrnet_pl.imaging.image_files import Encoded
from ocrnet_pl.imaging.images import check_image, read_image
from ocrnet_pl.storage.secrets import hidden

_PATTERN = frozenset("*?[")


class InputImage(NamedTuple):
    """One image to predict on.

    Attributes:
        image: uint8 [C, H, W].
        image_id: Id of the image.
        path: Path or address of the image file; empty for an image in memory.
        is_file: Whether ``path`` is a file that can be read again.
    """

    image: Tensor
    image_id: int | str
    path: str
    is_file: bool


class _Item(NamedTuple):
    """One image before it is read.

    Attributes:
        value: A path, an address, an encoded image, or an image in memory.
        name: Name of the image for messages.
        path: Path, or address without credentials; None for an image in memory.
    """

    value: Any
    name: str
    path: str | None = None

    @property
    def is_address(self) -> bool:
        """Whether the image has to be fetched."""
        return isinstance(self.value, str) and self.value.startswith(SCHEMES)


def input_images(images: object, format: PixelFormat) -> Iterator[InputImage]:
    """Return the images that were asked for, each read when its turn comes.

    What does not come from an iterator is checked at once, as far as that is possible without reading the pixels.

    Args:
        images: One image or several: see :meth:`~ocrnet_pl.models.ocrnet.OCRNet.predict`.
        format: What the numbers of images in memory mean.

    Raises:
        DataError: Something is not an image, or cannot be read as one.
    """
    if isinstance(images, Iterator):
        return _from_iterator(images, format)
    single = _is_one(images) or not isinstance(images, Iterable)
    given: Iterable[Any] = [images] if single else images  # type: ignore[assignment]
    items: list[_Item] = []
    for at, value in enumerate(given):
        items += _expanded(value, "the image" if single else f"image {at}", format)
    files = [at for at, item in enumerate(items) if item.path is not None and not item.is_address]
    ids: dict[int, int | str] = dict(zip(files, ids_of([items[at].path or "" for at in files]), strict=True))
    return (_read(item, ids.get(at, item.path or at), format) for at, item in enumerate(items))


def _is_one(images: object) -> bool:
    # Arrays and tensors are iterable as well, but yield rows.
    single = str | bytes | PathLike | Tensor | np.ndarray | Image.Image
    return isinstance(images, single) or hasattr(images, "__array__")


def _from_iterator(images: Iterator[Any], format: PixelFormat) -> Iterator[InputImage]:
    """Read what an iterator yields; a path is its own id, since the others are not known yet."""
    at = 0
    for number, value in enumerate(images):
        for item in _expanded(value, f"image {number}", format):
            image_id = at if item.path is None else item.path.replace(os.sep, "/")
            yield _read(item, image_id, format)
            at += 1


def _read(item: _Item, image_id: int | str, format: PixelFormat) -> InputImage:
    if item.path is None:
        return InputImage(format.read(item.value, item.name), image_id, "", False)
    source = fetch_image(item.value) if item.is_address else item.value
    is_file = not isinstance(source, Encoded)
    return InputImage(read_image(source, channels=format.channels), image_id, item.path, is_file)


def _expanded(value: Any, name: str, format: PixelFormat) -> Iterator[_Item]:
    """Yield the images that one value stands for."""
    if isinstance(value, Encoded):
        yield _Item(value, name, value.name)
    elif isinstance(value, str | PathLike):
        text = os.fspath(value)
        if isinstance(text, bytes):
            text = os.fsdecode(text)
        yield from (_Item(path, name, hidden(path) if path.startswith(SCHEMES) else path) for path in _paths(text))
    else:
        if not isinstance(value, Tensor | np.ndarray | Image.Image) and hasattr(value, "__array__"):
            value = np.asarray(value)
        several = isinstance(value, Tensor | np.ndarray) and value.ndim == 4
        for at, image in enumerate(value if several else [value]):
            own = f"{name}[{at}]" if several else name
            format.check(image, own)
            yield _Item(image, own)


def _paths(text: str) -> list[str]:
    """Return the paths that a path, a folder, a pattern or an address stands for."""
    if not text:
        raise DataError("the image: its path is empty; give a path, a folder, a pattern or an address")
    if text.startswith(SCHEMES):
        return [text]
    if "://" in text:
        schemes = " and ".join(SCHEMES)
        raise DataError.at(text, f"only addresses that begin with {schemes} are fetched", advice="fetch it yourself")
    path = os.path.expanduser(text)
    if os.path.isdir(path):
        found = find_images(path)
        if found.skipped:
            left_out = f"{len(found.skipped)} file(s) that are not images are left out, such as {found.skipped[0][0]}"
            warnings.warn(f"{text}: {left_out}", stacklevel=2)
        return [str(each) for each in found.paths]
    if not os.path.lexists(path) and _PATTERN & set(path):
        matches = sorted(each for each in glob.glob(path, recursive=True) if not os.path.isdir(each))
        if not matches:
            raise DataError.at(text, "no file matches this pattern", advice="check the path")
        for match in matches:
            check_image(match)
        return matches
    if path.lower().endswith(FILM_SUFFIXES) and os.path.isfile(path):
        raise DataError.at(text, "it is a film", advice="give it to ocrnet_pl.predict_film or to the command `film`")
    check_image(path)
    return [path]


def ids_of(paths: Sequence[str | PathLike[str]]) -> list[str]:
    """Return an id for each of several image files: its path below the folder that holds them all.

    Args:
        paths: Paths of image files.

    Returns:
        The ids, as the predict command gives them: for a single file its name; the parts of a path are joined by
        slashes.
    """
    whole = [os.path.abspath(path) for path in paths]
    try:
        root = os.path.commonpath([os.path.dirname(path) for path in whole]) if whole else ""
        return [os.path.relpath(path, root).replace(os.sep, "/") for path in whole]
    except ValueError:  # on several drives
        return [path.replace(os.sep, "/") for path in whole]
