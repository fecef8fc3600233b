"""What a network's file tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocrnet_pl.export.whole import fusion_rules, score_thresholds
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.runtime.description import Description
from ocrnet_pl.version import __version__


def describe(network: OCRNet, raw: bool, precision: Mapping[str, Any] | None = None) -> Description:
    """Return the description of a network's file.

    Args:
        network: The network.
        raw: Whether the file holds the network alone.
        precision: With how many bits it computes, and what that costs; None for float32.
    """
    detects, segments = network.detection is not None, network.segmentation is not None
    thresholds = {}
    if detects and not raw:
        names = [category.name for category in network.taxonomy.detection_categories]
        thresholds = dict(zip(names, (round(float(each), 6) for each in score_thresholds(network)), strict=True))
    return Description(
        __version__,
        raw,
        network.in_channels,
        network.input_size,
        detects,
        segments,
        network.taxonomy,
        thresholds,
        fusion_rules(network).settings.to_dict() if detects and segments and not raw else {},
        network.postprocess.dump_calibration(),
        dict(precision or {}),
    )
