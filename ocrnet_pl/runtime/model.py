"""An exported file that predicts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocrnet_pl.errors import DataError, ModelFileError
from ocrnet_pl.runtime.description import Description
from ocrnet_pl.runtime.images import as_pixels
from ocrnet_pl.runtime.prediction import Prediction, predictions
from ocrnet_pl.runtime.sessions import open_session

OneImage = str | PathLike[str] | Image.Image | NDArray[Any]
"""Path of an image file, a Pillow image, or uint8 [H, W, C]."""

_BOXES = {"boxes": "float32", "scores": "float32", "labels": "int64", "count": "int64"}
_PIXELS = {"semantic": "uint8"}
_BOTH = dict.fromkeys(("instances", "panoptic", "segments"), "int32")


class Model:
    """A network that ``ocrnet export`` wrote as ONNX or for OpenVINO, ready to predict.

    Args:
        path: Path of the file.
        threads: Number of threads that a prediction uses; 0 for one on each core.
        providers: Names of onnxruntime's execution providers, best first, such as ``["CUDAExecutionProvider",
            "CPUExecutionProvider"]``; None for the CPU, and for a file of OpenVINO.

    Attributes:
        description: What the file tells of itself: classes, sizes, thresholds.

    Raises:
        FileNotFoundError: There is no such file.
        ModelFileError: The file is damaged, was not written by ``ocrnet export``, or holds the network alone.
        ValueError: onnxruntime, or OpenVINO for a file of its own, is not installed; ``threads`` is no number of
            threads; or the installed onnxruntime does not have one of the providers.
    """

    def __init__(self, path: str | PathLike[str], threads: int = 0, providers: Sequence[str] | None = None) -> None:
        self.path = os.fspath(path)
        where = f"model {self.path!r}"
        self._session = open_session(self.path, threads, providers)
        self.description = Description.of(self._session.metadata, where)
        if self.description.raw:
            raise ModelFileError(f"{where}: it holds the network alone; export it without --raw")
        self._check(where)

    def _check(self, where: str) -> None:
        """Raise an error unless the graph takes and returns what the description says."""
        own = self.description
        wanted = (_BOXES if own.detects else {}) | (_PIXELS if own.segments else {})
        if own.detects and own.segments:
            wanted |= _BOTH
        if self._session.outputs != wanted or self._session.inputs != {"images": ("uint8", 4)}:
            raise ModelFileError(f"{where}: its inputs and outputs are not those of its description; export it again")

    @property
    def class_names(self) -> list[str]:
        """The names of the detection classes, in the order of the labels."""
        return [category.name for category in self.description.taxonomy.detection_categories]

    @property
    def pixel_names(self) -> list[str]:
        """The names of the segmentation classes, in the order of the values in semantic maps."""
        return [category.name for category in self.description.taxonomy.semantic_categories]

    def __call__(self, image: OneImage) -> Prediction:
        """Return the prediction for an image.

        Args:
            image: A path, a Pillow image, or an array uint8 [H, W, C]; color is red, green, blue.

        Raises:
            DataError: The file cannot be read as an image, or it is none of these.
        """
        return self._one(image, 0)

    def predict(self, images: Sequence[OneImage] | NDArray[Any]) -> list[Prediction]:
        """Return the prediction for each of several images.

        Args:
            images: Images as for a single one, which are predicted one after the other, or an array uint8
                [B, H, W, C], which is one batch.

        Raises:
            DataError: A file cannot be read as an image, or an entry is none.
        """
        if isinstance(images, np.ndarray) and images.ndim == 4:
            for image in images[:1]:
                as_pixels(image, self.description.channels)
            return self._batch(images, True) if len(images) else []
        one = isinstance(images, str | bytes | PathLike | Image.Image)
        if one or not isinstance(images, Iterable) or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
            raise DataError("the images: expected several; call the model itself for one image")
        return [self._one(image, place, f"image {place}") for place, image in enumerate(images)]

    def _one(self, image: OneImage, place: int, name: str = "the image") -> Prediction:
        path = os.fspath(image) if isinstance(image, str | PathLike) else ""
        (found,) = self._batch(as_pixels(image, self.description.channels, name)[None], not path)
        found.path, found.image_id = path, os.path.basename(path) if path else place
        return found

    def _batch(self, images: NDArray[np.uint8], keep: bool) -> list[Prediction]:
        """Return the predictions for images of one size, with the images if they cannot be read again."""
        found = predictions(self._session.run(np.ascontiguousarray(images)), self.description)
        for place, prediction in enumerate(found):
            prediction.image_id, prediction.size = place, (images.shape[1], images.shape[2])
            # A copy: whoever gave the array may reuse it.
            prediction.image = images[place].copy() if keep else None
        return found
