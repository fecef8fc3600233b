"""Images with a PNG for each object or class."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from os import PathLike
from os.path import join

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.folder_index import FolderIndex, pack_names
from ocrnet_pl.data.readers.json_fields import Fields
from ocrnet_pl.data.readers.label_maps import MAX_INSTANCES, read_image_like
from ocrnet_pl.data.readers.packed_masks import MaskWindow, paint
from ocrnet_pl.data.readers.sample_assembly import make_taxonomy
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.label_studio import find_image, read_tasks
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.images import check_image, read_image
from ocrnet_pl.imaging.maps import read_map
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES, MASK_SUFFIXES
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy

_FIELDS = {"image": "(?P<image>{})", "class": "(?P<class>{})", "any": "(?:{})"}


class ObjectMasks(Source):
    """Masks of one object each, in files whose names say which image they belong to, and of which class they are.

    Every pixel above 0 belongs to the object; of a mask with transparency, every opaque one. A mask of a region that is
    no object, one per class and image, makes no instance. Masks without pixels are left out.

    The pattern describes the name of a mask relative to ``masks``, without its ending, in words and these fields:
    ``{image}``, the image's name without its ending, or its last part if that is unique; ``{class}``; and ``{any}``, of
    any length, but without a separator of folders. Some patterns:

    - ``{image}/masks/{any}``: a folder for each image, as in the Data Science Bowl of 2018;
    - ``{image}_{class}_{any}``: all masks in one folder;
    - ``task-{image}-annotation-{any}-by-{any}-tag-{class}-{any}``: the brush PNGs of Label Studio, with ``tasks``.

    Args:
        images: Folder of the images.
        masks: Folder of the masks; may be that of the images.
        pattern: Names of the masks.
        classes: Names of the detection classes, in order. Null for all names that are found, in alphabetical order;
            without ``{class}`` there must be one.
        stuff: Names of regions that have pixels, but are no objects.
        tasks: Path of Label Studio's JSON, which says what image has which number; null if ``{image}`` is a name.
        unmarked_are_empty: Whether an image without a mask has no objects; otherwise it is left out.
        semantic: Whether semantic maps are made of the masks.
        background: Name of the segmentation class of the pixels in no mask; null ignores them.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from; ``data.root`` on the command line.

    Raises:
        DataError: A folder is missing, the pattern fits no file, a mask has no image, or a class is unknown.
    """

    def __init__(
        self,
        images: str | PathLike[str],
        masks: str | PathLike[str],
        pattern: str,
        classes: Sequence[str] | None = None,
        stuff: Sequence[str] = (),
        tasks: str | PathLike[str] | None = None,
        unmarked_are_empty: bool = False,
        semantic: bool = True,
        background: str | None = "background",
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        expression = _compiled(pattern)
        names_class = "class" in expression.groupindex
        if not names_class and len(classes or ()) != 1:
            raise DataError.at("ObjectMasks", "the pattern has no {class}", field="classes", advice="give one name")
        pictures, listing = FolderIndex(join(root, images), "images"), FolderIndex(join(root, masks), "masks")
        matches = {
            name: match
            for name in listing.walk(MASK_SUFFIXES)
            if (match := expression.fullmatch(os.path.splitext(name)[0])) is not None
        }
        if not matches:
            example = next(iter(listing.walk(MASK_SUFFIXES)), "none")
            raise DataError.at(
                listing.root,
                f"no mask fits the pattern {pattern!r:.200}; one is {example!r:.200}",
                advice="correct `pattern`",
            )
        apart = {os.path.normpath(join(listing.root, name)) for name in matches}
        found = [
            name for name in pictures.walk(IMAGE_SUFFIXES) if os.path.normpath(join(pictures.root, name)) not in apart
        ]
        image_of = _by_task(join(root, tasks), pictures) if tasks is not None else _by_name(found)
        masks_of: dict[str, list[tuple[str, str]]] = {name: [] for name in found}
        for name, match in matches.items():
            image = image_of.get(match["image"])
            if image is None:
                raise DataError.at(
                    join(listing.root, name),
                    f"there is no image {match['image']!r:.200} in {pictures.root}, or several",
                    advice="correct `pattern`, or set `tasks`" if tasks is None else "export the tasks again",
                )
            label = match["class"] if names_class else (classes or ("",))[0]
            masks_of.setdefault(image, []).append((name, label))
        labels = sorted({label for own in masks_of.values() for _, label in own} - {*stuff})
        things = list(labels if classes is None else classes)
        unknown = next((label for label in labels if label not in things), None)
        if unknown is not None:
            where = next(name for own in masks_of.values() for name, label in own if label == unknown)
            raise DataError.at(
                join(listing.root, where),
                f"there is no class {unknown!r:.200}",
                advice="add it to `classes` or `stuff`",
            )
        names = [name for name, own in masks_of.items() if own or unmarked_are_empty]
        fill = [] if background is None else [background]
        if background is not None and background in (*things, *stuff):
            raise DataError.at("background", f"{background!r} is a class", advice="give it another name, or null")
        self._taxonomy = make_taxonomy(
            listing.root,
            things=things,
            stuff=[*fill, *stuff] if semantic else [],
            segmented=None if semantic else (),
            colors=dict.fromkeys(fill, (0, 0, 0)),
        )
        self.semantic, self.channels = semantic, channels
        self._fill = IGNORE_INDEX if background is None else 0
        self._images, self._mask_folder = str(pictures.root), str(listing.root)
        self._names = np.array(pack_names(names))
        rows = [row for name in names for row in masks_of[name]]
        self._starts = np.cumsum([0, *(len(masks_of[name]) for name in names)])
        self._masks = np.array(pack_names([name for name, _ in rows]) or [b""])
        place = {name: number for number, name in enumerate(things)} | {name: -1 - i for i, name in enumerate(stuff)}
        self._labels = np.array([place[label] for _, label in rows], dtype=np.int64)
        of_name = {category.name: category.semantic for category in self._taxonomy.semantic_categories}
        self._stuff_classes = [-1 if (own := of_name.get(name)) is None else own for name in stuff]

    @property
    def taxonomy(self) -> Taxonomy:
        """The background and the regions as stuff, then the detection classes."""
        return self._taxonomy

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        path, files = self.image_path(index), self._mask_files(index)
        labels = self._labels[self._starts[index] : self._starts[index + 1]]
        if np.count_nonzero(labels >= 0) > MAX_INSTANCES:
            raise DataError.at(
                path, f"it has {len(files)} masks, more than {MAX_INSTANCES}", advice="is the pattern right?"
            )
        size = check_image(files[0]) if files else None
        image = read_image(path, channels=self.channels)
        if size is not None:
            image = read_image_like(path, size, files[0], self.channels)
        height, width = int(image.shape[1]), int(image.shape[2])
        objects: list[tuple[MaskWindow, int]] = []
        regions: list[tuple[MaskWindow, int]] = []
        for file, label in zip(files, labels.tolist(), strict=True):
            window = _read_window(file, (height, width))
            if window is not None:
                (objects if label >= 0 else regions).append((window, label))
        of_detection = self._taxonomy.detection_to_semantic
        boxes = np.array([_box(window) for window, _ in objects], dtype=np.float32).reshape(-1, 4)
        # Regions come after the objects and get no instance, like crowds.
        every = np.concatenate([boxes, np.zeros((len(regions), 4), dtype=np.float32)])
        classes = [of_detection[label] for _, label in objects]
        classes += [self._stuff_classes[-1 - label] for _, label in regions]
        instances, semantic = paint(
            [window for window, _ in (*objects, *regions)],
            every,
            np.arange(len(every)) >= len(objects),
            classes if self.semantic else None,
            (height, width),
            self._fill,
        )
        return make_sample(
            image,
            boxes=boxes,
            labels=[label for _, label in objects],
            crowd=[False] * len(objects),
            instances=instances,
            semantic=semantic,
            supervision=Supervision.full(self._taxonomy, semantic=semantic is not None),
            image_id=self.identity(index)[0],
            path=path,
        )

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return join(self._images, os.fsdecode(self._names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's name without its ending, and its file."""
        return os.path.splitext(os.fsdecode(self._names[index]))[0], self.image_path(index)

    def files(self, index: int) -> Sequence[str]:
        """Return the paths of the image and of its masks."""
        return [self.image_path(index), *self._mask_files(index)]

    def _mask_files(self, index: int) -> list[str]:
        names = self._masks[self._starts[index] : self._starts[index + 1]]
        return [join(self._mask_folder, os.fsdecode(name)) for name in names]


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a pattern.

    Raises:
        DataError: It has no field for the image, or another one.
    """
    text = ""
    seen: set[str] = set()
    for part in re.split(r"(\{[^{}]*\})", pattern.replace("/", os.sep)):
        if not part.startswith("{"):
            text += re.escape(part)
            continue
        name = part[1:-1]
        if name not in _FIELDS or (name in seen and name != "any"):
            raise DataError.at(
                "ObjectMasks",
                f"{part!r} is no field of it, or stands there twice",
                field="pattern",
                advice="the fields are {image}, {class} and {any}",
            )
        seen.add(name)
        text += _FIELDS[name].format(".+" if name == "image" else f"[^{re.escape(os.sep)}]*?")
    if "image" not in seen:
        raise DataError.at("ObjectMasks", "it has no {image}", field="pattern", advice="write {image}_{any}")
    return re.compile(text)


def _by_name(names: Sequence[str]) -> dict[str, str]:
    """Return images by their name without ending, by its last part, and by the first folder, as far as these differ."""
    found = {os.path.splitext(name)[0]: name for name in names}
    for key in (os.path.basename, _folder_of):
        short: dict[str, list[str]] = {}
        for stem, name in list(found.items()):
            short.setdefault(key(stem), []).append(name)
        found = {stem: own[0] for stem, own in short.items() if stem and len(set(own)) == 1} | found
    return found


def _folder_of(stem: str) -> str:
    return stem.split(os.sep)[0] if os.sep in stem else ""


def _by_task(path: str, pictures: FolderIndex) -> dict[str, str]:
    fields = Fields(path)
    return {
        str(task.get("id")): find_image(task, None, pictures, fields, f"tasks[{number}]")
        for number, task in enumerate(read_tasks(path))
    }


def _read_window(file: str, size: tuple[int, int]) -> MaskWindow | None:
    """Return a mask in the part of the image that it covers; None if it has no pixels."""
    found = read_map(file)
    pixels = found.pixels
    if pixels.ndim == 3:
        opacity = pixels[..., -1] if pixels.shape[2] in (2, 4) else None
        # An opaque mask has its object in its colors.
        drawn = opacity > 0 if opacity is not None and not opacity.all() else pixels[..., :3].any(2)
    else:
        drawn = pixels > 0
    if drawn.shape != size:
        raise DataError.at(
            file,
            f"the mask is {drawn.shape[1]} x {drawn.shape[0]}, but its image is {size[1]} x {size[0]}",
            advice="use the masks of these images",
        )
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not len(rows):
        return None
    part: NDArray[np.bool_] = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return MaskWindow(int(rows[0]), int(columns[0]), part)


def _box(window: MaskWindow) -> tuple[int, int, int, int]:
    height, width = window.pixels.shape
    return window.left, window.top, window.left + width, window.top + height
