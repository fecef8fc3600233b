"""An encoder's own weights are neither looked for nor fetched where a checkpoint's take their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import Namespace

from ocrnet_pl.cli.initial_weights import starting_weights
from ocrnet_pl.cli.replaced_weights import ReplacedWeights
from ocrnet_pl.cli.running import build
from ocrnet_pl.errors import WeightsError
from tests.helpers.teachers import write_teacher
from tests.helpers.tiny_run import TINY

ENCODER = "{class_path: TimmEncoder, init_args: {name: test_resnet, weights: hub}}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("before") / "resnet.ckpt"
    write_teacher(path, encoder=encoder_of(weights=None).as_dict())
    content = torch.load(path, weights_only=True)
    torch.save(content | {"global_step": 1, "encoder_pretrained": True}, path)
    return path


def encoder_of(**options: Any) -> Namespace:
    arguments = {"name": "test_resnet", "weights": "hub"} | options
    return Namespace(class_path="ocrnet_pl.models.encoder.TimmEncoder", init_args=Namespace(**arguments))


def test_only_an_encoder_that_finds_all_of_its_weights_in_the_file_needs_no_others(checkpoint: Path) -> None:
    started = starting_weights(str(checkpoint), None, False)
    assert started is not None
    before = torch.get_rng_state()
    config = encoder_of()
    assert started.has_all_of(config)
    assert config == encoder_of() and torch.equal(torch.get_rng_state(), before)
    for options in ({"name": "test_efficientnet"}, {"in_channels": 4}, {"name": "none_of_these"}, {"weights": None}):
        assert not started.has_all_of(encoder_of(**options)), options


@pytest.mark.parametrize("option", ["init_from", "ckpt_path"])
def test_the_command_line_fetches_nothing_that_is_replaced(
    option: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str) -> None:
        raise WeightsError("there is no network")

    monkeypatch.setattr("ocrnet_pl.models.encoder.hub_weights", fetch)
    config = TINY.replace("encoder:\n    class_path: tests.helpers.builders.TinyEncoder", f"encoder: {ENCODER}")
    (tmp_path / "hub.yaml").write_text(config)
    cli = build(["fit", "--config", str(tmp_path / "hub.yaml"), f"--{option}={checkpoint}"])
    # Known before the optimiser is made: some strategies load the checkpoint later.
    assert cli.model.network.encoder.pretrained
    assert cli.config["fit"]["model"]["encoder"]["init_args"]["weights"] == "hub"


def test_the_weights_of_encoders_inside_others_are_left_out_too_and_come_back() -> None:
    inner = Namespace(class_path="A", init_args=Namespace(weights="hub", name="x"))
    outer = Namespace(class_path="B", init_args=Namespace(weights=None, parts=[inner], options={"weights": 3}))
    config, before = outer.clone(), outer.clone()
    replaced = ReplacedWeights(config)
    assert replaced and config.init_args.parts[0].init_args.weights is None
    assert config.init_args.options == {"weights": 3}
    replaced.put_back()
    assert config == before
    assert not ReplacedWeights(Namespace(class_path="A", init_args=Namespace(name="x")))
    assert not ReplacedWeights(Namespace(class_path="A"))
