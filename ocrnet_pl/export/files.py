"""A network's file in one of the formats, written only if it gives what the network gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor

from ocrnet_pl.errors import DataError, RunError
from ocrnet_pl.export.describe import describe
from ocrnet_pl.export.parity import STRICT, Difference, Limits
from ocrnet_pl.export.raw import RawNetwork, network_graph
from ocrnet_pl.export.whole import fusion_rules, whole_model
from ocrnet_pl.imaging.geometry import letterbox_image
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.runtime.model import Model, load_session
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.structures import Sample

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
    if not images:
        raise DataError("the check of the file needs at least one image")
    network = network.eval().float()
    metadata = describe(network, raw).metadata()
    if raw:
        model = network_graph(network)
        onnx.helper.set_model_props(model, metadata)
    else:
        model = whole_model(network, metadata)
    with complete_file(path) as unfinished:
        unfinished.write_bytes(model.SerializeToString())
        check = compare_raw if raw else compare
        difference = check(network, unfinished, images, limits)
        if difference.too_large:
            lines = "; ".join(f"{name}: {value}, allowed {limit}" for name, value, limit in difference.finish())
            raise RunError(
                f"{path}: it was not written, because it does not give what the network gives on {difference.images} "
                f"images ({lines})"
            )
    return difference


@torch.inference_mode()
def compare(network: OCRNet, path: Path, images: Sequence[CheckImage], limits: Limits) -> Difference:
    """Compare the predictions of a file with those of the network."""
    model, difference = Model(path), Difference(limits)
    threshold = fusion_rules(network).decode.score_threshold
    for image, truth in images:
        boxed, placement = letterbox_image(image, network.input_size)
        wanted = network.postprocessed(network(boxed[None]), [placement])
        scores = wanted.raw[0].scores
        full = len(scores) == network.postprocess.max_detections
        got = model(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        difference.add(wanted.best[0], got, max(threshold, float(scores.min()) if full else 0.0))
        if truth is not None and got.panoptic is not None:
            difference.evaluate(wanted.best[0], got, truth, network.taxonomy)
    difference.finish()
    return difference


@torch.inference_mode()
def compare_raw(network: OCRNet, path: Path, images: Sequence[CheckImage], limits: Limits) -> Difference:
    """Compare the outputs of a raw file with those of the network."""
    session, difference = load_session(path), Difference(limits)
    names = [out.name for out in session.get_outputs()]
    raw = RawNetwork(network).eval()
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        boxed = torch.stack([letterbox_image(each.pixels, network.input_size)[0] for each in part])
        wanted = raw.outputs(boxed).named
        for name, got in zip(names, session.run(names, {"images": boxed.numpy()}), strict=True):
            if name == "logits":
                difference.share("pixels", wanted[name].argmax(1).numpy() != got.argmax(1))
            else:
                difference.largest(name, wanted[name].numpy() - got)
        difference.images += len(boxed)
    return difference
