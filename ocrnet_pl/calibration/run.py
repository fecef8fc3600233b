"""A whole calibration: what validation data says of a checkpoint's fusion and scores, written into a new one."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ocrnet_pl.calibration.box_outcomes import outcomes_of
from ocrnet_pl.calibration.pixel_sample import PixelSample
from ocrnet_pl.calibration.points_table import errors_table, points_table, points_to_dict
from ocrnet_pl.calibration.probability_fit import fit_temperature
from ocrnet_pl.calibration.raw_results import Collected, collect
from ocrnet_pl.calibration.score_fit import ScoreReport, fit_scores
from ocrnet_pl.calibration.score_options import ScoreOptions
from ocrnet_pl.calibration.search import SCORES, Calibration, Calibrator, Report
from ocrnet_pl.calibration.shares import Shares
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.drawing.figures_table import figures_table
from ocrnet_pl.drawing.progress import Progress
from ocrnet_pl.drawing.reliability import plot_reliability
from ocrnet_pl.errors import DataError
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.multiscale import MultiScale
from ocrnet_pl.inference.score_calibration import ScoreCalibration
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.metrics.figures import BY_NAME
from ocrnet_pl.metrics.reliability import Reliability
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.storage.checkpoints import read_checkpoint, write_checkpoint
from ocrnet_pl.storage.files import require_writable, same_file, write_json
from ocrnet_pl.structures import CALIBRATION_KEY, FUSION_KEY, Sample

if TYPE_CHECKING:
    from rich.table import Table

PIXELS = "pixels"
"""The title of the pixels beside the classes of boxes."""


def run_calibration(
    checkpoint: Path,
    output: Path | None,
    data: JointDataModule,
    options: Calibration,
    device: torch.device,
    trust: Sequence[str] = (),
    score_options: ScoreOptions | None = None,
    passes: MultiScale | Tiling | None = None,
) -> Report:
    """Find the fusion settings and what is known of the scores, write both into a new checkpoint, and print.

    Args:
        checkpoint: Path of the checkpoint; without a segmentation decoder there is no fusion to choose settings for.
        output: Path of the new checkpoint; None for ``NAME-calibrated.ckpt`` next to the old one. The report has the
            same name with ``.json``, and a picture of the probabilities ``.png``.
        data: The data module with the validation images.
        options: How to choose the settings.
        device: The device on which the network runs.
        trust: Packages whose classes the checkpoint may name.
        score_options: What to find of the scores; None for the operating points alone.
        passes: How the images are predicted at several scales or in tiles, as they will be later; None for one pass.

    Returns:
        The settings and the figures.

    Raises:
        DataError: The validation set does not fit the network, has too few images, or no labelled object.
        FileNotFoundError: There is no such checkpoint.
        OSError: The output cannot be written.
        ValueError: The checkpoint is not one of this project, its network detects nothing, or the output is the
            checkpoint itself or has the name of a report.
    """
    target = output or checkpoint.with_name(f"{checkpoint.stem}-calibrated.ckpt")
    if target.is_dir():
        raise ValueError(f"output {str(target)!r}: it is a folder; name a file")
    if target.suffix in (".json", ".png"):
        raise ValueError(f"output {str(target)!r}: a report gets this name; name a checkpoint, such as NAME.ckpt")
    if same_file(target, checkpoint):
        raise ValueError(f"output {str(target)!r}: it is the checkpoint that is calibrated; name another file")
    require_writable(target.parent)
    score_options = score_options or ScoreOptions()
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
        for item in collect(network, fusion, loader, options.images, passes):
            items.append(item)
            looked.advance()
        looked.finish()
        bound = score_options.miss_rate is not None
        ids = [item.truth.image_id for item in items]
        shares = Shares.of(ids, options.seed, options.holdout, bound)
        if len(shares.settings) < 2:
            raise DataError(
                f"data.val: {len(items)} image(s) are too few to calibrate on; at least {4 if bound else 2} are needed"
            )
        if not any(_has_object(item.truth) for item in items):
            # Every figure of boxes would be undefined, and every score as good as any other.
            raise DataError(
                f"data.val: none of its {len(items)} images that were looked at has a labelled object; give images "
                "with labelled objects, or let more be looked at with --calibration.images"
            )
        pixels = None
        if score_options.probabilities and network.segmentation is not None:
            # Before the search, so that the settings are those for the probabilities that fusion will see.
            pixels = _cooled(fusion, items, shares, options.seed)
        if network.segmentation is None:
            report = Report(fusion.settings, (len(items), 0), {})
        else:
            some = [items[row] for row in shares.settings]
            calibrator = Calibrator(some, network.taxonomy, fusion.settings, fusion.heuristic, options)
            calibrator.progress = progress.add("searching", calibrator.steps).advance
            report = calibrator.run()
            fusion.settings = report.settings
    outcomes = outcomes_of(network.taxonomy, fusion, items)
    scores, score_report = fit_scores(outcomes, shares, score_options, network.taxonomy)
    scores = replace(scores, passes=fusion.passes_text(passes))
    if pixels is not None:
        score_report.reliability[PIXELS] = pixels
    content = read_checkpoint(checkpoint)
    content[FUSION_KEY], content[CALIBRATION_KEY] = report.settings.to_dict(), scores.to_dict()
    write_checkpoint(content, target)
    written = report.to_dict() | {"operating_points": points_to_dict(scores)}
    if score_options.probabilities:
        written["probabilities"] = score_report.to_dict()
        if score_report.reliability:
            plot_reliability(score_report.reliability, target.with_suffix(".png"), score_report.images)
    write_json(target.with_suffix(".json"), written)
    _show(report, scores, score_report)
    if passes is not None:
        print(f"Calibrated for predictions in {passes}")
    print(f"Calibrated checkpoint: {target}")
    return report


def _has_object(truth: Sample) -> bool:
    """Return whether an image has an object, and not only a crowd, of a class that it is labelled for."""
    return bool((truth.supervision.detection[truth.labels] & ~truth.crowd).any())


def _cooled(
    fusion: FusionPostProcess, items: Sequence[Collected], shares: Shares, seed: int
) -> tuple[Reliability, Reliability] | None:
    """Choose the temperature of the pixels, and return how reliable they are before and after; None without labels."""
    chosen, judging = (PixelSample.of((items[row] for row in rows), seed) for rows in (shares.chosen, shares.judging))
    if chosen is None:
        return None
    fusion.settings = replace(fusion.settings, temperature=fit_temperature(*chosen))
    judging = judging or chosen
    return judging.reliability(1.0), judging.reliability(fusion.settings.temperature)


def _show(report: Report, scores: ScoreCalibration, score_report: ScoreReport) -> None:
    """Print what was found."""
    from rich.console import Console

    for group, count in zip(report.figures, report.images, strict=False):
        Console().print(_table(report, group, count))
    Console().print(points_table(scores))
    if score_report.reliability:
        Console().print(errors_table(score_report))
    if (line := score_report.unmapped_line()) is not None:
        print(line)
    if scores.bounds:
        print(
            f"Bound: at most {scores.miss_rate:.1%} of the objects of a class missed, with a confidence of "
            f"{scores.confidence:.0%}"
        )
        for name, threshold in scores.bounds["fused" if "fused" in scores.bounds else "raw"].items():
            print(f"  {name}: {threshold.refusal or f'from the score {threshold.score:.3f}'}")
    for text, names in (("boxes", report.settings.raw_boxes), ("pixels", report.settings.raw_pixels)):
        if names:
            print(f"Not changed, because fusion made them worse: the {text} of {', '.join(names)}")


def _table(report: Report, group: str, count: int) -> Table:
    ways = report.figures[group]
    # The merge by rule does not change boxes and pixels, so theirs are the raw ones.
    header = ("", "raw, merged by rule", *list(ways)[1:])
    rows = [(BY_NAME[key].short, *(f"{figures[key]:.4f}" for figures in ways.values())) for key in SCORES]
    return figures_table(header, rows, f"Fusion, {group}: {count} images")
