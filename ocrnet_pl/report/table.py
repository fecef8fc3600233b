"""The figures of the report: joint network against twins, one row per figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ocrnet_pl.metrics.figures import BY_NAME, FUSED
from ocrnet_pl.report.statistics import Difference, paired_difference


class Seed(NamedTuple):
    """The results of one seed, as the runs wrote them.

    Attributes:
        seed: The seed.
        joint: ``summary.json`` of the joint network.
        detection: ``summary.json`` of the twin for detection.
        segmentation: ``summary.json`` of the twin for segmentation.
        compare: ``compare.json`` of the twins side by side.
    """

    seed: int
    joint: dict[str, Any]
    detection: dict[str, Any]
    segmentation: dict[str, Any]
    compare: dict[str, Any]

    @property
    def own_figures(self) -> list[dict[str, Any]]:
        """The figures of the config's own metrics: ``name``, ``title`` and ``higher_is_better`` of each."""
        figures: list[dict[str, Any]] = self.joint.get("own_figures", [])
        return [figure for figure in figures if not figure["per_class"]]


@dataclass(frozen=True)
class Row:
    """One figure of the joint network and of its twins.

    Attributes:
        title: Name of the figure.
        twins: Which figure of the twins it is compared with.
        unit: Unit of the values; empty for scores, which range from 0 to 1.
        more_is_better: Whether a larger value of the joint network is a gain.
        joint: The joint network's values, one per seed.
        alone: The twins' values, one per seed.
    """

    title: str
    twins: str
    unit: str
    more_is_better: bool
    joint: list[float]
    alone: list[float]

    @property
    def difference(self) -> Difference:
        """Joint minus twins."""
        return paired_difference(self.joint, self.alone)

    @property
    def ratio(self) -> float | None:
        """Joint divided by twins, of the means; None if the twins' mean is zero."""
        alone = statistics.fmean(self.alone)
        return statistics.fmean(self.joint) / alone if alone else None

    @property
    def verdict(self) -> str:
        """The effect of sharing: ``earned``, ``cost``, ``no clear difference``, or with one seed ``one seed``."""
        difference = self.difference
        if difference.half is None:
            return "one seed"
        if not difference.is_clear:
            return "no clear difference"
        return "earned" if (difference.mean > 0) == self.more_is_better else "cost"

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; the interval is ``[low, high]``, null with one seed."""
        mean, half, _ = self.difference
        return {
            "figure": self.title,
            "twins": self.twins,
            "unit": self.unit,
            "joint": self.joint,
            "alone": self.alone,
            "difference": mean,
            "interval_95": None if half is None else [mean - half, mean + half],
            "ratio": self.ratio,
            "verdict": self.verdict,
        }


Getter = Callable[[Seed], float | None]
_Line = tuple[str, str, str, bool, Getter, Getter]
"""A row's title, twins, unit, whether more is better, and where the figures of both come from."""


def _last(run: str, key: str) -> Getter:
    return lambda seed: getattr(seed, run)["last"].get(key)


def _measured(key: str) -> Getter:
    return lambda seed: seed.compare[key]


def _time(seed: Seed) -> float:
    return float(seed.detection["time_s"] + seed.segmentation["time_s"])


def _speed(seed: Seed) -> float | None:
    speeds = (seed.detection["images_per_s"], seed.segmentation["images_per_s"])
    # Both learn from every image, one after the other. A run of one step has no speed.
    return 1 / sum(1 / speed for speed in speeds) if all(speeds) else None


def _memory(kind: str, *runs: str) -> Getter:
    def largest(seed: Seed) -> float | None:
        values = [getattr(seed, run)["peak_memory_mb"][kind] for run in runs]
        return None if None in values else max(values)

    return largest


_BOTH = "both, one after the other"
_MERGED = "both, merged alike"


def _of_figure(name: str, title: str, twin: str, higher_is_better: bool = True) -> _Line:
    """Return the row of a figure; ``twin`` is the run that measured it for the twins."""
    against = _MERGED if twin == "compare" else f"{twin} alone"
    return title, against, "", higher_is_better, _last("joint", f"val/{name}"), _last(twin, f"val/{name}")


_FIGURES: tuple[_Line, ...] = (
    _of_figure("map", BY_NAME["map"].short, "detection"),
    _of_figure("miou", BY_NAME["miou"].short, "segmentation"),
    _of_figure("pq", BY_NAME["pq"].short, "compare"),
    *(
        _of_figure(FUSED + name, f"{BY_NAME[name].short}, fused", "compare")
        for name in ("map", "miou", "pq", "mask_map")
    ),
)
_COSTS: tuple[_Line, ...] = (
    ("training, with validations", _BOTH, "s", False, lambda seed: seed.joint["time_s"], _time),
    ("training speed", _BOTH, "images/s", True, lambda seed: seed.joint["images_per_s"], _speed),
    ("one pass, networks", _BOTH, "ms", False, _measured("pass_joint_ms"), _measured("pass_twins_ms")),
    (
        "one pass, with decoding and fusion",
        _BOTH,
        "ms",
        False,
        _measured("whole_joint_ms"),
        _measured("whole_twins_ms"),
    ),
    (
        "memory in training",
        "the larger twin",
        "MiB",
        False,
        _memory("ram", "joint"),
        _memory("ram", "detection", "segmentation"),
    ),
    (
        "GPU memory in training",
        "the larger twin",
        "MiB",
        False,
        _memory("gpu", "joint"),
        _memory("gpu", "detection", "segmentation"),
    ),
    (
        "parameters",
        "both",
        "million",
        False,
        _measured("parameters_joint_million"),
        _measured("parameters_twins_million"),
    ),
)


def table_rows(seeds: Sequence[Seed]) -> list[Row]:
    """Return the rows for which every seed has both figures."""
    own = [
        _of_figure(prefix + each["name"], each["title"] + suffix, "compare", each["higher_is_better"])
        for each in seeds[0].own_figures
        for prefix, suffix in (("", ""), (FUSED, ", fused"))
    ]
    rows = []
    for title, twins, unit, more_is_better, of_joint, of_twins in (*_FIGURES, *own, *_COSTS):
        joint, alone = [of_joint(seed) for seed in seeds], [of_twins(seed) for seed in seeds]
        ours = [value for value in joint if value is not None and math.isfinite(value)]
        theirs = [value for value in alone if value is not None and math.isfinite(value)]
        if len(ours) == len(theirs) == len(seeds):
            rows.append(Row(title, twins, unit, more_is_better, ours, theirs))
    return rows
