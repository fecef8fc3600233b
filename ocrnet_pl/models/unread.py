"""Weights that no output depends on, which would abort a run on several GPUs: they are given a zero gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import Node

from ocrnet_pl.structures import DetectionOutput, Output


class Unread(NamedTuple):
    """What the decoders leave unread, found once, as it is the same at every step.

    Attributes:
        maps: Positions of the feature maps, of the encoder and then of the neck, whose own weights nothing depends on.
        weights: Names of the weights that no map and no output depends on.
    """

    maps: list[int]
    weights: list[str]

    def of(self, maps: Sequence[Tensor], network: nn.Module) -> list[Tensor]:
        """Return the maps and the weights themselves."""
        return [*(maps[index] for index in self.maps), *(network.get_parameter(name) for name in self.weights)]


def find_unread(output: Output, maps: Sequence[Tensor], weights: Mapping[str, Tensor]) -> Unread:
    """Return what no output of a training step depends on.

    Maps stand for the weights behind them, which costs less than to name each of these; the last ones first, as they
    usually depend on the weights of those before.

    Args:
        output: Output of a training step.
        maps: The encoder's and the neck's maps.
        weights: All weights of the network, by name.
    """
    seen: set[Node] = set()
    reached: set[int] = set()
    for each in _tensors(output):
        reached |= _weights_behind(each, seen)
    unread = []
    for index in reversed(range(len(maps))):
        if behind := _weights_behind(maps[index], seen):
            unread.append(index)
            reached |= behind
    # Sharded weights take part as pieces that come and go, and can do without a gradient.
    alone = [
        name
        for name, weight in weights.items()
        if weight.requires_grad and id(weight) not in reached and not hasattr(weight, "full_tensor")
    ]
    return Unread(unread, alone)


def _weights_behind(value: Tensor, seen: set[Node]) -> set[int]:
    """Return the weights that a tensor depends on by nodes that have not been seen yet."""
    nodes: list[Node | None] = [value.grad_fn]
    found = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (weight := getattr(node, "variable", None)) is not None:
            found.add(id(weight))
        nodes += [before for before, _ in node.next_functions]
    return found


def _tensors(output: Output) -> list[Tensor]:
    """Return what the losses learn from."""
    found = [] if output.semantic is None else [output.semantic, *output.auxiliary]
    detection: DetectionOutput | None = output.detection
    while detection is not None:
        found += [detection.boxes, detection.confidence, detection.classes]
        found += [] if detection.distribution is None else [detection.distribution]
        detection = detection.one_to_many
    return found


def tie(output: Output, unread: Sequence[Tensor]) -> Output:
    """Return an output of the same values that depends on what nothing reads as well."""
    if not unread:
        return output
    zero = sum((each.float().mean() * 0.0 for each in unread), start=unread[0].new_zeros(()).float())
    # The confidence is far smaller than the logits of all pixels.
    if output.detection is not None:
        return output._replace(detection=output.detection._replace(confidence=output.detection.confidence + zero))
    assert output.semantic is not None
    return output._replace(semantic=output.semantic + zero)
