"""Time the joint network against its two single-task twins, and what follows the pass against the whole.

Every figure is a ratio of medians within this run: the three networks take turns, so that a machine whose speed drifts
slows all of them equally. Run: ``python benchmarks/joint_speed.py --encoder efficientnet_lite0``.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import torch

from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.models.detection import AnchorFreeDecoder
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.necks import PathAggregationNeck
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.segmentation import SubPixelDecoder
from ocrnet_pl.structures import Output, Placement, Taxonomy

TAXONOMY = Taxonomy.build(things=["car", "person", "rider", "sign"], stuff=["road", "building", "sky", "plant"])


def build(
    encoder: str,
    detection: bool,
    segmentation: bool,
    size: int = 512,
    taxonomy: Taxonomy = TAXONOMY,
    separable: bool = False,
) -> OCRNet:
    """Return a seeded network of the default parts for images of a size in pixels, in evaluation mode.

    With ``separable``, the pixels' decoder has the option of that name.
    """
    torch.manual_seed(0)
    return OCRNet(
        taxonomy,
        TimmEncoder(encoder),
        PathAggregationNeck,
        AnchorFreeDecoder if detection else None,
        functools.partial(SubPixelDecoder, separable=separable) if segmentation else None,
        FusionPostProcess(),
        (size, size),
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


def planted(output: Output, size: int, count: int) -> Output:
    """Return the output with ``count`` sure boxes, each a twelfth of the image's side, and no other candidates.

    Noise would give few boxes or very many; this way decoding and fusion do the work of an image with that many
    objects.
    """
    if output.detection is None:
        return output
    batch, candidates, classes = output.detection.scores.shape
    assert count <= candidates
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(count, 2, generator=generator) * size * 11 / 12
    boxes, scores = output.detection.boxes.clone(), torch.zeros(batch, candidates, classes)
    boxes[:, :count] = torch.cat((low, low + size / 12), 1)
    rows = torch.arange(count)
    scores[:, rows, rows % classes] = torch.linspace(0.9, 0.1, count)
    return output._replace(detection=output.detection._replace(boxes=boxes, scores=scores))


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--boxes", type=int, default=100, help="objects per image")
    options = parser.parse_args()
    joint = build(options.encoder, True, True)
    networks = [joint, build(options.encoder, True, False), build(options.encoder, False, True)]
    print(f"{options.encoder}, {torch.get_num_threads()} threads, median of {options.rounds} rounds")
    print("pass: the networks alone; whole: with decoding, pixels at full size, merging and fusing; after: its share")
    print(
        f"{'batch':>5} {'size':>5} | {'pass ms':>8} {'twins':>8} {'ratio':>6}"
        f" | {'whole ms':>8} {'twins':>8} {'ratio':>6} | {'after':>6}"
    )
    for batch in options.batches:
        for size in options.sizes:
            images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
            passes = [functools.partial(network, images) for network in networks]
            afters = []
            for network in networks:
                output = planted(network(images), size, options.boxes)
                placements = [Placement.identity((size, size))] * batch
                if output.detection is not None:
                    found = network.postprocessed(output, placements).raw[0]
                    assert len(found.boxes) > 0.8 * options.boxes, len(found.boxes)
                afters.append(functools.partial(network.postprocessed, output, placements))
            spent = [1e3 * own for own in medians([*passes, *afters], options.rounds)]
            whole = [sum(pair) for pair in zip(spent[:3], spent[3:], strict=True)]
            twins = spent[1] + spent[2], whole[1] + whole[2]
            print(
                f"{batch:>5} {size:>5} | {spent[0]:8.1f} {twins[0]:8.1f} {spent[0] / twins[0]:6.3f}"
                f" | {whole[0]:8.1f} {twins[1]:8.1f} {whole[0] / twins[1]:6.3f}"
                f" | {spent[3] / whole[0]:6.1%}"
            )


if __name__ == "__main__":
    main()
