"""COCO instances: one JSON file with boxes and, optionally, polygons or run-length encoded masks."""

from __future__ import annotations

from os import PathLike
from os.path import join
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.files import Fields, Folder, read_json, unique
from ocrnet_pl.data.images import read_image
from ocrnet_pl.data.sources.base import RawBoxes, Source, make_sample
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy

_NONE, _POLYGONS, _RLE = 0, 1, 2


class CocoInstances(Source):
    """COCO detection and instance segmentation.

    Detection classes are the JSON's categories in the order in which they stand there, whatever their ids. Boxes are
    taken from ``bbox``; those without area are dropped. Crowd segments become crowd rows without an instance id.

    A pixel that several masks cover belongs to the smallest of them, because the small object is nearly always the
    one in front, and because it would otherwise vanish.

    The semantic map is derived from the masks: a pixel has the class of its instance or crowd; pixels without a mask
    are background; pixels of a box that has no mask are ignored. An image that has boxes but not one mask is left
    without a map.

    Args:
        images: Folder of the images.
        annotations: The JSON file.
        semantic: Whether to derive semantic maps; without them the images are labelled for detection only.
        background: Name of the segmentation class of the pixels without a mask, at index 0; None ignores them.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing, a field is missing or wrong, an id is unknown, or a file name leaves the folder.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        annotations: str | PathLike[str],
        semantic: bool = True,
        background: str | None = "background",
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        images, annotations = join(root, images), join(root, annotations)
        self.semantic = semantic
        self.background = background if semantic else None
        self._fields = Fields(annotations)
        content = read_json(annotations)
        folder = Folder(images, "images")
        self._root = folder.root

        categories = self._fields.objects(content, "categories")
        category_ids = [self._fields.integer(c, f"categories[{i}]", "id") for i, c in enumerate(categories)]
        names = [self._fields.text(c, f"categories[{i}]", "name") for i, c in enumerate(categories)]
        if not names:
            raise self._fields.error("categories", "the list is empty")
        unique(category_ids, self._fields, "categories", "id")
        unique(names, self._fields, "categories", "name")
        if self.background in names:
            raise self._fields.error(
                "categories", f"one is named {background!r}", "give `background` another name, or null"
            )
        self._taxonomy = Taxonomy.build(
            things=names,
            stuff=[] if self.background is None else [self.background],
            segmented=None if semantic else (),
            colors={} if self.background is None else {self.background: (0, 0, 0)},
        )

        self._read_images(self._fields.objects(content, "images"), folder)
        self._read_annotations(self._fields.objects(content, "annotations"), category_ids)

    @property
    def taxonomy(self) -> Taxonomy:
        """The JSON's categories as things, and the background."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        height, width = (int(side) for side in self._sizes[index])
        path = str(self._root / self._names[index])
        image = read_image(path)
        if image.shape[1:] != (height, width):
            # Some tools write the size, and draw, before the EXIF rotation.
            image = read_image(path, exif=False)
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

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the size that the JSON names."""
        return int(self._sizes[index, 0]), int(self._sizes[index, 1])

    def image_boxes(self, index: int) -> NDArray[np.float32]:
        """Return the boxes of the JSON."""
        return self._boxes[self._order[self._starts[index] : self._starts[index + 1]]]

    def raw_boxes(self, index: int) -> RawBoxes:
        """Return the boxes of an image as they stand in the JSON, those without area included."""
        rows = self._order[self._starts[index] : self._starts[index + 1]]
        dropped = np.arange(*np.searchsorted(self._dropped_images, [index, index + 1]))
        height, width = (int(side) for side in self._sizes[index])
        boxes = np.concatenate([self._boxes[rows], self._dropped_boxes[dropped]]).astype(np.float64)
        return RawBoxes(
            image=str(self._root / self._names[index]),
            file=str(self._fields.path),
            field="annotations[{}].bbox",
            numbers=np.concatenate([self._numbers[rows], self._dropped_numbers[dropped]]),
            boxes=boxes,
            labels=np.concatenate([self._labels[rows], self._dropped_labels[dropped]]),
            crowd=np.concatenate([self._crowd[rows], np.zeros(len(dropped), dtype=np.bool_)]),
            rows=np.concatenate([np.arange(len(rows)), np.full(len(dropped), -1)]),
            masks=(*(self._encoding(int(row), (height, width)) for row in rows), *([None] * len(dropped))),
        )

    def _read_images(self, images: list[dict[str, Any]], folder: Folder) -> None:
        fields = self._fields
        if not images:
            raise fields.error("images", "the list is empty")
        self._ids: list[int | str] = []
        self._names: list[str] = []
        sizes: list[tuple[int, int]] = []
        for position, image in enumerate(images):
            where = f"images[{position}]"
            image_id = image.get("id")
            if not isinstance(image_id, int | str):
                raise fields.error(f"{where}.id", f"expected an integer or text, found {image_id!r:.60}")
            self._ids.append(image_id)
            self._names.append(folder.find(fields.text(image, where, "file_name"), fields, f"{where}.file_name"))
            sizes.append((fields.integer(image, where, "height", 1), fields.integer(image, where, "width", 1)))
        unique(self._ids, fields, "images", "id")
        self._sizes = np.array(sizes, dtype=np.int32)

    def _read_annotations(self, annotations: list[dict[str, Any]], category_ids: list[int]) -> None:
        """Keep the annotations as a few flat arrays.

        A list of dicts takes several times the memory, and every worker process would come to own a copy of it,
        because reading a Python object writes its reference count.
        """
        fields = self._fields
        image_rows = {image_id: row for row, image_id in enumerate(self._ids)}
        label_of = {category_id: label for label, category_id in enumerate(category_ids)}
        images: list[int] = []
        labels: list[int] = []
        boxes: list[list[float]] = []
        crowd: list[bool] = []
        kinds: list[int] = []
        numbers: list[int] = []
        dropped: list[tuple[int, int, int, list[float]]] = []
        ends = [0]
        blob = bytearray()
        for position, annotation in enumerate(annotations):
            where = f"annotations[{position}]"
            image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
            if not isinstance(image_id, int | str) or image_id not in image_rows:
                raise fields.error(f"{where}.image_id", f"there is no image {image_id!r:.60}")
            if not isinstance(category_id, int) or category_id not in label_of:
                raise fields.error(f"{where}.category_id", f"there is no category {category_id!r:.60}")
            x, y, width, height = fields.numbers(annotation, where, "bbox", 4)
            row = image_rows[image_id]
            if width <= 0 or height <= 0:
                dropped.append((row, label_of[category_id], position, [x, y, x + width, y + height]))
                continue
            kind, packed = self._pack(annotation.get("segmentation"), f"{where}.segmentation", row)
            images.append(row)
            labels.append(label_of[category_id])
            boxes.append([x, y, x + width, y + height])
            crowd.append(bool(annotation.get("iscrowd", 0)))
            kinds.append(kind)
            numbers.append(position)
            blob += packed
            ends.append(len(blob))
        self._labels = np.array(labels, dtype=np.int64)
        self._boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
        self._crowd = np.array(crowd, dtype=np.bool_)
        self._kinds = np.array(kinds, dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)
        self._blob = bytes(blob)
        self._numbers = np.array(numbers, dtype=np.int64)
        dropped.sort(key=lambda entry: entry[0])
        self._dropped_images = np.array([entry[0] for entry in dropped], dtype=np.int64)
        self._dropped_labels = np.array([entry[1] for entry in dropped], dtype=np.int64)
        self._dropped_numbers = np.array([entry[2] for entry in dropped], dtype=np.int64)
        self._dropped_boxes = np.array([entry[3] for entry in dropped], dtype=np.float32).reshape(-1, 4)
        image_of = np.array(images, dtype=np.int64)
        self._order = np.argsort(image_of, kind="stable")
        self._starts = np.searchsorted(image_of[self._order], np.arange(len(self._ids) + 1))
        if self.semantic and len(kinds) and not any(kinds):
            raise fields.error(
                "annotations",
                "no annotation has a segmentation, so no semantic map can be derived",
                "set `semantic: false` to train on the boxes alone",
            )

    def _pack(self, segmentation: Any, where: str, row: int) -> tuple[int, bytes]:
        """Turn a segmentation into its kind and bytes."""
        if not segmentation:
            return _NONE, b""
        if isinstance(segmentation, list):
            try:
                polygons = [np.array(polygon, dtype=np.float64) for polygon in segmentation]
            except (TypeError, ValueError) as error:
                raise self._fields.error(where, f"a polygon is not a list of numbers ({error})") from error
            for polygon in polygons:
                if polygon.ndim != 1 or len(polygon) % 2 or not np.isfinite(polygon).all():
                    raise self._fields.error(where, "a polygon is not a flat list of finite x, y pairs")
            # Two points enclose nothing, and the mask library would take four numbers for a box.
            polygons = [polygon for polygon in polygons if len(polygon) >= 6]
            if not polygons:
                return _NONE, b""
            lengths = np.array([len(polygons), *map(len, polygons)], dtype=np.float64)
            return _POLYGONS, np.concatenate([lengths, *polygons]).tobytes()
        height, width = (int(side) for side in self._sizes[row])
        if not isinstance(segmentation, dict) or "counts" not in segmentation:
            raise self._fields.error(where, "neither polygons nor a run-length encoding with `counts`")
        if segmentation.get("size") != [height, width]:
            raise self._fields.error(
                f"{where}.size", f"it is {segmentation.get('size')!r:.60}, but the image is [{height}, {width}]"
            )
        counts = segmentation["counts"]
        if isinstance(counts, str):
            return _RLE, counts.encode()
        from faster_coco_eval import mask as mask_api

        try:
            return _RLE, mask_api.segmToRle({"size": [height, width], "counts": counts}, width, height)["counts"]
        except (TypeError, ValueError, RuntimeError) as error:
            raise self._fields.error(f"{where}.counts", f"the run-length encoding is broken ({error})") from error

    def _encoding(self, row: int, size: tuple[int, int]) -> dict[str, Any] | None:
        """Return the mask of an annotation in the library's compressed form."""
        from faster_coco_eval import mask as mask_api

        packed = self._blob[self._ends[row] : self._ends[row + 1]]
        if self._kinds[row] == _NONE:
            return None
        if self._kinds[row] == _RLE:
            return {"size": list(size), "counts": packed}
        values = np.frombuffer(packed, dtype=np.float64)
        lengths, rest = values[1 : 1 + int(values[0])].astype(int), values[1 + int(values[0]) :]
        polygons = [polygon.tolist() for polygon in np.split(rest, np.cumsum(lengths)[:-1])]
        return dict(mask_api.merge(mask_api.frPyObjects(polygons, *size)))

    def _paint(
        self, rows: NDArray[np.int64], labels: NDArray[np.int64], crowd: NDArray[np.bool_], size: tuple[int, int]
    ) -> tuple[NDArray[np.int32] | None, NDArray[np.uint8] | None]:
        """Return the instance and the semantic map; None for what cannot be known."""
        from faster_coco_eval import mask as mask_api

        encodings = [self._encoding(int(row), size) for row in rows]
        if len(rows) and not any(encoding is not None for encoding in encodings):
            return None, None
        areas = [0 if encoding is None else int(mask_api.area(encoding)) for encoding in encodings]
        # Columns first in memory, as the decoded masks are.
        instances = np.zeros(size, dtype=np.int32, order="F")
        semantic = np.full(size, IGNORE_INDEX if self.background is None else 0, dtype=np.uint8, order="F")
        known = np.zeros(size, dtype=np.bool_, order="F")
        class_of = self._taxonomy.detection_to_semantic
        # Crowds lie below everything, then the large objects.
        for i in sorted(range(len(rows)), key=lambda i: (not crowd[i], -areas[i])):
            encoding = encodings[i]
            if encoding is None:
                continue
            left, top, width, height = (int(side) for side in np.ravel(mask_api.toBbox([encoding])))
            window = (slice(top, top + height), slice(left, left + width))
            mask = mask_api.decode(encoding)[window].astype(np.bool_)
            instances[window][mask] = 0 if crowd[i] else i + 1
            known[window][mask] = True
            if self.semantic:
                semantic[window][mask] = class_of[labels[i]]
        for i, encoding in enumerate(encodings):
            if encoding is None:
                x0, y0, x1, y1 = self._boxes[rows[i]]
                window = (slice(max(0, int(y0)), int(np.ceil(y1))), slice(max(0, int(x0)), int(np.ceil(x1))))
                semantic[window][~known[window]] = IGNORE_INDEX
        return instances, semantic if self.semantic else None
