"""An order of turns in which every part has its share at any time, and the order within each part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ocrnet_pl.data.loading.block_order import windowed
from ocrnet_pl.data.randomness import stream
from ocrnet_pl.data.records import Part

_LONGEST = 100_000
"""The longest period of turns; shares that need a longer one are rounded to it."""


def turns(shares: Sequence[float]) -> NDArray[np.int64]:
    """Return one period of turns: after any number of them, each part's count is within one turn of its share.

    If the shares of a number of turns are whole, they are met exactly. Tijdeman, "The chairman assignment problem",
    Discrete Mathematics 32, 1980: among the parts whose turn may already come, it goes to the one that would be late
    first.

    Args:
        shares: Weights of the parts, positive, in any unit.

    Returns:
        The number of the part of each turn.
    """
    # A third is written with as many digits as fit, and meant as a third.
    exact = [Fraction(share).limit_denominator(_LONGEST) or Fraction(share) for share in shares]
    whole = sum(exact)
    common = math.lcm(*((share / whole).denominator for share in exact))
    if common > _LONGEST:
        weights = [max(1, round(share / whole * _LONGEST)) for share in exact]
    else:
        weights = [int(share / whole * common) for share in exact]
    period, count = sum(weights), len(weights)
    order = np.zeros(period, dtype=np.int64)
    if count == 1:
        return order[:1]
    scale = 2 * count - 2
    behind = [0] * count  # in turns times the period
    for turn in range(period):
        behind = [b + w for b, w in zip(behind, weights, strict=True)]
        ready = [i for i in range(count) if scale * behind[i] >= period]
        chosen = min(ready, key=lambda i: (((scale - 1) * period - scale * behind[i]) / weights[i], i))
        behind[chosen] -= period
        order[turn] = chosen
    return order


class Draws:
    """The order in which the parts' samples come, over the whole run and without any record of earlier samples.

    A sample that is repeated ``r`` times on average comes ``floor((p + 1) r + u) - floor(p r + u)`` times in pass ``p``
    of its part, with ``u`` drawn from 0 to 1 for the whole run: in any number of passes, within one of ``r`` times as
    many.

    Args:
        parts: The parts, at least one.
        seed: Seed of the run.
        shuffle: Whether each pass through a part has its own random order.
    """

    def __init__(self, parts: Sequence[Part], seed: int, shuffle: bool) -> None:
        self.parts = list(parts)
        self.seed = seed
        self.shuffle = shuffle
        self._turns = turns([part.share for part in parts])
        steps = self._turns[:, None] == np.arange(len(parts))
        self._before = np.concatenate([np.zeros((1, len(parts)), dtype=np.int64), steps.cumsum(0)])
        self._offsets = [
            None if part.repeats is None else stream(seed, 5, place).random(part.stop - part.start)
            for place, part in enumerate(parts)
        ]

    def owners(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the parts of the turns from ``start`` to ``stop``, counted from the beginning of the run."""
        return self._turns[np.arange(start, stop) % len(self._turns)]

    def samples(self, place: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what a part contributes to the turns from ``start`` to ``stop``.

        Args:
            place: Number of the part.
            start: First turn, counted from the beginning of the run.
            stop: Turn after the last one.

        Returns:
            The indices of the samples, and for each how often it has come before.
        """
        part = self.parts[place]
        first, last = self._count(place, start), self._count(place, stop)
        length = part.stop - part.start
        per_pass = length if part.repeats is None else float(part.repeats.sum())
        # Where samples are repeated, the passes are of about this length.
        number = max(0, int(first / per_pass) - 1)
        while self._before_pass(place, number + 1).sum() <= first:
            number += 1
        rows, earlier = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        before = self._before_pass(place, number)
        begin = int(before.sum())
        while begin < last:
            after = self._before_pass(place, number + 1)
            order = self._order(place, number, after - before)
            window = slice(max(0, first - begin), last - begin)
            rows.append(order[window])
            earlier.append((before[order] + _occurrence(order))[window])
            number, begin, before = number + 1, begin + len(order), after
        return part.start + np.concatenate(rows), np.concatenate(earlier)

    def _before_pass(self, place: int, number: int) -> NDArray[np.int64]:
        """Return how often each sample of a part comes before a pass, int64 [samples]."""
        part, offsets = self.parts[place], self._offsets[place]
        if part.repeats is None or offsets is None:
            return np.full(part.stop - part.start, number, dtype=np.int64)
        return np.floor(number * part.repeats + offsets).astype(np.int64)

    def _order(self, place: int, number: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of a pass in order, each as often as ``counts`` says."""
        blocks = self.parts[place].blocks
        if not self.shuffle:
            return np.repeat(np.arange(len(counts)), counts)
        random = stream(self.seed, number, 3, place)
        if blocks is not None:
            return windowed(blocks, random, counts)
        order = np.repeat(np.arange(len(counts)), counts)
        return order[random.permutation(len(order))]

    def _count(self, place: int, turn: int) -> int:
        whole, rest = divmod(turn, len(self._turns))
        return int(whole * self._before[-1, place] + self._before[rest, place])


def _occurrence(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each entry how often its value has come before in the same array."""
    sorting = np.argsort(order, kind="stable")
    ordered = order[sorting]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(order) else sorting
    lengths = np.diff(np.append(first, len(order)))
    found = np.empty(len(order), dtype=np.int64)
    found[sorting] = np.arange(len(order)) - first.repeat(lengths)
    return found
