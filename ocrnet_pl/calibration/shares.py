"""Which of the labelled images are used for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ocrnet_pl.calibration.search import in_hashed_order, split_in_two


class Shares(NamedTuple):
    """Places of images among all labelled ones.

    Attributes:
        chosen: Choose the settings, the probabilities, and how the bound is calculated.
        held: May reject settings, and judge the probabilities.
        signing: Are used for nothing before the bound is calculated; they judge the probabilities as well.
    """

    chosen: list[int]
    held: list[int]
    signing: list[int]

    @classmethod
    def of(cls, ids: Sequence[int | str], seed: int, holdout: bool, bound: bool) -> Shares:
        """Share images out, depending only on their ids and the seed.

        Args:
            ids: Ids of the images.
            seed: Seed of the choice.
            holdout: Whether half of those that do not sign are held out.
            bound: Whether two thirds of the images sign a bound.
        """
        rows, signing = list(range(len(ids))), []
        if bound:
            order = in_hashed_order(ids, seed + 1)
            third = (len(ids) + 2) // 3
            rows, signing = sorted(order[:third]), sorted(order[third:])
        if not holdout:
            return cls(rows, [], signing)
        halves = split_in_two([ids[row] for row in rows], seed)
        chosen, held = ([rows[place] for place in half] for half in halves)
        return cls(chosen, held, signing)

    @property
    def settings(self) -> list[int]:
        """The images from which settings are found, chosen and held out ones."""
        return sorted(self.chosen + self.held)

    @property
    def judging(self) -> list[int]:
        """The images that judge the probabilities: those that did not choose them, or all if there are none."""
        return sorted(self.held + self.signing) or self.chosen
