"""What a compiled field is called by, and the program that a CPU runs.

A program takes members from save time to save time. That of a CPU marches a block of them in the
lanes of its vectors, and the blocks in threads; that of a GPU is in `gpu`. They differ in where
they want the numbers of members: on a CPU those of a member lie together, `(N, ...)`; on a GPU
each number of all members, `(..., N)`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Batch", "Outcome", "Program", "Trajectories", "Vectors", "address"]


class Trajectories(NamedTuple):
    """What a kernel returns.

    Arguments:
        y: States, with shape `(N, T, *S)`, NaN after the last good time.
        reached: The last good save time of each, as an index, with shape `(N,)`.
        spent: Substeps spent on each, with shape `(N,)`.
        status: The `Status` of each, int8, with shape `(N,)`; `max_steps` where another method
            should be tried.
    """

    y: Tensor
    reached: Tensor
    spent: Tensor
    status: Tensor


class Batch(ctypes.Structure):
    """As in batch.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("members", "times", "own_times")),
        *((name, ctypes.c_int64) for name in ("max_substeps", "rungs")),
        *((name, ctypes.c_void_p) for name in ("t", "y0", "k0", "p", "c", "rtol", "atol")),
        *((name, ctypes.c_void_p) for name in ("schedule", "ladder")),
    )


class Outcome(ctypes.Structure):
    """As in batch.h."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("y", "reached", "spent", "status"))


class Program(Protocol):
    """A compiled field. Tensors of members lie as it wants them."""

    @property
    def members_last(self) -> bool:
        """Whether the members are the last axis of all tensors that have one for them."""

    def slope(self, batch: Batch, k: Tensor) -> None:
        """Write the derivatives at the first time to `k`, with shape `(N, *S)`."""

    def cross(self, batch: Batch, i: int, level: int, y: Tensor, k: Tensor, error: Tensor) -> None:
        """Advance `y` and `k`, `(N, *S)`, by an interval, and write the errors, `(N,)`."""

    def pilot(self, batch: Batch, device: torch.device) -> list[int]:
        """Return the level of each interval, as long as all members can follow."""

    def march(self, batch: Batch, out: Trajectories, schedule: Sequence[int]) -> None:
        """Write the trajectories, and how each member fared."""


class Vectors:
    """The program of a CPU.

    Arguments:
        library: The compiled field.
    """

    members_last = False

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def slope(self, batch: Batch, k: Tensor) -> None:
        """See `Program`."""
        self._library.slope(ctypes.byref(batch), address(k))

    def cross(self, batch: Batch, i: int, level: int, y: Tensor, k: Tensor, error: Tensor) -> None:
        """See `Program`."""
        numbers = ctypes.c_int64(i), ctypes.c_int64(level)
        where = map(address, (y, k, error))
        self._library.cross_interval(ctypes.byref(batch), *numbers, *where)

    def pilot(self, batch: Batch, device: torch.device) -> list[int]:
        """See `Program`."""
        levels = torch.ones(batch.times - 1, dtype=torch.int64)
        return levels[: self._library.pilot(ctypes.byref(batch), address(levels))].tolist()

    def march(self, batch: Batch, out: Trajectories, schedule: Sequence[int]) -> None:
        """See `Program`."""
        self._library.expect(address(out.y), ctypes.c_int64(out.y.nbytes))
        pointers = Outcome(*map(address, out))

        def part(first: int, last: int) -> None:
            # ctypes lets go of the interpreter's lock while the kernel runs.
            ends = ctypes.c_int64(first), ctypes.c_int64(last)
            self._library.march(ctypes.byref(batch), ctypes.byref(pointers), *ends)

        n, threads = batch.members, torch.get_num_threads()
        lanes = int(self._library.lanes())
        blocks = -(-n // lanes)
        if threads == 1 or blocks < 4 * threads:
            part(0, n)
            return
        size = lanes * -(-blocks // (4 * threads))
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda a: part(a, min(a + size, n)), range(0, n, size)))


def address(value: Tensor) -> ctypes.c_void_p:
    """Return where a contiguous tensor is in memory."""
    return ctypes.c_void_p(value.data_ptr())
