"""A training that starts from the weights of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.data.sources.wrappers.mixture import unite
from ocrnet_pl.errors import CheckpointError, DataError, UsageError
from ocrnet_pl.models.class_map import ClassMap, Names, keeping
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.rebuilding import load_fusion_settings
from ocrnet_pl.models.transfer import transfer
from ocrnet_pl.models.transfer_report import TransferReport
from ocrnet_pl.storage.initial_weights import InitialWeights, read_initial_weights
from ocrnet_pl.structures import Taxonomy
from ocrnet_pl.training.origin import Origin
from ocrnet_pl.training.task import OCRNetTask


def init_from(task: OCRNetTask, path: str | Path | InitialWeights, names: Names | None = None) -> TransferReport:
    """Let a task start from the weights of a file instead of its own; optimiser, schedule and epochs are new.

    The rows of the heads move by the classes' names: a class keeps its row under the same name, whatever its place. All
    else is taken by name and shape. Call it before ``Trainer.fit``.

    Args:
        task: The task, whose network is changed in place.
        path: Path of a checkpoint, of a bare state dict or of a safetensors file, or what was read from one.
        names: The new name of classes of the file, or several; a class with several old ones starts from their mean.

    Returns:
        What was taken, moved, left out and what is new; its text is a table for a log.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or nothing in it fits.
        UsageError: A name is unknown, or the file names no classes.
    """
    given = path if isinstance(path, InitialWeights) else read_initial_weights(path)
    relation = None
    if given.taxonomy is not None:
        relation = ClassMap.make(given.taxonomy, task.taxonomy, names)
    elif names:
        raise UsageError(f"init_map: {given.where} names no classes")
    report = transfer(task.network, given.weights, relation, given.where)
    fusion = None if relation is None else _kept_fusion(task.network, given, relation, report)
    task.origin = Origin({"file": given.path, **report.to_dict()}, fusion)
    return report


def _kept_fusion(
    network: OCRNet, given: InitialWeights, relation: ClassMap, report: TransferReport
) -> dict[str, Any] | None:
    if given.fusion is None:
        return None
    try:
        moved = network.postprocess.moved_settings(given.fusion, relation.parents)
        load_fusion_settings(network, moved, given.where)
    except (CheckpointError, ValueError, TypeError, AttributeError) as error:
        report.notes.append(f"the calibrated settings of the fusion do not fit and were left out: {error}")
        return None
    new = [name for name, parents in relation.parents.items() if not parents]
    report.notes.append(
        "the calibrated settings of the fusion are kept until calibrate is run again"
        + (f"; the new classes ({', '.join(new[:12])}) have the defaults" if new else "")
    )
    return dict(moved)


def keep_classes(data: JointDataModule, path: str | Path | InitialWeights, names: Names | None = None) -> Taxonomy:
    """Add to a data module's categories the classes of a file, which its images are not labelled for.

    What the images show of those classes is unknown: they are neither targets nor background and count in no metric.
    Build the task with the categories that this returns, then call :func:`init_from`.

    Args:
        data: The data module, whose sources are changed.
        path: Path of a checkpoint, or what was read from one.
        names: The new names of classes of the file, as in :func:`init_from`; a class that goes elsewhere is not kept.

    Returns:
        The categories of the data and the kept ones, which are now ``data.taxonomy``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged.
        UsageError: A name is unknown, the file names no classes, or there are too many together.
    """
    given = path if isinstance(path, InitialWeights) else read_initial_weights(path)
    try:
        union = unite({"data": data.taxonomy, "kept": kept_classes(given, names)})
    except DataError as error:
        raise UsageError(f"init_keep: the classes of the data and those of {given.where} together: {error}") from error
    data.widen(union)
    return union


def kept_classes(given: InitialWeights, names: Names | None = None) -> Taxonomy:
    """Return the classes of a file that keep their own names.

    Args:
        given: What was read from the file.
        names: The new names of classes of the file, as in :func:`init_from`.

    Raises:
        UsageError: A name is unknown, or the file names no classes.
    """
    if given.taxonomy is None:
        raise UsageError(f"init_keep: {given.where} names no classes that could be kept")
    return keeping(given.taxonomy, names)
