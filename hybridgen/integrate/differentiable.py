"""Roll a batch out by a kernel, with gradients: the exact adjoint of the steps that were taken.

The forward pass keeps the state at every stage, and nothing of what the field computes in between;
the backward pass computes that anew, by the transposed derivative of the field. The gradients are
those of plain autograd through the same steps, up to rounding. They go to the initial states, to
the arguments of members, and to the tensors that the field uses for all of them, such as weights;
the times have none, and second derivatives are refused.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hybridgen.integrate.adjoint import Adjoint, transpose
from hybridgen.integrate.building import REAL, braced, build, part, preamble
from hybridgen.integrate.kernel import address, joined
from hybridgen.integrate.lowering import lower
from hybridgen.integrate.members import Members
from hybridgen.integrate.recording import Graph, UnrecordableError, tensors
from hybridgen.integrate.tableaus import Tableau
from hybridgen.integrate.tables import apart, fractions, recorded, tabulated

__all__ = ["roll_compiled"]

LARGEST, STAGES = 64, 4
TAPE = 2**19
"""How many numbers of a tape are filled before they are multiplied: about what a cache holds."""

ADJOINT = (
    "V t, const V* y, const V* l, const V* q, const real* c, const V* d, V* w, V* ga, V* sums, "
    "real* tape, int64_t stride"
)


def roll_compiled(
    members: Members, y0: Tensor, tableau: Tableau, schedule: Sequence[int]
) -> Tensor:
    """Return the states of all members after each interval, `(N, T - 1, *S)`.

    Arguments:
        members: The members.
        y0: Their initial states, with shape `(N, *S)`.
        tableau: The method.
        schedule: Substeps of each interval, `T - 1` of them.

    Raises:
        UnrecordableError: If the field cannot be compiled, with the reason.
    """
    given = [y0, members.t, *tensors(members.args)]
    if any(torch._C._functorch.is_functorch_wrapped_tensor(v) for v in given):
        raise UnrecordableError("it is inside a torch.func transform")
    if y0.device.type != "cpu" or y0.dtype not in REAL:
        raise UnrecordableError("kernels are for real states on a CPU")
    if y0[0].numel() > LARGEST:
        raise UnrecordableError(f"a state has {y0[0].numel()} numbers, too many for a rollout")
    if torch.is_grad_enabled() and members.t.requires_grad:
        raise UnrecordableError("a gradient of the times is wanted; kernels have none")
    graph = recorded(members, y0, beforehand=True)
    own, signals = apart(members)
    asked = [signals[node.number] for node in graph.signals]
    if _tracked([v for signal in asked for v in signal]):
        raise UnrecordableError("a gradient of an input's samples is wanted; kernels have none")
    ours, shared = _tracked(own), _tracked(graph.values)
    tracked = bool(ours or shared or _tracked([y0]))
    program = _program(graph, tableau, y0.dtype, ours, shared, tracked)
    plan = _Plan(program, members.t, list(schedule), y0.shape, own, graph.values)
    if asked:
        rows = torch.arange(plan.padded).clamp(max=len(y0) - 1)
        plan.drive = tabulated(asked, members, tableau, schedule, rows).to(y0.dtype)
    wanted = [own[i] for i in ours] + [graph.values[i] for i in shared]
    return _Roll.apply(plan, y0, *wanted)[:, 1:]


def _tracked(values: Sequence[Tensor]) -> tuple[int, ...]:
    """Return which of some tensors want a gradient."""
    return tuple(i for i, v in enumerate(values) if torch.is_grad_enabled() and v.requires_grad)


class _Program(NamedTuple):
    """A compiled rollout: its library, its adjoint, and which tensors that is for."""

    library: ctypes.CDLL
    adjoint: Adjoint
    members: tuple[int, ...]
    constants: tuple[int, ...]


_PROGRAMS: dict[Any, _Program] = {}


def _program(
    graph: Graph,
    tableau: Tableau,
    dtype: torch.dtype,
    members: tuple[int, ...],
    constants: tuple[int, ...],
    tracked: bool,
) -> _Program:
    key = (graph.key, tableau.name, members, constants, tracked)
    if key not in _PROGRAMS:
        if not tableau.a or len(tableau.b) != STAGES:
            raise UnrecordableError(f"rollouts by {tableau.name}")
        source, places = lower(graph), fractions(tableau)
        points = [places.index(c) for c in (0.0, *tableau.c)]
        adjoint = Adjoint("", "", 0, 0, 0)
        if tracked:
            adjoint = transpose(graph, [i + 2 for i in members], constants)
        counts = {
            "STATES": source.states,
            "ARGUMENTS": source.arguments,
            "HOISTED": source.hoisted,
            "HOISTED_ADJOINT": adjoint.hoisted,
            "SUMS": adjoint.sums,
            "SIGNALS": sum(math.prod(n.shape[1:]) for n in graph.signals),
            "POINTS": len(places) - 1,
        }
        once = "INLINE void {}(const V* p, const real* c, V* q) {{\n{}\n}}"
        head = "INLINE void field(V t, const V* y, const V* q, const real* c, const V* d, V* k)"
        text = [
            preamble(dtype, tableau, counts),
            f"static constexpr int POINT[] = {braced(points)};",
            part("rollout.cpp"),
            once.format("once", source.once),
            once.format("once_adjoint", adjoint.once),
            f"{head} {{\n{source.each}\n}}",
            f"INLINE void adjoint({ADJOINT}) {{\n{adjoint.each}\n}}\n",
        ]
        _PROGRAMS[key] = _Program(build("\n".join(text)), adjoint, members, constants)
    return _PROGRAMS[key]


class _Run(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("members", "times", "own_times", "padded")),
        *((name, ctypes.c_void_p) for name in ("t", "y0", "p", "c", "schedule", "before")),
        *((name, ctypes.c_void_p) for name in ("drive", "stages")),
    )


class _Plan:
    """One rollout: everything but the initial states.

    Arguments:
        program: What to run.
        t: Save times, with shape `(T,)` or `(N, T)`.
        schedule: Substeps of each interval.
        shape: That of the initial states, `(N, *S)`.
        own: The arguments of members, without signals; what these are is in `drive`, with shape
            `(POINTS * steps + 1, SIGNALS, padded)`.
        shared: The tensors that all members share.
    """

    def __init__(
        self,
        program: _Program,
        t: Tensor,
        schedule: list[int],
        shape: torch.Size,
        own: list[Tensor],
        shared: list[Tensor],
    ) -> None:
        self.program, self.schedule, self.shape, self.shared = program, schedule, shape, shared
        self.own = own
        lanes = int(program.library.lanes())
        self.padded = -(-shape[0] // lanes) * lanes
        self.before = [0, *itertools.accumulate(schedule)]
        self.t = t
        self.drive = t.new_empty(0)

    def bind(self, y0: Tensor, stages: Tensor | None) -> tuple[_Run, list[Tensor]]:
        """Return the arguments of the library, and the tensors that must outlive the call."""
        dtype, count = y0.dtype, self.shape[0]
        t = self.t.detach().to(dtype).contiguous()
        p = joined([v.reshape(count, -1) for v in self.own], 1, dtype)
        c = joined([v.reshape(-1) for v in self.shared], 0, dtype)
        steps = [torch.tensor(v, dtype=torch.int64) for v in (self.schedule, self.before)]
        alive = [t, y0.detach().contiguous(), p, c, *steps, self.drive]
        sizes = count, t.shape[-1], int(t.ndim > 1), self.padded
        last = None if stages is None else address(stages)
        return _Run(*sizes, *map(address, alive), last), alive


class _Roll(torch.autograd.Function):
    """The rollout as one operation."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, y0: Tensor, *wanted: Tensor) -> Tensor:
        stages, states = None, y0[0].numel()
        if any(ctx.needs_input_grad):
            count = plan.before[-1] * STAGES * states * plan.padded
            stages = y0.new_empty(count)
        run, _alive = plan.bind(y0, stages)
        out = y0.new_empty(plan.shape[0], len(plan.schedule) + 1, *plan.shape[1:])
        plan.program.library.forward(ctypes.byref(run), address(out))
        ctx.plan, ctx.stages = plan, stages
        ctx.save_for_backward(y0, *wanted)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        plan, (y0, *_) = ctx.plan, ctx.saved_tensors
        return None, *_Backward(plan, y0, ctx.stages, cotangents[0].contiguous()).run()


