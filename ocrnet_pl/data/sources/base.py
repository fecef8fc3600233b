"""What a data set format has to provide, and a cache for any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ocrnet_pl.data.geometry import wrap_boxes
from ocrnet_pl.data.images import check_image
from ocrnet_pl.structures import Sample, Supervision, Taxonomy


@dataclass(frozen=True)
class RawBoxes:
    """The boxes of one image as they are stored, before a reader clips or drops any.

    Attributes:
        image: The image file.
        file: The annotation file.
        field: Where in the file a box stands, with ``{}`` for its number, such as ``annotations[{}].bbox``.
        numbers: int64 [N], the boxes' places in the file.
        boxes: float64 [N, 4], xyxy in pixels as the reader understands them; anything may stand in them.
        labels: int64 [N], detection classes.
        crowd: bool [N].
        rows: int64 [N], the row in the sample's boxes; -1 for a box that the reader drops.
        masks: One COCO run-length encoding a box, whole also where another object hides it; None for a box without
            a mask; empty if the format has no mask of its own for each box.
    """

    image: str
    file: str
    field: str
    numbers: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    rows: NDArray[np.int64]
    masks: tuple[dict[str, Any] | None, ...] = ()


class Source(Dataset[Sample], ABC):
    """A labelled data set: a taxonomy, a length, and samples as they are stored, untransformed.

    A new format is one subclass. Problems of the whole data set raise :class:`~ocrnet_pl.data.errors.DataError` in
    the constructor, before training starts; those of one file when its sample is read.
    """

    @property
    @abstractmethod
    def taxonomy(self) -> Taxonomy:
        """The categories that the samples' labels count in."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Return one sample; nobody may change its tensors in place."""

    def image_path(self, index: int) -> str | PathLike[str] | None:
        """Return a sample's image file; None where there is none or the format does not say."""
        return None

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) of a sample, without decoding where the format or the file's header tells it.

        Raises:
            DataError: The file is missing or not an image.
        """
        path = self.image_path(index)
        return self[index].size if path is None else upright_size(path)

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes of a sample, xyxy [N, 4]; a format that knows them without decoding overrides this.

        Raises:
            DataError: The sample cannot be read.
        """
        boxes: NDArray[np.float32] = self[index].boxes.as_subclass(Tensor).numpy()
        return boxes

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return an image's boxes as they are stored, for the data check; None if the sample's own are just that."""
        return None


class Cached(Source):
    """Keeps the decoded samples of another source in memory, in each process that reads them.

    For small sets, where decoding would otherwise take longer than training.

    Args:
        source: Where the samples come from.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._samples: dict[int, Sample] = {}

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories of the source."""
        return self.source.taxonomy

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self._samples.get(index)
        if sample is None:
            sample = self._samples[index] = self.source[index]
        return sample

    def image_path(self, index: int) -> str | PathLike[str] | None:
        """Return the source's."""
        return self.source.image_path(index)

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the source's."""
        return self.source.image_size(index)

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the source's."""
        return self.source.image_boxes(index)

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return those of the source."""
        return self.source.raw_boxes(index)


def upright_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Return an image's (height, width) after the turn that its EXIF tag asks for, from the header alone.

    Args:
        path: The image file.

    Raises:
        DataError: There is no such file, or it is not an image.
    """
    from PIL import Image

    height, width = check_image(path)
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
    except Exception:  # a format that Pillow does not know, or a broken tag, which decoding ignores as well
        turned = False
    return (width, height) if turned else (height, width)


def make_sample(
    image: Tensor,
    *,
    boxes: ArrayLike,
    labels: ArrayLike,
    crowd: ArrayLike,
    supervision: Supervision,
    semantic: NDArray[np.uint8] | None = None,
    instances: NDArray[np.int32] | None = None,
    image_id: int | str = 0,
    path: str = "",
) -> Sample:
    """Wrap plain arrays as a sample, so that a source need not know about tensors that carry geometry.

    Args:
        image: uint8 [C, H, W].
        boxes: [N, 4], xyxy in pixels.
        labels: [N].
        crowd: [N].
        supervision: What the image was labelled for.
        semantic: [H, W].
        instances: [H, W], the index of a box plus one.
        image_id: The data set's own id.
        path: The image file.
    """
    size = (int(image.shape[-2]), int(image.shape[-1]))
    return Sample(
        image=tv_tensors.Image(image),
        boxes=wrap_boxes(torch.as_tensor(np.array(boxes, dtype=np.float32).reshape(-1, 4)), size),
        labels=torch.as_tensor(np.array(labels, dtype=np.int64).reshape(-1)),
        crowd=torch.as_tensor(np.array(crowd, dtype=np.bool_).reshape(-1)),
        supervision=supervision,
        semantic=None if semantic is None else tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(semantic))),
        instances=None if instances is None else tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(instances))),
        image_id=image_id,
        path=path,
    )
