"""The models of the comparison by name, and what one process does with one of them."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.storage.files import write_json
from ocrnet_pl.structures import Taxonomy
from ocrnet_pl.training.step_memory import peak_memory_mb
from side_by_side import detectors, segmenters
from side_by_side.base import Peer, PixelPeer
from side_by_side.evaluation import Predict, evaluate, latency_ms
from side_by_side.joint import JointPredictor, train_joint
from side_by_side.settings import Settings
from side_by_side.training import Trainer

DILATED = functools.partial(TimmEncoder, output_stride=8)
"""The last stages keep their size, as in torchvision's FCN and DeepLabV3."""
HALF_DILATED = functools.partial(TimmEncoder, output_stride=16)
"""The last stage keeps its size, as in DeepLabV3+."""
PEERS: dict[str, tuple[Callable[..., TimmEncoder], Callable[[TimmEncoder, Taxonomy], Peer]]] = {
    "faster_rcnn": (TimmEncoder, detectors.faster_rcnn),
    "mask_rcnn": (TimmEncoder, detectors.mask_rcnn),
    "retinanet": (TimmEncoder, detectors.retinanet),
    "fcos": (TimmEncoder, detectors.fcos),
    "fcn": (DILATED, segmenters.fcn),
    "deeplabv3": (DILATED, segmenters.deeplabv3),
    "unet": (TimmEncoder, segmenters.unet),
    "fpn": (TimmEncoder, segmenters.fpn),
    "deeplabv3_plus": (HALF_DILATED, segmenters.deeplabv3_plus),
}
JOINT = {
    "joint": (),
    "joint_boxes": ("--model.segmentation", "null"),
    "joint_pixels": ("--model.detection", "null"),
}
"""This project's network, and its single-task twins, each with the whole budget."""
BY_HAND = ("ultralytics",)
NAMES = ("joint", *PEERS, *BY_HAND)
"""The models that are compared by default."""
ALL_NAMES = ("joint", "joint_boxes", "joint_pixels", *PEERS, *BY_HAND)


def missing(name: str) -> str | None:
    """Return why a model cannot be trained here, or None."""
    if name in BY_HAND and importlib.util.find_spec("ultralytics") is None:
        return "ultralytics is not installed; it is under the AGPL and not a dependency of this project"
    return None


def run_one(name: str, settings: Settings, folder: Path) -> None:
    """Train, evaluate and time one model, and write ``result.json``.

    Args:
        name: Name of the model, one of ``ALL_NAMES``.
        settings: Settings of the comparison.
        folder: Folder for its files.
    """
    settings.seed_all()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = settings.data_module()
    predict: Predict
    result: dict[str, Any]
    if name in JOINT:
        network, result = train_joint(settings, folder, JOINT[name], device)
        predict = JointPredictor(network)  # type: ignore[arg-type]
        modules = network
    elif name in BY_HAND:
        from side_by_side.ultralytics_peer import train_ultralytics

        modules, predict, result = train_ultralytics(settings, data, folder, device)
    else:
        modules, result = _train_peer(name, settings, device)
        predict = modules.predict
    modules.eval()
    lacks_boxes = isinstance(modules, PixelPeer) or getattr(modules, "detection", True) is None
    result |= evaluate(predict, not lacks_boxes, data, device)
    result |= {
        "name": name,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "parameters": sum(parameter.numel() for parameter in modules.parameters()),
        "latency_1_ms": latency_ms(predict, data, device, 1),
        "latency_8_ms": latency_ms(predict, data, device, 8),
    }
    write_json(folder / "result.json", result)


def _train_peer(name: str, settings: Settings, device: torch.device) -> tuple[Peer, dict[str, Any]]:
    encoder, build = PEERS[name]
    data = settings.data_module()
    content = settings.content()
    peer = build(encoder(**settings.encoder_arguments()), data.taxonomy)
    peer.to(device, memory_format=torch.channels_last)
    decay = float(content.get("ema", {}).get("decay", 0.998))
    clip = float(content.get("trainer", {}).get("gradient_clip_val") or 10.0)
    trainer = Trainer(peer, data, device, content["model"], decay, clip)
    steps = settings.steps or max(1, round(settings.budget / trainer.seconds_a_step()))
    trained, seconds, speed = trainer.train(steps)
    memory = peak_memory_mb()
    return trained, {"steps": steps, "train_s": seconds, "images_per_s": speed, "peak_memory_mb": memory}
