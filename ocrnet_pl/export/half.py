"""A network's graph in half precision."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ocrnet_pl.export.layers import inner_layers, name_nodes

_FLOAT = frozenset(
    {
        "Exp",
        "GlobalAveragePool",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceL2",
        "ReduceMean",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        "Sqrt",
    }
)
"""The operators that stay in float32 wherever they are: sums over many values, and what overflows in half precision."""
_SIZES = {"Resize": (1, 2)}
"""Inputs that are float32 whatever the others are, by operator."""
_LARGEST = float(np.finfo(np.float16).max)


def half_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network's graph whose inner layers have weights and activations in half precision.

    The scaling of the images, the last layer before each output and what follows it (the geometry of boxes, scores)
    stay in float32, as do softmax, norms and means. Inputs and outputs are as before.

    Args:
        model: The graph, in float32.

    Raises:
        ValueError: A weight is too large for half precision.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    name_nodes(found)
    halved = {name for layer in inner_layers(found) for name in layer.nodes}
    kinds = _kinds(found)
    nodes = list(found.graph.node)
    halved = {
        node.name
        for node in nodes
        if node.name in halved
        and node.op_type not in _FLOAT
        and any(kinds.get(name) == TensorProto.FLOAT for name in node.output)
    }
    weights = {each.name: each for each in found.graph.initializer if each.data_type == TensorProto.FLOAT}
    # What is in half precision because it comes from one of these nodes.
    as_half = {out for node in nodes if node.name in halved for out in node.output if kinds[out] == TensorProto.FLOAT}
    made: dict[str, str] = {}
    written: list[onnx.NodeProto] = []

    def cast(name: str, code: int) -> str:
        other = f"{name}/{'half' if code == TensorProto.FLOAT16 else 'float'}"
        if other not in made:
            made[other] = name
            if name in weights:
                found.graph.initializer.append(_half(weights[name], other))
            else:
                written.append(helper.make_node("Cast", [name], [other], name=f"cast {other}", to=code))
        return other

    for node in nodes:
        half = node.name in halved
        for place, name in enumerate(node.input):
            wants_half = half and place not in _SIZES.get(node.op_type, ())
            if wants_half and kinds.get(name) == TensorProto.FLOAT and name not in as_half:
                node.input[place] = cast(name, TensorProto.FLOAT16)
            elif not wants_half and name in as_half:
                node.input[place] = cast(name, TensorProto.FLOAT)
        if half:
            _halve_attributes(node)
        written.append(node)
    del found.graph.node[:]
    found.graph.node.extend(written)
    # Of the types that were known before, some are others now.
    del found.graph.value_info[:]
    used = {name for node in written for name in node.input}
    kept = [each for each in found.graph.initializer if each.name in used]
    del found.graph.initializer[:]
    found.graph.initializer.extend(kept)
    onnx.checker.check_model(found, full_check=True)
    return found


def _kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Return the type of each value."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    return {each.name: each.type.tensor_type.elem_type for each in values} | {
        each.name: each.data_type for each in graph.initializer
    }


def _half(weight: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(weight)
    if np.isfinite(values).all() and np.abs(values).max(initial=0.0) > _LARGEST:
        raise ValueError(f"{weight.name}: it has weights above {_LARGEST:.0f}, which half precision cannot hold")
    return numpy_helper.from_array(values.astype(np.float16), name)


def _halve_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_half(attribute.t, attribute.t.name))
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
