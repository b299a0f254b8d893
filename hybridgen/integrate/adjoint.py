r"""Write the transposed derivative of a recorded field as C++.

For a cotangent :math:`l` of the derivative :math:`k = f(t, y, p, c)`, the products

.. math:: w = (\partial f / \partial y)^T l, \qquad
          (\partial f / \partial p)^T l, \qquad (\partial f / \partial c)^T l

are what autograd computes of the graph, recorded in turn. The first two differ between members
and are written like a field. The last is a sum over members, and over all steps of a rollout: what
is under a sum is added up in `sums`; where a weight matrix wants the product :math:`A^T B` of what
went into a layer and what came back, both are left on a `tape`, and one product of large matrices
at the end does for all steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hybridgen.integrate.indexing import MEMBER, VIEWS, indices, name_of
from hybridgen.integrate.lowering import FEW, Lowering
from hybridgen.integrate.operations import Term
from hybridgen.integrate.recording import Graph, Node, Recorder, UnrecordableError

__all__ = ["Adjoint", "transpose"]


@dataclass
class Adjoint:
    """The transposed derivative in C++, and how to finish it.

    Arguments:
        once: The body of `once_adjoint(p, c, q)`.
        each: The body of `adjoint(t, y, l, q, c, d, w, ga, sums, tape, stride)`.
        hoisted: How many numbers `once_adjoint` prepares.
        sums: How many numbers are summed over members and steps.
        tape: How many numbers of each member are kept at every step.
        finish: For each wanted constant, what makes its gradient of the sums and the tape.
    """

    once: str
    each: str
    hoisted: int
    sums: int
    tape: int
    finish: list[Callable[[Tensor, Tensor], Tensor | None]] = field(default_factory=list)


def transpose(graph: Graph, members: Sequence[int], constants: Sequence[int]) -> Adjoint:
    """Return the transposed derivative of a recorded field.

    Arguments:
        graph: What was recorded.
        members: Which inputs of the graph, besides the state, want a gradient.
        constants: Which of its constants do.

    Raises:
        UnrecordableError: If the derivative has an operation that is not known to the compiler.
    """
    recorder = Recorder(graph.members, fold=False)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(n.shape, dtype=n.dtype, generator=generator) for n in graph.inputs]
    result = graph.inputs[1]
    cotangent = torch.rand(result.shape, dtype=result.dtype, generator=generator)
    answers = [torch.rand(n.shape, dtype=n.dtype, generator=generator) for n in graph.signals]
    for value in (*inputs, cotangent):
        recorder.add_input(value)
    for node, value in zip(graph.signals, answers, strict=True):
        recorder.add_signal(node.number, value)
    values = [v.detach() for v in graph.values]
    for value in values:
        recorder.node(value)
    wanted = [1, *members]
    with torch.enable_grad(), recorder:
        given = [v.detach().requires_grad_() if i in wanted else v for i, v in enumerate(inputs)]
        shared = [
            v.detach().requires_grad_() if i in constants else v for i, v in enumerate(values)
        ]
        sources = [*(given[i] for i in wanted), *(shared[i] for i in constants)]
        out = _run(graph, given, answers, shared)
        found = torch.autograd.grad(out, sources, cotangent, allow_unused=True)
    nodes: list[Node | None] = [None if v is None else recorder.node(v) for v in found]
    return _Transposed(recorder.graph, members).write(nodes, len(wanted))


def _run(
    graph: Graph, inputs: list[Tensor], answers: list[Tensor], constants: list[Tensor]
) -> Tensor:
    """Compute the derivative anew."""
    known: dict[int, Tensor] = {
        id(n): v
        for nodes, values in (
            (graph.inputs, inputs),
            (graph.signals, answers),
            (graph.constants, constants),
        )
        for n, v in zip(nodes, values, strict=True)
    }
    for node in graph.nodes:
        known[id(node)] = _apply(node, known)
    return known[id(graph.result)]


def _apply(node: Node, known: dict[int, Tensor]) -> Tensor:
    """Compute one node from those before it."""

    def fill(value: Any) -> Any:
        if isinstance(value, Node):
            return known[id(value)]
        if isinstance(value, dict):
            return {k: fill(v) for k, v in value.items()}
        return [fill(v) for v in value] if isinstance(value, tuple) else value

    if node.function is None:
        raise UnrecordableError(f"{node.op} cannot be computed again")
    if name_of(node) == "copy":  # which torch cannot differentiate
        return fill(node.args[1]).expand(node.shape).clone()
    out = node.function(*map(fill, node.args), **fill(node.kwargs))
    return out[int(node.op[node.op.rindex("[") + 1 : -1])] if node.op.endswith("]") else out


class _Transposed(Lowering):
    """Writes a recorded transposed derivative; its last input is the cotangent."""

    def __init__(self, graph: Graph, members: Sequence[int]) -> None:
        super().__init__(graph)
        self.members = members
        self.rows: dict[int, int] = {}
        self.tape = self.sums = 0

    def write(self, nodes: list[Node | None], own: int) -> Adjoint:
        """Write the gradients of the state, of `own - 1` arguments, and of constants."""
        lines = self.scopes[0].lines
        state, arguments, constants = nodes[0], nodes[1:own], nodes[own:]
        shape = self.graph.inputs[1].shape[1:]
        for place, i in enumerate(indices(shape)):
            code = "splat(0)" if state is None else self.hoist(self.term(state, (MEMBER, *i))).code
            lines.append(f"w[{place}] = {code};")
        for number, node in zip(self.members, arguments, strict=True):
            for place, i in enumerate(indices(self.graph.inputs[number].shape[1:])):
                if node is not None:
                    code = self.hoist(self.term(node, (MEMBER, *i))).code
                    lines.append(f"ga[{self.starts[number - 2] + place}] += {code};")
        finish = [self.finish(node) for node in constants]
        last = [f"{name} = {code};" for code, name in self.hoisted.items()]
        once = "\n".join([*self.once.lines, *last])
        each = "\n".join(lines)
        return Adjoint(once, each, len(self.hoisted), self.sums, self.tape, finish)

    def _input(self, node: Node, index: Any) -> Term:
        if node.number == len(self.graph.inputs) - 1:
            return Term(super()._input(self.graph.inputs[1], index).code.replace("y", "l"), False)
        return super()._input(node, index)

    # -- constants ------------------------------------------------------------------------

    def finish(self, node: Node | None) -> Callable[[Tensor, Tensor], Tensor | None]:
        """Write what the gradient of a constant needs; return what makes it of that."""
        if node is None:
            return lambda sums, tape: None
        ends: dict[int, Callable[[Tensor, Tensor], Tensor]] = {}
        order: list[Node] = []
        self._reduce(node, ends, order)

        def make(sums: Tensor, tape: Tensor) -> Tensor:
            known = {key: end(sums, tape) for key, end in ends.items()}
            for after in order:
                known[id(after)] = _apply(after, known)
            return known[id(node)]

        return make

    def _reduce(
        self, node: Node, ends: dict[int, Callable[[Tensor, Tensor], Tensor]], order: list[Node]
    ) -> None:
        """Walk from the gradient of a constant to where it is summed over members."""
        if id(node) in ends or node in order:
            return
        name = name_of(node)
        parts = [a for a in node.args if isinstance(a, Node)]
        if node.op in ("input", "constant", "signal") or self.graph.members in node.shape:
            raise UnrecordableError("the gradient of a constant is no sum over members")
        if any(self.graph.members in p.shape for p in parts):
            ends[id(node)] = self._outer(node) if name == "mm" else self._sum(node)
            return
        # What is linear may be done once, after all steps.
        if name not in VIEWS and name not in ("add", "neg", "sum"):
            raise UnrecordableError(f"{node.op} in the gradient of a constant")
        for part in parts:
            self._reduce(part, ends, order)
        order.append(node)

    def _outer(self, node: Node) -> Callable[[Tensor, Tensor], Tensor]:
        turned, b = node.args
        if name_of(turned) not in ("t", "transpose", "permute") or len(b.shape) != 2:
            raise UnrecordableError("a product over members that is no gradient of a layer")
        a = turned.args[0]
        first, second = self._keep(a), self._keep(b)
        count, other = a.shape[1], b.shape[1]
        return lambda sums, tape: tape[first : first + count] @ tape[second : second + other].T

    def _keep(self, node: Node) -> int:
        """Leave a tensor `(N, K)` on the tape; return its first row there."""
        if id(node) not in self.rows:
            name, row, count = self.array(node), self.tape, node.shape[1]
            self.rows[id(node)] = row
            self.tape += count
            self.scopes[0].lines.append(
                f"for (int r = 0; r < {count}; ++r) store(tape + ({row} + r) * stride, {name}[r]);"
            )
        return self.rows[id(node)]

    def _sum(self, node: Node) -> Callable[[Tensor, Tensor], Tensor]:
        if name_of(node) != "sum":
            raise UnrecordableError(f"{node.op} over members")
        x, first = node.args[0], self.sums
        count = math.prod(x.shape) // self.graph.members
        if x.shape[0] != self.graph.members:
            raise UnrecordableError("members that are not the first axis")
        self.sums += count
        lines = self.scopes[0].lines
        if len(x.shape) == 2 and count > FEW:
            name = self.array(x)
            lines.append(f"for (int r = 0; r < {count}; ++r) sums[{first} + r] += {name}[r];")
        else:
            for place, i in enumerate(indices(x.shape[1:])):
                code = self.hoist(self.term(x, (MEMBER, *i))).code
                lines.append(f"sums[{first + place}] += {code};")
        shape = (1, *x.shape[1:])

        def make(sums: Tensor, tape: Tensor) -> Tensor:
            return _apply(node, {id(x): sums[first : first + count].reshape(shape)})

        return make
