"""Compile a field to a C++ kernel that integrates whole trajectories, and call it.

The kernel marches a few members at a time, all in vector registers, from the first save time to
the last, so that neither a call of Python nor a trip to memory comes between two steps. It takes
fields that `recording` and `lowering` can express, on a CPU, where no gradient is wanted.
Compiled kernels are kept in the process, and as files in the user's cache folder.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybridgen.integrate.building import REAL, braced, build, compiler, part, preamble
from hybridgen.integrate.levels import ladder
from hybridgen.integrate.lowering import Source, lower
from hybridgen.integrate.members import Members
from hybridgen.integrate.recording import MEMBERS, Graph, UnrecordableError, record
from hybridgen.integrate.rule import Step
from hybridgen.integrate.stepping import Tolerance, rms
from hybridgen.integrate.tableaus import Tableau

__all__ = ["Kernel", "Trajectories", "address", "joined", "kernel_for", "recorded"]

LARGEST = 64
"""How many components a state may have, and how many numbers it has at most if it is no grid."""


class Trajectories(NamedTuple):
    """What a kernel returns.

    Arguments:
        y: States, with shape `(N, T, S)`, NaN after the last good time.
        reached: The last good save time of each, as an index, with shape `(N,)`.
        spent: Substeps spent on each, with shape `(N,)`.
        status: The `Status` of each, int8, with shape `(N,)`; `max_steps` where another method
            should be tried.
    """

    y: Tensor
    reached: Tensor
    spent: Tensor
    status: Tensor


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("members", "times", "own_times")),
        *((name, ctypes.c_int64) for name in ("max_substeps", "rungs")),
        *((name, ctypes.c_void_p) for name in ("t", "y0", "k0", "p", "c", "rtol", "atol")),
        *((name, ctypes.c_void_p) for name in ("schedule", "ladder")),
    )


class _Outcome(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("y", "reached", "spent", "status"))


class Kernel:
    """A compiled field with the arguments of some members.

    Arguments:
        library: The compiled field.
        members: The members.
        graph: What was recorded of their field.
        tolerance: The error allowed.
        max_substeps: The highest level.
        state: The shape of a state, `S`.
        dtype: Its dtype.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        members: Members,
        graph: Graph,
        tolerance: Tolerance,
        max_substeps: int,
        state: torch.Size,
        dtype: torch.dtype,
    ) -> None:
        self._library = library
        self._members, self._graph, self._tolerance = members, graph, tolerance
        self._max_substeps, self._state, self._dtype = max_substeps, state, dtype
        self._constants = joined([v.reshape(-1) for v in graph.values], 0, dtype)
        bounds = (tolerance.rtol, tolerance.atol)
        self._bounds = [
            torch.as_tensor(b, dtype=dtype).expand(state).contiguous().flatten() for b in bounds
        ]
        self._ladder = torch.tensor(ladder(max_substeps), dtype=torch.int64)
        self._own = self._arguments(members)

    @property
    def constants(self) -> list[Tensor]:
        """The tensors that the field uses for all members."""
        return self._graph.values

    def take(self, rows: Tensor) -> Kernel:
        """Return the kernel of some of these members, with shape `(J,)`."""
        return Kernel(
            self._library,
            self._members.take(rows),
            self._graph,
            self._tolerance,
            self._max_substeps,
            self._state,
            self._dtype,
        )

    def slope(self, y: Tensor) -> Tensor:
        """Return the derivative of states `(N, *S)` at the first time, with their shape."""
        y, k = y.contiguous(), torch.empty_like(y, memory_format=torch.contiguous_format)
        batch, _alive = self._batch(y, y, [])
        self._library.slope(ctypes.byref(batch), address(k))
        return k

    def cross(self, i: int, y: Tensor, k: Tensor, level: int) -> Step:
        """Advance all members over one interval at one level; see `Rule.cross`."""
        y, k = y.clone(memory_format=torch.contiguous_format), k.clone().contiguous()
        error = torch.empty(len(y), dtype=y.dtype)
        batch, _alive = self._batch(y, k, [])
        numbers = ctypes.c_int64(i), ctypes.c_int64(level)
        where = map(address, (y, k, error))
        self._library.cross_interval(ctypes.byref(batch), *numbers, *where)
        return Step(y, k, error)

    def pilot(self, y: Tensor, k: Tensor) -> list[int]:
        """Return the level of each interval, as long as all members, `(N, *S)`, can follow."""
        intervals = self._members.t.shape[-1] - 1
        levels = torch.ones(intervals, dtype=torch.int64)
        batch, _alive = self._batch(y.contiguous(), k.contiguous(), [])
        return levels[: self._library.pilot(ctypes.byref(batch), address(levels))].tolist()

    def march(self, y: Tensor, k: Tensor, schedule: Sequence[int]) -> Trajectories:
        """Take all members to the end of the grid.

        Arguments:
            y: Their initial states, with shape `(N, *S)`.
            k: Their derivatives, with shape `(N, *S)`.
            schedule: Substeps of each interval, `T - 1` of them.

        Returns:
            Where they came to.
        """
        n, y, k = len(y), y.contiguous(), k.contiguous()
        out = Trajectories(
            y=torch.empty(n, len(schedule) + 1, *self._state, dtype=self._dtype),
            reached=torch.zeros(n, dtype=torch.int64),
            spent=torch.zeros(n, dtype=torch.int64),
            status=torch.zeros(n, dtype=torch.int8),
        )
        self._library.expect(address(out.y), ctypes.c_int64(out.y.nbytes))
        out.y[:, 0] = y
        batch, _alive = self._batch(y, k, schedule)
        pointers = _Outcome(*map(address, out))

        def part(first: int, last: int) -> None:
            # ctypes lets go of the interpreter's lock while the kernel runs.
            ends = ctypes.c_int64(first), ctypes.c_int64(last)
            self._library.march(ctypes.byref(batch), ctypes.byref(pointers), *ends)

        threads = torch.get_num_threads()
        lanes = int(self._library.lanes())
        blocks = -(-n // lanes)
        if threads == 1 or blocks < 4 * threads:
            part(0, n)
            return out
        size = lanes * -(-blocks // (4 * threads))
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda a: part(a, min(a + size, n)), range(0, n, size)))
        return out

    def _arguments(self, members: Members) -> Tensor:
        own = members.own()
        count = members.axes.numel()
        return joined([v.reshape(count, -1) for v in own], 1, self._dtype)

    def _batch(self, y: Tensor, k: Tensor, schedule: Sequence[int]) -> tuple[_Batch, list[Tensor]]:
        """Return the arguments of the library, and the tensors that must outlive the call."""
        t = self._members.t.to(self._dtype).contiguous()
        steps = torch.tensor(schedule, dtype=torch.int64)
        alive = [t, y, k, self._own, self._constants, *self._bounds, steps, self._ladder]
        sizes = len(y), t.shape[-1], int(t.ndim > 1), self._max_substeps, len(self._ladder)
        return _Batch(*sizes, *map(address, alive)), alive