class _Backward:
    """The way back.

    Arguments:
        plan: The rollout.
        y0: Its initial states, with shape `(N, *S)`.
        stages: What was kept of the stages.
        gy: The cotangent of the trajectories, with shape `(N, T, *S)`.
    """

    def __init__(self, plan: _Plan, y0: Tensor, stages: Tensor, gy: Tensor) -> None:
        self.plan, self.gy, self.adjoint = plan, gy, plan.program.adjoint
        self.run_, self.alive = plan.bind(y0, stages)
        arguments = sum(v.numel() for v in plan.own) // plan.shape[0]
        self.back = y0.new_zeros(y0[0].numel(), plan.padded)
        self.arguments = y0.new_zeros(arguments, plan.padded)
        self.sums = y0.new_zeros(self.adjoint.sums)

    def run(self) -> list[Tensor | None]:
        """Return the gradients of the initial states, of arguments, and of constants."""
        adjoint, before = self.adjoint, self.plan.before
        shared: list[Tensor | None] = [None] * len(adjoint.finish)
        stretches = self._stretches()
        longest = max((before[last] - before[start] for start, last in stretches), default=0)
        memory = self.gy.new_empty(adjoint.tape * STAGES * longest * self.plan.padded)
        for start, last in stretches:
            columns = STAGES * (before[last] - before[start]) * self.plan.padded
            tape = memory[: adjoint.tape * columns].reshape(adjoint.tape, columns)
            self._cross(start, last, tape)
            if adjoint.tape:
                parts = [finish(self.sums, tape) for finish in adjoint.finish]
                shared = [_total(*pair) for pair in zip(shared, parts, strict=True)]
                self.sums.zero_()
        if not adjoint.tape:
            shared = [finish(self.sums, memory) for finish in adjoint.finish]
        return [self._state(), *self._own(), *shared]

    def _stretches(self) -> list[tuple[int, int]]:
        """Return from where to where to go at once, backwards, so that a tape is not too long."""
        before, last = self.plan.before, len(self.plan.schedule)
        each = max(self.adjoint.tape, 1) * STAGES * self.plan.padded
        found = []
        while last:
            start = last - 1
            while start and (before[last] - before[start - 1]) * each <= TAPE:
                start -= 1
            found.append((start, last))
            last = start
        return found

    def _cross(self, start: int, last: int, tape: Tensor) -> None:
        """Go back over some intervals, and fill their tape, `(TAPE, slots * padded)`."""
        ends = ctypes.c_int64(start), ctypes.c_int64(last)
        filled = map(address, (self.back, self.arguments, self.sums, tape))
        library = self.plan.program.library
        library.backward(ctypes.byref(self.run_), address(self.gy), *ends, *filled)

    def _state(self) -> Tensor:
        count = self.plan.shape[0]
        return self.back[:, :count].T.reshape(self.plan.shape) + self.gy[:, 0]

    def _own(self) -> list[Tensor | None]:
        count, plan = self.plan.shape[0], self.plan
        sizes = [v.numel() // count for v in plan.own]
        parts = self.arguments[:, :count].split(sizes)
        wanted = plan.program.members
        return [parts[i].T.reshape(plan.own[i].shape).to(plan.own[i].dtype) for i in wanted]


def _total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
