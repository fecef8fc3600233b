"""Masks whose names have a suffix, beside their images or elsewhere, against maps written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import picture, window
from tests.helpers.map_files import maps, save

IDS = window({1: np.s_[3:9, 2:7], 2: np.s_[0:2, 10:14]}).astype(np.uint8)


def test_masks_and_maps_in_the_folder_of_the_images(tmp_path: Path) -> None:
    for stem in ("one_sat", "sub/two_sat"):
        picture(tmp_path / f"{stem}.png")
    for stem in ("one", "sub/two"):
        save(tmp_path / f"{stem}_mask.png", (IDS > 0).astype(np.uint8))
        save(tmp_path / f"{stem}_ids.png", IDS)
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\n0, ground\n1, cell\n")
    source = LabelledFolder(
        ".",
        ["cell"],
        masks=".",
        semantic_names="_classes.csv",
        instances=".",
        boxes_from_instances=True,
        image_suffix="_sat",
        mask_suffix="_mask",
        instance_suffix="_ids",
        root=tmp_path,
    )
    assert len(source) == 2
    instances, semantic = maps(source[1])
    assert np.array_equal(instances, IDS) and np.array_equal(semantic, IDS > 0)
    assert source[1].boxes.tolist() == [[2, 3, 7, 9], [10, 0, 14, 2]]
    # Without a suffix of the images, the maps that belong to one are still no images.
    picture(tmp_path / "other/one.png")
    save(tmp_path / "other/one_mask.png", IDS)
    plain = LabelledFolder("other", masks="other", semantic_names=["a", "b", "c"], mask_suffix="_mask", root=tmp_path)
    assert len(plain) == 1 and np.array_equal(plain[0].semantic, IDS)  # type: ignore[arg-type]


def test_colors_of_a_table(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    save(tmp_path / "labels/a_L.png", np.array([[0, 0, 0], [250, 50, 83], [9, 9, 9]], dtype=np.uint8)[IDS])
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nsoil,0,0,0\ncat,250,50,83\ndog,9,9,9\n")
    options = {"masks": "labels", "semantic_names": "class_dict.csv", "root": tmp_path}
    source = LabelledFolder("images", mask_suffix="_L", **options)  # type: ignore[arg-type]
    assert [c.name for c in source.taxonomy.semantic_categories] == ["soil", "cat", "dog"]
    assert source.taxonomy.semantic_categories[1].color == (250, 50, 83)
    assert source[0].semantic is not None and np.array_equal(source[0].semantic, IDS)
    with pytest.raises(DataError, match=r"there is no image 'a_L' in .*; set `mask_suffix: '_L'`"):
        LabelledFolder("images", **options)  # type: ignore[arg-type]
