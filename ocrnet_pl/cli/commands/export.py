"""``export``: write a checkpoint as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

    from ocrnet_pl.export.files import CheckImage


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the checkpoint, the file, and the images of the check."""
    from jsonargparse.typing import PositiveInt

    parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to export; required.")
    parser.add_argument(
        "--format",
        type=Literal["onnx", "torch_export", "openvino"],
        default="onnx",
        help="Format of the file: onnx, openvino (a second file holds the weights), or torch_export for a program of "
        "torch.export, which holds the network alone.",
    )
    parser.add_argument(
        "--raw",
        type=bool,
        default=False,
        help="Whether the file holds the network alone, which takes images of its input size and returns boxes, scores "
        "and logits; false adds everything from the letterbox to fusion.",
    )
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="File to write; null for the checkpoint's name with .onnx, .xml or .pt2 next to it, after -raw if it "
        "holds the network alone.",
    )
    parser.add_argument(
        "--images",
        type=Path | None,
        default=None,
        help="Folder of images on which the file is compared with the network; null for data.val, on which their "
        "panoptic quality is compared as well.",
    )
    parser.add_argument(
        "--check_images", type=PositiveInt, default=32, help="Number of images on which the file is compared."
    )


def export(run: Run) -> int:
    """Write the file, compare it with the network, and print the differences.

    Raises:
        DataError: There is no image to compare on.
        RunError: The file does not give what the network gives.
        ValueError: A package is not installed, or a part of the network cannot be exported.
    """
    import importlib.util

    for package in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"export needs {package}, which is not installed; run: pip install 'ocrnet-pl[export]'")
    from rich.console import Console
    from rich.table import Table

    from ocrnet_pl.export.files import export_onnx, export_openvino, export_torch
    from ocrnet_pl.models.ocrnet import OCRNet

    config = run.config
    checkpoint = Path(config["ckpt_path"])
    program = config["format"] == "torch_export"
    if program and not config["raw"]:
        raise ValueError("format torch_export: it holds the network alone; add --raw true, or export to onnx")
    ending = ("-raw" if config["raw"] else "") + {"onnx": ".onnx", "openvino": ".xml", "torch_export": ".pt2"}[
        config["format"]
    ]
    output = config["output"] or checkpoint.with_name(f"{checkpoint.stem}{ending}")
    if output.is_dir():
        raise ValueError(f"output {str(output)!r}: it is a folder; name a file")
    network = OCRNet.from_checkpoint(checkpoint, trust=config["trust"])
    images = _images(config, network.in_channels)
    if program:
        difference = export_torch(network, output, images)
    else:
        write = export_openvino if config["format"] == "openvino" else export_onnx
        difference = write(network, output, images, config["raw"])
    table = Table("largest difference", "found", "allowed", title=f"{output.name} against torch, {len(images)} images")
    for line in difference.finish():
        table.add_row(*line)
    for column in table.columns[1:]:
        column.justify = "right"
    Console().print(table)
    print(f"Exported: {output} ({output.stat().st_size / 2**20:.1f} MiB)")
    return 0


def _images(config: Any, channels: int) -> list[CheckImage]:
    """Return the images of the check, spread evenly over those that there are."""
    from torch import Tensor

    from ocrnet_pl.cli.source_recipes import source_recipe
    from ocrnet_pl.errors import DataError
    from ocrnet_pl.export.files import CheckImage
    from ocrnet_pl.imaging.folders import find_images
    from ocrnet_pl.imaging.images import read_image

    def spread(count: int) -> list[int]:
        most = min(count, config["check_images"])
        return [place * count // most for place in range(most)]

    if config["images"] is not None:
        paths = find_images(config["images"]).paths
        return [CheckImage(read_image(paths[place], channels=channels)) for place in spread(len(paths))]
    if config["data"]["val"] is None:
        raise DataError("data.val: there are no images to compare the file with the network on; give --images FOLDER")
    source = source_recipe("val", config["data"]["val"]).make()
    samples = (source[place] for place in spread(len(source)))
    return [CheckImage(sample.image.as_subclass(Tensor), sample) for sample in samples]


COMMAND = Command(
    name="export",
    help="write a checkpoint as a file for other runtimes",
    run=export,
    arguments=add_arguments,
    needs_checkpoint=True,
    options=(
        ("--format NAME", "of export: onnx, openvino or torch_export; also --raw true, --output FILE and --images DIR"),
    ),
)
