"""How much each layer of a network costs when it alone is in int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ocrnet_pl.export.int8 import Int8

Outputs = Mapping[str, NDArray[Any]]


def rank_layers(int8: Int8, images: Sequence[NDArray[np.uint8]]) -> list[tuple[str, float]]:
    """Return the name of each layer and its cost, the largest first.

    The cost is how far the network's outputs move when only this layer is in int8: the sum over the outputs of the
    root of the mean squared difference, as a share of the output's own standard deviation. Boxes count by their best
    score, since most candidates are never seen.

    Args:
        int8: The layers.
        images: Letterboxed images, uint8 [B, C, h, w] each, other ones than those that the ranges were measured on.
    """
    wanted = _outputs(int8.model, images)
    costs = [(layer.name, _distance(wanted, _outputs(int8.graph([layer.name]), images))) for layer in int8.layers]
    return sorted(costs, key=lambda each: -each[1])


def _outputs(model: onnx.ModelProto, images: Sequence[NDArray[np.uint8]]) -> list[Outputs]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [out.name for out in session.get_outputs()]
    return [dict(zip(names, session.run(names, {"images": image}), strict=True)) for image in images]


def _distance(wanted: Sequence[Outputs], found: Sequence[Outputs]) -> float:
    total = 0.0
    for name in wanted[0]:
        ours, theirs = (np.concatenate([each[name] for each in side]).astype(np.float64) for side in (wanted, found))
        weight = np.ones_like(ours)
        if name == "boxes":
            weight *= np.concatenate([each["scores"] for each in wanted]).max(-1, keepdims=True)
        middle = np.average(ours, weights=weight)
        spread = np.average((ours - middle) ** 2, weights=weight)
        total += float(np.sqrt(np.average((ours - theirs) ** 2, weights=weight) / max(spread, 1e-12)))
    return total if np.isfinite(total) else np.inf
