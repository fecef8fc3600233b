"""A network's graph in int8."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, create_calibrator

from ocrnet_pl.export.layers import Layer, inner_layers, name_nodes

_OPERATORS = [
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "MaxPool",
    "Mul",
    "Relu",
    "Resize",
    "Sigmoid",
]
"""The operators that are computed in int8; all others stay in float."""


class Int8:
    """Makes int8 versions of a network's graph, all from one measurement of the range of each value.

    Weights are int8 with a scale per output channel, activations uint8 with a scale per value, both written as
    ``QuantizeLinear`` and ``DequantizeLinear`` around the operators. The same images give the same bytes.

    Args:
        model: The graph, in float32.
        images: Letterboxed images, uint8 [B, C, h, w] each, on which the ranges are measured.

    Attributes:
        model: The graph in float32, in which every node has a name.
        layers: The layers that may be in int8.
    """

    def __init__(self, model: onnx.ModelProto, images: Iterable[NDArray[np.uint8]]) -> None:
        named = onnx.ModelProto()
        named.CopyFrom(model)
        name_nodes(named)
        self.model = onnx.shape_inference.infer_shapes(named, strict_mode=True)
        self.layers: list[Layer] = inner_layers(self.model)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "network.onnx")
            onnx.save(self.model, source)
            calibrator = create_calibrator(
                source,
                _OPERATORS,
                augmented_model_path=str(Path(folder, "watched.onnx")),
                calibrate_method=CalibrationMethod.MinMax,
            )
            calibrator.collect_data(_Inputs(images))
            self._ranges = calibrator.compute_data()

    def graph(self, in_int8: Collection[str]) -> onnx.ModelProto:
        """Return the graph with these layers in int8, and all others in float32.

        Args:
            in_int8: Names of layers.
        """
        nodes = {node for layer in self.layers if layer.name in in_int8 for node in layer.nodes}
        source = onnx.ModelProto()
        source.CopyFrom(self.model)
        with _quiet():
            quantizer = QDQQuantizer(
                source,
                True,
                False,
                QuantType.QInt8,
                QuantType.QUInt8,
                self._ranges,
                [],
                [node.name for node in source.graph.node if node.name not in nodes],
                _OPERATORS,
                {},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        made: onnx.ModelProto = quantizer.model.model
        del made.graph.value_info[:]
        # It adds the domain of operators that it does not use.
        used = {node.domain for node in made.graph.node}
        kept = [opset for opset in made.opset_import if opset.domain in used]
        del made.opset_import[:]
        made.opset_import.extend(kept)
        return made


class _Inputs:
    """The images one after the other, as the calibrator asks for them."""

    def __init__(self, images: Iterable[NDArray[np.uint8]]) -> None:
        self._images: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next input; None at the end."""
        image = next(self._images, None)
        return None if image is None else {"images": image}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep advice for the quantizer's own developers from the user's terminal."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
