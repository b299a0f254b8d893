"""March a batch by its kernel, and take over where the kernel gives up on a member."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hybridgen.integrate.kernel import Kernel
from hybridgen.integrate.marching import march
from hybridgen.integrate.pace import Schedule, pick_schedule
from hybridgen.integrate.rule import Rule
from hybridgen.integrate.solution import Status
from hybridgen.integrate.trace import Front, Trace

__all__ = ["march_compiled"]


@torch.no_grad()
def march_compiled(
    kernel: Kernel, front: Front, rule: Rule, given: list[int] | None, trace: Trace, intervals: int
) -> tuple[Tensor, list[int]]:
    """Take members to the end of the grid by a kernel and record how they fared.

    Arguments:
        kernel: The compiled field of the members at the start.
        front: These members.
        rule: How to step.
        given: Substeps of each interval; `None` to pick them on a pilot.
        trace: Receives status, steps and how far each member came.
        intervals: How many intervals there are.

    Returns:
        All trajectories, with shape `(N, T, *S)`, and the schedule that they obeyed.
    """
    schedule = given or pick_schedule(front, intervals, rule, kernel)
    out = kernel.march(front.y, front.k, schedule)
    ids = front.ids
    everybody = slice(None) if len(ids) == len(trace.y0) else ids
    trace.reached[everybody] = out.reached
    trace.n_steps[everybody] += out.spent
    trace.status[everybody] = out.status
    y = out.y
    if len(ids) < len(trace.y0):
        y = trace.y0.new_full((len(trace.y0), *out.y.shape[1:]), torch.nan)
        y[:, 0], y[ids] = trace.y0, out.y
    again = _spent(out.spent, rule)
    _look_for_events(front, y, trace, again)
    # A kernel counts steps, but does not say when they were used up.
    _take_over(
        front, again.nonzero()[:, 0], 0, y, schedule, replace(rule, max_explicit=None), trace
    )
    left = (out.status == Status.max_steps) & ~again
    if not bool(left.any()):
        return y, schedule
    left &= trace.reached[ids] == out.reached
    for i in out.reached[left].unique().tolist():
        rows = (left & (out.reached == i)).nonzero()[:, 0]
        _take_over(front, rows, i, y, schedule, rule, trace, rule.stiff)
    return y, schedule


def _spent(steps: Tensor, rule: Rule) -> Tensor:
    """Return which members have taken more steps than they may, both with shape `(K,)`."""
    if rule.max_steps is None:
        return torch.zeros_like(steps, dtype=torch.bool)
    return steps > rule.max_steps


def _look_for_events(front: Front, y: Tensor, trace: Trace, but: Tensor) -> None:
    """End trajectories of shape `(N, T, *S)` at their events, but for members in `but`, `(K,)`."""
    if trace.watch is None:
        return
    rows = (~but).nonzero()[:, 0]
    members, ids = front.members.take(rows), front.ids[rows]
    for i in range(y.shape[1] - 1):
        trace.watch.pass_by(members, ids, i, y[ids, i + 1])
    if trace.watch.event.terminal:
        ended = ids[trace.watch.interval[ids] >= 0]
        trace.reached[ended] = trace.watch.interval[ended]
        # What became of it after that is nobody's business.
        trace.status[ended] = trace.status[ended].clamp(max=int(Status.retried))
        late = torch.arange(y.shape[1], device=y.device) > trace.reached[ended][:, None]
        y[ended] = torch.where(
            late.reshape(*late.shape, *(1,) * (y.ndim - 2)), torch.nan, y[ended]
        )


def _take_over(
    front: Front,
    rows: Tensor,
    i: int,
    y: Tensor,
    schedule: list[int],
    rule: Rule,
    trace: Trace,
    level: int = 1,
) -> None:
    """March on without the kernel with members `rows`, `(J,)`, from interval `i`."""
    if not len(rows):
        return
    members, ids, start = front.members.take(rows), front.ids[rows], y[front.ids[rows], i]
    k = members.rhs(members.time(i).to(start.dtype), start)
    watch = None if trace.watch is None else trace.watch.take(ids)
    everybody = torch.arange(len(ids), device=ids.device)
    alone = Trace.begin(start, len(schedule) + 1, watch)
    if watch is not None:
        watch.start(members, everybody, i, start)
    alone.save(everybody, start)
    if level == rule.stiff:
        alone.n_steps[:] = trace.n_steps[ids]
    ahead = Front(members, everybody, start, k, torch.full_like(everybody, level))
    march(ahead, Schedule(schedule), range(i, len(schedule)), rule, alone)
    y[ids, i:] = alone.stack(len(schedule) + 1 - i)
    trace.status[ids], trace.reached[ids] = alone.status, alone.reached
    trace.n_steps[ids] = alone.n_steps
    if trace.watch is not None and watch is not None:
        trace.watch.put(ids, watch)
