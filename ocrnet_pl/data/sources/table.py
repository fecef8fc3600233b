"""A table, CSV or Parquet, that lists one image per row with the files of its labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from os import PathLike
from os.path import join
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.readers.box_tables import BoxTable, Others, boxes_by_cell, boxes_by_row
from ocrnet_pl.data.readers.class_map import Legend, SemanticNames, read_ids
from ocrnet_pl.data.readers.crowd_share import tell_of_crowds
from ocrnet_pl.data.readers.derived_labels import renumber
from ocrnet_pl.data.readers.file_names import NameFinder, with_nearest
from ocrnet_pl.data.readers.folder_index import FolderIndex, pack_names
from ocrnet_pl.data.readers.sample_assembly import Assembler, Instances, check_options, joint_taxonomy
from ocrnet_pl.data.readers.tables import TableFile, json_cell
from ocrnet_pl.data.readers.values import as_flag, shown
from ocrnet_pl.data.sources.assembled import AssembledSource
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import IGNORE_INDEX, Sample


class Table(AssembledSource):
    """Images listed in a table, each supervised by what its row names.

    Columns, of which only the first is required; an empty cell means that the image does not have that label:

    - ``image``: the image file;
    - ``semantic``: a mask of values or colors;
    - ``instances``: a map of any ids, 0 = none;
    - ``panoptic``: a PNG of segment ids (red + 256 green + 65536 blue, or values), 0 = void, and with it ``segments``:
      a JSON such as ``[{"id": 7, "label": "cat", "crowd": 0}]``;
    - ``boxes``: a JSON such as ``[{"box": [x1, y1, x2, y2], "label": "cat"}]``, in pixels; ``[]`` for no objects.

    Args:
        table: Path of the table; ``.parquet`` is read through pyarrow, anything else as CSV with a header.
        classes: Names of the detection classes, in order; empty for segmentation only.
        semantic_names: Names of the values or colors of the masks in ``semantic``, as in ``LabelledFolder``; with
            ``panoptic``, the names of the segmentation classes. Names that are not among the classes are stuff.
        boxes: A second table with one box per row instead of the column: image, x1, y1, x2, y2, label, optionally
            crowd; null for none.
        unlisted_are_empty: Whether an image that the second table does not name has no objects; otherwise it was not
            labelled for boxes.
        others: What boxes of classes that are not listed are: an "error", or "ignore" leaves them out.
        strict: Whether boxes that are all from 0 to 1, as fractions of the image's sides, raise an error; otherwise
            they are read as pixels.
        boxes_from_instances: Whether an image without boxes gets those of its instances or segments.
        semantic_from_instances: Whether an image without a mask gets one from its instances.
        background: Name of the segmentation class that pixels without an instance get in such a mask; null ignores
            them.
        channels: Number of channels of the images; three makes all RGB, any other number reads them as stored.
        root: Folder that the paths start from, those in the table included; ``data.root`` on the command line.

    Raises:
        DataError: A file is missing, a cell is wrong, a path leaves the root, or the options contradict each other.
    """

    def __init__(
        self,
        table: str | PathLike[str],
        classes: Sequence[str] = (),
        semantic_names: SemanticNames | None = None,
        boxes: str | PathLike[str] | None = None,
        unlisted_are_empty: bool = True,
        others: Others = "error",
        strict: bool = True,
        boxes_from_instances: bool = False,
        semantic_from_instances: bool = False,
        background: str | None = "background",
        channels: int = 3,
        root: str | PathLike[str] = ".",
    ) -> None:
        self.root = root
        self.strict = strict
        classes = list(classes)
        rows = TableFile(join(root, table))
        listing = FolderIndex(root, "files that the table lists")
        self._folder = str(listing.root)
        self._legend = None if semantic_names is None else Legend(semantic_names, root=root)
        self._names = self._paths(rows, listing, "image", required=True)
        self._masks = self._paths(rows, listing, "semantic")
        self._maps = self._paths(rows, listing, "instances")
        self._panoptic = self._paths(rows, listing, "panoptic")
        in_cells = rows.column("boxes", required=False) is not None
        if in_cells and boxes is not None:
            raise rows.error("the boxes are in another table as well", "leave one of them out", column="column 'boxes'")
        both = np.flatnonzero((self._panoptic != b"") & ((self._masks != b"") | (self._maps != b"")))
        if len(both):
            raise rows.error("a panoptic map already contains these labels", "leave one out", int(both[0]), "panoptic")
        has_panoptic = bool((self._panoptic != b"").any())
        check_options(
            classes=classes,
            masks=bool((self._masks != b"").any()) or has_panoptic,
            names=semantic_names is not None,
            boxes=in_cells or boxes is not None,
            # A panoptic map without boxes is fine: it then labels only the pixels.
            instances=bool((self._maps != b"").any()) or (has_panoptic and boxes_from_instances),
            boxes_from_instances=boxes_from_instances,
            semantic_from_instances=semantic_from_instances,
            source=rows.path,
        )
        self._taxonomy = joint_taxonomy(classes, self._legend, semantic_from_instances, background)
        self._assembler = Assembler(
            self._taxonomy,
            background=background,
            semantic_from_instances=semantic_from_instances,
            boxes_from_instances=boxes_from_instances,
            channels=channels,
        )
        self._read_segments(rows, has_panoptic)
        self._boxes = None
        if in_cells:
            self._boxes = boxes_by_cell(rows, classes, others, strict)
        elif boxes is not None:
            self._boxes = self._read_boxes(join(root, boxes), listing, classes, others)
            if unlisted_are_empty:
                self._boxes.listed[:] = True
        if self._boxes is not None:
            where = rows.path if boxes is None else join(root, boxes)
            tell_of_crowds(self._boxes.labels, self._boxes.crowd, classes, where, "check `crowd`")
        self._check_labels(rows, boxes_from_instances)

    def __getitem__(self, index: int) -> Sample:
        name = os.fsdecode(self._names[index])
        semantic: tuple[str, NDArray[np.uint8]] | None = None
        instances: Instances | None = None
        if self._masks[index] and self._legend is not None:
            path = join(self._folder, os.fsdecode(self._masks[index]))
            semantic = (path, self._legend.classes(path, self._taxonomy))
        if self._maps[index]:
            path = join(self._folder, os.fsdecode(self._maps[index]))
            instances = Instances(path, read_ids(path))
        if self._panoptic[index]:
            instances, classes = self._read_panoptic(index)
            semantic = (instances.path, classes)
        boxes = None if self._boxes is None else self._boxes.of(index)
        declared = None if self._boxes is None else self._boxes.size_of(index)
        return self._assembler.sample(self.image_path(index), name, boxes, semantic, instances, declared)

    def image_path(self, index: int) -> str:
        """Return the image's file."""
        return join(self._folder, os.fsdecode(self._names[index]))

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the image's path as it is in the table, and its file."""
        return os.fsdecode(self._names[index]), self.image_path(index)

    def _map_paths(self, index: int) -> list[str]:
        names = (self._masks[index], self._maps[index], self._panoptic[index])
        return [join(self._folder, os.fsdecode(name)) for name in names if name]

    def _has_instances(self, index: int) -> bool:
        return bool(self._maps[index] or self._panoptic[index])

    def _paths(
        self, rows: TableFile, listing: FolderIndex, column: str, *, required: bool = False
    ) -> NDArray[np.bytes_]:
        """Return the checked paths of a column, empty for an empty cell."""
        cells = rows.column(column, required=required)
        if cells is None:
            return np.zeros(len(rows), dtype="S1")
        names: list[str] = []
        for row, cell in enumerate(cells):
            if not required and (cell is None or cell == ""):
                names.append("")
                continue
            text = rows.text(cell, row, column)
            names.append(listing.find(text, partial(_fail, rows, row, column)))
        if required:
            seen: dict[str, int] = {}
            for row, name in enumerate(names):
                if seen.setdefault(name, row) != row:
                    raise rows.error(
                        f"{name!r:.200} is already in {rows.place(seen[name])}", "remove one of them", row, column
                    )
        return np.array(pack_names(names))

    def _read_boxes(self, path: str, listing: FolderIndex, classes: list[str], others: Others) -> BoxTable:
        table = TableFile(path)
        rows = {os.fsdecode(name): row for row, name in enumerate(self._names)}
        finder = NameFinder(rows, listing.root)

        def find(name: str, row: int) -> int:
            found = finder.find(name)
            if found is None:
                normal = listing.inside(name, lambda problem, advice: table.error(problem, advice, row, "image"))
                problem = with_nearest(f"the first table lists no image {normal!r:.200}", finder.nearest(normal))
                raise table.error(problem, "add it there", row, "image")
            return rows[found]

        return boxes_by_row(table, classes, len(rows), find, others, self.strict)

    def _read_segments(self, rows: TableFile, has_panoptic: bool) -> None:
        """Keep the segments of all rows as flat arrays."""
        starts, ids, classes, crowd = [0], [], [], []
        indices = {category.name: category.semantic for category in self._taxonomy.semantic_categories}
        cells = rows.column("segments") if has_panoptic else None
        for row in range(len(rows)):
            items = json_cell(rows, cells[row], row, "segments") if cells is not None else None
            if self._panoptic[row] and items is None:
                raise rows.error("a panoptic map needs its segments", "fill the cell", row, "segments")
            own: set[int] = set()
            for number, item in enumerate(items or ()):
                where = f"segments[{number}]"
                segment, label = item.get("id"), item.get("label")
                if not isinstance(segment, int) or not 0 < segment < 1 << 24 or segment in own:
                    raise rows.error(f"expected a unique id, found {shown(segment)}", "", row, f"{where}.id")
                if not isinstance(label, str) or label not in indices:
                    raise rows.error(
                        f"there is no class {shown(label)}", "add it to `semantic_names`", row, f"{where}.label"
                    )
                own.add(segment)
                ids.append(segment)
                classes.append(indices[label])
                is_crowd = as_flag(item.get("crowd"))
                if is_crowd is None:
                    raise rows.error(f"expected 0 or 1, found {shown(item.get('crowd'))}", "", row, f"{where}.crowd")
                crowd.append(is_crowd)
            starts.append(len(ids))
        self._starts = np.array(starts, dtype=np.int64)
        self._ids = np.array(ids, dtype=np.int64)
        self._classes = np.array(classes, dtype=np.uint8)
        self._crowd = np.array(crowd, dtype=np.bool_)

    def _read_panoptic(self, index: int) -> tuple[Instances, NDArray[np.uint8]]:
        """Return the things of a panoptic map as instances, and the semantic map."""
        path = join(self._folder, os.fsdecode(self._panoptic[index]))
        ids = read_ids(path)
        own = slice(int(self._starts[index]), int(self._starts[index + 1]))
        class_of: dict[int, Any] = dict(zip(self._ids[own].tolist(), self._classes[own].tolist(), strict=True))
        numbers, values = renumber(ids)
        unlisted = [int(value) for value in values if int(value) not in class_of]
        if unlisted:
            raise DataError.at(path, f"segment id {unlisted[0]} is not listed in the table", advice="add it there")
        classes = np.array([IGNORE_INDEX, *(class_of[int(value)] for value in values)], dtype=np.uint8)
        detection = [-1 if c.detection is None else c.detection for c in self._taxonomy.semantic_categories]
        labels = {segment: detection[number] for segment, number in class_of.items()}
        crowd = frozenset(self._ids[own][self._crowd[own]].tolist())
        things = np.array([0, *(value if labels[int(value)] >= 0 else 0 for value in values)], dtype=np.int32)
        return Instances(path, things[numbers], labels, crowd), classes[numbers]

    def _check_labels(self, rows: TableFile, boxes_from_instances: bool) -> None:
        has_mask, has_map = (self._masks != b"") | (self._panoptic != b""), self._maps != b""
        has_boxes = np.zeros(len(self), dtype=np.bool_) if self._boxes is None else self._boxes.listed
        without = np.flatnonzero(~has_mask & ~has_boxes & ~(has_map & boxes_from_instances))
        if len(without):
            raise rows.error("the image has no label", "label it, or remove the row", int(without[0]))
        vague = np.flatnonzero(has_map & ~has_boxes & ~has_mask)
        if len(vague) and self._taxonomy.num_detection > 1:
            raise rows.error(
                "the classes of its instances are unknown", "add a mask or boxes", int(vague[0]), "instances"
            )


def _fail(rows: TableFile, row: int, column: str, problem: str, advice: str) -> DataError:
    return rows.error(problem, advice, row, column)
