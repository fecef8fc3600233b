"""Exported files that are served: the answers of the checkpoint, without torch."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ocrnet_pl.errors import DataError, UsageError
from ocrnet_pl.export.files import CheckImage, export_onnx
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.serving.inquiry import Inquiry
from ocrnet_pl.serving.served_file import LoadedFile, ServedFile
from ocrnet_pl.serving.served_network import LoadedNetwork, ServedNetwork
from ocrnet_pl.serving.trying import drawn, predict_file, table
from tests.helpers.bad_files import huge_png
from tests.helpers.builders import tiny_network
from tests.helpers.free_port import free_port

ROOT = Path(__file__).resolve().parents[2]
SIZES = ((48, 80), (64, 64), (33, 21), (150, 97), (1, 1), (7, 200))


@pytest.fixture(scope="module")
def network() -> LoadedNetwork:
    made = tiny_network(bins=None).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in made.parameters():
            # At random weights all scores are alike, and no box enters the map.
            value.add_(torch.randn(value.shape, generator=generator) * 0.3)
    made.postprocess.settings = FusionSettings(temperature=0.4)  # type: ignore[assignment]
    made.postprocess.decode.score_threshold = 0.1
    return LoadedNetwork(ServedNetwork("none.ckpt"), made)


@pytest.fixture(scope="module")
def path(network: LoadedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tiny.onnx"
    export_onnx(network.network, path, [CheckImage(torch.full((3, 50, 70), 90, dtype=torch.uint8))])
    return path


@pytest.fixture(scope="module")
def file(path: Path) -> LoadedFile:
    return ServedFile(str(path), threads=1).load()


def image_file(height: int, width: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """Return the content of an image file."""
    values = np.random.default_rng(height).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(values.repeat(8, 0).repeat(8, 1)[:height, :width])
    content = io.BytesIO()
    image.convert(mode).save(content, kind)
    return content.getvalue()


def test_a_file_answers_as_its_checkpoint(network: LoadedNetwork, file: LoadedFile) -> None:
    from ocrnet_pl.serving.answers import answer

    assert file.names == network.names and file.input_size == network.input_size
    assert file.default_score == network.default_score
    found = 0
    for size in SIZES:
        data = image_file(*size)
        expected, got = (each.predict([each.read(data, "a.png", 10**6)])[0] for each in (network, file))
        inquiry = Inquiry(score=0.0, masks=True)
        wanted, given = (json.loads(answer(each, inquiry, "a.png")) for each in (expected, got))
        assert given.keys() == wanted.keys() and given["size"] == wanted["size"] == list(size)
        found += len(wanted["objects"])
        assert [each["name"] for each in given["objects"]] == [each["name"] for each in wanted["objects"]]
        for one, other in zip(given["objects"], wanted["objects"], strict=True):
            assert one.keys() == other.keys() and one["label"] == other["label"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-3)
            assert one["box"] == pytest.approx(other["box"], abs=0.5)
        most = 0.001 * size[0] * size[1]
        assert given["pixels"] == pytest.approx(wanted["pixels"], abs=most)
        assert [each["name"] for each in given["segments"]] == [each["name"] for each in wanted["segments"]]
        pictures = [Image.open(io.BytesIO(answer(each, Inquiry("png", 0.3), "a.png"))) for each in (expected, got)]
        one, other = (np.asarray(each) for each in pictures)
        assert (one != other).any(-1).sum() <= 10 * most
    assert found > 20


def test_all_kinds_of_files_are_read_as_the_checkpoint_reads_them(network: LoadedNetwork, file: LoadedFile) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, deep, several = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with Image.open(io.BytesIO(image_file(40, 30))) as image:
        image.save(turned, "PNG", exif=exif)
        image.save(several, "GIF", save_all=True, append_images=[Image.new("RGB", (30, 40))])
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50).save(deep, "PNG")
    contents = [image_file(40, 30, "PNG", mode) for mode in ("L", "LA", "RGBA", "P", "1")]
    contents += [image_file(40, 30, "WEBP"), image_file(40, 30, "BMP")]
    contents += [turned.getvalue(), deep.getvalue(), several.getvalue()]
    for data in contents:
        expected = network.read(data, "a.png", 10**6).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(file.read(data, "a.png", 10**6), expected)
    # Decoders of JPEG round differently.
    for mode in ("RGB", "L", "CMYK"):
        data = image_file(40, 30, "JPEG", mode)
        expected = network.read(data, "a.jpg", 10**6).permute(1, 2, 0).numpy()
        assert np.abs(file.read(data, "a.jpg", 10**6).astype(int) - expected).max() <= 3


def test_what_is_no_image_is_refused_in_the_words_of_the_checkpoint(
    network: LoadedNetwork, file: LoadedFile, tmp_path: Path
) -> None:
    huge_png(tmp_path / "huge.png")
    endless = b"GIF89a" + bytes(7) + b"!\xfe" + (b"\x01a" * 40_000)
    for data in (b"", b"hello", image_file(48, 80)[:200], (tmp_path / "huge.png").read_bytes(), endless):
        lines = []
        for each in (network, file):
            with pytest.raises(DataError) as error:
                each.read(data, "x.png", 10**6)
            lines.append(str(error.value))
        assert all(line.startswith("x.png: ") and line.isprintable() for line in lines)
        assert lines[0].partition("(")[0] == lines[1].partition("(")[0]


def test_the_page_shows_a_file_beside_a_checkpoint(network: LoadedNetwork, file: LoadedFile, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image_file(48, 80))
    one, other = (predict_file(each, str(tmp_path / "a.png"), 10_000) for each in (network, file))
    for view in ("fused", "boxes", "pixels"):
        pictures = [np.asarray(drawn(each, view, 0.3)) for each in (one, other)]  # type: ignore[arg-type]
        assert (pictures[0] != pictures[1]).any(-1).mean() < 0.01
    assert len(table(one, 0.3)) == len(table(other, 0.3)) > 0


def test_only_the_chosen_classes_are_given_out(path: Path, file: LoadedFile) -> None:
    image = file.read(image_file(48, 80), "a.png", 10**6)
    whole, some = (ServedFile(str(path), classes, 1).load().predict([image])[0] for classes in ((), ("star",)))
    assert set(some.names) == {"star"} < set(whole.names)
    np.testing.assert_array_equal(some.semantic, whole.semantic)
    np.testing.assert_array_equal(some.boxes, whole.boxes[[name == "star" for name in whole.names]])
    with pytest.raises(UsageError, match="there is no class 'dog' with boxes; the file knows disc, square, star"):
        ServedFile(str(path), ("dog",)).load()


def without_torch(*code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which nothing of torch can be imported."""
    blocked = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "torchvision", "lightning", "timm", "cv2", "onnx", "matplotlib"):
            raise ImportError("not installed here: " + name)

