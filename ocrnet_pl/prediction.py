"""The result for one image, and what it can be turned into."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ocrnet_pl.taxonomy import Segment, Taxonomy

if TYPE_CHECKING:
    from PIL import Image


@dataclass(repr=False, eq=False)
class Prediction:
    """The result for one image, at its original size, on the CPU.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels, best first.
        scores: float32 [N], 0 to 1.
        labels: int64 [N], detection classes.
        semantic: uint8 [H, W] of segmentation classes; None without a segmentation decoder.
        instances: int32 [H, W], the row of a box plus one, 0 = none; None if there is nothing to make masks of.
        panoptic: int32 [H, W], segment ids, 0 = void; None if there is no panoptic map.
        segments: Segments of the panoptic map.
        image_id: Id of the image in the data set.
        path: Path of the image file.
        certainty: float [H, W], the probability of each pixel's class; None except in raw predictions of both tasks.
        counts: float64 [K, 3], the expected number of objects of each detection class and the ends of its interval,
            from all boxes, whichever are given out; NaN where it is not known. None without calibrated probabilities.
        tracks: int64 [N], the number under which each object is followed through a film, from 1, and 0 for none; None
            if objects are not followed.
        size: (height, width) of the image; None if it is not known.
        taxonomy: Categories of the network; None if they are not known.
        image: uint8 [C, H, W], an image that cannot be read again at ``path``; None for a file.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    semantic: Tensor | None = None
    instances: Tensor | None = None
    panoptic: Tensor | None = None
    segments: list[Segment] = field(default_factory=list)
    image_id: int | str = 0
    path: str = ""
    certainty: Tensor | None = None
    counts: Tensor | None = None
    tracks: Tensor | None = None
    size: tuple[int, int] | None = None
    taxonomy: Taxonomy | None = None
    image: Tensor | None = None

    def __repr__(self) -> str:
        # By name, as in :func:`_results`.
        return str(importlib.import_module("ocrnet_pl.runtime.plain_result").short_text(self))

    @property
    def masks(self) -> Tensor | None:
        """Masks, bool [N, H, W], which do not overlap; None without an instance map."""
        if self.instances is None:
            return None
        rows = torch.arange(1, len(self.scores) + 1, device=self.instances.device, dtype=self.instances.dtype)
        return self.instances[None] == rows[:, None, None]

    @property
    def names(self) -> list[str]:
        """The name of each box's class.

        Raises:
            ValueError: The categories are not known.
        """
        if self.taxonomy is None:
            raise ValueError("prediction: its taxonomy is not known; set prediction.taxonomy to that of the network")
        categories = self.taxonomy.detection_categories
        return [categories[label].name for label in self.labels.tolist()]

    def filter(self, classes: str | Iterable[str] | None = None, score: float = 0.0) -> Prediction:
        """Return a prediction with some of the objects only.

        Args:
            classes: Name of a class, or several; None for all. Pixels and segments of the others are left out as well:
                they become 255 in the semantic map and 0 in the panoptic one.
            score: Smallest score of an object, 0 to 1; ``math.inf`` leaves out all objects.

        Raises:
            ValueError: There is no such class, the categories are not known, or ``score`` is out of range.
        """
        filtered: Prediction = _results().filtered(self, classes, score)
        return filtered

    def plot(self, image: Tensor | None = None, score: float = 0.3, min_side: int = 0) -> Image.Image:
        """Return the image with tints, outlines, boxes, names and scores, as Pillow's, which a notebook shows.

        Args:
            image: uint8 [C, H, W]; None for the image that was predicted on, which is read again if it was a file.
            score: Score below which boxes are not drawn, 0 to 1.
            min_side: Length in pixels of the longer side up to which a smaller image is enlarged; 0 for none.

        Raises:
            DataError: The file cannot be read any more.
            ValueError: The image has another size, it or the categories are not known, or ``score`` is out of range.
        """
        drawn: Image.Image = _results().plotted(self, image, score, min_side)
        return drawn

    def save(self, path: str | os.PathLike[str], image: Tensor | None = None, score: float = 0.3) -> None:
        """Write the picture of :meth:`plot` into a file, which appears when it is complete.

        Args:
            path: Path of the file; its ending, such as ``.png`` or ``.jpg``, decides the format.
            image: uint8 [C, H, W]; None for the image that was predicted on, which is read again if it was a file.
            score: Score below which boxes are not drawn, 0 to 1.

        Raises:
            DataError: The file cannot be read any more.
            ValueError: No pictures have such an ending, or :meth:`plot` raises it.
        """
        _results().save(self, path, image, score)

    def crop(self, image: Tensor | None = None, margin: float = 0.0) -> list[Tensor]:
        """Return each box's part of the image, uint8 [C, h, w]; pixels that a box covers in part belong to it.

        Args:
            image: uint8 [C, H, W]; None for the image that was predicted on, which is read again if it was a file.
            margin: Width of what is added around each box, as a share of its sides, at least 0.

        Raises:
            DataError: The file cannot be read any more.
            ValueError: The margin is negative, the image has another size, or is not known.
        """
        parts: list[Tensor] = _results().cropped(self, image, margin)
        return parts

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """Return plain numbers, texts, lists and dictionaries, which JSON can hold.

        Args:
            masks: Whether each object gets its mask, as COCO's run lengths.

        Returns:
            ``image_id``, ``path``, ``size``; ``objects`` with ``name``, ``label``, ``score`` and ``box`` (xyxy), and
            ``track`` and ``mask`` where there are any; ``pixels``, how many each class has in the semantic map;
            ``segments`` of the panoptic map with ``id``, ``name``, ``score``, ``area`` and ``object``, the place of its
            object or None.

        Raises:
            ValueError: The categories are not known.
        """
        plain: dict[str, Any] = _results().to_dict(self, masks)
        return plain

    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, Any]]:
        """Return the objects in COCO's results format, with run-length masks where there is an instance map.

        ``category_id`` counts the detection classes from 1, as in the files of the predict command.

        Args:
            image_id: Id of the image in the annotations to compare with; None for the prediction's own.
        """
        results: list[dict[str, Any]] = _results().to_coco(self, image_id)
        return results

    def to_supervision(self) -> Any:
        """Return the objects as ``supervision.Detections``; needs the package ``supervision``.

        Raises:
            ImportError: It is not installed.
            ValueError: The categories are not known.
        """
        return _results().to_supervision(self)


def _results() -> Any:
    """Return the module of what a prediction can be turned into.

    It draws and writes, which stands on a higher floor, so it is imported by name, at the first use.
    """
    return importlib.import_module("ocrnet_pl.inference.results")


@dataclass
class Predictions:
    """The predictions of a batch: each image before and after fusion, in the same order.

    Attributes:
        raw: The decoders' own results: boxes after suppression, the semantic arg max, and the plain merge of both.
        fused: Predictions after fusion; None if the network has only one task.
    """

    raw: list[Prediction]
    fused: list[Prediction] | None = None

    @property
    def best(self) -> list[Prediction]:
        """The fused predictions if there are any, else the raw ones."""
        return self.raw if self.fused is None else self.fused
