"""A graph of ONNX operators, written as expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 18
"""The version of ONNX's operators: the first one that scales images with antialiasing."""
IR_VERSION = 8
"""The version of ONNX's file format that belongs to these operators."""
SHORTCUT = "shortcut"
"""Prefix of the names of ``If`` nodes that only save time: their second branch gives the right result in any case."""
NETWORK = "Network"
"""The node that stands for the network where it is not part of the graph; ONNX does not know it."""


class Value:
    """One result in a graph. Numbers in an expression become constants of the value's own type.

    Attributes:
        graph: The graph that it belongs to.
        name: Its name in the graph.
        kind: The numpy type of its elements.
    """

    def __init__(self, graph: Graph, name: str, kind: Any) -> None:
        self.graph, self.name, self.kind = graph, name, np.dtype(kind)

    def _with(self, operator: str, other: Value | float, kind: Any = None, swapped: bool = False) -> Value:
        given = other if isinstance(other, Value) else self.graph.constant(np.array(other, self.kind))
        pair = (given, self) if swapped else (self, given)
        return self.graph.op(operator, *pair, kind=self.kind if kind is None else kind)

    def __add__(self, other: Value | float) -> Value:
        return self._with("Add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._with("Sub", other)

    def __rsub__(self, other: float) -> Value:
        return self._with("Sub", other, swapped=True)

    def __mul__(self, other: Value | float) -> Value:
        return self._with("Mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self._with("Div", other)

    def __rtruediv__(self, other: float) -> Value:
        return self._with("Div", other, swapped=True)

    def __floordiv__(self, other: Value | float) -> Value:
        return self._with("Div", other)

    def __mod__(self, other: Value | float) -> Value:
        return self._with("Mod", other)

    def __ge__(self, other: Value | float) -> Value:
        return self._with("GreaterOrEqual", other, bool)

    def __gt__(self, other: Value | float) -> Value:
        return self._with("Greater", other, bool)

    def __le__(self, other: Value | float) -> Value:
        return self._with("LessOrEqual", other, bool)

    def __lt__(self, other: Value | float) -> Value:
        return self._with("Less", other, bool)

    def __and__(self, other: Value) -> Value:
        return self._with("And", other, bool)

    def __or__(self, other: Value) -> Value:
        return self._with("Or", other, bool)

    def __invert__(self) -> Value:
        return self.graph.op("Not", self)

    def equals(self, other: Value | float) -> Value:
        """Return, bool, where both are equal."""
        return self._with("Equal", other, bool)

    def at_least(self, other: Value | float) -> Value:
        """Return the larger of both."""
        return self._with("Max", other)

    def at_most(self, other: Value | float) -> Value:
        """Return the smaller of both."""
        return self._with("Min", other)

    def to(self, kind: Any) -> Value:
        """Return the value as another type."""
        code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return self if self.kind == np.dtype(kind) else self.graph.op("Cast", self, kind=kind, to=code)

    def take(self, index: Value, axis: int = 0) -> Value:
        """Return the rows that ``index`` names."""
        return self.graph.op("Gather", self, index, axis=axis)

    def at(self, index: Value) -> Value:
        """Return the elements of [N] that ``index``, int64 [K], names; there ten times as fast as :meth:`take`."""
        return self.graph.op("GatherElements", self, index, axis=0)

    def column(self, index: int, axis: int = -1) -> Value:
        """Return one slice along an axis, which disappears."""
        return self.take(self.graph.constant(np.array(index, np.int64)), axis)

    def part(self, start: int | Value, stop: int | Value, axis: int) -> Value:
        """Return the slices from ``start`` to ``stop``; those that are values are int64 [1]."""
        ends = [e if isinstance(e, Value) else self.graph.constant(np.array([e], np.int64)) for e in (start, stop)]
        return self.graph.op("Slice", self, *ends, self.graph.constant(np.array([axis], np.int64)))

    def reshape(self, *shape: int | Value) -> Value:
        """Return the value in another shape; -1 is what is left, 0 is as it was, and values are int64 [1]."""
        return self.graph.op("Reshape", self, self.graph.join(*shape))

    def expand(self, axis: int) -> Value:
        """Return the value with one more axis of length 1."""
        return self.graph.op("Unsqueeze", self, self.graph.constant(np.array([axis], np.int64)))

    def total(self, axis: int, keep: bool = False) -> Value:
        """Return the sum over an axis."""
        return self.graph.op("ReduceSum", self, self.graph.constant(np.array([axis], np.int64)), keepdims=int(keep))

    def largest(self, axis: int, keep: bool = False) -> Value:
        """Return the maximum over an axis."""
        return self.graph.op("ReduceMax", self, self.graph.constant(np.array([axis], np.int64)), keepdims=int(keep))

    def smallest(self, axis: int, keep: bool = False) -> Value:
        """Return the minimum over an axis."""
        return self.graph.op("ReduceMin", self, self.graph.constant(np.array([axis], np.int64)), keepdims=int(keep))

    def running_total(self, axis: int = 0) -> Value:
        """Return the cumulative sum along an axis."""
        return self.graph.op("CumSum", self, self.graph.constant(np.array(axis, np.int64)))

    def scatter(self, index: Value, updates: Value, reduction: str = "none", axis: int = 0) -> Value:
        """Return the value with other elements where ``index`` says, each combined with what is there."""
        return self.graph.op("ScatterElements", self, index, updates, axis=axis, reduction=reduction)

    def filled(self, value: float, kind: Any = None) -> Value:
        """Return a value of the same shape in which all elements are equal."""
        return self.graph.full(self.graph.op("Shape", self, kind=np.int64), value, self.kind if kind is None else kind)

    def length(self, axis: int) -> Value:
        """Return the length of an axis, int64 [1]."""
        end = {} if axis == -1 else {"end": axis + 1}
        return self.graph.op("Shape", self, kind=np.int64, start=axis, **end)


class Graph:
    """Nodes and constants in the order of their making.

    Attributes:
        nodes: The nodes.
        initializers: The constants.
        names: Names of the constants that were given one.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.names: set[str] = set()
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._count = 0

    def _name(self, text: str) -> str:
        self._count += 1
        return f"{text}_{self._count}"

    def input(self, name: str, kind: Any, shape: Sequence[int | str]) -> Value:
        """Add an input; sides that are names may have any length."""
        code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        self._inputs.append(helper.make_tensor_value_info(name, code, shape))
        return Value(self, name, kind)

    def output(self, value: Value, name: str, shape: Sequence[int | str]) -> None:
        """Add an output under a name."""
        self.nodes.append(helper.make_node("Identity", [value.name], [name]))
        code = helper.np_dtype_to_tensor_dtype(value.kind)
        self._outputs.append(helper.make_tensor_value_info(name, code, shape))

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs."""
        return [each.name for each in self._inputs]

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs."""
        return [each.name for each in self._outputs]

    def op(self, operator: str, *inputs: Value | None, kind: Any = None, **attributes: Any) -> Value:
        """Add a node with one result, whose type is that of its first input unless ``kind`` says otherwise."""
        assert inputs and inputs[0] is not None
        return self.ops(operator, [inputs[0].kind if kind is None else kind], *inputs, **attributes)[0]

    def ops(self, operator: str, kinds: Sequence[Any], *inputs: Value | None, **attributes: Any) -> list[Value]:
        """Add a node with one result for each type."""
        results = [Value(self, self._name(operator), kind) for kind in kinds]
        names = ["" if each is None else each.name for each in inputs]
        self.nodes.append(helper.make_node(operator, names, [each.name for each in results], **attributes))
        return results

    def constant(self, value: NDArray[Any]) -> Value:
        """Return a constant; equal ones are stored once."""
        key = str(value.dtype), value.shape, value.tobytes()
        if key not in self._constants:
            name = self._name("constant")
            self.initializers.append(numpy_helper.from_array(value, name))
            self._constants[key] = Value(self, name, value.dtype)
        return self._constants[key]

    def named_constant(self, name: str, value: NDArray[Any]) -> Value:
        """Return a constant that can be found in the file by its name, to be changed there."""
        self.initializers.append(numpy_helper.from_array(value, name))
        self.names.add(name)
        return Value(self, name, value.dtype)

    def join(self, *parts: int | Value) -> Value:
        """Return int64 [N] of numbers and of values, int64 [1] each."""
        if all(isinstance(part, int) for part in parts):
            return self.constant(np.array(parts, np.int64))
        values = [part if isinstance(part, Value) else self.constant(np.array([part], np.int64)) for part in parts]
        return self.concat(*values)

    def concat(self, *values: Value, axis: int = 0) -> Value:
        """Join values along an axis."""
        return self.op("Concat", *values, axis=axis)

    def stack(self, *values: Value, axis: int = -1) -> Value:
        """Join values along a new last axis."""
        return self.concat(*(value.expand(axis) for value in values), axis=axis)

    def full(self, shape: Value, value: float, kind: Any) -> Value:
        """Return a value of a shape, int64 [N], whose elements are all equal."""
        content = numpy_helper.from_array(np.array([value], np.dtype(kind)))
        return self.op("ConstantOfShape", shape, kind=kind, value=content)

    def numbers(self, count: Value) -> Value:
        """Return 0, 1, 2, ..., int64 [count], for a count that is int64 [1]."""
        zero, one = self.constant(np.array(0, np.int64)), self.constant(np.array(1, np.int64))
        return self.op("Range", zero, self.op("Squeeze", count), one)

    def where(self, condition: Value, yes: Value | float, no: Value | float) -> Value:
        """Return ``yes`` where the condition is true, else ``no``; at least one of them is a value."""
        kind = yes.kind if isinstance(yes, Value) else no.kind  # type: ignore[union-attr]
        both = [each if isinstance(each, Value) else self.constant(np.array(each, kind)) for each in (yes, no)]
        return self.op("Where", condition, *both, kind=kind)

    def choose(self, condition: Value, yes: Callable[[], Value], no: Callable[[], Value]) -> Value:
        """Return the result of one of two parts of the graph; onnxruntime runs only that part.

        A part has one result: with several, OpenVINO was seen to give wrong numbers.

        Args:
            condition: bool [1].
            yes: Makes the part whose result is taken where the condition is true.
            no: Makes the other one, with a result of the same type and shape.
        """
        parts = []
        before = self.nodes
        for part in (yes, no):
            self.nodes = []
            result = self.op("Identity", part())
            code = helper.np_dtype_to_tensor_dtype(result.kind)
            out = helper.make_tensor_value_info(result.name, code, None)
            parts.append(helper.make_graph(self.nodes, self._name("part"), [], [out]))
        self.nodes = before
        return self.op("If", condition, kind=result.kind, then_branch=parts[0], else_branch=parts[1])

    def shortcut(self, condition: Value, quick: Callable[[], Value], always: Callable[[], Value]) -> Value:
        """Return the result of ``always``, for which ``quick`` needs less work where the condition is true.

        Args:
            condition: bool [1].
            quick: Makes the part that is run where the condition is true.
            always: Makes the part that is run where it is false, and whose result would be right in any case.
        """
        result = self.choose(condition, quick, always)
        self.nodes[-1].name = self._name(SHORTCUT)
        return result

    def best(self, values: Value, count: int) -> tuple[Value, Value]:
        """Return the largest values of the last axis and their places, best first; the earlier one on a tie."""
        found = self.ops("TopK", [values.kind, np.int64], values, self.constant(np.array([count], np.int64)), axis=-1)
        return found[0], found[1]

    def inline(self, model: onnx.ModelProto, inputs: Mapping[str, Value]) -> list[Value]:
        """Add the nodes of a whole model, and return its outputs."""
        names = {name: value.name for name, value in inputs.items()}
        prefix = "network/"

        def renamed(name: str) -> str:
            return names.setdefault(name, f"{prefix}{name}") if name else ""

        for constant in model.graph.initializer:
            own = onnx.TensorProto()
            own.CopyFrom(constant)
            own.name = renamed(constant.name)
            self.initializers.append(own)
        for node in model.graph.node:
            if any(a.HasField("g") or a.graphs for a in node.attribute):
                raise ValueError(f"{node.op_type}: a node of the network holds a graph of its own")
            moved = onnx.NodeProto()
            moved.CopyFrom(node)
            moved.name = f"{prefix}{node.name}" if node.name else ""
            moved.input[:] = [renamed(name) for name in node.input]
            moved.output[:] = [renamed(name) for name in node.output]
            self.nodes.append(moved)
        return [
            Value(self, renamed(out.name), helper.tensor_dtype_to_np_dtype(out.type.tensor_type.elem_type))
            for out in model.graph.output
        ]

    def model(self, name: str, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """Return the graph as a checked model."""
        graph = helper.make_graph(self.nodes, name, self._inputs, self._outputs, self.initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ocrnet-pl")
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model
