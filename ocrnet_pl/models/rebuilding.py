"""A network from a file: built from the records of its parts, then given its weights and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from ocrnet_pl.errors import CheckpointError, one_line
from ocrnet_pl.models.base import PostProcess
from ocrnet_pl.storage.checkpoints import misfit
from ocrnet_pl.storage.plain_values import plain_values
from ocrnet_pl.storage.saved_network import SavedNetwork
from ocrnet_pl.storage.size_limit import bounded_by
from ocrnet_pl.storage.trusted_classes import build_parts, rebuilt
from ocrnet_pl.structures import CALIBRATION_KEY, FUSION_KEY, Taxonomy

N = TypeVar("N", bound=nn.Module)


def rebuild(
    make: Callable[..., N],
    saved: SavedNetwork,
    kinds: Mapping[str, Any],
    given: Mapping[str, Any],
    trust: str | Sequence[str],
    where: str,
) -> N:
    """Build a network from what a file says of it.

    Args:
        make: Builds the network from the taxonomy, the parts by name, and ``input_size``.
        saved: The entries of the file.
        kinds: The types of the parts, by name.
        given: Parts that are used instead of the file's.
        trust: Packages that are trusted besides the project's own.
        where: Name of the file for error messages.

    Returns:
        The network in evaluation mode, with its weights.

    Raises:
        CheckpointError: A part is missing, not trusted or cannot be built, or the weights are of another network.
        TypeError: A given part is none of a network's.
    """
    foreign = [name for name in given if name not in kinds]
    if foreign:
        raise TypeError(f"a network has no part {foreign[0]!r}, only {', '.join(kinds)}")
    wanted = {name: kind for name, kind in kinds.items() if name not in given}
    with bounded_by(saved.weights):
        parts = build_parts(saved.parts, wanted, trust, f"{where}: {saved.key}", saved.unrecorded)
        network = rebuilt(lambda: make(saved.taxonomy, **parts, **given, input_size=saved.input_size), where)
    states = (network.state_dict(), saved.weights)
    fits, found = ({name: value.shape for name, value in state.items()} for state in states)
    if fits != found:
        raise CheckpointError(misfit(where, fits, found, saved.content))
    if saved.dtype is not None:
        give_types(network, saved.dtype, saved.weights, where)
    network.load_state_dict(saved.weights)
    if "postprocess" not in given:
        load_calibrated(network, saved.content, where)
    return network.eval()


def give_types(network: nn.Module, kind: torch.dtype, weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Give a network, and each weight, the type of numbers that it was saved with; their memory format does not change.

    Args:
        network: The network, changed in place.
        kind: The type of what is not among the weights.
        weights: The saved weights by name.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: Whole numbers stand for others, or the reverse.
    """
    if kind != torch.float32:
        network.to(kind)
    for name, own in network.state_dict(keep_vars=True).items():
        saved = weights.get(name, own)
        if own.is_floating_point() != saved.is_floating_point() or own.is_complex() != saved.is_complex():
            raise CheckpointError(f"{where}: {name}: expected {own.dtype}, got {saved.dtype}")
        if own.is_floating_point() and own.dtype != saved.dtype:
            own.data = own.data.to(saved.dtype)


def load_calibrated(network: nn.Module, content: Mapping[str, Any], where: str) -> None:
    """Give a network what ``calibrate`` wrote into a file: settings of fusion, and what is known of the scores.

    Args:
        network: The network.
        content: The entries of the file, which may lack both.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: They are not what ``calibrate`` writes.
    """
    if content.get(FUSION_KEY):
        load_fusion_settings(network, content[FUSION_KEY], where)
    if content.get(CALIBRATION_KEY):
        load_calibration(network, content[CALIBRATION_KEY], where)


def load_fusion_settings(network: nn.Module, settings: Any, where: str) -> None:
    """Apply calibrated fusion settings from a file to a network.

    Args:
        network: The network that was built from the file.
        settings: The settings as stored in the file.
        where: Name of the file for error messages.

    Raises:
        CheckpointError: They are not settings of this fusion.
    """
    _load(_postprocess(network).load_settings, network, settings, f"{where}: {FUSION_KEY}")


def load_calibration(network: nn.Module, calibration: Any, where: str) -> None:
    """Give a network what is known of its scores; the arguments are those of :func:`load_fusion_settings`.

    Raises:
        CheckpointError: It is not what ``calibrate`` writes.
    """
    _load(_postprocess(network).load_calibration, network, calibration, f"{where}: {CALIBRATION_KEY}")


def _postprocess(network: nn.Module) -> PostProcess:
    postprocess = network.postprocess
    assert isinstance(postprocess, PostProcess)
    return postprocess


def _load(load: Callable[[Any, Taxonomy], None], network: nn.Module, values: Any, where: str) -> None:
    given, taxonomy = plain_values(values, where), network.taxonomy
    assert isinstance(taxonomy, Taxonomy)
    try:
        load(given, taxonomy)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{where}: these are not valid settings: {one_line(error)[:300]}") from error
