r"""Integrate a batch of initial value problems, member by member answerable.

Solves :math:`dy/dt = f(t, y, \mathrm{args})`, :math:`y(t_0) = y_0` on a grid of save times by an
explicit Runge-Kutta method whose steps end on the grid. A batch shares the number of substeps an
interval, picked on a pilot of at most 64 members and then verified for every one; a member that
fails is repeated alone, and if nothing helps it ends as NaN with a `Status`. It neither raises nor
touches the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Size, Tensor

from hybridgen.errors import UnsupportedError
from hybridgen.integrate.checks import (
    check_start,
    check_times,
    check_tolerance,
    levels,
)
from hybridgen.integrate.compilation import Compile, choose, choose_roll
from hybridgen.integrate.compiled import march_compiled
from hybridgen.integrate.diagnosis import reason
from hybridgen.integrate.diffusion import Diffusion
from hybridgen.integrate.etdrk4 import etdrk4_rollout
from hybridgen.integrate.events import Event, Watch, check_event
from hybridgen.integrate.locating import locate
from hybridgen.integrate.marching import march
from hybridgen.integrate.members import Field, Members, nan_members
from hybridgen.integrate.pace import Pilot, Schedule, pick_schedule
from hybridgen.integrate.plan import Plan
from hybridgen.integrate.rollout import Roll, checkpointed, rollout, steps
from hybridgen.integrate.rosenbrock import handles
from hybridgen.integrate.rule import Rule
from hybridgen.integrate.solution import Solution, Status
from hybridgen.integrate.stepping import Tolerance, finite_rows
from hybridgen.integrate.tableaus import RK4, TSIT5, Tableau
from hybridgen.integrate.trace import Front, Trace

__all__ = ["integrate", "solve"]

EXPLICIT = 48
"""See `_rule`."""


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
    max_steps: int | None = None,
    substeps: int | Sequence[int] | Tensor | None = None,
    linear: Diffusion | None = None,
    event: Event | Callable[[Tensor, Tensor, Any], Tensor] | None = None,
    batch_dims: int = 1,
    compile: Compile = "auto",
    checkpoint: Literal["interval"] | None = None,
) -> Solution:
    """Integrate a batch of initial value problems.

    `"tsit5"` keeps the error of a substep within `atol + rtol |y|`, root mean square over states;
    `"grid_rk4"` and `"etdrk4"` take `substeps` steps an interval, unverified, one by default.

    Arguments:
        field: The right-hand side, `field(t, y, args) -> dy/dt`, with `t` of shape `()`, or `(*B)`
            for times of their own. It is also called on parts, `(K, 1, ..., 1, *S)`.
        y0: Initial states, with shape `(*B, *S)`.
        t: Save times, strictly monotone, the first that of `y0`, with shape `(T,)` or `(*B, T)`.
        args: Passed to the field as it is. On a part of the batch, tensors in it (also in tuples,
            lists and dicts) whose leading axes are `B` are indexed alike.
        method: `"tsit5"`, `"grid_rk4"` or `"etdrk4"`.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in the units of the state.
        max_substeps: The most explicit substeps of an interval; then comes the stiff method.
        max_steps: After how many substeps in all a member ends, with that status; else never.
        substeps: Substeps of each interval, one number or `T - 1` of them, instead of a pilot.
        linear: The part of the field that `"etdrk4"` solves exactly.
        event: A function `g(t, y, args)`, zero where a member ends, of shape `(*B)`, or `Event`.
        batch_dims: How many leading axes of `y0` are batch axes.
        compile: Whether to make a kernel of the field; `"auto"` does where it can and that pays.
        checkpoint: `"interval"` keeps states at save times alone; a backward pass steps again.

    Returns:
        The trajectories, with shape `(*B, T, *S)`, and the status of each member.

    Raises:
        UnsupportedError: If `compile=True` and no kernel can be had, or `checkpoint` cannot.
        ShapeError: If `y0` or `t` have a wrong shape or dtype.
        DataError: If the times are not strictly monotone, or NaN.
        ConfigError: If a setting is unknown, out of range, or does not go with the method.
        ExpertError: If the field returns another shape or dtype than the state's.

    Example:
        >>> y0, t = torch.tensor([[1.0], [torch.nan]]), torch.linspace(0, 1, 3)
        >>> solve(lambda t, y, rate: -rate * y, y0, t, 0.5).y[:, -1, 0]
        tensor([0.6065,    nan])
    """
    allowed = Tolerance(check_tolerance("rtol", rtol), check_tolerance("atol", atol))
    how = (method, max_substeps, max_steps, substeps, linear, check_event(event), batch_dims)
    return integrate(field, y0, t, args, Plan(allowed, *how, compile, checkpoint))


def integrate(field: Field, y0: Tensor, t: Tensor, args: Any, plan: Plan) -> Solution:
    """Do what `solve` does, with tolerances that may differ between components of the state.

    Arguments:
        field: As for `solve`.
        y0: Initial states, with shape `(*B, *S)`.
        t: Save times, with shape `(T,)` or `(*B, T)`.
        args: As for `solve`.
        plan: The method and its settings.

    Returns:
        The trajectories, with shape `(*B, T, *S)`, and the status of each member.
    """
    batch = check_start(y0, plan.batch_dims)
    check_times(t, y0, batch)
    intervals = t.shape[-1] - 1
    flat = y0.reshape(batch.numel(), *y0.shape[plan.batch_dims :])
    times = t if t.ndim == 1 else t.reshape(batch.numel(), intervals + 1)
    members = Members(field, args, times, batch)
    bad = ~finite_rows(flat) | nan_members(args, batch, y0.device)
    bad = bad | torch.isnan(times).any(dim=-1)
    given = None if plan.substeps is None else levels(plan.substeps, intervals)
    if plan.adaptive:
        end = _verified(members, flat, bad, plan, given)
    else:
        end = _rolled(members, flat, bad, plan, given or [1] * intervals)
    return _solution(end, times, batch)


def _solution(end: _End, t: Tensor, batch: Size) -> Solution:
    """Return what is known of N members, with times `(T,)` or `(N, T)`, by the batch axes."""
    found = end.reached.clamp(min=0)
    last = t[found] if t.ndim == 1 else t.gather(1, found[:, None])[:, 0]
    when, where = end.events or (None, None)
    return Solution(
        y=end.y.reshape(batch + end.y.shape[1:]),
        status=end.status.reshape(batch),
        t_reached=torch.where(end.reached < 0, torch.nan, last).reshape(batch),
        n_steps=end.n_steps.reshape(batch),
        substeps=torch.tensor(end.schedule, dtype=torch.int64),
        compiled=end.compiled,
        t_event=None if when is None else when.reshape(batch),
        y_event=None if where is None else where.reshape(batch + where.shape[1:]),
    )


class _End(NamedTuple):
    """How N members fared: see `Solution`; `reached` are indices of save times, -1 for none."""

    y: Tensor
    status: Tensor
    reached: Tensor
    n_steps: Tensor
    schedule: list[int]
    compiled: bool = False
    events: tuple[Tensor, Tensor] | None = None


def _rolled(members: Members, y0: Tensor, bad: Tensor, plan: Plan, schedule: list[int]) -> _End:
    """Integrate states `(N, *S)` by a schedule; members in `bad`, `(N,)`, are lost."""
    if plan.linear is None:
        roll = _roll(plan, y0, len(schedule))
        y, status, reached = rollout(members, y0, bad, RK4, schedule, roll)
    else:
        y, status, reached = etdrk4_rollout(members, y0, bad, plan.linear, schedule)
    return _End(y, status, reached, torch.where(bad, 0, sum(schedule)), schedule)


def _roll(plan: Plan, y0: Tensor, intervals: int) -> Roll:
    """Return what takes states `(N, *S)` over all intervals and keeps what it is told to."""
    roll = choose_roll(plan.compile, y0, intervals)
    if plan.checkpoint is None or plan.compile is True:
        return roll
    if roll is steps:
        return checkpointed
    compiled = choose_roll(True, y0, intervals)

    def either(members: Members, y: Tensor, tableau: Tableau, schedule: Sequence[int]) -> Tensor:
        try:
            return compiled(members, y, tableau, schedule)
        except UnsupportedError:
            return checkpointed(members, y, tableau, schedule)

    return either


def _rule(plan: Plan, y0: Tensor) -> Rule:
    """Return the rule for states `(N, *S)`.

    Without a kernel, members that do not follow the batch are few, and each substep costs a trip
    through torch: beyond 48, steps of the stiff method are cheaper than what they replace. Each
    takes a Jacobian, which costs as many trips as there are components.
    """
    most = max(EXPLICIT, 2 * math.prod(y0.shape[1:]))
    top = min(plan.max_substeps, most) if handles(y0) else plan.max_substeps
    keep_less = plan.checkpoint is not None
    return Rule(TSIT5, plan.tolerance, plan.max_substeps, top, plan.max_steps, keep_less)


def _verified(
    members: Members, y0: Tensor, bad: Tensor, plan: Plan, given: list[int] | None
) -> _End:
    """Integrate states `(N, *S)` within the tolerance; members in `bad`, `(N,)`, are lost."""
    intervals, rule = members.t.shape[-1] - 1, _rule(plan, y0)
    watch = None if plan.event is None else Watch.begin(plan.event, y0)
    trace = Trace.begin(y0, intervals + 1, watch)
    front = _depart(members, y0, bad, rule, trace, intervals)
    if watch is not None:
        watch.start(front.members, front.ids, 0, front.y)
    kernel = choose(plan.compile, front, intervals, rule)
    if kernel is None:
        trace, schedule = _march(front, rule, given, trace, intervals)
        y = trace.stack(intervals + 1)
    else:
        y, schedule = march_compiled(kernel, front, rule, given, trace, intervals)
    told = trace.status, trace.reached, trace.n_steps
    events = None if trace.watch is None else locate(members, y, trace.watch, rule)
    return _End(y, *told, schedule, compiled=kernel is not None, events=events)


def _march(
    front: Front, rule: Rule, given: list[int] | None, trace: Trace, intervals: int
) -> tuple[Trace, list[int]]:
    """Return the record of all members, and the schedule that it obeyed."""
    if given is None and intervals and len(front.ids):
        pilot, attempt = Pilot(rule), trace.copy()
        if march(front, pilot, range(intervals), rule, attempt):
            rest = [1] * (intervals - len(pilot.levels))  # where nobody was left
            return attempt, pilot.levels + rest
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
