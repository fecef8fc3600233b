"""What a validation found in each image, packed, so that figures of any choice of images can be computed from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.errors import DataError, one_line
from ocrnet_pl.metrics.errors.image_table import ClassSums
from ocrnet_pl.metrics.errors.record import ErrorAnalysis
from ocrnet_pl.metrics.matching import THRESHOLDS
from ocrnet_pl.storage.flat_arrays import Arrays, Texts, map_arrays, save_arrays
from ocrnet_pl.structures import Taxonomy

IMAGES = "images.safetensors"
"""Name of the file in the folder of a run."""
_FORMAT = "ocrnet_pl images 1"
_BITS = len(THRESHOLDS)
_MASK = np.uint64((1 << _BITS) - 1)


@dataclass(frozen=True)
class ImageFile:
    """What was found in each image, sorted by the images' ids.

    Attributes:
        taxonomy: The categories.
        ids: The id of each image, with its type; for images of the same id with their number.
        names: The file's name of each image.
        boxed: bool [I], whether boxes were compared in it.
        image: int32 [D], the image of each predicted box.
        labels: int32 [D], its class.
        scores: float32 [D], falling among the boxes of an image.
        hits: bool [D, T], where it is a hit, by IoU threshold.
        alarms: bool [D, T], where it is a false alarm.
        objects: Number of objects of each image and class, float64 [R, 1].
        pixels: Right, true and predicted pixels.
        segments: Sum of IoUs, and numbers of hits, false alarms and misses of segments.
    """

    taxonomy: Taxonomy
    ids: list[str]
    names: list[str]
    boxed: NDArray[np.bool_]
    image: NDArray[np.int32]
    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    hits: NDArray[np.bool_]
    alarms: NDArray[np.bool_]
    objects: ClassSums
    pixels: ClassSums
    segments: ClassSums


def write_images(path: Path, analysis: ErrorAnalysis) -> None:
    """Write the file.

    Args:
        path: Path of the file.
        analysis: The errors, of which the best predictions are stored.
    """
    table = analysis.images
    arrays: Arrays = {"boxed": table.boxed}
    for name, texts in (("ids", table.ids), ("names", [Path(each).name for each in table.names])):
        # A file's name may hold what is no text.
        packed = Texts.pack([text.encode(errors="replace").decode() for text in texts])
        arrays |= {name: packed.data, f"{name}_ends": packed.ends}
    empty = np.zeros(0, np.int32)
    arrays |= {"box_counts": empty, "box_labels": empty, "box_scores": np.zeros(0, np.float32), "box_bits": empty}
    arrays |= {"object_counts": empty, "object_labels": empty}
    if analysis.best in analysis.boxes:
        found = analysis.boxes[analysis.best]
        matched, errors = found.matched, found.errors
        # The thresholds of all areas are the lowest bits.
        bits = (matched.hits & _MASK) | (matched.alarms & _MASK) << np.uint64(_BITS)
        arrays |= {"box_counts": matched.counts, "box_labels": matched.labels.astype(np.int32)}
        arrays |= {"box_scores": matched.scores, "box_bits": bits.astype(np.int32)}
        arrays |= {"object_counts": errors.counts, "object_labels": errors.labels.astype(np.int32)}
    for name, sums in (("pixel", table.pixels), ("segment", table.segments)):
        arrays |= {f"{name}_images": sums.images, f"{name}_classes": sums.classes, f"{name}_sums": sums.values}
    save_arrays(path, arrays, {"format": _FORMAT, "taxonomy": json.dumps(analysis.taxonomy.to_dict())})


def read_images(folder: Path) -> ImageFile:
    """Read the file of a run.

    Args:
        folder: Folder of the run.

    Raises:
        DataError: There is no such file, or it is damaged.
    """
    path = folder / IMAGES
    if not path.is_file():
        raise DataError(
            f"{folder}: there is no {IMAGES}; `validate` and `test` write it into the folders of their runs, unless "
            "report.enabled is false"
        )
    try:
        arrays, metadata = map_arrays(path)
        if metadata.get("format") != _FORMAT:
            raise ValueError("it is of another version")
        return _read(arrays, Taxonomy.from_dict(json.loads(metadata["taxonomy"])))
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        text = one_line(error)
        raise DataError(f"{path}: the file is damaged ({text:.200}); run validate or test again") from error


def _read(arrays: Arrays, taxonomy: Taxonomy) -> ImageFile:
    boxed = arrays["boxed"].astype(bool)
    count = len(boxed)
    texts = {name: Texts(arrays[name], arrays[f"{name}_ends"]) for name in ("ids", "names")}
    for each in texts.values():
        each.check(count)
    names = texts["names"].unpack()
    ids = texts["ids"].unpack()
    order = np.array(sorted(range(count), key=lambda place: (ids[place], names[place])), dtype=np.int64)
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)

    rows = np.flatnonzero(boxed) if len(arrays["box_counts"]) else np.zeros(0, np.int64)
    image = place[np.repeat(rows, arrays["box_counts"])]
    of_object = place[np.repeat(rows, arrays["object_counts"])]
    classes = taxonomy.num_detection
    labels, bits = arrays["box_labels"], arrays["box_bits"].astype(np.int64)
    _same_lengths(image, labels, bits, arrays["box_scores"])
    _same_lengths(of_object, arrays["object_labels"])
    _within(labels, classes)
    _within(arrays["object_labels"], classes)
    cells, number = np.unique(of_object * max(classes, 1) + arrays["object_labels"], return_counts=True)
    objects = ClassSums(
        (cells // max(classes, 1)).astype(np.int32),
        (cells % max(classes, 1)).astype(np.int32),
        number[:, None].astype(np.float64),
    )
    shifts = np.arange(_BITS)
    sums = {}
    for name, width, most in (("pixel", 3, taxonomy.num_semantic), ("segment", 4, len(taxonomy.categories))):
        images, own, values = (arrays[f"{name}_{part}"] for part in ("images", "classes", "sums"))
        _same_lengths(images, own, values)
        _within(images, count)
        _within(own, most)
        if values.shape[1:] != (width,) or not np.isfinite(values).all():
            raise ValueError(f"{name}_sums")
        sums[name] = ClassSums(place[images].astype(np.int32), own, values)
    return ImageFile(
        taxonomy,
        [ids[row] for row in order],
        [names[row] for row in order],
        boxed[order],
        image.astype(np.int32),
        labels,
        arrays["box_scores"],
        (bits[:, None] >> shifts & 1).astype(bool),
        (bits[:, None] >> (shifts + _BITS) & 1).astype(bool),
        objects,
        sums["pixel"],
        sums["segment"],
    )


def _same_lengths(*arrays: NDArray[np.generic]) -> None:
    if len({len(each) for each in arrays}) > 1:
        raise ValueError("its arrays differ in length")


def _within(values: NDArray[np.generic], most: int) -> None:
    if values.size and (values.min() < 0 or values.max() >= most):
        raise ValueError("it names a class or an image that does not exist")
