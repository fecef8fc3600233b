"""What all models have in common: images, encoder, size and time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentParser

import ocrnet_pl.cli.parser  # noqa: F401  (its imports let a config name the package's classes)
from ocrnet_pl.data.datamodule import JointDataModule


@dataclass(frozen=True)
class Settings:
    """What every model gets.

    Attributes:
        config: Config of the joint network; all models use its data section and its encoder.
        data: Folder that the sources' paths start from; None for sources without files.
        budget: Seconds of training, without start-up and evaluation.
        steps: Number of steps to train instead, to try the script; None for the budget.
        size: Side of the input in pixels.
        encoder: Arguments of ``TimmEncoder`` that differ from the config's.
        seed: Seed of all random generators.
    """

    config: Path
    data: Path | None
    budget: float
    steps: int | None
    size: int
    encoder: dict[str, Any]
    seed: int

    def content(self) -> dict[str, Any]:
        """Return the config."""
        content: dict[str, Any] = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        return content

    def encoder_arguments(self) -> dict[str, Any]:
        """Return the arguments of the encoder."""
        encoder = self.content()["model"]["encoder"]
        if not encoder["class_path"].endswith("TimmEncoder"):
            raise ValueError(f"{self.config}: the encoder is a {encoder['class_path']}, the peers need a TimmEncoder")
        arguments: dict[str, Any] = dict(encoder.get("init_args", {}))
        if "name" in self.encoder and self.encoder["name"] != arguments.get("name"):
            # Each model has its own weights.
            arguments |= {"weights": None, "weights_by_order": False}
        return arguments | self.encoder

    def seed_all(self) -> None:
        """Seed every generator."""
        random.seed(self.seed)
        np.random.seed(self.seed)
        torch.manual_seed(self.seed)

    def data_module(self) -> JointDataModule:
        """Return the config's data, evaluated in the input's frame."""
        data = self.content()["data"] | {"size": self.size, "evaluate_at": "input", "seed": self.seed}
        own = data.pop("root", None)
        root = own if self.data is None else self.data
        for split in ("train", "val"):
            arguments = data[split].setdefault("init_args", {})
            if root is not None:
                arguments.setdefault("root", str(root))
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(JointDataModule, "data")
        module: JointDataModule = parser.instantiate_classes(parser.parse_object({"data": data})).data
        return module
