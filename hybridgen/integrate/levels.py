r"""Levels: how many substeps an interval gets, picked from the error that fewer or more made.

The scaled error of a method of order :math:`p` with an embedded estimate shrinks with
:math:`m^{-p}` for :math:`m` substeps, so an error :math:`\epsilon` at :math:`m` asks for

.. math:: m' = \frac{m}{0.9} \, \epsilon^{1/p},

rounded up to the ladder 1, 2, 3, 4, 6, 8, 12, 16, ... Far from convergence the formula means
little: it may ask for eight times as many at most, and a member that overflowed or gave NaN,
whose error says nothing, gets twice as many.
"""

from __future__ import annotations

import bisect
import math

__all__ = ["ladder", "next_level"]

SAFETY = 0.9
GROWTH = 8.0


def ladder(limit: int) -> tuple[int, ...]:
    """Return the levels up to a limit, which is the last of them.

    Example:
        >>> ladder(20)
        (1, 2, 3, 4, 6, 8, 12, 16, 20)
    """
    powers = [2**i for i in range(limit.bit_length())]
    rungs = {rung for power in powers for rung in (power, 3 * power) if rung < limit}
    return (*sorted(rungs), limit)


def next_level(error: float, level: int, order: int, rungs: tuple[int, ...]) -> int:
    """Return the level that a member needs, by the error it made at a given level.

    After an error above 1 it is higher than the given one, if there is a higher one.

    Arguments:
        error: The scaled error at `level`; NaN or infinite after an overflow.
        level: The level at which it was made.
        order: Order of the method.
        rungs: The levels to choose from.

    Returns:
        One of `rungs`.

    Example:
        >>> [next_level(error, 4, 5, ladder(256)) for error in (1e-9, 0.5, 40.0, math.nan)]
        [1, 4, 12, 8]
    """
    wanted = 2.0 * level
    if math.isfinite(error):
        wanted = level * min(error ** (1.0 / order) / SAFETY, GROWTH)
    if not error <= 1.0:
        wanted = max(wanted, level + 1.0)
    return rungs[min(bisect.bisect_left(rungs, wanted), len(rungs) - 1)]
