"""Who says at which level a batch crosses an interval: a schedule, or a pilot.

The pilot is the first 64 members of the batch. When its worst error at a level is above 1, the
batch goes back and takes a higher level; the level at which the pilot passes is the schedule's,
and the next interval starts from the level that this error asks for.

A few hard members must not set the pace of all. Once level 16 is reached, pilot members that
still fail are left behind, unless they are half of the pilot: then it is the batch that is hard.
The schedule must not depend on members that cannot follow it, so it is picked anew without them,
now by a pilot flying alone, ahead of the batch.

A batch that is hard may be stiff. From level 64 on, a pilot that flies alone tries as many steps
of the stiff method as cost less; if these will do, its members are left behind like a few hard
ones, and with them the batch goes on by the stiff method, while the schedule counts for nobody.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from hybridgen.integrate.rosenbrock import cross_stiff, handles
from hybridgen.integrate.rule import Rule, Step
from hybridgen.integrate.trace import Front

__all__ = ["Crosser", "Pace", "Pilot", "Schedule", "pick_schedule"]

SIZE = 64
CAP, STEEP = 16, 64
"""From which level on hard members are left behind: a few of them, and most of them."""
WORTH = 8
"""How many substeps a step of the stiff method costs."""
ROUNDS = 4


class Pace(Protocol):
    """Says at which level the batch crosses each interval."""

    @property
    def broken(self) -> bool:
        """Whether members of the pilot cannot follow at any level that the batch should take."""

    def level(self, i: int) -> int:
        """Return the level at which to try interval `i`."""

    def accepts(self, error: Tensor) -> bool:
        """Return whether errors of shape `(N,)` at that level will do.

        If not, the next level is higher, or the pace is broken.
        """


class Schedule:
    """A pace that is known beforehand.

    Arguments:
        levels: The level of each interval.
    """

    broken = False

    def __init__(self, levels: list[int]) -> None:
        self.levels = levels

    def level(self, i: int) -> int:
        """Return the level of interval `i`."""
        return self.levels[i]

    def accepts(self, error: Tensor) -> bool:
        """Accept any errors, `(N,)`: what fails is repeated member by member."""
        return True


class Pilot:
    """A pace set by the first members of the batch.

    Arguments:
        rule: How to step.
        alone: Whether nobody else is there.
    """

    def __init__(self, rule: Rule, alone: bool = False) -> None:
        self._rule, self._alone = rule, alone
        self._next = 1
        self.levels: list[int] = []
        self.broken = False

    def level(self, i: int) -> int:
        """Return the level that the pilot's last error asks for."""
        return self._next

    def accepts(self, error: Tensor) -> bool:
        """Return whether the pilot's errors, the first of `(N,)`, are all within tolerance."""
        error, level, rule = error[:SIZE], self._next, self._rule
        worst = float(error.amax())
        if worst <= 1.0:
            self.levels.append(level)
            self._next = rule.next_level(worst, level)
            return True
        failing = error[~(error <= 1.0)]
        few = 2 * len(failing) < len(error)
        steep = level >= STEEP and not self._alone
        self.broken = level >= rule.max_substeps or steep or (few and level >= CAP)
        if not self.broken:
            wanted = int(rule.next_levels(failing, level).max())
            self._next = min(wanted, CAP) if few else wanted
        return False


class Crosser(Protocol):
    """Takes members over an interval."""

    def cross(self, i: int, y: Tensor, k: Tensor, level: int) -> Step:
        """Return where they come to at a level, from states and derivatives `(N, *S)`."""

    def pilot(self, y: Tensor, k: Tensor) -> list[int]:
        """Return levels for as many intervals as all members, `(N, *S)`, can follow."""

    def take(self, rows: Tensor) -> Crosser:
        """Return what takes some of these members, with shape `(J,)`."""


def pick_schedule(
    front: Front, intervals: int, rule: Rule, kernel: Crosser | None = None
) -> list[int]:
    """Pick a schedule on members that can follow it, without moving the batch.

    Arguments:
        front: All members at the first time.
        intervals: How many intervals there are.
        rule: How to step.
        kernel: Takes the members over an interval, instead of the rule.

    Returns:
        The level of each interval. Should four pilots in a row lose members, the last one's.
    """
    able = torch.ones_like(front.ids, dtype=torch.bool)
    levels: list[int] = []
    for _ in range(ROUNDS):
        rows = able.nonzero().squeeze(1)[:SIZE]
        with torch.no_grad():
            fast = None if kernel is None else kernel.take(rows)
            some = front.take(rows)
            if fast is not None and len(found := fast.pilot(some.y, some.k)) == intervals:
                return found
            levels, lost = _fly(some, intervals, rule, fast)
        if not len(lost):
            break
        able[rows[lost]] = False
    return levels


def _fly(
    front: Front, intervals: int, rule: Rule, kernel: Crosser | None
) -> tuple[list[int], Tensor]:
    """March a pilot alone; return its schedule and which of it were left behind, `(J,)`."""
    pilot = Pilot(rule, alone=True)
    rows = torch.arange(len(front.ids), device=front.ids.device)
    lost = rows[:0]
    while len(rows) and len(pilot.levels) < intervals:
        i = len(pilot.levels)
        level = pilot.level(i)
        if kernel is None:
            step = rule.cross(front.members, i, front.y, front.k, level)
        else:
            step = kernel.cross(i, front.y, front.k, level)
        good = step.error <= 1.0
        if pilot.accepts(step.error):
            front = front._replace(y=step.y, k=step.k)
        elif pilot.broken or (kernel is None and _is_stiff(front, i, rule, level, ~good)):
            lost, rows = torch.cat([lost, rows[~good]]), rows[good]
            front, pilot.broken = front.take(good.nonzero().squeeze(1)), False
            kernel = None if kernel is None else kernel.take(good.nonzero().squeeze(1))
    return pilot.levels + [1] * (intervals - len(pilot.levels)), lost


def _is_stiff(front: Front, i: int, rule: Rule, level: int, failing: Tensor) -> bool:
    """Return whether most of the members that fail, `(N,)`, do better by the stiff method."""
    if level < STEEP or not handles(front.y):
        return False
    some = front.take(failing.nonzero().squeeze(1))
    crossed = cross_stiff(some.members, i, some.y, some.k, rule, level // WORTH)
    return 2 * int(crossed.failed.sum()) < len(some.ids)
