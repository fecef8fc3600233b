"""COCO instances: one JSON file with boxes and, optionally, polygons or run-length encoded masks."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from os.path import isfile, join
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.class_map import Legend, SemanticNames
from ocrnet_pl.data.readers.coco_arrays import NO_MASK, POLYGONS, RLE, CocoIndex, check_runs
from ocrnet_pl.data.readers.coco_index import FLAT_ARRAYS, load_index, open_index
from ocrnet_pl.data.readers.json_fields import Fields, Folder, read_json
from ocrnet_pl.data.readers.sample_assembly import joint_taxonomy
from ocrnet_pl.data.readers.semantic_masks import SemanticMasks
from ocrnet_pl.data.readers.values import MOST
from ocrnet_pl.data.records import RawBoxes, make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import MAX_PIXELS, read_image
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy

_LONGEST_OUTLINE = 4e6
"""Largest length of the outlines of a mask, in pixels; that of the largest images is far shorter."""

_ARRAYS = ("ids", "names", *FLAT_ARRAYS)


class CocoInstances(Source):
    """COCO detection and instance segmentation.

    Detection classes are the JSON's categories in the order of the file, whatever their ids. Boxes are taken from
    ``bbox``; boxes without area are dropped. Crowd segments become crowd rows without an instance id.

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
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.
        index_cache: Folder where the content of a large JSON is kept for later runs; null for the user's cache folder.

    Raises:
        DataError: A file is missing, a field is missing or wrong, an id is unknown, or a file name leaves the folder.
    """

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
        channels: int = 3,
        root: str | PathLike[str] = ".",
        index_cache: str | PathLike[str] | None = None,
    ) -> None:
        self.root = root
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
        folder = Folder(images, "images")
        self._root = folder.root
        index = open_index(annotations, folder, self._fields, index_cache)
        names = index.category_names
        if self.background in names:
            raise self._fields.error(
                "categories", f"one is named {background!r}", "give `background` another name, or null"
            )
        legend = None if semantic_names is None else Legend(semantic_names, root=root)
        self._taxonomy = joint_taxonomy(names, legend, semantic, self.background, annotations)
        self._use(index)
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

    def __getstate__(self) -> dict[str, Any]:
        """Pickle with the index as a file name if there is one, so that nothing is copied."""
        mapped = () if self._index_file is None else {f"_{name}" for name in _ARRAYS}
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
            masks=tuple(self._whole_encoding(int(row), (height, width)) for row in every),
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
            instances, semantic = self._paint(rows, labels, crowd, (height, width))
        except ValueError as error:
            raise self._fields.error(
                "annotations", f"a mask of image {self._ids[index]!r} is broken ({error})"
            ) from error
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

    def _polygons(self, row: int) -> list[NDArray[np.float64]]:
        """Return the polygons of a mask, each [N, 2].

        Raises:
            ValueError: They are broken.
        """
        values = self._masks[self._ends[row] : self._ends[row + 1]].copy().view(np.float64)
        count = int(values[0]) if len(values) and 0 < values[0] < len(values) else len(values)
        lengths, points = values[1 : count + 1], values[count + 1 :]
        if not (lengths >= 6).all() or (lengths % 2).any() or lengths.sum() != len(points) or not len(points):
            raise ValueError("the outlines are damaged")
        polygons = [points.reshape(-1, 2)]
        if count > 1:
            polygons = np.split(polygons[0], np.cumsum(lengths[:-1].astype(int) // 2))
        # The mask library allocates memory for every pixel of an outline, also far outside of the image.
        low, high = float(points.min()), float(points.max())
        if not -MOST <= low <= high <= MOST:
            raise ValueError("an outline is far outside of the image")
        if (high - low) * len(points) > _LONGEST_OUTLINE:
            outline = sum(float(np.abs(part - np.roll(part, 1, axis=0)).max(1).sum()) for part in polygons)
            if outline > _LONGEST_OUTLINE:
                raise ValueError(f"the outline is {outline:.3g} pixels long")
        return polygons

    def _encoding(self, row: int, size: tuple[int, int]) -> dict[str, Any] | None:
        """Return the mask of an annotation in the library's compressed form.

        Raises:
            ValueError: It is broken.
        """
        if self._kinds[row] == NO_MASK:
            return None
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"no image of {size[1]} x {size[0]} can be read")
        if self._kinds[row] == RLE:
            counts = self._masks[self._ends[row] : self._ends[row + 1]].tobytes()
            check_runs(counts, size[0] * size[1])
            return {"size": list(size), "counts": counts}
        return _encode(self._polygons(row), size)

    def _whole_encoding(self, row: int, size: tuple[int, int]) -> dict[str, Any] | None:
        """Return the mask of an annotation; None for a broken one, which only matters where it is drawn."""
        try:
            return self._encoding(row, size)
        except ValueError:
            return None

    def _mask(self, row: int, size: tuple[int, int]) -> _Mask | None:
        """Draw the mask of an annotation, in the part of the image that it covers."""
        from faster_coco_eval import mask as mask_api

        if self._kinds[row] == NO_MASK:
            return None
        if self._kinds[row] == POLYGONS:
            polygons = self._polygons(row)
            corners = polygons[0] if len(polygons) == 1 else np.concatenate(polygons)
            low, high = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 1
            if (low >= 0).all() and (high <= (size[1], size[0])).all():
                # Moved by whole pixels it looks the same, and an image of the mask's size is much smaller to draw.
                shape = (int(high[1] - low[1]), int(high[0] - low[0]))
                drawn = mask_api.decode(_encode([polygon - low for polygon in polygons], shape))
                return _Mask(int(low[1]), int(low[0]), drawn.view(np.bool_))
        whole = self._encoding(row, size)
        left, top, width, height = (int(side) for side in np.ravel(mask_api.toBbox([whole])))
        return _Mask(top, left, mask_api.decode(whole)[top : top + height, left : left + width].astype(np.bool_))

    def _paint(
        self, rows: NDArray[np.int64], labels: NDArray[np.int64], crowd: NDArray[np.bool_], size: tuple[int, int]
    ) -> tuple[NDArray[np.int32] | None, NDArray[np.uint8] | None]:
        """Return the instance and the semantic map; None for what is unknown."""
        masks = [self._mask(int(row), size) for row in rows]
        if len(rows) and not any(mask is not None for mask in masks):
            return None, None
        areas = [0 if mask is None else np.count_nonzero(mask.pixels) for mask in masks]
        instances = np.zeros(size, dtype=np.int32)
        nothing = IGNORE_INDEX if self.background is None else 0
        semantic = np.full(size, nothing, dtype=np.uint8)
        # A category without a name among the semantic PNGs has no segmentation class.
        class_of = [IGNORE_INDEX if c < 0 else c for c in self._taxonomy.detection_to_semantic]
        # Crowds are below everything, then come the large objects.
        for i in sorted(range(len(rows)), key=lambda i: (not crowd[i], -areas[i])):
            mask = masks[i]
            if mask is None:
                continue
            height, width = mask.pixels.shape
            window = (slice(mask.top, mask.top + height), slice(mask.left, mask.left + width))
            np.copyto(instances[window], 0 if crowd[i] else i + 1, where=mask.pixels)
            if self.semantic:
                np.copyto(semantic[window], class_of[labels[i]], where=mask.pixels)
        if self.semantic:
            self._ignore_boxes(semantic, rows, masks)
        return instances, semantic if self.semantic else None

    def _ignore_boxes(
        self, semantic: NDArray[np.uint8], rows: NDArray[np.int64], masks: Sequence[_Mask | None]
    ) -> None:
        """Ignore the pixels of boxes without a mask, where no mask says what they are."""
        if not any(mask is None for mask in masks):
            return
        known = np.zeros(semantic.shape, dtype=np.bool_)
        for mask in masks:
            if mask is not None:
                height, width = mask.pixels.shape
                known[mask.top : mask.top + height, mask.left : mask.left + width] |= mask.pixels
        for row, mask in zip(rows, masks, strict=True):
            if mask is None:
                x0, y0, x1, y1 = self._boxes[row]
                window = (slice(max(0, int(y0)), int(np.ceil(y1))), slice(max(0, int(x0)), int(np.ceil(x1))))
                semantic[window][~known[window]] = IGNORE_INDEX


class _Mask(NamedTuple):
    """A mask in a part of the image; the arrays are in column order in memory."""

    top: int
    left: int
    pixels: NDArray[np.bool_]


def _encode(polygons: list[NDArray[np.float64]], size: tuple[int, int]) -> dict[str, Any]:
    from faster_coco_eval import mask as mask_api

    encodings = mask_api.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *size)
    return dict(encodings[0] if len(encodings) == 1 else mask_api.merge(encodings))
