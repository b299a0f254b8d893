r"""The training roll-out: a fixed number of steps, nothing decided on the way.

There is no error estimate, no repetition and no decision that depends on data, so the roll-out
goes through `torch.func.jvp` and `vmap` and never waits for a device. A member with a NaN in its
own inputs is swapped for a copy of a good one and its result masked, because a gradient of zero
times NaN would reach the parameters that all members share. Whether a member fails on the way is
only seen at the end; when a gradient is recorded, the batch is then rolled out once more with
that member swapped too, and its own path carries no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hybridgen.integrate.diagnosis import blown_up
from hybridgen.integrate.members import Members
from hybridgen.integrate.solution import Status
from hybridgen.integrate.stepping import advance, finite_rows
from hybridgen.integrate.tableaus import Tableau

__all__ = ["rollout"]


def rollout(
    members: Members, y0: Tensor, bad: Tensor, tableau: Tableau, schedule: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate all members with a fixed number of substeps an interval.

    Arguments:
        members: All members of the batch.
        y0: Their initial states, with shape `(N, *S)`.
        bad: Which of them have an input that is not a number, with shape `(N,)`.
        tableau: The method.
        schedule: Substeps of each interval, `T - 1` of them.

    Returns:
        The trajectories, `(N, T, *S)`, NaN after the last good time; the `Status` of each member,
        int8, `(N,)`; and the index of its last good time, -1 for none, `(N,)`.
    """
    raw = _roll(members, y0, bad, tableau, schedule)
    good = _good(raw, bad)
    reached = good.sum(dim=1) - 1
    status = _status(raw, reached, bad)
    if _records(raw) and bool((status != Status.ok).any()):
        lost = reached < len(schedule)
        again = _roll(members, y0, lost, tableau, schedule)
        raw = torch.where(_like(lost, raw), raw.detach(), again)
    return torch.where(_like(good, raw), raw, torch.nan), status, reached


def _roll(
    members: Members, y0: Tensor, bad: Tensor, tableau: Tableau, schedule: Sequence[int]
) -> Tensor:
    """Return trajectories, `(N, T, *S)`; those of bad members are a good one's after `y0`."""
    y, states = y0, [y0]
    if members.axes.numel() > 1:  # Otherwise there is nobody to be swapped for.
        rows = torch.arange(len(y0), device=y0.device)
        rows = torch.where(bad, (~bad).int().argmax(), rows)
        members, y = members.take(rows), y0[rows]
    for i, level in enumerate(schedule):
        t0, t1 = members.time(i), members.time(i + 1)
        y, _, _ = advance(members.rhs, tableau, t0, t1, y, None, level)
        states.append(y)
    return torch.stack(states, dim=1)


def _good(raw: Tensor, bad: Tensor) -> Tensor:
    """Return which save times are good, and all before them, `(N, T)`."""
    count, times = raw.shape[:2]
    finite = finite_rows(raw.reshape(count * times, *raw.shape[2:])).reshape(count, times)
    first = torch.arange(times, device=raw.device) == 0
    return (finite & (first | ~bad[:, None])).int().cumprod(dim=1).bool()


def _status(raw: Tensor, reached: Tensor, bad: Tensor) -> Tensor:
    """Return the status of each member, int8, `(N,)`, from trajectories `(N, T, *S)`.

    Without another look at the field, a member counts as diverged when it is infinite at a save
    time, or was out of all proportion before it became NaN.
    """
    raw, last = raw.detach(), raw.shape[1] - 1
    rows = torch.arange(len(raw), device=raw.device)
    start, before = raw[:, 0], raw[rows, reached.clamp(min=0)]
    diverged = blown_up(before, start) | blown_up(raw[rows, (reached + 1).clamp(max=last)], start)
    failed = torch.where(diverged & ~bad, int(Status.diverged), int(Status.nonfinite))
    return torch.where(reached == last, int(Status.ok), failed).to(torch.int8)


def _like(rows: Tensor, raw: Tensor) -> Tensor:
    """Return truth values `(N,)` or `(N, T)` shaped to broadcast against `(N, T, *S)`."""
    return rows.reshape(rows.shape + (1,) * (raw.ndim - rows.ndim))


def _records(raw: Tensor) -> bool:
    """Return whether plain autograd, not a `torch.func` transform, records a gradient."""
    return raw.requires_grad and not torch._C._functorch.is_functorch_wrapped_tensor(raw)
