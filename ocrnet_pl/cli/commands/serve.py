"""``serve``: answer requests for predictions over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, ForExported, Run

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from lightning.pytorch.cli import LightningArgumentParser

    from ocrnet_pl.serving.served import Served


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the checkpoint, the boxes, and the server."""
    from ocrnet_pl.cli.box_options import add_box_options
    from ocrnet_pl.serving.serving import Serving

    parser.add_argument(
        "--ckpt_path",
        type=str | None,
        default=None,
        help="Checkpoint to serve, or a file that export wrote, .onnx or .xml; required.",
    )
    add_box_options(parser)
    parser.add_class_arguments(Serving, "serving")


def add_exported_arguments(parser: ArgumentParser) -> None:
    """Add the options for an exported file and the server."""
    from ocrnet_pl.cli.served import add_file_options
    from ocrnet_pl.serving.serving import Serving

    add_file_options(parser, "serve")
    parser.add_class_arguments(Serving, "serving")


def serve(run: Run) -> int:
    """Serve a checkpoint until the process is interrupted or terminated.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        UsageError: What serves is not installed, or there is no such operating point, class or device.
        ValueError: An option is out of range.
        OSError: The port is taken.
    """
    from ocrnet_pl.cli.served import served_network

    trainer = run.config["trainer"]
    return _serve(served_network(run.config), run.config, trainer["accelerator"], trainer["devices"])


def serve_exported(config: Namespace) -> int:
    """Serve an exported file until the process is interrupted or terminated.

    Raises:
        ModelFileError: The file cannot be used.
        UsageError: What serves is not installed, or there is no such class.
        ValueError: An option is out of range.
        OSError: The port is taken.
    """
    from ocrnet_pl.cli.served import served_file

    return _serve(served_file(config), config, "cpu", 1)


def _serve(served: Served, config: Namespace, accelerator: str, devices: int | list[int] | str) -> int:
    import sys

    from ocrnet_pl.cli.served import refuse_taken_port
    from ocrnet_pl.cli.unbuilt_parts import made
    from ocrnet_pl.errors import UsageError
    from ocrnet_pl.serving.serving import Serving

    try:
        from ocrnet_pl.serving.server import make_server, run_server
    except ModuleNotFoundError as error:
        raise UsageError(f"serve: {error.name} is not installed; run: pip install 'ocrnet-pl[serve]'") from error
    serving = made(Serving, config["serving"])
    refuse_taken_port("serving.port", serving.host, serving.port)
    loaded = served.load()
    sys.stderr.writelines(f"{line}\n" for line in loaded.notes)
    try:
        server = make_server(loaded, serving, accelerator, devices)
    except ValueError as error:
        raise UsageError(f"trainer.accelerator, trainer.devices: {error}") from error
    del loaded
    print(f"listening on http://{serving.host}:{serving.port}/predict; Ctrl-C stops it", flush=True)
    run_server(server, serving)
    return 0


COMMAND = Command(
    name="serve",
    help="answer requests for predictions over HTTP",
    run=serve,
    arguments=add_arguments,
    needs_checkpoint=True,
    uses_of_model=("postprocess", "tile", "multiscale"),
    exported=ForExported(add_exported_arguments, serve_exported),
    options=(("--serving.port N", "of serve: where it listens; also --serving.host, .max_upload_mb, .max_batch, ..."),),
)
