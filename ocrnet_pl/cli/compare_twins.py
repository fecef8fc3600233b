"""Evaluates two single-task networks as if they were one, and times them against the joint network.

A process of the joint report, with three checkpoints:
``python -m ocrnet_pl.cli.compare_twins JOINT DETECTION SEGMENTATION validate --config C``.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch.cli import SaveConfigCallback
from torch import Tensor, nn

from ocrnet_pl.callbacks.log_lines import LogLines
from ocrnet_pl.callbacks.memory import PeakMemory
from ocrnet_pl.callbacks.summary import Summary
from ocrnet_pl.callbacks.throughput import Throughput
from ocrnet_pl.cli.lightning_cli import OCRNetCLI
from ocrnet_pl.cli.main import interruptible
from ocrnet_pl.cli.parser import Parser
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.models.base import PostProcess
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.storage.files import write_json
from ocrnet_pl.storage.trusted_classes import named_packages
from ocrnet_pl.structures import Output, Placement, Predictions
from ocrnet_pl.training.task import OCRNetTask

_ROUNDS = 20
_WARM_UP = 3


class Twins(nn.Module):
    """Two single-task networks whose outputs are merged like those of one network.

    Args:
        detection: Network without a segmentation decoder.
        segmentation: Network without a detection decoder.
    """

    def __init__(self, detection: OCRNet, segmentation: OCRNet) -> None:
        super().__init__()
        self.detection = detection
        self.segmentation = segmentation
        self.taxonomy = detection.taxonomy
        self.input_size = detection.input_size

    @property
    def in_channels(self) -> int:
        """The number of channels of the images."""
        return self.detection.in_channels

    @property
    def mean(self) -> Tensor:
        """The mean by which the images are normalised, on the networks' device."""
        return self.detection.mean

    @property
    def postprocess(self) -> PostProcess:
        """The post-processing that merges the outputs: that of the network for detection."""
        return self.detection.postprocess

    def forward(self, images: Tensor) -> Output:
        """Run both networks, one after the other."""
        boxes: Output = self.detection(images)
        pixels: Output = self.segmentation(images)
        return pixels._replace(detection=boxes.detection)

    def postprocessed(self, output: Output, placements: Sequence[Placement]) -> Predictions:
        """Turn an output into predictions, raw and fused."""
        return self.detection.postprocessed(output, placements)


def median_ms(functions: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Return each function's median milliseconds; they take turns, so that a drifting machine slows all equally."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(_ROUNDS + _WARM_UP):
        for function, own in zip(functions, times, strict=True):
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            if turn >= _WARM_UP:
                own.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(own) for own in times]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def measure(joint: OCRNet, twins: Twins, image: Tensor) -> dict[str, float]:
    """Return times of one pass and parameters of both.

    Args:
        joint: The joint network.
        twins: Its twins, on the same device.
        image: uint8 [1, C, H, W], on the same device.
    """
    placements = [Placement.identity((image.shape[-2], image.shape[-1]))]

    def whole(network: OCRNet | Twins) -> Predictions:
        return network.postprocessed(network(image), placements)

    passes = [partial(joint, image), partial(twins, image), partial(whole, joint), partial(whole, twins)]
    names = ("pass_joint_ms", "pass_twins_ms", "whole_joint_ms", "whole_twins_ms")
    figures = dict(zip(names, median_ms(passes, image.device), strict=True))
    for name, network in (("joint", joint), ("twins", twins)):
        count = sum(parameter.numel() for parameter in network.parameters())
        figures[f"parameters_{name}_million"] = count / 1e6
    return figures


def main(words: Sequence[str]) -> None:
    """Evaluate and time, and write ``compare.json`` into the run's folder.

    Args:
        words: Three checkpoints, then a command line of ``validate``.
    """
    checkpoints, arguments = words[:3], list(words[3:])
    Parser.words, Parser.folder, Parser.secrets = arguments, os.getcwd(), frozenset()
    throughput, memory = Throughput(), PeakMemory()
    cli = OCRNetCLI(
        OCRNetTask,
        JointDataModule,
        save_config_callback=SaveConfigCallback,
        parser_class=Parser,
        trainer_defaults={"callbacks": [throughput, memory, LogLines(throughput), Summary(throughput, memory)]},
        seed_everything_default=0,
        args=arguments,
        auto_configure_optimizers=False,
    )
    # The runs use the report's own config.
    trust = named_packages(cli.config.as_dict())
    joint, detection, segmentation = (OCRNet.from_checkpoint(path, trust=trust) for path in checkpoints)
    twins = Twins(detection, segmentation)
    cli.model.network = twins
    cli.execute()
    if not cli.trainer.is_global_zero:
        return
    device = cli.trainer.strategy.root_device
    image = next(iter(cli.datamodule.val_dataloader())).images[:1].to(device)
    figures = measure(joint.to(device).eval(), twins.to(device).eval(), image)
    last = {key: float(value) for key, value in cli.trainer.callback_metrics.items()}
    write_json(Path(str(cli.trainer.log_dir)) / "compare.json", {"last": last, "device": str(device), **figures})


if __name__ == "__main__":
    with interruptible():
        main(sys.argv[1:])
