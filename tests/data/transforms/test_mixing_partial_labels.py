"""What a mixture of partly labelled images is labelled for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ocrnet_pl.data.transforms import CopyPaste, MixingTransform, MixUp, Mosaic, Transform
from ocrnet_pl.structures import Sample, Supervision
from tests.helpers.painted import TAXONOMY, array, generator, located
from tests.helpers.shapes import flat

MIXERS: list[MixingTransform] = [Mosaic(p=1.0), MixUp(p=1.0), CopyPaste(1.0, p=1.0)]


def name(transform: Transform) -> str:
    return type(transform).__name__


def partial(sample: Sample, detection: Sequence[int] | None = None, semantic: Sequence[int] | None = None) -> Sample:
    """Label a sample for some classes only; None for all."""

    def chosen(count: int, own: Sequence[int] | None) -> Tensor:
        return torch.tensor([own is None or index in own for index in range(count)], dtype=torch.bool)

    return sample.replace(
        supervision=Supervision(chosen(TAXONOMY.num_detection, detection), chosen(TAXONOMY.num_semantic, semantic))
    )


OBJECTS = [(2, 2, 12, 12, 0), (16, 2, 26, 12, 1)]


@pytest.mark.parametrize("transform", MIXERS, ids=name)
def test_a_mixture_is_labelled_for_what_all_parts_are(transform: MixingTransform) -> None:
    one = partial(flat((40, 40), 20, OBJECTS), detection=[0, 1], semantic=[0, 1, 2])
    others = [partial(flat((40, 40), 100 + i, OBJECTS), detection=[0, 2], semantic=[0, 2, 3]) for i in range(3)]
    for seed in range(10):
        after = transform(one, (40, 40), generator(seed), others)
        if after is one:  # scaled down, the partner's objects may be too small to paste
            continue
        assert after.supervision.detection.tolist() == [True, False, False]
        assert after.supervision.semantic.tolist() == [True, False, True, False]
        # Objects of class 1 are no targets any more; semantic class 1 is class 0's pixels.
        assert set(after.labels[~after.crowd].tolist()) <= {0}
        assert set(np.unique(array(after.semantic)).tolist()) <= {0, 2, 255}
        assert set(np.unique(array(after.instances))) <= {0} | {
            row + 1 for row in range(len(after.labels)) if not after.crowd[row]
        }


def test_what_is_no_longer_labelled_is_a_crowd() -> None:
    one = flat((40, 40), 20, OBJECTS)
    other = partial(flat((40, 40), 100, []), detection=[0])
    after = MixUp(p=1.0, partner_transforms=[])(one, (40, 40), generator(), [other])
    assert after.labels.tolist() == [0, 1] and after.crowd.tolist() == [False, True]
    assert set(np.unique(array(after.instances))) == {0, 1}


def test_parts_without_masks_are_ignored_and_take_the_task_away() -> None:
    """Boxes only beside full labels: no pixel of the boxes-only part carries a class."""
    full = located(60, 60, 3)
    boxes_only = [
        partial(located(60, 60, seed, number=seed).replace(semantic=None, instances=None), semantic=[])
        for seed in (1, 2, 3)
    ]
    after = Mosaic(1.0, 1.0, p=1.0)(full, (60, 60), generator(), boxes_only)
    number = array(after.image)[2]
    assert not after.supervision.semantic.any() and after.supervision.detection.all()
    assert (array(after.semantic) == 255).all()
    assert (array(after.instances)[number > 0] == 0).all() and (array(after.instances)[number == 0] > 0).any()
    both = MixUp(p=1.0)(boxes_only[0], (60, 60), generator(), [boxes_only[1]])
    assert both.semantic is None and both.instances is None


def test_a_map_of_an_unlabelled_part_is_not_believed() -> None:
    one = flat((20, 20), 20, [(2, 2, 12, 12, 0)])
    other = partial(flat((20, 20), 90, [(2, 2, 12, 12, 0)]), semantic=[])
    after = MixUp(p=1.0, partner_transforms=[])(one, (20, 20), generator(), [other])
    assert (array(after.semantic) == 255).all()
