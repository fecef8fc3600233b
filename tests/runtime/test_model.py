"""Exported files in a process without torch, and files that are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from ocrnet_pl.errors import DataError, ModelFileError
from ocrnet_pl.export.graph import Graph
from ocrnet_pl.export.letterbox import Frame
from ocrnet_pl.export.pixels import class_map
from ocrnet_pl.export.probabilities import probability_maps
from ocrnet_pl.export.whole import add_results
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.runtime import Model
from ocrnet_pl.runtime.description import KEY, Description
from ocrnet_pl.structures import Taxonomy

TAXONOMY = Taxonomy.build(stuff=["dark", "light"])
DESCRIPTION = Description("0.1.0", False, 3, (8, 8), False, True, TAXONOMY, {}, {}, {})


def model_with(metadata: dict[str, str]) -> onnx.ModelProto:
    """Return a file whose network finds the light pixels: the mean of the channels against 128."""
    graph = Graph()
    images = graph.input("images", np.uint8, ("batch", "height", "width", 3))
    mean = graph.op("Transpose", images.to(np.float32), perm=[0, 3, 1, 2]).total(1, keep=True) / 3.0
    batch, height, width = (images.length(axis) for axis in range(3))
    logits = graph.concat(mean.filled(128.0), mean, axis=1)
    frame = Frame(batch, height, width, height, width)
    maps = probability_maps(None, False, TAXONOMY)
    add_results(graph, None, class_map(graph, logits, 1, 2, frame), frame, TAXONOMY, FusionSettings(), maps)
    return graph.model("light", metadata)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "light.onnx"
    path.write_bytes(model_with(DESCRIPTION.metadata()).SerializeToString())
    return path


def picture() -> np.ndarray:
    pixels = np.zeros((5, 7, 3), np.uint8)
    pixels[1:3, 2:6] = (250, 240, 230)
    return pixels


def test_a_path_a_picture_and_an_array_give_the_same(path: Path, tmp_path: Path) -> None:
    model, pixels = Model(path), picture()
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    wanted = (pixels[..., 0] > 128).astype(np.uint8)
    for image in (pixels, Image.fromarray(pixels), tmp_path / "picture.png", str(tmp_path / "picture.png")):
        found = model(image)
        np.testing.assert_array_equal(found.semantic, wanted)
        assert found.semantic is not None
        assert found.semantic.dtype == np.uint8
        assert (found.size, found.boxes.shape, found.masks) == ((5, 7), (0, 4), None)
    assert (found.image_id, found.path) == ("picture.png", str(tmp_path / "picture.png"))
    assert [each.image_id for each in model.predict([pixels, pixels])] == [0, 1]
    assert len(model.predict(np.stack([pixels] * 3))) == 3
    # Grey values stand for all channels.
    grey = pixels[..., 0]
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(model(array).semantic, model(np.stack([grey] * 3, 2)).semantic)
    # A photograph that was taken with the camera on its side.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(model(tmp_path / "turned.png").semantic, np.rot90(wanted, -1))


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((4, 4, 3), np.float32), "expected uint8"),
        (np.zeros((4, 4, 3), np.uint16), r"found uint16; scale its values to 0 to 255 and convert it to np\.uint8"),
        (np.zeros((3, 4, 4), np.uint8), "channels last"),
        (np.zeros((0, 4, 3), np.uint8), r"found \[0, 4, 3\]"),
        (7, "expected a path, a Pillow image or an array, found int"),
        ("absent.png", "absent.png: there is no such image"),
        (__file__, "not an image that can be read"),
        (np.zeros((1, 70_000, 3), np.uint8), "the image: it is 70000 x 1, and no side may be longer than 65535 pixels"),
        (Image.new("RGB", (1, 70_000)), "the image: it is 1 x 70000, and no side may be longer than 65535 pixels"),
        ("", "the image: its path is empty"),
        ("https://example.com/a.png", "https://example.com/a.png: addresses are not fetched"),
        (Image.new("RGB", (0, 5)), "the image: it is 0 x 5, and has no pixels"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(image: Any, text: str, path: Path) -> None:
    with pytest.raises(DataError, match=text) as error:
        Model(path)(image)
    assert "\n" not in str(error.value)


def test_a_picture_that_pillow_cannot_decode_is_one_line(path: Path, tmp_path: Path) -> None:
    Image.effect_noise((90, 90), 50).convert("RGB").save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    closed = Image.open(tmp_path / "cut.png")
    closed.close()
    for image in (Image.open(tmp_path / "cut.png"), closed, Image.new("La", (4, 4))):
        with pytest.raises(DataError, match=r"^the image: ") as error:
            Model(path)(image)
        assert "\n" not in str(error.value)


def test_a_prediction_keeps_the_image_that_it_is_of(path: Path) -> None:
    pixels = picture()
    for found in (Model(path)(pixels), Model(path).predict(pixels[None])[0]):
        pixels[:] = 0
        assert found.image is not None and found.image.max() == 250
        pixels = picture()


def test_of_several_images_the_wrong_one_is_named(path: Path) -> None:
    model, pixels = Model(path), picture()
    with pytest.raises(DataError, match=r"^image 1: expected uint8"):
        model.predict([pixels, pixels.astype(np.float32)])
    one: list[Any] = ["a.png", b"a.png", None, 7, pixels, Image.fromarray(pixels)]
    for images in one:
        with pytest.raises(DataError, match=r"^the images: expected several; call the model itself for one image$"):
            model.predict(images)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        # onnxruntime would leave it out and compute on the CPU.
        ({"providers": ["NoSuchExecutionProvider"]}, "has no 'NoSuchExecutionProvider', it has .*CPUExecutionProvider"),
        ({"providers": "CPUExecutionProvider"}, r"providers: .* write \['CPUExecutionProvider'\]"),
        ({"threads": -1}, "threads: expected a whole number from 0, .* got -1"),
        ({"threads": 1.5}, "threads: .* got 1.5"),
        ({"threads": 10**9}, "threads: .* got 1000000000"),
    ],
)
def test_a_device_or_threads_that_cannot_be_had_are_refused(option: dict[str, Any], text: str, path: Path) -> None:
    with pytest.raises(ValueError, match=text) as error:
        Model(path, **option)
    assert "\n" not in str(error.value)
    assert Model(path, threads=1, providers=["CPUExecutionProvider"])(picture()).size == (5, 7)


def test_providers_of_onnxruntime_are_refused_for_a_file_of_openvino(tmp_path: Path) -> None:
    path = tmp_path / "light.xml"
    path.touch()
    with pytest.raises(ValueError, match=r"^providers: model '.*light\.xml' runs with OpenVINO on the CPU, .*; leave"):
        Model(path, providers=["CUDAExecutionProvider"])


def test_a_folder_is_not_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        Model(tmp_path)


def hostile() -> list[tuple[str, dict[str, str]]]:
    """Return descriptions that no export writes, with a word of what must be said of each."""
    good = json.loads(DESCRIPTION.metadata()[KEY])

    def changed(**fields: Any) -> dict[str, str]:
        return {KEY: json.dumps(good | fields)}

    return [
        ("no description", {}),
        ("not JSON", {KEY: "{"}),
        ("not JSON", {KEY: "[" * 100_000}),
        ("expected an object", {KEY: "[]"}),
        ("damaged", {KEY: " " * 5_000_000}),
        ("format is 2", changed(format=2)),
        ("format", changed(format=True)),
        ("channels", changed(channels=10**30)),
        ("input_size", changed(input_size=[8])),
        ("input_size", changed(input_size=[8, -1])),
        ("version", changed(version="\x1b[2J")),
        ("raw", changed(raw="no")),
        ("without --raw", changed(raw=True)),
        ("taxonomy", changed(taxonomy={"categories": [{"name": "a"}]})),
        ("taxonomy", changed(taxonomy=[1])),
        ("score_thresholds", changed(score_thresholds={"a": "high"})),
        ("score_thresholds", {KEY: json.dumps(good | {"score_thresholds": {"a": float("nan")}})}),
        ("inputs and outputs", changed(detects=True)),
        ("fusion", {KEY: json.dumps({name: value for name, value in good.items() if name != "fusion"})}),
    ]


@pytest.mark.parametrize(("text", "metadata"), hostile())
def test_a_description_is_not_believed(text: str, metadata: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "hostile.onnx"
    path.write_bytes(model_with(metadata).SerializeToString())
    with pytest.raises(ModelFileError, match=text) as error:
        Model(path)
    assert str(error.value).startswith(f"model {str(path)!r}: ")
    assert str(error.value).isprintable()


def test_files_that_are_no_models_are_refused_in_one_line(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        Model(tmp_path / "absent.onnx")
    for content in (b"", b"\x89PNG\r\n", path.read_bytes()[:-200]):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(ModelFileError, match=r"^model .*broken.onnx") as error:
            Model(tmp_path / "broken.onnx")
        assert "\n" not in str(error.value)


def test_a_program_of_torch_is_not_opened_without_torch(tmp_path: Path) -> None:
    (tmp_path / "best.pt2").write_bytes(b"anything")
    with pytest.raises(ModelFileError, match=r"of torch\.export; run it with torch\.export\.load\('best\.pt2'\)"):
        Model(tmp_path / "best.pt2")


def test_a_checkpoint_is_to_be_exported_first(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"anything")
    with pytest.raises(ModelFileError, match=r"best\.ckpt': it is a checkpoint; `ocrnet export best\.ckpt` makes"):
        Model(tmp_path / "best.ckpt")


def test_a_file_cannot_name_other_files_to_read(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(range(16)))
    model = model_with(DESCRIPTION.metadata())
    tensor = onnx.TensorProto(name="taken", data_type=onnx.TensorProto.UINT8, dims=[16])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    model.graph.initializer.append(tensor)
    model.graph.node.append(helper.make_node("Identity", ["taken"], ["given"]))
    model.graph.output.append(helper.make_tensor_value_info("given", onnx.TensorProto.UINT8, [16]))
    (tmp_path / "reads.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError):
        Model(tmp_path / "reads.onnx")


def test_predictions_need_neither_torch_nor_lightning(path: Path, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "picture.png")
    code = f"""
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "torchvision", "lightning", "timm", "cv2", "onnx", "matplotlib"):
            raise ImportError("not installed here: " + name)

sys.meta_path.insert(0, Blocked())
from ocrnet_pl.runtime import Model
print(Model({str(path)!r})({str(tmp_path / "picture.png")!r}).semantic.sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("8", 0), done.stderr


def test_a_pipe_is_not_waited_for_and_a_broken_image_is_said_in_one_line(path: Path, tmp_path: Path) -> None:
    model = Model(path)
    os.mkfifo(tmp_path / "pipe.png")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    for name, text in (("pipe.png", "not a file"), ("", "not a file"), ("cut.png", r"cannot be read \(")):
        with pytest.raises(DataError, match=text) as error:
            model(tmp_path / name)
        assert "\n" not in str(error.value)
