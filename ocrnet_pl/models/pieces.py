"""Batches on a CPU, cut so that a piece's activations stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ocrnet_pl.structures import DetectionOutput, Output

_PIXELS = 2**18
"""Number of pixels in a piece: one image of 512x512, or four of 256x256. An image that is larger is a piece."""


def pieces(images: Tensor, network: nn.Module) -> tuple[Tensor, ...]:
    """Cut a batch, [B, C, H, W], into the pieces that a network should see one after the other.

    Only a CPU that predicts gains by it: while training, the images of a batch belong together, and a graph that is
    traced, exported or compiled is to stay one.

    Args:
        images: The images.
        network: The network that sees them; a compiled part of it has a graph for each number of images.
    """
    predicts = images.device.type == "cpu" and not network.training and not torch.is_grad_enabled()
    one_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if not predicts or one_graph or any(part._compiled_call_impl is not None for part in network.children()):
        return (images,)
    cut: tuple[Tensor, ...] = images.split(max(_PIXELS // max(images.shape[-2] * images.shape[-1], 1), 1))
    return cut


def joined(outputs: Sequence[Output]) -> Output:
    """Return the output for a batch from those for its pieces."""
    first = outputs[0]
    if len(outputs) == 1:
        return first
    detections = [output.detection for output in outputs if output.detection is not None]
    semantics = [output.semantic for output in outputs if output.semantic is not None]
    return first._replace(
        detection=_joined_detections(detections) if detections else None,
        semantic=torch.cat(semantics) if semantics else None,
        auxiliary=tuple(map(torch.cat, zip(*(output.auxiliary for output in outputs), strict=True))),
    )


def _joined_detections(outputs: Sequence[DetectionOutput]) -> DetectionOutput:
    first = outputs[0]
    spread = [output.distribution for output in outputs if output.distribution is not None]
    many = [output.one_to_many for output in outputs if output.one_to_many is not None]
    return first._replace(
        boxes=torch.cat([output.boxes for output in outputs]),
        confidence=torch.cat([output.confidence for output in outputs]),
        classes=torch.cat([output.classes for output in outputs]),
        scores=torch.cat([output.scores for output in outputs]),
        distribution=torch.cat(spread) if spread else None,
        one_to_many=_joined_detections(many) if many else None,
    )
