"""COCO instances: one JSON file with boxes and, optionally, polygons or run-length encoded masks."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from os.path import isfile, join
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.class_map import Legend, SemanticNames
from ocrnet_pl.data.readers.coco_arrays import NO_MASK, CocoIndex
from ocrnet_pl.data.readers.coco_index import FLAT_ARRAYS, load_index, open_index
from ocrnet_pl.data.readers.crowd_share import tell_of_crowds
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.readers.json_fields import Fields, read_json
from ocrnet_pl.data.readers.packed_masks import PackedMasks, paint
from ocrnet_pl.data.readers.sample_assembly import joint_taxonomy
from ocrnet_pl.data.readers.semantic_masks import SemanticMasks
from ocrnet_pl.data.records import RawBoxes, make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy

_ARRAYS = ("ids", "names", *FLAT_ARRAYS)


class CocoInstances(Source):
    """COCO detection and instance segmentation.

    Detection classes are the JSON's categories in the order of the file, whatever their ids. Boxes are taken from
    ``bbox``, or around the mask where that is missing or has no area; boxes without area are dropped. Crowd segments,
    and objects marked with ``ignore``, become crowd rows without an instance id.

    A pixel that several masks cover belongs to the smallest of them, because the small object is nearly always in
    front, and because it would otherwise vanish.

    The semantic map is derived from the masks: a pixel has the class of its instance or crowd; pixels without a mask
    are background; pixels of a box that has no mask are ignored. An image that has boxes but no masks at all gets no
    map. With ``semantic_masks`` the map is read from a PNG instead.

    Args:
        images: Folder of the images.
        annotations: Path of the JSON file.
        semantic: Whether semantic maps are derived; without them the images are labelled for detection only.
        background: Name of the segmentation class of the pixels without a mask, at index 0; null ignores these pixels.
            It has no effect on semantic PNGs.
        semantic_masks: Folder of semantic PNGs with the names of the images; an image without one is not labelled for
            segmentation. Null derives the maps from the annotations.
        semantic_names: Names of the PNGs' values: a mapping, a list from 0, or a JSON of categories. Null instead of a
            name ignores the pixels; 255 is ignored unless it is named. Names that are not among the categories are
            stuff.
        fill_from_instances: Whether pixels that the PNG ignores get the class of their instance; for PNGs that contain
            only stuff.
        crowds: What annotations with ``iscrowd`` become: "crowds" are neither targets nor false alarms; "objects" are
            targets like any other, for tools that write every brush mask as a crowd.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.
        index_cache: Folder where the content of a large JSON is kept for later runs; null for the user's cache folder.

    Raises:
        DataError: A file is missing, a field is missing or wrong, an id is unknown, or a file name leaves the folder.
    """

    _labels_are_partial = False
    """Whether images may be labelled for some of the classes only."""

    _ids: Sequence[int | str]
    _names: Sequence[str]
    _sizes: NDArray[np.int32]
    _labels: NDArray[np.int64]
    _boxes: NDArray[np.float32]
    _crowd: NDArray[np.bool_]
    _kinds: NDArray[np.uint8]
    _ends: NDArray[np.int64]
    _masks: NDArray[np.uint8]
    _order: NDArray[np.int64]
    _starts: NDArray[np.int64]
    _empty: NDArray[np.int64]
    _empty_starts: NDArray[np.int64]

    def __init__(
        self,
        images: str | PathLike[str],
        annotations: str | PathLike[str],
        semantic: bool = True,
        background: str | None = "background",
        semantic_masks: str | PathLike[str] | None = None,
        semantic_names: SemanticNames | None = None,
        fill_from_instances: bool = False,
        crowds: Literal["crowds", "objects"] = "crowds",
        channels: int = 3,
        root: str | PathLike[str] = ".",
        index_cache: str | PathLike[str] | None = None,
    ) -> None:
        if crowds not in ("crowds", "objects"):
            raise ValueError(f"CocoInstances: crowds must be 'crowds' or 'objects', got {crowds!r}")
        self.root = root
        self.crowds = crowds
        self.channels = channels
        images, annotations = join(root, images), join(root, annotations)
        if (semantic_masks is None) != (semantic_names is None):
            raise DataError.at("CocoInstances", "`semantic_masks` and `semantic_names` are set together")
        if semantic_masks is not None and not semantic:
            raise DataError.at("CocoInstances", "`semantic: false` leaves out the masks", field="semantic_masks")
        if fill_from_instances and semantic_masks is None:
            raise DataError.at("CocoInstances", "there are no semantic masks to fill", field="fill_from_instances")
        self.semantic = semantic
        self.background = background if semantic and semantic_masks is None else None
        self.fill_from_instances = fill_from_instances
        self._fields = Fields(annotations)
        if not isfile(annotations):
            read_json(annotations)  # reports this before the images, which are often wrong only because of it
        folder = FolderIndex(images, "images")
        self._root = folder.root
        index = open_index(annotations, folder, self._fields, index_cache, self._labels_are_partial)
        names = index.category_names
        if self.background in names:
            raise self._fields.error(
                "categories", f"one is named {background!r}", "give `background` another name, or null"
            )
        legend = None if semantic_names is None else Legend(semantic_names, root=root)
        self._taxonomy = joint_taxonomy(names, legend, semantic, self.background, annotations)
        self._use(index)
        hidden = bool((index.crowd & ~index.ignored).any())
        advice = "set `crowds: objects` if each is one object" if hidden and crowds == "crowds" else "check `ignore`"
        tell_of_crowds(self._labels, self._crowd, names, annotations, advice)
        self._semantic_masks: SemanticMasks | None = None
        if semantic_masks is not None and legend is not None:
            self._semantic_masks = SemanticMasks(join(root, semantic_masks), legend, self._taxonomy, self._names)
        elif self.semantic and len(self._kinds) and not self._kinds.any():
            raise self._fields.error(
                "annotations",
                "no annotation has a segmentation, so no semantic map can be derived",
                "set `semantic: false` to train on the boxes only",
            )

    def _use(self, index: CocoIndex) -> None:
        self._index_file = index.file
        for name in _ARRAYS:
            setattr(self, f"_{name}", getattr(index, name))
        self._packed = PackedMasks(index.kinds, index.ends, index.masks)
        self._crowd = index.ignored | index.crowd if self.crowds == "crowds" else index.ignored

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with the index as a file name if there is one, so that nothing is copied."""
        mapped = () if self._index_file is None else {"_packed", *(f"_{name}" for name in _ARRAYS)}
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._index_file is not None:
            self._use(load_index(self._index_file))

    @property
    def taxonomy(self) -> Taxonomy:
        """The JSON's categories as things, and the background."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the JSON's id and the image file."""
        return self._ids[index], str(self._root / self._names[index])

    @property
    def sizes(self) -> NDArray[np.int32]:
        """The sizes, from the JSON."""
        return self._sizes

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the size from the JSON."""
        return int(self._sizes[index, 0]), int(self._sizes[index, 1])

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes of the JSON."""
        return self._boxes[self._order[self._starts[index] : self._starts[index + 1]]]

    def image_categories(self, index: int) -> NDArray[np.int64]:
        """Return the categories of the annotations, if the segmentation classes come from there as well."""
        if self._semantic_masks is not None:
            return super().image_categories(index)
        rows = self._order[self._starts[index] : self._starts[index + 1]]
        counted = ~self._crowd[rows] | (self.semantic & (self._kinds[rows] != NO_MASK))
        of_class = np.array([self._taxonomy.categories.index(c) for c in self._taxonomy.detection_categories])
        return np.unique(of_class[self._labels[rows[counted]]]) if counted.any() else np.zeros(0, dtype=np.int64)

    def raw_boxes(self, index: int) -> RawBoxes:
        """Return the boxes of an image as they are in the JSON, including those without area."""
        rows = self._order[self._starts[index] : self._starts[index + 1]]
        empty = self._empty[self._empty_starts[index] : self._empty_starts[index + 1]]
        every = np.concatenate([rows, empty])
        height, width = (int(side) for side in self._sizes[index])
        return RawBoxes(
            image=str(self._root / self._names[index]),
            file=str(self._fields.path),
            field="annotations[{}].bbox",
            numbers=every,
            boxes=self._boxes[every].astype(np.float64),
            labels=self._labels[every],
            crowd=self._crowd[every],
            rows=np.concatenate([np.arange(len(rows)), np.full(len(empty), -1)]),
            masks=tuple(self._packed.whole_encoding(int(row), (height, width)) for row in every),
        )

    def files(self, index: int) -> Sequence[str]:
        """Return the image's path and its semantic PNG's; the annotations are part of the source's identity."""
        mask = None if self._semantic_masks is None else self._semantic_masks.path(index)
        image = str(self._root / self._names[index])
        return (image,) if mask is None else (image, mask)

    def __getitem__(self, index: int) -> Sample:
        height, width = (int(side) for side in self._sizes[index])
        path = str(self._root / self._names[index])
        image = read_image(path, channels=self.channels)
        if image.shape[1:] != (height, width):
            # Some tools write the size, and draw, before the EXIF rotation.
            image = read_image(path, exif=False, channels=self.channels)
            if image.shape[1:] != (height, width):
                raise self._fields.error(
                    f"images[{index}]",
                    f"the size is {width} x {height}, but {path} is {image.shape[2]} x {image.shape[1]}",
                    "use the images that were annotated",
                )
        rows = self._order[self._starts[index] : self._starts[index + 1]]
        crowd = self._crowd[rows]
        labels = self._labels[rows]
        try:
            windows = [self._packed.window(int(row), (height, width)) for row in rows]
        except ValueError as error:
            raise self._fields.error(
                "annotations", f"a mask of image {self._ids[index]!r} is broken ({error})"
            ) from error
        # A category without a name among the semantic PNGs has no segmentation class.
        of_detection = self._taxonomy.detection_to_semantic
        classes = [of_detection[label] for label in labels] if self.semantic else None
        nothing = IGNORE_INDEX if self.background is None else 0
        instances, semantic = paint(windows, self._boxes[rows], crowd, classes, (height, width), nothing)
        if self._semantic_masks is not None:
            semantic = self._semantic_masks.read(index, (height, width), semantic if self.fill_from_instances else None)
        return make_sample(
            image,
            boxes=self._boxes[rows],
            labels=labels,
            crowd=crowd,
            instances=instances,
            semantic=semantic,
            supervision=Supervision.full(self._taxonomy, semantic=semantic is not None),
            image_id=self._ids[index],
            path=path,
        )
