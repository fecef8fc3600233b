"""The faults that a data set can have, and the list of those found."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import IO, Any, NamedTuple


class Level(IntEnum):
    """The severity of a finding; errors make the check fail."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


class _Text(NamedTuple):
    title: str
    level: Level
    meaning: str
    advice: str


class Kind(Enum):
    """A kind of fault: its title, its usual level, what it means, and what to do about it."""

    BOX_FORMAT = _Text(
        "Boxes in another format",
        Level.ERROR,
        "The numbers make sense in another box format than the one they are read in.",
        "Convert the annotations, or read them with the option for their format; --fix converts them.",
    )
    CATEGORIES = _Text(
        "Categories that differ",
        Level.ERROR,
        "The splits do not have the same categories in the same order, so a class would mean different things.",
        "Use one list of categories for all splits; --fix writes one.",
    )
    ONLY_CROWDS = _Text(
        "Objects that are crowds only",
        Level.ERROR,
        "Crowds are neither targets nor false alarms, so most objects, or all of a class, teach nothing.",
        "If each is one object, as in exports of brush masks, set `crowds: objects` (COCO) or `difficult: keep` (VOC).",
    )
    ONLY_VOID = _Text(
        "Pixels of one class only",
        Level.ERROR,
        "Only one class has pixels, and pixels with the value 255 are ignored: there is nothing to tell apart.",
        "Name the values of the masks, such as `semantic_names: {0: background, 255: object}`.",
    )
    MASKS_ELSEWHERE = _Text(
        "Masks that miss their boxes",
        Level.ERROR,
        "Most boxes overlap the bounds of their masks by less than half, so they are not of the same objects.",
        "Look at the pictures. Run-length encodings of COCO go down the columns, and their size is height, width.",
    )
    MASKS_DISAGREE = _Text(
        "Instance masks that differ from the map of classes",
        Level.WARNING,
        "Fused predictions take their pixels from the map of classes, so they cannot reach the instance masks.",
        "Draw both with the same precision, or derive one from the other.",
    )
    FIRST_PIXEL = _Text(
        "Boxes that are one pixel off",
        Level.WARNING,
        "The boxes fit the images better if their pixels are counted from 0 instead of 1, or the reverse.",
        "Set `first_pixel` of the source.",
    )
    UNKNOWN_ID = _Text(
        "Unknown ids",
        Level.ERROR,
        "An annotation names an image, a category or a segment that does not exist.",
        "Add what is missing, or remove the annotation.",
    )
    ANNOTATION_BROKEN = _Text(
        "Broken annotations",
        Level.ERROR,
        "The annotation file or one of its entries cannot be used; training would stop here.",
        "Correct the named field, or export the file again.",
    )
    IMAGE_MISSING = _Text(
        "Missing images",
        Level.ERROR,
        "An image is listed, but there is no such file in the folder of the images.",
        "Add the image, or remove its entry.",
    )
    IMAGE_UNREADABLE = _Text(
        "Unreadable images",
        Level.ERROR,
        "The file is truncated or is not an image.",
        "Download it again, or remove it; --fix leaves it out.",
    )
    SIZE = _Text(
        "Sizes that differ",
        Level.ERROR,
        "A mask, or the size in the annotation file, differs from that of the image.",
        "Use the images that were annotated; never resize images without their masks.",
    )
    MASK_SHIFTED = _Text(
        "Shifted masks",
        Level.ERROR,
        "All masks of the image are shifted from their boxes, by the same distance.",
        "Look for a crop or a padding that moved one of the two; --fix keeps the boxes without the masks.",
    )
    EXIF = _Text(
        "EXIF-rotated images",
        Level.ERROR,
        "The file says that it must be turned before it is shown, and the labels may belong to the unturned image.",
        "Save the image with turned pixels and without the tag, or turn the labels; --fix writes it as it was labelled "
        "where that is certain.",
    )
    BOX_DEGENERATE = _Text(
        "Degenerate boxes",
        Level.ERROR,
        "A side is zero or negative, not a number, or less than a pixel. Such a box is never trained on.",
        "Remove the box or draw it again; --fix drops it.",
    )
    BOX_OUTSIDE = _Text(
        "Boxes outside the image",
        Level.WARNING,
        "The box, or part of it, is outside the image.",
        "Check whether it belongs to another image or size; --fix clips it, or drops it if nothing is left.",
    )
    BOX_DUPLICATE = _Text(
        "Duplicated boxes",
        Level.WARNING,
        "One object has several boxes of the same class, so a correct detector would be counted wrong.",
        "Remove all but one; --fix does.",
    )
    BOX_EMPTY = _Text(
        "Boxes without pixels",
        Level.WARNING,
        "The box has no mask or no pixel of its class, though the image has a map of the classes.",
        "Add the mask, or remove the box.",
    )
    PIXELS_UNBOXED = _Text(
        "Pixels without a box",
        Level.WARNING,
        "Pixels of a class that has boxes are outside all boxes of the class.",
        "Add the box, or correct the mask.",
    )
    SAME_IMAGE = _Text(
        "The same image in two splits",
        Level.ERROR,
        "The figures on the second split are too good, because the image, or its exact copy, is also in the first.",
        "Remove it from one of them.",
    )
    SIMILAR_IMAGE = _Text(
        "Nearly the same image in two splits",
        Level.WARNING,
        "Two images differ only in compression, size or brightness, or were taken a moment apart.",
        "Keep such groups together in one split.",
    )
    FEW_EXAMPLES = _Text(
        "Classes with few examples",
        Level.WARNING,
        "The training set has too few examples of a class to learn it.",
        "Collect more, merge it with another class, or leave the class out.",
    )
    MANY_OBJECTS = _Text(
        "More objects than the network may return",
        Level.WARNING,
        "An image has more boxes than the decoder keeps per image, so the others are always missed.",
        "Raise the option if images to predict will have as many; a higher limit costs some time.",
    )
    WIDE_BOXES = _Text(
        "Boxes that are larger than the network can place",
        Level.WARNING,
        "At the network's input size a side is longer than twice the farthest distance of the decoder's bins.",
        "Set bins of model.detection to null or to more, or train at a smaller data.size.",
    )
    BOX_LOOSE = _Text(
        "Boxes that do not fit their masks",
        Level.NOTE,
        "The box and the bounds of the mask overlap by less than half.",
        "Draw the box around the mask; --fix does.",
    )
    SMALL_BOXES = _Text(
        "Boxes that the input size makes tiny",
        Level.NOTE,
        "At the network's input size the shorter side has less than 4 pixels.",
        "Train at a larger data.size, or on tiles of the images.",
    )
    IMAGE_REPEATED = _Text(
        "The same image twice in a split",
        Level.NOTE,
        "Exact copies count twice.",
        "Remove one of them, unless it is intended.",
    )
    NO_BOXES = _Text(
        "Images without boxes",
        Level.NOTE,
        "There is nothing to find in them; in training they show what is background.",
        "Fine if there is really nothing in them.",
    )
    NO_MAP = _Text(
        "Images without a map of classes",
        Level.NOTE,
        "They train detection only; the other images of the split train segmentation as well.",
        "Fine: what was not labelled gives no gradient.",
    )
    UNLABELLED = _Text(
        "Large unlabelled areas",
        Level.NOTE,
        "More than half of the pixels have no class. They are ignored in training and in the metrics.",
        "Fine if they were not meant to be labelled.",
    )
    GREYSCALE = _Text(
        "Images of another kind",
        Level.NOTE,
        "Most images of the split are color images, these are greyscale or CMYK, or the reverse. All are read as RGB.",
        "Fine unless color distinguishes classes.",
    )
    UNLISTED = _Text(
        "Images without annotation",
        Level.NOTE,
        "The image is in the folder of the images, but no split lists it.",
        "Annotate it, or ignore it.",
    )

    @property
    def title(self) -> str:
        """A few words, for headings."""
        return self.value.title

    @property
    def level(self) -> Level:
        """Its usual severity."""
        return self.value.level


