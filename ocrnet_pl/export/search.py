"""The search for how many layers have to stay in float."""

from __future__ import annotations

from collections.abc import Callable


def fewest(most: int, trials: int, passes: Callable[[int], bool]) -> int | None:
    """Return the smallest number that was found to pass, from 0 to ``most``; None if none was.

    Numbers are doubled until one passes; then the gap between it and the largest that does not is halved. This finds
    the smallest if all larger numbers pass as well.

    Args:
        most: The largest number to try.
        trials: How often to try, at least 1.
        passes: Tries a number.
    """
    failed, number = -1, 0
    for left in range(trials - 1, -1, -1):
        if passes(number):
            break
        failed = number
        if number >= most or not left:
            return None
        number = min(max(2 * number, 1), most)
    best = number
    while left and best - failed > 1:
        left -= 1
        middle = (failed + best) // 2
        if passes(middle):
            best = middle
        else:
            failed = middle
    return best
