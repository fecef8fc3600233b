"""``calibrate`` as a user runs it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from ocrnet_pl import OCRNet
from ocrnet_pl.cli.box_options import chosen_boxes
from ocrnet_pl.cli.main import main
from ocrnet_pl.drawing.overlays import write_png
from ocrnet_pl.errors import UsageError
from ocrnet_pl.inference.counting import CountRule
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.operating_points import Curve
from ocrnet_pl.inference.probabilities import Beta
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from tests.helpers.tiny_run import fails


def complaint(capsys: pytest.CaptureFixture[str], config: Path, *more: str) -> str:
    """Return the one line that a command line that cannot be is answered with."""
    status, line = fails(capsys, "calibrate", "--config", str(config), *more)
    assert status in (1, 2)
    errors = [each for each in line.splitlines() if each.startswith("error:")]
    assert len(errors) == 1
    assert "Traceback" not in line
    return errors[0]


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    main(["fit", "--config", str(tiny), "--trainer.default_root_dir", str(root), "--trainer.max_epochs=1"])
    return root / "tiny" / "version_0" / "checkpoints" / "last.ckpt"


def test_calibrate_writes_a_checkpoint_that_everything_else_reads(
    tiny: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trained.read_bytes()
    words = ["--config", str(tiny), "--trainer.default_root_dir", str(tmp_path)]
    # The checkpoint brings its config.
    own = ["--ckpt_path", str(trained), "--trust", "tests", *words[2:]]
    more = ["--probabilities=true", "--miss_rate=0.5"]
    main(["calibrate", *own, "--calibration.images=9", "--calibration.rounds=1", *more])
    shown = " ".join(capsys.readouterr().out.split())
    # Of five images, three sign.
    assert "held out: 1 images" in shown
    assert "Expected calibration error: 4 images" in shown
    assert "Bound: at most 50.0% of the objects of a class missed, with a confidence of 90%" in shown
    assert "mask mAP" in shown
    written = trained.with_name("last-calibrated.ckpt")
    assert trained.read_bytes() == before
    assert not list(trained.parent.glob("*.part"))
    old, new = (torch.load(path, weights_only=True) for path in (trained, written))
    assert "fusion" not in old
    report = json.loads(written.with_suffix(".json").read_text())
    assert new["fusion"] == report["settings"]
    assert set(new) == {*old, "fusion", "calibration"}
    assert set(report["operating_points"]) == {"raw", "fused"}
    assert (report["images"], report["images_held_out"]) == (2, 1)
    assert new["calibration"]["images"] == 5
    assert set(new["calibration"]["bounds"]["fused"]) == set(report["probabilities"]["unchanged"])
    assert new["fusion"]["temperature"] != 1
    assert report["probabilities"]["calibration_error"]["pixels"]["before"] > 0
    assert written.with_suffix(".png").is_file()
    assert set(report["figures"]["all"]) == {"raw", "fused before", "fused calibrated"}
    post = OCRNet.from_checkpoint(written, trust="tests").postprocess
    assert isinstance(post, FusionPostProcess)
    assert post.settings.to_dict() == new["fusion"]

    # Settings of which it is known what they do: with all classes left alone, fused figures are the raw ones.
    names = [category["name"] for category in new["taxonomy"]["categories"]]
    new["fusion"] |= {"raw_boxes": names, "raw_pixels": names, "claim": 2.0, "mask_threshold": 0.0}
    torch.save(new, tmp_path / "raw.ckpt")
    main(["validate", *words, "--ckpt_path", str(tmp_path / "raw.ckpt")])
    figures = json.loads((tmp_path / "tiny" / "version_0" / "summary.json").read_text())["last"]
    assert figures["val/fused_miou"] == figures["val/miou"]
    assert (tmp_path / "tiny" / "version_0" / "disagreements.csv").is_file()
    assert "val/mask_map" in figures

    # Several passes have scores of their own, and the checkpoint says which they are.
    passes = ["--model.multiscale.scales=[1.0]", "--model.multiscale.flip=true"]
    several = ["--output", str(tmp_path / "several.ckpt"), "--calibration.images=4", "--calibration.rounds=0"]
    main(["calibrate", *own, *several, *passes])
    assert "Calibrated for predictions in scales 1 mirrored left to right (IoU 0.6)" in capsys.readouterr().out
    known = torch.load(tmp_path / "several.ckpt", weights_only=True)["calibration"]
    assert known["passes"] == "scales 1 mirrored left to right (IoU 0.6), rescored by votes (3 are usual)"
    assert known["curves"] != new["calibration"]["curves"]

    # Training that goes on changes the network: the settings are not taken over.
    main(["fit", *words, "--ckpt_path", str(tmp_path / "raw.ckpt"), "--trainer.max_epochs=2"])
    again = next((tmp_path / "tiny").glob("version_1/checkpoints/last.ckpt"))
    assert "fusion" not in torch.load(again, weights_only=True)
    assert not (tmp_path / "tiny" / "version_1" / "disagreements.csv").exists()


def test_predict_gives_out_the_boxes_of_an_operating_point(
    tiny: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    write_png(torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), images / "a.png")
    words = ["predict", "--config", str(tiny), "--trainer.default_root_dir", str(tmp_path), "--trust=tests"]
    words += ["--data.predict_path", str(images), "--prediction.overlays=false"]
    words += ["--model.postprocess.init_args.decode.init_args.score_threshold=0"]

    def found(version: int, *more: str) -> list[tuple[int, float]]:
        main([*words, *more])
        file = tmp_path / "tiny" / f"version_{version}" / "predictions" / "predictions.json"
        assert len(json.loads(file.with_name("panoptic.json").read_text())) == 1
        return [(row["category_id"], row["score"]) for row in json.loads(file.read_text())]

    every = found(0, "--ckpt_path", str(trained))
    content = torch.load(trained, weights_only=True)
    names = [category["name"] for category in content["taxonomy"]["categories"] if category["detection"] is not None]
    # Boxes of this untrained network may all be of one class, which is therefore the one with a curve.
    (chosen, _), *_ = Counter(label for label, _ in every).most_common()
    own, other, left = (names[(chosen - 1 + step) % 3] for step in range(3))
    scores = sorted(score for label, score in every if label == chosen)
    least = scores[len(scores) // 2]
    curve = Curve((least,), (1,), (0,), 2)
    # This map to probabilities changes nothing, and so its boxes can be counted.
    known = [{way: {own: each} for way in ("raw", "fused")} for each in (curve, Beta(), CountRule(0.5, 1.0))]
    content["calibration"] = ScoreCalibration(4, 0.5, *known).to_dict()
    written = tmp_path / "points.ckpt"
    torch.save(content, written)
    capsys.readouterr()
    some = found(1, "--ckpt_path", str(written), f"--classes={own}, {other}", "--operating_point=recall=0.5")
    said = capsys.readouterr().err
    labels = {chosen, names.index(other) + 1}
    assert some == [row for row in every if row[0] in labels and (row[0] != chosen or row[1] >= least * (1 - 1e-5))]
    assert 0 < len(some) < len(every)
    assert f"operating point recall=0.5: {other!r}: the calibration images have no object of it" in said
    assert left not in said
    header, row = (tmp_path / "tiny" / "version_1" / "predictions" / "counts.csv").read_text().splitlines()
    assert header == "image,class,expected,low,high"
    expected = sum(scores) / 0.5
    scale = math.sqrt(sum(s * (1 - s) + s * 0.5 for s in scores) / 0.25 + 1)
    low, high = max(0, math.ceil(expected - scale)), math.floor(expected + scale)
    assert row == f"a.png,{own},{round(expected, 2)},{low},{high}"
    # A variable of the shell that is not set does not mean all classes.
    status, line = fails(capsys, *words, "--ckpt_path", str(trained), "--classes=")
    assert (status, line) == (
        2,
        "error: classes: expected names separated by commas, got ''; leave it out for all classes\n",
    )
    assert not (tmp_path / "tiny" / "version_2").exists()
    status, line = fails(capsys, *words, "--ckpt_path", str(trained), "--operating_point=best_f1")
    assert status == 1
    assert "train.py calibrate --ckpt_path FILE" in line
    with pytest.raises(UsageError, match="operating_point 'best': expected none"):
        chosen_boxes(Namespace(operating_point="best", classes=None))


def test_what_cannot_be_calibrated_is_said_in_one_line(
    tiny: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ["--ckpt_path", str(trained), "--trust=tests"]
    assert "--ckpt_path" in complaint(capsys, tiny)
    assert "calibration.images" in complaint(capsys, tiny, *path, "--calibration.images=1")
    assert "it is a folder" in complaint(capsys, tiny, *path, "--output", str(tmp_path))
    assert "it is the checkpoint that is calibrated" in complaint(capsys, tiny, *path, "--output", str(trained))
    assert "a report gets this name" in complaint(capsys, tiny, *path, "--output", str(tmp_path / "new.json"))
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}: " in complaint(capsys, tiny, *path, "--output", str(tmp_path / "file" / "new.ckpt"))
    content = torch.load(trained, weights_only=True)
    for category in content["taxonomy"]["categories"]:
        category["name"] = category["name"] + "s"
    other = tmp_path / "other.ckpt"
    torch.save(content, other)
    said = complaint(capsys, tiny, "--ckpt_path", str(other), "--trust=tests")
    assert "its categories are not those of" in said
    nothing = ["--data.val.init_args.min_objects=0", "--data.val.init_args.max_objects=0"]
    said = complaint(capsys, tiny, *path, *nothing, "--output", str(tmp_path / "calibrated.ckpt"))
    assert "data.val: none of its 5 images that were looked at has a labelled object" in said
    assert not list(tmp_path.glob("*calibrated*"))


@pytest.mark.slow
def test_checkpoints_that_are_none_are_named(
    tiny: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such file" in complaint(capsys, tiny, "--ckpt_path", str(tmp_path / "none.ckpt"))
    content = torch.load(trained, weights_only=True)
    torch.save({"state_dict": content["state_dict"]}, tmp_path / "bare.ckpt")
    assert "not one of this project" in complaint(capsys, tiny, "--ckpt_path", str(tmp_path / "bare.ckpt"))
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert "text.ckpt" in complaint(capsys, tiny, "--ckpt_path", str(tmp_path / "text.ckpt"))
    assert not list(tmp_path.glob("*calibrated*"))
