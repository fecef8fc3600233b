"""Time what a validation measures, and the page of errors, against the network that they judge.

Images of 512 pixels with 20 objects each, boxes and pixels predicted nearly right; by default 5,000 of them, of which
a few dozen are distinct. Times are those of the processor, of all threads. Run:
``python benchmarks/validation_time.py``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ocrnet_pl.data.loading.collate import collate
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.inference.panoptic import add_panoptic
from ocrnet_pl.metrics.evaluation import EvaluationMetrics
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.report.errors_page import write_errors_page
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
    """Print the times and their shares."""
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
    first = batches[0][0]
    network_s, loss_s = (options.images * seconds for seconds in network_time(task, first, options.rounds))
    plain = metrics_time(source.taxonomy, batches, options.images, record=False)
    recorded = metrics_time(source.taxonomy, batches, options.images, record=True)
    boxes = sum(len(each.boxes) for _, predictions in batches for each in predictions.raw) / DISTINCT
    table = Table("", "seconds", "%", title=f"{options.images} images, {boxes:.1f} boxes each, raw and fused figures")
    total = network_s + plain.updates_s + plain.end_s
    for name, seconds in (
        ("network, decoding, fusion", network_s),
        ("metrics: every batch", plain.updates_s),
        ("metrics: in the end", plain.end_s),
        ("besides: losses", loss_s),
        ("besides: errors recorded", recorded.updates_s - plain.updates_s),
        ("besides: page of errors", recorded.page_s),
    ):
        table.add_row(name, f"{seconds:.2f}", f"{100 * seconds / total:.1f}")
    Console().print(table)


class MetricsTime(NamedTuple):
    """Seconds of all batches, of the figures in the end, and of the page of errors; 0 without one."""

    updates_s: float
    end_s: float
    page_s: float


def metrics_time(
    taxonomy: Taxonomy, batches: Sequence[tuple[Batch, Predictions]], images: int, record: bool
) -> MetricsTime:
    """Return the times of a validation's metrics, of batches that are repeated until there are so many images."""
    metrics = EvaluationMetrics(taxonomy, boxes=True, pixels=True)
    if record:
        metrics.record_errors(score=0.3, pictures=6)
    start = time.process_time()
    for number in track(range(-(-images // len(batches[0][0]))), "metrics", transient=True):
        batch, predictions = batches[number % len(batches)]
        metrics.update(predictions, batch)
    metrics.wait()
    middle = time.process_time()
    figures = {name: float(value) for name, value in metrics.compute().items()}
    end = time.process_time()
    if metrics.errors is not None and (analysis := metrics.errors.compute()) is not None:
        with TemporaryDirectory() as folder:
            write_errors_page(Path(folder), "benchmark", analysis, figures)
    return MetricsTime(middle - start, end - middle, time.process_time() - end)


@torch.inference_mode()
def network_time(task: OCRNetTask, batch: Batch, rounds: int) -> tuple[float, float]:
    """Return the median seconds per image, from images to fused predictions, and of the losses."""
    network, loss = task.network, task.validation_loss
    assert loss is not None
    times = []
    for _ in range(rounds + 1):
        start = time.process_time()
        output = network(batch.images)
        network.postprocessed(output, batch.placements)
        middle = time.process_time()
        loss.update(batch, output)
        times.append((middle - start, time.process_time() - middle))
    first, second = (sorted(each)[rounds // 2] / len(batch) for each in zip(*times[1:], strict=True))
    return first, second


if __name__ == "__main__":
    main()
