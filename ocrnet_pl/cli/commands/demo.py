"""``demo``: a page on this machine to try a network on images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, ForExported, Run

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from lightning.pytorch.cli import LightningArgumentParser

    from ocrnet_pl.serving.served import Served


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the checkpoints, the boxes, and the page."""
    from ocrnet_pl.cli.box_options import add_box_options

    parser.add_argument(
        "--ckpt_path",
        type=str | None,
        default=None,
        help="Checkpoint to try, or a file that export wrote, .onnx or .xml; required.",
    )
    add_box_options(parser)
    _add_page_options(parser)


def add_exported_arguments(parser: ArgumentParser) -> None:
    """Add the options for exported files and the page."""
    from ocrnet_pl.cli.served import add_file_options

    add_file_options(parser, "try")
    _add_page_options(parser)


def _add_page_options(parser: ArgumentParser) -> None:
    from jsonargparse.typing import PositiveFloat, PositiveInt

    parser.add_argument(
        "--compare",
        type=str | None,
        default=None,
        help="Second checkpoint or exported file, shown beside the first; null for none.",
    )
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

    from ocrnet_pl.cli.served import served_network
    from ocrnet_pl.errors import UsageError
    from ocrnet_pl.inference.operating_points import NO_POINT
    from ocrnet_pl.serving.served_file import ServedFile
    from ocrnet_pl.storage.exported_files import is_exported

    config = run.config
    how = served_network(config)
    shown: dict[str, Served] = {how.ckpt_path: how}
    if (other := config["compare"]) is not None:
        if is_exported(other) and how.operating_point != NO_POINT:
            raise UsageError("operating_point: an exported file has none; leave it out to compare with one")
        shown[other] = (
            ServedFile(other, how.classes) if is_exported(other) else dataclasses.replace(how, ckpt_path=other)
        )
    return _show(shown, config)


def demo_exported(config: Namespace) -> int:
    """Show the page for exported files until the process is interrupted.

    Raises:
        ModelFileError: A file cannot be used.
        UsageError: Gradio is not installed, there is no such class, or the second is a checkpoint.
        OSError: The port is taken.
    """
    import dataclasses

    from ocrnet_pl.cli.served import served_file
    from ocrnet_pl.errors import UsageError
    from ocrnet_pl.storage.exported_files import is_exported

    how, other = served_file(config), config["compare"]
    shown: dict[str, Served] = {how.path: how}
    if other is not None:
        if not is_exported(other):
            raise UsageError(f"compare: to compare with a checkpoint, give --ckpt_path {other} --compare {how.path}")
        shown[other] = dataclasses.replace(how, path=other)
    return _show(shown, config)


def _show(shown: dict[str, Served], config: Namespace) -> int:
    import sys

    from ocrnet_pl.cli.served import refuse_taken_port
    from ocrnet_pl.errors import UsageError

    try:
        from ocrnet_pl.serving.page import make_page, show_page
    except ModuleNotFoundError as error:
        raise UsageError(f"demo: {error.name} is not installed; run: pip install 'ocrnet-pl[demo]'") from error
    refuse_taken_port("port", "127.0.0.1", config["port"])
    networks = {name: how.load() for name, how in shown.items()}
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
    uses_of_model=("postprocess", "tile", "multiscale"),
    exported=ForExported(add_exported_arguments, demo_exported),
    options=(
        ("--compare FILE", "of demo: a second checkpoint or exported file, shown beside the first; also --port N"),
    ),
)
