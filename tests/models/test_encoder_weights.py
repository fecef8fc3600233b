"""An encoder takes the encoder's weights of a whole checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from ocrnet_pl.errors import CheckpointError, WeightsError
from ocrnet_pl.models.encoder import TimmEncoder


def checkpoint(path: Path, name: str = "test_resnet", **options: int) -> dict[str, torch.Tensor]:
    """Write what training writes of an encoder, beside other weights, and return the encoder's."""
    torch.manual_seed(1)
    weights = TimmEncoder(name, **options).state_dict()  # type: ignore[arg-type]
    state = {f"network.encoder.{key}": value for key, value in weights.items()} | {"network.neck.a": torch.ones(1)}
    live = {key: value + 1 for key, value in state.items()}
    saved = {"encoder": {"class_path": "TimmEncoder", "init_args": {"name": name}}}
    torch.save({"state_dict": state, "current_model_state": live, "hyper_parameters": saved, "epoch": 3}, path)
    return weights


@pytest.mark.parametrize("file", ["run.ckpt", "renamed.pt"])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_it_takes_the_averaged_weights(file: str, name: str, tmp_path: Path) -> None:
    want = checkpoint(tmp_path / file, name)
    encoder = TimmEncoder(name, str(tmp_path / file))
    own = encoder.state_dict()
    assert own.keys() == want.keys() and all(torch.equal(value, want[key]) for key, value in own.items())
    assert encoder.pretrained


def test_another_encoders_checkpoint_is_refused_by_its_first_difference(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run.ckpt", "test_efficientnet")
    with pytest.raises(
        WeightsError, match=r"of 'test_efficientnet', not of 'test_resnet'.*conv_stem.* the model has"
    ) as e:
        TimmEncoder("test_resnet", str(tmp_path / "run.ckpt"))
    assert "\n" not in str(e.value)
    checkpoint(tmp_path / "grey.ckpt", in_channels=1)
    with pytest.raises(
        WeightsError, match=r"has model\.conv1\.0\.weight \[\d+, 1, 3, 3\], the model has .* \[\d+, 3, 3, 3\]"
    ):
        TimmEncoder("test_resnet", str(tmp_path / "grey.ckpt"))


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "run.ckpt")
    content = bytearray((tmp_path / "run.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "run.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        TimmEncoder("test_resnet", str(tmp_path / "run.ckpt"))


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": 1}}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        TimmEncoder("test_resnet", str(tmp_path / "w.pt"))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state["conv1.0.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match=r"nan\.pth': 1 of its tensors hold values that are not finite"):
        TimmEncoder("test_resnet", weights=str(tmp_path / "nan.pth"))


def test_a_file_with_python_objects_is_refused_without_advice_to_run_them(tmp_path: Path) -> None:
    torch.save({"model": Path("somewhere"), "conv1.0.weight": torch.zeros(1)}, tmp_path / "objects.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights: it holds other things") as refused:
        TimmEncoder("test_resnet", weights=str(tmp_path / "objects.pth"))
    assert "weights_only" not in str(refused.value)
