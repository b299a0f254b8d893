"""March a batch by its kernel, and take over where the kernel gives up on a member."""

from __future__ import annotations

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
    trace.reached[ids] = out.reached
    trace.n_steps[ids] += out.spent
    trace.status[ids] = torch.where(out.retried > 0, int(Status.retried), int(Status.ok)).to(
        trace.status
    )
    y = out.y
    if len(ids) < len(trace.y0):
        y = trace.y0.new_full((len(trace.y0), *out.y.shape[1:]), torch.nan)
        y[:, 0], y[ids] = trace.y0, out.y
    for i in out.reached[out.reached < intervals].unique().tolist():
        _take_over(front, (out.reached == i).nonzero()[:, 0], i, y, schedule, rule, trace)
    return y, schedule


def _take_over(
    front: Front,
    rows: Tensor,
    i: int,
    y: Tensor,
    schedule: list[int],
    rule: Rule,
    trace: Trace,
) -> None:
    """March on with members `rows`, for which the kernel has no level to cross interval `i`."""
    members, ids, start = front.members.take(rows), front.ids[rows], y[front.ids[rows], i]
    k = members.rhs(members.time(i).to(start.dtype), start)
    alone = Trace.begin(start, len(schedule) + 1)
    everybody = torch.arange(len(ids))
    alone.save(everybody, start)
    stiff = torch.full_like(everybody, rule.stiff)
    ahead = Front(members, everybody, start, k, stiff)
    march(ahead, Schedule(schedule), range(i, len(schedule)), rule, alone)
    y[ids, i:] = alone.stack(len(schedule) + 1 - i)
    trace.status[ids], trace.reached[ids] = alone.status, alone.reached
    trace.n_steps[ids] += alone.n_steps
