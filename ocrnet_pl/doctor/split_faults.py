"""Faults that no single image shows, but a whole split does: that nothing could be learned, or not what was meant."""

from __future__ import annotations

from collections.abc import Iterator

from ocrnet_pl.data.readers.crowd_share import only_crowds
from ocrnet_pl.data.sources.voc import PascalVoc
from ocrnet_pl.doctor.findings import Finding, Kind
from ocrnet_pl.doctor.pixel_origin import better_origin
from ocrnet_pl.doctor.result import Examined
from ocrnet_pl.errors import DataError

_AGREE = 0.75
"""Mean overlap of instance masks and map from which both are of the same precision."""
_VOID = 0.005
"""Share of ignored pixels that borders of objects do not explain where nothing else is labelled."""


def split_faults(examined: Examined) -> Iterator[Finding]:
    """Yield the faults of a split.

    Args:
        examined: The split, after its images were examined.
    """
    name = examined.split.name
    for text, kind in (
        (_crowds(examined), Kind.ONLY_CROWDS),
        (_void(examined), Kind.ONLY_VOID),
        (_elsewhere(examined), Kind.MASKS_ELSEWHERE),
        (_origin(examined), Kind.FIRST_PIXEL),
    ):
        if text is not None:
            yield Finding(kind, name, text, file="" if kind is Kind.FIRST_PIXEL else annotation_file(examined))
    statistics = examined.statistics
    for label, category in enumerate(statistics.taxonomy.detection_categories):
        count, counting, total = statistics.agreement[label]
        if count and total / count < _AGREE:
            text = (
                f"masks of {category.name!r} overlap the pixels of the class in their boxes by {total / count:.0%}; "
                f"for {int(counting)} of {int(count)} it is at least 50 %, so about {counting / count:.0%} is the most "
                "that the mask mAP of fused predictions can reach"
            )
            yield Finding(Kind.MASKS_DISAGREE, name, text, field=f"class {category.name}")


def annotation_file(examined: Examined) -> str:
    """Return the annotation file of a split's first image; empty if there is none, or the image cannot be read."""
    try:
        raw = examined.split.raw_boxes(int(examined.indices[0])) if len(examined.indices) else None
    except DataError:
        raw = None
    return "" if raw is None else raw.file


def _crowds(examined: Examined) -> str | None:
    statistics = examined.statistics
    names = [category.name for category in statistics.taxonomy.detection_categories]
    return only_crowds(statistics.boxes, statistics.crowds, names)


def _void(examined: Examined) -> str | None:
    statistics = examined.statistics
    pixels, total = statistics.pixels[:-1], int(statistics.pixels.sum())
    void = int(statistics.pixels[-1])
    if len(pixels) < 2 or not total or (pixels > 0).sum() > 1 or void < _VOID * total:
        return None
    names = [category.name for category in statistics.taxonomy.semantic_categories]
    without = [name for name, count in zip(names, pixels, strict=True) if not count]
    shown = ", ".join(map(repr, without[:5])) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
    have = "has" if len(without) == 1 else "have"
    return f"255, which is ignored, holds {void / total:.0%} of the pixels, and {shown} {have} none"


def _elsewhere(examined: Examined) -> str | None:
    verdict = examined.verdict
    if not verdict.misses or examined.reading is not None:
        return None
    fit = verdict.overlap[0] / verdict.masks
    text = f"{verdict.loose} of {verdict.masks} boxes overlap the bounds of their masks by less than half"
    text += f" ({fit:.0%} on average)"
    total, count = examined.by_rows
    if count and total / count > _AGREE:
        text += f"; they fit by {total / count:.0%} if the runs of the masks go along the rows, not down the columns"
    return text


def _origin(examined: Examined) -> str | None:
    source = examined.split.source
    return better_origin(examined.edges, source.first_pixel) if isinstance(source, PascalVoc) else None
