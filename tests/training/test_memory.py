from __future__ import annotations

import functools
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ocrnet_pl.cli.main import main
from ocrnet_pl.training import step_memory
from ocrnet_pl.training.step_memory import by_size, largest_that_fits, out_of_memory, ram_peak_mb, reset_peak
from tests.helpers.tiny_run import TINY, fails


@pytest.mark.parametrize("base", [0.0, 300.0])
@pytest.mark.parametrize("power", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("limit", [301.0, 350.0, 1000.0, 20000.0])
def test_the_largest_batch_is_found_without_overrunning_the_limit(base: float, power: float, limit: float) -> None:
    asked = []

    def peak(count: int) -> float | None:
        asked.append(count)
        used = base + 7 * count**power
        return None if used > 1.5 * limit else used

    best = max((count for count in range(1, 4097) if base + 7 * count**power <= limit), default=0)
    found = largest_that_fits(peak, limit)
    assert best - max(1, best // 12) <= found <= best
    assert len(asked) <= 16
    # The foretold is approached from below, but for a curve and whole numbers.
    assert max(asked) <= max(2, 1.15 * best + 1)


def test_nothing_fits() -> None:
    assert largest_that_fits(lambda count: None, 100) == 0
    assert largest_that_fits(lambda count: 101.0, 100) == 0
    assert largest_that_fits(lambda count: 10.0, 100, most=50) == 50


@pytest.mark.parametrize("limit", [25.0, 100.0, 1000.0])
def test_a_network_that_refuses_one_image_begins_with_two(limit: float) -> None:
    def peak(count: int) -> float:
        if count == 1:
            raise ValueError("Expected more than 1 value per channel when training")
        return 10.0 * count

    best = int(limit / 10)
    assert best - max(1, best // 12) <= largest_that_fits(peak, limit) <= best
    assert largest_that_fits(peak, 15) == 0


def test_sizes_come_largest_first() -> None:
    assert by_size([(32, 64), (64, 64), (32, 32), (64, 64)]) == [(64, 64), (32, 64), (32, 32)]


def config(folder: Path) -> str:
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace("scales: [1.0]", "scales: [0.5, 1.0]"))
    return str(path)


def gigabytes_above(megabytes: float) -> float:
    """Return a limit so far above what this process has now; tests before it may have had far more."""
    reset_peak(torch.device("cpu"))
    return ((ram_peak_mb() or 0) + megabytes) / 1024


def test_what_an_earlier_step_freed_does_not_count() -> None:
    reset_peak(torch.device("cpu"))
    before = ram_peak_mb() or 0
    # Pieces of the heap, of which the last one keeps the others from being given back when they are freed.
    step = [torch.ones(16_000) for _ in range(5000)]
    assert (ram_peak_mb() or 0) > before + 250
    last = step[-1]
    del step
    reset_peak(torch.device("cpu"))
    assert (ram_peak_mb() or 0) < before + 60
    assert last.sum() == 16_000


def test_the_command_measures_each_size_and_proposes_a_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = gigabytes_above(120)
    main(["memory", "--config", config(tmp_path), "--limit_gb", str(limit), "--data.batch_size", "1"])
    shown = capsys.readouterr().out
    assert shown.index("64 x 64") < shown.index("32 x 32")
    assert 1 <= int(shown.rpartition("data.batch_size: ")[2]) < 4096
    assert not (tmp_path / "runs").exists()
    status, message = fails(capsys, "memory", "--config", config(tmp_path), "--limit_gb", "0.001")
    assert status == 1
    assert message.splitlines()[-1].startswith("error: out of memory at 1 images of 64 x 64; lower data.batch_size")


def test_the_command_measures_decoders_that_pool_an_image_to_one_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It begins with two images; how it goes on is that of any network.
    monkeypatch.setattr(step_memory, "largest_that_fits", functools.partial(largest_that_fits, most=8))
    limit = gigabytes_above(120)
    overlay = ["--config", "configs/overlays/decoders/deeplabv3plus.yaml"]
    small = ["--model.encoder.init_args.name=test_resnet", "--data.scales=[1.0]"]
    more = ["--limit_gb", str(limit), "--data.batch_size", "2"]
    main(["memory", "--config", config(tmp_path), *overlay, *small, *more])
    assert int(capsys.readouterr().out.rpartition("data.batch_size: ")[2]) >= 2


class Exhaust(Callback):
    """Fails as torch does when the memory of a GPU, or of the machine, is used up."""

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        if self.gpu:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("gpu", [True, False])
def test_no_memory_left_in_training_is_told_in_one_line(
    gpu: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--trainer.callbacks+=tests.training.test_memory.Exhaust", f"--trainer.callbacks.gpu={gpu}"]
    words = ["fit", "--config", config(tmp_path), "--trainer.default_root_dir", str(tmp_path), "--data.scales=[1.0]"]
    status, message = fails(capsys, *words, *more)
    assert status == 1
    assert message.splitlines()[-1].startswith("error: out of memory at 4 images of 64 x 64; lower data.batch_size")
    assert not out_of_memory(RuntimeError("something else"))


class Resident(Callback):
    """Keeps the resident memory of the process, in MB, at some steps."""

    seen: ClassVar[dict[int, float]] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if trainer.global_step % 100 == 0:
            status = Path("/proc/self/status").read_text()
            self.seen[trainer.global_step] = int(status.split("VmRSS:")[1].split()[0]) / 1000


@pytest.mark.slow
def test_memory_stays_flat_over_2000_steps(tmp_path: Path) -> None:
    Resident.seen = {}
    words = ["fit", "--config", config(tmp_path), "--trainer.default_root_dir", str(tmp_path), "--data.batch_size=2"]
    length = ["--trainer.max_epochs=-1", "--trainer.max_steps=2000", "--trainer.val_check_interval=200"]
    more = ["--trainer.check_val_every_n_epoch=null", "--trainer.callbacks+=tests.training.test_memory.Resident"]
    main([*words, *length, *more, "--data.train.init_args.length=64"])
    assert max(Resident.seen) == 2000
    assert Resident.seen[2000] - Resident.seen[400] < 50, Resident.seen
