"""The check as a user runs it: the command line, the page, the corrected copy."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.doctor.examine import Split
from ocrnet_pl.doctor.findings import Finding, Kind
from ocrnet_pl.doctor.pictures import draw
from ocrnet_pl.doctor.result import Recipe
from tests.helpers.doctor_data import (
    above_note,
    check,
    config,
    examine,
    findings,
    load,
    of_image,
    pixels_of,
    recipe,
    rolled,
    run,
    save,
    set_pixels,
    write_clean,
)
from tests.helpers.doctor_plants import plant_exif, plant_truncated
from tests.helpers.project import ROOT


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data"))


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


def both(root: Path, **more: Any) -> dict[str, Recipe]:
    return {split: recipe(root, split, **more) for split in ("train", "val")}


class Outline(HTMLParser):
    """Collects a page's tags, and checks that they close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_clean_data_ends_with_status_0(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(data)
    assert check("--config", config(data, tmp_path / "c.yaml")) == 0
    said = capsys.readouterr().out
    assert "no errors, no warnings, no notes" in said
    assert "runs/planted/check/check.html" in said
    assert findings(tmp_path / "runs" / "planted" / "check") == []
    assert snapshot(data) == before
    # No network, no run.
    assert [p.name for p in (tmp_path / "runs" / "planted").iterdir()] == ["check"]


def test_the_counts_are_those_of_the_annotations(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examine(data, tmp_path / "out")
    content = load(data)
    said = capsys.readouterr().out
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    for category_id, name in names.items():
        own = [entry for entry in content["annotations"] if entry["category_id"] == category_id]
        pixels = sum(int(pixels_of(entry).sum()) for entry in own)
        images = len({entry["image_id"] for entry in own})
        share = pixels / (24 * 96 * 128)
        assert re.search(rf"{name}\W+{images} / {len(own)} / {share:.1%}", said), (name, said)
    page = (tmp_path / "out" / "check.html").read_text()
    assert '<b class="good">0</b>errors' in page
    assert f"{len(content['annotations']) + len(load(data, 'val')['annotations']):,}</b>boxes" in page


def test_the_page_stands_alone_and_shows_pictures(data: Path, tmp_path: Path) -> None:
    content = load(data)
    content["categories"][0]["name"] = content["categories"][0]["name"] + "<script>"
    for place in (0, 20, 40):
        x, y, width, height = content["annotations"][place]["bbox"]
        content["annotations"][place]["bbox"] = [x + 200, y, width, height]
    save(data, "train", content)
    plant_truncated(data, content)
    # One is of a class that the other split does not have: a fourth error.
    assert run(both(data), tmp_path / "out") == 5
    page = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(page)
    assert not outline.open
    assert "<script" not in page
    assert {tag for tag, _ in outline.tags}.isdisjoint({"link", "script", "iframe"})
    sources = [attributes["src"] or "" for tag, attributes in outline.tags if tag == "img"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r"https?://|url\(", page)
    pictures = [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]
    assert len(pictures) >= 4
    # The first fault's box is drawn in red.
    reds = [np.asarray(picture.convert("RGB")).astype(int) for picture in pictures]
    assert max(int(((p[..., 0] > 200) & (p[..., 1] < 90) & (p[..., 2] < 110)).sum()) for p in reds) > 200
    assert len([tag for tag, _ in outline.tags if tag == "svg"]) >= 3
    anchors = {attributes.get("id") for _, attributes in outline.tags}
    links = [attributes["href"] for tag, attributes in outline.tags if tag == "a"]
    assert links and all(link[1:] in anchors for link in links if link)


def test_the_terminal_says_what_to_do_and_breaks_no_path(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    content = load(data)
    place = of_image(content, 4)[0]
    content["annotations"][place]["bbox"] = [400, 20, 30, 30]
    save(data, "train", content)
    assert run(both(data), tmp_path / "out") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("error ")] == ["error Boxes outside the image (1)"]
    (where,) = [line for line in lines if "completely outside" in line]
    assert f"{data / 'train' / 'train_004.jpg'}: annotations[{place}].bbox: completely outside: x 400 to 430" in where
    said = " ".join(" ".join(lines).split())
    assert Kind.BOX_OUTSIDE.value.meaning in said and Kind.BOX_OUTSIDE.value.advice in said
    assert "--fix FOLDER writes a corrected COCO copy there" in said


@pytest.mark.parametrize("left", [200, 400, -90, -300])
def test_the_picture_of_a_box_beside_the_image_shows_both(clean: Path, left: int) -> None:
    finding = Finding(Kind.BOX_OUTSIDE, "train", "", index=4, box=(left, 20, left + 30, 50))
    picture = draw(finding, {"train": Split("train", recipe(clean, "train").make())})
    assert picture is not None
    pixels = np.asarray(picture).astype(int)
    grey = (pixels == (96, 100, 108)).all(2)
    # The image is a part of the picture in its own shape; what is beside it is grey, but for the box.
    columns = np.flatnonzero(grey.mean(0) < 0.3)
    assert len(columns) == pytest.approx(picture.height * 128 / 96, abs=8)
    reds = np.flatnonzero(((pixels[..., 0] > 200) & (pixels[..., 1] < 90)).sum(0) > 15)
    assert (reds > columns[-1]).any() if left > 0 else (reds < columns[0]).any()


def test_the_embedded_data_is_clean(tmp_path: Path) -> None:
    root = ROOT
    words = ["--config", root / "configs" / "quickstart.yaml", "--output", tmp_path, "--limit", 24]
    assert check(*words) == 0
    assert not above_note(findings(tmp_path))


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["--limt", "3"], 2, "limt"),
        (["--limit", "0"], 2, "limit"),
        (["--data.trian", "x"], 2, "data.trian"),
        (["--model.encoder", "TimEncoder"], 2, "TimmEncoder"),
        (["--data.train", "null", "--data.val", "null"], 1, "data.train"),
        (["--data.train", "SyntheticSource", "--data.train.length", "0"], 1, "data.train"),
    ],
)
def test_a_mistake_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, expected: str
) -> None:
    capsys.readouterr()
    found = check("--config", config(data, tmp_path / "c.yaml"), "--output", tmp_path / "out", *words)
    message = capsys.readouterr().err
    assert found == status
    assert len(message.splitlines()) == 1 and expected in message


