r"""The training roll-out: a fixed number of steps, nothing decided on the way.

There is no error estimate, no repetition and no decision that depends on data, so the roll-out
goes through `torch.func.jvp` and `vmap` and never waits for a device. A member that fails is
swapped for a copy of a good one; see `hybridgen.integrate.verdicts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hybridgen.integrate.members import Members
from hybridgen.integrate.stepping import advance, advance_again
from hybridgen.integrate.tableaus import Tableau
from hybridgen.integrate.verdicts import judged

__all__ = ["Roll", "checkpointed", "rollout", "steps"]


Roll = Callable[[Members, Tensor, Tableau, Sequence[int]], Tensor]
"""What takes members over all intervals."""


def rollout(
    members: Members,
    y0: Tensor,
    bad: Tensor,
    tableau: Tableau,
    schedule: Sequence[int],
    roll: Roll | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate all members with a fixed number of substeps an interval.

    Arguments:
        members: All members of the batch.
        y0: Their initial states, with shape `(N, *S)`.
        bad: Which of them have an input that is not a number, with shape `(N,)`.
        tableau: The method.
        schedule: Substeps of each interval, `T - 1` of them.
        roll: Takes members and their states `(N, *S)` by a method and a schedule to the states
            after each interval, `(N, T - 1, *S)`; `steps`, if it is left out.

    Returns:
        The trajectories, `(N, T, *S)`, NaN after the last good time; the `Status` of each member,
        int8, `(N,)`; and the index of its last good time, -1 for none, `(N,)`.
    """
    way = roll or steps

    def without(some: Tensor) -> Tensor:
        return _with_start(y0, way(*_swapped(members, y0, some), tableau, schedule))

    return judged(without, bad)


def steps(members: Members, y0: Tensor, tableau: Tableau, schedule: Sequence[int]) -> Tensor:
    """Return the states of members after each interval, `(N, T - 1, *S)`.

    Arguments:
        members: The members.
        y0: Their initial states, with shape `(N, *S)`.
        tableau: The method.
        schedule: Substeps of each interval, `T - 1` of them.
    """
    return _states(advance, members, y0, tableau, schedule)


def checkpointed(
    members: Members, y0: Tensor, tableau: Tableau, schedule: Sequence[int]
) -> Tensor:
    """Return what `steps` does, and keep only these states for the backward pass.

    Arguments:
        members: The members.
        y0: Their initial states, with shape `(N, *S)`.
        tableau: The method.
        schedule: Substeps of each interval, `T - 1` of them.
    """
    return _states(advance_again, members, y0, tableau, schedule)


def _states(
    cross: Callable[..., tuple[Tensor, Tensor | None, Tensor | None]],
    members: Members,
    y0: Tensor,
    tableau: Tableau,
    schedule: Sequence[int],
) -> Tensor:
    """Return the states after each interval, `(N, T - 1, *S)`, crossed as `advance` does."""
    y, states = y0, []
    for i, level in enumerate(schedule):
        t0, t1 = members.time(i), members.time(i + 1)
        y, _, _ = cross(members.rhs, tableau, t0, t1, y, None, level)
        states.append(y)
    return torch.stack(states, dim=1) if states else y0[:, None][:, :0]


def _with_start(y0: Tensor, after: Tensor) -> Tensor:
    """Return trajectories `(N, T, *S)`: a member that was swapped starts as it was given."""
    return torch.cat([y0[:, None], after], dim=1)


def _swapped(members: Members, y0: Tensor, bad: Tensor) -> tuple[Members, Tensor]:
    """Return members and states, `(N, *S)`, with a good one's in the place of bad ones."""
    if members.axes.numel() < 2:  # There is nobody to be swapped for.
        return members, y0
    rows = torch.arange(len(y0), device=y0.device)
    rows = torch.where(bad, (~bad).int().argmax(), rows)
    return members.take(rows), y0[rows]
