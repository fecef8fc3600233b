"""A whole calibration: choose a checkpoint's fusion settings on validation data and write them into a new one."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ocrnet_pl.calibration.raw_results import collect
from ocrnet_pl.calibration.search import SCORES, Calibration, Calibrator, Report
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.drawing.progress import Progress
from ocrnet_pl.errors import DataError
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.metrics.figures import BY_NAME
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.storage.checkpoints import read_checkpoint
from ocrnet_pl.storage.files import complete_file, write_json
from ocrnet_pl.structures import FUSION_KEY

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
    """Choose the fusion settings, write a checkpoint that contains them and a JSON report, and print a table.

    Args:
        checkpoint: Path of the checkpoint of a joint network.
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
        ValueError: The checkpoint is not one of a joint network of this project.
    """
    from rich.console import Console

    target = output or checkpoint.with_name(f"{checkpoint.stem}-calibrated.ckpt")
    if target.is_dir():
        raise ValueError(f"output {str(target)!r}: it is a folder; name a file")
    network = OCRNet.from_checkpoint(checkpoint, trust=trust)
    fusion = network.postprocess
    if network.detection is None or network.segmentation is None:
        raise ValueError(f"ckpt_path {str(checkpoint)!r}: the network has one task only, so there is nothing to fuse")
    if not isinstance(fusion, FusionPostProcess):
        raise ValueError(f"ckpt_path {str(checkpoint)!r}: {type(fusion).__name__} has no settings to calibrate")
    if data.taxonomy != network.taxonomy:
        raise DataError(f"data.val: its categories are not those of {str(checkpoint)!r}; give the config of training")
    loader = data.validation_sample(options.images)
    network.to(device)
    assert isinstance(loader.sampler, Sized)
    with Progress() as progress:
        looked = progress.add("predicting", len(loader.sampler))
        items = []
        for item in collect(network, fusion.decode, loader, options.images):
            items.append(item)
            looked.advance()
        looked.finish()
        if len(items) < 2:
            raise DataError(f"data.val: {len(items)} image(s) are too few to calibrate on; at least 2 are needed")
        calibrator = Calibrator(items, network.taxonomy, fusion.settings, fusion.heuristic, options)
        calibrator.progress = progress.add("searching", calibrator.steps).advance
        report = calibrator.run()
    content = read_checkpoint(checkpoint)
    content[FUSION_KEY] = report.settings.to_dict()
    with complete_file(target, durable=True) as temporary:
        torch.save(content, temporary)
    write_json(target.with_suffix(".json"), report.to_dict())
    for group, count in zip(report.figures, report.images, strict=False):
        Console().print(_table(report, group, count))
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
