"""COCO stuff and other masks of category indices: a class for every pixel, no boxes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from os.path import join

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.class_map import Legend, SemanticNames
from ocrnet_pl.data.readers.file_names import NameFinder, with_nearest
from ocrnet_pl.data.readers.folder_index import FolderIndex, pack_names
from ocrnet_pl.data.readers.sample_assembly import Assembler, make_taxonomy
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import check_image
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES, MASK_SUFFIXES
from ocrnet_pl.structures import Sample, Taxonomy


class CocoStuff(Source):
    """Semantic PNGs whose values are category ids, with the names of the images.

    No image is labelled for boxes, so in a joint run it does not train the detection decoder. Images without a mask are
    left out.

    Args:
        images: Folder of the images.
        masks: Folder of the PNGs.
        names: Names of the ids: a mapping, a list from 0, or a JSON of categories. Null instead of a name ignores the
            pixels; 255 is ignored unless it is named.
        offset: Number added to a pixel's value to get its id: 0 for the pixel maps of COCO stuff, 1 for its
            "stuffthingmaps".
        things: Names of countable categories, which are detection classes of the network; null for those that the JSON
            marks with ``isthing``.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing or malformed, a mask has no image, or a thing is not among the names.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        masks: str | PathLike[str],
        names: SemanticNames,
        offset: int = 0,
        things: Sequence[str] | None = None,
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        self._legend = Legend(names, "names", root=root, offset=offset)
        chosen = list(self._legend.things if things is None else things)
        for name in chosen:
            if name not in self._legend.names:
                raise DataError.at("CocoStuff", f"{name!r} is not among the names", field="things", advice="check it")
        self._taxonomy = make_taxonomy(
            join(root, names) if isinstance(names, str) else "names",
            things=[name for name in self._legend.names if name in chosen],
            stuff=[name for name in self._legend.names if name not in chosen],
            colors=self._legend.colors,
        )
        self._assembler = Assembler(self._taxonomy, background=None, semantic_from_instances=False, channels=channels)
        image_listing, mask_listing = FolderIndex(join(root, images), "images"), FolderIndex(join(root, masks), "masks")
        self._images, self._masks = str(image_listing.root), str(mask_listing.root)
        stems = image_listing.by_stem(IMAGE_SUFFIXES)
        found = mask_listing.by_stem(MASK_SUFFIXES)
        if not found:
            raise DataError.at(mask_listing.root, "there is no mask", advice="check the folder")
        finder = NameFinder(stems, self._images)
        kept: list[str] = []
        for stem, name in found.items():
            image = finder.find(stem, folders=False)
            if image is None:
                raise DataError.at(
                    mask_listing.root / name,
                    with_nearest(f"there is no image {stem!r} in {self._images}", finder.nearest(stem)),
                    advice="add the image, or remove the mask",
                )
            kept.append(stems[image])
        self._names = np.array(pack_names(kept))
        self._mask_names = np.array(pack_names(list(found.values())))

    @property
    def taxonomy(self) -> Taxonomy:
        """The names, stuff first."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        mask = self._mask_path(index)
        semantic = (mask, self._legend.classes(mask, self._taxonomy))
        image_id, path = self.identity(index)
        return self._assembler.sample(path, image_id, None, semantic, None)

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return join(self._images, os.fsdecode(self._names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's name without its ending, and its file."""
        return os.path.splitext(os.fsdecode(self._names[index]))[0], self.image_path(index)

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the image and of its mask."""
        return [self.image_path(index), self._mask_path(index)]

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the (height, width) from the header of the mask."""
        return check_image(self._mask_path(index))

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return no boxes."""
        return np.zeros((0, 4), dtype=np.float32)

    def _mask_path(self, index: int) -> str:
        return join(self._masks, os.fsdecode(self._mask_names[index]))
