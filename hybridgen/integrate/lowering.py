r"""Write a recorded field as C++ for a few members at once.

Every number of a member becomes a vector `V` over the members, and an operation of torch on the
numbers of a state becomes one line for each of them. Axes are resolved while the code is
written: to write entry :math:`(i, j)` of a tensor is to write the entries of its arguments that
it needs, so that views, stacks and broadcasts cost nothing at all. The lines go to three places,

* `once`, for what depends on the arguments of a member alone and is computed once a trajectory,
* `each`, for what depends on time or state,
* loops inside `each`, for the layers of a network, whose entries are too many to write one by one.

A state on a grid is written for a few neighbours along its last axis instead: a vector holds the
numbers of these points, and an entry that comes from elsewhere on the grid is a shifted load from
the state with a halo around it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from hybridgen.integrate.indexing import (
    MEMBER,
    VIEWS,
    Axis,
    Index,
    broadcast,
    entries,
    flat,
    indices,
    literal,
    name_of,
    strides,
)
from hybridgen.integrate.lookups import look_up
from hybridgen.integrate.operations import ELEMENTWISE, RULES, Term, is_layer
from hybridgen.integrate.recording import Graph, Node, UnrecordableError

__all__ = ["FEW", "Lowering", "Source", "lower"]

FEW = 16
"""How many entries of an array are written one by one."""


@dataclass(frozen=True)
class Source:
    """A field in C++.

    Arguments:
        once: The body of `once(p, c, q)`: from arguments `p` and constants `c` to `q`.
        each: The body of `field(t, y, q, c, k)`; where there are signals, `d` has their answers.
        states: How many numbers a state has; on a grid, how many components.
        arguments: How many numbers of its own each member has.
        hoisted: How many numbers `once` prepares.
        clock: The body of `clock(t, c, r)`, for what depends on time alone.
        ticks: How many numbers `clock` prepares.
        grid: Rows and points in a row; `None` if the state is no grid.
        halo: For each of these axes, the place that is found beyond the ends: first before the
            start, from near to far, then after the end.
    """

    once: str
    each: str
    states: int
    arguments: int
    hoisted: int
    clock: str = ""
    ticks: int = 0
    grid: tuple[int, int] | None = None
    halo: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


def lower(graph: Graph, grid: bool = False, *, clock: bool = False) -> Source:
    """Return a field in C++.

    Arguments:
        graph: What was recorded of it.
        grid: Whether the last axis of a state, or the last two, are those of a grid.
        clock: Whether what depends on time alone is written apart.

    Raises:
        UnrecordableError: If it has an operation that is not known here.

    Example:
        >>> from hybridgen.integrate.recording import record
        >>> t, y, rate = torch.tensor(0.0), torch.rand(13, 1), torch.rand(13, 1)
        >>> print(lower(record(lambda t, y: -rate * y, t, y, [rate])).each)
        const V v2 = (q[0] * y[0]);
        k[0] = v2;
    """
    return _GridLowering(graph).run() if grid else Lowering(graph, clock).run()


@dataclass
class _Scope:
    """Lines that belong together, and the names they give to entries."""

    lines: list[str] = field(default_factory=list)
    known: dict[tuple[int, Index], Term] = field(default_factory=dict)


class Lowering:
    """Writes a recorded field.

    Arguments:
        graph: What was recorded.
    """

    def __init__(self, graph: Graph, clock: bool = False) -> None:
        self.graph, self.with_clock = graph, clock
        self.once, self.clock, self.scopes = _Scope(), _Scope(), [_Scope()]
        self.ticks: dict[str, str] = {}
        self.hoisted: dict[str, str] = {}
        self.arrays: dict[int, str] = {}
        self.answers: dict[int, tuple[str, bool]] = {}
        self.names = 0
        own = [entries(n) // graph.members for n in graph.inputs[2:]]
        self.starts = [sum(own[:i]) for i in range(len(own) + 1)]
        sizes = [math.prod(n.shape) for n in graph.constants]
        self.offsets = [sum(sizes[:i]) for i in range(len(sizes))]

    def run(self) -> Source:
        """Return the field in C++."""
        result, state = self.graph.result, self.graph.inputs[1]
        if result is None or result.shape != state.shape or result.dtype != state.dtype:
            raise UnrecordableError("it does not return a tensor like the state")
        each, wanted = self.scopes[0], self.wanted(result.shape[1:])
        found = [self.hoist(self.term(result, (MEMBER, *i))) for i in wanted]
        each.lines += [f"k[{i}] = {term.code};" for i, term in enumerate(found)]
        last = [f"{name} = {code};" for code, name in self.hoisted.items()]
        return Source(
            once="\n".join([*self.once.lines, *last]),
            each="\n".join(each.lines),
            states=len(wanted),
            arguments=self.starts[-1],
            hoisted=len(self.hoisted),
            clock="\n".join(
                [*self.clock.lines, *(f"{r} = {code};" for code, r in self.ticks.items())]
            ),
            ticks=len(self.ticks),
        )

    def wanted(self, shape: tuple[int, ...]) -> list[Index]:
        """Return the entries of the derivative, of shape `S`, that make it up."""
        return list(indices(shape))

    # -- names ----------------------------------------------------------------------------

    def term(self, node: Node, index: Index) -> Term:
        """Return one entry of a tensor; writes the lines that compute it, if there are none."""
        for scope in (self.once, self.clock, *self.scopes):
            if (id(node), index) in scope.known:
                return scope.known[id(node), index]
        term = self._write(node, index)
        if term.truth and node.dtype is not torch.bool:
            term = self.define("{0}", [term])
        symbolic = any(isinstance(i, str) and i != MEMBER for i in index)
        scope = self.once if term.once else self.clock if term.clock else self.scopes[-1]
        scope = self.scopes[-1] if symbolic else scope
        scope.known[id(node), index] = term
        return term

    def hoist(self, term: Term) -> Term:
        """Return a term as the code of `each` has to name it."""
        if term.clock:
            return Term(self.ticks.setdefault(term.code, f"r[{len(self.ticks)}]"), once=False)
        if not term.once or term.code.startswith("splat("):
            return term
        name = self.hoisted.setdefault(term.code, f"q[{len(self.hoisted)}]")
        return Term(name, once=False)

    def define(self, code: str, terms: list[Term], *, truth: bool = False) -> Term:
        """Give a name to an expression in which `{0}`, `{1}`, ... stand for terms."""
        once = all(t.once for t in terms) and not truth  # `q` holds numbers alone
        clock = not once and not truth and all(t.clock or _is_shared(t) for t in terms)
        named = [t.code if once or clock else self.hoist(t).code for t in terms]
        if not truth:
            condition = code.startswith("({0} ?")
            named = [
                f"({c} ? splat(1) : splat(0))" if t.truth and (i or not condition) else c
                for i, (c, t) in enumerate(zip(named, terms, strict=True))
            ]
        self.names += 1
        name = f"{'w' if once else 'u' if clock else 'v'}{self.names}"
        line = f"const {'M' if truth else 'V'} {name} = {code.format(*named)};"
        (self.once if once else self.clock if clock else self.scopes[-1]).lines.append(line)
        return Term(name, once, truth, clock)

    # -- entries --------------------------------------------------------------------------

    def _write(self, node: Node, index: Index) -> Term:
        if node.op == "input":
            return self._input(node, index)
        if node.op == "constant":
            return self._constant(node, index)
        if node.op == "signal":
            return self._signal(node, index)
        if node.op == "lookup":
            return look_up(self, node, index)
        if id(node) in self.arrays:
            return Term(f"{self.arrays[id(node)]}[{flat(index[1:], node.shape[1:])}]", once=False)
        name = name_of(node)
        if node.dtype not in (torch.bool, self.graph.inputs[1].dtype):
            raise UnrecordableError(f"{node.op} gives {node.dtype}")
        if name in ELEMENTWISE:
            return self._elementwise(node, name, index)
        if name in VIEWS:
            return self.term(*VIEWS[name](node, index))
        if name not in RULES:
            raise UnrecordableError(f"{node.op} is not among the operations known to the compiler")
        return RULES[name](self, node, index)

    def _input(self, node: Node, index: Index) -> Term:
        if node.number == 0:
            return Term("t", once=False, clock=self.with_clock)
        place = flat(index[1:], node.shape[1:])
        if node.number == 1:
            return Term(f"y[{place}]", once=False)
        return Term(f"p[{self.starts[node.number - 2]} + {place}]", once=True)

    def _signal(self, node: Node, index: Index) -> Term:
        before = itertools.takewhile(lambda n: n is not node, self.graph.signals)
        start = sum(entries(n) // self.graph.members for n in before)
        return Term(f"d[{start} + {flat(index[1:], node.shape[1:])}]", once=False)

    def _constant(self, node: Node, index: Index) -> Term:
        place = f"{self.offsets[node.number]} + {flat(index, node.shape)}"
        return Term(f"splat(c[{place}])", once=True)

    def number(self, value: Any, index: Index) -> Term:
        """Return an argument, which may be a Python number, broadcast to an index."""
        if isinstance(value, Node):
            return self.term(value, broadcast(index, value.shape))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnrecordableError(f"an operation has the argument {value!r}")
        return Term(f"splat({literal(value)})", once=True)

    def _elementwise(self, node: Node, name: str, index: Index) -> Term:
        if node.kwargs.get("rounding_mode") is not None:
            raise UnrecordableError("a division that rounds is not known to the compiler")
        terms = [self.number(a, index) for a in node.args]
        if name == "div" and terms[1].once and not terms[0].once:
            # One division for a whole trajectory: they are the slowest of all.
            inverse = self.define("(splat(1) / {0})", terms[1:])
            return self.define("({0} * {1})", [terms[0], inverse])
        return self.define(ELEMENTWISE[name], terms, truth=node.dtype is torch.bool)

    # -- loops ----------------------------------------------------------------------------

    @contextmanager
    def loop(self, count: int) -> Iterator[str]:
        """Write what follows inside a loop; yields its variable."""
        self.names += 1
        variable = f"i{self.names}"
        self.scopes.append(_Scope())
        try:
            yield variable
        finally:
            inner = self.scopes.pop()
        head = f"for (int {variable} = 0; {variable} < {count}; ++{variable}) {{"
        self.scopes[-1].lines += [head, *inner.lines, "}"]

    def array(self, node: Node) -> str:
        """Return the name of an array with all entries of a tensor, `(N, K)`, of a member."""
        if id(node) in self.arrays:
            return self.arrays[id(node)]
        if len(node.shape) != 2:
            raise UnrecordableError(f"{node.op} of shape {node.shape} enters a large product")
        self._layers_before(node, set())
        if id(node) in self.arrays:
            return self.arrays[id(node)]
        name, count = self.declare(node), node.shape[1]
        if count <= FEW:
            for place in range(count):
                self._fill(node, name, place)
        else:
            with self.loop(count) as variable:
                self._fill(node, name, variable)
        self.arrays[id(node)] = name
        return name

    def _fill(self, node: Node, name: str, i: int | str) -> None:
        term = self.hoist(self.term(node, (MEMBER, i)))
        self.scopes[-1].lines.append(f"{name}[{i}] = {term.code};")

    def _layers_before(self, node: Node, seen: set[int]) -> None:
        """Write the layers that a tensor is made of, which cannot be inside a loop."""
        if id(node) in seen or id(node) in self.arrays:
            return
        seen.add(id(node))
        if is_layer(node):
            self.term(node, (MEMBER, 0))
            return
        for argument in node.args:
            for part in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(part, Node):
                    self._layers_before(part, seen)

    def declare(self, node: Node) -> str:
        """Declare an array for the entries of a tensor, and return its name."""
        self.names += 1
        name = f"a{self.names}"
        # In the outermost scope, so that every later line sees it.
        self.scopes[0].lines.append(f"V {name}[{math.prod(node.shape[1:])}];")
        return name

    def layer(self, node: Node, x: Node, w: Node, bias: Node | None) -> None:
        """Write a whole product `(N, K) @ (K, O)` with a shared matrix."""
        before, name, start = self.array(x), self.declare(node), "nullptr"
        if bias is not None:
            vector, first, steps = strides(bias)
            if (
                vector.op != "constant"
                or bias.shape != w.shape[1:]
                or steps != [min(1, w.shape[1] - 1)]
            ):
                raise UnrecordableError("a layer whose bias differs between members")
            start = f"c + {self.offsets[vector.number] + first}"
        matrix, first, steps = strides(w)
        size = ", ".join(map(str, (*w.shape, *steps)))
        weights = f"c + {self.offsets[matrix.number] + first}"
        self.scopes[0].lines.append(f"dense<{size}>({before}, {weights}, {start}, {name});")
        self.arrays[id(node)] = name


def _is_shared(term: Term) -> bool:
    """Return whether a term is a number for all members."""
    return term.code.startswith("splat(")


class _GridLowering(Lowering):
    """Writes a field on a grid."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        space = min(2, len(graph.inputs[1].shape) - 2)
        rows, points = graph.inputs[1].shape[-2:]
        self.space, self.sizes = space, (rows if space == 2 else 1, points)
        self.beyond: tuple[dict[int, int], dict[int, int]] = ({}, {})

    def run(self) -> Source:
        source = super().run()
        halo = []
        for size, found in zip(self.sizes, self.beyond, strict=True):
            width = max([-min(found), max(found) - size + 1], default=0) if found else 0
            before = [found.get(-1 - h, -1) for h in range(width)]
            halo.append((*before, *(found.get(size + h, -1) for h in range(width))))
        return replace(source, grid=self.sizes, halo=(halo[0], halo[1]))

    def wanted(self, shape: tuple[int, ...]) -> list[Index]:
        axes = tuple(Axis(a, tuple(range(n))) for a, n in enumerate(self.sizes))[-self.space :]
        return [(*i, *axes) for i in indices(shape[: -self.space])]

    def layer(self, node: Node, x: Node, w: Node, bias: Node | None) -> None:
        raise UnrecordableError("a network on a grid is not known to the compiler")

    def _input(self, node: Node, index: Index) -> Term:
        axes = [i for i in index if isinstance(i, Axis)]
        if not axes:
            if node.number == 1:
                raise UnrecordableError("single points of the grid are used everywhere")
            return super()._input(node, index)
        if node.number != 1 or [a.axis for a in axes] != list(range(2))[-self.space :]:
            raise UnrecordableError("arguments that differ along the grid, or axes that change")
        shifts = [0] * (2 - self.space) + [self._shift(a) for a in axes]
        component = flat(index[1 : -self.space], node.shape[1 : -self.space])
        rows = f"(i + {shifts[0]})" if shifts[0] else "i"
        return Term(
            f"load(u + ({component}) * WIDE_PLANE + {rows} * WIDE + j + {shifts[1]})", once=False
        )

    def _shift(self, axis: Axis) -> int:
        """Return how far along an axis its points find their entries; notes what is beyond."""
        size = self.sizes[axis.axis]
        middle = size // 2
        shift = axis.places[middle] - middle
        found = self.beyond[axis.axis]
        for i, place in enumerate(axis.places):
            inside = 0 <= i + shift < size
            if place != (i + shift if inside else found.setdefault(i + shift, place)):
                raise UnrecordableError("the grid is not only shifted, or its ends are not alike")
        return shift

    def _constant(self, node: Node, index: Index) -> Term:
        axes = [i for i in index if isinstance(i, Axis)]
        if not axes:
            return super()._constant(node, index)
        if any(a.places != tuple(range(self.sizes[a.axis])) for a in axes):
            raise UnrecordableError("a constant is shifted along the grid")
        named = tuple("ij"[i.axis] if isinstance(i, Axis) else i for i in index)
        place = f"{self.offsets[node.number]} + {flat(named, node.shape)}"
        along = any(a.axis == 1 for a in axes)
        return Term(f"load_part(c + {place}, j)" if along else f"splat(c[{place}])", once=False)
