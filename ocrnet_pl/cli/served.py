"""The network of ``serve`` and ``demo``, from their options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrnet_pl.cli.classes_option import add_classes_option, chosen_classes

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from ocrnet_pl.serving.served_file import ServedFile
    from ocrnet_pl.serving.served_network import ServedNetwork

_LAST_PORT = 65535


def add_file_options(parser: ArgumentParser, purpose: str) -> None:
    """Add the options that say which exported file predicts, and how.

    Args:
        parser: The parser.
        purpose: What is done with the file, such as "serve".
    """
    from jsonargparse.typing import NonNegativeInt

    parser.add_argument("--ckpt_path", type=str, help=f"Exported file to {purpose}, .onnx or .xml; required.")
    add_classes_option(parser)
    parser.add_argument(
        "--threads",
        type=NonNegativeInt,
        default=0,
        help="Number of threads that a prediction uses; 0 for one on each core.",
    )


def refuse_taken_port(option: str, host: str, port: int) -> None:
    """Raise an error if nobody can listen on a port, before anything is loaded.

    Args:
        option: The option that sets the port.
        host: Address to listen on.
        port: The port.

    Raises:
        UsageError: Another program listens there, or the port or the address may not be used.
    """
    import socket

    from ocrnet_pl.errors import UsageError

    if port > _LAST_PORT:
        raise UsageError(f"--{option} {port}: ports end at {_LAST_PORT}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            # As servers do: what a server before has left behind does not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"--{option} {port}: nobody can listen there ({reason}); give another --{option}") from error


def served_file(config: Namespace) -> ServedFile:
    """Return how an exported file predicts.

    Args:
        config: The options of :func:`add_file_options`.

    Raises:
        UsageError: The list of classes is empty.
    """
    from ocrnet_pl.serving.served_file import ServedFile

    return ServedFile(config["ckpt_path"], chosen_classes(config), config["threads"])


def served_network(config: Namespace) -> ServedNetwork:
    """Return how a subcommand's network is loaded and predicts.

    Args:
        config: The config of the subcommand, with the options of :func:`~ocrnet_pl.cli.box_options.add_box_options`.

    Raises:
        UsageError: The operating point is none, the list of classes is empty, or there are two ways of prediction at
            once.
        ValueError: An option is out of range.
    """
    from ocrnet_pl.cli.box_options import chosen_boxes
    from ocrnet_pl.cli.unbuilt_parts import made, named_part
    from ocrnet_pl.errors import UsageError
    from ocrnet_pl.inference.multiscale import MultiScale
    from ocrnet_pl.inference.tiled_inference import Tiling
    from ocrnet_pl.models.base import PostProcess
    from ocrnet_pl.models.predict_options import ONE_WAY
    from ocrnet_pl.serving.served_network import ServedNetwork

    choice, model = chosen_boxes(config), config["model"]
    if model["tile"] is not None and model["multiscale"] is not None:
        raise UsageError(f"model: {ONE_WAY}")
    return ServedNetwork(
        config["ckpt_path"],
        tuple(config["trust"]),
        named_part(PostProcess, model["postprocess"]),
        made(Tiling, model["tile"]),
        made(MultiScale, model["multiscale"]),
        choice.operating_point,
        tuple(choice.classes),
    )
