"""What is written as COCO is read again as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrnet_pl.data.exporting.coco_files import write_coco
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.data.sources.labelme import Labelme
from ocrnet_pl.data.sources.lvis import Lvis
from ocrnet_pl.data.sources.open_images import OpenImages
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_set_files import write_labelme, write_named_masks, write_open_images

CLASSES = {"CocoInstances": CocoInstances, "Lvis": Lvis}


def again(source: Source, folder: Path) -> Source:
    folder.mkdir()
    done: list[int] = []
    written = write_coco(source, "train", folder, tolerant=False, advance=done.append)
    assert done == [1, 2] and written.images == 2 and not written.skipped
    made: Any = CLASSES[written.source["class_path"]]
    opened: Source = made(**written.source["init_args"], root=folder)
    return opened


def test_boxes_masks_and_regions(tmp_path: Path) -> None:
    write_labelme(tmp_path / "data")
    before = Labelme(".", stuff=["soil"], root=tmp_path / "data")
    after = again(before, tmp_path / "coco")
    assert {c.name for c in after.taxonomy.semantic_categories} == {"background", "soil", "cat", "dog"}
    old, new = ([c.name for c in source.taxonomy.semantic_categories] for source in (before, after))
    for index in range(2):
        first, second = before[index], after[index]
        assert np.allclose(first.boxes, second.boxes, atol=1e-3) and first.labels.tolist() == second.labels.tolist()
        assert np.array_equal(first.instances, second.instances)  # type: ignore[arg-type]
        names = [
            np.array([*own, "ignored"])[np.minimum(s.semantic, len(own))]  # type: ignore[call-overload]
            for s, own in ((first, old), (second, new))
        ]
        assert np.array_equal(*names)


def test_what_each_image_was_labelled_for(tmp_path: Path) -> None:
    write_open_images(tmp_path / "data")
    options = {"descriptions": "names.csv", "image_labels": "verified.csv", "root": tmp_path / "data"}
    before = OpenImages(".", "boxes.csv", **options)  # type: ignore[arg-type]
    after = again(before, tmp_path / "coco")
    assert isinstance(after, Lvis)
    for index in range(2):
        first, second = before[index], after[index]
        assert first.supervision.detection.tolist() == second.supervision.detection.tolist()
        assert np.allclose(first.boxes, second.boxes, atol=1e-3) and first.crowd.tolist() == second.crowd.tolist()


def test_masks_without_objects_are_refused(tmp_path: Path) -> None:
    write_named_masks(tmp_path)
    source = LabelledFolder(".", masks=".", mask_suffix="_L", semantic_names="labelmap.txt", root=tmp_path)
    with pytest.raises(DataError, match=r"data\.val: there are no classes of objects"):
        write_coco(source, "val", tmp_path, tolerant=False, advance=lambda done: None)


def test_images_without_files_are_refused_at_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SyntheticSource(10**9)
    asked: list[int] = []

    def identity(index: int) -> tuple[int, str]:
        asked.append(index)
        assert len(asked) < 10, "it asks for all of a billion files"
        return index, f"synthetic-{index}"

    monkeypatch.setattr(source, "identity", identity)
    with pytest.raises(DataError, match="synthetic-0: it is no file"):
        write_coco(source, "train", tmp_path, tolerant=False, advance=lambda done: None)
