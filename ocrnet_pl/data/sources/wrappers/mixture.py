"""Several sources as one, their categories joined by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.records import Part, RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.wrappers.base import check_names
from ocrnet_pl.data.sources.wrappers.taxonomy_mapping import Relabelling
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample, Taxonomy


class Mixture(Source):
    """Several sources in one run, each with its own categories and labels and its own share of every batch.

    The taxonomy is the union by name: categories with the same name are one category. It is a thing if it is one in any
    source, and has boxes (pixels) if it has them in any. The samples of a source are labelled for that source's classes
    only; those of other sources are unknown in them. Image ids get the source's name in front.

    An epoch has as many batches as the sources' images fill. A source whose share is above its part of the images
    repeats them; a source below it takes several epochs to go through. Every image of a source is seen once before any
    is repeated.

    Args:
        sources: The sources by name.
        shares: Shares of every training batch, by the sources' names, in any unit; null for the number of images. The
            share of a batch is exact if it is a whole number of images, else within one image over any run of batches.

    Raises:
        DataError: There are no sources, one has no images or is itself a mixture, or a share is not positive, is
            missing or names no source (the closest is named).
    """

    def __init__(self, sources: dict[str, Source], shares: dict[str, float] | None = None) -> None:
        if not sources:
            raise DataError("Mixture: sources: there are none; name at least one")
        for name, source in sources.items():
            if not len(source):
                raise DataError(f"Mixture: sources: {name}: it has no images")
            if source.parts:
                raise DataError(f"Mixture: sources: {name}: it is a mixture itself; list its sources here instead")
        if shares is not None:
            check_names("Mixture: shares", "source", list(shares), sources)
            for name in sources:
                if name not in shares:
                    raise DataError(f"Mixture: shares: the share of {name!r} is missing")
                if not (math.isfinite(shares[name]) and shares[name] > 0):
                    raise DataError(f"Mixture: shares: {name}: expected a number above 0, got {shares[name]}")
        self.sources = sources
        self._list = list(sources.values())
        self._names = list(sources)
        self._taxonomy = unite({name: source.taxonomy for name, source in sources.items()})
        self._relabel = [
            None
            if source.taxonomy == self._taxonomy
            else Relabelling(
                source.taxonomy,
                self._taxonomy,
                {category.name: category.name for category in source.taxonomy.categories},
            )
            for source in self._list
        ]
        number = {category.name: position for position, category in enumerate(self._taxonomy.categories)}
        self._categories = [
            np.array([number[category.name] for category in source.taxonomy.categories], dtype=np.int64)
            for source in self._list
        ]
        self._starts = np.cumsum([0, *map(len, self._list)])
        self._parts = tuple(
            Part(name, int(start), int(stop), float(stop - start if shares is None else shares[name]), source.blocks)
            for (name, source), start, stop in zip(sources.items(), self._starts[:-1], self._starts[1:], strict=True)
        )

    @property
    def taxonomy(self) -> Taxonomy:
        """The union of the sources' categories, by name."""
        return self._taxonomy

    @property
    def parts(self) -> tuple[Part, ...]:
        """The sources with their shares."""
        return self._parts

    @property
    def sizes(self) -> NDArray[np.int32] | None:
        """The sizes from the sources; (0, 0) for the images of a source that does not know them."""
        sizes = [source.sizes for source in self._list]
        if all(own is None for own in sizes):
            return None
        return np.concatenate(
            [
                np.zeros((len(source), 2), dtype=np.int32) if own is None else own
                for source, own in zip(self._list, sizes, strict=True)
            ]
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        place, row = self._find(index)
        sample = self._list[place][row]
        relabel = self._relabel[place]
        if relabel is not None:
            sample = relabel(sample)
        return sample.replace(image_id=f"{self._names[place]}/{sample.image_id}")

    def identity(self, index: int) -> tuple[int | str, str]:
        """Return the id and path from the source, with the source's name in front of the id."""
        place, row = self._find(index)
        image_id, path = self._list[place].identity(row)
        return f"{self._names[place]}/{image_id}", path

    def files(self, index: int) -> Sequence[str]:
        """Return the files from the source."""
        place, row = self._find(index)
        return self._list[place].files(row)

    def image_path(self, index: int) -> str | PathLike[str] | None:
        """Return the image file from the source."""
        place, row = self._find(index)
        return self._list[place].image_path(row)

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the size from the source."""
        place, row = self._find(index)
        return self._list[place].image_size(row)

    def expect(self, index: int) -> None:
        """Forward it to the source."""
        place, row = self._find(index)
        self._list[place].expect(row)

    def image_categories(self, index: int) -> NDArray[np.int64]:
        """Return the categories from the source, as indices into the union."""
        place, row = self._find(index)
        return self._categories[place][self._list[place].image_categories(row)]

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return the stored boxes from the source, under the labels of the union."""
        place, row = self._find(index)
        relabel = self._relabel[place]
        return self._list[place].raw_boxes(row) if relabel is None else relabel.raw_boxes(self._list[place], row)

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return place, index - int(self._starts[place])


def unite(taxonomies: dict[str, Taxonomy]) -> Taxonomy:
    """Return the union of taxonomies by name: stuff before things, each in the order of first appearance.

    Args:
        taxonomies: The taxonomies by the sources' names; if all are equal, the union is the same.

    Raises:
        DataError: The union has more segmentation classes than a map can contain.
    """
    every: Sequence[Taxonomy] = list(taxonomies.values())
    if all(taxonomy == every[0] for taxonomy in every):
        return every[0]
    joined = {category.name: replace(category, detection=None, semantic=None) for category in every[0].categories}
    detected: set[str] = set()
    segmented: set[str] = set()
    for taxonomy in every:
        for category in taxonomy.categories:
            known = joined.setdefault(category.name, category)
            joined[category.name] = replace(known, is_thing=known.is_thing or category.is_thing)
            if category.detection is not None:
                detected.add(category.name)
            if category.semantic is not None:
                segmented.add(category.name)
    try:
        return Taxonomy.build(
            things=[name for name, category in joined.items() if category.is_thing],
            stuff=[name for name, category in joined.items() if not category.is_thing],
            detected=detected,
            segmented=segmented,
            colors={name: category.color for name, category in joined.items()},
        )
    except ValueError as error:
        raise DataError(f"Mixture: {error}; merge or drop categories with Remapped") from error
