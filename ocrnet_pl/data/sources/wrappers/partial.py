"""A source that was labelled only for some tasks or classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.wrappers.base import Wrapped, check_names
from ocrnet_pl.data.sources.wrappers.taxonomy_mapping import keep_rows
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import IGNORE_INDEX, Category, Sample, Supervision


class Partial(Wrapped):
    """Says for which tasks and classes another source was labelled; all other labels are left out.

    What is not labelled is neither a target nor background: it gives no gradient and counts in no metric. Boxes of a
    class that is not labelled are left out, and its pixels become 255. Instance masks are kept if all classes with
    labelled boxes have labelled pixels too.

    Args:
        source: Source of the samples.
        boxes: Whether boxes were labelled, or the names of the classes whose boxes were.
        pixels: Whether pixels were labelled, or the names of the classes whose pixels were; include the background that
            they were told apart from.

    Raises:
        DataError: A name is unknown (the closest is named), nothing is labelled, or only one class has pixels, which
            teaches nothing.
    """

    def __init__(self, source: Source, boxes: bool | list[str] = True, pixels: bool | list[str] = True) -> None:
        super().__init__(source)
        taxonomy = source.taxonomy
        self._detection = _chosen("boxes", boxes, taxonomy.detection_categories)
        self._semantic = _chosen("pixels", pixels, taxonomy.semantic_categories)
        if not self._detection.any() and not self._semantic.any():
            raise DataError("Partial: neither boxes nor pixels are labelled; name some, or leave the source out")
        if int(self._semantic.sum()) == 1 and taxonomy.num_semantic > 1:
            raise DataError(
                "Partial: pixels: a single class cannot be told apart from anything; add the class of the pixels "
                "around it, such as the background"
            )
        masks_too = torch.tensor(
            [
                bool(self._semantic.any()) if c.semantic is None else bool(self._semantic[c.semantic])
                for c in taxonomy.detection_categories
            ],
            dtype=torch.bool,
        )
        without_pixels = taxonomy.num_semantic == 0 and pixels is True
        self._masks = bool(self._detection.any()) and (without_pixels or bool(masks_too[self._detection].all()))

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        supervision = Supervision(
            sample.supervision.detection & self._detection, sample.supervision.semantic & self._semantic
        )
        semantic = sample.semantic
        if semantic is not None:
            table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX, dtype=torch.uint8)
            known = supervision.semantic.nonzero()[:, 0]
            table[known] = known.to(torch.uint8)
            semantic = tv_tensors.Mask(table[semantic.as_subclass(Tensor).long()]) if len(known) else None
        sample = sample.replace(
            supervision=supervision, semantic=semantic, instances=sample.instances if self._masks else None
        )
        return keep_rows(sample, supervision.detection[sample.labels])

    def raw_boxes(self, index: int) -> RawBoxes | None:
        """Return the stored boxes from the source that count as labelled."""
        raw = self.source.raw_boxes(index)
        if raw is None:
            return None
        known = (self.source[index].supervision.detection & self._detection).numpy()
        return raw.keep(known[raw.labels], raw.labels)


def _chosen(option: str, choice: bool | list[str], categories: tuple[Category, ...]) -> Tensor:
    """Return which classes are labelled, bool [classes]."""
    names = [category.name for category in categories]
    if isinstance(choice, bool):
        return torch.full((len(names),), choice, dtype=torch.bool)
    check_names(f"Partial: {option}", f"category with {option}", choice, names)
    return torch.tensor([name in choice for name in names], dtype=torch.bool)
