"""The network alone as a graph: images of one size in, boxes, scores and logits out."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ocrnet_pl.export.graph import OPSET
from ocrnet_pl.models.ocrnet import OCRNet

BATCH = "batch"
"""Name of the number of images, which may differ from call to call."""

OPERATORS = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "Cos",
        "DepthToSpace",
        "Div",
        "Einsum",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "GatherElements",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "Greater",
        "GreaterOrEqual",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LayerNormalization",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "LogSoftmax",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pad",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Resize",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Slice",
        "Softmax",
        "Softplus",
        "SpaceToDepth",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
"""The operators that a network may consist of: those of all common runtimes whose results have the same shape for any
content of the images."""


class RawOutputs(NamedTuple):
    """Which outputs the network has, in this order.

    Attributes:
        boxes: float32 [B, A, 4], xyxy in pixels of the input; None without a detection decoder.
        scores: float32 [B, A, K], 0 to 1.
        logits: float32 [B, S, h, w]; None without a segmentation decoder.
    """

    boxes: Tensor | None
    scores: Tensor | None
    logits: Tensor | None

    @property
    def named(self) -> dict[str, Tensor]:
        """The outputs that there are, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class RawNetwork(nn.Module):
    """A network whose output is a plain tuple, as the formats of other runtimes need it.

    Args:
        network: The network, in evaluation mode.
    """

    def __init__(self, network: OCRNet) -> None:
        super().__init__()
        self.network = network

    @property
    def names(self) -> list[str]:
        """The names of the outputs that there are."""
        boxes = ["boxes", "scores"] if self.network.detection is not None else []
        return boxes + ["logits"] * (self.network.segmentation is not None)

    def outputs(self, images: Tensor) -> RawOutputs:
        """Return the outputs, in float32, for uint8 images [B, C, h, w]."""
        found = self.network(images)
        detection, semantic = found.detection, found.semantic
        boxes, scores = (None, None) if detection is None else (detection.boxes, detection.scores)
        return RawOutputs(boxes, scores, None if semantic is None else semantic.float())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that there are."""
        return tuple(self.outputs(images).named.values())


def exported_network(network: OCRNet) -> torch.export.ExportedProgram:
    """Return the program of a network with folded batch norms, for any number of images of its input size.

    Args:
        network: The network, in evaluation mode, on the CPU, in float32.
    """
    raw = RawNetwork(network.fuse()).eval()
    # Not one image: a batch of one is taken for a constant.
    example = torch.zeros(2, network.in_channels, *network.input_size, dtype=torch.uint8)
    return exported(raw, example, (BATCH,))


def exported(module: nn.Module, example: Tensor, names: Sequence[str]) -> torch.export.ExportedProgram:
    """Return a module as a program without paths of this machine.

    Args:
        module: The module, in evaluation mode.
        example: An input, with no axis of length 1 among those that may have any length.
        names: Names of its first axes, which may have any length.
    """
    dynamic = {axis: torch.export.Dim(name, min=1) for axis, name in enumerate(names)}
    with quiet(), torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=(dynamic,))
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def network_graph(network: OCRNet) -> onnx.ModelProto:
    """Return the network as an ONNX model that takes any number of images of its input size.

    Args:
        network: The network, in evaluation mode, on the CPU, in float32.

    Returns:
        The model; its input is ``images``, uint8 [B, C, h, w], its outputs are those of :class:`RawOutputs`.

    Raises:
        ValueError: The network has an operator that not all runtimes have.
    """
    exported = exported_network(network)
    names = RawNetwork(network).names
    with quiet():
        program = torch.onnx.export(
            exported,
            input_names=["images"],
            output_names=names,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        first.Clear()
        first.dim_param = BATCH
    require_common_operators(model)
    _forget_origin(model)
    _scale_by_factors(model)
    return model


def _scale_by_factors(model: onnx.ModelProto) -> None:
    """Let maps be scaled by whole factors in place of to sizes, which gives the same.

    onnxruntime has fast kernels for factors only; with those for sizes, a small network takes 7 % longer.
    """
    graph = model.graph
    shapes = {value.name: [side.dim_value for side in value.type.tensor_type.shape.dim] for value in graph.value_info}
    for node in graph.node:
        if node.op_type != "Resize" or len(node.input) < 4 or not node.input[3]:
            continue
        before, after = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
        if len(before) != 4 or len(after) != 4 or not all(before[2:] + after[2:]):
            continue
        if after[2] % before[2] or after[3] % before[3]:
            continue
        factors = np.array([1, 1, after[2] // before[2], after[3] // before[3]], np.float32)
        name = f"{node.output[0]}_factors"
        graph.initializer.append(numpy_helper.from_array(factors, name))
        node.input[:] = [node.input[0], "", name]
        for attribute in [each for each in node.attribute if each.name == "keep_aspect_ratio_policy"]:
            node.attribute.remove(attribute)


def _forget_origin(model: onnx.ModelProto) -> None:
    """Remove where in the code each node was made: paths of this machine, which no other needs."""
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.doc_string = ""
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del holder.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def require_common_operators(model: onnx.ModelProto) -> None:
    """Raise ValueError if a model has operators that not all runtimes have, or whose results have unforeseen shapes."""
    strange = {
        f"{node.domain}.{node.op_type}".lstrip(".")
        for node in model.graph.node
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS
    }
    if strange or model.functions:
        names = ", ".join(sorted(strange | {function.name for function in model.functions}))
        raise ValueError(
            f"the network needs the operators {names}, which not all runtimes have; export it without --raw, or take "
            "another encoder or decoder"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the exporter tells its own developers from the user's terminal."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