def plant_all(root: Path) -> None:
    """Plant what --fix corrects."""
    content = load(root)
    entries = content["annotations"]
    entries[of_image(content, 2)[0]]["bbox"][2] = 0
    place = of_image(content, 3)[0]
    entries[place]["bbox"] = [entries[place]["bbox"][0], entries[place]["bbox"][1], 300, 300]
    entries.append(entries[of_image(content, 4)[1]] | {"id": 9000})
    x, y, width, height = entries[of_image(content, 5)[0]]["bbox"]
    entries[of_image(content, 5)[0]]["bbox"] = [x - 4, y - 4, width + 9, height + 8]
    entries[of_image(content, 6)[0]]["category_id"] = 999
    for place in of_image(content, 11):
        set_pixels(entries[place], rolled(pixels_of(entries[place]), 6, 0))
    plant_truncated(root, content)
    plant_exif(root, content)
    save(root, "train", content)


def test_fix_writes_a_copy_without_the_faults(data: Path, tmp_path: Path) -> None:
    original = load(data)
    plant_all(data)
    before = snapshot(data)
    copy = tmp_path / "fixed"
    assert run(both(data), tmp_path / "out", fix=copy)
    assert snapshot(data) == before
    assert sorted(p.name for p in copy.iterdir()) == [
        "data.yaml",
        "instances_train.json",
        "instances_val.json",
        "train",
        "val",
    ]
    # The copy's own config lies over the one that was checked.
    path = config(data, tmp_path / "c.yaml")
    assert check("--config", path, "--config", copy / "data.yaml", "--output", tmp_path / "again") == 0
    assert not above_note(findings(tmp_path / "again"))

    source = CocoInstances("train", "instances_train.json", root=copy)
    assert len(source) == len(original["images"]) - 1
    fixed = json.loads((copy / "instances_train.json").read_text())
    by_name = {image["file_name"]: image["id"] for image in fixed["images"]}
    assert "train_016.jpg" not in by_name
    for index in range(24):
        if index in (2, 6, 11, 16, 19):
            continue
        image_id = by_name[f"train_{index:03d}.jpg"]
        boxes = sorted(e["bbox"] for e in fixed["annotations"] if e["image_id"] == image_id)
        # Boxes of the clean set fit their masks: clipping and fitting must bring them back.
        truth = sorted(original["annotations"][i]["bbox"] for i in of_image(original, index))
        np.testing.assert_allclose(boxes, truth, atol=1e-3)
    # The EXIF-rotated image is upright as it was labelled.
    with Image.open(copy / "train" / "train_019.png") as image, Image.open(data / "train" / "train_019.jpg") as stored:
        assert 0x0112 not in image.getexif()
        np.testing.assert_array_equal(np.asarray(image), np.asarray(stored.convert("RGB")))
    # The image whose masks were shifted keeps its boxes.
    eleven = [e for e in fixed["annotations"] if e["image_id"] == by_name["train_011.jpg"]]
    assert sorted(e["bbox"] for e in eleven) == sorted(
        original["annotations"][i]["bbox"] for i in of_image(original, 11)
    )
    assert not any("segmentation" in e for e in eleven)


