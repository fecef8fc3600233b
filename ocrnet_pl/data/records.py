"""What the sources read of one image before it becomes a sample, and which part of a source an image comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.imaging.geometry import wrap_boxes
from ocrnet_pl.structures import Sample, Supervision


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

    def keep(self, kept: NDArray[np.bool_], labels: NDArray[np.int64]) -> RawBoxes:
        """Return some of the boxes under new labels, as of a sample that lost the rows of the others.

        Args:
            kept: bool [N].
            labels: int64 [N], the new detection classes; only those of the kept are used.
        """
        present = np.zeros(int(self.rows.max(initial=-1)) + 2, dtype=np.bool_)
        present[self.rows[kept & (self.rows >= 0)]] = True
        new_rows = np.where(present, np.cumsum(present) - 1, -1)
        return replace(
            self,
            numbers=self.numbers[kept],
            boxes=self.boxes[kept],
            labels=labels[kept],
            crowd=self.crowd[kept],
            rows=new_rows[self.rows[kept]],
            masks=tuple(mask for mask, stays in zip(self.masks, kept, strict=False) if stays),
        )


@dataclass(frozen=True, eq=False)
class Blocks:
    """Runs of samples that are stored together, and cheap to read only together.

    Attributes:
        bounds: int64 [blocks + 1]; a block's samples are those from its bound up to the next. Starts with 0.
        window: From how many blocks training draws at a time.
    """

    bounds: NDArray[np.int64]
    window: int


@dataclass(frozen=True)
class Part:
    """A run of samples that belong together and have a fixed share of every training batch.

    Attributes:
        name: For messages.
        start: Index of its first sample.
        stop: Index past its last.
        share: Its weight beside the other parts'; positive.
        blocks: How its samples are stored, counted from its first; None if any order of reading is as good.
    """

    name: str
    start: int
    stop: int
    share: float
    blocks: Blocks | None = field(default=None, compare=False)


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
