"""``export`` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrnet_pl.cli.main import main
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
    # The network alone, on a folder of images.
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    Image.effect_noise((40, 30), 90).convert("RGB").save(images / "noise.png")
    assert read_image(images / "noise.png").shape == (3, 30, 40)
    main([*words, "--raw", "true", "--images", str(images), "--output", str(tmp_path / "alone.onnx")])
    assert "panoptic" not in capsys.readouterr().out
    assert (tmp_path / "alone.onnx").stat().st_size > 1000


def test_what_cannot_be_exported_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, line = fails(capsys, "export", "--ckpt_path", str(tmp_path / "absent.ckpt"))
    assert status == 1
    assert "absent.ckpt" in line
    assert "Traceback" not in line
