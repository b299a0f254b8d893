"""Compile a field to a kernel that integrates whole trajectories, and call it.

The kernel marches a few members at a time, all in vector registers, from the first save time to
the last, so that neither a call of Python nor a trip to memory comes between two steps; on a GPU,
a thread does so with each member. It takes fields that `recording` and `lowering` can express,
where no gradient is wanted. Compiled kernels are kept in the process, and as files in the user's
cache folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybridgen.integrate.building import REAL, braced, build, compiler, part, preamble
from hybridgen.integrate.gpu import Threads
from hybridgen.integrate.levels import ladder
from hybridgen.integrate.lowering import Source, lower
from hybridgen.integrate.members import Members
from hybridgen.integrate.nvrtc import Module, assemble
from hybridgen.integrate.programs import Batch, Program, Trajectories, Vectors, address
from hybridgen.integrate.recording import Graph, UnrecordableError
from hybridgen.integrate.rule import Step
from hybridgen.integrate.stepping import Tolerance, rms
from hybridgen.integrate.tableaus import Tableau
from hybridgen.integrate.tables import recorded

__all__ = ["Kernel", "Trajectories", "address", "joined", "kernel_for"]

LONG = 100
"""From how many lines on a field is a function apart on a GPU, as with a layer; see thread.h."""

LARGEST = 64
"""How many components a state may have, and how many numbers it has at most if it is no grid."""


class Kernel:
    """A compiled field with the arguments of some members.

    Arguments:
        program: The compiled field.
        members: The members.
        graph: What was recorded of their field.
        tolerance: The error allowed.
        max_substeps: The highest level.
        like: A state, of shape `S`: that of each has its dtype and device.
    """

    def __init__(
        self,
        program: Program,
        members: Members,
        graph: Graph,
        tolerance: Tolerance,
        max_substeps: int,
        like: Tensor,
    ) -> None:
        self._program = program
        self._members, self._graph, self._tolerance = members, graph, tolerance
        self._max_substeps, self._like = max_substeps, like
        self._constants = joined([v.reshape(-1) for v in graph.values], 0, like.dtype, like.device)
        self._bounds = [
            torch.as_tensor(b).to(like).expand(like.shape).contiguous().flatten()
            for b in (tolerance.rtol, tolerance.atol)
        ]
        self._ladder = self._whole(ladder(max_substeps))
        axes = members.axes
        own = [v.reshape(axes.numel(), v.shape[len(axes) :].numel()) for v in members.own()]
        self._own = self._laid(joined(own, 1, like.dtype, like.device))

    @property
    def constants(self) -> list[Tensor]:
        """The tensors that the field uses for all members."""
        return self._graph.values

    def take(self, rows: Tensor) -> Kernel:
        """Return the kernel of some of these members, with shape `(J,)`."""
        return Kernel(
            self._program,
            self._members.take(rows),
            self._graph,
            self._tolerance,
            self._max_substeps,
            self._like,
        )

    def slope(self, y: Tensor) -> Tensor:
        """Return the derivative of states `(N, *S)` at the first time, with their shape."""
        y = self._laid(y)
        k = torch.empty_like(y)
        batch, _alive = self._batch(y, y, [])
        self._program.slope(batch, k)
        return self._found(k)

    def cross(self, i: int, y: Tensor, k: Tensor, level: int) -> Step:
        """Advance all members over one interval at one level; see `Rule.cross`."""
        error, y, k = y.new_empty(len(y)), self._laid(y).clone(), self._laid(k).clone()
        batch, _alive = self._batch(y, k, [])
        self._program.cross(batch, i, level, y, k, error)
        return Step(self._found(y), self._found(k), error)

    def pilot(self, y: Tensor, k: Tensor) -> list[int]:
        """Return the level of each interval, as long as all members, `(N, *S)`, can follow."""
        batch, _alive = self._batch(self._laid(y), self._laid(k), [])
        return self._program.pilot(batch, y.device)

    def march(self, y: Tensor, k: Tensor, schedule: Sequence[int]) -> Trajectories:
        """Take all members to the end of the grid.

        Arguments:
            y: Their initial states, with shape `(N, *S)`.
            k: Their derivatives, with shape `(N, *S)`.
            schedule: Substeps of each interval, `T - 1` of them.

        Returns:
            Where they came to.
        """
        n, each = len(y), (len(schedule) + 1, *self._like.shape)
        out = Trajectories(
            y=y.new_empty((*each, n) if self._program.members_last else (n, *each)),
            reached=y.new_zeros(n, dtype=torch.int64),
            spent=y.new_zeros(n, dtype=torch.int64),
            status=y.new_zeros(n, dtype=torch.int8),
        )
        batch, _alive = self._batch(self._laid(y), self._laid(k), schedule)
        self._program.march(batch, out, schedule)
        return out._replace(y=self._found(out.y))

    def _laid(self, x: Tensor) -> Tensor:
        """Return numbers of members, `(N, ...)`, as they have to be in memory."""
        return (x.movedim(0, -1) if self._program.members_last else x).contiguous()

    def _found(self, x: Tensor) -> Tensor:
        """Return numbers that are so in memory as `(N, ...)`."""
        return x.movedim(-1, 0) if self._program.members_last else x

    def _whole(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._like.device)

    def _batch(self, y: Tensor, k: Tensor, schedule: Sequence[int]) -> tuple[Batch, list[Tensor]]:
        """Return the arguments of the program, and the tensors that must outlive the call."""
        times = self._members.t.to(self._like)
        own = times.ndim > 1
        t = self._laid(times) if own else times.contiguous()
        alive = [t, y, k, self._own, self._constants, *self._bounds]
        alive += [self._whole(schedule), self._ladder]
        count = self._members.axes.numel()
        sizes = count, times.shape[-1], int(own), self._max_substeps, len(self._ladder)
        return Batch(*sizes, *map(address, alive)), alive


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
    if y0.dtype not in REAL or y0.device.type not in ("cpu", "cuda") or tolerance.norm is not rms:
        raise UnrecordableError("kernels are for real states on a CPU or GPU with the usual norm")
    if y0.device.type == "cpu" and compiler() is None:
        raise UnrecordableError("there is no C++ compiler here; install g++ or set CXX")
    graph = recorded(members, y0, beforehand=False)
    key = graph.key, tableau.name, y0.device
    if key not in _LIBRARIES:
        grid = y0.ndim > 2 and y0[0].numel() > LARGEST
        source = lower(graph, grid, clock=not grid)
        if source.states > LARGEST:
            raise UnrecordableError(f"a state has {source.states} components")
        _LIBRARIES[key] = _program(source, tableau, y0.dtype, y0.device)
    return Kernel(_LIBRARIES[key], members, graph, tolerance, max_substeps, y0[0])


_LIBRARIES: dict[Any, Program] = {}


def _program(
    source: Source, tableau: Tableau, dtype: torch.dtype, device: torch.device
) -> Program:
    """Return a field and a method, compiled for a device."""
    if device.type == "cpu":
        return Vectors(build(_text(source, tableau, dtype, gpu=False)))
    if source.grid:
        raise UnrecordableError("fields on a grid have kernels for CPUs alone")
    image = assemble(
        _text(source, tableau, dtype, gpu=True), torch.cuda.get_device_capability(device)
    )
    return Threads(Module(image, device), source, tableau, dtype)


def _text(source: Source, tableau: Tableau, dtype: torch.dtype, *, gpu: bool) -> str:
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
    members = ["members.cpp", "threads.cu"] if gpu else ["rows.h", "members.cpp", "blocks.cpp"]
    files = ["grids.cpp"] if source.grid else members
    long = "dense<" in source.each or source.each.count("\n") >= LONG
    counts |= {"CLOCK": source.ticks, "LONG": int(long)}
    counts["COMPONENTS" if source.grid else "STATES"] = source.states
    return "\n".join(
        [
            preamble(dtype, tableau, counts, "thread.h" if gpu else "lanes.h"),
            *lines,
            *map(part, files),
            f"INLINE void once(const V* p, const real* c, V* q) {{\n{source.once}\n}}",
            *clock,
            f"FIELD void field({arguments}) {{\n{source.each}\n}}\n",
        ]
    )


def joined(
    parts: list[Tensor], dim: int, dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Return tensors as one, contiguous, or an empty one."""
    if not parts:
        return torch.empty(0, dtype=dtype, device=device)
    return torch.cat([p.detach().to(device, dtype) for p in parts], dim=dim).contiguous()
