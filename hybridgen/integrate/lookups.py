"""Write the answer of a signal: a search among its pieces, inside the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hybridgen.integrate.indexing import MEMBER, Index, entries, known
from hybridgen.integrate.operations import Term
from hybridgen.integrate.recording import Node, UnrecordableError

if TYPE_CHECKING:
    from hybridgen.integrate.lowering import Lowering

__all__ = ["look_up"]

LARGEST = 1024
"""How many numbers the signals of a member may have: a kernel keeps them beside its state."""


def look_up(writer: Lowering, node: Node, index: Index) -> Term:
    """Return one of the inputs, `(..., U)`, that a signal answers.

    Arguments:
        writer: What writes the field.
        node: The answer; its arguments are starts, knots and powers of the pieces, and the time.
        index: Which entry of it.

    Raises:
        UnrecordableError: If the pieces are computed in the field, or are too many.
    """
    if id(node) not in writer.answers:
        scopes, writer.scopes = writer.scopes, writer.scopes[:1]  # where all lines see it
        try:
            writer.answers[id(node)] = _written(writer, node)
        finally:
            writer.scopes = scopes
    name, clock = writer.answers[id(node)]
    return Term(f"{name}[{known(index[-1])}]", once=False, clock=clock)


def _written(writer: Lowering, node: Node) -> tuple[str, bool]:
    """Write the search; return the array of answers, and whether it depends on time alone."""
    *parts, t = node.args
    degrees, size = parts[-1].shape[-2:]
    time = writer.term(t, (MEMBER, *(0,) * (len(t.shape) - 1)) if t.shape else ())
    clock = time.clock and parts[0].op == "constant"
    where = ", ".join(_place(writer, part) for part in parts)
    writer.names += 1
    name = f"a{writer.names}"
    lines = (writer.clock if clock else writer.scopes[0]).lines
    at = time.code if clock else writer.hoist(time).code
    lines.append(f"V {name}[{size}];")
    lines.append(f"look_up<{parts[0].shape[-1]}, {degrees}, {size}>({at}, {where}, {name});")
    return name, clock


def _place(writer: Lowering, part: Node) -> str:
    """Return where in memory a tensor of the signal is, as code."""
    if part.op == "constant":
        return f"c + {writer.offsets[part.number]}"
    if part.op != "input":
        raise UnrecordableError("it makes a signal by itself")
    count, start = entries(part) // writer.graph.members, writer.starts[part.number - 2]
    if count > LARGEST:
        raise UnrecordableError(f"each member has a signal of {count} numbers, too many")
    names = writer.hoisted
    first = names.setdefault(f"p[{start} + 0]", f"q[{len(names)}]")
    for i in range(1, count):
        names.setdefault(f"p[{start} + {i}]", f"q[{len(names)}]")
    if names[f"p[{start} + {count - 1}]"] != f"q[{int(first[2:-1]) + count - 1}]":
        raise UnrecordableError("it also looks into a signal by itself")
    return f"q + {first[2:-1]}"
