"""Converting samples from one taxonomy to another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.data.records import RawBoxes
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.imaging.geometry import wrap_boxes
from ocrnet_pl.structures import IGNORE_INDEX, Sample, Supervision, Taxonomy


class Relabelling:
    """Converts labels, pixels and supervision of an old taxonomy to those of a new one, by the categories' names.

    A new class is labelled in an image if all the old classes that it combines were; a new class without old ones is
    not labelled. Boxes and pixels of a class that is not labelled are left out, since there may be more of them.

    Args:
        old: The samples' taxonomy.
        new: The taxonomy to convert to.
        names: The new name of each old name; old categories that are missing are left out, and their pixels ignored.
        ignored: Old names whose pixels are ignored and whose boxes become crowds, one of each class that the image is
            labelled for, so that no prediction there is a false alarm.
    """

    def __init__(
        self, old: Taxonomy, new: Taxonomy, names: Mapping[str, str], ignored: frozenset[str] = frozenset()
    ) -> None:
        by_name = {category.name: category for category in new.categories}
        self._detection = torch.full((old.num_detection,), -1)
        self._crowd = torch.tensor([c.name in ignored for c in old.detection_categories], dtype=torch.bool)
        self._semantic = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, dtype=np.uint8)
        # [new, old]: the old classes that a new class is made of.
        self._of_detection = torch.zeros(new.num_detection, old.num_detection, dtype=torch.bool)
        self._of_semantic = torch.zeros(new.num_semantic, old.num_semantic, dtype=torch.bool)
        for category in old.categories:
            target = by_name.get(names.get(category.name, ""))
            if target is None:
                continue
            if category.detection is not None and target.detection is not None:
                self._detection[category.detection] = target.detection
                self._of_detection[target.detection, category.detection] = True
            if category.semantic is not None and target.semantic is not None:
                self._semantic[category.semantic] = target.semantic
                self._of_semantic[target.semantic, category.semantic] = True

    def supervision(self, old: Supervision) -> Supervision:
        """Return the new classes that an image was labelled for."""
        return Supervision(_all_known(self._of_detection, old.detection), _all_known(self._of_semantic, old.semantic))

    def __call__(self, sample: Sample) -> Sample:
        """Return the sample in the new taxonomy."""
        supervision = self.supervision(sample.supervision)
        semantic = sample.semantic
        if semantic is not None:
            table = self._semantic.copy()
            unknown = ~np.append(supervision.semantic.numpy(), np.zeros(256 - len(supervision.semantic), np.bool_))
            table[unknown[table]] = IGNORE_INDEX
            if (table == IGNORE_INDEX).all():
                semantic = None
            else:
                semantic = tv_tensors.Mask(torch.from_numpy(table[semantic.as_subclass(Tensor).numpy()]))
        moved = sample.replace(supervision=supervision, semantic=semantic)
        labels = self._detection[sample.labels]
        crowds = self._crowd[sample.labels] & sample.supervision.detection[sample.labels]
        moved = moved.replace(labels=labels.clamp(min=0))
        known = (labels >= 0) & supervision.detection[moved.labels] if len(supervision.detection) else labels >= 0
        moved = keep_rows(moved, known)
        return add_crowds(moved, sample.boxes.as_subclass(Tensor)[crowds])

    def raw_boxes(self, source: Source, index: int) -> RawBoxes | None:
        """Return an image's stored boxes that the new taxonomy keeps, under its labels.

        Args:
            source: Source with the old taxonomy.
            index: Index of the image in it.
        """
        raw = source.raw_boxes(index)
        if raw is None:
            return None
        known = self.supervision(source[index].supervision).detection.numpy()
        labels = self._detection.numpy()[raw.labels]
        return raw.keep((labels >= 0) & np.append(known, False)[labels], labels)


def _all_known(made_of: Tensor, known: Tensor) -> Tensor:
    """Return bool [new]: the class is made of at least one old class, and all of them are known."""
    return made_of.any(1) & ~(made_of & ~known).any(1)


def keep_rows(sample: Sample, kept: Tensor) -> Sample:
    """Return the sample with some of its boxes, the instance map renumbered.

    Args:
        sample: A sample with N boxes.
        kept: bool [N], the boxes to keep.
    """
    if kept.all():
        return sample
    instances = sample.instances
    if instances is not None:
        numbers = torch.zeros(len(kept) + 1, dtype=torch.int32)
        numbers[1:][kept] = torch.arange(1, int(kept.sum()) + 1, dtype=torch.int32)
        instances = tv_tensors.Mask(numbers[instances.as_subclass(Tensor).long()])
    return sample.replace(
        boxes=wrap_boxes(sample.boxes.as_subclass(Tensor)[kept], sample.size),
        labels=sample.labels[kept],
        crowd=sample.crowd[kept],
        instances=instances,
    )


def add_crowds(sample: Sample, boxes: Tensor) -> Sample:
    """Return the sample with regions in which no class that it is labelled for is a target or a false alarm.

    Args:
        sample: The sample to add to.
        boxes: float32 [N, 4], xyxy in pixels.
    """
    classes = sample.supervision.detection.nonzero()[:, 0]
    if not len(boxes) or not len(classes):
        return sample
    own = sample.boxes.as_subclass(Tensor)
    return sample.replace(
        boxes=wrap_boxes(torch.cat([own, boxes.repeat_interleave(len(classes), 0)]), sample.size),
        labels=torch.cat([sample.labels, classes.repeat(len(boxes))]),
        crowd=torch.cat([sample.crowd, torch.ones(len(boxes) * len(classes), dtype=torch.bool)]),
    )
