"""The long tail of formats by the Datumaro library, where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ocrnet_pl.data.sources.datumaro import DatumaroSet
from ocrnet_pl.errors import DataError
from tests.helpers.drawn_data import names, picture, window, write_json
from tests.helpers.map_files import maps


def kitti(root: Path) -> None:
    """A car at the left and a truck of which only part of the box is inside, as KITTI's text files say it."""
    for stem in ("000000", "000001"):
        picture(root / f"training/image_2/{stem}.png")
        rows = "Car 0.00 0 1.5 2 3 7 9 1 1 1 0 0 0 0\nTruck 0.00 0 1.5 10 1 14.5 6 1 1 1 0 0 0 0\n"
        (root / "training/label_2").mkdir(parents=True, exist_ok=True)
        (root / f"training/label_2/{stem}.txt").write_text(rows)


def test_without_the_library_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datumaro", None)
    with pytest.raises(DataError, match="DatumaroSet: the library is not installed; run `pip install datumaro`"):
        DatumaroSet(root=tmp_path)


def test_boxes_of_kitti(tmp_path: Path) -> None:
    pytest.importorskip("datumaro", reason="datumaro is not installed")
    kitti(tmp_path)
    source = DatumaroSet(format="kitti_detection", semantic=False, others="ignore", root=tmp_path)
    assert len(source) == 2
    labels = names(source.taxonomy.detection_categories)
    assert [labels[label] for label in source[0].labels] == ["Car", "Truck"]
    assert np.allclose(source[0].boxes, [[2, 3, 7, 9], [10, 1, 14.5, 6]], atol=1e-4)
    with pytest.raises(DataError, match="there is no subset 'val', only training"):
        DatumaroSet(format="kitti_detection", subset="val", root=tmp_path)
    with pytest.raises(DataError, match="Datumaro cannot read it"):
        DatumaroSet(format="nothing_like_it", root=tmp_path)


def test_masks_polygons_and_regions(tmp_path: Path) -> None:
    pytest.importorskip("datumaro", reason="datumaro is not installed")
    picture(tmp_path / "images/train/a.png")
    polygon = {"type": "polygon", "label_id": 0, "group": 0, "points": [2, 3, 7, 3, 7, 9, 2, 9], "attributes": {}}
    box = {"type": "bbox", "label_id": 0, "group": 0, "bbox": [10, 1, 4, 5], "attributes": {"is_crowd": True}}
    road = {"type": "polygon", "label_id": 1, "group": 0, "points": [0, 10, 20, 10, 20, 12, 0, 12], "attributes": {}}
    item = {"id": "a", "annotations": [{"id": n, "z_order": 0} | a for n, a in enumerate((polygon, box, road))]}
    item |= {"attr": {}, "image": {"path": "a.png", "size": [12, 20]}}
    labels = {"labels": [{"name": name, "parent": "", "attributes": []} for name in ("cat", "road")], "attributes": []}
    content = {"info": {}, "categories": {"label": labels}, "items": [item]}
    write_json(tmp_path / "annotations/train.json", content)
    source = DatumaroSet(format="datumaro", stuff=["road"], root=tmp_path)
    instances, semantic = maps(source[0])
    assert source[0].boxes.tolist() == [[2, 3, 7, 9], [10, 1, 14, 6]] and source[0].crowd.tolist() == [False, True]
    assert np.array_equal(instances, window({1: np.s_[3:9, 2:7]}))
    assert np.array_equal(semantic, window({2: np.s_[3:9, 2:7], 255: np.s_[1:6, 10:14], 1: np.s_[10:]}))
