"""Time one pass of the joint network against its two single-task twins, and fusion against the pass.

Every figure is a ratio of medians within this run: the three networks take turns, so that a machine whose speed drifts
slows all of them alike. Run: ``python benchmarks/joint_speed.py --encoder efficientnet_lite0``.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import torch

from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.fusion import FusionPostProcess, SemanticMap
from ocrnet_pl.inference.geometry import maps_to_original
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.structures import Output, Placement, Taxonomy

TAXONOMY = Taxonomy.build(things=["car", "person", "rider", "sign"], stuff=["road", "building", "sky", "plant"])


def build(encoder: str, detection: bool, segmentation: bool) -> OCRNet:
    """Return a seeded network of the default parts, in evaluation mode."""
    torch.manual_seed(0)
    return OCRNet(
        TAXONOMY,
        TimmEncoder(encoder),
        PathAggregationNeck,
        AnchorFreeDecoder if detection else None,
        SubPixelDecoder if segmentation else None,
        FusionPostProcess(),
    ).eval()


def medians(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return each function's median seconds; they run in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(rounds + 2):
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if turn >= 2:
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--boxes", type=int, default=30, help="boxes an image that fusion gets to merge")
    options = parser.parse_args()
    joint = build(options.encoder, True, True)
    boxes_only, pixels_only = build(options.encoder, True, False), build(options.encoder, False, True)
    print(f"{options.encoder}, {torch.get_num_threads()} threads, median of {options.rounds} rounds")
    print(f"{'batch':>5} {'size':>5} {'joint ms':>9} {'twins ms':>9} {'ratio':>6} {'fusion ms':>10} {'of pass':>8}")
    for batch in options.batches:
        for size in options.sizes:
            images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
            output = joint(images)
            fuse = fuse_known_boxes(joint, output, size, options.boxes)
            passes = [functools.partial(net, images) for net in (joint, boxes_only, pixels_only)]
            together, first, second, fusion = medians([*passes, fuse], options.rounds)
            print(
                f"{batch:>5} {size:>5} {together * 1e3:9.1f} {(first + second) * 1e3:9.1f} "
                f"{together / (first + second):6.3f} {fusion * 1e3:10.2f} {fusion / together:8.1%}"
            )


def fuse_known_boxes(network: OCRNet, output: Output, size: int, count: int) -> Callable[[], None]:
    """Return what fuses ``count`` boxes of a twelfth of the image's side with the pixels, for each image of the batch.

    What a network without fusion would have to do as well, pixels at full size and boxes after suppression, is done
    beforehand.
    """
    post = network.postprocess
    assert isinstance(post, FusionPostProcess)
    assert output.semantic is not None
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(count, 2, generator=generator) * size * 11 / 12
    boxes = torch.cat((low, low + size / 12), 1)
    detections = Detections(boxes, torch.linspace(0.9, 0.1, count), torch.arange(count) % TAXONOMY.num_detection)
    placement = Placement.identity((size, size))
    full = [maps_to_original(logits, output.stride, placement).softmax(0) for logits in output.semantic]
    maps = [SemanticMap.of(probability) for probability in full]

    def fuse() -> None:
        for semantic in maps:
            post.fuse(detections, semantic, TAXONOMY)

    return fuse


if __name__ == "__main__":
    main()
