"""What a run started from, kept in its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocrnet_pl.errors import CheckpointError
from ocrnet_pl.models.ocrnet import OCRNet
from ocrnet_pl.models.rebuilding import load_fusion_settings
from ocrnet_pl.storage.plain_values import plain_values
from ocrnet_pl.structures import FUSION_KEY

ORIGIN_KEY = "init_from"
"""Where a checkpoint holds what its run started from."""
KEPT_KEY = "kept_classes"
"""Where a checkpoint holds that its classes are more than those of the data that it was trained on."""


@dataclass
class Origin:
    """What a run started from, which its summary says and its checkpoints keep.

    Attributes:
        report: The file and what was taken, as plain values.
        fusion: Calibrated settings of the post-processing that were kept; None if there were none.
    """

    report: dict[str, Any]
    fusion: dict[str, Any] | None = None

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Add it to a checkpoint; what evaluates the checkpoint uses the kept settings."""
        checkpoint[ORIGIN_KEY] = {"report": self.report, "fusion": self.fusion}
        if self.fusion is not None:
            checkpoint[FUSION_KEY] = self.fusion

    @classmethod
    def restored(cls, checkpoint: Mapping[str, Any], network: OCRNet) -> Origin | None:
        """Return what the run of a checkpoint started from, and use the settings that it kept.

        Raises:
            CheckpointError: The checkpoint's entry is not what training writes.
        """
        if ORIGIN_KEY not in checkpoint:
            return None
        where = "the checkpoint"
        saved = plain_values(checkpoint[ORIGIN_KEY], f"{where}: {ORIGIN_KEY}")
        if not isinstance(saved, dict) or not isinstance(saved.get("report"), dict):
            raise CheckpointError(f"{where}: {ORIGIN_KEY}: not what training writes")
        origin = cls(saved["report"], saved.get("fusion"))
        if origin.fusion is not None:
            load_fusion_settings(network, origin.fusion, where)
        return origin
