"""Another source's categories renamed, merged, ignored or dropped, by name."""

from __future__ import annotations

from collections.abc import Sequence

from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.wrappers.base import check_names
from ocrnet_pl.data.sources.wrappers.relabelled import Relabelled
from ocrnet_pl.data.sources.wrappers.taxonomy_mapping import Relabelling
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Category, Taxonomy


class Remapped(Relabelled):
    """Another source with other categories.

    Categories that no option names do not change. A merged category takes the place of its first member. Under the name
    of an existing category it has the kind of that category: things merged into a stuff category lose their boxes.

    Args:
        source: Source of the samples.
        merge: The old names that each new name combines; null for none.
        rename: The new name of each old name; null for none.
        ignore: Old names whose pixels become 255 and whose boxes become crowds: neither targets nor false alarms.
        drop: Old names whose boxes are removed, so that there is nothing to find, and whose pixels become 255.

    Raises:
        DataError: A name is unknown (the closest is named) or occurs in two places, two categories get the same name,
            nothing is left, or a merge combines things with stuff or classes with boxes (pixels) and without.
    """

    def __init__(
        self,
        source: Source,
        merge: dict[str, list[str]] | None = None,
        rename: dict[str, str] | None = None,
        ignore: Sequence[str] = (),
        drop: Sequence[str] = (),
    ) -> None:
        super().__init__(source)
        merge, rename = merge or {}, rename or {}
        old = source.taxonomy
        known = {category.name: category for category in old.categories}
        options = [(f"merge: {new}", list(names)) for new, names in merge.items()]
        options += [("rename", list(rename)), ("ignore", list(ignore)), ("drop", list(drop))]
        used: dict[str, str] = {}
        for option, names in options:
            check_names(f"Remapped: {option}", "category", names, known)
            for name in names:
                if name in used:
                    raise DataError(f"Remapped: {option}: category {name!r} is also in {used[name]!r}; choose one")
                used[name] = option

        self._names = {name: name for name in known if name not in ignore and name not in drop} | rename
        kinds: dict[str, Category] = {}
        for new, names in merge.items():
            if not names:
                raise DataError(f"Remapped: merge: {new}: there is nothing to merge; name the categories")
            if new in known and new not in names:
                raise DataError(
                    f"Remapped: merge: {new}: a category of that name exists; list it, or choose another name"
                )
            kinds[new] = known[new] if new in known else _common(new, [known[name] for name in known if name in names])
            self._names |= dict.fromkeys(names, new)
        self._taxonomy = self._build(old, kinds)
        self._relabel = Relabelling(old, self._taxonomy, self._names, frozenset(ignore))

    @property
    def taxonomy(self) -> Taxonomy:
        """The new categories, in the old order."""
        return self._taxonomy

    def _build(self, old: Taxonomy, kinds: dict[str, Category]) -> Taxonomy:
        """Return the new taxonomy, with its classes in the order of the first old class that each is made of."""
        first: dict[str, Category] = {}
        for category in old.categories:
            new = self._names.get(category.name)
            if new is None:
                continue
            if new in first and new not in kinds:
                raise DataError(
                    f"Remapped: rename: {category.name!r} and {first[new].name!r} would both be {new!r}; use merge"
                )
            first.setdefault(new, category)
        if not first:
            raise DataError("Remapped: no category is left; ignore or drop fewer")
        kinds = {new: kinds.get(new, category) for new, category in first.items()}

        def order(field: str) -> dict[str, int]:
            places: dict[str, int] = {}
            for category in old.categories:
                new, place = self._names.get(category.name), getattr(category, field)
                if new is not None and place is not None and getattr(kinds[new], field) is not None:
                    places[new] = min(place, places.get(new, place))
            return {new: index for index, new in enumerate(sorted(places, key=lambda new: places[new]))}

        detection, semantic = order("detection"), order("semantic")
        return Taxonomy(
            tuple(
                Category(new, kind.is_thing, kind.color, detection.get(new), semantic.get(new))
                for new, kind in kinds.items()
            )
        )


def _common(new: str, members: list[Category]) -> Category:
    """Return a category of the kind that all members have."""
    first = members[0]
    for other in members[1:]:
        for differs, what in (
            (other.is_thing != first.is_thing, "is a thing, the other stuff; merge into the name of one of them"),
            ((other.detection is None) != (first.detection is None), "has boxes, the other none"),
            ((other.semantic is None) != (first.semantic is None), "has pixels, the other none"),
        ):
            if differs:
                raise DataError(f"Remapped: merge: {new}: of {first.name!r} and {other.name!r} one {what}")
    return first
