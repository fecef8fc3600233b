"""What a data set format has to provide, and a cache for any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ocrnet_pl.data.geometry import wrap_boxes
from ocrnet_pl.structures import Sample, Supervision, Taxonomy


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
