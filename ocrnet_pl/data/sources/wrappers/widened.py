"""A source with more categories than its images are labelled for."""

from __future__ import annotations

from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.wrappers.relabelled import Relabelled
from ocrnet_pl.data.sources.wrappers.taxonomy_mapping import Relabelling
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Taxonomy


class Widened(Relabelled):
    """Another source among more categories; its images are not labelled for those that it does not have.

    Args:
        source: Source of the samples.
        taxonomy: All categories, those of the source among them, by name.

    Raises:
        DataError: The taxonomy lacks a category of the source, or its boxes or pixels.
    """

    def __init__(self, source: Source, taxonomy: Taxonomy) -> None:
        super().__init__(source)
        known = {category.name: category for category in taxonomy.categories}
        for category in source.taxonomy.categories:
            other = known.get(category.name)
            if other is None:
                raise DataError(f"the data has the class {category.name!r}, which is not among {', '.join(known)}")
            for kind, what in (("detection", "boxes"), ("semantic", "pixels")):
                if getattr(category, kind) is not None and getattr(other, kind) is None:
                    raise DataError(f"the data has {what} of the class {category.name!r}, which has none here")
        self._taxonomy = taxonomy
        self._relabel = Relabelling(source.taxonomy, taxonomy, {name: name for name in known})

    @property
    def taxonomy(self) -> Taxonomy:
        """All categories."""
        return self._taxonomy
