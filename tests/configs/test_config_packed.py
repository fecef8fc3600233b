"""`train.py pack`, and what reads what it wrote: resuming midway, and the check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ocrnet_pl.cli.main import main, overview
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.data.shards.writer import pack
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from tests.helpers.config_data import write_nuclei, write_packed_nuclei
from tests.helpers.packed_data import assert_same, contents
from tests.helpers.project import CONFIGS


def test_pack_writes_what_the_source_holds_and_once_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "data", tmp_path / "packed"
    write_nuclei(data)
    words = ["pack", "--config", str(CONFIGS / "nuclei.yaml"), "--data.root", str(data), "--output", str(out)]
    main(words)
    assert f"{out / 'train'}: 2 images, 1 shards" in capsys.readouterr().out
    before = {name: contents(out / name) for name in ("train", "val")}
    assert sorted(before["train"]) == ["index.safetensors", "packed.json", "shard-00000.tar"]
    for split in ("train", "val"):
        source = CocoInstances(split, f"instances_{split}.json", root=data)
        packed = Packed(split, root=out)
        for index in range(2):
            assert_same(packed[index], source[index])
    main(words)
    assert capsys.readouterr().out.count("(packed already)") == 2
    assert {name: contents(out / name) for name in ("train", "val")} == before


def test_the_check_reads_packed_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "packed"
    write_packed_nuclei(out)
    config = ["--config", str(CONFIGS / "formats/packed.yaml"), "--data.root", str(out)]
    words = ["check", *config, "--output", str(tmp_path / "report"), "--data.num_workers=0"]
    main(words)
    shard = out / "val" / "shard-00000.tar"
    damaged = bytearray(shard.read_bytes())
    damaged[1500] ^= 1
    shard.write_bytes(damaged)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([*words[:-2], str(tmp_path / "second"), words[-1]])
    assert stopped.value.code == 1
    assert "the shard is damaged" in (tmp_path / "second" / "findings.csv").read_text()


def _config(path: Path, data: Path, **more: Any) -> Path:
    """Write a config of a tiny network on a packed set."""
    content = {
        "name": "tiny",
        "model": {
            "encoder": {"class_path": "tests.helpers.builders.TinyEncoder"},
            "neck": {"class_path": "PathAggregationNeck", "init_args": {"width": 8}},
        },
        "data": {
            "train": {
                "class_path": "Packed",
                "init_args": {"path": str(data), "window": 2, "cache": str(path / "cache"), "cache_gb": 0.001},
            },
            "val": {"class_path": "SyntheticSource", "init_args": {"length": 3, "seed": 2, "size": 64}},
            "size": 64,
            "scales": [0.5, 1.0],
            "batch_size": 4,
        },
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "val_check_interval": 3, "default_root_dir": str(path)},
        "checkpoint": {"save_top_k": -1},
    }
    file = path / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_on_in_the_middle_of_an_epoch_to_the_same_weights(tmp_path: Path) -> None:
    """Six batches an epoch, a checkpoint after three; the second run has other workers and an empty cache."""
    source = SyntheticSource(length=25, seed=1, size=64)
    pack(source, tmp_path / "packed", "test", shard_bytes=30_000)
    assert len(list((tmp_path / "packed").glob("*.tar"))) > 5
    words = ["fit", "--config", str(_config(tmp_path, tmp_path / "packed"))]
    main([*words, "--version=whole", "--data.num_workers=0"])
    folder = tmp_path / "tiny" / "whole" / "checkpoints"
    saved = {torch.load(path, weights_only=True)["global_step"]: path for path in folder.glob("*.ckpt")}
    assert 9 in saved  # three steps into the second epoch
    for path in (tmp_path / "cache").rglob("*.tar"):
        path.unlink()
    main([*words, "--version=continued", "--data.num_workers=1", "--ckpt_path", str(saved[9])])
    whole, continued = (
        torch.load(tmp_path / "tiny" / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "continued")
    )
    assert whole["global_step"] == continued["global_step"] == 12
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, continued["state_dict"][key]), key
    assert whole["optimizer_states"][0]["state"].keys() == continued["optimizer_states"][0]["state"].keys()
    steps = [
        json.loads((tmp_path / "tiny" / name / "summary.json").read_text())["steps"] for name in ("whole", "continued")
    ]
    assert steps == [12, 12]


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["pack", *words])
    assert stopped.value.code in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nuclei(tmp_path / "data")
    words = ["--config", str(CONFIGS / "nuclei.yaml"), "--data.root", str(tmp_path / "data")]
    assert "output: give the folder of the shards with --output DIR" in fails(capsys, *words)
    assert "there is no data.test to pack" in fails(capsys, *words, "--output", str(tmp_path / "o"), "--splits", "test")
    assert "pack into a folder, then upload it" in fails(capsys, *words, "--output", "s3://bucket/nuclei")
    assert "shard_mb" in fails(capsys, *words, "--output", str(tmp_path / "o"), "--shard_mb", "0")
    assert "instances_train.json: there is no such file" in fails(
        capsys, *words[:3], str(tmp_path), "--output", str(tmp_path / "o")
    )
    (tmp_path / "data" / "train" / "1.png").write_bytes(b"broken")
    assert "1.png: this is not an image file" in fails(capsys, *words, "--output", str(tmp_path / "o"))
    main_words = ["pack", *words, "--output", str(tmp_path / "o"), "--data.on_error=skip", "--splits", "train"]
    with pytest.raises(SystemExit) as stopped:
        main(main_words)
    assert stopped.value.code == 3
    said = capsys.readouterr()
    assert "1 images" in said.out and "skipped: " in said.err
    assert len(Packed(tmp_path / "o" / "train")) == 1
    assert "pack" in overview()