@dataclass(frozen=True)
class Finding:
    """One fault at one place.

    Attributes:
        kind: What is wrong.
        split: ``train``, ``val`` or ``test``.
        message: The details, with the numbers.
        image: Path of the image file; empty for none.
        file: Path of the annotation file; empty for none.
        field: Position in the annotation file.
        index: Index of the image in the split, for a picture; -1 for none.
        box: xyxy in pixels, to be marked in the picture; None for none.
        other: Split and index of a second image, for the picture; None for none.
        level: The severity; None for the usual one of the kind.
    """

    kind: Kind
    split: str
    message: str
    image: str = ""
    file: str = ""
    field: str = ""
    index: int = -1
    box: tuple[float, float, float, float] | None = None
    other: tuple[str, int] | None = None
    level: Level | None = None

    @property
    def severity(self) -> Level:
        """Its severity."""
        return self.kind.level if self.level is None else self.level

    @property
    def place(self) -> str:
        """The annotation file and the field."""
        return ": ".join(part for part in (self.file, self.field) if part)


class FindingLog:
    """Counts findings, keeps the first of each kind, and writes all of them to a table.

    The memory is bounded, however many there are.

    Args:
        file: Open text file for the table.
        kept: Number of findings to keep of each kind and level.
    """

    def __init__(self, file: IO[str], kept: int = 60) -> None:
        self._writer = csv.writer(file)
        self._writer.writerow(["level", "kind", "split", "image", "annotations", "field", "message"])
        self._kept = kept
        self.counts: Counter[tuple[Kind, Level]] = Counter()
        self.splits: Counter[tuple[Kind, Level, str]] = Counter()
        self.first: dict[tuple[Kind, Level], list[Finding]] = {}

    def add(self, finding: Finding) -> None:
        """Add a finding."""
        key = (finding.kind, finding.severity)
        self.counts[key] += 1
        self.splits[(*key, finding.split)] += 1
        kept = self.first.setdefault(key, [])
        if len(kept) < self._kept:
            kept.append(finding)
        level, kind = finding.severity.name.lower(), finding.kind.name.lower()
        row: list[Any] = [level, kind, finding.split, finding.image, finding.file, finding.field, finding.message]
        self._writer.writerow(row)

    def total(self, level: Level) -> int:
        """Return the number of findings of a level."""
        return sum(count for (_, own), count in self.counts.items() if own == level)

    def groups(self) -> list[tuple[Kind, Level]]:
        """Return the kinds found, each with its level, the worst first."""
        order = list(Kind)
        return sorted(self.counts, key=lambda key: (-key[1], order.index(key[0])))


def shown_path(path: str) -> str:
    """Return a path relative to the working folder if it is inside it."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd())) if path else ""
    except (OSError, ValueError):
        return path
