"""Small inputs as people bring them, from ``../shared/cases``: each is read as it is meant, or refused in one line.

What the cases teach is tested elsewhere with data of the tests' own; this runs all of them.
"""

from __future__ import annotations

import csv
import importlib
import os
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocrnet_pl.data import sources
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.doctor.check import check
from ocrnet_pl.doctor.findings import FindingLog
from ocrnet_pl.doctor.result import Recipe
from ocrnet_pl.errors import DataError

CASES = Path(os.environ.get("OCRNET_PL_CASES", Path(__file__).resolve().parents[2].parent / "shared" / "cases"))

NAMES = sorted(path.name for path in CASES.iterdir() if path.is_dir()) if CASES.is_dir() else []

SIDES = {"cat": (24, 30), "dog": (30, 26)}
"""Width and height of every object in the drawn scenes."""

READ = (
    *("c02_roboflow_same_name", "c06_labelstudio_windows", "c06b_labelstudio_media", "c07_iscrowd_text"),
    *("c08_rle_bytes_text", "c10_no_width_height", "c10b_zero_size", "c11b_mixed_ids", "c13_float_ids"),
    *("c14b_bbox_missing", "c14g_some_zero_boxes", "c17_same_names", "c18_absolute", "c20_url_encoded", "c21_nfd"),
    *("c22b_case", "c27_bom", "c28_image_twice", "c29_background_category", "f08b_one_folder_two_csv"),
    *("h11b_cvat_mask", "v02_labelimg_flat", "v02b_labelimg_list", "v03_difficult_text", "v11c_bom", "v13_spaces"),
    "y10b_bom",
)
"""Cases of which every image has a cat and a dog, and nothing else."""

_ROWS = [("label_2", 4, 2), ("label_4", 2, 3)]
OBJECTS = {
    "y03_cvat_train_txt": _ROWS,
    "y03b_list": _ROWS,
    "y04_pose2": [("skeleton_label", 4, 2)],
    "y04b_pose3": [("skeleton_label", 4, 2)],
}
"""Cases with other objects in their only image."""

REFUSED = {
    "c26_lvis": "each image was labelled for some of the classes only; read it with `Lvis`",
    "c09_rle_size_swapped": r"annotations\[0\].segmentation.size: it is \[96, 64\].*write \[height, width\]",
    "c09c_rle_truncated": "a mask of image 1 is broken",
    "f03c_binary_jpeg": r"there are no masks, only files that end in \.jpg",
    "f04d_same_folder_grey": "this is one of the images",
    "f06b_tf_csv_resized": "line 2: it is 48 x 32, but .* is 96 x 64",
    "f06c_retinanet": "the table has no header",
    "f04_suffix": "set `mask_suffix: '_mask'`",
    "f07_openimages": "read it with `OpenImages`",
    "h11c_cvat_mask_as_voc": "read masks of colors with `LabelledFolder`",
    "h16_ls_brush": "`ObjectMasks` reads masks of one object each",
    "v05b_other_class": "there is no class 'bird'.*others: ignore",
    "y04c_pose4x2": "no label is a polygon",
    "y07_conf": "a box and a confidence",
    "y07d_track_small": "a box, a confidence and a track",
    "y08_labelstudio": "set `data: classes.txt`",
    "y09_cvat_yolo11": "set `data: obj.data`",
    "y15_boxes_with_seg_config": "no label is a polygon",
}

FOUND = {
    "c04_cvat_brush": "only_crowds",
    "c09e_rle_rows": "masks_elsewhere",
    "c38_ignore": "only_crowds",
    "f03_binary_list": "only_void",
    "v06_negative": "box_outside",
    "v16_binary_255": "only_void",
}
"""What the check has to find."""


def _classes() -> Iterator[tuple[str, type[Source]]]:
    for module in pkgutil.iter_modules(sources.__path__):
        content = vars(importlib.import_module(f"{sources.__name__}.{module.name}"))
        yield from ((name, value) for name, value in content.items() if isinstance(value, type))


def _recipes(case: Path) -> dict[str, Recipe]:
    classes = dict(_classes())
    config = yaml.safe_load((case / "my.yaml").read_text(encoding="utf-8"))["data"]
    recipes: dict[str, Recipe] = {}
    for split in ("train", "val"):
        source, arguments = classes[config[split]["class_path"]], config[split]["init_args"] | {"root": case}

        def make(source: type[Source] = source, arguments: dict[str, Any] = arguments, **changes: Any) -> Source:
            return source(**arguments | changes)

        recipes[split] = Recipe(make, source, arguments)
    return recipes


def _objects(make: Callable[[], Source]) -> list[list[tuple[str, float, float]]]:
    """Return the class, the width and the height of each object of each image."""
    source = make()
    names = [category.name for category in source.taxonomy.detection_categories]
    found = []
    for index in range(len(source)):
        sample = source[index]
        assert not sample.crowd.any()
        boxes = zip(sample.labels.tolist(), sample.boxes.tolist(), strict=True)
        found.append([(names[label], round(x1 - x0, 3), round(y1 - y0, 3)) for label, (x0, y0, x1, y1) in boxes])
    return found


def _read_all(make: Callable[[], Source]) -> None:
    source = make()
    for index in range(len(source)):
        source[index]


@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is missing")
@pytest.mark.parametrize(
    "name", sorted(path.name for path in CASES.iterdir() if path.is_dir()) if CASES.is_dir() else []
)
def test_a_case(name: str, tmp_path: Path) -> None:
    recipes = _recipes(CASES / name)
    make = recipes["train"].make
    if name in READ:
        expected = [(label, *sides) for label, sides in SIDES.items()]
        assert _objects(make) == [expected] * len(make())
    elif name in OBJECTS:
        assert _objects(make) == [OBJECTS[name]]
    elif name in REFUSED:
        with pytest.raises(DataError, match=REFUSED[name]):
            _read_all(make)
    else:
        try:
            _read_all(make)
        except DataError as error:
            assert "\n" not in str(error)
    with (tmp_path / "findings.csv").open("w", newline="") as file:
        options: dict[str, Any] = {"input_size": (96, 96), "object_limit": None, "workers": 0, "limit": None}
        log = FindingLog(file)
        check(recipes, **options, log=log, folder=tmp_path)
    with (tmp_path / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if name in FOUND:
        assert FOUND[name] in {row["kind"] for row in rows}
    if name in REFUSED:
        words = REFUSED[name]
        assert any(row["level"] == "error" and re.search(words, f"{row['field']}: {row['message']}") for row in rows)


@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is missing")
def test_instances_that_count_from_zero() -> None:
    source = _recipes(CASES / "h9_mapillary")["train"].make()
    assert len(source[0].boxes) == 3
