"""The predictions for a batch: in one pass, in tiles, or at several scales."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Batch, Output, Predictions


def predict_batch(
    network: OCRNet,
    batch: Batch,
    tile: Tiling | None,
    multiscale: MultiScale | None,
    see: Callable[[Output], None] | None = None,
) -> Predictions:
    """Return the predictions for a batch's images, each at the size of its truth.

    Args:
        network: The network.
        batch: Letterboxed images with their truths, which hold the originals.
        tile: How to predict images larger than the input in tiles; None scales them down to fit.
        multiscale: How to predict at several scales; None for a single pass.
        see: Called with the network's output for the whole batch, if there is only one; None for nothing.
    """
    if multiscale is not None:
        return multiscale.predict(network, [truth.image.as_subclass(Tensor) for truth in batch.truths])
    if tile is None or _fits_input(batch):
        output = network(batch.images)
        if see is not None:
            see(output)
        return network.postprocessed(output, batch.placements)
    parts = [tile(network, truth.image.as_subclass(Tensor)) for truth in batch.truths]
    fused = [prediction for part in parts for prediction in part.fused or []]
    return Predictions([prediction for part in parts for prediction in part.raw], fused or None)


def detection_limits(network: OCRNet, batch: Batch, tile: Tiling | None) -> list[int] | None:
    """Return the largest number of boxes that a network returns for each image of a batch; None without a limit.

    Args:
        network: The network.
        batch: The batch.
        tile: How images larger than the input are predicted in tiles; None for none.
    """
    limit = network.postprocess.max_detections
    if limit is None or network.detection is None:
        return None
    if tile is None or _fits_input(batch):
        return [limit] * len(batch)
    return [limit * tile.count(truth.size, network.input_size) for truth in batch.truths]


def _fits_input(batch: Batch) -> bool:
    """Return whether the truth is in the frame of the letterboxed input, in which there is nothing to cut."""
    return all(truth.size == batch.images.shape[-2:] for truth in batch.truths)
