r"""Why a member cannot cross an interval at any level.

A member has *diverged* when a state exceeds :math:`10^6 (1 + \max |y_0|)` or overflows, or the
field is infinite; it is *nonfinite* when the field gives NaN at a state below that; *max_steps*
is left for a member that is finite and only not accurate enough.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hybridgen.integrate.rule import Rule
from hybridgen.integrate.solution import Status
from hybridgen.integrate.stepping import RHS, finite_rows
from hybridgen.integrate.trace import Front

__all__ = ["blown_up", "growth_limit", "peak", "reason"]

GROWTH_LIMIT = 1e6


def peak(y: Tensor) -> Tensor:
    """Return the largest absolute component of each member, NaN aside, `(N,)` for `(N, *S)`."""
    size = y.abs().reshape(len(y), math.prod(y.shape[1:]))
    return torch.where(torch.isnan(size), 0.0, size).amax(dim=1)


def growth_limit(start: Tensor) -> Tensor:
    """Return how large members may become, `(N,)`, by their initial states, `(N, *S)`."""
    return GROWTH_LIMIT * (1.0 + peak(start))


def blown_up(y: Tensor, start: Tensor) -> Tensor:
    """Return which states are infinite or out of all proportion to where they started.

    Arguments:
        y: States, with shape `(N, *S)`; a NaN alone does not count.
        start: Initial states, with shape `(N, *S)`.

    Returns:
        Truth values, with shape `(N,)`.

    Example:
        >>> blown_up(torch.tensor([[2.0], [1e9], [torch.nan]]), torch.ones(3, 1))
        tensor([False,  True, False])
    """
    return peak(y) > growth_limit(start)


class _Watch:
    """A right-hand side that notes whose first number that is not finite is the field's NaN."""

    def __init__(self, rhs: RHS, start: Tensor) -> None:
        self._rhs, self._start = rhs, start
        self.seen = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        self.nan = self.seen.clone()

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        k = self._rhs(t, y)
        overflow = blown_up(y, self._start) | ~finite_rows(y) | torch.isinf(peak(k))
        self.nan |= ~finite_rows(k) & ~overflow & ~self.seen
        self.seen |= ~finite_rows(k)
        return k


@torch.no_grad()
def reason(front: Front, i: int, level: int, rule: Rule, start: Tensor) -> Tensor:
    """Cross an interval once more, watching, and say why members cannot.

    Arguments:
        front: The members that failed, at the start of the interval.
        i: Which interval.
        level: The highest level that they were tried at.
        rule: How to step.
        start: Their initial states, with shape `(K, *S)`.

    Returns:
        The `Status` of each, int8, with shape `(K,)`.
    """
    watch = _Watch(front.members.rhs, start)
    known = finite_rows(front.k)
    step = rule.cross(front.members, i, front.y, front.k, level, watch)
    stays = known & finite_rows(step.y) & ~watch.seen & ~blown_up(step.y, start)
    field_nan = torch.where(known, watch.nan, ~torch.isinf(peak(front.k)))
    field_nan = field_nan & ~blown_up(front.y, start)
    status = torch.where(field_nan, int(Status.nonfinite), int(Status.diverged))
    return torch.where(stays, int(Status.max_steps), status).to(torch.int8)
