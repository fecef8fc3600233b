"""What a network found on labelled images, kept small enough to be fused again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors

from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.geometry import boxes_to_original, maps_to_original
from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.inference.pixels import SemanticMap
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Batch, Placement, Sample


@dataclass(frozen=True)
class Collected:
    """The result on one image.

    Attributes:
        detections: Boxes after suppression, in the frame of the truth.
        logits: float16 [S, h, w], over the padded input; None without a segmentation decoder.
        stride: Distance of neighbouring logits in input pixels.
        placement: Position and scale of the truth's frame in the input.
        truth: The labels; its image is empty.
    """

    detections: Detections
    logits: Tensor | None
    stride: int
    placement: Placement
    truth: Sample

    def maps(self) -> Tensor:
        """Return the logits in the frame of the truth, float32 [S, H, W], of a network with a segmentation decoder."""
        assert self.logits is not None
        return maps_to_original(self.logits.float(), self.stride, self.placement)

    def semantic(self, temperature: float = 1.0) -> SemanticMap:
        """Return the class probabilities in the frame of the truth, of a network with a segmentation decoder.

        Args:
            temperature: Number that the logits are divided by.
        """
        return SemanticMap.of((self.maps() / temperature).softmax(0))


@torch.inference_mode()
def collect(
    network: OCRNet,
    fusion: FusionPostProcess,
    batches: Iterable[Batch],
    limit: int,
    passes: MultiScale | Tiling | None = None,
) -> Iterator[Collected]:
    """Run the network over labelled images.

    Args:
        network: The network, in evaluation mode, with a detection decoder.
        fusion: Selects the boxes from the candidates.
        batches: Batches with their truths.
        limit: Largest number of images to run on.
        passes: How each image is predicted at several scales or in tiles, in the frame of its truth; None for one pass.

    Yields:
        One image after the other, on the CPU.
    """
    count = 0
    for batch in batches:
        if passes is not None:
            for truth in batch.truths[: limit - count]:
                count += 1
                ((detections, logits),) = passes.found(network, [truth.image.as_subclass(Tensor)])
                assert detections is not None
                yield Collected(
                    fusion.without_rivals(Detections(*(part.cpu() for part in detections))),
                    None if logits is None else logits.to(torch.float16).cpu(),
                    1,
                    Placement.identity(truth.size),
                    _without_image(truth),
                )
            if count == limit:
                return
            continue
        output = network(batch.images.to(network.mean.device))
        assert output.detection is not None
        found = fusion.decode(output.detection, batch.placements)
        for row, truth in enumerate(batch.truths):
            if count == limit:
                return
            count += 1
            boxes, scores, labels = (part.cpu() for part in found[row])
            placement = batch.placements[row]
            yield Collected(
                fusion.without_rivals(Detections(boxes_to_original(boxes, placement), scores, labels)),
                None if output.semantic is None else output.semantic[row].to(torch.float16).cpu(),
                output.stride,
                placement,
                _without_image(truth),
            )


def _without_image(truth: Sample) -> Sample:
    return truth.replace(image=tv_tensors.Image(torch.empty((0, *truth.size), dtype=torch.uint8)))
