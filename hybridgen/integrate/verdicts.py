"""What became of the members of a roll-out, without letting any of them spoil a gradient.

A member with a NaN in its own inputs is swapped for a copy of a good one and its result masked,
because a gradient of zero times NaN would reach the parameters that all members share. Whether a
member fails on the way is only seen at the end; when a gradient is recorded, the batch is then
rolled out once more with that member swapped too, and its own path carries no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridgen.integrate.diagnosis import blown_up
from hybridgen.integrate.solution import Status
from hybridgen.integrate.stepping import finite_rows

__all__ = ["judged"]


def judged(roll: Callable[[Tensor], Tensor], bad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Roll a batch out and say how its members fared.

    Arguments:
        roll: Takes which members are to be swapped for a good one, with shape `(N,)`, to the
            trajectories of all, with shape `(N, T, *S)`.
        bad: Which members have an input that is not a number, with shape `(N,)`.

    Returns:
        The trajectories, `(N, T, *S)`, NaN after the last good time; the `Status` of each member,
        int8, `(N,)`; and the index of its last good time, -1 for none, `(N,)`.

    Example:
        >>> y = torch.tensor([[[1.0], [2.0]], [[1.0], [torch.nan]]])
        >>> _, status, reached = judged(lambda swapped: y, torch.tensor([False, False]))
        >>> status.tolist(), reached.tolist()
        ([0, 4], [1, 0])
    """
    raw = roll(bad)
    good = _good(raw, bad)
    reached = good.sum(dim=1) - 1
    status = _status(raw, reached, bad)
    if _records(raw) and bool((status != Status.ok).any()):
        lost = reached < raw.shape[1] - 1
        raw = torch.where(_like(lost, raw), raw.detach(), roll(lost))
    return torch.where(_like(good, raw), raw, torch.nan), status, reached


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
