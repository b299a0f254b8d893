r"""March a batch along the save grid, each member answerable for itself.

The schedule gives each interval a level, its number of substeps. All members cross the interval
at that level; those whose error is above 1 cross it again, alone, at a higher one, up to the
highest of the rule. A member for which no level helps is stiff, and goes on by a method for that,
unless it is found to diverge; if this does not help either, or its steps are used up, it leaves
the batch with a `Status`. Whoever passes a terminal event leaves the batch too, with the state
before it.

Members that stay at high levels cost a crossing for each of these. So in intervals 1, 2, 4, 8, ...
they try a single step of the stiff method, all at once, and whoever gets across goes on by it.

Two rules keep members apart. A member's path depends on its own numbers and on the schedule, never
on its neighbours: the level at which it starts the next interval is picked from its own error. And
no number that is not finite enters the graph of a member that goes on: where a crossing met one,
it is repeated without the member it belongs to, since in a backward pass even :math:`0 \cdot
\infty` would reach the parameters that all members share.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hybridgen.integrate.diagnosis import reason
from hybridgen.integrate.pace import Pace
from hybridgen.integrate.rosenbrock import StiffStep, cross_stiff
from hybridgen.integrate.rule import Rule, Step
from hybridgen.integrate.runaway import runs_away
from hybridgen.integrate.solution import Status
from hybridgen.integrate.trace import Front, Trace

__all__ = ["march"]

SHORTEST = 1e-3
"""How long steps must be, of what they must be on average, to be merely too many."""

HASTY = 1 / 16
"""How short the first step of an interval is, of the whole, if a pole may be near."""


def march(front: Front, pace: Pace, intervals: range, rule: Rule, trace: Trace) -> bool:
    """Take members over intervals of the grid and record how they fared.

    Arguments:
        front: The members at the start of the first interval.
        pace: The level of each interval.
        intervals: Which intervals.
        rule: How to step.
        trace: Receives states, status, steps and how far each member came.

    Returns:
        Whether the pace held; if not, the trace is of no use.
    """
    for i in intervals:
        if not len(front.ids):
            return True
        beyond = _Crossing(front, i, rule, trace).run(pace)
        if beyond is None:
            return False
        front = _without_ended(beyond, i, trace)
        trace.save(front.ids, front.y)
    return True


def _without_ended(front: Front, i: int, trace: Trace) -> Front:
    """Return the front at the end of an interval without those whose event was in it."""
    if trace.watch is None:
        return front
    ended = trace.watch.pass_by(front.members, front.ids, i, front.y)
    if not bool(ended.any()):
        return front
    ids = front.ids[ended]
    trace.lose(ids, trace.status[ids], i)
    return front.take((~ended).nonzero().squeeze(1))


class _Crossing:
    """One interval, crossed by every member at the level it needs.

    Arguments:
        front: The members at the start of the interval.
        i: Which interval.
        rule: How to step.
        trace: Receives status and steps.
    """

    def __init__(self, front: Front, i: int, rule: Rule, trace: Trace) -> None:
        self.front, self.i, self.rule, self.trace = front, i, rule, trace
        self.y, self.k = front.y, front.k
        self.rows = torch.arange(len(front.ids), device=front.ids.device)
        self.next = torch.ones_like(self.rows)
        self.pace: Tensor | None = None
        self.lost = torch.zeros_like(self.rows, dtype=torch.bool)
        self.queue: dict[int, Tensor] = {}
        self.level = 0

    def run(self, pace: Pace) -> Front | None:
        """Return the front at the end, without the lost; `None` if the pace is broken."""
        while True:
            self.level = pace.level(self.i)
            rows = self._ready()
            step = self._cross(rows, self.level)
            if pace.accepts(step.error):
                break
            if pace.broken:
                return None
        if rows is self.rows and self.rule.max_steps is None and bool((step.error <= 1.0).all()):
            self.trace.spend(self.front.ids, self.level)
            return self.front._replace(y=step.y, k=step.k, level=None, pace=None)
        self._enqueue_others()
        self._settle(rows, step, self.level)
        while self.queue:
            level = min(self.queue)
            rows = self.queue.pop(level)
            if level == self.rule.stiff:
                self._cross_stiff(rows)
            else:
                self._settle(rows, self._cross(rows, level), level)
        front = self.front._replace(y=self.y, k=self.k, level=self.next, pace=self.pace)
        return front.take((~self.lost).nonzero().squeeze(1)) if bool(self.lost.any()) else front

    def _ready(self) -> Tensor:
        """Return the members that may try the level of the batch, `(J,)`."""
        start = self.front.level
        if start is None or bool((start <= self.level).all()):
            return self.rows
        return self.rows[start <= self.level]

    def _enqueue_others(self) -> None:
        start = self.front.level
        if start is None:
            return
        apart = start > self.level
        if self.i & (self.i - 1) == 0:
            apart = apart & ~self._cross_at_once(apart & (start >= self.rule.doubtful))
        for level in start[apart].unique().tolist():
            self.queue[level] = self.rows[apart & (start == level)]

    def _cross(self, rows: Tensor, level: int) -> Step:
        """Return where members, with shape `(J,)`, come to at a level."""
        group = self.front if rows is self.rows else self.front.take(rows)
        if not len(rows):
            return Step(group.y, group.k, torch.zeros_like(rows, dtype=torch.get_default_dtype()))
        return self.rule.cross(group.members, self.i, group.y, group.k, level)

    def _settle(self, rows: Tensor, step: Step, level: int) -> None:
        """Keep the members, of shape `(J,)`, that crossed well, and enqueue or lose the others."""
        self.trace.spend(self.front.ids[rows], level)
        out = self._spent(rows)
        good = (step.error <= 1.0) & ~out
        if bool(good.all()):
            self._keep(rows, step, level)
            return
        if bool(out.any()):
            self._exhaust(rows[out])
        if bool(good.any()):
            clean = bool(torch.isfinite(step.error).all())
            through = step.take(good) if clean else self._cross(rows[good], level)
            self._keep(rows[good], through, level)
        again = ~good & ~out
        rows, error = rows[again], step.error[again]
        if not len(rows):
            return
        if level >= self.rule.highest:
            self._enqueue(rows, self.rule.stiff)
            return
        target = self._next_levels(error, level)
        for higher in target.unique().tolist():
            self._enqueue(rows[target == higher], higher)

    def _next_levels(self, error: Tensor, level: int) -> Tensor:
        """Return the levels that errors, with shape `(J,)`, ask for, up to the highest."""
        return self.rule.next_levels(error, level).clamp(max=self.rule.highest)

    def _spent(self, rows: Tensor) -> Tensor:
        """Return which members, with shape `(J,)`, have used up their steps."""
        if self.rule.max_steps is None:
            return torch.zeros_like(rows, dtype=torch.bool)
        return self.trace.n_steps[self.front.ids[rows]] > self.rule.max_steps

    def _enqueue(self, rows: Tensor, level: int) -> None:
        """Let members, with shape `(J,)`, wait for a level."""
        self.queue[level] = torch.cat([self.queue.get(level, rows[:0]), rows])

    def _cross_at_once(self, which: Tensor) -> Tensor:
        """Let members, of `(K,)`, try a single stiff step; return who crossed or ended, `(K,)`.

        Where explicit steps are short for stability alone, that does what takes many of them.
        """
        rows = self.rows[which & (self.front.level != self.rule.stiff)]
        crossed = torch.zeros_like(which)
        if len(rows):
            crossed[rows] = ~self._step_stiff(rows, 1).failed
        return crossed | self.lost

    def _cross_stiff(self, rows: Tensor) -> None:
        """Try members, with shape `(J,)`, for which no number of substeps is enough."""
        rows = self._without_runaways(rows)
        if not len(rows):
            return
        crossed = self._step_stiff(rows, self.rule.stiff_steps)
        failed = crossed.failed & ~self.lost[rows]
        # Before a pole, or a number that is none, steps shrink to nothing.
        most = self.rule.stiff_steps
        tired = failed & (crossed.n_steps >= most) & (crossed.pace * most > SHORTEST)
        if bool(tired.any()):
            self._exhaust(rows[tired])
        failed = failed & ~tired
        if bool(failed.any()):
            self._lose(rows[failed])

    def _step_stiff(self, rows: Tensor, most: int) -> StiffStep:
        """Cross with members, with shape `(J,)`, in so many stiff steps; keep who got through."""
        group, most = self.front.take(rows), self._stiff_steps(rows, most)
        crossed = cross_stiff(group.members, self.i, group.y, group.k, self.rule, most, group.pace)
        self.trace.n_steps[group.ids] += crossed.n_steps
        out = self._spent(rows)
        good = (~crossed.failed & ~out).nonzero()[:, 0]
        through, step = rows[good], crossed.step.take(good)
        self.y = self.y.index_copy(0, through, step.y)
        self.k = self.k.index_copy(0, through, step.k)
        self.next[through] = self.rule.stiff
        self._note_pace(through, crossed.pace[good])
        self.trace.status[group.ids[good]] = Status.retried
        if bool(out.any()):
            self._exhaust(rows[out])
        return crossed

    def _without_runaways(self, rows: Tensor) -> Tensor:
        """Lose those of members, with shape `(J,)`, that diverge; return the others.

        Before a pole, even the stiff method takes hundreds of steps.
        """
        group = self.front.take(rows)
        suspect = group.ids >= 0 if group.level is None else group.level != self.rule.stiff
        if group.pace is not None:
            suspect = suspect | (group.pace < HASTY).to(rows.device)
        if not bool(suspect.any()):
            return rows
        group = group.take(suspect.nonzero()[:, 0])
        away = runs_away(group, self.i, self.rule, self.trace.y0[group.ids])
        if not bool(away.any()):
            return rows
        ids, gone = group.ids[away], suspect.clone()
        gone[suspect] = away
        self.lost[rows[gone]] = True
        self.trace.lose(ids, torch.full_like(self.trace.status[ids], Status.diverged), self.i)
        return rows[~gone]

    def _stiff_steps(self, rows: Tensor, most: int) -> int:
        """Return how many steps members, with shape `(J,)`, may try, of which one is too many."""
        if self.rule.max_steps is None:
            return most
        left = self.rule.max_steps - int(self.trace.n_steps[self.front.ids[rows]].min())
        return min(most, left + 1)

    def _note_pace(self, rows: Tensor, pace: Tensor) -> None:
        """Keep steps that members, with shape `(J,)`, would try next, for the next interval."""
        t = self.front.members.t.detach()
        if self.i + 2 < t.shape[-1]:
            pace = (
                pace
                * (
                    (t[..., self.i + 1] - t[..., self.i])
                    / (t[..., self.i + 2] - t[..., self.i + 1])
                )[rows if t.ndim > 1 else ...]
            )
        if self.pace is None:
            self.pace = torch.ones(len(self.rows), dtype=pace.dtype, device=pace.device)
        self.pace[rows] = pace

    def _keep(self, rows: Tensor, step: Step, level: int) -> None:
        """Put members, with shape `(J,)`, at the end of the interval."""
        self.y = self.y.index_copy(0, rows, step.y)
        self.k = self.k.index_copy(0, rows, step.k)
        if level > self.level:
            self.next[rows] = self._next_levels(step.error, level)
            self.trace.status[self.front.ids[rows]] = Status.retried

    def _lose(self, rows: Tensor) -> None:
        """Record why members, with shape `(J,)`, end here."""
        self.lost[rows] = True
        front, rule = self.front.take(rows), self.rule
        status = reason(front, self.i, rule.max_substeps, rule, self.trace.y0[front.ids])
        self.trace.lose(front.ids, status, self.i)

    def _exhaust(self, rows: Tensor) -> None:
        """Record that members, with shape `(J,)`, used up their steps."""
        self.lost[rows] = True
        ids = self.front.ids[rows]
        self.trace.lose(ids, torch.full_like(self.trace.status[ids], Status.max_steps), self.i)
