"""The compiled network (configs/overlays/speed/compile.yaml): figures as without it, DDP, averages, and resuming."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import yaml
from torch._dynamo.utils import counters

from ocrnet_pl import OCRNet
from ocrnet_pl.cli.main import main
from tests.helpers.processes import run_together
from tests.helpers.project import ROOT

SMALL = [
    "fit",
    "--config",
    str(ROOT / "configs" / "quickstart.yaml"),
    "--model.encoder.init_args.name=test_convnext",
    "--data.size=64",
    "--data.num_workers=0",
    "--data.batch_size=2",
    "--data.train.init_args.length=8",
    "--data.val.init_args.length=3",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.max_epochs=2",
]
# Dynamo's own backend runs the traced graphs as they are: figures have to be those of the network without.
COMPILED = ["--config", str(ROOT / "configs" / "overlays/speed/compile.yaml"), "--model.compile_backend=eager"]


def fit(folder: Path, *words: str) -> None:
    main([*SMALL, *words, f"--trainer.default_root_dir={folder}"])


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return {key: value for name in ("state_dict", "current_model_state") for key, value in checkpoint[name].items()}


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


@pytest.mark.slow
def test_a_compiled_run_goes_on_from_a_plain_one_as_that_does_itself(tiny: Path, tmp_path: Path) -> None:
    torch._dynamo.reset()
    # Validation by whole batches: another number of images is another graph.
    words = ["fit", "--config", str(tiny), f"--trainer.default_root_dir={tmp_path}", "--data.val.init_args.length=4"]
    main([*words, "--version=plain", "--checkpoint.save_top_k=-1"])
    plain = tmp_path / "tiny" / "plain"
    saved = {torch.load(path, weights_only=True)["global_step"]: path for path in plain.rglob("*.ckpt")}
    main([*words, "--version=compiled", *COMPILED, f"--ckpt_path={saved[2]}"])
    compiled = tmp_path / "tiny" / "compiled"
    assert len(losses(plain)) == 4
    assert losses(compiled)[-2:] == pytest.approx(losses(plain)[-2:], rel=1e-4)
    # Names of weights are those of a plain run, so that one goes on from a compiled one as well.
    assert weights(compiled).keys() == weights(plain).keys()
    network = OCRNet.from_checkpoint(compiled / "checkpoints" / "last.ckpt", trust="tests")
    assert network.predict(torch.zeros(3, 40, 60, dtype=torch.uint8))[0].semantic is not None


def graphs(folder: Path, *words: str) -> int:
    """Train, and return how many graphs were traced in this process."""
    torch._dynamo.reset()
    counters.clear()
    fit(folder, *words)
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.slow
def test_two_processes_trace_the_same_graphs_once_a_size(tmp_path: Path) -> None:
    words = ["--config", str(ROOT / "configs" / "overlays/distributed/ddp.yaml"), "--trainer.devices=2", *COMPILED]
    # Cropped objects count as crowds, for which the losses have a second graph.
    words += ["--trainer.limit_val_batches=0", "--data.train.init_args.length=16", "--data.train_transforms=[]"]
    counts = [
        run_together(tmp_path / scales, 2, graphs, tmp_path / scales / "run", *words, f"--data.scales={scales}")
        for scales in ("[1.0]", "[0.5, 1.0]")
    ]
    # Encoder, neck, two decoders and the losses, for each size.
    assert counts == [[5, 5], [10, 10]]


@pytest.mark.slow
def test_compiled_under_ddp_with_checkpointing(tmp_path: Path) -> None:
    words = ["--config", str(ROOT / "configs" / "overlays/distributed/ddp.yaml"), "--trainer.devices=2"]
    more = ["--model.encoder.init_args.checkpointing=true", "--trainer.max_epochs=1"]
    run_together(tmp_path / "plain_results", 2, fit, tmp_path / "plain", *words, *more)
    run_together(tmp_path / "compiled_results", 2, fit, tmp_path / "compiled", *words, *more, *COMPILED)
    runs = [tmp_path / name / "quickstart" / "version_0" for name in ("plain", "compiled")]
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-4)


def test_an_unknown_backend_ends_the_run_before_it_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, "--model.compile_backend=indcutor")
    assert stopped.value.code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: model.compile_backend: there is no backend 'indcutor' here") and "inductor" in line
    assert not list(tmp_path.iterdir())


def test_no_compiler_is_told_before_the_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, "--config", str(ROOT / "configs" / "overlays/speed/compile.yaml"))
    assert stopped.value.code == 1
    assert "needs a C++ compiler" in capsys.readouterr().err.splitlines()[-1]


def test_the_overlay_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*SMALL, "--config", str(ROOT / "configs" / "overlays/speed/compile.yaml"), "--print_config"])
    assert not stopped.value.code
    assert yaml.safe_load(capsys.readouterr().out)["model"]["compile_backend"] == "inductor"
