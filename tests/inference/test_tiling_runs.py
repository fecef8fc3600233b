"""Prediction and validation by tiles as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ocrnet_pl import OCRNet, Tiling
from ocrnet_pl.cli.main import main
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.structures import Prediction
from tests.helpers.config_data import write_nuclei
from tests.helpers.tiny_run import last_figures, learnt, pixel_accuracy


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config and the last checkpoint of its run."""
    root = tmp_path_factory.mktemp("tiling")
    main(["fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), "--trainer.max_epochs=1"])
    return tiny, root / "tiny" / "version_0" / "checkpoints" / "last.ckpt"


def test_the_command_line_predicts_by_tiles(trained: tuple[Path, Path], tmp_path: Path) -> None:
    config, checkpoint = trained
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (150, 210, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(images / "large.png")
    Image.fromarray(pixels[:40, :60]).save(images / "small.png")
    words = ["predict", "--config", str(config), "--ckpt_path", str(checkpoint), "--data.predict_path", str(images)]
    words += ["--model.postprocess.init_args.decode.init_args.score_threshold=0.0001"]
    words += ["--trainer.default_root_dir", str(tmp_path)]
    network = OCRNet.from_checkpoint(checkpoint, trust="tests")
    network.postprocess.decode.score_threshold = 0.0001
    # Of equal scores, rounding decides which comes first.
    network = network.fuse()
    tile = Tiling(overlap=0.4, batch_size=2)
    runs: list[tuple[list[str], Callable[[Path], Prediction]]] = [
        (["--model.tile.overlap=0.4", "--model.tile.batch_size=2"], lambda p: network.predict(p, tile=tile)[0]),
        ([], lambda p: network.predict(p)[0]),
    ]
    for version, (options, direct) in enumerate(runs):
        main([*words, *options])
        out = tmp_path / "tiny" / f"version_{version}" / "predictions"
        results = json.loads((out / "predictions.json").read_text())
        number = {entry["file_name"]: entry["id"] for entry in json.loads((out / "images.json").read_text())}
        for name in ("large.png", "small.png"):
            expected = direct(images / name)
            with Image.open(out / "semantic" / f"{name}.png") as picture:
                assert (np.asarray(picture) == expected.semantic.numpy()).all()  # type: ignore[union-attr]
            boxes = torch.tensor([entry["bbox"] for entry in results if entry["image_id"] == number[name]])
            boxes[:, 2:] += boxes[:, :2]
            assert len(boxes) == len(expected.boxes) > 0
            assert torch.allclose(boxes, expected.boxes, atol=0.01)
    assert (tmp_path / "tiny" / "version_0" / "config.yaml").read_text().count("overlap: 0.4") == 1


@pytest.mark.slow
def test_validation_by_tiles_measures_at_the_original_size(tiny: Path, tmp_path: Path) -> None:
    checkpoint = learnt(tiny, tmp_path / "fit")
    words = ["validate", "--config", str(tiny), "--ckpt_path", str(checkpoint)]
    words += ["--data.val.init_args.size=150", "--data.val.init_args.length=2", "--trainer.default_root_dir"]
    main([*words, str(tmp_path / "plain")])
    main([*words, str(tmp_path / "tiled"), "--model.tile.overlap=0.25"])
    plain, tiled = (last_figures(tmp_path / kind) for kind in ("plain", "tiled"))
    # Tiles are other images than those the losses were trained with.
    assert set(tiled) == {name for name in plain if not name.startswith("val/loss")} < set(plain)
    assert plain["val/pixel_accuracy"] != tiled["val/pixel_accuracy"]
    source = SyntheticSource(length=2, seed=2, size=150)
    assert source[0].image.shape[1:] == (150, 150)
    assert tiled["val/pixel_accuracy"] == pytest.approx(pixel_accuracy(checkpoint, source, tile=Tiling(overlap=0.25)))


def test_a_source_of_tiles_is_named_in_a_config_and_gets_the_root(trained: tuple[Path, Path], tmp_path: Path) -> None:
    config, _ = trained
    write_nuclei(tmp_path / "data")
    lines = ["data:"]
    for split in ("train", "val"):
        lines += [f"  {split}:", "    class_path: Tiled", "    init_args:", "      size: 32", "      overlap: 0.25"]
        lines += ["      source:", "        class_path: CocoInstances", "        init_args:"]
        lines += [f"          images: {split}", f"          annotations: instances_{split}.json"]
    (tmp_path / "tiled.yaml").write_text("\n".join(lines))
    words = ["fit", "--config", str(config), "--config", str(tmp_path / "tiled.yaml"), "--trainer.max_epochs=1"]
    main([*words, "--data.root", str(tmp_path / "data"), "--trainer.default_root_dir", str(tmp_path)])
    summary = json.loads((tmp_path / "tiny" / "version_0" / "summary.json").read_text())
    # Two images of 64 x 80 pixels, three rows of three tiles in each, full batches of four.
    assert summary["steps"] == 2 * 3 * 3 // 4
