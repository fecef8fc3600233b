"""The network of ``serve`` and ``demo``, from their options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrnet_pl.cli.box_options import chosen_boxes

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from ocrnet_pl.serving.served_network import ServedNetwork


def served_network(config: Namespace) -> ServedNetwork:
    """Return how a subcommand's network is loaded and predicts.

    Args:
        config: The config of the subcommand, with the options of :func:`~ocrnet_pl.cli.box_options.add_box_options`.

    Raises:
        UsageError: The operating point is none, or there are two ways of prediction at once.
        ValueError: An option is out of range.
    """
    from ocrnet_pl.cli.unbuilt_parts import made
    from ocrnet_pl.errors import UsageError
    from ocrnet_pl.inference.multiscale import MultiScale
    from ocrnet_pl.inference.tiled_inference import Tiling
    from ocrnet_pl.models.ocrnet import ONE_WAY
    from ocrnet_pl.serving.served_network import ServedNetwork

    choice, model = chosen_boxes(config), config["model"]
    if model["tile"] is not None and model["multiscale"] is not None:
        raise UsageError(f"model: {ONE_WAY}")
    return ServedNetwork(
        config["ckpt_path"],
        tuple(config["trust"]),
        made(Tiling, model["tile"]),
        made(MultiScale, model["multiscale"]),
        choice.operating_point,
        tuple(choice.classes),
    )
