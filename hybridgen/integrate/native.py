r"""Integrate a batch of initial value problems, member by member answerable.

Solves :math:`dy/dt = f(t, y, \mathrm{args})`, :math:`y(t_0) = y_0` on a grid of save times by an
explicit Runge-Kutta method whose steps end on the grid. A batch shares the number of substeps an
interval, picked on a pilot of at most 64 members and then verified for every one; a member that
fails is repeated alone, and if nothing helps it ends as NaN with a `Status`. It neither raises nor
touches the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridgen.integrate.checks import (
    check_level,
    check_method,
    check_start,
    check_times,
    check_tolerance,
    levels,
)
from hybridgen.integrate.compilation import Compile, check_compile, choose
from hybridgen.integrate.compiled import march_compiled
from hybridgen.integrate.diagnosis import reason
from hybridgen.integrate.marching import march
from hybridgen.integrate.members import Field, Members, nan_members
from hybridgen.integrate.pace import Pilot, Schedule, pick_schedule
from hybridgen.integrate.rollout import rollout
from hybridgen.integrate.rule import Rule
from hybridgen.integrate.solution import Solution, Status
from hybridgen.integrate.stepping import Tolerance, finite_rows
from hybridgen.integrate.trace import Front, Trace

__all__ = ["integrate", "solve"]


def solve(
    field: Field,
    y0: Tensor,
    t: Tensor,
    args: Any = None,
    *,
    method: str = "tsit5",
    rtol: float = 1e-6,
    atol: float = 1e-8,
    max_substeps: int = 256,
    substeps: int | Sequence[int] | Tensor | None = None,
    batch_dims: int = 1,
    compile: Compile = "auto",
) -> Solution:
    """Integrate a batch of initial value problems.

    `"tsit5"` keeps the error of each substep within `atol + rtol |y|`, as a root mean square over
    the state. `"grid_rk4"` takes `substeps` steps an interval, one by default, unverified: it is
    the roll-out for training. Gradients go through the steps taken, by plain autograd.

    Arguments:
        field: The right-hand side, `field(t, y, args) -> dy/dt`, shaped like `y`. It gets `t` with
            shape `()`, or `(*B)` for times of their own. The solver calls it on the whole batch
            and on parts of it, `(K, 1, ..., 1, *S)` with as many axes as `B`.
        y0: Initial states, with shape `(*B, *S)`.
        t: Save times, the first that of `y0`, strictly increasing or strictly decreasing, with
            shape `(T,)`, or `(*B, T)` for members with times of their own.
        args: Passed to the field as it is. On a part of the batch, tensors in it (also in tuples,
            lists and dicts) whose leading axes are `B` are indexed alike.
        method: `"tsit5"` or `"grid_rk4"`.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in the units of the state.
        max_substeps: The most substeps that an interval may get.
        substeps: Substeps of each interval, one number or `T - 1` of them, instead of a pilot. A
            member's result then depends on its own inputs alone.
        batch_dims: How many leading axes of `y0` are batch axes.
        compile: Whether to make a kernel of the field: many times faster, on a CPU, without
            gradients. `"auto"` does where it can and the batch repays the second that it takes.

    Returns:
        The trajectories, with shape `(*B, T, *S)`, and the status of each member.

    Raises:
        UnsupportedError: If `compile=True` and the field cannot be compiled, with the reason.
        ShapeError: If `y0` or `t` have a wrong shape or dtype.
        DataError: If the times are not strictly monotone, or NaN.
        ConfigError: If the method, a tolerance or a number of substeps is unknown or out of range.
        ExpertError: If the field returns another shape or dtype than the state's.

    Example:
        >>> y0 = torch.tensor([[1.0], [2.0], [torch.nan]])
        >>> solution = solve(lambda t, y, rate: -rate * y, y0, torch.linspace(0, 1, 3), 0.5)
        >>> solution.y[:, -1, 0]
        tensor([0.6065, 1.2131,    nan])
        >>> [Status(code).name for code in solution.status.tolist()]
        ['ok', 'ok', 'nonfinite']
    """
    allowed = Tolerance(check_tolerance("rtol", rtol), check_tolerance("atol", atol))
    how = (method, allowed, max_substeps, substeps, batch_dims, compile)
    return integrate(field, y0, t, args, *how)


def integrate(
    field: Field,
    y0: Tensor,
    t: Tensor,
    args: Any,
    method: str,
    tolerance: Tolerance,
    max_substeps: int,
    substeps: int | Sequence[int] | Tensor | None,
    batch_dims: int,
    compile: Compile = False,
) -> Solution:
    """Do what `solve` does, with tolerances that may differ between components of the state.

    Arguments:
        field: As for `solve`.
        y0: Initial states, with shape `(*B, *S)`.
        t: Save times, with shape `(T,)` or `(*B, T)`.
        args: As for `solve`.
        method: As for `solve`.
        tolerance: The error allowed.
        max_substeps: As for `solve`.
        substeps: As for `solve`.
        batch_dims: As for `solve`.
        compile: As for `solve`.

    Returns:
        The trajectories, with shape `(*B, T, *S)`, and the status of each member.

    Raises:
        ConfigError: If the method is unknown.
    """
    tableau = check_method(method)
    batch = check_start(y0, batch_dims)
    check_times(t, y0, batch)
    intervals = t.shape[-1] - 1
    flat = y0.reshape(batch.numel(), *y0.shape[batch_dims:])
    times = t if t.ndim == 1 else t.reshape(batch.numel(), intervals + 1)
    members = Members(field, args, times, batch)
    bad = ~finite_rows(flat) | nan_members(args, batch, y0.device)
    bad = bad | torch.isnan(times).any(dim=-1)
    given = None if substeps is None else levels(substeps, intervals)
    if tableau.fsal:
        rule = Rule(tableau, tolerance, check_level("max_substeps", max_substeps))
        end = _verified(members, flat, bad, rule, given, compile)
    else:
        schedule = given or [1] * intervals
        y, status, reached = rollout(members, flat, bad, tableau, schedule)
        end = _End(y, status, reached, torch.where(bad, 0, sum(schedule)), schedule)
    found = end.reached.clamp(min=0)
    last = times[found] if t.ndim == 1 else times.gather(1, found[:, None])[:, 0]
    return Solution(
        y=end.y.reshape(batch + end.y.shape[1:]),
        status=end.status.reshape(batch),
        t_reached=torch.where(end.reached < 0, torch.nan, last).reshape(batch),
        n_steps=end.n_steps.reshape(batch),
        substeps=torch.tensor(end.schedule, dtype=torch.int64),
        compiled=end.compiled,
    )


class _End(NamedTuple):
    """How N members fared: see `Solution`; `reached` are indices of save times, -1 for none."""

    y: Tensor
    status: Tensor
    reached: Tensor
    n_steps: Tensor
    schedule: list[int]
    compiled: bool = False


def _verified(
    members: Members,
    y0: Tensor,
    bad: Tensor,
    rule: Rule,
    given: list[int] | None,
    compile: Compile,
) -> _End:
    """Integrate states `(N, *S)` within the tolerance; members in `bad`, `(N,)`, are lost."""
    intervals = members.t.shape[-1] - 1
    trace = Trace.begin(y0, intervals + 1)
    front = _depart(members, y0, bad, rule, trace, intervals)
    kernel = choose(check_compile(compile), front, intervals, rule)
    if kernel is None:
        trace, schedule = _march(front, rule, given, trace, intervals)
        y = trace.stack(intervals + 1)
    else:
        y, schedule = march_compiled(kernel, front, rule, given, trace, intervals)
    told = trace.status, trace.reached, trace.n_steps
    return _End(y, *told, schedule, compiled=kernel is not None)


def _march(
    front: Front, rule: Rule, given: list[int] | None, trace: Trace, intervals: int
) -> tuple[Trace, list[int]]:
    """Return the record of all members, and the schedule that it obeyed."""
    if given is None and intervals and len(front.ids):
        pilot, attempt = Pilot(rule), trace.copy()
        if march(front, pilot, range(intervals), rule, attempt):
            return attempt, pilot.levels
        given = pick_schedule(front, intervals, rule)
    schedule = [1] * intervals if given is None else given
    march(front, Schedule(schedule), range(intervals), rule, trace)
    return trace, schedule


def _depart(
    members: Members, y0: Tensor, bad: Tensor, rule: Rule, trace: Trace, intervals: int
) -> Front:
    """Return the front of the members that can start; the others, of `(N,)`, are recorded."""
    ids, finite = torch.arange(len(y0), device=y0.device), finite_rows(y0)
    if bool(bad.any()):
        trace.lose(ids[bad], bad.new_full((), Status.nonfinite, dtype=torch.int8), 0)
        trace.reached[~finite] = -1
        trace.save(ids[finite], y0[finite])
        ids = ids[~bad]
        members, y0 = members.take(ids), y0[ids]
    else:
        trace.save(ids, y0)
    if not intervals or not len(ids):
        return Front(members, ids, y0, y0)
    front = Front(members, ids, y0, _slope(members, y0))
    able = finite_rows(front.k)
    if bool(able.all()):
        return front
    unable = front.take((~able).nonzero().squeeze(1))
    trace.lose(unable.ids, reason(unable, 0, 1, rule, unable.y), 0)
    front = front.take(able.nonzero().squeeze(1))
    if not len(front.ids):
        return front
    # Called again, since the first call's graph holds the numbers that are not finite.
    return front._replace(k=_slope(front.members, front.y))


def _slope(members: Members, y0: Tensor) -> Tensor:
    """Return the derivative of initial states, both with shape `(N, *S)`."""
    return members.rhs(members.time(0).to(y0.dtype.to_real()), y0)
