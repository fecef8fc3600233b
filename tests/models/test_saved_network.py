"""A network as a folder: predicts the same bit by bit, appears whole, and is not believed."""

from __future__ import annotations

import errno
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ocrnet_pl import CheckpointError, OCRNet, Prediction, SegmentationDecoder
from ocrnet_pl.inference.decode import Decode
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.object_context import ObjectContextDecoder
from ocrnet_pl.models.segmentation import SubPixelDecoder
from tests.helpers.builders import TAXONOMY, TinyEncoder, tiny_network

IMAGE = torch.randint(0, 256, (3, 71, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network(**changes: Any) -> OCRNet:
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "encoder": TinyEncoder(),
        "neck": lambda c, s: PathAggregationNeck(c, s, width=8),
        "detection": AnchorFreeDecoder,
        "segmentation": lambda s, t: SubPixelDecoder(s, t, width=8, detail=4),
        "postprocess": FusionPostProcess(Decode(score_threshold=0.0, max_detections=5), mask_threshold=0.0),
    }
    return OCRNet(TAXONOMY, **parts | changes, input_size=(64, 48)).eval()


def equal(one: Prediction, other: Prediction) -> bool:
    names = ("boxes", "scores", "labels", "semantic", "instances", "panoptic")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_what_was_saved_predicts_the_same(kind: torch.dtype, tmp_path: Path) -> None:
    made = network().to(kind)
    made.postprocess.load_settings(FusionSettings(claim=0.75, raw_boxes=("disc",)).to_dict(), TAXONOMY)
    made.save(tmp_path / "saved")
    loaded = OCRNet.load(tmp_path / "saved", trust="tests")
    assert not loaded.training and loaded.mean.dtype == kind
    assert loaded.parts == made.parts and loaded.postprocess.dump_settings() == made.postprocess.dump_settings()
    for name, value in made.state_dict().items():
        other = loaded.state_dict()[name]
        assert torch.equal(value, other) and value.dtype == other.dtype and value.stride() == other.stride(), name
    expected = made.predict(IMAGE)[0]
    assert len(expected.scores) == 5
    assert equal(loaded.predict(IMAGE)[0], expected)
    # And once more, from what was loaded.
    loaded.save(tmp_path / "again")
    assert equal(OCRNet.load(tmp_path / "again", trust=["tests"]).predict(IMAGE)[0], expected)


def test_tied_weights_and_a_single_type_of_another_kind_survive(tmp_path: Path) -> None:
    made = network()
    stages: Any = made.encoder.stages  # type: ignore[union-attr]
    stages[2].bias = torch.nn.Parameter(stages[2].bias.detach().to(torch.float64))
    stages[1].bias.data = stages[1].weight.data.permute(0, 2, 3, 1).view(-1)[: stages[1].bias.numel()]
    made.save(tmp_path / "saved")
    state = OCRNet.load(tmp_path / "saved", trust="tests").state_dict()
    for name, value in made.state_dict().items():
        assert torch.equal(value, state[name]) and value.dtype == state[name].dtype, name


def test_networks_of_one_task_without_a_neck_are_made_again(tmp_path: Path) -> None:
    alone = network(detection=None, segmentation=lambda s, t: ObjectContextDecoder(s, t))
    for index, made in enumerate((network(segmentation=None), alone)):
        made.save(tmp_path / str(index))
        assert equal(OCRNet.load(tmp_path / str(index), trust="tests").predict(IMAGE)[0], made.predict(IMAGE)[0])
    # A neck that nothing reads is left out, and still known.
    dropped = network(detection=None, segmentation=lambda s, t: Blind(s, t, width=8, detail=4))
    assert dropped.neck is None
    dropped.save(tmp_path / "blind")
    assert OCRNet.load(tmp_path / "blind", trust="tests").parts == dropped.parts
    assert dropped.parts.made["neck"]["init_args"] == {"width": 8, "finest": 4, "groups": 1}


class Blind(SubPixelDecoder):
    """Reads the encoder's maps alone."""

    reads_neck = False

    def __init__(self, shapes: Any, taxonomy: Any, width: int = 8, detail: int = 4) -> None:
        SegmentationDecoder.__init__(self)
        self.stride = shapes.encoder_strides[0]
        self.layer = torch.nn.Conv2d(shapes.encoder_channels[0], taxonomy.num_semantic, 1)

    def forward(self, features: Any) -> tuple[torch.Tensor, ...]:
        return (self.layer(features.encoder_maps[0]),)


class Threshold(TinyEncoder):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function


def test_what_cannot_be_recorded_is_given_again(tmp_path: Path) -> None:
    made = network(encoder=Threshold(torch.relu))
    made.save(tmp_path / "saved")
    with pytest.raises(CheckpointError) as refused:
        OCRNet.load(tmp_path / "saved", trust="tests")
    line = str(refused.value)
    assert "parts: no entry 'encoder' (argument 'function' of Threshold is the function relu" in line
    assert line.endswith("give it in Python: encoder=...") and "\n" not in line
    again = OCRNet.load(tmp_path / "saved", trust="tests", encoder=Threshold(torch.relu))
    assert equal(again.predict(IMAGE)[0], made.predict(IMAGE)[0])
    with pytest.raises(TypeError, match="a network has no part 'encodr'"):
        OCRNet.load(tmp_path / "saved", encodr=TinyEncoder())
    # A given post-processing has its own settings.
    given = OCRNet.load(tmp_path / "saved", encoder=Threshold(torch.relu), postprocess=FusionPostProcess(claim=0.5))
    assert given.postprocess.dump_settings()["claim"] == 0.5


def test_nothing_else_is_overwritten_and_nothing_is_left_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = network()
    folder = tmp_path / "saved"
    folder.mkdir()
    made.save(folder)
    with pytest.raises(FileExistsError, match="there is a network already; give another path, or overwrite=True"):
        made.save(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"beside a network there is 'notes\.txt'"):
        made.save(folder, overwrite=True)
    (folder / "notes.txt").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.png").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, line in (("other", r"something else, such as 'photo\.png'"), ("file", "is no folder")):
        with pytest.raises(FileExistsError, match=line):
            made.save(tmp_path / name, overwrite=True)
    before = (folder / "model.safetensors").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ocrnet_pl.storage.network_folder.json.dumps", full)
        for target in (folder, tmp_path / "new"):
            with pytest.raises(OSError, match="No space"):
                made.save(target, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"saved", "other", "file"}
    torch.nn.init.zeros_(made.encoder.stages[0].bias)  # type: ignore[union-attr,index,arg-type]
    made.save(folder, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"saved", "other", "file"}
    assert equal(OCRNet.load(folder, trust="tests").predict(IMAGE)[0], made.predict(IMAGE)[0])


SHELL = {"class_path": "os.system", "init_args": {"command": "touch was_here"}}

CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a class from elsewhere": lambda d: d["parts"].update(neck=SHELL),
    "a class within a part": lambda d: d["parts"]["postprocess"]["init_args"].update(decode=SHELL),
    "an option that nobody knows": lambda d: d["parts"]["neck"]["init_args"].update(evil=1),
    "a base class": lambda d: d["parts"]["neck"].update(class_path="ocrnet_pl.models.base.Neck"),
    "parts that are none": lambda d: d.update(parts=[1]),
    "no parts": lambda d: d.pop("parts"),
    "no neck": lambda d: d["parts"].pop("neck"),
    "reasons that are none": lambda d: d.update(unrecorded=[1]),
    "reasons of anything": lambda d: d.update(unrecorded={"neck": {"a": 1}}),
    "a huge side": lambda d: d.update(input_size=[64, 10**12]),
    "a huge number": lambda d: d.update(input_size=[64, 10**40]),
    "no taxonomy": lambda d: d.pop("taxonomy"),
    "a gap in the categories": lambda d: d["taxonomy"]["categories"].pop(0),
    "other categories": lambda d: d["taxonomy"]["categories"].pop(),
    "another version": lambda d: d.update(format=2),
    "no version": lambda d: d.pop("format"),
    "a type of numbers that is none": lambda d: d.update(dtype="os.system"),
    "whole numbers": lambda d: d.update(dtype="int64"),
    "settings that nobody knows": lambda d: d["fusion"].update(evil=1),
    "a text for a setting": lambda d: d["fusion"].update(claim="x"),
    "depth": lambda d: d.update(fusion=json.loads("[" * 500 + "]" * 500)),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "net"
    network().save(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path / "net")
    return tmp_path / "net"


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        OCRNet.load(folder, trust="tests")
    line = str(refused.value)
    assert "\n" not in line and len(line) < 600 + len(str(folder)) and not Path("was_here").exists()
    return line


@pytest.mark.parametrize("case", CHANGES)
def test_a_hostile_description_takes_one_line(case: str, copied: Path) -> None:
    path = copied / "network.json"
    description = json.loads(path.read_text())
    CHANGES[case](description)
    path.write_text(json.dumps(description))
    assert refusal(copied).startswith(f"network {str(copied)!r}: network.json")


@pytest.mark.parametrize("number", [8192, 10**9])
def test_a_number_that_would_fill_the_memory_is_refused_before_it_does(number: int, copied: Path) -> None:
    path = copied / "network.json"
    description = json.loads(path.read_text())
    description["parts"]["neck"]["init_args"]["width"] = number
    path.write_text(json.dumps(description))
    line = refusal(copied)
    assert "makes it much larger than the weights of the file" in line or number > 8192


@pytest.mark.parametrize("text", ["", "{", "[]", "nul", "[" * 100_000, "{}"])
def test_a_description_that_is_none_takes_one_line(text: str, copied: Path) -> None:
    (copied / "network.json").write_text(text)
    assert refusal(copied).startswith(f"network {str(copied)!r}: network.json: ")


def test_a_huge_description_is_not_read(copied: Path) -> None:
    with (copied / "network.json").open("ab") as file:
        file.truncate(2**25)
    assert "33,554,432 bytes are too large" in refusal(copied)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another shape": lambda h: h["first"].update(shape=[1]),
    "bytes beyond the end": lambda h: h["first"].update(data_offsets=[0, 10**9]),
    "bytes of another": lambda h: h["first"].update(data_offsets=[8, 12]),
    "a type that is none": lambda h: h["first"].update(dtype="PICKLE"),
    "whole numbers": lambda h: h["first"].update(dtype="I32"),
    "a negative side": lambda h: h["first"].update(shape=[-1]),
    "one weight less": lambda h: h.pop("first"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_header_that_lies_takes_one_line(case: str, copied: Path) -> None:
    path = copied / "model.safetensors"
    header, data = header_of(path)
    name = next(name for name in header if name != "__metadata__")
    own = {"first" if key == name else key: value for key, value in header.items()}
    LIES[case](own)
    text = json.dumps({name if key == "first" else key: value for key, value in own.items()}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    assert refusal(copied).startswith(f"network {str(copied)!r}")


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 64, struct.pack("<Q", 2**60) + b"{}"])
def test_weights_that_are_none_take_one_line(content: bytes, copied: Path) -> None:
    (copied / "model.safetensors").write_bytes(content)
    assert "model.safetensors: damaged, or not complete" in refusal(copied)


def test_the_current_folder_is_neither_replaced_nor_taken_for_an_empty_path(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path in (".", ""):
        with pytest.raises(FileExistsError, match=r"^network '\.': it is the folder .* give the path of a new folder$"):
            network().save(path)
    assert not list((tmp_path / "here").iterdir())
    monkeypatch.chdir(copied)
    for load in (OCRNet.load, OCRNet.from_pretrained):
        with pytest.raises(FileNotFoundError, match=r"^network '': the path is empty; give that of a folder$"):
            load("", trust="tests")
    assert OCRNet.load(".", trust="tests").input_size == network().input_size


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Path.mkdir

    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        if self.parent == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        made(self, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(PermissionError) as caught:
        patch.setattr(Path, "mkdir", refuse)
        network().save(tmp_path / "saved")
    assert caught.value.filename == str(tmp_path / "saved")


def test_what_is_absent_is_named(copied: Path, tmp_path: Path) -> None:
    (copied / "model.safetensors").unlink()
    for folder, line in (
        (copied, r"there is no file model\.safetensors"),
        (tmp_path / "absent", "no such folder"),
        (copied / "network.json", "it is a file"),
    ):
        with pytest.raises(FileNotFoundError, match=line):
            OCRNet.load(folder)


def test_own_classes_are_built_only_if_trusted(copied: Path) -> None:
    with pytest.raises(CheckpointError, match=r"parts\.encoder: 'tests\.helpers\.builders\.TinyEncoder' is not"):
        OCRNet.load(copied)
    assert OCRNet.load(copied, trust="tests").input_size == (64, 48)


def test_the_helper_network_of_all_tests_is_made_again(tmp_path: Path) -> None:
    tiny_network().save(tmp_path / "tiny")
    assert OCRNet.load(tmp_path / "tiny", trust="tests").parts.unrecorded == {}
