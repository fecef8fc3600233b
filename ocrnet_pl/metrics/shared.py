"""Work on the truth that several metrics of one batch have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ocrnet_pl.structures import Sample

Result = TypeVar("Result")


class OncePerBatch(Generic[Result]):
    """Applies a function to every sample of a batch once, however many metrics ask for it one after the other.

    Args:
        function: Function of one sample.
    """

    def __init__(self, function: Callable[[Sample], Result]) -> None:
        self._function = function
        self._truths: list[Sample] | None = None
        self._results: list[Result] = []

    def __call__(self, truths: list[Sample]) -> list[Result]:
        """Return the results for a batch; the identity of the list, not its content, decides whether it is new."""
        if truths is not self._truths:
            self._results = [self._function(truth) for truth in truths]
            self._truths = truths
        return self._results

    def reset(self) -> None:
        """Forget the batch."""
        self._truths, self._results = None, []
