"""A graph of ONNX operators as a module of torch, so that one description of the graph serves both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from ocrnet_pl.export.graph import NETWORK, SHORTCUT, Graph
from ocrnet_pl.export.operators import IN_LENGTHS, OF_LENGTHS, OPERATORS, Lengths, Number


class _Step(NamedTuple):
    """One node.

    Attributes:
        operator: Name of the operator.
        inputs: Names of its inputs; empty for one that it does not have.
        outputs: Names of its results.
        attributes: What else it is given.
        parts: The branches of the operator If.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    parts: tuple[_Part, ...]


class _Part(NamedTuple):
    """A branch: its steps, and the names of its results."""

    steps: tuple[_Step, ...]
    results: tuple[str, ...]


class GraphModule(nn.Module):
    """A graph, run by torch; it gives what onnxruntime gives up to rounding.

    Both branches of a choice are computed, since ``torch.export`` records no Python condition; of a shortcut, the one
    that is always right.

    Args:
        graph: The graph.
        network: What its node :data:`~ocrnet_pl.export.graph.NETWORK` runs; None if it has none.

    Attributes:
        numbers: Constants of a single element, by name; they are part of the program.
        stored: Names of the other constants, which are buffers; those that were given a name are in the state.
        lists: The elements of constants with at most one axis, by name.
        deciding: Names of the values on which shapes depend.
    """

    def __init__(self, graph: Graph, network: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self._inputs, self._outputs = graph.input_names, graph.output_names
        self.numbers: dict[str, Number] = {}
        self.lists: dict[str, list[Any]] = {}
        self.stored: set[str] = set()
        for constant in graph.initializers:
            value = numpy_helper.to_array(constant)
            if value.ndim < 2:
                self.lists[constant.name] = value.reshape(-1).tolist()
            if value.ndim:
                self.stored.add(constant.name)
                self.register_buffer(constant.name, torch.from_numpy(value.copy()), constant.name in graph.names)
            else:
                self.numbers[constant.name] = value.item()
        self._steps = _steps(graph.nodes)
        self.deciding = _deciding(self._steps)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name."""
        run = _Run(self, dict(zip(self._inputs, inputs, strict=True)))
        run.all(self._steps)
        return {name: run.tensor(name) for name in self._outputs}


def _steps(nodes: Iterable[onnx.NodeProto]) -> tuple[_Step, ...]:
    found: list[_Step] = []
    for node in nodes:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        attributes = {name: each.decode() if isinstance(each, bytes) else each for name, each in attributes.items()}
        branches = [attributes.pop(f"{side}_branch") for side in ("then", "else")] if node.op_type == "If" else []
        parts = [_Part(_steps(part.node), tuple(out.name for out in part.output)) for part in branches]
        if node.name.startswith(SHORTCUT):
            found += parts[1].steps
            found += [
                _Step("Identity", (name,), (own,), {}, ())
                for name, own in zip(parts[1].results, node.output, strict=True)
            ]
        else:
            found.append(_Step(node.op_type, tuple(node.input), tuple(node.output), attributes, tuple(parts)))
    return tuple(found)


def _deciding(steps: Iterable[_Step]) -> set[str]:
    """Return the names of the values on which shapes depend, and that are computed as numbers."""
    found: set[str] = set()
    for step in reversed(list(_every(steps))):
        numbers = IN_LENGTHS.get(step.operator, ())
        found |= {name for place, name in enumerate(step.inputs) if place in numbers}
        if step.operator in OF_LENGTHS and found.intersection(step.outputs):
            found |= set(step.inputs)
    return found


def _every(steps: Iterable[_Step]) -> Iterator[_Step]:
    for step in steps:
        for part in step.parts:
            yield from _every(part.steps)
        yield step


class _Run:
    """One pass through the steps of a module.

    Args:
        module: The module.
        tensors: What is known at the beginning, by name.
    """

    def __init__(self, module: GraphModule, tensors: dict[str, Tensor]) -> None:
        self._module = module
        self._tensors = tensors
        self._lengths: dict[str, Lengths] = {}

    def tensor(self, name: str) -> Tensor:
        """Return a value as a tensor."""
        if name in self._module.stored:
            return self._module.get_buffer(name)
        if name not in self._tensors:
            sides = [torch.full((1,), side, dtype=torch.int64) for side in self.lengths(name)]
            self._tensors[name] = torch.cat(sides)
        return self._tensors[name]

    def lengths(self, name: str) -> Lengths:
        """Return a value as the whole numbers, at least 0, that it consists of."""
        if name in self._module.lists:
            return self._module.lists[name]
        if name not in self._lengths:
            found = self._tensors[name].reshape(-1)
            sides = [found[place].item() for place in range(found.shape[0])]
            for side in sides:
                torch._check(side >= 0)
            self._lengths[name] = sides
        return self._lengths[name]

    def all(self, steps: Iterable[_Step]) -> None:
        """Run steps."""
        for step in steps:
            if step.operator in OF_LENGTHS and step.outputs[0] in self._module.deciding:
                # In whole numbers, so that torch knows how shapes are related.
                given = [self.lengths(name) for name in step.inputs]
                self._lengths[step.outputs[0]] = OF_LENGTHS[step.operator](*given)
                continue
            for name, result in zip(step.outputs, self._results(step), strict=True):
                if isinstance(result, torch.Size):
                    self._lengths[name] = result
                else:
                    self._tensors[name] = result

    def _results(self, step: _Step) -> Iterable[Tensor | torch.Size]:
        if step.operator == "If":
            condition = self.tensor(step.inputs[0])
            for part in step.parts:
                self.all(part.steps)
            pairs = zip(*(part.results for part in step.parts), strict=True)
            return [torch.where(condition, self.tensor(yes), self.tensor(no)) for yes, no in pairs]
        if step.operator == NETWORK:
            assert self._module.network is not None
            outputs: tuple[Tensor, ...] = self._module.network(self.tensor(step.inputs[0]))
            return outputs
        numbers = IN_LENGTHS.get(step.operator, ())
        given = [self._operand(name, place in numbers) for place, name in enumerate(step.inputs)]
        found = OPERATORS[step.operator](*given, **step.attributes)
        return [found] if isinstance(found, Tensor | torch.Size) else found

    def _operand(self, name: str, as_lengths: bool) -> Tensor | Number | Lengths | None:
        if not name:
            return None
        if as_lengths:
            return self.lengths(name)
        number = self._module.numbers.get(name)
        return self.tensor(name) if number is None else number
