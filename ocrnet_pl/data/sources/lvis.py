"""LVIS: a COCO file in which each image is labelled for some of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from os.path import join
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ocrnet_pl.data.readers.json_fields import Fields, read_json
from ocrnet_pl.data.readers.values import as_whole, shown
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.structures import Sample, Supervision

_ABSENT, _PARTIAL = "neg_category_ids", "not_exhaustive_category_ids"


class Lvis(CocoInstances):
    """LVIS, and other COCO files with ``neg_category_ids`` and ``not_exhaustive_category_ids``.

    An image was labelled for the classes that have an object in it, and for those that it is said not to have. All
    other classes are unknown: neither their presence nor their absence is learned.

    Args:
        images: Folder of the images.
        annotations: Path of the JSON file.
        not_exhaustive: What a class is of which not all objects are marked: "ignore" makes it unknown in that image,
            "label" takes the marked ones as all.
        semantic: Whether the pixels of the objects have a class; all other pixels are ignored.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.
        index_cache: Folder where the content of a large JSON is kept for later runs; null for the user's cache folder.

    Raises:
        DataError: A file is missing, or a field is missing or wrong.
    """

    _labels_are_partial = True

    def __init__(
        self,
        images: str | PathLike[str],
        annotations: str | PathLike[str],
        not_exhaustive: Literal["ignore", "label"] = "ignore",
        semantic: bool = False,
        channels: int = 3,
        root: str | PathLike[str] = ".",
        index_cache: str | PathLike[str] | None = None,
    ) -> None:
        if not_exhaustive not in ("ignore", "label"):
            raise ValueError(f"Lvis: not_exhaustive must be 'ignore' or 'label', got {not_exhaustive!r}")
        super().__init__(
            images,
            annotations,
            semantic=semantic,
            background=None,
            channels=channels,
            root=root,
            index_cache=index_cache,
        )
        lists = _read_lists(join(root, annotations))
        fields = Fields(join(root, annotations))
        if all(entry.get(_ABSENT) is None for entry in lists["images"]):
            raise fields.error(
                f"images[0].{_ABSENT}", "no image has such a list", "use `CocoInstances`, if every class was labelled"
            )
        names = {category.name: label for label, category in enumerate(self.taxonomy.detection_categories)}
        label_of = {as_whole(entry.get("id")): names.get(str(entry.get("name"))) for entry in lists["categories"]}
        rows = {as_whole(entry.get("id")): place for place, entry in enumerate(lists["images"])}
        place_of = [rows.get(as_whole(image_id)) for image_id in self._ids]
        self._absent, self._absent_starts = _pack(lists["images"], place_of, _ABSENT, label_of, fields)
        key = _PARTIAL if not_exhaustive == "ignore" else ""
        self._partial, self._partial_starts = _pack(lists["images"], place_of, key, label_of, fields)

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        known = torch.zeros_like(sample.supervision.detection)
        known[sample.labels] = True
        known[torch.from_numpy(_part(self._absent, self._absent_starts, index))] = True
        known[torch.from_numpy(_part(self._partial, self._partial_starts, index))] = False
        return sample.replace(supervision=Supervision(known, sample.supervision.semantic))


def _read_lists(path: str) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of images and categories, of which the annotations are skipped where that is possible."""
    import msgspec

    from ocrnet_pl.storage.ordinary_files import read_bytes

    image = msgspec.defstruct("Image", [("id", Any), (_ABSENT, Any, None), (_PARTIAL, Any, None)])
    category = msgspec.defstruct("Category", [("id", Any), ("name", Any)])
    file = msgspec.defstruct("File", [("images", list[image]), ("categories", list[category])])  # type: ignore[valid-type]
    try:
        found: Any = msgspec.json.decode(read_bytes(path), type=file)
        return {key: [msgspec.structs.asdict(each) for each in getattr(found, key)] for key in ("images", "categories")}
    except (ValueError, msgspec.MsgspecError, RecursionError):
        content, fields = read_json(path), Fields(path)
        return {key: fields.objects(content, key) for key in ("images", "categories")}


def _pack(
    images: Sequence[dict[str, Any]],
    place_of: Sequence[int | None],
    key: str,
    label_of: dict[int | None, int | None],
    fields: Fields,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the classes that the images list under a key, and where each image's begin."""
    labels: list[int] = []
    starts = [0]
    for place in place_of:
        given = [] if place is None or not key else images[place].get(key) or []
        if not isinstance(given, list):
            raise fields.error(f"images[{place}].{key}", f"expected a list of ids, found {shown(given)}")
        for value in given:
            number = as_whole(value)
            if number is None or number not in label_of:
                raise fields.error(f"images[{place}].{key}", f"there is no category {shown(value)}")
            label = label_of[number]
            if label is not None:
                labels.append(label)
        starts.append(len(labels))
    return np.array(labels, dtype=np.int64), np.array(starts, dtype=np.int64)


def _part(values: NDArray[np.int64], starts: NDArray[np.int64], index: int) -> NDArray[np.int64]:
    return values[starts[index] : starts[index + 1]]
