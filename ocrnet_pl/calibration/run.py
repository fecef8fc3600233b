"""A whole calibration: what validation data says of a checkpoint's fusion and scores, written into a new one."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ocrnet_pl.calibration.box_outcomes import HIT_IOU, BoxOutcomes
from ocrnet_pl.calibration.points_table import points_table, points_to_dict
from ocrnet_pl.calibration.raw_results import collect
from ocrnet_pl.calibration.search import SCORES, Calibration, Calibrator, Report
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.drawing.progress import Progress
from ocrnet_pl.errors import DataError
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.metrics.figures import BY_NAME
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.storage.files import complete_file, write_json
from ocrnet_pl.structures import CALIBRATION_KEY, FUSION_KEY, Prediction

if TYPE_CHECKING:
    from rich.table import Table


def run_calibration(
    checkpoint: Path,
    output: Path | None,
    data: JointDataModule,
    options: Calibration,
    device: torch.device,
    trust: Sequence[str] = (),
) -> Report:
    """Choose the fusion settings and operating points, write a checkpoint that contains them and a report, and print.

    Args:
        checkpoint: Path of the checkpoint; without a segmentation decoder there is no fusion to choose settings for.
        output: Path of the new checkpoint; None for ``NAME-calibrated.ckpt`` next to the old one. The report has the
            same name with ``.json``.
        data: The data module with the validation images.
        options: How to choose the settings.
        device: The device on which the network runs.
        trust: Packages whose classes the checkpoint may name.

    Returns:
        The settings and the figures.

    Raises:
        DataError: The validation set does not fit the network, or has too few images.
        FileNotFoundError: There is no such checkpoint.
        ValueError: The checkpoint is not one of this project, or its network detects nothing.
    """
    from rich.console import Console

    target = output or checkpoint.with_name(f"{checkpoint.stem}-calibrated.ckpt")
    if target.is_dir():
        raise ValueError(f"output {str(target)!r}: it is a folder; name a file")
    network = OCRNet.from_checkpoint(checkpoint, trust=trust)
    fusion = network.postprocess
    if network.detection is None:
        raise ValueError(
            f"ckpt_path {str(checkpoint)!r}: the network has no boxes, so there are no scores and nothing to fuse"
        )
    if not isinstance(fusion, FusionPostProcess):
        raise ValueError(f"ckpt_path {str(checkpoint)!r}: {type(fusion).__name__} has no settings to calibrate")
    if data.taxonomy != network.taxonomy:
        raise DataError(f"data.val: its categories are not those of {str(checkpoint)!r}; give the config of training")
    loader = data.validation_sample(options.images)
    network.to(device)
    if options.agnostic_iou is not None:
        fusion.settings = replace(fusion.settings, agnostic_iou=options.agnostic_iou)
    assert isinstance(loader.sampler, Sized)
    with Progress() as progress:
        looked = progress.add("predicting", len(loader.sampler))
        items = []
        for item in collect(network, fusion, loader, options.images):
            items.append(item)
            looked.advance()
        looked.finish()
        if len(items) < 2:
            raise DataError(f"data.val: {len(items)} image(s) are too few to calibrate on; at least 2 are needed")
        if network.segmentation is None:
            found = [Prediction(*item.detections) for item in items]
            report = Report(fusion.settings, (len(items), 0), {}, {"raw": found})
        else:
            calibrator = Calibrator(items, network.taxonomy, fusion.settings, fusion.heuristic, options)
            calibrator.progress = progress.add("searching", calibrator.steps).advance
            report = calibrator.run()
    truths = [item.truth for item in items]
    scores = ScoreCalibration(
        len(items),
        HIT_IOU,
        {
            way: BoxOutcomes.of(found, truths, network.taxonomy).curves(network.taxonomy)
            for way, found in report.predictions.items()
        },
    )
    content = read_checkpoint(checkpoint)
    content[FUSION_KEY], content[CALIBRATION_KEY] = report.settings.to_dict(), scores.to_dict()
    with complete_file(target, durable=True) as temporary:
        torch.save(content, temporary)
    write_json(target.with_suffix(".json"), report.to_dict() | {"operating_points": points_to_dict(scores)})
    for group, count in zip(report.figures, report.images, strict=False):
        Console().print(_table(report, group, count))
    Console().print(points_table(scores))
    for text, names in (("boxes", report.settings.raw_boxes), ("pixels", report.settings.raw_pixels)):
        if names:
            print(f"Not changed, because fusion made them worse: the {text} of {', '.join(names)}")
    print(f"Calibrated checkpoint: {target}")
    return report


def _table(report: Report, group: str, count: int) -> Table:
    from rich.table import Table

    ways = report.figures[group]
    # The merge by rule does not change boxes and pixels, so theirs are the raw ones.
    table = Table("", "raw, merged by rule", *list(ways)[1:], title=f"Fusion, {group}: {count} images")
    for key in SCORES:
        table.add_row(BY_NAME[key].short, *(f"{figures[key]:.4f}" for figures in ways.values()))
    for column in table.columns[1:]:
        column.justify = "right"
    return table
