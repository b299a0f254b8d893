r"""Cross an interval with members that are stiff, each by steps of its own.

Where a component decays fast, explicit steps must be short long after it is gone. A Rosenbrock
method is not bound by that: its steps are as long as the error of :math:`y` allows. Each member
starts with the whole interval; the error :math:`\epsilon` of a step, in the norm of the tolerance,
asks for the next one,

.. math:: h' = h \, \mathrm{clip}\bigl(0.9 \, \epsilon^{-1/5},\; 0.2,\; 5\bigr),

rounded down to a fraction :math:`2^{-j/4}` of the interval. A member that is through leaves the
batch. Its path depends on its own numbers only.

Two passes make gradients right. The first finds the steps and records nothing; the second, only
where somebody wants a gradient, takes the accepted steps once more. The ladder of fractions makes
the steps piecewise constant functions of the input, so that the derivative of what was computed is
the derivative through these steps, that of the Jacobian included; and no number that is not finite
ever enters a graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from hybridgen.integrate.jacobian import Local, together
from hybridgen.integrate.members import Members
from hybridgen.integrate.rodas import RODAS5P, advance_stiff
from hybridgen.integrate.rule import Rule, Step
from hybridgen.integrate.stepping import Tolerance, finite_rows

__all__ = ["StiffStep", "cross_stiff", "handles"]

LIMIT = 512
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0
SMALLEST = 2.0**-50


class StiffStep(NamedTuple):
    """Where stiff members stand after an interval.

    Arguments:
        step: State, derivative and error; where a member failed, as it was at the start, with an
            error that is not finite.
        n_steps: Steps tried by each member, with shape `(N,)`.
        failed: Which members did not cross, with shape `(N,)`.
        pace: The step that each would try next, as a fraction of the interval, with shape `(N,)`.
    """

    step: Step
    n_steps: Tensor
    failed: Tensor
    pace: Tensor


def handles(y: Tensor) -> bool:
    """Return whether states, with shape `(N, *S)`, are real and of at most 512 components.

    Example:
        >>> handles(torch.zeros(3, 2)), handles(torch.zeros(3, 2, 32, 32))
        (True, False)
    """
    return y.is_floating_point() and 0 < math.prod(y.shape[1:]) <= LIMIT


def cross_stiff(
    members: Members,
    i: int,
    y: Tensor,
    k: Tensor,
    rule: Rule,
    max_steps: int,
    pace: Tensor | None = None,
) -> StiffStep:
    """Take stiff members over one interval by Rodas5P, a Rosenbrock method of order 5.

    Jacobians are exact, by differentiation of the field; where torch cannot differentiate it
    (numpy, `item()`, `detach()`) they are forward differences. Linear systems are dense: states of
    more than 512 components are not tried, and come back as failed after no step. A field that
    cannot be called for different members at different times is called on one after the other.

    Arguments:
        members: Who; their field and times.
        i: Which interval.
        y: Their state, with shape `(N, *S)`.
        k: Its derivative, with shape `(N, *S)`.
        rule: What error is allowed.
        max_steps: The most steps that a member may try.
        pace: Fractions of the interval to start with, with shape `(N,)`, such as those that the
            interval before came back with; otherwise the whole interval.

    Returns:
        State, derivative and error at the end of the interval, and who failed.

    References:
        Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia
        Differential Equations package (Steinebach, 2023), doi:10.1007/s10543-023-00967-x

    Example:
        >>> from hybridgen.integrate.tableaus import TSIT5
        >>> t, y, rate = torch.tensor([0.0, 1.0]), torch.ones(1, 1), torch.tensor([[1e5]])
        >>> field = lambda t, y, rate: rate * (torch.cos(t) - y)
        >>> members = Members(field, rate, t, torch.Size([1]))
        >>> rule = Rule(TSIT5, Tolerance(1e-3, 1e-6), 256)
        >>> crossed = cross_stiff(members, 0, y, members.rhs(t[0], y), rule, 100)
        >>> crossed.step.y, int(crossed.n_steps) < 10
        (tensor([[0.5403]]), True)
    """
    count, device = len(y), y.device
    if not (count and handles(y)):
        error = y.new_full((count,), torch.inf, dtype=y.dtype.to_real())
        spent = torch.zeros(count, dtype=torch.int64, device=device)
        ones = torch.ones(count, dtype=torch.float64, device=device)
        return StiffStep(Step(y, k, error), spent, spent == 0, ones if pace is None else pace)
    t0, t1 = members.time(i).expand(count), members.time(i + 1).expand(count)
    with torch.no_grad():
        local = Local(members, together(members, t0, t1, y))
        search = _Search(local, t0, t1, y, k, rule.tolerance, max_steps, pace)
        exact = search.run()
    y1, k1 = search.y, search.k
    if _tracked(y, k, t0, t1):
        y1, k1 = _retrace(Local(members, local.shared, exact), t0, t1, y, k, search, rule)
    step = Step(y1, k1, search.error.to(device, y.dtype))
    return StiffStep(step, *(x.to(device) for x in (search.spent, search.failed, search.size)))


@dataclass(frozen=True)
class _Leg:
    """Steps that members, with shape `(K,)`, took from one fraction of the interval to another."""

    rows: Tensor
    start: Tensor
    end: Tensor


class _Search:
    """Finds the steps of each member.

    What is decided stays on the host, in float64; the error of the members is all that is fetched
    from the device in a step. Arguments as for `cross_stiff`, times with shape `(N,)`.
    """

    def __init__(
        self,
        local: Local,
        t0: Tensor,
        t1: Tensor,
        y: Tensor,
        k: Tensor,
        tolerance: Tolerance,
        max_steps: int,
        pace: Tensor | None,
    ) -> None:
        count = len(y)
        self.local, self.t0, self.t1, self.tolerance = local, t0.detach(), t1.detach(), tolerance
        self.y, self.k, self.max_steps = y.detach().clone(), k.detach().clone(), max_steps
        self.done = torch.zeros(count, dtype=torch.float64)
        self.size = torch.ones_like(self.done) if pace is None else pace.detach().cpu().double()
        self.size = _rung(self.size.clamp(SMALLEST, 1.0))
        self.error = torch.zeros_like(self.done)
        self.spent = torch.zeros(count, dtype=torch.int64)
        self.failed = ~(finite_rows(self.y) & finite_rows(self.k)).cpu()
        self.error[self.failed] = torch.nan
        self.legs: list[_Leg] = []

    def run(self) -> bool:
        """Take all members as far as they come; return whether torch could differentiate."""
        live = (~self.failed).nonzero()[:, 0]
        local, y, k = self._start(live)
        exact = local.exact
        while len(live):
            start, end = self._aim(live)
            y1, k1, error = self._attempt(local, live, start, end, y, k)
            exact = local.exact
            good = error <= 1.0
            wide = good.reshape(-1, *(1,) * (y.ndim - 1))
            y, k = torch.where(wide, y1, y), torch.where(wide, k1, k)
            going = self._judge(live, start, end, error.cpu().double())
            if bool(going.all()):
                continue
            on = going.to(y.device)
            through = (~going & ~self.failed[live]).to(y.device)
            at = live.to(y.device)[through]
            self.y[at], self.k[at] = y[through], k[through]
            live, y, k = live[going], y[on], k[on]
            local = local.take(on.nonzero()[:, 0])
        return bool(exact)

    def _start(self, live: Tensor) -> tuple[Local, Tensor, Tensor]:
        if len(live) == len(self.y):
            return self.local, self.y, self.k
        rows = live.to(self.y.device)
        return self.local.take(rows), self.y[rows], self.k[rows]

    def _aim(self, live: Tensor) -> tuple[Tensor, Tensor]:
        """Return from where to where each member goes next, as fractions, `(K,)`."""
        start, size = self.done[live], self.size[live]
        left = 1.0 - start
        halved = torch.where(2.0 * size > left, start + 0.5 * left, start + size)
        return start, torch.where(size >= left, 1.0, halved)

    def _attempt(
        self, local: Local, live: Tensor, start: Tensor, end: Tensor, y: Tensor, k: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return state, derivative and error after a step, NaN where they are not finite."""
        rows = live.to(y.device)
        t0, t1 = self.t0[rows], self.t1[rows]
        y1, k1, e = _step(local, t0, t1, start, end, y, k, self.tolerance)
        scale = torch.maximum(y.abs(), y1.abs()) * self.tolerance.rtol + self.tolerance.atol
        error = self.tolerance.norm(e / scale)
        return y1, k1, torch.where(finite_rows(y1) & finite_rows(k1), error, torch.nan)

    def _judge(self, live: Tensor, start: Tensor, end: Tensor, error: Tensor) -> Tensor:
        """Record a step by its errors, `(K,)`; return who goes on, `(K,)`."""
        good = error <= 1.0
        self.spent[live] += 1
        self.legs.append(_Leg(live[good], start[good], end[good]))
        self.done[live[good]] = end[good]
        self.error[live[good]] = torch.maximum(self.error[live[good]], error[good])
        factor = SAFETY * error.clamp(min=1e-10) ** (-1.0 / RODAS5P.order)
        factor = torch.nan_to_num(factor, nan=SHRINK).clamp(SHRINK, GROW)
        # A step shortened by the end of the interval says nothing against the longer one.
        longer = torch.maximum((end - start) * factor, torch.where(good, self.size[live], 0.0))
        wanted = torch.where(factor < 1.0, (end - start) * factor, longer)
        self.size[live] = _rung(wanted.clamp(SMALLEST / 4.0, 1.0))
        arrived = good & (end >= 1.0)
        lost = ~arrived & ((self.spent[live] >= self.max_steps) | (self.size[live] < SMALLEST))
        self.failed[live[lost]] = True
        self.error[live[lost]] = (
            error[lost].new_full((), torch.inf).where(~torch.isnan(error[lost]), torch.nan)
        )
        return ~(arrived | lost)


