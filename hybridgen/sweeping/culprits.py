r"""Who of a task makes it fail: halves are tried until the culprits stand alone.

A part that fails is cut in two. If the first half passes, the culprit is in the second, which is
cut at once. A member alone that fails is tried once more before it is blamed, so that a machine
that stumbled costs nobody. One culprit among :math:`N` costs about :math:`2 \log_2 N` trials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hybridgen.integrate import Status

__all__ = ["Fault", "Found", "find_culprits"]


@dataclass(frozen=True)
class Fault:
    """Why members could not be drawn.

    Arguments:
        status: `error` or `timeout`.
        kind: What failures of this kind have in common, such as `"ValueError at plant.py:7"`.
        message: What was said of this one.
    """

    status: Status
    kind: str
    message: str


@dataclass(frozen=True)
class Found:
    """What a search found.

    Arguments:
        lost: Why each culprit fails, by member.
        passing: Parts, first and one after last, that passed and together are all others.
    """

    lost: dict[int, Fault]
    passing: list[tuple[int, int]]


def find_culprits(
    trial: Callable[[int, int], Fault | None],
    start: int,
    stop: int,
    blame: Callable[[int, Fault], Any] = lambda member, fault: None,
) -> Found:
    """Find the members that fail, of a range that fails as a whole.

    Arguments:
        trial: Draws the members from a first to one before a last, and returns why that failed.
        start: The first member.
        stop: The one after the last.
        blame: Told of each culprit as it is found; may raise to end the search.

    Returns:
        The culprits and what passed.

    Example:
        >>> fault = Fault(Status.error, "ValueError", "seven")
        >>> found = find_culprits(lambda a, b: fault if a <= 7 < b else None, 0, 10)
        >>> list(found.lost), found.passing
        ([7], [(0, 5), (5, 7), (8, 10)])
    """
    found = Found({}, [])

    def search(low: int, high: int, fails: bool) -> bool:
        """Return whether there is a culprit; `fails` says that this is known."""
        alone = high - low == 1
        fault = trial(low, high) if alone or not fails else None
        if fault is not None and alone:
            fault = trial(low, high)
        if fault is None and (alone or not fails):
            found.passing.append((low, high))
            return False
        if fault is not None and alone:
            found.lost[low] = fault
            blame(low, fault)
            return True
        middle = (low + high) // 2
        left = search(low, middle, False)
        right = search(middle, high, not left)
        return left or right

    search(start, stop, True)
    return found
