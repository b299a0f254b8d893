r"""Tell members that diverge within an interval from those that are hard, by few steps.

Steps in time shrink to nothing before a pole; steps along the curve of the solution do not. With
its length s, where the interval is T long and the state Y large, and :math:`\tau` what share of
the interval is over,

.. math::
    \frac{d\tau}{ds} = \frac{1}{v}, \quad \frac{dy}{ds} = \frac{T f}{v}, \qquad
    v = \sqrt{1 + (T |f| / Y)^2}, \quad Y = 1 + \max |y(t_0)|,

a solution that goes to infinity becomes a straight line, along which some thirty steps lead as far
as it takes. A member *runs away* if its state exceeds the limit of divergence and, growing on at
the rate that it has there, would overflow before the end of the interval.

References:
    Numerical method of estimating the blow-up time and rate of the solution of ordinary
    differential equations (Hirota and Ozawa, 2006), doi:10.1016/j.cam.2005.04.069
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Size, Tensor

from hybridgen.integrate.diagnosis import growth_limit, peak
from hybridgen.integrate.jacobian import Local, together
from hybridgen.integrate.rule import Rule
from hybridgen.integrate.stepping import Tolerance, advance
from hybridgen.integrate.trace import Front

__all__ = ["runs_away"]

MOST, STILL = 64, 16
"""How many steps a member may try, and how many as long as it stays where it was."""
FIRST = 0.125
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0
TIMING = 1e-6
"""The error that is allowed in time, as a share of the interval."""


@torch.no_grad()
def runs_away(front: Front, i: int, rule: Rule, start: Tensor) -> Tensor:
    """Return which members diverge in an interval, as far as this can be told soon.

    Arguments:
        front: Members that did not cross, at the start of the interval.
        i: Which interval.
        rule: How to step.
        start: Their initial states, with shape `(K, *S)`.

    Returns:
        Truth values, with shape `(K,)`.

    Example:
        >>> from hybridgen.integrate.members import Members
        >>> from hybridgen.integrate.tableaus import TSIT5
        >>> t, y = torch.tensor([0.0, 0.1]), torch.tensor([[9.0], [11.0]])
        >>> members = Members(lambda t, y, _: y * y, None, t, Size([2]))
        >>> front = Front(members, torch.arange(2), y, y * y)
        >>> runs_away(front, 0, Rule(TSIT5, Tolerance(1e-5, 1e-5), 256), y)
        tensor([False,  True])
    """
    away = torch.zeros_like(front.ids, dtype=torch.bool)
    if front.y.is_complex() or not front.y.numel():
        return away
    live, limit = torch.arange(len(away), device=away.device), growth_limit(start)
    curve = _Curve.begin(front, i, rule)
    x = torch.cat([front.y.flatten(1), torch.zeros_like(limit)[:, None]], dim=1)
    k, size = curve.rhs(x), torch.full_like(limit, FIRST)
    for n in range(MOST):
        x, k, size = curve.step(x, k, size)
        height = peak(x[:, :-1])
        far = height > limit[live]
        away[live[far & _overflows(x, k, height)]] = True
        going = ~far & (x[:, -1] < 1.0)
        if n >= STILL:
            going = going & (height > curve.width)
        rows = going.nonzero()[:, 0]
        if not len(rows):
            break
        if len(rows) < len(live):
            x, k, size, live, curve = x[rows], k[rows], size[rows], live[rows], curve.take(rows)
    return away


def _overflows(x: Tensor, k: Tensor, height: Tensor) -> Tensor:
    """Return which members overflow before the end of the interval if they grow on as they do.

    Arguments:
        x: Where they are, with shape `(N, D + 1)`.
        k: Its derivative by the length, with shape `(N, D + 1)`.
        height: The largest component of the states, with shape `(N,)`.
    """
    growth = peak(k[:, :-1]) / (k[:, -1] * height) * (1.0 - x[:, -1])
    return growth > math.log(torch.finfo(x.dtype).max)


@dataclass(frozen=True)
class _Curve:
    """The curves of members through state and time, `x = (y, tau)`, with shape `(N, D + 1)`.

    Arguments:
        local: The members.
        rule: How to step.
        tolerance: The error allowed in x.
        shape: The shape of a state, `S`.
        t0: When the interval starts, with shape `(N,)`.
        length: How long it is, with shape `(N,)`.
        width: How large the states are at its start, with shape `(N,)`.
    """

    local: Local
    rule: Rule
    tolerance: Tolerance
    shape: Size
    t0: Tensor
    length: Tensor
    width: Tensor

    @classmethod
    def begin(cls, front: Front, i: int, rule: Rule) -> _Curve:
        """Return the curves of members over interval `i`."""
        members, y, shape = front.members, front.y, front.y.shape[1:]
        t0, t1 = (members.time(j).expand(len(y)) for j in (i, i + 1))
        local = Local(members, together(members, t0, t1, y))
        given = ((rule.tolerance.rtol, 0.0), (rule.tolerance.atol, TIMING))
        rtol, atol = (
            torch.cat([torch.as_tensor(each).to(y).expand(shape).flatten(), y.new_tensor([last])])
            for each, last in given
        )
        return cls(local, rule, Tolerance(rtol, atol), shape, t0, t1 - t0, 1.0 + peak(y))

    def take(self, rows: Tensor) -> _Curve:
        """Return the curves of some of these members, with shape `(J,)`."""
        t0, length, width = (each[rows] for each in (self.t0, self.length, self.width))
        local = self.local.take(rows)
        return _Curve(local, self.rule, self.tolerance, self.shape, t0, length, width)

    def rhs(self, x: Tensor) -> Tensor:
        """Return the derivative of x by the length, with its shape."""
        t = self.t0 + self.length * x[:, -1].to(self.t0)
        f = self.local.rhs(t, x[:, :-1].reshape(-1, *self.shape)).flatten(1)
        f = f * self.length.to(f)[:, None]
        v = torch.sqrt(1.0 + (f / self.width[:, None]).square().sum(dim=1, keepdim=True))
        return torch.cat([f / v, 1.0 / v], dim=1)

    def step(self, x: Tensor, k: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Try steps of lengths `(N,)`; return place, derivative and the lengths to try next."""
        tableau, begin = self.rule.tableau, torch.zeros_like(size)
        x1, k1, error = advance(
            lambda _, at: self.rhs(at), tableau, begin, size, x, k, 1, self.tolerance
        )
        if k1 is None or error is None:
            raise ValueError(f"{tableau.name} has no error estimate to step by")
        good = (error <= 1.0)[:, None]
        factor = SAFETY * error.clamp(min=1e-10) ** (-1.0 / tableau.order)
        size = size * torch.nan_to_num(factor, nan=SHRINK).clamp(SHRINK, GROW)
        return torch.where(good, x1, x), torch.where(good, k1, k), size
