"""The sources of a run's splits, checked against one another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.wrappers.mixture import Mixture
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Taxonomy


def check_splits(splits: Mapping[str, Source | None], root: str | None = None) -> None:
    """Check that the sources of a run have images and agree on the categories.

    Args:
        splits: Source of each split by its name; None where there is none.
        root: Folder that at least one of the sources must start its paths from; None for any.

    Raises:
        DataError: A source is empty, or two disagree on the categories.
        ValueError: No source starts its paths from the root.
    """
    reference: tuple[str, Taxonomy] | None = None
    for name, source in splits.items():
        if source is None:
            continue
        if len(source) == 0:
            raise DataError(f"data.{name}: the source has no images")
        if reference is None:
            reference = (name, source.taxonomy)
        elif source.taxonomy != reference[1]:
            raise DataError(
                f"data.{name}: its categories differ from those of data.{reference[0]}: "
                f"{_difference(reference[1], source.taxonomy)}; use annotations with the same categories in the "
                "same order"
            )
    if root is not None and root not in _roots(*splits.values()):
        raise ValueError("data.root is set, but no source starts its paths from it; set the sources' own paths")


def _roots(*sources: Source | None) -> Iterator[str]:
    """Yield the folders from which sources, and the sources inside them, start their paths."""
    for source in sources:
        root, inner = getattr(source, "root", None), getattr(source, "source", None)
        if root is not None:
            yield os.fspath(root)
        if isinstance(inner, Source):
            yield from _roots(inner)
        if isinstance(source, Mixture):
            yield from _roots(*source.sources.values())


def _difference(first: Taxonomy, second: Taxonomy) -> str:
    if len(first.categories) != len(second.categories):
        return f"{len(first.categories)} categories against {len(second.categories)}"
    position, (one, two) = next(
        (i, pair) for i, pair in enumerate(zip(first.categories, second.categories, strict=True)) if pair[0] != pair[1]
    )
    if one.name != two.name:
        return f"category {position} is {one.name!r} against {two.name!r}"
    here, there = (asdict(each) for each in (one, two))
    differing = ", ".join(f"{key} {here[key]} against {there[key]}" for key in here if here[key] != there[key])
    return f"category {position}, {one.name!r}, has {differing}"
