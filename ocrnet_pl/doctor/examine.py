"""Examining one image, in a loading process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ocrnet_pl.data.loading.lost_workers import TakenUp
from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.voc import PascalVoc
from ocrnet_pl.doctor.agreement import bounds_by_rows
from ocrnet_pl.doctor.box_formats import Evidence, weigh
from ocrnet_pl.doctor.boxes import box_faults
from ocrnet_pl.doctor.findings import Finding, Kind, Level
from ocrnet_pl.doctor.fingerprints import fingerprint
from ocrnet_pl.doctor.masks import mask_bounds, pixel_faults, shift, unboxed
from ocrnet_pl.doctor.orientation import header_of, rotation_fault
from ocrnet_pl.doctor.pixel_origin import edge_contrast
from ocrnet_pl.doctor.statistics import Measures, measure
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES
from ocrnet_pl.structures import Sample

_SIZE = re.compile(r"\b(?:the size is|the mask is|the map is|size \d+|\d+ x \d+, but)")
_FIELD = re.compile(r"((?:images|annotations|categories)[\w.\[\]]*): ")
_UNKNOWN = re.compile(r"there is no (?:category|class|image \d|image ')|is not listed in|unknown (?:id|class|category)")


@dataclass(frozen=True)
class Split:
    """A source under examination.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        source: Source of the samples.
        renamed: The annotation file that the source reads, and the original file; None if they are the same.
        numbers: Positions in the original file of the entries in the file that is read; None if they are the same.
        refused: Number of entries of the annotation file that its reader refuses.
    """

    name: str
    source: Source
    renamed: tuple[str, str] | None = None
    numbers: NDArray[np.int64] | None = None
    refused: int = 0

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return an image's boxes as stored, with their positions in the original file."""
        raw = self.source.raw_boxes(index)
        if raw is None or self.renamed is None or self.numbers is None:
            return raw
        return replace(raw, file=self.renamed[1], numbers=self.numbers[raw.numbers])

    def message(self, error: DataError) -> str:
        """Return an error's text, with the original file's name."""
        return str(error) if self.renamed is None else str(error).replace(*self.renamed)


@dataclass(frozen=True)
class Record:
    """The result of examining one image; small, because it is sent between processes.

    Attributes:
        index: Index in its split.
        path: Path of the image file.
        measures: Measures for the statistics; None if the image cannot be read.
        findings: The faults.
        evidence: Evidence on the box format; None if the image cannot be read.
        digest: Hash of the file.
        thumbnail: uint8 [32, 32].
        mode: Kind of pixels in the file.
        by_rows: Overlaps of boxes with their masks if the masks' runs went along the rows; None where they fit.
        edges: Contrast at the boxes' edges (:func:`~ocrnet_pl.doctor.pixel_origin.edge_contrast`) for VOC; None for
            another format.
    """

    index: int
    path: str
    measures: Measures | None
    findings: list[Finding]
    evidence: Evidence | None = None
    digest: bytes = b""
    thumbnail: NDArray[np.uint8] | None = None
    mode: str = ""
    by_rows: NDArray[np.float64] | None = None
    edges: NDArray[np.float64] | None = None


def as_raw(sample: Sample) -> RawBoxes:
    """Return a sample's own boxes as if they were stored in a file."""
    count = len(sample.boxes)
    return RawBoxes(
        image=sample.path,
        file="",
        field="box {}",
        numbers=np.arange(count),
        boxes=sample.boxes.as_subclass(Tensor).numpy().astype(np.float64),
        labels=sample.labels.numpy(),
        crowd=sample.crowd.numpy(),
        rows=np.arange(count),
    )


def kind_of(message: str) -> Kind:
    """Return the kind of a reader's error on annotations, from its text."""
    if _SIZE.search(message):
        return Kind.SIZE
    return Kind.UNKNOWN_ID if _UNKNOWN.search(message) else Kind.ANNOTATION_BROKEN


