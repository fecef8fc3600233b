"""How ``check`` and ``pack`` use a config's sources without building network and trainer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ocrnet_pl.cli.unbuilt_parts import named_part
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.doctor.result import Recipe
from ocrnet_pl.errors import DataError
from ocrnet_pl.imaging.geometry import Size
from ocrnet_pl.inference.fusion import FusionPostProcess
from ocrnet_pl.inference.tiled_inference import Tiling
from ocrnet_pl.models.base import PostProcess


def object_limit(model: Namespace, input_size: Size) -> Callable[[Size], int] | None:
    """Return a function from image size to the largest number of boxes of a config's network; None without a limit."""
    if model["detection"] is None:
        return None
    try:
        postprocess, tile = named_part(PostProcess, model["postprocess"]), named_part(Tiling, model["tile"])
    except ValueError as error:
        raise MisconfigurationException(f"model: {error}") from error
    limit = (postprocess or FusionPostProcess()).max_detections
    if limit is None:
        return None
    return lambda size: limit if tile is None else limit * tile.count(size, input_size)


def widest_box(model: Namespace) -> float | None:
    """Return the longest side that a config's network can give a box, in pixels of its input; None without a limit."""
    detection = model["detection"]
    arguments = detection and detection.get("init_args")
    if arguments and arguments.get("decoder"):
        arguments = arguments["decoder"].get("init_args")
    if not arguments or arguments.get("bins") is None or arguments.get("max_stride") is None:
        return None
    return float(2 * (arguments["bins"] - 1) * arguments["max_stride"])


def source_recipe(split: str, config: Namespace) -> Recipe:
    """Return how to make the source of a split from the checked part of the config that describes it."""
    parser = ArgumentParser()
    parser.add_argument("--source", type=Source)

    def make(**changes: Any) -> Source:
        own = Namespace(source=config.clone())
        own.source.init_args.update(Namespace(**changes))
        try:
            source: Source = parser.instantiate_classes(own).source
        except DataError:
            raise
        except ValueError as error:
            # An option out of range is not a fault of the data.
            raise MisconfigurationException(f"data.{split}: {error}") from error
        return source

    module, _, name = config.class_path.rpartition(".")
    return Recipe(make, getattr(sys.modules[module], name), config.init_args.as_dict())
