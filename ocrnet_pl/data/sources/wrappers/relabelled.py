"""What sources with other categories than the source inside them have in common."""

from __future__ import annotations

from abc import abstractmethod

from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.wrappers.base import Wrapped
from ocrnet_pl.data.sources.wrappers.taxonomy_mapping import Relabelling
from ocrnet_pl.structures import Sample, Taxonomy


class Relabelled(Wrapped):
    """The samples of another source under other categories; a subclass sets how they are converted."""

    _relabel: Relabelling

    @property
    @abstractmethod
    def taxonomy(self) -> Taxonomy:
        """The new categories."""

    def __getitem__(self, index: int) -> Sample:
        return self._relabel(self.source[index])

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return the stored boxes from the source under their new labels."""
        return self._relabel.raw_boxes(self.source, index)
