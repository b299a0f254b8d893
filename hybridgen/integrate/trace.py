"""The record of a run: who is on the way, and where each member came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from hybridgen.integrate.events import Watch
from hybridgen.integrate.members import Members
from hybridgen.integrate.solution import Status

__all__ = ["Front", "Trace"]


class Front(NamedTuple):
    """The members on their way at one time.

    Arguments:
        members: Field, arguments and times of these members.
        ids: Their numbers in the whole batch, with shape `(K,)`.
        y: Their state, with shape `(K, *S)`.
        k: Its derivative, with shape `(K, *S)`.
        level: The level at which each starts the next interval, where that is above the
            schedule's, with shape `(K,)`; `None` when nobody was repeated.
        pace: The step that each stiff member would try next, as a fraction of the next interval,
            with shape `(K,)`; `None` when nobody is stiff.
    """

    members: Members
    ids: Tensor
    y: Tensor
    k: Tensor
    level: Tensor | None = None
    pace: Tensor | None = None

    def take(self, rows: Tensor) -> Front:
        """Return the front of some of these members, numbered among these, with shape `(J,)`."""
        level = None if self.level is None else self.level[rows]
        pace = None if self.pace is None else self.pace[rows]
        members = self.members.take(rows)
        return Front(members, self.ids[rows], self.y[rows], self.k[rows], level, pace)


@dataclass(frozen=True)
class Trace:
    """Where each member of the batch came to; written while the batch marches.

    Arguments:
        y0: Initial states, with shape `(N, *S)`.
        status: A `Status` for each member, with shape `(N,)`.
        reached: The last good save time, as an index, -1 for none, with shape `(N,)`.
        n_steps: Substeps spent on each member, with shape `(N,)`.
        segments: Runs of save times between which no member was lost: the numbers of those
            there, `(K,)`, and their states, each `(K, *S)`.
        watch: Who passed its event, if one is looked for.
    """

    y0: Tensor
    status: Tensor
    reached: Tensor
    n_steps: Tensor
    segments: list[tuple[Tensor, list[Tensor]]] = field(default_factory=list)
    watch: Watch | None = None

    @classmethod
    def begin(cls, y0: Tensor, times: int, watch: Watch | None = None) -> Trace:
        """Return the trace of a batch that has not moved; all members will reach the end."""
        status = y0.new_full((len(y0),), Status.ok, dtype=torch.int8)
        reached = y0.new_full((len(y0),), times - 1, dtype=torch.int64)
        return cls(y0, status, reached, torch.zeros_like(reached), watch=watch)

    def copy(self) -> Trace:
        """Return a trace to write in without touching this one."""
        segments = [(ids, list(states)) for ids, states in self.segments]
        status, reached, n_steps = self.status.clone(), self.reached.clone(), self.n_steps.clone()
        watch = None if self.watch is None else self.watch.copy()
        return Trace(self.y0, status, reached, n_steps, segments, watch)

    def save(self, ids: Tensor, y: Tensor) -> None:
        """Record the states of those on the way at the next save time, with shape `(K, *S)`."""
        if not self.segments or len(self.segments[-1][0]) != len(ids):
            self.segments.append((ids, []))
        self.segments[-1][1].append(y)

    def lose(self, ids: Tensor, status: Tensor, reached: int) -> None:
        """Record that members, with shape `(J,)`, ended at save time `reached` and why."""
        self.status[ids] = status
        self.reached[ids] = reached

    def spend(self, ids: Tensor, substeps: int) -> None:
        """Count the substeps of members, with shape `(J,)`."""
        if len(ids) == len(self.y0):
            self.n_steps.add_(substeps)
        else:
            self.n_steps.index_add_(0, ids, self.n_steps.new_full((), substeps).expand(len(ids)))

    def stack(self, times: int) -> Tensor:
        """Return all trajectories, with shape `(N, times, *S)`, NaN where a member is lost."""
        count, state = len(self.y0), self.y0.shape[1:]
        blocks = []
        for ids, states in self.segments:
            block = torch.stack(states, dim=1)
            if len(ids) < count:
                gap = self.y0.new_full((count, len(states), *state), torch.nan)
                block = gap.index_copy(0, ids, block)
            blocks.append(block)
        missing = times - sum(block.shape[1] for block in blocks)
        if missing:
            blocks.append(self.y0.new_full((count, missing, *state), torch.nan))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
