"""A folder of semantic PNGs in addition to other annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os.path import join

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.class_map import Legend
from ocrnet_pl.data.readers.file_names import NameFinder, with_nearest
from ocrnet_pl.data.readers.folder_index import FolderIndex, pack_names
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.suffixes import MASK_SUFFIXES
from ocrnet_pl.structures import IGNORE_INDEX, Taxonomy


class SemanticMasks:
    """The masks of a list of images, by their names without ending.

    Args:
        folder: Folder of the masks; masks of other images are ignored.
        legend: Meaning of the masks' values.
        taxonomy: Categories of the data set.
        images: Names of the images, relative to their folder.

    Raises:
        DataError: There is no such folder, or no image has a mask in it.
    """

    def __init__(self, folder: str, legend: Legend, taxonomy: Taxonomy, images: Sequence[str]) -> None:
        self._legend, self._taxonomy = legend, taxonomy
        listing = FolderIndex(folder, "semantic PNGs")
        self._root = str(listing.root)
        found = listing.by_stem(MASK_SUFFIXES)
        finder = NameFinder(found, self._root)
        stems = [finder.find(os.path.splitext(image)[0], folders=False) for image in images]
        names = ["" if stem is None else found[stem] for stem in stems]
        if not any(names):
            problem = f"no image has a mask of its name, such as {os.path.splitext(images[0])[0] + '.png'!r}"
            raise DataError.at(folder, with_nearest(problem, finder.nearest(os.path.splitext(images[0])[0])))
        self._names = np.array(pack_names(names))

    def path(self, index: int) -> str | None:
        """Return the file of an image's mask; None if it has none."""
        return join(self._root, os.fsdecode(self._names[index])) if self._names[index] else None

    def read(
        self, index: int, size: tuple[int, int], fill: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """Return the segmentation classes of an image; None if it has no mask.

        Args:
            index: Index of the image.
            size: (height, width) that the mask should have.
            fill: uint8 [H, W]; the classes of pixels that the mask ignores; None leaves them ignored.

        Raises:
            DataError: The mask cannot be read, has another size, or a value without a name.
        """
        path = self.path(index)
        if path is None:
            return None
        classes = self._legend.classes(path, self._taxonomy)
        if classes.shape != size:
            raise DataError.at(
                path,
                f"the mask is {classes.shape[1]} x {classes.shape[0]}, but its image is {size[1]} x {size[0]}",
                advice="use the masks of these images",
            )
        return classes if fill is None else np.where(classes == IGNORE_INDEX, fill, classes)
