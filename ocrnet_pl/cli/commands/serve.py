"""``serve``: answer requests for predictions over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the checkpoint, the boxes, and the server."""
    from ocrnet_pl.cli.box_options import add_box_options
    from ocrnet_pl.serving.serving import Serving

    parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to serve; required.")
    add_box_options(parser)
    parser.add_class_arguments(Serving, "serving")


def serve(run: Run) -> int:
    """Serve a checkpoint until the process is interrupted or terminated.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        UsageError: What serves is not installed, or there is no such operating point, class or device.
        ValueError: An option is out of range.
        OSError: The port is taken.
    """
    import sys

    from ocrnet_pl.cli.served import served_network
    from ocrnet_pl.cli.unbuilt_parts import made
    from ocrnet_pl.errors import UsageError
    from ocrnet_pl.serving.serving import Serving

    try:
        from ocrnet_pl.serving.server import make_server, run_server
    except ModuleNotFoundError as error:
        raise UsageError(f"serve: {error.name} is not installed; run: pip install 'ocrnet-pl[serve]'") from error
    config = run.config
    serving = made(Serving, config["serving"])
    loaded = served_network(config).load()
    sys.stderr.writelines(f"{line}\n" for line in loaded.notes)
    trainer = config["trainer"]
    try:
        server = make_server(loaded, serving, trainer["accelerator"], trainer["devices"])
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
    options=(("--serving.port N", "of serve: where it listens; also --serving.host, .max_upload_mb, .max_batch, ..."),),
)
