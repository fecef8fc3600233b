"""Work on a batch that several metrics have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class OncePerBatch(Generic[Result]):
    """Applies a function to every image of a batch once, however many metrics ask for it one after the other.

    Args:
        function: Function of what is known of one image, such as its prediction and its truth.
    """

    def __init__(self, function: Callable[..., Result]) -> None:
        self._function = function
        self._lists: tuple[Sequence[Any], ...] = ()
        self._results: list[Result] = []

    def __call__(self, *lists: Sequence[Any]) -> list[Result]:
        """Return the results for a batch.

        Args:
            lists: The function's arguments, one per image in each list. The identity of the lists, not their content,
                decides whether the batch is new.
        """
        if len(lists) != len(self._lists) or any(a is not b for a, b in zip(lists, self._lists, strict=True)):
            self._results = [self._function(*each) for each in zip(*lists, strict=True)]
            self._lists = lists
        return self._results

    def reset(self) -> None:
        """Forget the batch."""
        self._lists, self._results = (), []
