"""What the loader hands to transforms that mix several images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ocrnet_pl.data.loading.dataset import Prepared, PreparedDataset
from ocrnet_pl.data.loading.samplers import Item
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.wrappers.mixture import Mixture
from ocrnet_pl.data.sources.wrappers.partial import Partial
from ocrnet_pl.data.transforms import Compose, MixingTransform, Mosaic, RandomFlip
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.structures import Sample, Supervision, Taxonomy
from tests.data.test_datamodule import HalfLabelled
from tests.helpers.label_sources import Scenes

TAXONOMY = Taxonomy.build(things=["disc"], stuff=["sky"])


class Flat(Source):
    """Image i has the value i everywhere; notes what was read."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.read: list[int] = []

    @property
    def taxonomy(self) -> Taxonomy:
        return TAXONOMY

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        image = torch.full((3, 32, 32), index, dtype=torch.uint8)
        return make_sample(image, boxes=[], labels=[], crowd=[], supervision=Supervision.full(TAXONOMY), image_id=index)


class Note(MixingTransform):
    partners = 2

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        self.seen.append([int(partner.image_id) for partner in partners])
        return sample


def test_partners_are_any_others_and_depend_on_the_seed_alone() -> None:
    note = Note()
    dataset = PreparedDataset(Flat(5), (32, 32), transforms=Compose([RandomFlip(), note]))
    for seed in range(60):
        dataset[Item(3, (32, 32), seed)]
    assert all(len(seen) == 2 for seen in note.seen)
    assert {index for seen in note.seen for index in seen} == {0, 1, 2, 4}
    dataset[Item(3, (32, 32), 7)]
    assert note.seen[-1] == note.seen[7]


def test_a_single_image_is_its_own_partner() -> None:
    note = Note()
    PreparedDataset(Flat(1), (32, 32), transforms=note)[Item(0, (32, 32), 1)]
    assert note.seen == [[0, 0]]


def test_a_mosaic_shows_other_images() -> None:
    source = Flat(9)
    item = PreparedDataset(source, (64, 64), transforms=Compose([Mosaic(p=1.0)]))[Item(4, (64, 64), 3)]
    assert isinstance(item, Prepared)
    shown = set(item.sample.image.unique().tolist())
    assert 4 in source.read and len(set(source.read)) > 1
    assert len(shown & set(source.read)) > 1


def test_what_does_not_mix_reads_nothing_more() -> None:
    source = Flat(9)
    PreparedDataset(source, (32, 32), transforms=Compose([RandomFlip()]))[Item(4, (32, 32), 3)]
    PreparedDataset(source, (32, 32), transforms=Compose([Mosaic(p=0.0)]))[Item(5, (32, 32), 3)]
    assert source.read == [4, 5]


class Mix(MixingTransform):
    """Notes who is mixed with whom."""

    partners = 2

    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        assert len(partners) == 2 and partners[0] is partners[0] and list(partners[0:2])[1] is partners[-1]
        return sample.replace(image_id=f"{sample.image_id}+{partners[0].image_id}+{partners[1].image_id}")


def test_partners_are_of_the_same_source_and_labels() -> None:
    labelled = Scenes(length=6)
    parts: dict[str, Source] = {"boxes": Partial(labelled, pixels=False), "all": Scenes(length=9, broken=(2,))}
    train = Mixture(parts)
    dataset = PreparedDataset(train, (64, 64), transforms=Compose([Mix()]), tolerant=True, parts=train.parts)
    seen: set[str] = set()
    for seed in range(12):
        for index in (0, 5, 6, 14):
            prepared = dataset[Item(index, (64, 64), seed)]
            again = dataset[Item(index, (64, 64), seed)]
            assert prepared.sample.image_id == again.sample.image_id
            own, *others = str(prepared.sample.image_id).split("+")
            assert {other.split("/")[0] for other in others} == {own.split("/")[0]} and own not in others
            assert "all/2" not in others
            seen.update(others)
    assert len(seen) == 6 + 8
    mixed = HalfLabelled()
    halves = PreparedDataset(mixed, (64, 64), transforms=Compose([Kinds()]))
    for seed in range(5):
        for index in range(6):
            assert halves[Item(index, (64, 64), seed)].sample.image_id == "same"


class Kinds(Mix):
    """Says whether the partners are labelled for what the sample is."""

    def __call__(
        self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
    ) -> Sample:
        same = all(torch.equal(p.supervision.detection, sample.supervision.detection) for p in partners)
        return sample.replace(image_id="same" if same else "other")


def test_partners_are_read_only_when_asked_for() -> None:
    class Lazy(Mix):
        def __call__(
            self, sample: Sample, size: Size, generator: torch.Generator, partners: Sequence[Sample] = ()
        ) -> Sample:
            return sample

    source = Scenes(length=6)
    _ = PreparedDataset(source, (64, 64), transforms=Compose([Lazy()]))[Item(3, (64, 64), 1)]
    assert source.reads == [3]