def _step(
    local: Local,
    t0: Tensor,
    t1: Tensor,
    start: Tensor,
    end: Tensor,
    y: Tensor,
    k: Tensor,
    tolerance: Tolerance,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step from a fraction of the interval to another, both `(K,)`: state, derivative, error."""
    now = torch.lerp(t0, t1, start.to(t0))
    then = torch.lerp(t0, t1, end.to(t0))
    jacobian, slope = local.linearise(now, then, y, k, tolerance)
    y1, error = advance_stiff(local.rhs, RODAS5P, now, then, y, k, jacobian, slope)
    return y1, local.rhs(then, y1), error


def _retrace(
    local: Local, t0: Tensor, t1: Tensor, y: Tensor, k: Tensor, search: _Search, rule: Rule
) -> tuple[Tensor, Tensor]:
    """Take the steps of those that crossed, the n-th of all at once; return state, derivative."""
    for leg in _rounds(search):
        rows = leg.rows.to(y.device)
        whole = len(rows) == len(y)
        some = (local, t0, t1) if whole else (local.take(rows), t0[rows], t1[rows])
        y1, k1, _ = _step(*some, leg.start, leg.end, y[rows], k[rows], rule.tolerance)
        y, k = (y1, k1) if whole else (y.index_copy(0, rows, y1), k.index_copy(0, rows, k1))
    return y, k


def _rounds(search: _Search) -> list[_Leg]:
    """Return the accepted steps of those that crossed: all first ones, all second ones, ..."""
    legs = search.legs
    rows = torch.cat([leg.rows for leg in legs]) if legs else torch.zeros(0, dtype=torch.int64)
    if not len(rows):
        return []
    start, end = torch.cat([leg.start for leg in legs]), torch.cat([leg.end for leg in legs])
    order = torch.argsort(rows, stable=True)
    rows, start, end = rows[order], start[order], end[order]
    counts = torch.bincount(rows, minlength=len(search.y))
    turn = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    crossed = ~search.failed[rows]
    rounds = [crossed & (turn == n) for n in range(int(counts.max()))]
    return [_Leg(rows[n], start[n], end[n]) for n in rounds if bool(n.any())]


def _rung(size: Tensor) -> Tensor:
    """Return the largest power of the fourth root of 2 that does not exceed a fraction, `(N,)`."""
    return torch.exp2(torch.floor(4.0 * torch.log2(size) + 1e-9) / 4.0)


def _tracked(*tensors: Tensor) -> bool:
    """Return whether somebody follows a derivative through one of them, of any shape."""
    return any(
        (torch.is_grad_enabled() and x.requires_grad)
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        or forward_ad.unpack_dual(x).tangent is not None
        for x in tensors
    )
