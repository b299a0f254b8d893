r"""Shifts: what moves between training and test, from which support to which.

A support maps names to intervals. For a member with value :math:`v_k` on a moved axis :math:`k`
whose training interval is :math:`[a_k, b_k]`, the distance is

.. math:: d = \max_k \frac{\max(a_k - v_k,\; v_k - b_k,\; 0)}{b_k - a_k},

zero inside the training support and one at a whole training width outside it.

References:
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hybridgen.errors import ShiftError, nearest

__all__ = ["Interval", "Shift", "Support", "check_support", "distance"]

Interval = tuple[float, float]
Support = Mapping[str, Interval]


@dataclass(frozen=True)
class Shift:
    """A named change of the support, the noise or the horizon.

    Arguments:
        name: Its name, such as `"ood"`.
        support: The new interval of each moved axis (a parameter or an initial state), in the
            unit of that axis.
        noise: Factor on the observation noise.
        horizon: Factor on the time span.
        what: A sentence for reports.

    Raises:
        ShiftError: If nothing moves, or an interval is empty.

    Example:
        >>> Shift("slow", {"omega0": (0.5, 1.5)}).moved
        ('omega0',)
    """

    name: str
    support: Support = field(default_factory=dict)
    noise: float = 1.0
    horizon: float = 1.0
    what: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "support", dict(self.support))
        if not self.support and self.noise == 1.0 and self.horizon == 1.0:
            raise ShiftError(
                f"shift {self.name!r} moves nothing; write Shift({self.name!r}, "
                "{'name of a parameter or state': (low, high)}), or set noise= or horizon=."
            )
        check_support(self.support, f"shift {self.name!r}")

    @property
    def moved(self) -> tuple[str, ...]:
        """The names of the axes that move."""
        return tuple(self.support)

    def apply(self, support: Support) -> dict[str, Interval]:
        """Return the support after the shift.

        Raises:
            ShiftError: If the shift moves an axis that the support does not have.
        """
        for name in self.support:
            if name not in support:
                raise ShiftError(f"shift {self.name!r} moves {name!r}; {nearest(name, support)}")
        return {**support, **self.support}

    def graded(self, parts: int) -> tuple[Shift, ...]:
        """Cut every moved interval into equal parts, `name_1` nearest to zero index.

        Parts are in the order of the interval; use `distance` to order them.

        Example:
            >>> [s.support["k"] for s in Shift("far", {"k": (0.0, 2.0)}).graded(2)]
            [(0.0, 1.0), (1.0, 2.0)]
        """
        shifts = []
        for i in range(parts):
            cut = {
                k: (a + (b - a) * i / parts, a + (b - a) * (i + 1) / parts)
                for k, (a, b) in self.support.items()
            }
            shifts.append(Shift(f"{self.name}_{i + 1}", cut, self.noise, self.horizon, self.what))
        return tuple(shifts)


def check_support(support: Support, owner: str) -> None:
    """Raise unless every interval is finite with low <= high.

    Raises:
        ShiftError: Naming the owner, the axis and the interval.
    """
    for name, interval in support.items():
        if len(interval) != 2 or not all(map(math.isfinite, interval)):
            raise ShiftError(f"{owner} has {name} = {interval}; write two finite numbers.")
        if interval[0] > interval[1]:
            raise ShiftError(
                f"{owner} has the empty interval {name} = {interval}; write (low, high)."
            )


def distance(values: Mapping[str, Tensor], training: Support, moved: tuple[str, ...]) -> Tensor:
    """Return how far each member lies outside the training support.

    Arguments:
        values: The value of each moved axis, in its unit, with shape `(N,)`.
        training: The training support.
        moved: The axes that count.

    Returns:
        Distances in units of the training width, with shape `(N,)`.

    Raises:
        ShiftError: If a moved axis is fixed in training, so that it has no width.
    """
    parts = []
    for name in moved:
        low, high = training[name]
        if high == low:
            raise ShiftError(
                f"{name!r} is fixed at {low} in training, so a distance from it has no unit; "
                "train on an interval, or do not shift it."
            )
        v = values[name]
        parts.append(torch.maximum(low - v, v - high).clamp_min(0.0) / (high - low))
    if not parts:
        return torch.zeros(())
    return torch.stack(parts).amax(0)
