"""An exported file that predicts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ocrnet_pl.errors import DataError, ModelFileError
from ocrnet_pl.runtime.description import Description
from ocrnet_pl.runtime.images import as_pixels
from ocrnet_pl.runtime.prediction import Prediction, predictions

OneImage = str | PathLike[str] | Image.Image | NDArray[Any]
"""Path of an image file, a Pillow image, or uint8 [H, W, C]."""

_BOXES = {"boxes": "tensor(float)", "scores": "tensor(float)", "labels": "tensor(int64)", "count": "tensor(int64)"}
_PIXELS = {"semantic": "tensor(uint8)"}
_BOTH = {name: "tensor(int32)" for name in ("instances", "panoptic", "segments")}


def load_session(path: str | PathLike[str], threads: int = 0, providers: Sequence[str] | None = None) -> Any:
    """Return onnxruntime's session of a file.

    Args:
        path: Path of the file.
        threads: Number of threads; 0 for one on each core.
        providers: Names of execution providers, best first; None for the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ModelFileError: onnxruntime cannot load it.
    """
    import onnxruntime

    where = f"model {os.fspath(path)!r}"
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{where}: there is no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    with open(path, "rb") as file:
        content = file.read()
    try:
        # From memory, so that the file cannot name others to read.
        return onnxruntime.InferenceSession(content, options, providers=list(providers or ["CPUExecutionProvider"]))
    except Exception as error:
        # Its errors have no common class.
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"{where}: onnxruntime cannot load it ({reason}); export it again") from None


class Model:
    """A network that ``ocrnet export --format onnx`` wrote, ready to predict.

    Args:
        path: Path of the file.
        threads: Number of threads that a prediction uses; 0 for one on each core.
        providers: Names of onnxruntime's execution providers, best first, such as ``["CUDAExecutionProvider",
            "CPUExecutionProvider"]``; None for the CPU.

    Attributes:
        description: What the file tells of itself: classes, sizes, thresholds.

    Raises:
        FileNotFoundError: There is no such file.
        ModelFileError: The file is damaged, was not written by ``ocrnet export``, or holds the network alone.
    """

    def __init__(self, path: str | PathLike[str], threads: int = 0, providers: Sequence[str] | None = None) -> None:
        self.path = os.fspath(path)
        where = f"model {self.path!r}"
        self._session = load_session(self.path, threads, providers)
        self.description = Description.of(self._session.get_modelmeta().custom_metadata_map, where)
        if self.description.raw:
            raise ModelFileError(f"{where}: it holds the network alone; export it without --raw")
        self._check(where)

    def _check(self, where: str) -> None:
        """Raise an error unless the graph takes and returns what the description says."""
        own = self.description
        wanted = (_BOXES if own.detects else {}) | (_PIXELS if own.segments else {})
        if own.detects and own.segments:
            wanted |= _BOTH
        found = {out.name: out.type for out in self._session.get_outputs()}
        inputs = {each.name: (each.type, len(each.shape)) for each in self._session.get_inputs()}
        if found != wanted or inputs != {"images": ("tensor(uint8)", 4)}:
            raise ModelFileError(f"{where}: its inputs and outputs are not those of its description; export it again")
        self._names = list(found)

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
            return self._batch(images) if len(images) else []
        if isinstance(images, str | PathLike | Image.Image):
            raise DataError("the images: expected several; call the model itself for one image")
        return [self._one(image, place) for place, image in enumerate(images)]

    def _one(self, image: OneImage, place: int) -> Prediction:
        (found,) = self._batch(as_pixels(image, self.description.channels)[None])
        found.image_id = place
        if isinstance(image, str | PathLike):
            found.path = os.fspath(image)
            found.image_id = os.path.basename(found.path)
        return found

    def _batch(self, images: NDArray[np.uint8]) -> list[Prediction]:
        results = self._session.run(self._names, {"images": np.ascontiguousarray(images)})
        found = predictions(dict(zip(self._names, results, strict=True)), self.description)
        for place, prediction in enumerate(found):
            prediction.image_id, prediction.size = place, (images.shape[1], images.shape[2])
        return found
