"""Runs side by side on the same images, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.errors import DataError
from ocrnet_pl.metrics.figures import BY_NAME
from ocrnet_pl.report.bootstrap import FIGURES, figures_of, random_weights
from ocrnet_pl.report.image_file import ImageFile, read_images

_TAIL = 2.5
"""Percent of the random choices that are left out on each side of an interval of 95 %."""


@dataclass(frozen=True)
class Estimate:
    """A figure, or the difference of a figure between two runs.

    Attributes:
        value: Its value over all images.
        low: The lower end of its 95 % interval; NaN where no choice of images has the figure.
        high: The upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, chosen: NDArray[np.float64]) -> Estimate:
        """Return the estimate from a value and those of the random choices, float64 [B]."""
        known = chosen[np.isfinite(chosen)]
        low, high = np.percentile(known, [_TAIL, 100 - _TAIL]) if len(known) else (np.nan, np.nan)
        return cls(value, float(low), float(high))

    @property
    def is_clear(self) -> bool:
        """Whether zero is outside the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ComparedRun:
    """One figure of one run.

    Attributes:
        run: Name of the run.
        figure: The figure.
        difference: This run's figure minus the first run's; None for the first.
    """

    run: str
    figure: Estimate
    difference: Estimate | None

    @property
    def verdict(self) -> str:
        """What the interval says of the difference."""
        if self.difference is None:
            return "compared with"
        return ("better" if self.difference.value > 0 else "worse") if self.difference.is_clear else "not clear"


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        images: Number of images.
        choices: Number of random choices of the images.
        figures: The runs by the title of each figure that all have.
    """

    images: int
    choices: int
    figures: dict[str, list[ComparedRun]]


def compare_runs(folders: Sequence[Path], choices: int, seed: int) -> Comparison:
    """Compare the figures of runs with the first one's, over the same random choices of the images.

    Args:
        folders: At least two folders of runs.
        choices: Number of random choices with repetition.
        seed: Seed of the choices.

    Raises:
        DataError: A folder has no such file, the images or the classes differ, or there is nothing to compare.
    """
    if len(folders) < 2:
        raise DataError("compare: expected at least two folders of runs")
    names = _names(folders)
    files = [read_images(folder) for folder in folders]
    for folder, file in zip(folders[1:], files[1:], strict=True):
        _check_same(folders[0], files[0], folder, file)
    images = len(files[0].ids)
    if not images:
        raise DataError(f"{folders[0]}: the run has no images to compare")
    every = np.ones((1, images), np.float32)
    values = [figures_of(file, every) for file in files]
    shared = [name for name in FIGURES if all(name in own for own in values)]
    if not shared:
        raise DataError("compare: the runs have no figure in common, of mAP, mIoU and panoptic quality")
    weights = random_weights(images, choices, seed)
    chosen = [figures_of(file, weights) for file in files]
    figures = {}
    for name in shared:
        rows: list[ComparedRun] = []
        for run, value, own in zip(names, values, chosen, strict=True):
            difference = Estimate.of(float(value[name][0] - values[0][name][0]), own[name] - chosen[0][name])
            estimate = Estimate.of(float(value[name][0]), own[name])
            rows.append(ComparedRun(run, estimate, difference if rows else None))
        figures[BY_NAME[name].title] = rows
    return Comparison(images, choices, figures)


def _names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each run: the last two parts of its path, or all of it where those are not unique."""
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if paths.count(path) > 1:
            raise DataError(f"{path}: the run is given more than once")
    short = ["/".join(path.parts[-2:]) for path in paths]
    return [str(path) if short.count(name) > 1 else name for path, name in zip(paths, short, strict=True)]


def _check_same(first: Path, mine: ImageFile, second: Path, its: ImageFile) -> None:
    """Raise an error unless two runs have the same classes and images."""
    classes, others = (
        [(c.name, c.is_thing, c.detection is not None, c.semantic is not None) for c in file.taxonomy.categories]
        for file in (mine, its)
    )
    if classes != others:
        different = sorted({each[0] for each in set(classes) ^ set(others)}) or ["their order"]
        shown = ", ".join(different[:5]) + (", ..." if len(different) > 5 else "")
        raise DataError(f"{second}: its classes are not those of {first} (different: {shown}); nothing can be compared")
    one, other = (dict(zip(file.ids, file.names, strict=True)) for file in (mine, its))
    if mine.ids != its.ids or mine.names != its.names:
        different = [name for key, name in (one | other).items() if one.get(key) != other.get(key)] or mine.names
        raise DataError(
            f"{second}: its {len(its.ids):,} images are not the {len(mine.ids):,} of {first} (different: "
            f"{different[0]}, {len(different):,} in all); evaluate both runs on the same data"
        )
