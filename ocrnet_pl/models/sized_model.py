"""timm models that return feature maps, built for any input size where the model allows it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ocrnet_pl.errors import one_line
from ocrnet_pl.models.plain_transformer import LEVELS

Size = tuple[int, int]

_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "strict_img_size": False},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)
"""What frees models from one input size, in the order of trial: each model knows some of these options, or none."""

_TRIAL: Size = (128, 192)
"""Size of the images that show whether a model takes any size: not square, and whole at every usual stride."""

_LARGEST_TRIAL = 384
"""Side of the largest images that a model is tried at: more would take seconds."""

_MOST_PIXELS = 4096 * 4096
"""Area of the largest images that a model is built for, which it has to be tried at: a forged size would not fit."""

_OFF_GRID = 4
"""Cells by which a map may differ from the size of the image divided by its stride: convolutions without padding."""

_READ = 4
"""Number of blocks of a plain transformer that are read, at even distances."""

_REFUSALS = (TypeError, ValueError, RuntimeError, AssertionError, IndexError)
"""What models raise for a size that they cannot have, or their weights cannot be resampled to."""

_FEW_STRIDES = 3
"""A model whose maps have fewer strides than this is a plain transformer or like one."""


class SizedModel(NamedTuple):
    """A timm model with what it takes and returns.

    Attributes:
        model: The model, which returns a list of maps.
        channels: Number of channels of each map, finest first.
        strides: Stride of each map, a power of two; maps whose grid is another one have to be resampled.
        plain: Whether it has too few strides for a pyramid, and is to get one.
        scale: Factor of the images' sides, as numerator and denominator, that gives the maps exactly these strides: 7/8
            for patches of 14 pixels.
        size: (height, width) of the only images that it takes; None if it takes any.
        padded: (height, width) of the padded images to be scaled to ``size``; None if it takes any.
    """

    model: nn.Module
    channels: list[int]
    strides: list[int]
    plain: bool
    scale: tuple[int, int] = (1, 1)
    size: Size | None = None
    padded: Size | None = None


def channels_first(model: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """Return the maps of a model as [B, C, H, W]; some models have the channels last."""
    last = str(getattr(model, "output_fmt", "NCHW")).rpartition(".")[2] == "NHWC"
    return [each.permute(0, 3, 1, 2) for each in maps] if last else maps


def sized_model(name: str, options: dict[str, Any], input_size: Size | None) -> SizedModel:
    """Build a model that takes any input size, else one for ``input_size``, else one for the size that it comes with.

    Args:
        name: Name of a timm model.
        options: Options of the model and its weights.
        input_size: (height, width) of the images before they are padded; None for the model's own size.

    Raises:
        TypeError: The model does not know one of the options.
        ValueError: It returns no feature maps.
    """
    model, freed = _freed(name, options)
    deep = int(options.get("in_chans", 3))
    config: Any = model.pretrained_cfg
    own: Size = tuple(config["input_size"][-2:])  # type: ignore[assignment]
    strides, scale = _strides(model)
    # Dilated stages have one stride as well, but are meant to.
    plain = len(set(strides)) < _FEW_STRIDES and "output_stride" not in options
    multiple = max(LEVELS if plain else strides)
    trials = [_TRIAL]
    if not freed and config.get("fixed_input_size", False) and max(own) <= _LARGEST_TRIAL:
        # Many that say so take any size, others any smaller one.
        trials.append(_round_up((own[0] + 64, own[1] + 128), multiple))
    try:
        for size in trials:
            channels = _try(model, name, deep, _scaled(size, scale), [(size[0] // s, size[1] // s) for s in strides])
        return SizedModel(model, channels, strides, plain, scale)
    except _NoMapsError:
        pass
    if input_size is not None and input_size[0] * input_size[1] <= _MOST_PIXELS:
        padded = _round_up(input_size, multiple)
        seen = _scaled(padded, scale)
        try:
            fitted = _create(name, options | {"img_size": seen})
            return SizedModel(fitted, _try(fitted, name, deep, seen), strides, plain, scale, seen, padded)
        except _REFUSALS:
            pass
    if freed:
        model = _create(name, options)
    channels = _try(model, name, deep, own)
    return SizedModel(model, channels, strides, plain, size=own, padded=_round_up(own, multiple))


class _NoMapsError(ValueError):
    """A model that does not return maps for images of a size."""


def _freed(name: str, options: dict[str, Any]) -> tuple[nn.Module, bool]:
    """Return the model with the first options that it knows, and whether they free it from one size."""
    for freeing in _ANY_SIZE[:-1]:
        try:
            return _create(name, options | freeing), True
        except TypeError:
            continue
    return _create(name, options), False


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    import timm
    from timm.models._features import FeatureGetterNet

    with _quiet("timm.models._builder"):
        model: Any = timm.create_model(name, features_only=True, **options)
    if isinstance(model, FeatureGetterNet):
        depth = max(model.out_indices) + 1  # type: ignore[arg-type]
        if depth >= _READ and len(set(model.feature_info.reduction(list(range(depth))))) == 1:
            # timm would read the last blocks alone.
            read = [depth * quarter // _READ - 1 for quarter in range(1, _READ + 1)]
            model.out_indices = read  # type: ignore[assignment]
            model.feature_info = model.feature_info.from_other(tuple(read))
    return model  # type: ignore[no-any-return]


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Suppress a logger's warnings: timm lists the tensors of the head, which a feature extractor does not use."""
    target = logging.getLogger(logger)
    level = target.level
    target.setLevel(logging.ERROR)
    try:
        yield
    finally:
        target.setLevel(level)