def kernel_for(
    members: Members, y0: Tensor, tableau: Tableau, tolerance: Tolerance, max_substeps: int
) -> Kernel:
    """Return the compiled field of some members.

    Arguments:
        members: The members.
        y0: Their initial states, with shape `(N, *S)`.
        tableau: The method, with an error estimate.
        tolerance: The error allowed.
        max_substeps: The highest level.

    Raises:
        UnrecordableError: If the field cannot be compiled, with the reason.
    """
    if y0.device.type != "cpu" or y0.dtype not in REAL or tolerance.norm is not rms:
        raise UnrecordableError("kernels are for real states on a CPU with the usual norm")
    if compiler() is None:
        raise UnrecordableError("there is no C++ compiler here; install g++ or set CXX")
    graph = recorded(members, y0)
    library = _LIBRARIES.get((graph.key, tableau.name))
    if library is None:
        grid = y0.ndim > 2 and y0[0].numel() > LARGEST
        source = lower(graph, grid, clock=not grid)
        if source.states > LARGEST:
            raise UnrecordableError(f"a state has {source.states} components")
        library = build(_text(source, tableau, y0.dtype))
        _LIBRARIES[graph.key, tableau.name] = library
    return Kernel(library, members, graph, tolerance, max_substeps, y0.shape[1:], y0.dtype)


_LIBRARIES: dict[Any, ctypes.CDLL] = {}


def recorded(members: Members, y0: Tensor) -> Graph:
    """Return what was recorded of the field of some members, with states `(N, *S)`."""
    taken = {len(y0), *y0.shape[1:]}.union(*(v.shape for v in members.own()))
    count = next(n for n in MEMBERS if n not in taken)
    rows = torch.arange(count) % len(y0)
    part = members.take(rows)
    return record(part.rhs, part.time(0).to(y0.dtype), y0[rows], part.own())


def _text(source: Source, tableau: Tableau, dtype: torch.dtype) -> str:
    """Return the whole C++ of a field and a method."""
    counts = {"ARGUMENTS": source.arguments, "HOISTED": source.hoisted}
    lines: list[str] = []
    arguments = "V t, const V* y, const V* q, const V* r, const real* c, V* k"
    clock = [f"INLINE void clock(V t, const real* c, V* r) {{\n{source.clock}\n}}"]
    if source.grid:
        clock = []
        arguments = "V t, const real* u, const V* q, const real* c, int i, int j, V* k"
        counts |= {"ROWS": source.grid[0], "POINTS": source.grid[1]}
        for name, places in zip("IJ", source.halo, strict=True):
            counts[f"HALO_{name}"] = len(places) // 2
            lines.append(f"static constexpr int FROM_{name}[] = {braced([*places, -1])};")
    counts["CLOCK"] = source.ticks
    counts["COMPONENTS" if source.grid else "STATES"] = source.states
    return "\n".join(
        [
            preamble(dtype, tableau, counts),
            *lines,
            part("grids.cpp" if source.grid else "members.cpp"),
            f"INLINE void once(const V* p, const real* c, V* q) {{\n{source.once}\n}}",
            *clock,
            f"INLINE void field({arguments}) {{\n{source.each}\n}}\n",
        ]
    )


def joined(parts: list[Tensor], dim: int, dtype: torch.dtype) -> Tensor:
    """Return tensors as one, contiguous, or an empty one."""
    if not parts:
        return torch.empty(0, dtype=dtype)
    return torch.cat([p.detach().to(dtype) for p in parts], dim=dim).contiguous()


def address(value: Tensor) -> ctypes.c_void_p:
    """Return where a contiguous tensor is in memory."""
    return ctypes.c_void_p(value.data_ptr())
