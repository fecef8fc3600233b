"""A task and a data module of one's own, in a ``train.py`` of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ocrnet_pl import JointDataModule, OCRNetTask, main
from tests.helpers.command_line import command_line_parser, complaint
from tests.helpers.tiny_run import TINY

SEEN: list[tuple[float, int, str]] = []


class OwnTask(OCRNetTask):
    """The task with options of its own.

    Args:
        pull: How strongly the loss is pulled, at least 0.
    """

    def __init__(self, pull: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pull = pull

    def on_validation_start(self) -> None:
        super().on_validation_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        SEEN.append((self.pull, data.batch_size, data.tag))


class OwnData(JointDataModule):
    """The data module with an option of its own.

    Args:
        tag: A word about the data.
    """

    def __init__(self, *args: Any, tag: str = "none", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tag = tag


def test_options_of_subclasses_train_and_come_back_with_the_checkpoint(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.replace("max_epochs: 2", "max_epochs: 1"))
    root = f"--trainer.default_root_dir={tmp_path / 'runs'}"
    own = {"task": OwnTask, "data": OwnData}
    SEEN.clear()
    main(
        ["fit", "--config", str(config), root, "--model.pull=0.25", "--data.tag=mine", "--pictures.enabled=false"],
        **own,
    )
    checkpoint = tmp_path / "runs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt"
    main(["validate", "--ckpt_path", str(checkpoint), "--trust=tests", "--data.batch_size=2", root], **own)
    assert SEEN == [(0.25, 4, "mine"), (0.25, 2, "mine")]
    assert torch.load(checkpoint, weights_only=True)["hyper_parameters"]["pull"] == 0.25


def test_options_of_subclasses_stand_in_the_help_and_are_checked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = command_line_parser(task=OwnTask, data=OwnData)
    with pytest.raises(SystemExit):
        parser.parse_args(["fit", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "--model.pull PULL How strongly the loss is pulled, at least 0. (type: float, default: 0.0)" in words
    assert "--data.tag TAG A word about the data." in words
    assert "--model.encoder_lr" in words and "--data.batch_size" in words
    said = complaint(parser, capsys, "fit", "--model.pul=3")
    assert said == "there is no key 'model.pul'; did you mean 'model.pull'?"