def _strides(model: nn.Module) -> tuple[list[int], tuple[int, int]]:
    """Return the powers of two nearest to the strides of a model's maps, and the scale of images that reaches them."""
    info: Any = model.feature_info
    reductions = [int(reduction) for reduction in info.reduction()]
    strides = [2 ** round(math.log2(reduction)) for reduction in reductions]
    ratios = {Fraction(own, near) for own, near in zip(reductions, strides, strict=True)}
    scale = ratios.pop() if len(ratios) == 1 else Fraction(1)
    return strides, (scale.numerator, scale.denominator)


def _scaled(size: Size, scale: tuple[int, int]) -> Size:
    return size[0] * scale[0] // scale[1], size[1] * scale[0] // scale[1]


def _round_up(size: Size, multiple: int) -> Size:
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


@torch.no_grad()
def _try(model: nn.Module, name: str, channels: int, size: Size, grids: Sequence[Size] = ()) -> list[int]:
    """Return the channels of the maps that a model makes of an image.

    Args:
        model: The model.
        name: Its name, for the error message.
        channels: Number of channels of the image.
        size: (height, width) of the image.
        grids: About what (height, width) the maps must have; empty for any.

    Raises:
        _NoMapsError: It makes none, or none of these sizes.
    """
    training = model.training
    image = torch.zeros(1, channels, *size)
    try:
        maps = channels_first(model.eval(), model(image))
    except Exception as error:  # models check their input in many ways
        reason = one_line(error)
        raise _NoMapsError(f"{name!r} returns no feature maps of an image of {size[0]}x{size[1]}: {reason}") from error
    model.train(training)
    info: Any = model.feature_info
    if len(maps) != len(info.channels()) or any(each.ndim != 4 for each in maps):
        shapes = [list(each.shape[1:]) for each in maps]
        raise _NoMapsError(f"{name!r} returns no feature maps but tensors of the shapes {shapes}")
    for each, grid in zip(maps, grids, strict=bool(grids)):
        if max(abs(each.shape[-2] - grid[0]), abs(each.shape[-1] - grid[1])) > _OFF_GRID:
            raise _NoMapsError(f"{name!r} returns maps of {list(each.shape[-2:])} where {list(grid)} are expected")
    return [each.shape[1] for each in maps]
