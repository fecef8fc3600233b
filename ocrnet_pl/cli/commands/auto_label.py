"""``auto-label``: label a folder of images with what a network is certain of, to train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrnet_pl.cli.command import NetworkCommand, NetworkRun
from ocrnet_pl.cli.exit_codes import EXIT_SKIPPED

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the checkpoint, the folder of the labels, and what is certain."""
    from ocrnet_pl.callbacks.pseudo_labels import Certainty

    parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to label with; required.")
    parser.add_argument(
        "--output", type=Path | None, default=None, help="New folder for the labels; null for runs/NAME/pseudo."
    )
    parser.add_class_arguments(Certainty, "certainty")


def auto_label(run: NetworkRun) -> int:
    """Label the images of ``data.predict_path``, and write a config that trains on them and on the labelled data.

    Raises:
        DataError: There is nothing to label, no labelled data to train with, or nothing that is certain.
        ValueError: The folder exists, or the network detects nothing.
    """
    import shutil
    import sys
    import warnings

    import yaml
    from lightning.pytorch.callbacks import ProgressBar

    from ocrnet_pl.callbacks.pseudo_labels import PseudoLabelWriter
    from ocrnet_pl.callbacks.same_checkpoint import SameCheckpoint
    from ocrnet_pl.errors import DataError
    from ocrnet_pl.storage.files import complete_file

    config, trainer, task = run.config, run.trainer, run.task
    images = run.data.images_to_predict()
    if run.written["data"]["train"] is None:
        raise DataError("data.train: there is no labelled data to train with; give its config with --config")
    output = config["output"] or Path(config["trainer"]["default_root_dir"], config["name"], "pseudo")
    if output.exists():
        raise ValueError(f"output {str(output)!r}: it exists; give another --output, or remove it")
    if task.network.detection is None:
        raise ValueError("model.detection is null: a network without boxes does not say how certain its pixels are")
    certainty = run.objects["certainty"]
    # The names are checked before the work.
    certainty.of_boxes(task.taxonomy), certainty.of_pixels(task.taxonomy)
    writer = PseudoLabelWriter(output, certainty)
    # The others write into a run's folder, which this command has none of.
    kept = [each for each in trainer.callbacks if isinstance(each, ProgressBar | SameCheckpoint)]  # type: ignore[attr-defined]
    trainer.callbacks[:] = [*kept, writer]  # type: ignore[attr-defined]
    trainer.loggers = []
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")
    trainer.predict(task, datamodule=run.data, ckpt_path=config["ckpt_path"], return_predictions=False)
    if trainer.is_global_zero:
        total, empty, certain, doubtful = writer.counts
        if empty == total:
            shutil.rmtree(output)
            raise DataError(
                f"{images}: the network is certain of nothing in {total} images; train it longer, or lower "
                "certainty.score or certainty.pixel"
            )
        folder = Path(images) if Path(images).is_dir() else Path(images).parent
        mixture = {"labelled": _plain(run.written["data"]["train"]), "pseudo": _source(folder, output, task.taxonomy)}
        overlay = {"data": {"train": {"class_path": "Mixture", "init_args": {"sources": mixture}}}}
        with complete_file(output / "train.yaml") as unfinished:
            unfinished.write_text(yaml.safe_dump(overlay, sort_keys=False, allow_unicode=True), encoding="utf-8")
        print(f"{total - empty} of {total} images labelled: {certain} objects, {doubtful} doubtful ones ignored")
        print(f"Train on both with a further --config {output / 'train.yaml'}")
    for path, reason in run.data.skipped:
        sys.stderr.write(f"skipped: {path}: {reason}\n")
    return EXIT_SKIPPED if run.data.skipped else 0


def _source(images: Path, labels: Path, taxonomy: Any) -> dict[str, Any]:
    """Return the source of the labels, for a config; its paths are absolute, whatever ``data.root`` is."""
    names = {number: category.name for number, category in enumerate(taxonomy.semantic_categories)}
    options: dict[str, Any] = {
        "images": str(images.resolve()),
        "annotations": str((labels / "instances.json").resolve()),
        "root": str(labels.resolve()),
    }
    pixels = {"semantic_masks": "semantic", "semantic_names": names} if names else {"semantic": False}
    return {"class_path": "CocoInstances", "init_args": options | pixels}


def _plain(config: Any) -> Any:
    """Return a part of a config as lists, dicts and single values."""
    from jsonargparse import Namespace

    if isinstance(config, Namespace | dict):
        values = config if isinstance(config, dict) else vars(config)
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(config, list | tuple):
        return [_plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


COMMAND = NetworkCommand(
    name="auto-label",
    help="label a folder of images with what a network is certain of, to train on",
    run=auto_label,
    arguments=add_arguments,
    needs_checkpoint=True,
    uses_of_model=("postprocess", "tile", "multiscale", "compile_backend", "compile_mode", "matmul_precision"),
    options=(("--output DIR", "of auto-label: where the labels go; also --certainty.score N and .pixel N"),),
)
