"""A model that is built for one input size, on the command line and in its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrnet_pl.cli.main import main
from ocrnet_pl.models.ocrnet import OCRNet
from tests.cli.test_cli import fails
from tests.configs.test_configs import STEP, Run
from tests.helpers.project import CONFIGS

SMALL = ["--config", str(CONFIGS / "quickstart.yaml"), "--model.encoder.init_args.name=test_coatnet"]
SMALL += ["--data.train.init_args.length=2", "--data.val.init_args.length=2"]


@pytest.mark.slow
def test_the_size_of_the_data_reaches_the_encoder_and_its_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *SMALL, *STEP, "--data.size=[64, 96]", f"--trainer.default_root_dir={tmp_path}"])
    run = Run(tmp_path)
    path = str(run.folder / "checkpoints" / "last.ckpt")
    network = OCRNet.from_checkpoint(path)
    assert network.encoder.fixed_size == network.input_size == (64, 96)
    evaluate = ["validate", "--ckpt_path", path, f"--trainer.default_root_dir={tmp_path}", "--data.num_workers=0"]
    main([*evaluate, "--trainer.enable_progress_bar=false"])
    status, said = fails(capsys, *evaluate, "--data.size=[64, 128]")
    line = said.splitlines()[-1]
    assert status == 1 and "takes images of 64x96 only, not 64x128; set data.size to [64, 96]" in line


@pytest.mark.parametrize(
    "word", ["--data.scales=[1.0, 1.5]", "--model.multiscale={class_path: MultiScale, init_args: {scales: [1.0, 1.5]}}"]
)
def test_other_sizes_are_refused_before_the_first_step(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = fails(capsys, "fit", *SMALL, *STEP, "--data.size=64", word, f"--trainer.default_root_dir={tmp_path}")
    assert status == 1 and said.count("\n") == 1
    assert "takes images of 64x64 only, not 96x96; set data.size to 64, data.scales to [1.0]" in said
    assert not list(tmp_path.iterdir())
