"""The categories of a data set, from which every class count comes, and the segments that have one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from ocrnet_pl.colors import distinct_color
from ocrnet_pl.errors import UsageError

IGNORE_INDEX = 255
"""The value of a pixel without a label in every semantic map."""
MOST_SEMANTIC = IGNORE_INDEX
"""Largest number of segmentation classes."""


@dataclass(frozen=True)
class Category:
    """One category of a taxonomy.

    Attributes:
        name: Unique name.
        is_thing: Whether the category has countable instances.
        color: RGB, 0 to 255; categories that differ in it only are equal.
        detection: Index among the detection classes; None if the category has no boxes.
        semantic: Index among the segmentation classes; None if the category has no pixels.
    """

    name: str
    is_thing: bool
    color: tuple[int, int, int] = field(compare=False)
    detection: int | None
    semantic: int | None


class ChosenCategories(NamedTuple):
    """Some of the categories of a taxonomy.

    Attributes:
        positions: Their places among the categories.
        detection: Whether each detection class is one of them.
        semantic: Whether each segmentation class is one of them.
    """

    positions: set[int]
    detection: tuple[bool, ...]
    semantic: tuple[bool, ...]


@dataclass(frozen=True)
class Taxonomy:
    """The ordered categories of a data set; every class count comes from here.

    Attributes:
        categories: The categories in order; detection and semantic indices each run 0, 1, 2, ... without gaps.

    Raises:
        ValueError: A name occurs twice, an index has a gap, or there are more than 255 segmentation classes.
    """

    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        names = [category.name for category in self.categories]
        for name, count in Counter(names).items():
            if count > 1:
                raise ValueError(f"taxonomy: the category name {name!r} occurs more than once")
        for kind in ("detection", "semantic"):
            indices = [getattr(c, kind) for c in self.categories if getattr(c, kind) is not None]
            if sorted(indices) != list(range(len(indices))):
                text = f"{indices[:20]}"[:100]
                raise ValueError(f"taxonomy: the {kind} indices {text} are not 0 to {len(indices) - 1}")
        if self.num_semantic > MOST_SEMANTIC:
            raise ValueError(f"taxonomy: {self.num_semantic} segmentation classes, at most {MOST_SEMANTIC} fit")

    @classmethod
    def build(
        cls,
        things: Sequence[str] = (),
        stuff: Sequence[str] = (),
        *,
        detected: Iterable[str] | None = None,
        segmented: Iterable[str] | None = None,
        colors: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> Taxonomy:
        """Build a taxonomy from names, stuff first, so that a background class gets segmentation index 0.

        Args:
            things: Names of the countable categories.
            stuff: Names of the uncountable categories.
            detected: The names that have boxes; None for the things.
            segmented: The names that have pixels; None for all.
            colors: RGB by name; a category that is missing gets a distinct colour.

        Returns:
            The taxonomy, with indices in the given order.
        """
        names = [*stuff, *things]
        detected = set(things if detected is None else detected)
        segmented = set(names if segmented is None else segmented)
        categories: list[Category] = []
        next_detection = next_semantic = 0
        for position, name in enumerate(names):
            detection = semantic = None
            if name in detected:
                detection, next_detection = next_detection, next_detection + 1
            if name in segmented:
                semantic, next_semantic = next_semantic, next_semantic + 1
            color = (colors or {}).get(name, distinct_color(position))
            categories.append(Category(name, position >= len(stuff), color, detection, semantic))
        return cls(tuple(categories))

    @cached_property
    def detection_categories(self) -> tuple[Category, ...]:
        """The categories that have boxes, by detection index."""
        chosen = [c for c in self.categories if c.detection is not None]
        return tuple(sorted(chosen, key=lambda c: c.detection or 0))

    @cached_property
    def semantic_categories(self) -> tuple[Category, ...]:
        """The categories that have pixels, by segmentation index."""
        chosen = [c for c in self.categories if c.semantic is not None]
        return tuple(sorted(chosen, key=lambda c: c.semantic or 0))

    @property
    def num_detection(self) -> int:
        """The number of detection classes."""
        return len(self.detection_categories)

    @property
    def num_semantic(self) -> int:
        """The number of segmentation classes."""
        return len(self.semantic_categories)

    @cached_property
    def detection_to_semantic(self) -> tuple[int, ...]:
        """The segmentation class of each detection class, -1 if it has none."""
        return tuple(-1 if c.semantic is None else c.semantic for c in self.detection_categories)

    def choose(self, names: str | Iterable[str]) -> ChosenCategories:
        """Return categories by their names.

        Args:
            names: One name, or several.

        Raises:
            ValueError: There is no such category, or these are no names.
        """
        if not isinstance(names, Iterable):
            raise ValueError(f"classes: expected names of classes, got {names!r}")
        places = {category.name: position for position, category in enumerate(self.categories)}
        found = set()
        for name in [names] if isinstance(names, str) else names:
            if name not in places:
                known = ", ".join(places)
                raise ValueError(f"classes: there is no class {name!r}; the network knows {known:.300}")
            found.add(places[name])
        return ChosenCategories(
            found,
            tuple(position in found for position in self.positions_of_detection),
            tuple(position in found for position in self.positions_of_semantic),
        )

    @cached_property
    def positions_of_detection(self) -> tuple[int, ...]:
        """The place of each detection class among the categories."""
        return tuple(
            index
            for _, index in sorted((c.detection, i) for i, c in enumerate(self.categories) if c.detection is not None)
        )

    @cached_property
    def positions_of_semantic(self) -> tuple[int, ...]:
        """The place of each segmentation class among the categories."""
        return tuple(
            index
            for _, index in sorted((c.semantic, i) for i, c in enumerate(self.categories) if c.semantic is not None)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and dicts, for a checkpoint or JSON."""
        return {
            "categories": [
                {
                    "name": c.name,
                    "is_thing": c.is_thing,
                    "color": list(c.color),
                    "detection": c.detection,
                    "semantic": c.semantic,
                }
                for c in self.categories
            ]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Taxonomy:
        """Rebuild a taxonomy from :meth:`to_dict`.

        Raises:
            ValueError: An entry is missing or wrong.
        """
        try:
            return cls(tuple(_category(entry) for entry in data["categories"]))
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"taxonomy: an entry is missing or wrong ({error})") from error


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map.

    Attributes:
        id: Value of its pixels in the map, from 1.
        category: Index into ``taxonomy.categories``.
        score: Score of the segment, 0 to 1; 1 for stuff.
        area: Number of pixels.
        instance: Row of the prediction's boxes; None for stuff.
    """

    id: int
    category: int
    score: float
    area: int
    instance: int | None = None


def names_in(text: str) -> tuple[str, ...]:
    """Return the names of classes in a list that commas separate, without the spaces around them and empty ones.

    Raises:
        UsageError: There is no name; whoever leaves the list out gets all classes.
    """
    names = tuple(name for name in (part.strip() for part in text.split(",")) if name)
    if not names:
        raise UsageError(
            f"classes: expected names separated by commas, got {text!r:.100}; leave it out for all classes"
        )
    return names


def _category(entry: Mapping[str, Any]) -> Category:
    """Return a category from a file, which may contain anything."""
    name, color = entry["name"], tuple(entry["color"])
    if not isinstance(name, str) or not name:
        raise ValueError("taxonomy: a category has no name")
    if len(color) != 3 or not all(type(value) is int and 0 <= value < 256 for value in color):
        raise ValueError(f"taxonomy: the color of {name!r:.60} is not three numbers from 0 to 255")
    indices = entry["detection"], entry["semantic"]
    if not all(index is None or type(index) is int for index in indices):
        raise ValueError(f"taxonomy: an index of {name!r:.60} is not an integer")
    return Category(name, bool(entry["is_thing"]), (color[0], color[1], color[2]), *indices)
