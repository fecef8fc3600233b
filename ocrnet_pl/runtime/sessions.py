"""Exported files opened by onnxruntime or OpenVINO, behind one interface."""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.errors import DataError, ModelFileError, one_line
from ocrnet_pl.runtime.description import KEY

OPENVINO = ".xml"
"""The ending of OpenVINO's files; the weights are next to it with the ending ``.bin``."""
PROGRAM = ".pt2"
"""The ending of programs of torch.export, which are not opened here: torch may execute what is in them."""

_CHECKPOINT = ".ckpt"
_EXACT = 0.98 * 2**24
"""Number of pixels of all boxes above which OpenVINO's running totals, which are of float32, are wrong."""
_SMALLER = "scale the image down, predict fewer at a time, or export it with --format onnx"

_MOST_THREADS = 4096
"""Number of threads above which a mistake is assumed: each takes memory, whether it has work or not."""
_KINDS = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(uint8)": "uint8"}


class Session(NamedTuple):
    """An exported file, ready to run.

    Attributes:
        metadata: What is written in the file besides the network.
        inputs: Type and number of axes of each input, by name.
        outputs: Type of each output, by name.
        run: Returns the outputs for images.
    """

    metadata: dict[str, str]
    inputs: dict[str, tuple[str, int]]
    outputs: dict[str, str]
    run: Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]


def open_session(path: str | PathLike[str], threads: int = 0, providers: Sequence[str] | None = None) -> Session:
    """Open a file: one that ends in ``.xml`` with OpenVINO, any other with onnxruntime.

    Args:
        path: Path of the file.
        threads: Number of threads; 0 for one on each core.
        providers: Names of onnxruntime's execution providers, best first; None for the CPU, and for OpenVINO.

    Raises:
        FileNotFoundError: There is no such file.
        ModelFileError: It cannot be loaded, or it is a program of torch.export.
        ValueError: onnxruntime or OpenVINO is not installed, ``threads`` is no number of threads, or onnxruntime does
            not have one of the providers, or they are given for OpenVINO.
    """
    where = f"model {os.fspath(path)!r}"
    if not os.path.isfile(path):
        found = "it is a folder; name the file in it" if os.path.isdir(path) else "there is no such file"
        raise FileNotFoundError(f"{where}: {found}")
    if not isinstance(threads, int) or not 0 <= threads <= _MOST_THREADS:
        # A negative number would be taken for 0.
        raise ValueError(f"threads: expected a whole number from 0, which is one on each core, got {threads!r}")
    if os.fspath(path).lower().endswith(PROGRAM):
        raise ModelFileError(
            f"{where}: it is a program of torch.export; run it with torch.export.load({os.path.basename(path)!r})"
            ".module(), or export the checkpoint with --format onnx"
        )
    if os.fspath(path).lower().endswith(_CHECKPOINT):
        raise ModelFileError(
            f"{where}: it is a checkpoint; `ocrnet export {os.path.basename(path)}` makes a model of it"
        )
    if os.fspath(path).lower().endswith(OPENVINO):
        if providers is not None:
            raise ValueError(
                f"providers: {where} runs with OpenVINO on the CPU, and they are onnxruntime's; leave them out"
            )
        return _open_openvino(os.fspath(path), threads, where)
    return _open_onnx(os.fspath(path), threads, providers, where)


def _open_onnx(path: str, threads: int, providers: Sequence[str] | None, where: str) -> Session:
    onnxruntime = _imported("onnxruntime", "export")
    chosen = _known_providers(onnxruntime.get_available_providers(), providers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    with open(path, "rb") as file:
        content = file.read()
    try:
        # From memory, so that the file cannot name others to read.
        session = onnxruntime.InferenceSession(content, options, providers=chosen)
    except Exception as error:
        # Its errors have no common class.
        raise _cannot_load(where, "onnxruntime", error) from None
    outputs = {out.name: _KINDS.get(out.type, out.type) for out in session.get_outputs()}
    inputs = {each.name: (_KINDS.get(each.type, each.type), len(each.shape)) for each in session.get_inputs()}
    names = list(outputs)

    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, {next(iter(inputs)): images}), strict=True))

    return Session(dict(session.get_modelmeta().custom_metadata_map), inputs, outputs, run)


def _known_providers(known: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Return the providers to use.

    onnxruntime itself leaves out what it does not have, and the CPU computes what a GPU was meant to.

    Raises:
        ValueError: It does not have one of them.
    """
    if isinstance(wanted, str):
        raise ValueError(f"providers: expected a list of names, got the text {wanted!r}; write [{wanted!r}]")
    for name in wanted or ():
        if name not in known:
            raise ValueError(
                f"providers: the installed onnxruntime has no {name!r}, it has {', '.join(known)}; install its package "
                "for that device, such as onnxruntime-gpu, or name another"
            )
    return list(wanted or ["CPUExecutionProvider"])


def import_openvino() -> Any:
    """Return the module OpenVINO.

    Raises:
        ValueError: It is not installed.
    """
    return _imported("openvino", "openvino")


def _imported(name: str, extra: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"{name} is not installed; run: pip install 'ocrnet-pl[{extra}]'")
    return importlib.import_module(name)


def _open_openvino(path: str, threads: int, where: str) -> Session:
    openvino = import_openvino()
    # Some processors would compute in bfloat16.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        model = core.read_model(path)
        compiled = core.compile_model(model, "CPU", options)
    except Exception as error:
        raise _cannot_load(where, "OpenVINO", error) from None
    outputs = {out.get_any_name(): out.element_type.to_dtype().name for out in model.outputs}
    inputs = {
        each.get_any_name(): (each.element_type.to_dtype().name, each.partial_shape.rank.get_length())
        for each in model.inputs
    }
    metadata = {KEY: str(model.get_rt_info([KEY]).value)} if model.has_rt_info([KEY]) else {}

    one_at_a_time = threading.Lock()
    request = compiled.create_infer_request()

    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        # It refuses a thread that comes while another is served.
        with one_at_a_time:
            try:
                # The call that waits itself was seen to return the results of the run before where this one fails.
                request.start_async([images])
                request.wait()
            except RuntimeError as error:
                # Its own text is about its files. Most often the boxes have too many pixels, as below.
                raise DataError(f"{where}: OpenVINO cannot compute this image; {_SMALLER}") from error
            # Copies: the next run writes into the same memory.
            found = {name: np.array(request.get_output_tensor(place).data) for place, name in enumerate(outputs)}
        if {"boxes", "semantic"} <= found.keys():
            sides = np.maximum(found["boxes"][..., 2:] - found["boxes"][..., :2], 0.0)
            if sides.prod(-1, dtype=np.float64).sum() > _EXACT:
                raise DataError(f"{where}: the boxes have too many pixels for OpenVINO to count; {_SMALLER}")
        return found

    return Session(metadata, inputs, outputs, run)


def _cannot_load(where: str, runtime: str, error: Exception) -> ModelFileError:
    reason = one_line(error)[:200]
    return ModelFileError(f"{where}: {runtime} cannot load it ({reason}); export it again")
