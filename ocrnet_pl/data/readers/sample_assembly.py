"""From the parts of an annotation to a sample: files are checked against each other, and missing parts are derived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.data.readers.class_map import Legend
from ocrnet_pl.data.readers.derived_labels import (
    boxes_from_instances,
    classes_from_semantic,
    renumber,
    semantic_from_instances,
)
from ocrnet_pl.data.readers.label_maps import MAX_INSTANCES, match_boxes, read_image_like
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy

_LEAST_OVERLAP = 0.5
"""Smallest intersection over union of an instance and the box that it belongs to."""


class Boxes(NamedTuple):
    """The boxes of one image.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels.
        labels: int64 [N], detection classes.
        crowd: bool [N].
        where: Returns the position of a row for messages; None if the boxes were derived.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    where: Callable[[int], str] | None = None


class Instances(NamedTuple):
    """An instance map as it is stored.

    Attributes:
        path: Path of its file, for messages.
        ids: int32 [H, W] of any ids, 0 = none.
        labels: Detection class by id, -1 for ids that are not things; None if the file does not give classes.
        crowd: Ids of the crowds.
    """

    path: str
    ids: NDArray[np.int32]
    labels: dict[int, int] | None = None
    crowd: frozenset[int] = frozenset()


class Assembler:
    """Makes the samples of one data set.

    Args:
        taxonomy: Categories of the data set.
        background: Segmentation class of the pixels without an instance, where the semantic map is derived; None, or a
            class that does not exist, ignores them.
        semantic_from_instances: Whether the semantic map is derived from instances where there is none.
        boxes_from_instances: Whether boxes are derived from the instance map where there are none.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        *,
        background: str | None,
        semantic_from_instances: bool,
        boxes_from_instances: bool = False,
        channels: int = 3,
    ) -> None:
        self.taxonomy = taxonomy
        self.channels = channels
        self.semantic_from_instances = semantic_from_instances
        self.boxes_from_instances = boxes_from_instances
        indices = {category.name: category.semantic for category in taxonomy.semantic_categories}
        fill = None if background is None else indices.get(background)
        self._fill = IGNORE_INDEX if fill is None else fill
        self._semantic_of = np.array(taxonomy.detection_to_semantic, dtype=np.int64)
        # One more at the end, for -1.
        self._detection_of = np.array(
            [-1 if c.detection is None else c.detection for c in taxonomy.semantic_categories] + [-1], dtype=np.int64
        )
        self._derived_classes = torch.zeros(taxonomy.num_semantic, dtype=torch.bool)
        self._derived_classes[[int(c) for c in self._semantic_of if c >= 0]] = True
        if fill is not None:
            self._derived_classes[fill] = True

    @property
    def names_instances(self) -> bool:
        """Whether the class of an instance is known without a semantic map, because there is only one."""
        return self.taxonomy.num_detection == 1 and self._semantic_of[0] < 0

    def image(self, path: str, maps: Sequence[tuple[str, tuple[int, ...]]] = ()) -> Tensor:
        """Read an image that fits its maps.

        Args:
            path: Path of the image.
            maps: File and (height, width) of each map.

        Returns:
            uint8 [C, H, W].

        Raises:
            DataError: It cannot be read, or a map has another size.
        """
        if not maps:
            return read_image(path, channels=self.channels)
        file, size = maps[0]
        for other, other_size in maps[1:]:
            if other_size != size:
                raise DataError.at(
                    other,
                    f"it is {other_size[1]} x {other_size[0]}, but {file} is {size[1]} x {size[0]}",
                    advice="use the masks of one image",
                )
        return read_image_like(path, (size[0], size[1]), file, self.channels)

    def sample(
        self,
        path: str,
        image_id: int | str,
        boxes: Boxes | None,
        semantic: tuple[str, NDArray[np.uint8]] | None,
        instances: Instances | None,
        declared: tuple[str, tuple[int, int]] | None = None,
    ) -> Sample:
        """Join the parts of a sample.

        Args:
            path: Path of the image.
            image_id: Id of the image in the data set.
            boxes: The boxes; None if the image was not labelled for boxes.
            semantic: Path of the mask, and uint8 [H, W] of segmentation classes; None for none.
            instances: The instance map; None for none.
            declared: Where the (height, width) of the image is written, and what it is; None if it is not.

        Raises:
            DataError: A file cannot be read, the sizes differ, or a box is outside the image.
        """
        maps: list[tuple[str, tuple[int, ...]]] = [] if semantic is None else [(semantic[0], semantic[1].shape)]
        if instances is not None:
            maps.append((instances.path, instances.ids.shape))
        if declared is not None:
            maps.append(declared)
        image = self.image(path, maps)
        if boxes is not None:
            boxes = clip(boxes, (int(image.shape[1]), int(image.shape[2])), path)
        of_pixel: NDArray[np.int32] | None = None
        unknown: NDArray[np.bool_] | None = None
        if instances is not None and (boxes is not None or self.boxes_from_instances):
            numbers, ids = renumber(instances.ids)
            if len(ids) > MAX_INSTANCES:
                raise DataError.at(
                    instances.path,
                    f"it has {len(ids)} instances, more than {MAX_INSTANCES}",
                    advice="is it a map?",
                )
            rows, boxes = self._rows(instances, numbers, ids, None if semantic is None else semantic[1], boxes)
            # A crowd has no instance, but its pixels have a class.
            of_pixel = np.append(0, rows + 1).astype(np.int32)[numbers]
            unknown = (of_pixel == 0) & (numbers > 0)
        return self.finish(image, path, image_id, boxes, None if semantic is None else semantic[1], of_pixel, unknown)

    def finish(
        self,
        image: Tensor,
        path: str,
        image_id: int | str,
        boxes: Boxes | None,
        semantic: NDArray[np.uint8] | None,
        instances: NDArray[np.int32] | None,
        unknown: NDArray[np.bool_] | None = None,
    ) -> Sample:
        """Make the sample of parts that fit each other.

        Args:
            image: uint8 [3, H, W].
            path: Path of the image.
            image_id: Id of the image in the data set.
            boxes: Boxes inside the image; None if it was not labelled for boxes.
            semantic: uint8 [H, W] of segmentation classes; None for none.
            instances: int32 [H, W], the row of a box plus one, crowds included; None for none.
            unknown: bool [H, W]; pixels whose class cannot be derived; None for none.
        """
        given = semantic is not None
        if not given and self.semantic_from_instances and instances is not None and boxes is not None:
            classes = self._semantic_of[boxes.labels]
            semantic = semantic_from_instances(instances, classes, self._fill, boxes.boxes)
            if unknown is not None:
                semantic[unknown] = IGNORE_INDEX
        if instances is not None and boxes is not None and boxes.crowd.any():
            rows = np.arange(1, len(boxes.crowd) + 1, dtype=np.int32)
            instances = np.append(np.int32(0), np.where(boxes.crowd, np.int32(0), rows))[instances]
        supervision = Supervision.full(self.taxonomy, detection=boxes is not None, semantic=semantic is not None)
        if semantic is not None and not given:
            supervision = Supervision(supervision.detection, self._derived_classes.clone())
        empty: NDArray[Any] = np.zeros((0, 4))
        return make_sample(
            image,
            boxes=empty if boxes is None else boxes.boxes,
            labels=() if boxes is None else boxes.labels,
            crowd=() if boxes is None else boxes.crowd,
            semantic=semantic,
            instances=instances,
            supervision=supervision,
            image_id=image_id,
            path=path,
        )

    def _rows(
        self,
        instances: Instances,
        numbers: NDArray[np.int32],
        ids: NDArray[np.int32],
        semantic: NDArray[np.uint8] | None,
        boxes: Boxes | None,
    ) -> tuple[NDArray[np.int64], Boxes]:
        """Return the box row of each instance, -1 for none, and the boxes, derived if there were none."""
        tight = boxes_from_instances(numbers, len(ids))
        if instances.labels is not None:
            labels = np.array([instances.labels.get(int(value), -1) for value in ids], dtype=np.int64)
        elif semantic is not None and not self.names_instances:
            labels = self._detection_of[classes_from_semantic(numbers, len(ids), semantic)]
        else:
            labels = np.full(len(ids), 0 if self.taxonomy.num_detection == 1 else -1, dtype=np.int64)
        if boxes is not None:
            return match_boxes(tight, labels, boxes.boxes, boxes.labels, _LEAST_OVERLAP), boxes
        kept = labels >= 0
        crowd = np.array([int(value) in instances.crowd for value in ids], dtype=np.bool_)
        rows = np.where(kept, np.cumsum(kept) - 1, -1)
        return rows, Boxes(tight[kept], labels[kept], crowd[kept])


def clip(boxes: Boxes, size: tuple[int, int], path: str) -> Boxes:
    """Cut boxes at the borders of their image.

    Args:
        boxes: The boxes to cut.
        size: (height, width) of the image.
        path: Path of the image, for messages.

    Raises:
        DataError: A box is outside the image.
    """
    height, width = size
    cut = boxes.boxes.clip(0, np.array([width, height] * 2, dtype=np.float32))
    outside = np.flatnonzero((cut[:, 2:] <= cut[:, :2]).any(1))
    if len(outside):
        row = int(outside[0])
        where = f"box {row}" if boxes.where is None else boxes.where(row)
        raise DataError(f"{where}: it is outside the image {path} of {width} x {height}; correct or remove it")
    return boxes._replace(boxes=cut)


def joint_taxonomy(
    classes: Sequence[str],
    legend: Legend | None,
    semantic_from_instances: bool,
    background: str | None,
    place: str | PathLike[str] = "classes",
) -> Taxonomy:
    """Return the taxonomy of detection classes and the names of masks.

    Args:
        classes: Names of the detection classes, in order.
        legend: Names of the masks' values; names that are not among the classes are stuff. None for no masks.
        semantic_from_instances: Whether, without masks, the classes have pixels.
        background: Segmentation class of all other pixels in that case; None ignores them.
        place: Where the classes are given, for messages.

    Raises:
        DataError: The background is one of the classes, or there are more classes than a map can contain.
    """
    if background is not None and background in classes:
        raise DataError.at(
            "background", f"{background!r} is a detection class", advice="give `background` another name, or null"
        )
    if legend is not None:
        return make_taxonomy(
            place,
            things=classes,
            stuff=[name for name in legend.names if name not in classes],
            segmented=legend.names,
            colors=legend.colors,
        )
    stuff = [background] if semantic_from_instances and background is not None else []
    return make_taxonomy(
        place,
        things=classes,
        stuff=stuff,
        segmented=None if semantic_from_instances else (),
        colors=dict.fromkeys(stuff, (0, 0, 0)),
    )


def make_taxonomy(place: str | PathLike[str], **names: Any) -> Taxonomy:
    """Build a taxonomy from names in a file.

    Args:
        place: Path of the file, for messages.
        names: Arguments of :meth:`~ocrnet_pl.structures.Taxonomy.build`.

    Raises:
        DataError: There are more segmentation classes than a map can contain.
    """
    try:
        return Taxonomy.build(**names)
    except ValueError as error:
        raise DataError.at(place, str(error), advice="leave classes out, or train on the boxes only") from error


def check_options(
    *,
    classes: Sequence[str],
    masks: bool,
    names: bool,
    boxes: bool,
    instances: bool,
    boxes_from_instances: bool,
    semantic_from_instances: bool,
    source: str,
) -> None:
    """Check that the options of a source fit each other.

    Args:
        classes: Names of the detection classes.
        masks: Whether there are masks.
        names: Whether their values are named.
        boxes: Whether there are boxes.
        instances: Whether there are instance maps.
        boxes_from_instances: Value of the option of this name.
        semantic_from_instances: Value of the option of this name.
        source: Name of the source, for messages.

    Raises:
        DataError: They contradict each other.
    """
    problem: tuple[str, str, str] | None = None
    if not (masks or boxes or instances):
        problem = ("masks", "there are no labels of any kind", "set `masks`, `boxes` or `instances`")
    elif masks and not names:
        problem = ("semantic_names", "the values of the masks have no names", "name them, such as [background, cell]")
    elif names and not masks:
        problem = ("semantic_names", "there are no masks to name the values of", "set `masks`, or leave the names out")
    elif len(set(classes)) < len(classes):
        problem = ("classes", "a name occurs more than once", "remove it")
    elif (boxes or instances) and not classes:
        problem = ("classes", "boxes and instances need classes", "list the names of the detection classes")
    elif instances and not (boxes or boxes_from_instances):
        problem = ("instances", "instances need boxes", "set `boxes`, or `boxes_from_instances: true`")
    elif (boxes_from_instances or semantic_from_instances) and not instances:
        option = "boxes_from_instances" if boxes_from_instances else "semantic_from_instances"
        problem = (option, "there are no instance maps to derive from", "set `instances`, or leave the option out")
    if problem is not None:
        raise DataError.at(source, problem[1], field=problem[0], advice=problem[2])
