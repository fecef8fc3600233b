"""The images that ``export`` compares, measures and calibrates on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocrnet_pl.cli.source_recipes import source_recipe
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.distributed.first_process import say
from ocrnet_pl.errors import DataError
from ocrnet_pl.export.files import CheckImage
from ocrnet_pl.imaging.folders import find_images
from ocrnet_pl.imaging.geometry import Size, letterbox_image
from ocrnet_pl.imaging.images import read_image
from ocrnet_pl.structures import Sample


def check_images(config: Any, channels: int) -> list[CheckImage]:
    """Return the images of the check, spread evenly over those that there are."""
    most = config["check_images"]
    if config["images"] is not None:
        paths, skipped = find_images(config["images"])
        for path, reason in skipped:
            say(f"skipped: {path}: {reason}")
        return [CheckImage(read_image(paths[place], channels=channels)) for place in _spread(len(paths), most)]
    source = _source(config, "val", "to compare the file with the network on; give --images FOLDER")
    samples = (source[place] for place in _spread(len(source), most))
    return [CheckImage(sample.image.as_subclass(Tensor), sample) for sample in samples]


class Samples:
    """Images of a source, each read when it is needed."""

    def __init__(self, source: Source, places: Sequence[int]) -> None:
        self._source, self._places = source, places

    def __iter__(self) -> Iterator[Sample]:
        return (self._source[place] for place in self._places)


def measured_samples(config: Any) -> Samples:
    """Return the validation images, or as many of them as are measured on, spread evenly."""
    source = _source(config, "val", "to measure mAP, mIoU and PQ on, without which precision has to be fp32")
    most = config["measured_images"]
    return Samples(source, _spread(len(source), len(source) if most is None else most))


def calibration_images(config: Any, size: Size) -> list[NDArray[np.uint8]]:
    """Return training images, letterboxed to the size and not augmented, in a random order that the seed determines."""
    source = _source(config, "train", "to calibrate int8 on; give the config of the training, --config FILE")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(config["calibration_seed"]))
    chosen = order[: config["calibration_images"]].tolist()
    return [letterbox_image(source[place].image.as_subclass(Tensor), size)[0].numpy() for place in chosen]


def _spread(count: int, most: int) -> list[int]:
    most = min(count, most)
    return [place * count // most for place in range(most)]


def _source(config: Any, split: str, purpose: str) -> Source:
    if config["data"][split] is None:
        raise DataError(f"data.{split}: there are no images {purpose}")
    return source_recipe(split, config["data"][split]).make()
