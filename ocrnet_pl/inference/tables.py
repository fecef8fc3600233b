"""What fusion knows of each class, on the device on which it works."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ocrnet_pl.inference.settings import FusionSettings
from ocrnet_pl.structures import Taxonomy


class ClassTables(NamedTuple):
    """Tables of one taxonomy and one set of settings. To make them means copies that a device waits for.

    Attributes:
        semantic_of: int64 [num_detection], the segmentation class of each detection class, -1 if it has none.
        raw_boxes: bool [num_detection], whether the boxes of the class are not changed.
        raw_pixels: bool [num_semantic], whether the class neither gains nor loses pixels.
        taxonomy: The taxonomy.
        settings: The settings.
    """

    semantic_of: Tensor
    raw_boxes: Tensor
    raw_pixels: Tensor
    taxonomy: Taxonomy
    settings: FusionSettings

    @classmethod
    def of(cls, taxonomy: Taxonomy, settings: FusionSettings, device: torch.device) -> ClassTables:
        """Make the tables."""
        return cls(
            torch.tensor(taxonomy.detection_to_semantic, dtype=torch.int64).to(device),
            torch.tensor([c.name in settings.raw_boxes for c in taxonomy.detection_categories], dtype=torch.bool).to(
                device
            ),
            torch.tensor([c.name in settings.raw_pixels for c in taxonomy.semantic_categories], dtype=torch.bool).to(
                device
            ),
            taxonomy,
            settings,
        )

    def belong_to(self, taxonomy: Taxonomy, settings: FusionSettings, device: torch.device) -> bool:
        """Return whether these are the tables of a taxonomy and settings on a device."""
        return self.taxonomy is taxonomy and self.settings is settings and self.semantic_of.device == device