def test_fix_converts_boxes_of_another_format(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = load(data)
    truth = [list(entry["bbox"]) for entry in content["annotations"]]
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["bbox"] = [x, y, x + width, y + height]
        del entry["segmentation"]
    save(data, "train", content)
    assert run(both(data, semantic=False), tmp_path / "out", fix=tmp_path / "fixed") > 0
    assert f"  - train: {data / 'instances_train.json'}: they are two corners (xyxy)" in capsys.readouterr().out
    fixed = json.loads((tmp_path / "fixed" / "instances_train.json").read_text())
    np.testing.assert_allclose([e["bbox"] for e in fixed["annotations"]], truth, atol=1e-2)


def test_fix_makes_categories_agree(data: Path, tmp_path: Path) -> None:
    content = load(data, "val")
    content["categories"].reverse()
    save(data, "val", content)
    assert run(both(data), tmp_path / "out", fix=tmp_path / "fixed") == 1
    sources = [CocoInstances(s, f"instances_{s}.json", root=tmp_path / "fixed") for s in ("train", "val")]
    assert sources[0].taxonomy == sources[1].taxonomy
    original = CocoInstances("val", "instances_val.json", root=data)
    names = [[c.name for c in source.taxonomy.detection_categories] for source in (original, sources[1])]
    for index in range(len(original)):
        one, two = original[index], sources[1][index]
        assert [names[0][i] for i in one.labels] == [names[1][i] for i in two.labels]


def test_fix_refuses_a_folder_in_use_and_leaves_nothing_behind(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("keep")
    path = config(data, tmp_path / "c.yaml")
    assert check("--config", path, "--output", tmp_path / "out", "--fix", used) == 1
    assert "not empty" in capsys.readouterr().err
    assert [p.name for p in used.iterdir()] == ["mine.txt"]

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    assert check("--config", path, "--output", tmp_path / "out", "--fix", tmp_path / "new") == 1
    assert "No space left" in capsys.readouterr().err
    assert not [p for p in tmp_path.iterdir() if "new" in p.name]


def test_fix_writes_drawn_scenes_as_files(tmp_path: Path) -> None:
    drawn = SyntheticSource(length=6, seed=1)
    recipes = {
        "train": Recipe(lambda: drawn, SyntheticSource, {}),
        "val": Recipe(lambda: SyntheticSource(length=4, seed=2), SyntheticSource, {}),
    }
    assert run(recipes, tmp_path / "out", fix=tmp_path / "fixed") == 0
    source = CocoInstances("train", "instances_train.json", root=tmp_path / "fixed")
    for index in range(6):
        one, two = drawn[index], source[index]
        assert (one.image == two.image).all()
        assert (one.instances == two.instances).all()