class Examiner(Dataset[Record]):
    """Examines the images of a split, one at a time.

    Args:
        split: The split.
        input_size: (height, width) of the network's input.

    Attributes:
        taken_up: Where loading processes record what they read; None without such processes.
    """

    def __init__(self, split: Split, input_size: Size) -> None:
        self.split = split
        self.input_size = input_size
        self.taken_up: TakenUp | None = None

    def __len__(self) -> int:
        return len(self.split.source)

    def __getitem__(self, index: int) -> Record:
        if self.taken_up is not None:
            self.taken_up.note(index)
        try:
            sample = self.split.source[index]
        except DataError as error:
            return self._unreadable(index, error)
        path, taxonomy = sample.path, self.split.source.taxonomy
        raw = self.split.raw_boxes(index) or as_raw(sample)
        bounds = mask_bounds(raw, sample)
        findings = list(self._findings(index, sample, raw, bounds))
        digest, thumbnail = fingerprint(sample.image.as_subclass(Tensor), path)
        header = header_of(path)
        if header is not None and (fault := rotation_fault(sample, raw.boxes, header)) is not None:
            findings.append(self._finding(Kind.EXIF, index, raw, fault[0], level=fault[1]))
        evidence = weigh(raw.boxes[~raw.crowd], sample.size, bounds[~raw.crowd])
        return Record(
            index,
            path,
            measure(sample, taxonomy, self.input_size),
            findings,
            evidence,
            digest,
            thumbnail,
            "" if header is None else header.mode,
            bounds_by_rows(raw, bounds) if evidence.loose and raw.masks else None,
            edge_contrast(sample.image, raw.boxes) if isinstance(self.split.source, PascalVoc) else None,
        )

    def _finding(self, kind: Kind, index: int, raw: RawBoxes, message: str, **more: Any) -> Finding:
        return Finding(kind, self.split.name, message, image=raw.image, index=index, **more)

    def _findings(self, index: int, sample: Sample, raw: RawBoxes, bounds: NDArray[np.float64]) -> Iterator[Finding]:
        taxonomy = self.split.source.taxonomy
        moved = shift(raw, bounds, sample, taxonomy)
        faults = list(box_faults(raw, sample.size))
        if moved is None:
            faulty = {row for _, row, _, level in faults if level is not Level.NOTE}
            faults += [fault for fault in pixel_faults(raw, bounds, sample, taxonomy) if fault[1] not in faulty]
        for kind, row, message, level in faults:
            place = raw.field.format(raw.numbers[row])
            x0, y0, x1, y1 = (float(value) for value in raw.boxes[row])
            box = (x0, y0, x1, y1) if np.isfinite(raw.boxes[row]).all() else None
            yield self._finding(kind, index, raw, message, file=raw.file, field=place, box=box, level=level)
        if moved is not None:
            text = f"the masks are {moved[0]:+.3g} pixels in x and {moved[1]:+.3g} in y from their boxes"
            yield self._finding(Kind.MASK_SHIFTED, index, raw, text, file=raw.file)
        else:
            for own, count, (x0, y0, x1, y1) in unboxed(raw, sample, taxonomy):
                name = taxonomy.semantic_categories[own].name
                text = f"{count} pixels of {name!r} are in no box of the class"
                yield self._finding(Kind.PIXELS_UNBOXED, index, raw, text, file=raw.file, box=(x0, y0, x1, y1))
        yield from self._notes(index, sample, raw)

    def _notes(self, index: int, sample: Sample, raw: RawBoxes) -> Iterator[Finding]:
        supervision = sample.supervision
        if not len(sample.boxes) and bool(supervision.detection.any()):
            yield self._finding(Kind.NO_BOXES, index, raw, "it has no boxes", file=raw.file)
        if sample.semantic is not None:
            share = float((sample.semantic == 255).float().mean())
            if share > 0.5:
                yield self._finding(Kind.UNLABELLED, index, raw, f"{share:.0%} of the pixels have no class")

    def _unreadable(self, index: int, error: DataError) -> Record:
        message = self.split.message(error)
        try:
            raw = self.split.raw_boxes(index)
        except (DataError, ValueError):
            raw = None
        first, _, rest = message.partition(": ")
        image = raw.image if raw is not None else first if Path(first).suffix.lower() in IMAGE_SUFFIXES else ""
        kind, digest, thumbnail = kind_of(message), b"", None
        if image:
            try:
                # The labels are at fault, not the image: it can still be compared with those of the other splits.
                digest, thumbnail = fingerprint(read_image(image), image)
            except DataError:
                kind = Kind.IMAGE_UNREADABLE
        file = "" if first == image else first
        field = match.group(1) if (match := _FIELD.match(rest)) else ""
        rest = rest[len(field) + 2 :] if field else rest
        if image:
            # The path is shown next to the message.
            rest = rest.replace(image, "the image")
        finding = Finding(kind, self.split.name, rest or message, image=image, file=file, field=field, index=index)
        return Record(index, image, None, [finding], None, digest, thumbnail)
