"""The option ``--format`` of ``predict``: annotation formats by short names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace

from ocrnet_pl.labelling.base import AnnotationFormat
from ocrnet_pl.labelling.coco import Coco
from ocrnet_pl.labelling.cvat import Cvat
from ocrnet_pl.labelling.label_studio import LabelStudio
from ocrnet_pl.labelling.labelme import Labelme
from ocrnet_pl.labelling.table import BoxTable
from ocrnet_pl.labelling.yolo import Yolo

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

FormatName = Literal["label_studio", "cvat", "labelme", "coco", "yolo", "csv"]

_FORMATS: dict[str, type[AnnotationFormat]] = {
    each.folder: each for each in (LabelStudio, Cvat, Labelme, Coco, Yolo, BoxTable)
}


def add_format_option(parser: LightningArgumentParser) -> None:
    """Add the option to the parser of ``predict``."""
    parser.add_argument(
        "--format",
        type=FormatName,
        nargs="+",
        default=None,
        help="Formats of labelling tools that predictions are written in as well, with default options; further ones, "
        "and options, are set with annotations.formats.",
    )


def add_formats(config: Namespace) -> None:
    """Move the named formats to ``annotations.formats``.

    Args:
        config: The config of ``predict``.
    """
    given = config["annotations"]["formats"] or []
    for name in dict.fromkeys(config.pop("format", None) or ()):
        kind = _FORMATS[name]
        given = [*given, Namespace(class_path=f"{kind.__module__}.{kind.__qualname__}", init_args=Namespace())]
    config["annotations"]["formats"] = given or None
