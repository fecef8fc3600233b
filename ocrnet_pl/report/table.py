"""The figures of the report: joint network against twins, one row per figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
_ROWS: tuple[tuple[str, str, str, bool, Getter, Getter], ...] = (
    ("box mAP", "detection alone", "", True, _last("joint", "val/map"), _last("detection", "val/map")),
    ("mIoU", "segmentation alone", "", True, _last("joint", "val/miou"), _last("segmentation", "val/miou")),
    ("panoptic quality", _MERGED, "", True, _last("joint", "val/pq"), _last("compare", "val/pq")),
    ("box mAP, fused", _MERGED, "", True, _last("joint", "val/fused_map"), _last("compare", "val/fused_map")),
    ("mIoU, fused", _MERGED, "", True, _last("joint", "val/fused_miou"), _last("compare", "val/fused_miou")),
    ("panoptic quality, fused", _MERGED, "", True, _last("joint", "val/fused_pq"), _last("compare", "val/fused_pq")),
    (
        "mask mAP, fused",
        _MERGED,
        "",
        True,
        _last("joint", "val/fused_mask_map"),
        _last("compare", "val/fused_mask_map"),
    ),
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
    rows = []
    for title, twins, unit, more_is_better, of_joint, of_twins in _ROWS:
        joint, alone = [of_joint(seed) for seed in seeds], [of_twins(seed) for seed in seeds]
        own = [value for value in joint if value is not None and math.isfinite(value)]
        theirs = [value for value in alone if value is not None and math.isfinite(value)]
        if len(own) == len(theirs) == len(seeds):
            rows.append(Row(title, twins, unit, more_is_better, own, theirs))
    return rows
