"""Parts of a source: disjoint, complete, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocrnet_pl.data.sources.wrappers.mixture import Mixture
from ocrnet_pl.data.sources.wrappers.split import Split
from ocrnet_pl.errors import DataError
from tests.helpers.label_sources import Scenes

THIRDS = {"train": 0.7, "val": 0.2, "test": 0.1}


def _parts(source: Scenes, parts: dict[str, Any], **options: Any) -> dict[str, list[int]]:
    return {name: Split(source, name, parts, **options).indices.tolist() for name in parts}


@pytest.mark.parametrize("length", [17, 40, 101])
@pytest.mark.parametrize("groups", [None, r"clip\d+", r"clip(\d+)/"])
def test_fractions_are_disjoint_complete_and_repeatable(length: int, groups: str | None) -> None:
    source = Scenes(length=length)
    parts = _parts(source, THIRDS, seed=3, groups=groups)
    assert sorted(index for part in parts.values() for index in part) == list(range(length))
    assert parts == _parts(Scenes(length=length), THIRDS, seed=3, groups=groups)
    slack = 1 if groups is None else 3
    assert all(abs(len(parts[name]) - share * length) <= slack for name, share in THIRDS.items())
    assert not source.reads  # nobody has to open images to split them
    if groups:
        owners = {name: {index // 3 for index in part} for name, part in parts.items()}
        assert sum(map(len, owners.values())) == len(set().union(*owners.values()))
    if length == 101:
        assert parts != _parts(source, THIRDS, seed=4, groups=groups)


def test_samples_are_those_of_the_source() -> None:
    split = Split(Scenes(length=10), "val", {"train": 0.5, "val": 0.5})
    assert [split[i].image_id for i in range(len(split))] == split.indices.tolist()
    assert split.identity(0)[0] == split.indices[0] and split.taxonomy == Scenes().taxonomy


def test_lists_files_and_the_rest(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("clip0/1.png\n./2.png\n")
    parts = {"val": "val.txt", "test": ["4", "5.png"], "train": None}
    found = _parts(Scenes(length=8), parts, root=tmp_path)
    assert found == {"val": [1, 2], "test": [4, 5], "train": [0, 3, 6, 7]}
    mixed = _parts(Scenes(length=8), {"test": ["0"], "a": 0.5, "b": 0.5})
    assert mixed["test"] == [0] and sorted(mixed["a"] + mixed["b"]) == list(range(1, 8))


def test_groups_from_a_table(tmp_path: Path) -> None:
    lines = [f"clip{i // 3}/{i}.png,{i % 2}" for i in range(12)]
    (tmp_path / "groups.csv").write_text("\n".join(["image,group", *lines]))
    found = _parts(Scenes(length=12), {"a": 0.5, "b": 0.5}, groups_file="groups.csv", root=tmp_path)
    assert {tuple(sorted({i % 2 for i in part})) for part in found.values()} == {(0,), (1,)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"part": "vall"}, r"there is no part 'vall'; did you mean 'val'\?"),
        ({"parts": {"train": 0.5, "val": 0.4}}, "add up to 0.9"),
        ({"parts": {"train": 1.5, "val": -0.5}}, "train: expected a fraction"),
        ({"parts": {"train": float("nan"), "val": 1.0}}, "train: expected a fraction"),
        ({"parts": {"train": None, "val": None}}, "only one part can be the rest"),
        ({"parts": {"train": 1.0, "val": None}}, "nothing is left"),
        ({"parts": {"train": ["0"], "val": ["1"]}}, "3 image.* are in no part"),
        ({"parts": {"train": None, "val": ["9"]}}, r"val: '9': there is no image '9'"),
        ({"parts": {"train": ["0"], "val": ["0.png"]}}, "'0.png' is already in 'train'"),
        ({"parts": {"train": 0.99, "val": 0.01}}, "'val' has no images"),
        ({"parts": {"train": None, "val": "gone.txt"}}, "gone.txt: there is no such list"),
        ({"parts": {"train": None, "val": "empty.txt"}}, "empty.txt: the list is empty"),
        ({"parts": {"train": None, "val": "odd.txt"}}, "odd.txt: line 2: there is no image"),
        ({"groups": "("}, "not a regular expression"),
        ({"groups": "video"}, "clip0/0.png: Split: groups: the path does not match"),
        ({"groups": "clip", "groups_file": "x"}, "both a pattern and a file"),
        ({"groups_file": "gone.csv"}, "gone.csv: there is no such file"),
        ({"groups_file": "odd.txt"}, "odd.txt: the first line"),
        ({"groups_file": "some.csv"}, "there is no group for clip0/1.png"),
        ({"groups": r"clip\d", "parts": {"train": ["0"], "val": None}}, None),
        ({"groups": r"clip\d", "parts": {"train": ["0"], "val": ["1", "2", "3", "4"]}}, "same group in 'val'"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, options: dict[str, Any], words: str | None) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "odd.txt").write_text("0\nnobody\n")
    (tmp_path / "some.csv").write_text("image,group\n0,a\n")
    options = {"part": "val", "parts": {"train": 0.5, "val": 0.5}, "root": tmp_path} | options
    if words is None:
        # The rest goes by images; a list that takes one of a group takes it from the rest.
        with pytest.raises(DataError, match="same group"):
            Split(Scenes(), **options)
        return
    with pytest.raises(DataError, match=words) as found:
        Split(Scenes(), **options)
    assert "\n" not in str(found.value)


def test_a_name_that_fits_two_images_is_refused() -> None:
    class Twins(Scenes):
        def identity(self, index: int) -> tuple[int | str, str]:
            return f"id{index}", f"{'ab'[index % 2]}/{index // 2}.png"

    with pytest.raises(DataError, match=r"'0.png' fits 2 images, such as a/0.png and b/0.png"):
        Split(Twins(), "x", {"x": ["0.png"], "y": None})
    assert Split(Twins(), "x", {"x": ["b/0.png", "id0"], "y": None}).indices.tolist() == [0, 1]


def test_a_mixture_is_split_by_its_sources() -> None:
    with pytest.raises(DataError, match="split its sources"):
        Split(Mixture({"a": Scenes()}), "a", {"a": 1.0})


@pytest.mark.parametrize("groups", [None, r"clip\d+"])
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_disjoint_complete_and_never_divide_a_group(folds: int, groups: str | None) -> None:
    source = Scenes(length=31)
    found = [
        [Split(source, part, seed=4, groups=groups, folds=folds, fold=fold).indices.tolist() for fold in range(folds)]
        for part in ("train", "val")
    ]
    assert sorted(index for fold in found[1] for index in fold) == list(range(31))
    for train, val in zip(*found, strict=True):
        assert sorted(train + val) == list(range(31))
        if groups:
            assert not {index // 3 for index in train} & {index // 3 for index in val}
        assert abs(len(val) - 31 / folds) <= (1 if groups is None else 3)
    again = Split(Scenes(length=31), "val", seed=4, groups=groups, folds=folds, fold=1).indices.tolist()
    assert again == found[1][1] != Split(source, "val", seed=5, groups=groups, folds=folds, fold=1).indices.tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "set either `parts`, or `folds`"),
        ({"folds": 2, "parts": {"train": 0.5, "val": 0.5}}, "set either `parts`, or `folds`"),
        ({"folds": 1}, "folds: expected at least 2"),
        ({"folds": 3, "fold": 3}, "fold: expected 0 to 2"),
        ({"fold": 1, "parts": {"train": 0.5, "val": 0.5}}, "fold: expected 0 to 0"),
        # Whichever fold it is.
        *(
            (
                {"folds": 3, "fold": fold, "groups": "clip"},
                r"no images; the 4 images are in [12] groups; take fewer folds",
            )
            for fold in range(3)
        ),
        ({"folds": 3, "part": "test"}, "there is no part 'test'"),
    ],
)
def test_wrong_folds_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Split(Scenes(length=4), **{"part": "val"} | options)
