"""The first config for a data set: its sources, a preset, and sizes from the data's statistics."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jsonargparse import ArgumentParser

from ocrnet_pl.cli.bundled_configs import bundled_folder
from ocrnet_pl.cli.short_names import import_rooms
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.doctor.result import Recipe
from ocrnet_pl.errors import DataError

_LOOKED_AT = 200
_LEAST_OBJECT = 16.0
"""Sides of the small objects in the network's input, in pixels: two cells of its finest grid."""
_SMALLEST, _LARGEST = 256, 1024
_USUAL = 512
_STEPS = 6000
_FEW_IMAGES = 300
_ASPECT = 1.3
_FULL = 50
"""Number of boxes of an image from which the network's usual limit of 100 is near."""


Sources = Mapping[str, tuple[str, Mapping[str, Any]]]
"""The class and the options of the source of each split."""


class Statistics(NamedTuple):
    """What the config depends on.

    Attributes:
        images: Number of images.
        size: Median (height, width).
        same_shape: Whether all images have about the same shape.
        object_side: Side of the small objects in pixels, the first quartile; None without boxes.
        most_boxes: Largest number of boxes of an image.
    """

    images: int
    size: tuple[int, int]
    same_shape: bool
    object_side: float | None
    most_boxes: int


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


def measure(source: Source) -> Statistics:
    """Return the statistics of a source, from at most 200 images at equal distances.

    Raises:
        DataError: None of them can be read.
    """
    chosen = np.unique(np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).astype(int)).tolist()
    sizes: list[tuple[int, int]] = []
    sides: list[float] = []
    most = 0
    broken: DataError | None = None
    for index in chosen:
        try:
            size = source.image_size(index)
            boxes = source.image_boxes(index)
        except DataError as error:  # the check that follows names every one
            broken = error
            continue
        sizes.append(size)
        sides += np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)).tolist()
        most = max(most, len(boxes))
    if broken is not None and not sizes:
        raise broken
    shapes = np.array(sizes, dtype=np.float64)
    ratios = shapes[:, 1] / shapes[:, 0]
    height, width = np.median(shapes, axis=0).astype(int).tolist()
    side = float(np.percentile(sides, 25)) if sides else None
    return Statistics(len(source), (height, width), bool(np.ptp(ratios) < 0.1), side, most)


def input_size(statistics: Statistics) -> tuple[int | list[int], str]:
    """Return `data.size`, and why.

    The images' own size is the largest that shows anything new; below it, small objects decide.
    """
    height, width = statistics.size
    longest = max(height, width)
    wanted: float = min(_USUAL, longest)
    why = "the images' own size" if longest <= _USUAL else "enough for the objects"
    if statistics.object_side is not None:
        needed = longest * _LEAST_OBJECT / max(statistics.object_side, 1e-3)
        if needed > wanted and longest > wanted:
            wanted = min(needed, longest, _LARGEST)
            why = f"a quarter of the objects has sides below {statistics.object_side:.0f} pixels"
    # The smallest multiple of the coarsest grid, in which the images' own pixels fit.
    side = max(_SMALLEST, 32 * math.ceil(wanted / 32))
    if statistics.same_shape and max(height, width) / min(height, width) >= _ASPECT:
        scale = side / longest
        return [max(64, 32 * math.ceil(part * scale / 32 - 1e-6)) for part in (height, width)], why
    return side, why


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
    size, reason = input_size(statistics)
    model = yaml.safe_load((bundled_folder() / "presets" / f"{preset}.yaml").read_text(encoding="utf-8"))["model"]
    for part, has in (("detection", detects), ("segmentation", segments)):
        if not has:
            model[part] = None
    if statistics.most_boxes > _FULL:
        # Twice as many as there are here, in hundreds.
        decode = {"max_detections": 100 * math.ceil(statistics.most_boxes / 50)}
        given = {"decode": {"class_path": "Decode", "init_args": decode}}
        model["postprocess"] = {"class_path": "FusionPostProcess", "init_args": given}
    model["optimizer"] = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001, "weight_decay": 0.05}}
    model["encoder_lr"] = 0.2
    longest = max(size) if isinstance(size, list) else size
    batch = 16 if longest <= _USUAL else 8 if longest <= 768 else 4
    batch = max(1, min(batch, statistics.images // 2 or 1))
    steps = max(1, statistics.images // batch)
    epochs = int(min(300, max(20, math.ceil(_STEPS / steps))))
    scheduler = {"class_path": "WarmupCosine", "init_args": {"warmup_steps": min(500, steps * epochs // 10)}}
    content: dict[str, Any] = {
        "name": name,
        "seed_everything": 0,
        "model": model | {"scheduler": scheduler},
        "data": {
            "root": str(root),
            **{split: {"class_path": kind, "init_args": dict(args)} for split, (kind, args) in sources.items()},
            "size": size,
            "batch_size": batch,
            "num_workers": 4,
        },
        "trainer": {
            "max_epochs": epochs,
            "check_val_every_n_epoch": max(1, epochs // 30),
            "gradient_clip_val": 10.0,
        },
    }
    height, width = statistics.size
    head = [
        *notes,
        f"{statistics.images} images to train on, {width} x {height} in the median.",
        f"model: configs/presets/{preset}.yaml, because {why}.",
        f"data.size: {reason}.",
    ]
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump(content, sort_keys=False, width=110)
