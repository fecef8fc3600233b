"""What sources share whose images have boxes, masks and instance maps, whichever there are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.box_tables import BoxTable
from ocrnet_pl.data.readers.sample_assembly import Assembler, clip
from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.imaging.images import check_image, upright_size
from ocrnet_pl.structures import Taxonomy


class AssembledSource(Source):
    """A source that leaves it to an :class:`~ocrnet_pl.data.readers.sample_assembly.Assembler` to make its samples.

    Its constructor sets what is declared here.
    """

    _taxonomy: Taxonomy
    _assembler: Assembler
    _names: NDArray[np.bytes_]
    _boxes: BoxTable | None
    """The boxes of all images; None if there is no table of boxes."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The stuff of the masks, then the detection classes."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    @abstractmethod
    def image_path(self, index: int) -> str:
        """Return the image's file."""

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the image and of its maps."""
        return [self.image_path(index), *self._map_paths(index)]

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) from the header of a map, or else of the image."""
        maps = self._map_paths(index)
        return check_image(maps[0]) if maps else upright_size(self.image_path(index))

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes; only those of an instance map need decoding."""
        boxes = None if self._boxes is None else self._boxes.of(index)
        if boxes is not None:
            return clip(boxes, self.image_size(index), self.image_path(index)).boxes
        if self._assembler.boxes_from_instances and self._has_instances(index):
            return super().image_boxes(index)
        return np.zeros((0, 4), dtype=np.float32)

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return the boxes as they are in the table, including those without area; None if they are derived."""
        return None if self._boxes is None else self._boxes.raw(index, self.image_path(index))

    @abstractmethod
    def _map_paths(self, index: int) -> list[str]:
        """Return the paths of the image's maps."""

    @abstractmethod
    def _has_instances(self, index: int) -> bool:
        """Return whether one of the image's maps has objects."""
