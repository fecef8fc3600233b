"""The panoptic map: every pixel belongs to one instance, to one stuff region, or to nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ocrnet_pl.metrics.runs import Runs, flat
from ocrnet_pl.structures import Prediction, Segment, Taxonomy


def add_panoptic(prediction: Prediction, shown: Tensor, min_stuff: float, taxonomy: Taxonomy) -> None:
    """Add the panoptic map and its segments: the instances that are shown, then stuff; the remaining pixels are void.

    Args:
        prediction: A prediction on the CPU with its instance and semantic maps; changed in place.
        shown: bool [N], the boxes whose instances enter the map if they have pixels.
        min_stuff: Number of pixels below which a stuff region becomes void.
        taxonomy: The categories, which say what is stuff.
    """
    assert prediction.instances is not None and prediction.semantic is not None
    instances, classes = flat(prediction.instances), flat(prediction.semantic)
    runs = Runs.of(instances, classes)
    instance, semantic = instances[runs.starts], classes[runs.starts]
    areas = runs.pixels(instance, len(prediction.scores) + 1)
    rows = np.flatnonzero(shown.numpy() & (areas[1:] > 0))
    segment_of = np.zeros(len(areas), dtype=np.int32)
    segment_of[rows + 1] = np.arange(1, len(rows) + 1)
    segments = [
        Segment(number, taxonomy.positions_of_detection[label], score, area, row)
        for number, (row, label, score, area) in enumerate(
            zip(
                rows.tolist(),
                prediction.labels.numpy()[rows].tolist(),
                prediction.scores.numpy()[rows].tolist(),
                areas[rows + 1].tolist(),
                strict=True,
            ),
            1,
        )
    ]
    segment = segment_of[instance]
    is_open = segment == 0
    stuff_areas = np.bincount(semantic[is_open], runs.lengths[is_open], taxonomy.num_semantic).astype(int).tolist()
    stuff = np.zeros(taxonomy.num_semantic, dtype=np.int32)
    for index, category in enumerate(taxonomy.semantic_categories):
        if not category.is_thing and stuff_areas[index] >= max(min_stuff, 1):
            stuff[index] = len(segments) + 1
            segments.append(Segment(len(segments) + 1, taxonomy.positions_of_semantic[index], 1.0, stuff_areas[index]))
    numbers = np.where(is_open, stuff[semantic], segment)
    prediction.panoptic = torch.from_numpy(np.repeat(numbers, runs.lengths)).view(prediction.instances.shape)
    prediction.segments = segments