sys.meta_path.insert(0, Blocked())
"""
    words = [sys.executable, "-c", blocked + "\n".join(code)]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_command_line_serves_a_file_without_torch(path: Path) -> None:
    pytest.importorskip("litserve", reason="litserve is not installed")
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    port = free_port()
    done = without_torch(
        "from ocrnet_pl.serving import server",
        "def run(made, serving): print(serving.port, made.app.state.reception.names, made.lit_api.served.classes)",
        "server.run_server = run",
        "from ocrnet_pl.cli.main import main",
        f"main(['serve', {str(path)!r}, '--serving.port={port}', '--classes', 'star, disc', '--threads', '1'])",
    )
    listening, shown = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == ""
    assert listening == f"listening on http://127.0.0.1:{port}/predict; Ctrl-C stops it"
    assert shown == f"{port} ('sky', 'ground', 'disc', 'square', 'star') ('star', 'disc')"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["serve", "PATH", "--serving.port", "80"], 1, "serving.port: expected 1024 to 65535, got 80"),
        (["serve", "--ckpt_path", "PATH", "--classes", "dog"], 2, "there is no class 'dog' with boxes"),
        (["serve", "PATH", "--classes", ""], 2, "classes: expected names separated by commas, got ''; leave it out"),
        (["demo", "PATH", "--classes", " ,"], 2, "classes: expected names separated by commas, got ' ,'"),
        (
            ["serve", "PATH", "--model.tile", "null"],
            2,
            "arguments: --model.tile null; with an exported file there are --ckpt",
        ),
        (["serve", "PATH", "--operating_point=best_f1"], 2, "all else is as it was exported"),
        (["serve", "absent.onnx"], 1, "model 'absent.onnx': there is no such file"),
        (["serve", "--ckpt_path", "a.ckpt", "--ckpt_path", "b.onnx"], 1, "model 'b.onnx': there is no such file"),
        (["serve", "PATH", "--threads", "-1"], 2, "error: threads: expected int >= 0, got '-1'"),
        (["serve", "PATH", "--serving.host", "a.b"], 2, "error: serving.host: expected '127.0.0.1' or '0.0.0.0' or"),
        (["serve", "PATH", "--serving.score=nan"], 2, "error: serving.score: expected float or null, got 'nan'"),
        (["demo", "PATH", "--compare", "a.ckpt"], 2, "give --ckpt_path a.ckpt --compare PATH"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], status: int, said: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ocrnet_pl.cli.main import main

    pytest.importorskip("litserve", reason="litserve is not installed")
    with pytest.raises(SystemExit) as stop:
        main([word.replace("PATH", str(path)) for word in words])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and said.replace("PATH", str(path)) in lines[0], lines
    assert stop.value.code == status


def test_a_config_may_name_the_file(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ocrnet_pl.cli.main import main

    pytest.importorskip("litserve", reason="litserve is not installed")
    config = tmp_path / "serve.yaml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config.write_text(f"ckpt_path: {path}\nserving:\n  port: {port}\n")
        with pytest.raises(SystemExit) as stop:
            main(["serve", "--config", str(config)])
    # It goes on as with a file on the command line, up to the port.
    assert capsys.readouterr().err.startswith(f"error: --serving.port {port}: nobody can listen there")
    assert stop.value.code == 2
    config.write_text(f"ckpt_path: {path}\nservings: 3\n")
    with pytest.raises(SystemExit) as stop:
        main(["serve", "--config", str(config)])
    line = capsys.readouterr().err
    assert "servings" in line and line.count("\n") == 1 and stop.value.code == 2


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    from ocrnet_pl.cli.main import main

    pytest.importorskip("litserve", reason="litserve is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as stop:
            main(["serve", "absent.onnx", "--serving.port", str(port)])
    line = capsys.readouterr().err
    assert stop.value.code == 2
    assert line == (
        f"error: --serving.port {port}: nobody can listen there (address already in use); give another --serving.port\n"
    )
