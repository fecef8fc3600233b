"""The layers of a network's graph that may be computed with fewer bits, and those that stay in float32."""

from __future__ import annotations

from typing import NamedTuple

import onnx

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""The operators that do the work."""


class Layer(NamedTuple):
    """One operator of :data:`WEIGHTED`, and those that follow it up to the next.

    Attributes:
        name: Name of its weight, or of its node where it has none of its own.
        nodes: Names of the nodes.
    """

    name: str
    nodes: tuple[str, ...]


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own."""
    seen: set[str] = set()
    for place, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_at_{place}"
        seen.add(node.name)


def inner_layers(model: onnx.ModelProto) -> list[Layer]:
    """Return the layers that need not be in float32, in the order of the graph.

    None of them is what comes before the first layer (the scaling of the images), the last layer before each output,
    and what makes the output of it (the geometry of boxes, and scores).

    Args:
        model: The network's graph, whose nodes have names of their own.
    """
    producers = {out: node for node in model.graph.node for out in node.output}
    last: set[str] = set()
    waiting = [out.name for out in model.graph.output]
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and node.name not in last:
            last.add(node.name)
            if node.op_type not in WEIGHTED:
                waiting.extend(node.input)
    own_weights = {constant.name for constant in model.graph.initializer}
    names: list[str] = []
    nodes: list[list[str]] = []
    layer_of: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in WEIGHTED:
            layer_of[node.name] = len(nodes)
            weight = next((name for name in node.input[1:2] if name in own_weights), node.name)
            names.append(weight.removeprefix("network.").removesuffix(".weight"))
            nodes.append([])
        else:
            before = [layer_of.get(producers[name].name, -1) for name in node.input if name in producers]
            layer_of[node.name] = max(before, default=-1)
        if layer_of[node.name] >= 0 and node.name not in last:
            nodes[layer_of[node.name]].append(node.name)
    # A weight may be that of several layers.
    numbered = [
        name if names.count(name) == 1 else f"{name}#{names[:i].count(name) + 1}" for i, name in enumerate(names)
    ]
    return [Layer(name, tuple(own)) for name, own in zip(numbered, nodes, strict=True) if own]
