"""Files of a network that computes with fewer bits, written only if that costs little."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from ocrnet_pl.errors import DataError, RunError
from ocrnet_pl.export.figures import in_turn, losses, measure, predictor
from ocrnet_pl.export.files import (
    CheckImage,
    Write,
    compare_file,
    files_of,
    onnx_model,
    require_check_images,
    require_openvino,
    require_small,
    size_of,
    write_onnx,
    write_openvino,
)
from ocrnet_pl.export.half import half_graph
from ocrnet_pl.export.int8 import Int8
from ocrnet_pl.export.parity import HALF, STRICT, UNLIMITED, Difference, Limits
from ocrnet_pl.export.raw import network_graph
from ocrnet_pl.export.search import fewest
from ocrnet_pl.export.sensitivity import rank_layers
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.runtime.sessions import OPENVINO
from ocrnet_pl.structures import Sample

_TIMED = 8
"""Number of images on which files are timed."""
_HELD_OUT = 8
"""Largest number of images on which the cost of single layers is measured."""
TITLES = {"map": "box mAP", "miou": "mIoU", "pq": "PQ"}

Tell = Callable[[str], object]
"""Takes one line about what is done."""


class Reduced(NamedTuple):
    """What was written, and what it costs.

    Attributes:
        difference: How far it is from the network in torch.
        before: The figures of the float32 file.
        after: The figures of the file.
        float_layers: Names of the layers that stay in float32, which others of the network are not.
        layers: Number of layers that could have been reduced.
        sizes: Bytes of the float32 file and of the file.
        seconds: Processor time per image of both, on one thread.
    """

    difference: Difference
    before: dict[str, float]
    after: dict[str, float]
    float_layers: list[str]
    layers: int
    sizes: tuple[int, int]
    seconds: tuple[float, float]


def figures_text(figures: Mapping[str, float]) -> str:
    """Return figures in words."""
    return ", ".join(f"{TITLES[name]} {value:.4f}" for name, value in figures.items())


def export_half(
    network: OCRNet,
    path: Path,
    images: Sequence[CheckImage],
    samples: Iterable[Sample],
    *,
    raw: bool = False,
    openvino: bool = False,
    max_loss: float = 0.01,
    limits: Limits = HALF,
    tell: Tell = print,
) -> Reduced:
    """Write a network in half precision, as an ONNX file or for OpenVINO.

    In an ONNX file, weights and activations of all but the first and last operations are in half precision. OpenVINO's
    holds the weights in half precision, and computes in float32.

    Args:
        network: The network, on the CPU; it is put into evaluation mode.
        path: Path of the file.
        images: Images to compare with the network on, at least one.
        samples: The validation images, which are gone through several times.
        raw: Whether the file holds the network alone.
        openvino: Whether it is a file for OpenVINO, whose name ends in ``.xml``, instead of ONNX.
        max_loss: Largest loss of each of box mAP, mIoU and PQ.
        limits: The differences to the network to allow.
        tell: Is told the figures.

    Raises:
        DataError: There is no image, or nothing to measure.
        RunError: Too much is lost; the file is not written.
        ValueError: A part of the network cannot be written into a file.
    """
    with tempfile.TemporaryDirectory() as folder:
        reference = _Reference(network, path, Path(folder), images, samples, raw, openvino, tell)
        if openvino:
            graph = reference.graph
            reference.write = partial(write_openvino, half=True)
        else:
            graph = half_graph(reference.graph)
        after = reference.figures(graph, "half precision")
        if not reference.within(after, max_loss):
            raise RunError(
                f"{path}: it was not written, because half precision costs more than max_loss {max_loss:g} "
                f"({figures_text(after)}; in float32 {figures_text(reference.before)})"
            )
        return reference.finish(graph, {"name": "fp16"}, after, [], limits)


def export_int8(
    network: OCRNet,
    path: Path,
    images: Sequence[CheckImage],
    samples: Iterable[Sample],
    calibration: Sequence[NDArray[np.uint8]],
    *,
    raw: bool = False,
    openvino: bool = False,
    max_loss: float = 0.01,
    max_trials: int = 16,
    tell: Tell = print,
) -> Reduced:
    """Write a network in int8, as an ONNX file or for OpenVINO, with as many layers in float32 as its figures need.

    If int8 costs too much, each layer's cost is measured alone, and the most expensive ones go back to float32: a
    number of them that is doubled until the figures are good enough, and then made as small as the trials allow.

    Args:
        network: The network, on the CPU; it is put into evaluation mode.
        path: Path of the file.
        images: Images to compare with the network on, at least one.
        samples: The validation images, which are gone through in each trial.
        calibration: Letterboxed training images, uint8 [C, h, w], at least two: on a quarter of them, at most eight,
            each layer's cost is measured, on the others the range of each value.
        raw: Whether the file holds the network alone.
        openvino: Whether it is a file for OpenVINO, whose name ends in ``.xml``, instead of ONNX.
        max_loss: Largest loss of each of box mAP, mIoU and PQ.
        max_trials: Largest number of measurements on the validation images, at least 1.
        tell: Is told each step.

    Raises:
        DataError: There are too few images, or there is nothing to measure.
        RunError: Too much is lost whatever is tried; the file is not written.
        ValueError: A part of the network cannot be written into a file.
    """
    if len(calibration) < 2:
        raise DataError(f"int8 needs at least two images to calibrate on; found {len(calibration)}")
    apart = min(_HELD_OUT, max(len(calibration) // 4, 1))
    with tempfile.TemporaryDirectory() as folder:
        reference = _Reference(network, path, Path(folder), images, samples, raw, openvino, tell)
        int8 = Int8(reference.graph, [image[None] for image in calibration[apart:]])
        names = [layer.name for layer in int8.layers]
        if not names:
            raise ValueError("int8: the network has no layer besides the first and the last ones")
        order: list[str] = []
        trials: dict[int, dict[str, float]] = {}

        def passes(count: int) -> bool:
            if count and not order:
                tell(f"measuring what each of {len(names)} layers costs alone")
                order.extend(name for name, _ in rank_layers(int8, [image[None] for image in calibration[:apart]]))
            reduced = set(names) - set(order[:count])
            where = f"int8, {count} of {len(names)} layers in float32"
            trials[count] = reference.figures(int8.graph(reduced), where)
            return reference.within(trials[count], max_loss)

        count = fewest(len(names) - 1, max_trials, passes)
        if count is None:
            raise RunError(
                f"{path}: it was not written, because int8 costs more than max_loss {max_loss:g} in {len(trials)} "
                f"trials, the last with {list(trials)[-1]} of {len(names)} layers in float32; allow a larger loss or "
                "more trials, calibrate on more images, or take fp16"
            )
        kept = [name for name in names if name in order[:count]]
        precision = {"name": "int8", "float_layers": kept, "calibration_images": len(calibration) - apart}
        return reference.finish(
            int8.graph(set(names) - set(kept)), precision, trials[count], kept, UNLIMITED, len(names)
        )


class _Reference:
    """The float32 file, with which others are compared."""

    def __init__(
        self,
        network: OCRNet,
        path: Path,
        folder: Path,
        images: Sequence[CheckImage],
        samples: Iterable[Sample],
        raw: bool,
        openvino: bool,
        tell: Tell,
    ) -> None:
        require_check_images(images)
        ending = ".onnx"
        if openvino:
            require_openvino(path)
            ending = OPENVINO
        self._network, self._path, self._raw = network.eval().float(), path, raw
        self._images, self._samples, self._tell = images, samples, tell
        self.write: Write = write_openvino if openvino else write_onnx
        self.graph = network_graph(network)
        self._file = folder / f"float32{ending}"
        self._trial = folder / f"trial{ending}"

        def check(unfinished: Path) -> None:
            require_small(compare_file(network, unfinished, images, raw, STRICT), path)

        self.write(onnx_model(network, raw, self.graph), self._file, check)
        self.before = self._measure(self._file, "float32")
        if not any(np.isfinite(value) for value in self.before.values()):
            raise DataError("data.val: it has nothing to measure mAP, mIoU or PQ on; give labelled images")

    def _measure(self, file: Path, name: str) -> dict[str, float]:
        found = measure(predictor(self._network, file, self._raw), self._samples, self._network.taxonomy)
        self._tell(f"{name}: {figures_text(found)}")
        return found

    def figures(self, graph: onnx.ModelProto, name: str) -> dict[str, float]:
        """Return the figures of another graph of the network."""
        self.write(onnx_model(self._network, self._raw, graph), self._trial, lambda _: None)
        return self._measure(self._trial, name)

    def within(self, figures: Mapping[str, float], max_loss: float) -> bool:
        """Return whether no figure is worse by more than is allowed."""
        return all(loss <= max_loss for loss in losses(self.before, figures).values())

    def finish(
        self,
        graph: onnx.ModelProto,
        precision: Mapping[str, Any],
        after: dict[str, float],
        float_layers: list[str],
        limits: Limits,
        layers: int = 0,
    ) -> Reduced:
        """Write the file, and return what it costs."""
        known = {
            when: {name: round(value, 6) for name, value in figures.items() if np.isfinite(value)}
            for when, figures in (("float32", self.before), (precision["name"], after))
        }
        difference = Difference(limits)

        def check(unfinished: Path) -> None:
            nonlocal difference
            difference = compare_file(self._network, unfinished, self._images, self._raw, limits)
            require_small(difference, self._path)

        self.write(onnx_model(self._network, self._raw, graph, {**precision, "figures": known}), self._path, check)
        files = (self._file, self._path)
        ways = [predictor(self._network, file, self._raw, threads=1) for file in files]
        first, second = in_turn(ways, [each.pixels for each in self._images[:_TIMED]])
        before, now = (size_of(files_of(file)) for file in files)
        return Reduced(difference, self.before, after, float_layers, layers, (before, now), (first, second))
