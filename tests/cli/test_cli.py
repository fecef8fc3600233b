"""The command line as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from pycocotools import mask as rle

from ocrnet_pl import OCRNet
from ocrnet_pl.cli.main import main
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.losses.detection import QualityDetectionLoss
from ocrnet_pl.losses.segmentation import SegmentationLoss
from ocrnet_pl.report.image_file import read_images
from ocrnet_pl.serving.served_network import ServedNetwork
from ocrnet_pl.storage.recording import record_of
from tests.helpers.processes import started
from tests.helpers.project import ROOT
from tests.helpers.tiny_run import fails


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished run."""
    root = tmp_path_factory.mktemp("runs")
    # With the trial validation that every run begins with; the tiny ones leave it out.
    trial = "--trainer.num_sanity_val_steps=2"
    main(["fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), trial])
    return root / "tiny" / "version_0"


def test_help_is_quick_and_lists_the_subcommands() -> None:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in ("fit", "validate", "test", "predict"):
        assert f"\n  {name} " in done.stdout
    # Generous: it takes a tenth of a second, and importing torch alone two.
    assert time.perf_counter() - start < 6


def test_a_run_leaves_what_was_promised(trained: Path) -> None:
    files = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    assert {"config.yaml", "metrics.csv", "summary.json", "checkpoints/last.ckpt", "pictures/curves.png"} <= files
    assert any(f.startswith("checkpoints/epoch=") and "map=" in f and "miou=" in f for f in files)
    assert any(f.startswith("pictures/epoch-") for f in files)
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["steps"] == 4
    assert Path(summary["best_checkpoint"]).is_file()
    for key in ("last", "best"):
        assert {"val/map", "val/miou", "val/pq", "val/fused_map", "val/fused_miou", "val/fused_pq"} <= set(summary[key])
    assert "train/loss" in summary["last"] and "loss" not in summary["last"]
    assert summary["seed"] == 0
    assert summary["images_per_s"] > 0
    assert {"python", "torch", "ocrnet_pl"} <= set(summary["versions"])
    header = (trained / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/loss_box", "train/images_per_s", "val/map_75", "val/map_per_class/star"} <= set(header)


@pytest.mark.slow
def test_the_saved_config_runs_again(trained: Path, tmp_path: Path) -> None:
    root = str(tmp_path)
    main(
        ["fit", "--config", str(trained / "config.yaml"), "--trainer.default_root_dir", root, "--trainer.max_epochs=1"]
    )
    assert (tmp_path / "tiny" / "version_0" / "summary.json").is_file()


def test_checkpoints_load_without_running_code_and_hold_the_average(trained: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["taxonomy"]["categories"][0]["name"] == "sky"
    average, live = checkpoint["state_dict"], checkpoint["current_model_state"]
    weight = "network.neck.lateral.0.0.weight"
    assert not torch.equal(average[weight], live[weight])
    network = OCRNet.from_checkpoint(trained / "checkpoints" / "last.ckpt", trust=["tests"])
    assert torch.equal(network.state_dict()[weight.removeprefix("network.")], average[weight])
    assert network.input_size == (64, 64)
    assert len(network.predict(torch.zeros(3, 40, 90, dtype=torch.uint8))) == 1


def test_validate_repeats_the_figures_of_training(trained: Path, tiny: Path, tmp_path: Path) -> None:
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    words = ["--config", str(tiny), "--ckpt_path", checkpoint, "--trainer.default_root_dir", str(tmp_path)]
    main(["validate", *words, "--report.enabled=true", "--report.pictures=1"])
    fitted = json.loads((trained / "summary.json").read_text())["last"]
    summary = json.loads((tmp_path / "tiny" / "version_0" / "summary.json").read_text())
    assert summary["command"] == "validate"
    assert summary["best_checkpoint"] == checkpoint
    for key, value in summary["last"].items():
        assert value == pytest.approx(fitted[key], abs=1e-6), key
    # Where it errs is told by validate and test alone.
    folder = tmp_path / "tiny" / "version_0"
    assert f"<b>{summary['last']['val/fused_miou']:.4f}</b>mIoU, fused" in (folder / "report.html").read_text()
    assert (folder / "report" / "costs.png").is_file() and len(read_images(folder).ids) == 5
    assert not (trained / "report.html").exists()


def test_what_is_served_predicts_as_the_command_line_says(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ocrnet_pl.cli.commands import serve

    served: list[ServedNetwork] = []
    monkeypatch.setattr(serve, "_serve", lambda how, *_: served.append(how))
    checkpoint = str(trained / "checkpoints" / "last.ckpt")
    options = ["--model.postprocess.decode.score_threshold", "0.77", "--model.postprocess.mask_threshold=0.61"]
    main(["serve", checkpoint, "--trust", "tests", *options])
    postprocess = served[0].load().network.postprocess
    assert isinstance(postprocess, FusionPostProcess)
    assert (postprocess.decode.score_threshold, postprocess.settings.mask_threshold) == (0.77, 0.61)
    # What was found by calibration comes before that.
    content = torch.load(checkpoint, weights_only=True)
    content["fusion"] = FusionSettings(temperature=0.25).to_dict()
    torch.save(content, tmp_path / "calibrated.ckpt")
    postprocess = replace(served[0], ckpt_path=str(tmp_path / "calibrated.ckpt")).load().network.postprocess
    assert (postprocess.decode.score_threshold, postprocess.settings.temperature) == (0.77, 0.25)


@pytest.mark.slow
def test_two_processes_end_with_the_figures_that_one_gives(tiny: Path, tmp_path: Path) -> None:
    """Five images over two processes; the run's last figures against one process on its last checkpoint."""
    root = ["--config", str(tiny), "--trainer.default_root_dir", str(tmp_path)]
    command = [sys.executable, "train.py", "fit", *root, "--trainer.devices=2", "--trainer.strategy=ddp"]
    done = subprocess.run(command, cwd=ROOT, check=True, timeout=300, capture_output=True, text=True)
    # The first process alone speaks, of the validation and of the epoch.
    assert [done.stderr.count(f"epoch {epoch} of 2, step") for epoch in (1, 2)] == [2, 2]
    run = tmp_path / "tiny" / "version_0"
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == ["version_0"]
    both = json.loads((run / "summary.json").read_text())
    assert both["steps"] == 2
    main(["validate", *root, "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])
    alone = json.loads((tmp_path / "tiny" / "version_1" / "summary.json").read_text())
    for key, value in alone["last"].items():
        assert both["last"][key] == pytest.approx(value, abs=1e-6, nan_ok=True), key
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert "val/fused_mask_map" in header
    assert list(run.glob("pictures/epoch-*.png"))


def test_predict_writes_every_file_at_the_original_size(
    trained: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    shapes = {"a.png": (50, 91), "sub/a.png": (33, 40)}
    for name, size in shapes.items():
        torchvision.io.write_png(torch.randint(0, 256, (3, *size), dtype=torch.uint8), str(images / name))
    (images / "broken.png").write_bytes(b"no image")
    status, message = fails(
        capsys,
        *("predict", "--config", str(tiny), "--ckpt_path", str(trained / "checkpoints" / "last.ckpt")),
        *("--data.predict_path", str(images), "--trainer.default_root_dir", str(tmp_path), "--data.eval_batch_size=2"),
        # A low threshold, so that an untrained network finds something to write.
        "--model.postprocess.init_args.decode.init_args.score_threshold=0.0001",
        *("--annotations.min_score=0.0001", "--annotations.formats+=Cvat", "--annotations.formats.tolerance=3.0"),
        *("--format", "label_studio", "labelme", "coco", "yolo", "csv"),
    )
    assert status == 3
    assert "broken.png" in message
    out = tmp_path / "tiny" / "version_0" / "predictions"
    for name, (height, width) in shapes.items():
        for kind in ("semantic", "panoptic"):
            with Image.open(out / kind / f"{name}.png") as picture:
                assert picture.size == (width, height)
        with Image.open(out / "overlay" / f"{name}.png") as picture:
            # Below the image, the names of the classes in their colours.
            assert picture.width == width and picture.height > height
        with Image.open(out / "semantic" / f"{name}.png") as picture:
            assert picture.mode == "P"
            assert np.asarray(picture).max() < 8
    results = json.loads((out / "predictions.json").read_text())
    images = {entry["id"]: entry for entry in json.loads((out / "images.json").read_text())}
    assert list(images) == list(range(1, len(shapes) + 1))
    assert {images[entry["image_id"]]["file_name"] for entry in results} == set(shapes)
    for entry in results:
        image = images[entry["image_id"]]
        height, width = shapes[image["file_name"]]
        assert (image["height"], image["width"]) == (height, width)
        assert rle.decode(entry["segmentation"]).shape == (height, width)
        x, y, w, h = entry["bbox"]
        assert -1e-3 <= x <= x + w <= width + 1e-3
        assert -1e-3 <= y <= y + h <= height + 1e-3
    made = out.with_name("annotations")
    assert {path.name for path in made.iterdir()} == {
        *("label_studio", "labelme", "coco", "yolo", "csv", "cvat", "ranking.csv", ".parts")
    }
    # All formats have the images in the same order, and as many objects as COCO's results.
    tasks = json.loads((made / "label_studio" / "tasks.json").read_text())
    coco = json.loads((made / "coco" / "instances.json").read_text())
    order = [entry["file_name"] for entry in coco["images"]]
    assert [task["data"]["image"].rpartition("=")[2] for task in tasks] == order and set(order) == set(shapes)
    assert [line.split(",")[0] for line in (made / "ranking.csv").read_text().splitlines()[1:]] == order
    assert (made / "cvat" / "annotations.xml").read_text().count("<image ") == len(order)
    count = len((made / "csv" / "boxes.csv").read_text().splitlines()) - 1
    assert count == len(json.loads((made / "coco" / "results.json").read_text())) == len(results) > 0
    for name in shapes:
        assert (made / "labelme" / name).with_suffix(".json").is_file()
        assert (made / "yolo" / "labels" / name).with_suffix(".txt").is_file()
    segments = json.loads((out / "panoptic.json").read_text())
    for image in segments:
        coded = np.asarray(Image.open(out / "panoptic" / image["file_name"])).astype(int)
        ids = coded[..., 0] + 256 * coded[..., 1] + 65536 * coded[..., 2]
        assert {s["id"]: s["area"] for s in image["segments_info"]} == {
            int(i): int((ids == i).sum()) for i in np.unique(ids) if i
        }


def test_a_folder_is_labelled_and_trained_on(
    trained: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    words = ["--config", str(tiny), "--trainer.default_root_dir", str(tmp_path / "runs")]
    label = ["auto-label", *words, "--ckpt_path", str(trained / "checkpoints" / "last.ckpt"), "--output"]
    label += [str(tmp_path / "out"), "--data.predict_path", str(tmp_path / "images"), "--certainty.pixel", "0.0"]
    main(label)
    assert "2 of 2 images labelled" in capsys.readouterr().out and not (tmp_path / "runs").exists()
    # The config in the checkpoint also names the data that it was trained with.
    own = [word for word in label if word not in words[:2]]
    main([*own, "--trust=tests", "--output", str(tmp_path / "own")])
    assert (tmp_path / "own" / "train.yaml").read_text().replace("own", "out") == (
        tmp_path / "out" / "train.yaml"
    ).read_text()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.bmp")
    assert (
        "the labels would be those of 'a.bmp' as well" in fails(capsys, *label, "--output", str(tmp_path / "twice"))[1]
    )
    assert not (tmp_path / "twice").exists()
    (tmp_path / "images" / "a.bmp").unlink()
    assert "exists; give another --output" in fails(capsys, *label)[1]
    main(["fit", *words, "--config", str(tmp_path / "out" / "train.yaml"), "--trainer.fast_dev_run", "true"])


@pytest.mark.parametrize("value", ["../../elsewhere", ""])
def test_a_name_from_the_environment_stays_below_the_runs_too(
    value: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUN_NAME", value)
    words = ["--config", str(tiny), "--name", "${oc.env:RUN_NAME}", "--trainer.max_steps", "1"]
    status, line = fails(capsys, "fit", *words, "--trainer.default_root_dir", str(tmp_path / "a" / "b"))
    assert status == 2 and "name: expected the name of a folder below" in line.splitlines()[-1]
    assert not list(tmp_path.rglob("version_0"))


def test_print_config_shows_every_part(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(tiny), "--print_config"])
    assert not stopped.value.code
    content = yaml.safe_load(capsys.readouterr().out)
    assert content["model"]["detection_loss"]["init_args"]["box_weight"] > 0
    assert content["ema"]["decay"] > 0
    assert content["trainer"]["max_epochs"] == 2
    # The default losses are those of Python.
    terms = [record_of(term) for term in SegmentationLoss().terms]
    assert content["model"]["segmentation_loss"]["init_args"]["terms"] == terms and len(terms) == 2
    loss, given = QualityDetectionLoss(), content["model"]["detection_loss"]["init_args"]
    for name in ("assigner", "box_loss", "confidence_loss", "class_loss"):
        assert given[name] == {key: value for key, value in record_of(getattr(loss, name)).items() if value}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--trainer.max_epoch", "3"], ["'trainer.max_epoch'", "did you mean 'trainer.max_epochs'"]),
        # test_config_errors.py compares more of them with what can be set, without a run.
        pytest.param(["--data.batchsize=3"], ["'data.batchsize'", "'data.batch_size'"], marks=pytest.mark.slow),
        (["--data.batch_size", "many"], ["data.batch_size", "int", "many"]),
        (["--data.on_error=ignore"], ["data.on_error: expected 'raise' or 'skip', got 'ignore'"]),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (["--trainer.max_epochs", "many"], ["trainer.max_epochs", "int or null", "many"]),
                (["--model.optimizer=AdamW", "--model.optimizer.lr=fast"], ["model.optimizer.lr", "float", "fast"]),
                (["--model.neck.init_args.widht=3"], ["model.neck", "'widht'", "did you mean 'width'"]),
            )
        ),
        (["--trainer.barebones=true"], ["trainer.barebones: a run has a log"]),
        (["--trainer.enable_checkpointing=false"], ["trainer.enable_checkpointing: false does not", "save_top_k to 0"]),
        (["--model.encoder", "TimEncoder"], ["model.encoder", "'TimEncoder'", "did you mean 'TimmEncoder'"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: list[str]
) -> None:
    root = tmp_path / "runs"
    status, message = fails(capsys, "fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), *words)
    assert status == 2
    assert len(message.strip().splitlines()) == 1, message
    for part in expected:
        assert part in message
    assert not root.exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trainer:\n  max_epoch: 3\n", ["line 2", "'trainer.max_epoch'", "did you mean 'trainer.max_epochs'"]),
        pytest.param(
            "modle:\n  encoder_lr: 1\n", ["line 1", "'modle'", "did you mean 'model'"], marks=pytest.mark.slow
        ),
        (
            "model:\n  encoder:\n    class_path: TimmEncoder\n    init_args:\n      nmae: resnet18\n",
            ["line 5", "model.encoder", "'nmae'", "did you mean 'name'"],
        ),
        pytest.param(
            "model:\n  encoder:\n    class_path: TimEncoder\n",
            ["line 3", "'TimEncoder'", "did you mean 'TimmEncoder'"],
            marks=pytest.mark.slow,
        ),
        ("trainer:\n  max_epochs: 1\n  max_epochs: 2\n", ["line 3", "'max_epochs' stands twice"]),
        ("trainer: [1\n", ["not valid YAML"]),
        ("trainer:\n\tmax_epochs: 3\n", ["line 2: this is not valid YAML (a tab indents it; YAML takes spaces only)"]),
        ("trainer:\n  max_epochs: !!python/object/apply:os.system [ls]\n", ["line 2", "there is no type 'os.system'"]),
        ("# nothing yet\n", ["it has no settings"]),
    ],
)
def test_a_mistake_in_a_file_is_one_line_with_file_and_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: list[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text)
    status, message = fails(capsys, "fit", "--config", str(tiny), "--config", str(wrong))
    assert status == 2
    assert len(message.strip().splitlines()) == 1, message
    for part in (str(wrong), *expected):
        assert part in message


def test_a_config_in_utf_16_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wide.yaml").write_text("name: wide\n", encoding="utf-16")
    status, message = fails(capsys, "fit", "--config", str(tmp_path / "wide.yaml"))
    assert status == 2 and message.endswith("wide.yaml': this is a text file in UTF-16; save it as UTF-8\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config", "configs/quikstart.yaml"], ["configs/quikstart.yaml", "no such file", "quickstart.yaml"]),
        (
            ["--data.train", "CocoInstances", "--data.train.images=x", "--data.train.annotations=absent.json"],
            ["absent.json"],
        ),
        (["--data.size", "0"], ["data.size"]),
        (["--data.train=null", "--data.val=null"], ["error: data: there is no source"]),
        (["--model.encoder", "TimmEncoder", "--model.encoder.name", "resnet19"], ["resnet19", "resnet18"]),
        (["--data.root", "somewhere"], ["data.root"]),
        (["--name", "../elsewhere"], ["name: expected the name of a folder below", "'../elsewhere'"]),
        (["--name="], ["name: expected the name of a folder below"]),
        (["--version", "/elsewhere"], ["version: expected the name of a folder below"]),
        (["--name", "x" * 256], ["name: a folder's name has at most 255 bytes"]),
        (["--seed_everything=-5"], ["seed_everything: expected false, true or a number from 0 to 4294967295, got -5"]),
    ],
)
def test_a_setup_that_cannot_run_is_one_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: list[str]
) -> None:
    root = tmp_path / "runs"
    status, message = fails(capsys, "fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), *words)
    assert status not in (0, 3)
    assert len(message.strip().splitlines()) == 1, message
    for part in expected:
        assert part in message
    assert not root.exists()


def test_a_missing_checkpoint_is_named(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, message = fails(capsys, "validate", "--config", str(tiny), "--ckpt_path", "absent.ckpt")
    assert status == 1
    assert "absent.ckpt" in message


def test_a_run_never_overwrites_another(trained: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    root = str(trained.parents[1])
    status, message = fails(
        capsys, "fit", "--config", str(tiny), "--trainer.default_root_dir", root, "--version", trained.name
    )
    assert status == 1
    assert "--version" in message
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.slow
def test_a_finished_run_is_made_longer(trained: Path, tiny: Path, tmp_path: Path) -> None:
    """Two batches an epoch, and a validation after each."""
    words = ["fit", "--config", str(tiny), "--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs=3"]
    main([*words, "--ckpt_path", str(trained / "checkpoints" / "last.ckpt")])
    assert json.loads((tmp_path / "tiny" / "version_0" / "summary.json").read_text())["steps"] == 6


def test_a_terminated_run_saves_itself_and_does_not_pass_for_finished(tiny: Path, tmp_path: Path) -> None:
    words = ["--config", str(tiny), "--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs=1000"]
    process = started(["fit", *words])
    run = tmp_path / "tiny" / "version_0"
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").is_file() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    process.join(60)
    assert process.exitcode == 143
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == summary["steps"]


@pytest.mark.slow
@pytest.mark.parametrize("alone", ["detection", "segmentation"])
def test_a_twin_is_the_same_config_without_a_decoder(tiny: Path, tmp_path: Path, alone: str) -> None:
    other = {"detection": "segmentation", "segmentation": "detection"}[alone]
    words = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_epochs=1", f"--model.{other}=null"]
    main(["fit", "--config", str(tiny), *words])
    last = json.loads((tmp_path / "tiny" / "version_0" / "summary.json").read_text())["last"]
    assert ("val/map" in last, "val/miou" in last) == (alone == "detection", alone == "segmentation")
