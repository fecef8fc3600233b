"""Each overlay in configs/decoders takes a step, and its checkpoint gives the network back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ocrnet_pl.cli.main import main
from ocrnet_pl.models.detection import AnchorFreeDecoder, OneToOneDecoder
from ocrnet_pl.models.necks import BiFPNNeck, FeaturePyramidNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.smp_models import SmpDeepLabV3Plus, SmpUnet
from tests.configs.test_configs import CONFIGS, STEP, summary

OVERLAYS = {
    "overlays/decoders/bifpn.yaml": ("neck", BiFPNNeck),
    "overlays/decoders/fpn.yaml": ("neck", FeaturePyramidNeck),
    "overlays/decoders/unet.yaml": ("segmentation", SmpUnet),
    "overlays/decoders/deeplabv3plus.yaml": ("segmentation", SmpDeepLabV3Plus),
    "overlays/decoders/distribution.yaml": ("detection", AnchorFreeDecoder),
    "overlays/decoders/one_to_one.yaml": ("detection", OneToOneDecoder),
}


def fit(tmp_path: Path, overlay: str, *more: str) -> OCRNet:
    """Take a step on few small scenes and return the network of its checkpoint."""
    small = ["--data.train.init_args.length=2", "--data.val.init_args.length=2", "--data.size=128"]
    configs = ["--config", str(CONFIGS / "quickstart.yaml"), "--config", str(CONFIGS / overlay)]
    main(["fit", *configs, *STEP, *small, *more, f"--trainer.default_root_dir={tmp_path}"])
    assert summary(tmp_path, "quickstart")["steps"] == 1
    return OCRNet.from_checkpoint(next((tmp_path / "quickstart" / "version_0").rglob("last.ckpt")))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_overlay_takes_a_step_and_comes_back_from_its_checkpoint(tmp_path: Path, overlay: str) -> None:
    network = fit(tmp_path, overlay)
    part, kind = OVERLAYS[overlay]
    assert type(getattr(network, part)) is kind
    (prediction,) = network.predict([torch.randint(0, 256, (3, 90, 70), dtype=torch.uint8)])
    assert prediction.semantic is not None and prediction.semantic.shape == (90, 70)


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
