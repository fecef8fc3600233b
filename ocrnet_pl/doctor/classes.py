"""Faults of the categories: different in two splits, or with too few examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ocrnet_pl.doctor.findings import Finding, Kind, Level
from ocrnet_pl.doctor.statistics import SplitStatistics
from ocrnet_pl.structures import Category, Taxonomy

FEW_BOXES = 10
FEW_IMAGES = 3


def category_faults(taxonomies: Sequence[tuple[str, Taxonomy]]) -> Iterator[Finding]:
    """Compare the categories of each split with those of the first.

    Args:
        taxonomies: Names and categories of the splits.
    """
    if not taxonomies:
        return
    (first, reference), *others = taxonomies
    for name, taxonomy in others:
        if taxonomy == reference:
            continue
        ours, theirs = _names(reference), _names(taxonomy)
        lacking = [n for n in ours if n not in theirs]
        more = [n for n in theirs if n not in ours]
        parts = []
        if lacking:
            parts.append(f"{_list(lacking)} of {first} {'is' if len(lacking) == 1 else 'are'} missing")
        if more:
            parts.append(f"{_list(more)} {'is' if len(more) == 1 else 'are'} not in {first}")
        if not parts and ours != theirs:
            place = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
            parts.append(f"the order differs: place {place} has {theirs[place]!r} instead of {ours[place]!r}")
        if not parts:
            pairs = zip(reference.categories, taxonomy.categories, strict=True)
            one, two = next(pair for pair in pairs if pair[0] != pair[1])
            parts.append(_difference(one, two))
        yield Finding(Kind.CATEGORIES, name, "; ".join(parts))


def _names(taxonomy: Taxonomy) -> list[str]:
    return [category.name for category in taxonomy.categories]


def _list(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _difference(one: Category, two: Category) -> str:
    for what in ("is_thing", "detection", "semantic", "color"):
        if getattr(one, what) != getattr(two, what):
            return f"{one.name!r} differs in {what}: {getattr(two, what)} instead of {getattr(one, what)}"
    return f"{two} instead of {one}"


def rare_classes(train: SplitStatistics, others: Sequence[SplitStatistics]) -> Iterator[Finding]:
    """Name the classes of which the training set has too few examples.

    Args:
        train: Statistics of the training set.
        others: Statistics of the other splits, whose figures depend on the class.
    """
    taxonomy = train.taxonomy
    if train.boxed:
        for label, category in enumerate(taxonomy.detection_categories):
            count, images = int(train.boxes[label]), int(train.box_images[label])
            elsewhere = sum(int(split.boxes[i]) for split in others if (i := _label(split, category.name)) is not None)
            if count >= FEW_BOXES and images >= FEW_IMAGES:
                continue
            text = f"{category.name!r} has {_number(count, 'box', 'boxes')} in {_number(images, 'image', 'images')}"
            if not count and elsewhere:
                text += f", but {elsewhere} in the other splits"
            # A class of the list that has no objects in this data, unless none has any.
            level = Level.NOTE if not count and not elsewhere and train.boxes.any() else None
            yield Finding(Kind.FEW_EXAMPLES, train.name, text, field=f"class {category.name}", level=level)
    if train.maps:
        for own, category in enumerate(taxonomy.semantic_categories):
            if category.detection is not None and train.boxed:
                continue
            images = int(train.pixel_images[own])
            if images < FEW_IMAGES:
                text = f"{category.name!r} has pixels in {_number(images, 'image', 'images')}"
                yield Finding(Kind.FEW_EXAMPLES, train.name, text, field=f"class {category.name}")


def _label(split: SplitStatistics, name: str) -> int | None:
    return next((c.detection for c in split.taxonomy.detection_categories if c.name == name), None)


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
