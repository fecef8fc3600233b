"""The common part of formats whose files list the shapes that were drawn on each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch
from numpy.typing import NDArray

from ocrnet_pl.data.readers.drawings import Drawings, Labels
from ocrnet_pl.data.readers.label_maps import read_image_like
from ocrnet_pl.data.readers.packed_masks import PackedMasks, paint
from ocrnet_pl.data.readers.sample_assembly import Boxes, clip, make_taxonomy
from ocrnet_pl.data.records import RawBoxes, make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import read_image, upright_size
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy


class DrawnSource(Source):
    """Images with drawn shapes: boxes, outlines and masks.

    Shapes of the detection classes are objects: an outline or a mask makes an instance and the box around it, a
    rectangle makes only a box. Shapes of other names make regions without objects. A pixel in several shapes belongs to
    the smallest; regions are below objects. Pixels of a box without a mask are ignored, and an image that has boxes but
    no masks at all is labelled for detection only.

    A subclass reads its files in the constructor and hands the shapes to :meth:`_use`.
    """

    root: str | PathLike[str]
    _fractions = False
    """Whether the boxes are fractions of the image's sides; there are no masks then."""

    def _use(
        self,
        drawings: Drawings,
        labels: Labels,
        *,
        folder: str | PathLike[str],
        semantic: bool,
        background: str | None,
        channels: int,
        place: str | PathLike[str],
    ) -> None:
        """Take the shapes of all images.

        Args:
            drawings: The shapes.
            labels: The labels that they may have.
            folder: Folder of the images.
            semantic: Whether semantic maps are made.
            background: Name of the segmentation class of the pixels in no shape; None ignores them.
            channels: Number of channels of the images.
            place: File or folder of the annotations, for messages.

        Raises:
            DataError: There is nothing to learn, or no semantic map can be made.
        """
        names, arrays = drawings.finish()
        if not len(arrays.names):
            raise DataError.at(place, "no image is labelled", advice="check the folder")
        if not names and not (labels.stuff and semantic):
            raise DataError.at(place, "no shape has a label", advice="check the folder, or name the `classes`")
        if background in names or background in labels.stuff:
            raise DataError.at(
                place, f"there is a label {background!r}", advice="give `background` another name, or null"
            )
        if semantic and len(arrays.kinds) and not arrays.kinds.any() and not len(arrays.regions):
            raise DataError.at(
                place,
                "all shapes are boxes, so no semantic map can be made",
                advice="set `semantic: false` to train on the boxes only",
            )
        stuff = [] if background is None else [background]
        self._taxonomy = make_taxonomy(
            place,
            things=names,
            stuff=[*stuff, *labels.stuff] if semantic else [],
            segmented=None if semantic else (),
            colors=dict.fromkeys(stuff, (0, 0, 0)),
        )
        self.semantic, self.channels = semantic, channels
        self._fill = 0 if background is not None else IGNORE_INDEX
        # Regions that are ignored come after the others.
        of_name = {category.name: category.semantic for category in self._taxonomy.semantic_categories}
        self._region_classes = [of_name.get(name) for name in labels.stuff] + [None] * len(labels.ignored)
        self._folder, self._field = os.fspath(folder), drawings.field
        self._arrays = arrays
        self._packed = PackedMasks(arrays.kinds, arrays.ends, arrays.masks)

    @property
    def taxonomy(self) -> Taxonomy:
        """The background and the regions as stuff, then the detection classes."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._arrays.names)

    def __getitem__(self, index: int) -> Sample:
        path = self.image_path(index)
        known = (int(self._arrays.sizes[index, 0]), int(self._arrays.sizes[index, 1]))
        if all(known):
            image = read_image_like(path, known, os.fsdecode(self._arrays.files[index]), self.channels)
        else:
            image = read_image(path, channels=self.channels)
        size = (int(image.shape[1]), int(image.shape[2]))
        rows = self._objects(index)
        kept = clip(self._boxes(index, rows, size), size, path)
        try:
            instances, semantic = self._draw(index, rows, size)
        except ValueError as error:
            raise DataError.at(
                os.fsdecode(self._arrays.files[index]),
                f"a mask is broken ({error})",
                field=os.fsdecode(self._arrays.places[index]),
            ) from error
        supervision = Supervision.full(self._taxonomy, semantic=semantic is not None)
        if self._arrays.known is not None:
            detection = torch.from_numpy(self._arrays.known[index].copy())
            supervision = Supervision(detection, supervision.semantic)
        return make_sample(
            image,
            boxes=kept.boxes,
            labels=kept.labels,
            crowd=kept.crowd,
            instances=instances,
            semantic=semantic,
            supervision=supervision,
            image_id=self.identity(index)[0],
            path=path,
        )

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return os.path.join(self._folder, os.fsdecode(self._arrays.names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's name without its ending, and its file."""
        return os.path.splitext(os.fsdecode(self._arrays.names[index]))[0], self.image_path(index)

    def files(self, index: int) -> Sequence[str]:
        """Return the path of the image; the annotations are read when the source is made."""
        return [self.image_path(index)]

    @property
    def sizes(self) -> NDArray[np.int32] | None:
        """The sizes, if the annotations give those of all images."""
        return self._arrays.sizes if self._arrays.sizes.all() else None

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) from the annotations, or else from the image's header."""
        height, width = (int(side) for side in self._arrays.sizes[index])
        return (height, width) if height and width else upright_size(self.image_path(index))

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes, cut at the image's borders."""
        size = self.image_size(index)
        return clip(self._boxes(index, self._objects(index), size), size, self.image_path(index)).boxes

    def raw_boxes(self, index: int) -> RawBoxes:
        """Return the boxes as they are in the file, including those without area."""
        rows = self._objects(index)
        empty = self._arrays.empty[self._arrays.empty_starts[index] : self._arrays.empty_starts[index + 1]]
        every = np.concatenate([rows, empty])
        place = os.fsdecode(self._arrays.places[index])
        size = self.image_size(index)
        masks = tuple(self._packed.whole_encoding(int(row), size) for row in every)
        return RawBoxes(
            image=self.image_path(index),
            file=os.fsdecode(self._arrays.files[index]),
            field=f"{place.replace('{', '(').replace('}', ')')}: {self._field}" if place else self._field,
            numbers=self._arrays.numbers[every],
            boxes=self._scaled(self._arrays.boxes[every], size).astype(np.float64),
            labels=self._arrays.labels[every],
            crowd=self._arrays.crowd[every],
            rows=np.concatenate([np.arange(len(rows)), np.full(len(empty), -1)]),
            masks=masks if any(mask is not None for mask in masks) else (),
        )

    def _objects(self, index: int) -> NDArray[np.int64]:
        """Return the rows of an image's objects that have an area."""
        return self._arrays.order[self._arrays.starts[index] : self._arrays.starts[index + 1]]

    def _scaled(self, boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        return boxes * np.array([size[1], size[0]] * 2, dtype=np.float32) if self._fractions else boxes

    def _boxes(self, index: int, rows: NDArray[np.int64], size: tuple[int, int]) -> Boxes:
        arrays = self._arrays

        def where(row: int) -> str:
            place, number = os.fsdecode(arrays.places[index]), int(arrays.numbers[rows[row]])
            field = self._field.format(number)
            return f"{os.fsdecode(arrays.files[index])}: {f'{place}: ' if place else ''}{field}"

        return Boxes(self._scaled(arrays.boxes[rows], size), arrays.labels[rows], arrays.crowd[rows], where)

    def _draw(
        self, index: int, rows: NDArray[np.int64], size: tuple[int, int]
    ) -> tuple[NDArray[np.int32] | None, NDArray[np.uint8] | None]:
        """Return the instance and the semantic map; None for what is unknown."""
        arrays = self._arrays
        regions = arrays.regions[arrays.region_starts[index] : arrays.region_starts[index + 1]]
        # The objects first, so that the numbers of the map are the rows of the boxes; regions get none, like crowds.
        every = np.concatenate([rows, regions])
        of_detection = self._taxonomy.detection_to_semantic
        named = [self._region_classes[-1 - int(label)] for label in arrays.labels[regions]]
        classes = [of_detection[int(label)] for label in arrays.labels[rows]]
        classes += [-1 if number is None else number for number in named]
        crowd = np.concatenate([arrays.crowd[rows], np.ones(len(regions), dtype=np.bool_)])
        windows = [self._packed.window(int(row), size) for row in every]
        return paint(windows, arrays.boxes[every], crowd, classes if self.semantic else None, size, self._fill)
