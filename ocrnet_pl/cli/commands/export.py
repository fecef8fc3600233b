"""``export``: write a checkpoint as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser
    from rich.table import Table

    from ocrnet_pl.export.reduced import Reduced


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the checkpoint, the file, and the images of the check."""
    from jsonargparse.typing import ClosedUnitInterval, PositiveInt

    parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to export; required.")
    parser.add_argument(
        "--format",
        type=Literal["onnx", "torch_export", "openvino"],
        default="onnx",
        help="Format of the file: onnx, openvino (a second file holds the weights), or torch_export for a program of "
        "torch.export, which runs in torch without this package.",
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
        "holds the network alone and -fp16 or -int8.",
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
    parser.add_argument(
        "--precision",
        type=Literal["fp32", "fp16", "int8"],
        default="fp32",
        help="Number format of the network inside of the file: fp32; fp16 for half precision (of the weights alone in "
        "OpenVINO's); int8, calibrated on images of data.train. All but the network stays in float32.",
    )
    parser.add_argument(
        "--max_loss",
        type=ClosedUnitInterval,
        default=0.01,
        help="Largest loss of each of box mAP, mIoU and PQ on data.val, 0 to 1, with which a file in fp16 or int8 is "
        "written.",
    )
    parser.add_argument(
        "--max_trials",
        type=PositiveInt,
        default=16,
        help="Largest number of measurements on data.val while layers go back from int8 to float32.",
    )
    parser.add_argument(
        "--measured_images",
        type=PositiveInt | None,
        default=None,
        help="Number of images of data.val on which the loss of fp16 and int8 is measured; null for all.",
    )
    parser.add_argument(
        "--calibration_images",
        type=PositiveInt,
        default=128,
        help="Number of images of data.train on which int8 is calibrated, at least 2; on a quarter of them, at most 8, "
        "the cost of single layers is measured.",
    )
    parser.add_argument(
        "--calibration_seed", type=int, default=0, help="Seed of the choice of the images to calibrate on."
    )


def export(run: Run) -> int:
    """Write the file, compare it with the network, and print the differences.

    Raises:
        DataError: There is no image to compare on.
        OSError: The output cannot be written.
        RunError: The file does not give what the network gives, or fp16 or int8 costs too much.
        ValueError: A package is not installed, or a part of the network cannot be exported.
    """
    import importlib.util

    config = run.config
    program = config["format"] == "torch_export"
    for package in ("onnx",) if program else ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"export needs {package}, which is not installed; run: pip install 'ocrnet-pl[export]'")
    from rich.console import Console

    from ocrnet_pl.cli.export_images import calibration_images, check_images, measured_samples
    from ocrnet_pl.drawing.figures_table import figures_table
    from ocrnet_pl.export.files import export_onnx, export_openvino, export_torch, files_of, size_of
    from ocrnet_pl.models.ocrnet import OCRNet
    from ocrnet_pl.storage.files import require_writable

    checkpoint = Path(config["ckpt_path"])
    precision = config["precision"]
    if program and precision != "fp32":
        raise ValueError(f"format torch_export: it is written in fp32; for {precision}, export to onnx or openvino")
    ending = ("-raw" if config["raw"] else "") + ("" if precision == "fp32" else f"-{precision}")
    suffix = {"onnx": ".onnx", "openvino": ".xml", "torch_export": ".pt2"}[config["format"]]
    ending += suffix
    output = config["output"] or checkpoint.with_name(f"{checkpoint.stem}{ending}")
    if output.is_dir():
        raise ValueError(f"output {str(output)!r}: it is a folder; name a file")
    if output.suffix != suffix:
        # It would not be known again, and the checkpoint itself could be written over.
        raise ValueError(f"output {str(output)!r}: a file of the format {config['format']} ends in {suffix}")
    require_writable(output.parent)
    network = OCRNet.from_checkpoint(checkpoint, trust=config["trust"])
    images = check_images(config, network.in_channels)
    reduced: Reduced | None = None
    if precision != "fp32":
        from ocrnet_pl.export.reduced import export_half, export_int8

        samples = measured_samples(config)
        options: dict[str, Any] = {name: config[name] for name in ("raw", "max_loss")}
        options["openvino"] = config["format"] == "openvino"
        if precision == "fp16":
            reduced = export_half(network, output, images, samples, **options)
        else:
            calibration = calibration_images(config, network.input_size)
            options["max_trials"] = config["max_trials"]
            reduced = export_int8(network, output, images, samples, calibration, **options)
        difference = reduced.difference
    else:
        write = {"onnx": export_onnx, "openvino": export_openvino, "torch_export": export_torch}[config["format"]]
        difference = write(network, output, images, config["raw"])
    title = f"{output.name} against torch, {len(images)} images"
    Console().print(figures_table(("largest difference", "found", "allowed"), difference.finish(), title))
    if reduced is not None:
        Console().print(_shown(reduced, output, precision))
    if precision == "int8" and reduced is not None:
        kept = reduced.float_layers
        print(f"In float32 besides the last ones, {len(kept)} of {reduced.layers} layers: {', '.join(kept) or 'none'}")
    files = files_of(output)
    print(f"Exported: {' and '.join(map(str, files))} ({size_of(files) / 2**20:.1f} MiB)")
    return 0


def _shown(reduced: Reduced, output: Path, name: str) -> Table:
    """Return a table of what fewer bits cost."""
    from ocrnet_pl.drawing.figures_table import figures_table
    from ocrnet_pl.export.reduced import TITLES

    pairs = [(figure, before, reduced.after[figure]) for figure, before in reduced.before.items()]
    sizes, times = reduced.sizes, reduced.seconds
    rows = [
        *((TITLES[figure], f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}") for figure, old, new in pairs),
        ("size, MiB", *(f"{size / 2**20:.2f}" for size in sizes), f"x {sizes[1] / sizes[0]:.2f}"),
        ("ms per image, one thread", *(f"{each * 1e3:.1f}" for each in times), f"x {times[1] / times[0]:.2f}"),
    ]
    return figures_table(("", "float32", name, "change"), rows, f"{output.name}: what it costs")


COMMAND = Command(
    name="export",
    help="write a checkpoint as a file for other runtimes",
    run=export,
    arguments=add_arguments,
    needs_checkpoint=True,
    uses_of_model=(),
    options=(
        ("--format NAME", "of export: onnx, openvino or torch_export; also --raw true, --output FILE and --images DIR"),
        ("--precision NAME", "of export: fp32, fp16, or int8 with as many layers in float as --max_loss 0.01 needs"),
    ),
)
