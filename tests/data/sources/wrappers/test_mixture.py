"""Several sources as one: categories joined by name, each source labelled for its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.sources.wrappers.mixture import Mixture, unite
from ocrnet_pl.data.sources.wrappers.partial import Partial
from ocrnet_pl.errors import DataError
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.structures import Output, Taxonomy
from tests.helpers.builders import tiny_network
from tests.helpers.label_sources import STREET, Scenes

CATTLE = Taxonomy.build(things=["cow", "person"], stuff=["grass", "background"])
JOINT = ["background", "road", "grass", "car", "truck", "person", "cow"]


def _mixture() -> Mixture:
    return Mixture({"street": Scenes(STREET, 4), "field": Scenes(CATTLE, 3)})


def test_the_taxonomy_is_the_union_by_name() -> None:
    joint = _mixture().taxonomy
    assert [c.name for c in joint.categories] == JOINT
    assert [c.name for c in joint.detection_categories] == JOINT[3:]
    assert [c.name for c in joint.semantic_categories] == JOINT
    colors = {c.name: c.color for c in (*CATTLE.categories, *STREET.categories)}
    assert all(c.color == colors[c.name] for c in joint.categories)
    assert Mixture({"a": Scenes(), "b": Scenes()}).taxonomy == STREET


def test_a_thing_anywhere_is_a_thing_and_tasks_add_up() -> None:
    pixels = Taxonomy.build(stuff=["sky", "car"])
    boxes = Taxonomy.build(things=["car"], segmented=[])
    car = unite({"pixels": pixels, "boxes": boxes}).categories[1]
    assert (car.name, car.is_thing, car.detection, car.semantic) == ("car", True, 0, 1)


def test_samples_by_name_in_a_loop() -> None:
    mixture = _mixture()
    assert len(mixture) == 7
    joint = mixture.taxonomy
    for index in range(7):
        source, row = (Scenes(STREET, 4), index) if index < 4 else (Scenes(CATTLE, 3), index - 4)
        before, after = source[row], mixture[index]
        own = source.taxonomy
        names = [c.name for c in own.semantic_categories]
        joined = [c.name for c in joint.semantic_categories]
        assert [names[v] for v in np.ravel(before.semantic)] == [joined[v] for v in np.ravel(after.semantic)]
        assert [own.detection_categories[i].name for i in before.labels] == [
            joint.detection_categories[i].name for i in after.labels
        ]
        known = {c.name for c in own.categories}
        assert after.supervision.detection.tolist() == [c.name in known for c in joint.detection_categories]
        assert after.supervision.semantic.tolist() == [c.name in known for c in joint.semantic_categories]
        assert after.image_id == f"{'street' if index < 4 else 'field'}/{row}" == mixture.identity(index)[0]
        assert torch.equal(after.boxes, before.boxes) and torch.equal(after.instances, before.instances)
    with pytest.raises(IndexError):
        mixture[7]


@pytest.mark.parametrize("index", [0, 5])
def test_a_source_gives_no_gradient_to_the_classes_of_others(index: int) -> None:
    mixture = _mixture()
    sample = mixture[index]
    network = tiny_network(mixture.taxonomy)
    batch = collate([sample])
    output = network(batch.images)
    detection, semantic = output.detection, output.semantic
    detection.classes.retain_grad()
    detection.confidence.retain_grad()
    semantic.retain_grad()
    out = Output(detection, semantic, output.stride)
    (sum(QualityDetectionLoss()(out, batch).values()) + sum(SegmentationLoss()(out, batch).values())).backward()
    for gradient, known in (
        (detection.classes.grad[0].T, sample.supervision.detection),
        (semantic.grad[0].flatten(1), sample.supervision.semantic),
    ):
        assert (gradient != 0).any(1).tolist() == known.tolist()


def test_shares_and_sizes() -> None:
    mixture = Mixture({"a": Scenes(length=4), "b": SyntheticSource(3, 0, (48, 64))}, {"b": 1, "a": 3})
    assert [(p.name, p.start, p.stop, p.share) for p in mixture.parts] == [("a", 0, 4, 3.0), ("b", 4, 7, 1.0)]
    assert mixture.sizes.tolist() == [[0, 0]] * 4 + [[48, 64]] * 3
    assert _mixture().sizes is None and [p.share for p in _mixture().parts] == [4.0, 3.0]
    assert Partial(mixture, pixels=False).parts == mixture.parts


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mixture({}), "there are none"),
        (lambda: Mixture({"a": Scenes(length=0)}), "a: it has no images"),
        (lambda: Mixture({"a": _mixture()}), "a mixture itself"),
        (lambda: Mixture({"day": Scenes()}, {"dya": 1.0}), r"there is no source 'dya'; did you mean 'day'\?"),
        (lambda: Mixture({"a": Scenes(), "b": Scenes()}, {"a": 1.0}), "share of 'b' is missing"),
        (lambda: Mixture({"a": Scenes()}, {"a": 0.0}), "a: expected a number above 0"),
        (lambda: Mixture({"a": Scenes()}, {"a": float("nan")}), "a: expected a number above 0"),
    ],
)
def test_mistakes_are_one_line(make: Callable[[], Mixture], words: str) -> None:
    with pytest.raises(DataError, match=words) as found:
        make()
    assert "\n" not in str(found.value)


def test_too_many_classes_are_refused() -> None:
    many = {str(k): Taxonomy.build(stuff=[f"{k}-{i}" for i in range(200)]) for k in range(2)}
    with pytest.raises(DataError, match=r"Mixture: .*at most 255"):
        unite(many)
