"""The program of a GPU: a thread marches a member from the first save time to the last.

The text is that of a CPU with vectors of one number, so that schedule, levels, repetitions and
verdicts are the same. Numbers of neighbouring members lie together, which is what the threads of a
warp, 32 neighbours, can read and write at once. The pilot is a single block, whose threads tell
each other their errors. Nothing waits for the GPU but the pilot, whose levels the host needs.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from hybridgen.integrate.lowering import Source
from hybridgen.integrate.nvrtc import Module
from hybridgen.integrate.pace import SIZE
from hybridgen.integrate.programs import Batch, Outcome, Trajectories, address
from hybridgen.integrate.tableaus import Tableau

__all__ = ["Threads"]

NOWHERE = ctypes.c_void_p()


class Threads:
    """The program of a GPU.

    Arguments:
        module: The compiled field.
        source: Its field.
        tableau: Its method.
        dtype: That of the state.
    """

    members_last = True

    def __init__(
        self, module: Module, source: Source, tableau: Tableau, dtype: torch.dtype
    ) -> None:
        self._module, self._dtype = module, dtype
        # TICKS in members.cpp: what depends on time alone in a step.
        self._ticks = len(tableau.b) * (source.ticks + 1) if source.ticks else 0

    def slope(self, batch: Batch, k: Tensor) -> None:
        """See `Program`."""
        self._module.launch("slope", batch.members, batch, address(k))

    def cross(self, batch: Batch, i: int, level: int, y: Tensor, k: Tensor, error: Tensor) -> None:
        """See `Program`."""
        numbers = ctypes.c_int64(i), ctypes.c_int64(level)
        where = map(address, (y, k, error))
        self._module.launch("cross_interval", batch.members, batch, *numbers, *where)

    def pilot(self, batch: Batch, device: torch.device) -> list[int]:
        """See `Program`."""
        if batch.members > SIZE:
            return []
        found = torch.empty(batch.times, dtype=torch.int64, device=device)
        self._module.launch("pilot", batch.members, batch, address(found), block=batch.members)
        *levels, count = found.tolist()
        return levels[:count]

    def march(self, batch: Batch, out: Trajectories, schedule: Sequence[int]) -> None:
        """See `Program`."""
        device, ticks, where = out.y.device, torch.empty(0), NOWHERE
        if self._ticks and not batch.own_times:
            before = torch.tensor([0, *itertools.accumulate(schedule)], device=device)
            ticks = torch.empty(sum(schedule) * self._ticks, dtype=self._dtype, device=device)
            where = address(ticks)
            self._module.launch("tabulate", len(schedule), batch, address(before), where)
        self._module.launch("march", batch.members, batch, Outcome(*map(address, out)), where)
