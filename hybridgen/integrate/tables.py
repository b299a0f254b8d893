r"""Signals at every stage of a roll-out, looked up before its first step.

A roll-out of fixed steps asks for its inputs at times that are known beforehand: the stages
:math:`t + c_s h` of each step. A step begins where the last one ended, so with P different
:math:`c_s < 1` a table of M steps has P M + 1 times. One call of torch for all of them takes the
place of a search in each stage, and a kernel only has to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridgen.integrate.members import Members
from hybridgen.integrate.recording import MEMBERS, AnySignal, Graph, record
from hybridgen.integrate.tableaus import Tableau

__all__ = ["apart", "fractions", "recorded", "tabulated"]


def apart(members: Members) -> tuple[list[Tensor], list[AnySignal]]:
    """Return what differs between members: tensors, `(N, ...)`, and signals, each on its own."""
    own = members.own()
    ours = {id(v) for v in own}
    signals = [s for s in _signals(members.args) if all(id(v) in ours for v in s)]
    inside = {id(v) for s in signals for v in s}
    return [v for v in own if id(v) not in inside], signals


def _signals(args: Any) -> Iterator[AnySignal]:
    """Yield the signals in the arguments of a field, in the order of their tensors."""
    if isinstance(args, AnySignal):
        yield args
    elif isinstance(args, dict | tuple | list):
        for value in args.values() if isinstance(args, dict) else args:
            yield from _signals(value)


def recorded(members: Members, y0: Tensor, *, beforehand: bool) -> Graph:
    """Return what was recorded of the field of some members.

    Arguments:
        members: The members.
        y0: Their initial states, with shape `(N, *S)`.
        beforehand: Whether their signals will be known at the field's times; if not, it looks them
            up.

    Raises:
        UnrecordableError: If a graph cannot express it.
    """
    taken = {len(y0), *y0.shape[1:]}.union(*(v.shape for v in members.own()))
    count = next(n for n in MEMBERS if n not in taken)
    rows = torch.arange(count, device=y0.device) % len(y0)
    part = members.take(rows)
    own, signals = apart(part) if beforehand else (part.own(), None)
    return record(part.rhs, part.time(0).to(y0.dtype), y0[rows], own, signals)


def fractions(tableau: Tableau) -> list[float]:
    """Return where in a step the stages are, each place once, the ends included.

    Arguments:
        tableau: The method.

    Example:
        >>> from hybridgen.integrate.tableaus import RK4
        >>> fractions(RK4)
        [0.0, 0.5, 1.0]
    """
    return sorted({0.0, *tableau.c, 1.0})


def tabulated(
    signals: Sequence[AnySignal],
    members: Members,
    tableau: Tableau,
    schedule: Sequence[int],
    rows: Tensor,
) -> Tensor:
    """Return what signals are at the stages of all steps.

    Arguments:
        signals: Signals of the members.
        members: The members, N in all.
        tableau: The method.
        schedule: Substeps of each interval, M in all.
        rows: The members wanted, with shape `(L,)`.

    Returns:
        The inputs, E numbers a member at the P M + 1 times, with shape `(P M + 1, E, L)`.
    """
    t = _times(members.t.detach(), fractions(tableau)[:-1], schedule)
    times = t if t.ndim == 1 else t.reshape(*members.axes, -1)
    found = [s.at(times).detach() for s in signals]
    flat = [v.reshape(members.axes.numel(), *v.shape[-2:]) for v in found]
    return torch.cat(flat, dim=-1)[rows].permute(1, 2, 0).contiguous()


def _times(t: Tensor, inner: Sequence[float], schedule: Sequence[int]) -> Tensor:
    """Return the times `(..., P M + 1)` of all stages, from save times `(..., T)`."""
    level = torch.tensor(schedule, device=t.device)
    which = torch.arange(len(level), device=t.device).repeat_interleave(level)
    step = torch.arange(len(which), device=t.device) - (level.cumsum(0) - level)[which]
    dt = (t.diff(dim=-1) / level)[..., which]
    start = t[..., which] + dt * step
    stages = start[..., None] + dt[..., None] * t.new_tensor(inner)
    return torch.cat([stages.flatten(-2), t[..., -1:]], dim=-1)
