"""Categories renamed, merged, ignored and dropped by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ocrnet_pl.data.cache.content_hash import source_digest
from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.sources.wrappers.partial import Partial
from ocrnet_pl.data.sources.wrappers.remapped import Remapped
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample, Taxonomy
from tests.helpers.label_sources import STREET, Scenes


def _names(sample: Sample, taxonomy: Taxonomy) -> list[list[str]]:
    """Each pixel's class by name, by a plain loop."""
    names = [category.name for category in taxonomy.semantic_categories]
    return [["?" if v == 255 else names[v] for v in row] for row in np.asarray(sample.semantic).tolist()]


def test_pixels_and_boxes_follow_a_loop_over_names() -> None:
    source = Scenes()
    remapped = Remapped(
        source, merge={"vehicle": ["car", "truck"]}, rename={"person": "human"}, ignore=["road"], drop=[]
    )
    new = remapped.taxonomy
    assert [c.name for c in new.categories] == ["background", "vehicle", "human"]
    assert [c.detection for c in new.categories] == [None, 0, 1] and [c.semantic for c in new.categories] == [0, 1, 2]
    assert new.categories[1].is_thing and new.categories[1].color == STREET.categories[2].color
    to = {"car": "vehicle", "truck": "vehicle", "person": "human", "background": "background", "road": "?"}
    before, after = source[1], remapped[1]
    assert _names(after, new) == [[to[n] for n in row] for row in _names(before, source.taxonomy)]
    assert [new.detection_categories[i].name for i in after.labels] == ["vehicle", "vehicle", "human"]
    assert torch.equal(after.boxes, before.boxes) and torch.equal(after.instances, before.instances)
    assert after.supervision.detection.all() and after.supervision.semantic.all()
    assert new == Remapped(source, {"vehicle": ["truck", "car"]}, {"person": "human"}, ["road"]).taxonomy


def test_ignored_boxes_are_crowds_of_every_class() -> None:
    after = Remapped(Scenes(), ignore=["truck"])[0]
    assert after.labels.tolist() == [0, 1, 0, 1] and after.crowd.tolist() == [False, False, True, True]
    assert after.boxes[2:].tolist() == [[18, 6, 26, 14]] * 2
    assert np.unique(np.asarray(after.instances)).tolist() == [0, 1, 2]
    assert (np.asarray(after.instances)[6:14, 32:40] == 2).all()
    assert (np.asarray(after.semantic)[6:14, 18:26] == 255).all() and (np.asarray(after.semantic) == 255).sum() == 64
    batch = collate([after])
    assert batch.valid[0].sum() == 2 and batch.crowd[0].sum() == 1  # the losses need each region once


def test_dropped_boxes_are_gone() -> None:
    after = Remapped(Scenes(), drop=["truck"])[0]
    assert after.labels.tolist() == [0, 1] and not after.crowd.any()
    assert (np.asarray(after.semantic)[6:14, 18:26] == 255).all()
    assert (np.asarray(after.instances)[6:14, 18:26] == 0).all()


def test_things_merged_into_stuff_lose_their_boxes() -> None:
    remapped = Remapped(Scenes(), merge={"background": ["background", "truck"]})
    assert remapped.taxonomy == Taxonomy.build(
        things=["car", "person"],
        stuff=["background", "road"],
        colors={c.name: c.color for c in STREET.categories},
    )
    assert (np.asarray(remapped[0].semantic)[6:14, 18:26] == 0).all() and remapped[0].labels.tolist() == [0, 1]


def test_a_merged_class_is_labelled_if_all_its_members_are() -> None:
    partial = Partial(Scenes(), boxes=["car", "person"], pixels=["background", "road", "car", "truck"])
    after = Remapped(partial, merge={"vehicle": ["car", "truck"]})[0]
    assert after.supervision.detection.tolist() == [False, True]
    assert after.supervision.semantic.tolist() == [True, True, True, False]
    assert after.labels.tolist() == [1]  # a car that is a vehicle among unmarked trucks is no target
    assert len(Remapped(partial, ignore=["truck"])[0].labels) == 2  # nobody marked the trucks


def test_what_is_done_with_a_category_is_part_of_the_digest() -> None:
    digests = [
        source_digest(Remapped(Scenes(), **options))
        for options in ({"ignore": ["truck"]}, {"drop": ["truck"]}, {"drop": ["car"]}, {"drop": ["truck"]})
    ]
    assert len(set(digests)) == 3 and digests[1] == digests[3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rename": {"Car ": "x"}}, r"rename: there is no category 'Car '; did you mean 'car'\?"),
        ({"merge": {"v": ["car", "truk"]}}, r"merge: v: there is no category 'truk'; did you mean 'truck'\?"),
        ({"ignore": ["raod"]}, "ignore: .*'road'"),
        ({"drop": ["zebra"]}, "drop: .*there are 'background'"),
        ({"drop": ["car", "car"]}, "more than once"),
        ({"drop": ["car"], "ignore": ["car"]}, "'car' is also in 'ignore'"),
        ({"rename": {"car": "truck"}}, "would both be 'truck'; use merge"),
        ({"merge": {"truck": ["car"]}}, "a category of that name exists"),
        ({"merge": {"v": []}}, "nothing to merge"),
        ({"merge": {"v": ["car", "road"]}}, "'road' and 'car' one is a thing"),
        ({"drop": ["background", "road", "car", "truck", "person"]}, "no category is left"),
    ],
)
def test_wrong_names_are_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as found:
        Remapped(Scenes(), **options)
    assert "\n" not in str(found.value)


def test_members_without_boxes_leave_a_merged_class_unknown() -> None:
    taxonomy = Taxonomy.build(things=["car", "truck"], detected=["car"])
    with pytest.raises(DataError, match="'car' and 'truck' one has boxes, the other none"):
        Remapped(Scenes(taxonomy), merge={"vehicle": ["car", "truck"]})
