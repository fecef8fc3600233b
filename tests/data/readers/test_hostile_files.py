"""Files that were written to do harm, one by one; what damaged files do by chance is in test_fuzzed_readers.py."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from faster_coco_eval.core import mask as mask_api
from PIL import Image

from ocrnet_pl.cli.main import main
from ocrnet_pl.cli.parser import Parser
from ocrnet_pl.data.readers import yaml_text
from ocrnet_pl.data.readers.coco_arrays import check_runs
from ocrnet_pl.data.readers.folder_index import FolderIndex
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.data.sources.labelled_folder import LabelledFolder
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.suffixes import IMAGE_SUFFIXES
from ocrnet_pl.storage.ordinary_files import open_file, read_text
from ocrnet_pl.structures import Taxonomy
from tests.helpers.fuzzing import bounded, judge
from tests.helpers.mutations import BOMB, replace_file
from tests.helpers.packed_data import assert_same
from tests.helpers.small_sets import SETS


def _change(root: Path, file: str, keys: tuple[Any, ...], value: Any) -> None:
    content = json.loads((root / file).read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    # Integers of any length, and what JSON has no number for.
    text = (
        json.dumps(content).replace('"9e400"', "9" * 400).replace('"9e5000"', "9" * 5000).replace('"deep"', "[" * 9999)
    )
    (root / file).write_text(text)


def _refused(name: str, root: Path) -> str:
    verdict = judge(SETS[name], root)
    assert verdict.kind == "refused", verdict
    return verdict.text


MASK = ("annotations", 0, "segmentation")


@pytest.mark.parametrize(
    ("name", "file", "keys", "value", "words"),
    [
        ("coco", "instances.json", ("annotations", 0, "bbox"), [0, 0, "9e400", 5], "annotations[0].bbox: expected 4"),
        ("coco", "instances.json", ("annotations", 0, "bbox"), [0, 0, 1e308, 5], "annotations[0].bbox: expected 4"),
        ("coco", "instances.json", ("images", 0, "id"), "9e400", "images[0].id: expected an integer"),
        ("coco", "instances.json", ("images", 0, "height"), 1 << 40, "images[0].height: expected at most"),
        ("coco", "instances.json", ("images", 0, "id"), "9e5000", "an integer has thousands of digits"),
        ("coco", "instances.json", ("info",), "deep", "nested too deeply"),
        ("coco", "instances.json", ("images", 0, "file_name"), "a\0.png", "images[0].file_name: expected text"),
        ("coco", "instances.json", ("categories", 0, "name"), "\ud800", "categories[0].name: expected text"),
        ("coco", "instances.json", MASK, [["9e400"] * 6], "annotations[0].segmentation: a polygon is not"),
        ("coco", "instances.json", MASK, [[0, 0, 1e15, 0, 1e15, 1e15]], "an outline is far outside"),
        ("coco", "instances.json", MASK, [[0, 0, 1e8, 0, 1e8, 1e8]], "the outline is 3e+08 pixels long"),
        ("coco", "instances.json", (*MASK, "counts"), 5, "annotations[0].segmentation.counts: expected the lengths"),
        ("coco", "instances.json", (*MASK, "counts"), [5, 5], "the runs add up to 10 pixels, but the image has 240"),
        ("coco", "instances.json", (*MASK, "counts"), [-5, 245], "counts: expected the lengths of runs"),
        ("coco", "instances.json", (*MASK, "counts"), "garbage", "a mask of image 1 is broken"),
        ("coco", "instances.json", (*MASK, "counts"), "PPPPPPPPPPPPPPPPPPP1", "a mask of image 1 is broken"),
        ("coco", "instances.json", (*MASK, "size"), [10**6, 10**6], "segmentation.size: it is [1000000, 1000000]"),
        ("coco panoptic", "panoptic.json", ("categories", 0, "color"), [1, 2, 1e6], "categories[0].color"),
        ("coco panoptic", "panoptic.json", ("categories", 0, "id"), "9e400", "categories[0].id: expected an integer"),
        ("coco panoptic", "panoptic.json", ("images", 0, "id"), "deep", "nested too deeply"),
        ("coco stuff", "names.json", ("categories", 0, "id"), -2, "names.json: -2: no pixel can have the value"),
        ("coco stuff", "names.json", ("categories",), "deep", "nested too deeply"),
        ("bdd100k", "frames.json", (0, "labels"), 5, "frames[0].labels: expected a list, found 5"),
        ("bdd100k", "frames.json", (0, "labels", 0, "attributes"), 5, "labels[0].attributes: expected an object"),
        ("bdd100k", "frames.json", (0, "name"), "9e5000", "an integer has thousands of digits"),
        ("packed", "set/packed.json", ("taxonomy", "categories", 0, "color"), [1, 2], "packed.json: a field is"),
        ("packed", "set/packed.json", ("samples",), "9e400", "packed.json: a field is missing or wrong"),
        ("packed", "set/packed.json", ("parts",), [["a", 0, 99, 1.0]], "packed.json: a field is missing or wrong"),
        ("packed", "set/packed.json", ("source",), "deep", "nested too deeply"),
        ("packed members", "member.json", ("labels",), [0, 7], "labels: expected integers from 0 and below 2"),
        ("packed members", "member.json", ("boxes",), [[0, 0, 1e308, 5]] * 2, "boxes: expected four finite numbers"),
        ("packed members", "member.json", ("channels",), 2**40, "`size` or `channels` is wrong"),
        ("packed members", "member.json", ("size",), [10**6, 10**6], "its pixels are damaged"),
    ],
)
def test_a_value_that_no_array_can_hold_is_named(
    tmp_path: Path, name: str, file: str, keys: tuple[Any, ...], value: Any, words: str
) -> None:
    SETS[name].write(tmp_path)
    _change(tmp_path, file, keys, value)
    assert words in _refused(name, tmp_path)


def test_the_check_draws_no_mask_of_a_size_that_no_image_has(tmp_path: Path) -> None:
    SETS["coco"].write(tmp_path)
    _change(tmp_path, "instances.json", ("annotations", 0), {"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2]})
    _change(tmp_path, "instances.json", ("images", 0, "height"), 1 << 30)
    assert "images[0]: the size is 20 x 1073741824" in _refused("coco", tmp_path)


def test_a_size_that_no_image_has_makes_no_tiles(tmp_path: Path) -> None:
    SETS["coco tiled"].write(tmp_path)
    for place in (0, 2):
        _change(tmp_path, "instances.json", ("annotations", place, "segmentation"), None)
    for side in ("height", "width"):
        _change(tmp_path, "instances.json", ("images", 0, side), (1 << 31) - 1)
    assert "a.png: Tiled: an image of 2147483647 x 2147483647 makes" in _refused("coco tiled", tmp_path)


@pytest.mark.parametrize("name", ["coco", "coco panoptic", "coco stuff", "voc", "bdd100k", "yolo", "folder", "table"])
def test_only_ordinary_files_are_opened(tmp_path: Path, name: str) -> None:
    """A pipe, a device or a link to itself in the place of each annotation file, none of which may be waited for."""
    kinds = (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path), Path.mkdir)
    for file in sorted({file for file in SETS[name].files if not file.endswith(".png")}):
        for number, replace in enumerate(kinds):
            root = tmp_path / file.replace("/", "-") / str(number)
            root.mkdir(parents=True)
            SETS[name].write(root)
            (root / file).unlink()
            replace(root / file)
            text = _refused(name, root)
            # A list that is a folder now may be taken for a folder of images, and a link to itself for nothing.
            assert "cannot be read" in text or (number > 1 and "there is no" in text)


def test_ordinary_files(tmp_path: Path) -> None:
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfa\xc3\xa9")
    assert read_text(tmp_path / "marked.txt") == "aé"
    (tmp_path / "large.txt").write_bytes(b"")
    os.truncate(tmp_path / "large.txt", 1 << 40)
    with bounded(), pytest.raises(DataError, match="the labels has more than 1 MiB"):
        read_text(tmp_path / "large.txt", "labels", 1 << 20)
    for content, words in ((b"a\0b", "a NUL"), (b"\xfe\xfda", "invalid start byte at byte 0")):
        (tmp_path / "wrong.txt").write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_text(tmp_path / "wrong.txt")
    with pytest.raises(DataError, match="embedded null"):
        open_file("a\0b")
    (tmp_path / "link.txt").symlink_to(tmp_path / "absent.txt")
    with pytest.raises(DataError, match=r"link\.txt: there is no such list, only a link to it; mend the link"):
        open_file(tmp_path / "link.txt", "list")


def test_an_error_is_one_short_line_whatever_the_file_says() -> None:
    error = DataError.at("a.json", f"no class '\x1b[31m\n\ud800{'x' * 10**6}'", field="y" * 10**6)
    assert str(error).isprintable() and len(str(error)) < 1500


def test_runs_are_checked_as_the_mask_library_reads_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        pixels = np.asfortranarray(rng.random((height, width)) < rng.random() ** 3, dtype=np.uint8)
        counts = mask_api.encode(pixels)["counts"]
        check_runs(counts, height * width)
        with pytest.raises(ValueError, match="adds up to"):
            check_runs(counts, height * width + 1)
    accepted = 0
    for length in range(1, 4):
        for _ in range(2000):
            counts = bytes(rng.integers(40, 118, length).tolist())
            try:
                mask_api.decode({"size": [6, 5], "counts": counts})
                sound = True
            except (ValueError, RuntimeError):
                sound = False
            try:
                check_runs(counts, 30)
            except ValueError:
                continue
            assert sound, counts
            accepted += 1
    assert accepted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "its aliases expand to more than"),
        ("a: &a [*a]", "is inside the value that it refers to"),
        ("[" * 99_999, "nest"),
        ("{a: " * 5000, "nest"),
        ("\n".join(["a0: &a0 [x]", *(f"a{i + 1}: &a{i + 1} [*a{i}]" for i in range(200))]), "or 100 levels"),
        ("a: " + "9" * 5000, "a number or date of 5000 characters"),
        ("a: 0x" + "f" * 5000, "a number or date of 5002 characters"),
        ("a: " + "1:" * 5000 + "1", "a number or date of 10001 characters"),
        ("a: !!int x", "not of the type it is marked as"),
        ("a: !!timestamp x", "not of the type it is marked as"),
        ("a: 2024-99-99", "not of the type it is marked as"),
        ("a: !!python/object/apply:os.system [ls]", "there is no type 'os.system'"),
        ("#" * (2 << 20), "more than 1 MiB"),
    ],
)
def test_harmful_yaml(tmp_path: Path, text: str, words: str) -> None:
    with bounded(), pytest.raises(yaml_text.YamlError, match=words):
        yaml_text.load(text)
    SETS["yolo"].write(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    assert "data.yaml" in _refused("yolo", tmp_path)


def test_yaml_with_ordinary_aliases_is_what_it_was() -> None:
    text = "a: &a {x: 1, y: [1, 2.5, ~]}\nb: *a\nc: {<<: *a, x: 2}\nd: 2024-01-02\n"
    assert yaml_text.load(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nc: 300000000", "data.yaml: nc: expected the number of classes, at most 100000"),
        ("names: {0: cat, 99999999999: dog}", "data.yaml: names: expected ids from 0"),
        ("names: {0: cat, 1: {a: b}}", "data.yaml: names.1: expected a unique name"),
        ('path: "~\\0x"', "data.yaml: path: expected a folder"),
        (f"path: {'x' * 5000}", "data.yaml: path: there is no folder"),
        ("train: 5", "data.yaml: train: expected a folder or a list file"),
        (f"train: {'x' * 5000}", "data.yaml: train: "),
    ],
)
def test_harmful_descriptions_of_yolo_data(tmp_path: Path, line: str, words: str) -> None:
    SETS["yolo"].write(tmp_path)
    content = yaml.safe_load((tmp_path / "data.yaml").read_text())
    del content["nc"]
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({k: v for k, v in content.items() if k not in line}) + line)
    assert words in _refused("yolo", tmp_path)


def test_many_classes_are_no_matter_of_squares() -> None:
    with bounded(5):
        assert Taxonomy.build(things=[f"class{i}" for i in range(40_000)], segmented=()).num_detection == 40_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotation>" + "<a>" * 200_000, "nests them more than 100 deep"),
        ("<annotation>" + "<a/>" * 200_001 + "</annotation>", "more than 200000 elements"),
        ('<?xml version="1.0" encoding="foo"?><annotation/>', "not valid XML"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type"),
    ],
)
def test_harmful_xml(tmp_path: Path, content: str, words: str) -> None:
    SETS["voc"].write(tmp_path)
    (tmp_path / "Annotations/b.xml").write_text(content)
    assert words in _refused("voc", tmp_path)


def test_a_map_of_noise_is_refused_before_it_takes_the_memory(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "maps").mkdir()
    (tmp_path / "masks").mkdir()
    side = 300
    Image.new("RGB", (side, side)).save(tmp_path / "images/a.png")
    Image.fromarray(np.ones((side, side), dtype=np.uint8)).save(tmp_path / "masks/a.png")
    numbers = np.arange(side * side).reshape(side, side)
    Image.fromarray(np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], 2).astype(np.uint8)).save(
        tmp_path / "maps/a.png"
    )
    source = LabelledFolder(
        "images",
        classes=["cat"],
        masks="masks",
        semantic_names=["ground", "cat"],
        instances="maps",
        boxes_from_instances=True,
        root=tmp_path,
    )
    with bounded(), pytest.raises(DataError, match=r"maps/a\.png: it has 89999 instances, more than 65535"):
        source[0]


def test_folders_that_are_linked_into_themselves_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/1.png").touch()
    (tmp_path / "b/2.png").touch()
    for number in range(3):
        (tmp_path / f"a/self{number}").symlink_to(tmp_path / "a")
        (tmp_path / f"a/up{number}").symlink_to(tmp_path)
    (tmp_path / "a/b").symlink_to(tmp_path / "b")
    (tmp_path / "b/a").symlink_to(tmp_path / "a")
    with bounded():
        found = FolderIndex(tmp_path, "images").walk(IMAGE_SUFFIXES)
    assert found == ["a/1.png", "b/2.png"]


def test_a_damaged_index_is_refused_or_read_anew(tmp_path: Path) -> None:
    """Every byte of an index, one after the other; of a packed set it is refused, of a JSON it is read anew."""
    SETS["packed"].write(tmp_path)
    index = tmp_path / "set/index.safetensors"
    content = index.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 100):
        index.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        assert "index.safetensors" in _refused("packed", tmp_path)


def test_a_damaged_copy_of_an_index_is_fetched_again(tmp_path: Path) -> None:
    SETS["packed"].write(tmp_path)

    def opened() -> Packed:
        return Packed(f"file://{tmp_path / 'set'}", cache=tmp_path / "cache", cache_gb=0.1)

    sound = opened()[1]
    (copy,) = (tmp_path / "cache").rglob("index.safetensors")
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(bytes(content))
    assert_same(opened()[1], sound)


def test_a_cache_on_a_disk_does_not_give_back_what_the_disk_has_changed(tmp_path: Path) -> None:
    SETS["cached"].write(tmp_path)
    sound = [sample.semantic.clone() for sample in SETS["cached"].open(tmp_path)]
    data = bytearray((tmp_path / "cached.data").read_bytes())
    for place in range(0, len(data), 7):
        data[place] ^= 1
    (tmp_path / "cached.data").write_bytes(bytes(data))
    changed = [sample.semantic for sample in SETS["cached"].open(tmp_path)]
    assert all(bool((one == two).all()) for one, two in zip(sound, changed, strict=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "line 6: this is not usable YAML (its aliases expand to more than"),
        ("data: " + "[" * 99_999, "nest"),
        ("data: &a [*a]", "an alias is inside the value that it refers to"),
        ("trainer: {max_epochs: " + "9" * 5000 + "}", "line 1: this is not usable YAML (a number or date of 5000"),
        ("data: [1, 2]", "line 1: data: expected keys, found a list"),
        ("a\0b: 1", "not a text file in UTF-8"),
    ],
)
def test_harmful_configs_end_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (tmp_path / "harmful.yaml").write_text(text)
    with bounded(), pytest.raises(SystemExit) as stopped:
        main(["check", "--config", str(tmp_path / "harmful.yaml")])
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and len(message.splitlines()) == 1 and "harmful.yaml" in message
    assert words in message


def test_a_config_in_a_pipe_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with bounded(), pytest.raises(SystemExit) as stopped:
        main(["check", "--config", str(tmp_path / "pipe.yaml")])
    assert stopped.value.code == 2 and "it is a named pipe" in capsys.readouterr().err


def test_a_value_that_fills_screens_is_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Parser, "words", ["check"], raising=False)
    parser = Parser()
    parser.add_argument("--size", type=int)
    with bounded(), pytest.raises(SystemExit) as stopped:
        parser.parse_args([f"--size=[{'x, ' * 4000}]"])
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and len(message) < 2100 and len(message.splitlines()) == 1


def test_what_stands_in_a_files_place(tmp_path: Path) -> None:
    """The fuzzer's own replacements are what they claim."""
    kinds = set()
    for seed in range(20):
        path = tmp_path / f"x{seed}"
        path.touch()
        replace_file(path, random.Random(seed))
        kinds.add(path.lstat().st_mode >> 12 if os.path.lexists(path) else 0)
    assert len(kinds) >= 4
