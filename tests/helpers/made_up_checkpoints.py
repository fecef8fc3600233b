"""What checkpoints contain, in plain values, for tests that change an entry."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from tests.helpers.builders import TAXONOMY, tiny_network


def parts() -> dict[str, Any]:
    """Return what a run of the command line keeps of the parts of :func:`tests.helpers.builders.tiny_network`."""
    fusion = "ocrnet_pl.inference.fusion.FusionPostProcess"
    return {
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
        "encoder": {"class_path": "tests.helpers.builders.TinyEncoder", "init_args": {}},
        "neck": {"class_path": "ocrnet_pl.models.necks.PathAggregationNeck", "init_args": {"width": 8}},
        "detection": {"class_path": "ocrnet_pl.models.detection.AnchorFreeDecoder"},
        "segmentation": {
            "class_path": "ocrnet_pl.models.segmentation.SubPixelDecoder",
            "init_args": {"width": 8, "detail": 4},
        },
        "postprocess": {
            "class_path": fusion,
            "init_args": {
                "decode": {"class_path": "ocrnet_pl.inference.decode.Decode", "init_args": {"max_detections": 100}},
                "heuristic": {"overlap_threshold": 0.5},
            },
        },
    }


def content(**changes: Any) -> dict[str, Any]:
    entries = {"hyper_parameters": parts(), "taxonomy": TAXONOMY.to_dict(), "input_size": [64, 64]}
    return entries | {"state_dict": weights()} | changes


@cache
def weights() -> dict[str, torch.Tensor]:
    return {f"network.{name}": value for name, value in tiny_network().state_dict().items()}


def spec(path: Any, /, **arguments: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments} if arguments else {"class_path": path}
