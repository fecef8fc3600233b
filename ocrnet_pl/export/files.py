"""A network's file in one of the formats, written only if it gives what the network gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.errors import DataError, RunError
from ocrnet_pl.export.describe import describe
from ocrnet_pl.export.parity import STRICT, Difference, Limits
from ocrnet_pl.export.probabilities import probability_maps
from ocrnet_pl.export.raw import RawNetwork, exported_network, network_graph, quiet
from ocrnet_pl.export.whole import fusion_rules, whole_model, whole_program
from ocrnet_pl.imaging.geometry import letterbox_image
from ocrnet_pl.inference.probabilities import probabilities
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.runtime.description import KEY, Description
from ocrnet_pl.runtime.model import Model
from ocrnet_pl.runtime.prediction import Prediction, predictions
from ocrnet_pl.runtime.sessions import OPENVINO, import_openvino, open_session
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Output, Placement, Sample

_BATCH = 4
"""Number of images that the check gives to a raw network together."""


class CheckImage(NamedTuple):
    """An image on which a file is compared with its network.

    Attributes:
        pixels: uint8 [C, H, W].
        truth: What is known of it; None for nothing.
    """

    pixels: Tensor
    truth: Sample | None = None


def export_onnx(
    network: OCRNet, path: Path, images: Sequence[CheckImage], raw: bool = False, limits: Limits = STRICT
) -> Difference:
    """Write a network as an ONNX file, which is kept only if it gives what the network gives.

    Args:
        network: The network, on the CPU; it is put into evaluation mode.
        path: Path of the file.
        images: Images to compare both on, at least one; with truths, their panoptic quality is compared as well.
        raw: Whether the file holds the network alone: images of its input size in; boxes, scores and logits out.
        limits: The differences to allow.

    Returns:
        The differences that were found.

    Raises:
        DataError: There is no image.
        RunError: The file gives something else than the network; it is not kept.
        ValueError: A part of the network cannot be written into a file.
    """
    require_check_images(images)
    network = network.eval().float()
    return _export(write_onnx, network, path, images, raw, limits)


def export_openvino(
    network: OCRNet, path: Path, images: Sequence[CheckImage], raw: bool = False, limits: Limits = STRICT
) -> Difference:
    """Write a network for OpenVINO, as ``path`` and its weights next to it with the ending ``.bin``.

    Arguments, result and errors are those of :func:`export_onnx`; besides, OpenVINO may not be installed.
    """
    require_check_images(images)
    require_openvino(path)
    network = network.eval().float()
    return _export(write_openvino, network, path, images, raw, limits)


Check = Callable[[Path], None]
"""Raises an error if a file is not what it should be."""
Write = Callable[[onnx.ModelProto, Path, Check], None]
"""Writes a model, with its metadata, as a file that is kept only if it passes a check."""


def write_onnx(model: onnx.ModelProto, path: Path, check: Check) -> None:
    """Write a model as an ONNX file, which is kept only if it passes a check."""
    with complete_file(path) as unfinished:
        unfinished.write_bytes(model.SerializeToString())
        check(unfinished)


def write_openvino(model: onnx.ModelProto, path: Path, check: Check, half: bool = False) -> None:
    """Write a model for OpenVINO, which is kept only if it passes a check.

    Args:
        model: The model.
        path: The file; the weights are next to it with the ending ``.bin``.
        check: The check.
        half: Whether weights are stored in half precision. The network is computed in float32 all the same.

    Raises:
        ValueError: OpenVINO is not installed, or the path has another ending.
    """
    openvino = require_openvino(path)
    converted = openvino.Core().read_model(model.SerializeToString())
    for out, named in zip(converted.outputs, model.graph.output, strict=True):
        # Else a result has the names of all steps that do not change it.
        out.get_tensor().set_names({named.name})
    for entry in model.metadata_props:
        converted.set_rt_info(entry.value, [entry.key])
    if half:
        _halve_weights(converted, openvino.opset13)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder, path.name)
        # Its own compression leaves out all that shapes depend on: here the whole branch of the boxes.
        openvino.save_model(converted, unfinished, compress_to_fp16=False)
        check(unfinished)
        # The weights first: the other file is what is opened.
        unfinished.with_suffix(".bin").replace(path.with_suffix(".bin"))
        unfinished.replace(path)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files that an exported network consists of: for OpenVINO there is another one with the weights."""
    return (path, path.with_suffix(".bin")) if path.suffix == OPENVINO else (path,)


