"""``demo``: a page on this machine to try a network on images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the checkpoints, the boxes, and the page."""
    from jsonargparse.typing import PositiveFloat, PositiveInt

    from ocrnet_pl.cli.box_options import add_box_options

    parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to try; required.")
    parser.add_argument(
        "--compare", type=str | None, default=None, help="Second checkpoint, shown beside the first; null for none."
    )
    add_box_options(parser)
    parser.add_argument("--port", type=PositiveInt, default=7860, help="Port on which this machine finds the page.")
    parser.add_argument(
        "--max_megapixels",
        type=PositiveFloat,
        default=50.0,
        help="Largest size of an image in millions of pixels, above which it is refused before it is decoded.",
    )


def demo(run: Run) -> int:
    """Show the page until the process is interrupted.

    Raises:
        CheckpointError: A checkpoint cannot be used.
        UsageError: Gradio is not installed, or there is no such operating point or class.
        OSError: The port is taken.
    """
    import dataclasses
    import sys

    from ocrnet_pl.cli.served import served_network
    from ocrnet_pl.errors import UsageError

    try:
        from ocrnet_pl.serving.page import make_page, show_page
    except ModuleNotFoundError as error:
        raise UsageError(f"demo: {error.name} is not installed; run: pip install 'ocrnet-pl[demo]'") from error
    config = run.config
    how = served_network(config)
    networks = {how.ckpt_path: how.load()}
    if config["compare"] is not None:
        networks[config["compare"]] = dataclasses.replace(how, ckpt_path=config["compare"]).load()
    for loaded in networks.values():
        sys.stderr.writelines(f"{line}\n" for line in loaded.notes)
    page = make_page(networks, round(config["max_megapixels"] * 1e6))
    print(f"open http://127.0.0.1:{config['port']}; Ctrl-C stops it", flush=True)
    show_page(page, config["port"])
    return 0


COMMAND = Command(
    name="demo",
    help="show a page on this machine to try a network on images",
    run=demo,
    arguments=add_arguments,
    needs_checkpoint=True,
    options=(("--compare FILE", "of demo: a second checkpoint, shown beside the first; also --port N"),),
)
