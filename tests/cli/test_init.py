"""``init``: the config that it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ocrnet_pl.cli.data_choices import Statistics, input_size
from ocrnet_pl.cli.first_config import preset_of, with_all_classes
from ocrnet_pl.cli.main import main
from tests.helpers.config_data import photo, text, write_nuclei
from tests.helpers.drawn_data import picture, write_json


@pytest.mark.parametrize(
    ("size", "same", "side", "expected"),
    [
        ((1080, 1920), True, 60.0, [288, 512]),  # half a megapixel is enough for large objects
        ((1080, 1920), True, 20.0, [576, 1024]),  # small ones want more
        ((1080, 1920), False, 40.0, 768),
        ((3000, 4000), False, 5.0, 1024),
        ((256, 256), True, 10.0, 256),  # more than the images' own pixels shows nothing new
        ((100, 100), True, None, 256),
        ((500, 500), True, None, 512),
    ],
)
def test_the_size_follows_images_and_objects(
    size: tuple[int, int], same: bool, side: float | None, expected: int | list[int]
) -> None:
    assert input_size(Statistics(100, size, same, side, 10)).value == expected


def test_the_preset_follows_the_machine_and_the_number_of_images() -> None:
    few, many = (Statistics(count, (500, 500), True, None, 0) for count in (100, 1000))
    assert [preset_of(few, True)[0], preset_of(many, True)[0], preset_of(many, False)[0]] == ["small", "medium", "nano"]


def test_every_split_has_the_classes_of_all(tmp_path: Path) -> None:
    for split, label in (("train", "dog"), ("val", "cat")):
        picture(tmp_path / split / "a.jpg")
        write_json(tmp_path / split / "a.json", {"shapes": [{"label": label, "points": [[2, 3], [7, 3], [7, 9]]}]})
    sources = with_all_classes({split: ("Labelme", {"images": split}) for split in ("train", "val")}, tmp_path)
    assert [options["classes"] for _, options in sources.values()] == [["dog", "cat"]] * 2


def test_a_folder_becomes_a_config_and_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text(tmp_path / "my set/classes.txt", "cat\ndog\n")
    for number in range(5):
        photo(tmp_path / f"my set/images/{number}.jpg", number)
        text(tmp_path / f"my set/labels/{number}.txt", "1 0.5 0.5 0.5 0.5\n" * 60)
    main(["init", "my set", "--limit", "3"])
    said = capsys.readouterr().out
    assert "format: yolo_names, because labels/0.txt has rows of YOLO" in said and "no errors" in said
    config = yaml.safe_load(Path("my_set.yaml").read_text())
    assert config["name"] == "my_set"
    assert config["data"]["root"] == str(tmp_path / "my set") and config["data"]["batch_size"] == 2
    assert config["data"]["train"]["init_args"]["source"]["class_path"] == "Yolo"
    assert config["model"]["segmentation"] is None and config["model"]["detection"]["class_path"] == "AnchorFreeDecoder"
    decode = config["model"]["postprocess"]["init_args"]["decode"]
    assert decode["init_args"]["max_detections"] == 200 and Path("runs/my_set/check/check.html").exists()
    with pytest.raises(SystemExit) as stop:
        main(["init", "my set"])
    assert stop.value.code and "my_set.yaml: the file exists" in capsys.readouterr().err


def test_all_entries_that_cannot_be_used_are_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_nuclei(tmp_path / "set")
    content = json.loads((tmp_path / "set/instances_train.json").read_text())
    content["annotations"][1]["image_id"], content["annotations"][2]["image_id"] = 999, "lost"
    text(tmp_path / "set/instances_train.json", json.dumps(content))
    with pytest.raises(SystemExit) as stop:
        main(["init", "set"])
    said = capsys.readouterr()
    where = "set/instances_train.json: annotations[{}].image_id: there is no image {}"
    assert where.format(1, "999") in said.out and where.format(2, "'lost'") in said.out
    assert stop.value.code == 1 and not Path("set.yaml").exists()
    first = where.format(1, "999")
    assert said.err.endswith(f"set.yaml is not written before the errors above are mended; the first: {first}\n")