def size_of(files: Iterable[Path]) -> int:
    """Return the bytes of several files together."""
    return sum(file.stat().st_size for file in files)


def _halve_weights(model: Any, operators: Any) -> None:
    """Store the weights of an OpenVINO model's convolutions and matrix products in half precision, in place."""

    def multiplies(node: Any) -> bool:
        kind = node.get_type_name()
        if kind == "Reshape":
            # Between the weights of a convolution in groups and the convolution.
            return all(multiplies(reader.get_node()) for reader in node.output(0).get_target_inputs())
        return kind in ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")

    for constant in model.get_ops():
        if constant.get_type_name() != "Constant" or constant.get_element_type().to_dtype() != np.float32:
            continue
        readers = constant.output(0).get_target_inputs()
        if readers and all(multiplies(reader.get_node()) for reader in readers):
            restored = operators.convert(operators.constant(constant.get_data().astype(np.float16)), "f32")
            for reader in readers:
                reader.replace_source_output(restored.output(0))


def require_openvino(path: Path) -> Any:
    """Return the module OpenVINO; raise ValueError if it is not installed, or the path has another ending."""
    openvino = import_openvino()
    if path.suffix != OPENVINO:
        raise ValueError(f"output {str(path)!r}: OpenVINO's files end in {OPENVINO}")
    return openvino


def onnx_model(
    network: OCRNet,
    raw: bool,
    graph: onnx.ModelProto | None = None,
    precision: Mapping[str, Any] | None = None,
) -> onnx.ModelProto:
    """Return what a file holds.

    Args:
        network: The network.
        raw: Whether the file holds the network alone.
        graph: The graph of the network alone; None to make it.
        precision: With how many bits the graph computes, and what that costs; None for float32.
    """
    metadata = describe(network, raw, precision).metadata()
    if not raw:
        return whole_model(network, metadata, graph)
    model = onnx.ModelProto()
    model.CopyFrom(graph or network_graph(network))
    onnx.helper.set_model_props(model, metadata)
    return model


def _export(
    write: Write, network: OCRNet, path: Path, images: Sequence[CheckImage], raw: bool, limits: Limits
) -> Difference:
    difference = Difference(limits)

    def check(unfinished: Path) -> None:
        nonlocal difference
        difference = compare_file(network, unfinished, images, raw, limits)
        require_small(difference, path)

    write(onnx_model(network, raw), path, check)
    return difference


def compare_file(network: OCRNet, path: Path, images: Sequence[CheckImage], raw: bool, limits: Limits) -> Difference:
    """Compare what a file gives with what the network gives."""
    if raw:
        return compare_raw(network, open_session(path).run, images, limits)
    return compare(network, Model(path), images, limits)


def export_torch(
    network: OCRNet, path: Path, images: Sequence[CheckImage], raw: bool = False, limits: Limits = STRICT
) -> Difference:
    """Write a network as a program of ``torch.export``, which is kept only if it gives what the network gives.

    The description is inside as the extra file ``ocrnet_pl``. Arguments, result and errors are those of
    :func:`export_onnx`.
    """
    require_check_images(images)
    network = network.eval().float()
    description = describe(network, raw)
    program = exported_network(network) if raw else whole_program(network)
    with complete_file(path) as unfinished:
        # torch warns of any other ending.
        named = unfinished.with_name(f"{unfinished.name}.pt2")
        try:
            with quiet():
                torch.export.save(program, named, extra_files=description.metadata())
            difference = _compare_program(network, named, images, raw, limits)
            require_small(difference, path)
            named.replace(unfinished)
        finally:
            named.unlink(missing_ok=True)
    return difference


