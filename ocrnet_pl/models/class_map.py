"""Which classes of one taxonomy another one's classes start from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ocrnet_pl.errors import UsageError
from ocrnet_pl.models.base import ClassKind
from ocrnet_pl.structures import Category, Taxonomy

Names = Mapping[str, str | Sequence[str]]
"""The new names of old classes; an old class may go to several new ones, or to none."""


@dataclass(frozen=True)
class ClassMap:
    """The old classes that each new class starts from.

    Attributes:
        old: The categories that the weights were trained for.
        new: The categories of the network that takes them.
        parents: By the name of each new category, the old categories that it starts from; none for a new class.
    """

    old: Taxonomy
    new: Taxonomy
    parents: Mapping[str, tuple[str, ...]]

    @classmethod
    def make(cls, old: Taxonomy, new: Taxonomy, names: Names | None = None) -> ClassMap:
        """Relate two taxonomies by name.

        Each old class goes to the new class of its own name, unless ``names`` gives it another one or several.

        Args:
            old: The categories that the weights were trained for.
            new: The categories of the network that takes them.
            names: The new name, or several, of old categories.

        Raises:
            UsageError: A name is in neither of them; the closest valid one is named.
        """
        names = names or {}
        _check("class of the weights to start from", names, old)
        goes_to = targets(old, names)
        for name in names:
            _check("class in the data", goes_to[name], new)
        parents = {
            category.name: tuple(name for name, own in goes_to.items() if category.name in own)
            for category in new.categories
        }
        return cls(old, new, parents)

    def rows(self, kind: ClassKind) -> list[list[int]]:
        """Return for each new class of a kind the indices of the old classes that it starts from."""
        index = {category.name: getattr(category, kind) for category in self.old.categories}
        return [
            [index[name] for name in self.parents[category.name] if index[name] is not None]
            for category in classes(self.new, kind)
        ]

    def same(self, kind: ClassKind) -> bool:
        """Return whether the new classes of a kind are the old ones in the same order."""
        return self.rows(kind) == [[index] for index in range(len(classes(self.old, kind)))]


def classes(taxonomy: Taxonomy, kind: ClassKind) -> tuple[Category, ...]:
    """Return the categories of a kind, in the order of its indices."""
    return taxonomy.detection_categories if kind == "detection" else taxonomy.semantic_categories


def targets(old: Taxonomy, names: Names) -> dict[str, tuple[str, ...]]:
    """Return by the name of each old category the new names that it goes to."""
    found = {}
    for category in old.categories:
        given = names.get(category.name, category.name)
        found[category.name] = (given,) if isinstance(given, str) else tuple(given)
    return found


def keeping(old: Taxonomy, names: Names | None = None) -> Taxonomy:
    """Return the old categories that keep their own names, in their order.

    Args:
        old: The categories that the weights were trained for.
        names: The new name, or several, of old categories.

    Raises:
        UsageError: A name is not one of the old categories; the closest one is named.
    """
    _check("class of the weights to start from", names or {}, old)
    stay = {name for name, own in targets(old, names or {}).items() if name in own}
    kept = [category for category in old.categories if category.name in stay]
    places: dict[ClassKind, dict[str, int]] = {}
    kinds: tuple[ClassKind, ...] = ("detection", "semantic")
    for kind in kinds:
        ordered = [category.name for category in classes(old, kind) if category.name in stay]
        places[kind] = {name: place for place, name in enumerate(ordered)}
    return Taxonomy(
        tuple(
            replace(each, detection=places["detection"].get(each.name), semantic=places["semantic"].get(each.name))
            for each in kept
        )
    )


def _check(what: str, names: Iterable[str], taxonomy: Taxonomy) -> None:
    known = [category.name for category in taxonomy.categories]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            some = f"{', '.join(map(repr, known[:8]))}{', ...' if len(known) > 8 else ''}"
            hint = f"did you mean {near[0]!r}?" if near else f"there are {some}"
            raise UsageError(f"init_map: there is no {what} {name!r}; {hint}")
