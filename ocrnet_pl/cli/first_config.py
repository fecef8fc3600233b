"""The first config for a data set: its sources, a preset, and sizes from the data's statistics."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from ocrnet_pl.cli.bundled_configs import bundled_folder
from ocrnet_pl.cli.data_choices import (
    Statistics,
    batch_size,
    epochs,
    input_size,
    levels,
    scales,
    validations,
)
from ocrnet_pl.cli.short_names import import_rooms
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.doctor.result import Recipe
from ocrnet_pl.errors import DataError

_FEW_IMAGES = 300
_FULL = 50
"""Number of boxes of an image from which the network's usual limit of 100 is near."""


Sources = Mapping[str, tuple[str, Mapping[str, Any]]]
"""The class and the options of the source of each split."""


def opened(kind: str, options: Mapping[str, Any], root: Path) -> Source:
    """Return a source.

    Args:
        kind: Name of its class.
        options: Its options.
        root: Folder that its paths start from.

    Raises:
        DataError: The data is wrong.
    """
    import_rooms()
    parser = ArgumentParser()
    parser.add_argument("--source", type=Source)
    given = dict(options)
    if "source" in given:
        inner = given["source"]
        given["source"] = {**inner, "init_args": {**inner["init_args"], "root": str(root)}}
    else:
        given["root"] = str(root)
    config = parser.parse_object({"source": {"class_path": kind, "init_args": given}})
    source: Source = parser.instantiate_classes(config).source
    return source


def recipe(kind: str, options: Mapping[str, Any], root: Path) -> Recipe:
    """Return how to make a source; arguments as of :func:`opened`."""

    def make(**changes: Any) -> Source:
        return opened(kind, {**options, **changes}, root)

    own = {} if "source" in options else {"root": str(root)}
    return Recipe(make, _class_of(kind), {**options, **own})


def with_all_classes(sources: Sources, root: Path) -> Sources:
    """Return sources with the classes of all splits, where the classes are an option: each would find only its own.

    Raises:
        DataError: The data is wrong.
    """
    inner = {split: _inner(kind, options) for split, (kind, options) in sources.items()}
    first_kind, _ = inner["train"]
    if "classes" not in inspect.signature(_class_of(first_kind)).parameters:
        return sources
    names: dict[str, None] = {}
    for split, (kind, options) in inner.items():
        if split == "val" and sources["val"][0] == "Split":
            continue
        given = options.get("classes")
        found = (
            given
            if given is not None
            else [category.name for category in opened(kind, options, root).taxonomy.detection_categories]
        )
        names |= dict.fromkeys(found)
    if not names:
        return sources
    filled: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for split, (kind, options) in sources.items():
        if "source" in options:
            own = options["source"]
            args = {**own["init_args"], "classes": list(names)}
            filled[split] = (kind, {**options, "source": {**own, "init_args": args}})
        else:
            filled[split] = (kind, {**options, "classes": list(names)})
    return filled


def _inner(kind: str, options: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return (options["source"]["class_path"], options["source"]["init_args"]) if "source" in options else (kind, options)


def _class_of(kind: str) -> type[Source]:
    import_rooms()
    pending: list[type[Source]] = list(Source.__subclasses__())
    while pending:
        own = pending.pop()
        if own.__name__ == kind:
            return own
        pending += own.__subclasses__()
    raise DataError(f"there is no source {kind!r}")


def preset_of(statistics: Statistics, accelerated: bool) -> tuple[str, str]:
    """Return the name of a preset, and why."""
    if not accelerated:
        return "nano", "there is no GPU"
    if statistics.images < _FEW_IMAGES:
        return "small", f"there are only {statistics.images} images"
    return "medium", f"there are {statistics.images} images, and a GPU"


def write_config(
    name: str,
    root: Path,
    sources: Sources,
    statistics: Statistics,
    *,
    detects: bool,
    segments: bool,
    accelerated: bool,
    notes: tuple[str, ...],
) -> str:
    """Return the text of a config.

    Args:
        name: Name of the experiment.
        root: Folder of the data.
        sources: Class and options of the source of each split.
        statistics: Statistics of the training set.
        detects: Whether there are classes of objects.
        segments: Whether there are classes of pixels.
        accelerated: Whether a GPU is there.
        notes: Lines for its head.
    """
    preset, why = preset_of(statistics, accelerated)
    _, size, reason = input_size(statistics)
    pair = (size, size) if isinstance(size, int) else (size[0], size[1])
    model = yaml.safe_load((bundled_folder() / "presets" / f"{preset}.yaml").read_text(encoding="utf-8"))["model"]
    for part, has in (("detection", detects), ("segmentation", segments)):
        if not has:
            model[part] = None
    chosen = [*(levels(statistics, pair) if detects else []), *scales(statistics, pair)]
    for key, value, _ in chosen:
        section, _, option = key.rpartition(".")
        if section == "model.detection.init_args":
            model["detection"]["init_args"][option] = value
    if statistics.most_boxes > _FULL:
        # Twice as many as there are here, in hundreds.
        decode = {"max_detections": 100 * math.ceil(statistics.most_boxes / 50)}
        given = {"decode": {"class_path": "Decode", "init_args": decode}}
        model["postprocess"] = {"class_path": "FusionPostProcess", "init_args": given}
    batch = batch_size(statistics, pair, accelerated).value
    steps = max(1, statistics.images // batch)
    length = epochs(statistics, batch).value
    scheduler = {"class_path": "WarmupCosine", "init_args": {"warmup_steps": min(500, steps * length // 10)}}
    content: dict[str, Any] = {
        "name": name,
        "seed_everything": 0,
        "model": model | {"scheduler": scheduler},
        "data": {
            "root": str(root),
            **{split: {"class_path": kind, "init_args": dict(args)} for split, (kind, args) in sources.items()},
            "size": size,
            **{key.removeprefix("data."): value for key, value, _ in chosen if key.startswith("data.")},
            "batch_size": batch,
            "num_workers": min(4, os.cpu_count() or 1),
        },
        "trainer": {
            "max_epochs": length,
            "check_val_every_n_epoch": validations(length).value,
            "gradient_clip_val": 10.0,
        },
    }
    height, width = statistics.size
    head = [
        *notes,
        f"{statistics.images} images to train on, {width} x {height} in the median.",
        f"model: configs/presets/{preset}.yaml, because {why}.",
        f"data.size: {reason}.",
        *(f"{key.replace('init_args.', '')}: {why}." for key, _, why in chosen),
    ]
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump(content, sort_keys=False, width=110)
