"""What the sources read for one image before it becomes a sample, and the part of a source that it comes from."""

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
        image: Path of the image file.
        file: Path of the annotation file.
        field: Position of a box in the file, with ``{}`` for its number, such as ``annotations[{}].bbox``.
        numbers: int64 [N], the boxes' positions in the file.
        boxes: float64 [N, 4], xyxy in pixels as the reader understands them; the values may be anything.
        labels: int64 [N], detection classes.
        crowd: bool [N].
        rows: int64 [N], the row in the sample's boxes; -1 for a box that the reader drops.
        masks: One COCO run-length encoding per box, which includes parts hidden by other objects; None for a box
            without a mask; empty if the format has no separate mask for each box.
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
        """Return some of the boxes under new labels, as for a sample that lost the rows of the others.

        Args:
            kept: bool [N], the boxes to keep.
            labels: int64 [N], the new detection classes; only those of the kept boxes are used.
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
        bounds: int64 [blocks + 1]; a block's samples go from its bound to the next one. Starts with 0.
        window: Number of blocks from which training draws at a time.
    """

    bounds: NDArray[np.int64]
    window: int


@dataclass(frozen=True)
class Part:
    """A run of samples that belong together and have a fixed share of every training batch.

    Attributes:
        name: Name for messages.
        start: Index of its first sample.
        stop: Index after its last sample.
        share: Its weight relative to the other parts'; positive.
        blocks: How its samples are stored, counted from its first one; None if any order of reading is as good.
        repeats: float64 [stop - start], how often each sample comes in a pass through the part, on average, at least 1;
            None for once each.
    """

    name: str
    start: int
    stop: int
    share: float
    blocks: Blocks | None = field(default=None, compare=False)
    repeats: NDArray[np.float64] | None = field(default=None, compare=False)


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
        labels: [N], the detection classes.
        crowd: [N], whether each box is a crowd.
        supervision: What the image was labelled for.
        semantic: [H, W], the segmentation classes; None for none.
        instances: [H, W], the index of a box plus one; None for none.
        image_id: Id of the image in the data set.
        path: Path of the image file.
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
