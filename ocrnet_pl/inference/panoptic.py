"""The panoptic map: every pixel belongs to one instance, to one stuff region, or to nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from ocrnet_pl.inference.pixels import look_up
from ocrnet_pl.structures import Prediction, Segment, Taxonomy


def add_panoptic(prediction: Prediction, shown: Tensor, areas: Tensor, min_stuff: float, taxonomy: Taxonomy) -> None:
    """Add the panoptic map and its segments: the instances that are shown, then stuff; the remaining pixels are void.

    Args:
        prediction: A prediction with its instance and semantic maps; changed in place.
        shown: bool [N], the boxes whose instances enter the map.
        areas: int64 [N], the number of pixels of each box's instance.
        min_stuff: Number of pixels below which a stuff region becomes void.
        taxonomy: The categories, which say what is stuff.
    """
    assert prediction.instances is not None and prediction.semantic is not None
    segment_of = torch.where(shown, shown.cumsum(0), 0)
    panoptic = look_up(torch.cat((segment_of.new_zeros(1), segment_of)).to(torch.int32), prediction.instances)
    categories = {id(c): position for position, c in enumerate(taxonomy.categories)}
    segments = [
        Segment(number, categories[id(taxonomy.detection_categories[label])], score, area, row)
        for number, (row, label, score, area) in enumerate(
            zip(
                shown.nonzero()[:, 0].tolist(),
                prediction.labels[shown].tolist(),
                prediction.scores[shown].tolist(),
                areas[shown].tolist(),
                strict=True,
            ),
            1,
        )
    ]
    open_classes = torch.where(panoptic == 0, prediction.semantic.to(torch.int32), taxonomy.num_semantic)
    stuff_areas = torch.bincount(open_classes.flatten(), minlength=taxonomy.num_semantic + 1).tolist()
    table = torch.zeros(taxonomy.num_semantic + 1, dtype=panoptic.dtype)
    for semantic, category in enumerate(taxonomy.semantic_categories):
        if not category.is_thing and stuff_areas[semantic] >= max(min_stuff, 1):
            table[semantic] = len(segments) + 1
            segments.append(Segment(len(segments) + 1, categories[id(category)], 1.0, stuff_areas[semantic]))
    prediction.panoptic = panoptic + look_up(table.to(panoptic.device), open_classes)
    prediction.segments = segments
