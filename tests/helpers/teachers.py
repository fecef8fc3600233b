"""Checkpoints of networks that teach others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ocrnet_pl.models.network_parts import PARTS
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.storage.trusted_classes import build_parts
from ocrnet_pl.structures import Taxonomy
from tests.helpers.builders import TAXONOMY


def write_teacher(path: Path, taxonomy: Taxonomy = TAXONOMY, **changes: Any) -> OCRNet:
    """Write the checkpoint of a network with random weights, as training writes them.

    Args:
        path: Path of the file.
        taxonomy: The network's categories.
        **changes: Parts of the network, as a config has them, instead of those of a tiny one.

    Returns:
        The network.
    """
    parts: dict[str, Any] = {
        "encoder": {"class_path": "tests.helpers.builders.TinyEncoder"},
        "neck": {"class_path": "ocrnet_pl.models.necks.PathAggregationNeck", "init_args": {"width": 8}},
        "detection": {"class_path": "ocrnet_pl.models.detection.AnchorFreeDecoder"},
        "segmentation": {
            "class_path": "ocrnet_pl.models.segmentation.SubPixelDecoder",
            "init_args": {"width": 8, "detail": 4, "skip": None},
        },
        "postprocess": {"class_path": "ocrnet_pl.inference.fusion.FusionPostProcess"},
    } | changes
    torch.manual_seed(1)
    network = OCRNet(taxonomy, **build_parts(parts, PARTS, "tests", "the test"))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    entries = {
        "hyper_parameters": parts,
        "taxonomy": taxonomy.to_dict(),
        "input_size": [64, 64],
        "state_dict": state,
        "pytorch-lightning_version": "2.6.0",
    }
    torch.save(entries, path)
    return network.eval()
