"""Time the metrics of a validation against the network that they judge.

Images of 512 pixels with 20 objects each, boxes and pixels predicted nearly right; by default 5,000 of them, of which
a few dozen are distinct. Run: ``python benchmarks/validation_time.py``.
"""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.inference.panoptic import add_panoptic
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.structures import Batch, Prediction, Predictions, Sample, Taxonomy
from ocrnet_pl.training.task import OCRNetTask

DISTINCT = 48


def nearly_right(truth: Sample, seed: int, taxonomy: Taxonomy) -> Prediction:
    """Return the truth, moved by a pixel or two, with scores at random."""
    random = torch.Generator().manual_seed(seed)
    rows = (~truth.crowd).nonzero()[:, 0]
    boxes = truth.boxes.as_subclass(torch.Tensor)[rows]
    assert truth.semantic is not None and truth.instances is not None
    keep = torch.isin(truth.instances, rows.int() + 1)
    found = torch.where(keep, truth.instances, 0).as_subclass(torch.Tensor)
    order = torch.zeros(len(truth.boxes) + 1, dtype=torch.int32)
    order[rows + 1] = torch.arange(1, len(rows) + 1, dtype=torch.int32)
    prediction = Prediction(
        boxes=boxes + torch.randn(boxes.shape, generator=random),
        scores=torch.rand(len(rows), generator=random),
        labels=truth.labels[rows],
        semantic=torch.roll(truth.semantic.as_subclass(torch.Tensor), 1, 0),
        instances=torch.roll(order[found.long()], 1, 0),
    )
    add_panoptic(prediction, torch.ones(len(rows), dtype=torch.bool), 1.0, taxonomy)
    return prediction


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=5, help="batches that the network is timed on")
    options = parser.parse_args()
    source = SyntheticSource(
        length=DISTINCT,
        size=options.size,
        min_objects=options.objects,
        max_objects=options.objects,
        min_size=0.1,
        max_size=0.15,
        min_visible=0.01,
    )
    samples = [source[index] for index in range(DISTINCT)]
    batches = []
    for start in range(0, DISTINCT, options.batch):
        own = samples[start : start + options.batch]
        batch = collate(own)
        batch.truths = own
        found = [nearly_right(truth, start + row, source.taxonomy) for row, truth in enumerate(own)]
        batches.append((batch, Predictions(found, found)))
    task = OCRNetTask(source.taxonomy, TimmEncoder(options.encoder), input_size=(options.size, options.size)).eval()
    network: OCRNet = task.network
    network_s = network_time(network, batches[0][0], options.rounds) / len(batches[0][0]) * options.images
    metrics = EvaluationMetrics(source.taxonomy, boxes=True, pixels=True)
    boxes, done = 0, 0
    start_s = time.perf_counter()
    for number in track(range(-(-options.images // options.batch)), "metrics", transient=True):
        batch, predictions = batches[number % len(batches)]
        metrics.update(predictions, batch)
        done += len(batch)
        boxes += sum(len(prediction.boxes) for prediction in predictions.raw)
    updates_s = time.perf_counter() - start_s
    metrics.compute()
    metrics_s = time.perf_counter() - start_s
    table = Table("", "seconds", "%", title=f"{done} images, {boxes / done:.1f} boxes each, raw and fused figures")
    total = network_s + metrics_s
    for name, seconds in (
        ("network, decoding, fusion", network_s),
        ("metrics: every batch", updates_s),
        ("metrics: in the end", metrics_s - updates_s),
    ):
        table.add_row(name, f"{seconds:.1f}", f"{100 * seconds / total:.1f}")
    Console().print(table)


@torch.inference_mode()
def network_time(network: OCRNet, batch: Batch, rounds: int) -> float:
    """Return the median seconds of a batch, from images to fused predictions."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        network.postprocessed(network(batch.images), batch.placements)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[rounds // 2]


if __name__ == "__main__":
    main()
