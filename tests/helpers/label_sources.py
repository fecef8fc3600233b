"""Sources with hand-made labels for the tests of sources that change other sources."""

from __future__ import annotations

import numpy as np
import torch

from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Sample, Supervision, Taxonomy

STREET = Taxonomy.build(things=["car", "truck", "person"], stuff=["background", "road"])


class Scenes(Source):
    """Each image has, side by side, one 8 x 8 object of every thing, in order, and road below; no overlaps."""

    def __init__(self, taxonomy: Taxonomy = STREET, length: int = 5, broken: tuple[int, ...] = ()) -> None:
        self._taxonomy = taxonomy
        self.length = length
        self.broken = broken
        self.reads: list[int] = []

    @property
    def taxonomy(self) -> Taxonomy:
        return self._taxonomy

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        self.reads.append(index)
        if index in self.broken:
            raise DataError.at(f"{index}.png", "broken")
        semantic = np.zeros((40, 64), dtype=np.uint8)
        instances = np.zeros((40, 64), dtype=np.int32)
        semantic[32:] = 1 if self._taxonomy.num_semantic > 1 else 0
        boxes = []
        for row, category in enumerate(self._taxonomy.detection_categories):
            x = 4 + 14 * row
            boxes.append([x, 6, x + 8, 14])
            instances[6:14, x : x + 8] = row + 1
            if category.semantic is not None:
                semantic[6:14, x : x + 8] = category.semantic
        count = len(boxes)
        return make_sample(
            torch.full((3, 40, 64), index % 256, dtype=torch.uint8),
            boxes=boxes,
            labels=range(count),
            crowd=[False] * count,
            semantic=semantic,
            instances=instances,
            supervision=Supervision.full(self._taxonomy),
            image_id=index,
            path=f"clip{index // 3}/{index}.png",
        )

    def identity(self, index: int) -> tuple[int | str, str]:
        return index, f"clip{index // 3}/{index}.png"