def _compare_program(
    network: OCRNet, path: Path, images: Sequence[CheckImage], raw: bool, limits: Limits
) -> Difference:
    held = {KEY: ""}
    run = torch.export.load(path, extra_files=held).module()
    if raw:
        names = RawNetwork(network).names

        def run_on(boxed: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            return dict(zip(names, (out.numpy() for out in run(torch.from_numpy(boxed))), strict=True))

        return compare_raw(network, run_on, images, limits)
    description = Description.of(held, f"model {str(path)!r}")

    def predict(image: NDArray[np.uint8]) -> Prediction:
        outputs = {name: values.numpy() for name, values in run(torch.from_numpy(image[None])).items()}
        return predictions(outputs, description)[0]

    return compare(network, predict, images, limits)


def require_check_images(images: Sequence[CheckImage]) -> None:
    """Raise DataError if there is no image to check a file on."""
    if not images:
        raise DataError("the check of the file needs at least one image")


def require_small(difference: Difference, path: Path) -> None:
    """Raise RunError if something differs by more than is allowed."""
    if difference.too_large:
        lines = "; ".join(f"{name}: {value}, allowed {limit}" for name, value, limit in difference.finish())
        raise RunError(
            f"{path}: it was not written, because it does not give what the network gives on {difference.images} "
            f"images ({lines})"
        )


@torch.inference_mode()
def compare(
    network: OCRNet, predict: Callable[[NDArray[np.uint8]], Prediction], images: Sequence[CheckImage], limits: Limits
) -> Difference:
    """Compare the predictions of a file with those of the network.

    Args:
        network: The network.
        predict: Predicts an image, uint8 [H, W, C], with the file.
        images: The images.
        limits: The differences to allow.
    """
    difference = Difference(limits)
    for image, truth in images:
        boxed, placement = letterbox_image(image, network.input_size)
        output = network(boxed[None])
        wanted = network.postprocessed(output, [placement])
        got = predict(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        difference.add(wanted.best[0], got, _edge(network, output, placement))
        if truth is not None and got.panoptic is not None:
            difference.evaluate(wanted.best[0], got, truth, network.taxonomy)
    difference.finish()
    return difference


def _edge(network: OCRNet, output: Output, placement: Placement) -> float:
    """Return the score up to which a box of an image may be there or not, since boxes below it are dropped."""
    rules = fusion_rules(network)
    if output.detection is None:
        return 0.0
    scores = rules.decode(output.detection, [placement])[0].scores
    full = len(scores) == rules.max_detections
    edge = torch.tensor(max(rules.decode.score_threshold, float(scores.min()) if full else 0.0))
    maps = probability_maps(rules.calibration, output.semantic is not None, network.taxonomy)
    classes = torch.arange(len(maps))
    return float(probabilities(edge.expand(len(maps)), classes, torch.from_numpy(maps).double()).max())


@torch.inference_mode()
def compare_raw(
    network: OCRNet,
    run: Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]],
    images: Sequence[CheckImage],
    limits: Limits,
) -> Difference:
    """Compare the outputs of a file that holds the network alone with those of the network.

    Args:
        network: The network.
        run: Runs the file on letterboxed images, uint8 [B, C, h, w].
        images: The images.
        limits: The differences to allow.
    """
    difference, raw = Difference(limits), RawNetwork(network).eval()
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        boxed = torch.stack([letterbox_image(each.pixels, network.input_size)[0] for each in part])
        wanted = raw.outputs(boxed).named
        found = run(boxed.numpy())
        for name, values in wanted.items():
            got = found[name]
            if name == "logits":
                difference.share("pixels", values.argmax(1).numpy() != got.argmax(1))
            else:
                difference.largest(name, values.numpy() - got)
        difference.images += len(boxed)
    return difference
