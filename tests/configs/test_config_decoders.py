"""Options within the overlays of configs/overlays/decoders, and a decoder that does not fit its encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrnet_pl.cli.main import main
from ocrnet_pl.models.detection import OneToOneDecoder
from ocrnet_pl.models.ocrnet import OCRNet
from tests.configs.test_configs import STEP, Run
from tests.helpers.project import CONFIGS


def fit(tmp_path: Path, overlay: str, *more: str) -> OCRNet:
    """Take a step on few small scenes and return the network of its checkpoint."""
    small = ["--data.train.init_args.length=2", "--data.val.init_args.length=2", "--data.size=64"]
    small += ["--model.encoder.init_args.name=test_resnet"]
    configs = ["--config", str(CONFIGS / "quickstart.yaml"), "--config", str(CONFIGS / overlay)]
    main(["fit", *configs, *STEP, *small, *more, f"--trainer.default_root_dir={tmp_path}"])
    return Run(tmp_path).network()


def test_options_inside_the_two_branches_are_read(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    text = (CONFIGS / "overlays/decoders/one_to_one.yaml").read_text()
    overlay.write_text(
        text.replace("class_path: AnchorFreeDecoder", "class_path: AnchorFreeDecoder\n        init_args: {bins: 7}")
    )
    network = fit(tmp_path, str(overlay))
    assert isinstance(network.detection, OneToOneDecoder)
    branches = network.detection.one_to_one, network.detection.one_to_many
    assert [getattr(branch, "bins", None) for branch in branches] == [7, 7]
    assert network.postprocess.decode.iou_threshold is None


def test_a_decoder_that_does_not_fit_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, "overlays/decoders/unet.yaml", "--model.segmentation.init_args.coarsest=16")
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "channels has 5 values" in error and error.count("\n") == 1
