"""``export`` as a user runs it."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from ocrnet_pl.cli.commands.export import export
from ocrnet_pl.cli.export_images import check_images
from ocrnet_pl.cli.main import main
from ocrnet_pl.errors import DataError
from ocrnet_pl.export import reduced
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.runtime import Model
from tests.helpers.tiny_run import fails


@pytest.mark.slow
def test_export_writes_a_file_that_predicts(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "runs"
    main(["fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), "--trainer.max_epochs=1"])
    checkpoint = root / "tiny" / "version_0" / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    words = ["export", "--ckpt_path", str(checkpoint), "--trust", "tests"]
    main([*words, "--check_images", "3"])
    written = checkpoint.with_suffix(".onnx")
    shown = capsys.readouterr().out
    assert f"Exported: {written}" in shown
    assert "panoptic quality" in shown
    assert "3 images" in shown
    assert Model(written).class_names
    # The same as a program.
    main([*words, "--check_images", "3", "--format", "torch_export"])
    shown = capsys.readouterr().out
    assert f"Exported: {checkpoint.with_suffix('.pt2')}" in shown
    assert "panoptic quality" in shown
    status, line = fails(capsys, *words, "--format", "torch_export", "--precision", "int8")
    assert status == 1
    assert "format torch_export: it is written in fp32; for int8, export to onnx or openvino" in line
    # The network alone, on a folder of images.
    images = tmp_path / "images"
    images.mkdir()
    Image.effect_noise((40, 30), 90).convert("RGB").save(images / "noise.png")
    assert read_image(images / "noise.png").shape == (3, 30, 40)
    main([*words, "--raw", "true", "--images", str(images), "--output", str(tmp_path / "alone.onnx")])
    assert "panoptic" not in capsys.readouterr().out
    assert (tmp_path / "alone.onnx").stat().st_size > 1000
    if find_spec("openvino") is not None:
        main([*words, "--check_images", "1", "--format", "openvino"])
        files = checkpoint.with_suffix(".xml"), checkpoint.with_suffix(".bin")
        size = sum(file.stat().st_size for file in files) / 2**20
        assert f"Exported: {files[0]} and {files[1]} ({size:.1f} MiB)" in capsys.readouterr().out


@pytest.mark.slow
def test_fewer_bits_cost_what_the_file_says(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    main(["fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), "--trainer.max_epochs=1"])
    folder = root / "tiny" / "version_0"
    with (folder / "metrics.csv").open() as file:
        row = [row for row in csv.DictReader(file) if row["val/fused_miou"]][-1]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    words = ["export", "--config", str(tiny), "--ckpt_path", str(checkpoint), "--trust", "tests", "--max_loss", "1"]
    for name in ("fp16", "int8"):
        main([*words, "--precision", name, "--calibration_images", "16"])
        shown = capsys.readouterr().out
        known = Model(checkpoint.with_name(f"last-{name}.onnx")).description.precision
        assert known["name"] == name
        for figure, value in known["figures"]["float32"].items():
            assert value == pytest.approx(float(row[f"val/fused_{figure}"]), abs=2e-3)
            assert f"{known['figures'][name][figure]:.4f}" in shown
        assert "ms per image, one thread" in shown
    assert "layers: none" in shown
    # What is out of reach fails, and leaves nothing behind.
    other = tmp_path / "other.onnx"
    monkeypatch.setattr(reduced, "losses", lambda *_: {"miou": 1.5})
    status, line = fails(capsys, *words, "--precision", "int8", "--max_trials", "1", "--output", str(other))
    assert status == 1
    assert "other.onnx: it was not written, because int8 costs more than max_loss 1 in 1 trials" in line
    assert not other.exists()


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, line = fails(capsys, "export", "--ckpt_path", str(tmp_path / "absent.ckpt"))
    assert status == 1
    assert "absent.ckpt" in line
    assert "Traceback" not in line


@pytest.mark.parametrize(
    ("name", "kind", "ending"), [("last.ckpt", "onnx", ".onnx"), ("m.onnx", "openvino", ".xml"), ("m", "onnx", ".onnx")]
)
def test_a_file_ends_as_its_format_so_that_no_checkpoint_is_written_over(
    name: str, kind: str, ending: str, tmp_path: Path
) -> None:
    config = {"format": kind, "precision": "fp32", "raw": False, "output": tmp_path / name}
    run: Any = SimpleNamespace(config=config | {"ckpt_path": str(tmp_path / "last.ckpt")})
    with pytest.raises(ValueError, match=f"{name}': a file of the format {kind} ends in {ending}"):
        export(run)


def test_a_place_that_cannot_be_written_to_is_refused_before_the_network_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = {"format": "onnx", "precision": "fp32", "raw": False, "output": tmp_path / "file" / "a.onnx"}
    run: Any = SimpleNamespace(config=config | {"ckpt_path": str(tmp_path / "absent.ckpt")})
    with pytest.raises(FileExistsError, match=r"file'$"):
        export(run)


def test_images_to_compare_on_are_there_and_those_left_out_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"absent: there is no such folder or image; check the path$"):
        check_images({"images": tmp_path / "absent", "check_images": 9}, 3)
    (tmp_path / "broken.png").write_text("no image")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert len(check_images({"images": tmp_path, "check_images": 9}, 3)) == 1
    assert capsys.readouterr().err.startswith(f"skipped: {tmp_path / 'broken.png'}: ")
