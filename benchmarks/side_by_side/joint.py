"""This project's network, trained by its own command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Placement, Prediction
from side_by_side.settings import Settings

_PROBE_STEPS = 40


class JointPredictor:
    """Predicts with a trained network, fused where it has both tasks.

    Args:
        network: The network, in evaluation mode.
    """

    def __init__(self, network: OCRNet) -> None:
        self.network = network

    def __call__(self, images: Tensor) -> list[Prediction]:
        """Return the predictions for uint8 images [B, C, H, W]."""
        size = (images.shape[-2], images.shape[-1])
        placements = [Placement.identity(size)] * len(images)
        return self.network.postprocessed(self.network(images), placements).best


def train_joint(
    settings: Settings, folder: Path, words: Sequence[str], device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """Train for as many steps as fit the budget, by the speed of a few, or as ``auto`` chooses if the config has it.

    Args:
        settings: Settings of the comparison.
        folder: Folder for the runs.
        words: Further words of the command line, such as a decoder to leave out.
        device: Device for the network.

    Returns:
        The network and what is known of its training.
    """
    steps = settings.steps
    if steps is None and not settings.content().get("auto"):
        batch_size = int(settings.content()["data"].get("batch_size", 16))
        probe = _fit(settings, folder / "probe", words, _PROBE_STEPS)
        # Of the last steps: the first ones also read the images and fill the caches.
        steps = max(1, round(settings.budget * probe["last"]["train/images_per_s"] / batch_size))
    summary = _fit(settings, folder / "run", words, steps)
    run = folder / "run" / "joint" / "version_0"
    network = OCRNet.from_checkpoint(run / "checkpoints" / "last.ckpt", device)
    batch_size = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]["batch_size"]
    speed = summary["images_per_s"]
    # A run of one step has no speed.
    seconds = summary["steps"] * batch_size / speed if speed else summary["time_s"]
    return network.to(device), {
        "steps": summary["steps"],
        "train_s": seconds,
        "images_per_s": speed,
        "peak_memory_mb": summary["peak_memory_mb"],
    }


def _fit(settings: Settings, folder: Path, words: Sequence[str], steps: int | None) -> dict[str, Any]:
    """Train for some steps, or for as long as ``auto`` makes of the budget; return the run's summary."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "ocrnet_pl", "fit", "--config", str(settings.config)]
    options = {
        "name": "joint",
        "seed_everything": settings.seed,
        "data.size": settings.size,
        "data.evaluate_at": "input",
        "trainer.default_root_dir": folder,
        "trainer.num_sanity_val_steps": 0,
        # The probe ends with a speed.
        "trainer.log_every_n_steps": _PROBE_STEPS // 4,
        "pictures.enabled": "false",
    }
    if steps is None:
        options["auto.budget"] = settings.budget
    else:
        options |= {
            "trainer.max_epochs": -1,
            "trainer.max_steps": steps,
            "trainer.check_val_every_n_epoch": "null",
            "trainer.val_check_interval": steps,
        }
    if settings.data is not None:
        options["data.root"] = settings.data
    for name, value in settings.encoder_arguments().items():
        options[f"model.encoder.init_args.{name}"] = "null" if value is None else value
    command += [f"--{name}={value}" for name, value in options.items()]
    subprocess.run([*command, *words], check=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    summary: dict[str, Any] = json.loads((folder / "joint" / "version_0" / "summary.json").read_text())
    return summary
