"""OCRNet-PL: joint object detection and semantic segmentation with PyTorch Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocrnet_pl.version import __version__

if TYPE_CHECKING:
    from ocrnet_pl.inference.multiscale import MultiScale
    from ocrnet_pl.inference.tiled_inference import Tiling
    from ocrnet_pl.models.ocrnet import OCRNet

__all__ = ["MultiScale", "OCRNet", "Tiling", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the classes on first use, so that ``import ocrnet_pl`` alone is cheap."""
    if name == "OCRNet":
        from ocrnet_pl.models.ocrnet import OCRNet

        return OCRNet
    if name == "MultiScale":
        from ocrnet_pl.inference.multiscale import MultiScale

        return MultiScale
    if name == "Tiling":
        from ocrnet_pl.inference.tiled_inference import Tiling

        return Tiling
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
