"""Time what a validation does on the host for each image, and measure what it keeps in memory.

Images of 640 x 480 pixels with 100 boxes, 80 things and 53 kinds of stuff, boxes and pixels predicted nearly right. The
network, decoding and fusion up to the owner of each pixel run where the network is, and are not counted; the rest runs
on the CPU: what is printed as done in the background runs while the network works on the next batch.
``--keep 50000`` measures the memory after so many small images. Run: ``python benchmarks/validation_host.py``.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torchvision import tv_tensors

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.inference.decode import Detections
from ocrnet_pl.inference.fusion import Corrected, FusionPostProcess
from ocrnet_pl.inference.pixels import SemanticMap
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.structures import Predictions, Sample, Supervision, Taxonomy

THINGS, STUFF = 80, 53
TAXONOMY = Taxonomy.build([f"thing {i}" for i in range(THINGS)], [f"stuff {i}" for i in range(STUFF)])


def scene(seed: int, size: tuple[int, int], objects: int) -> tuple[Sample, Detections, SemanticMap]:
    """Return a labelled image of ellipses on patches of stuff, and what a good network finds in it."""
    random = torch.Generator().manual_seed(seed)
    height, width = size
    patches = torch.randint(0, STUFF, (1, 1, 3, 4), generator=random).float()
    semantic = torch.nn.functional.interpolate(patches, size)[0, 0].long()
    instances = torch.zeros(size, dtype=torch.int32)
    labels = torch.randint(0, THINGS, (objects,), generator=random)
    share = 0.03 + 0.12 * torch.rand(objects, 2, generator=random)
    side = (share * torch.tensor([width, height])).clamp(min=2)
    corner = torch.rand(objects, 2, generator=random) * (torch.tensor([width, height]) - side)
    boxes = torch.cat((corner, corner + side), 1).round()
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    for row, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        inside = ((x - (x1 + x2) / 2) / (x2 - x1)).square() + ((y - (y1 + y2) / 2) / (y2 - y1)).square() < 0.25
        instances[inside], semantic[inside] = row + 1, STUFF + labels[row]
    truth = Sample(
        image=tv_tensors.Image(torch.zeros(3, *size, dtype=torch.uint8)),
        boxes=tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        labels=labels,
        crowd=torch.zeros(objects, dtype=torch.bool),
        supervision=Supervision.full(TAXONOMY),
        semantic=tv_tensors.Mask(semantic.to(torch.uint8)),
        instances=tv_tensors.Mask(instances),
        image_id=seed,
    )
    scores = torch.rand(objects, generator=random).sort(descending=True).values
    moved = (boxes + torch.randn(boxes.shape, generator=random)).clamp(min=0).minimum(torch.tensor([width, height] * 2))
    moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 1)
    # Edges of a decoder of stride 4: wrong by a pixel or two.
    found = torch.nn.functional.one_hot(torch.roll(semantic, 1, 0), THINGS + STUFF).permute(2, 0, 1).float()
    blurred = torch.nn.functional.avg_pool2d(found, 5, 1, 2)
    return truth, Detections(moved, scores, labels), SemanticMap.of((8 * blurred).softmax(0))


def timed(action: Callable[[], object], images: int, rounds: int) -> float:
    """Return the milliseconds of processor time per image, the best of some rounds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return 1e3 * min(times) / images


def host_time(options: argparse.Namespace) -> Table:
    """Return the table of times."""
    post = FusionPostProcess()
    scenes = [scene(seed, (options.height, options.width), options.objects) for seed in range(options.images)]
    truths = [truth for truth, _, _ in scenes]
    batch = collate(truths, truths)
    corrected: list[Corrected] = [post.correct(found, pixels, TAXONOMY) for _, found, pixels in scenes]
    raw = [post.merge(found, pixels, TAXONOMY) for _, found, pixels in scenes]
    fused = [post.with_panoptic(each, TAXONOMY) for each in corrected]
    metrics, recording = (EvaluationMetrics(TAXONOMY, boxes=True, pixels=True) for _ in range(2))
    recording.record_errors(score=0.3, pictures=6)

    def update(metrics: EvaluationMetrics) -> None:
        metrics.update(Predictions(raw, fused), batch)
        metrics.wait()

    def end() -> None:
        metrics.compute()

    parts = {
        "merge by rule, with the panoptic map": lambda: [post.merge(f, pixels, TAXONOMY) for _, f, pixels in scenes],
        "fused panoptic map": lambda: [post.with_panoptic(each, TAXONOMY) for each in corrected],
        "metrics, in the background": lambda: update(metrics),
    }
    table = Table("on the host", "ms per image", title=f"{options.width}x{options.height}, {options.objects} boxes")
    total = 0.0
    for name, action in parts.items():
        spent = timed(action, len(scenes), options.rounds)
        total += spent
        table.add_row(name, f"{spent:.2f}")
    table.add_row("together", f"{total:.2f}")
    with_errors = timed(lambda: update(recording), len(scenes), options.rounds)
    table.add_row("metrics with the errors, of validate and test", f"{with_errors:.2f}")
    table.add_row("in the end of the epoch", f"{timed(end, len(scenes) * options.rounds, 1):.2f}")
    return table


def kept_memory(images: int, objects: int) -> str:
    """Return how much memory validation takes after so many images, and at its end."""
    post = FusionPostProcess()
    metrics = EvaluationMetrics(TAXONOMY, boxes=True, pixels=True)
    some = [scene(seed, (64, 64), objects) for seed in range(16)]
    truths = [truth for truth, _, _ in some]
    raw = [post.merge(found, pixels, TAXONOMY) for _, found, pixels in some]
    fused = [post.fuse(found, pixels, TAXONOMY) for _, found, pixels in some]
    process = psutil.Process()
    before = process.memory_info().rss
    start = time.perf_counter()
    for first in range(0, images, len(some)):
        own = [truth.replace(image_id=first + row) for row, truth in enumerate(truths)]
        metrics.update(Predictions(raw, fused), collate(own, own))
    metrics.wait()
    kept = process.memory_info().rss - before
    middle = time.perf_counter()
    metrics.compute()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return (
        f"{images} images of {objects} detections: {kept / 1e9:.3f} GB kept, {peak / 1e9:.3f} GB at the peak of the "
        f"end; {middle - start:.0f} s for all batches, {time.perf_counter() - middle:.0f} s in the end"
    )


def main() -> None:
    """Print the times or the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--objects", type=int, default=100)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=int, default=0, help="images after which memory is measured; 0 measures times")
    options = parser.parse_args()
    if options.keep:
        Console().print(kept_memory(options.keep, options.objects))
    else:
        Console().print(host_time(options))


if __name__ == "__main__":
    main()
