"""Where the entries of tensors are: indices that are numbers while code is written.

An index has an entry for each axis: a number, the name of a loop variable, or `MEMBER` on the axis
of the members. Operations that only move entries map the index of a result to that of an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from hybridgen.integrate.recording import Node, UnrecordableError

__all__ = [
    "MEMBER",
    "VIEWS",
    "Index",
    "broadcast",
    "entries",
    "flat",
    "given",
    "indices",
    "known",
    "literal",
    "name_of",
]

Index = tuple[int | str, ...]
"""One entry of a tensor."""

MEMBER = "m"


def name_of(node: Node) -> str:
    """Return the name of an operation, without its namespace and overload."""
    return node.op.removeprefix("aten.").split(".")[0]


def entries(node: Node) -> int:
    """Return how many numbers a tensor has."""
    return math.prod(node.shape)


def indices(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield every index into a shape, in order."""
    for place in range(math.prod(shape)):
        yield tuple(int(i) for i in _unflat(place, shape, False))


def literal(value: float) -> str:
    """Return a Python number in C++."""
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return repr(float(value))


def given(node: Node, place: int, default: Any) -> Any:
    """Return a positional argument that may have been left out."""
    value = node.args[place] if len(node.args) > place else default
    return default if value is None else value


def _part(node: Node) -> int:
    """Return which of several results a node is."""
    return int(node.op[node.op.rindex("[") + 1 : -1])


def known(entry: int | str) -> int:
    """Return an entry that must be a number while the code is written."""
    if isinstance(entry, str):
        raise UnrecordableError("entries are rearranged along the members, or inside a loop")
    return entry


def _moved(index: Index, dim: int, start: int, step: int = 1) -> Index:
    if start == 0 and step == 1:
        return index
    return (*index[:dim], start + step * known(index[dim]), *index[dim + 1 :])


def broadcast(index: Index, shape: tuple[int, ...]) -> Index:
    """Return which entry of a smaller tensor is broadcast to an index."""
    last = index[len(index) - len(shape) :]
    return tuple(0 if size == 1 else i for i, size in zip(last, shape, strict=True))


def flat(index: Index, shape: tuple[int, ...]) -> str:
    """Return the place of an entry in memory, as code."""
    place, code = 0, []
    stride = 1
    for i, size in zip(reversed(index), reversed(shape), strict=True):
        if isinstance(i, int):
            place += i * stride
        else:
            code.append(i if stride == 1 else f"{stride} * {i}")
        stride *= size
    return " + ".join([str(place), *code]) if place or not code else " + ".join(code)


def _place(index: Index, shape: tuple[int, ...]) -> int:
    """Return the place of an entry among those of its member."""
    place = 0
    for i, size in zip(index, shape, strict=True):
        if i == MEMBER:
            if place:
                raise UnrecordableError("axes are merged with that of the members")
            continue
        place = place * size + known(i)
    return place


def _unflat(place: int, shape: tuple[int, ...], member: bool) -> Index:
    """Return the entry at a place; where members have an axis, it is the first that is not 1."""
    index: list[int | str] = []
    for d in reversed(range(len(shape))):
        if member and all(size == 1 for size in shape[:d]) and shape[d] > 1:
            index.append(MEMBER)
            member = False
            if place:
                raise UnrecordableError("axes are merged with that of the members")
            continue
        index.append(place % shape[d])
        place //= shape[d]
    return tuple(reversed(index))


def _select(node: Node, index: Index) -> tuple[Node, Index]:
    x, dim, at = node.args
    dim, at = dim % len(x.shape), at % x.shape[dim]
    return x, (*index[:dim], at, *index[dim:])


def _unbind(node: Node, index: Index) -> tuple[Node, Index]:
    x = node.args[0]
    dim = given(node, 1, 0) % len(x.shape)
    return x, (*index[:dim], _part(node), *index[dim:])


def _split(node: Node, index: Index) -> tuple[Node, Index]:
    x, sizes = node.args[:2]
    dim = given(node, 2, 0) % len(x.shape)
    part = _part(node)
    start = sum(sizes[:part]) if isinstance(sizes, tuple) else part * sizes
    return x, _moved(index, dim, start)


def _slice(node: Node, index: Index) -> tuple[Node, Index]:
    x = node.args[0]
    dim, start, step = given(node, 1, 0) % len(x.shape), given(node, 2, 0), given(node, 4, 1)
    start = min(max(start + x.shape[dim] * (start < 0), 0), x.shape[dim]) if start else 0
    return x, _moved(index, dim, start, step)


def _unsqueeze(node: Node, index: Index) -> tuple[Node, Index]:
    dim = node.args[1] % len(node.shape)
    return node.args[0], (*index[:dim], *index[dim + 1 :])


def _reshape(node: Node, index: Index) -> tuple[Node, Index]:
    x = node.args[0]
    return x, _unflat(_place(index, node.shape), x.shape, MEMBER in index)


def _permute(node: Node, index: Index) -> tuple[Node, Index]:
    x, dims = node.args
    places = [d % len(x.shape) for d in dims]
    return x, tuple(index[places.index(d)] for d in range(len(places)))


def _transpose(node: Node, index: Index) -> tuple[Node, Index]:
    x = node.args[0]
    a, b = node.args[1:] if len(node.args) == 3 else (0, len(x.shape) - 1)
    swapped = list(index)
    if len(x.shape) > 1:
        swapped[a], swapped[b] = index[b], index[a]
    return x, tuple(swapped)


def _expand(node: Node, index: Index) -> tuple[Node, Index]:
    return node.args[0], broadcast(index, node.args[0].shape)


def _stack(node: Node, index: Index) -> tuple[Node, Index]:
    parts = node.args[0]
    dim = given(node, 1, 0) % len(node.shape)
    return parts[known(index[dim])], (*index[:dim], *index[dim + 1 :])


def _cat(node: Node, index: Index) -> tuple[Node, Index]:
    dim, at = given(node, 1, 0) % len(node.shape), 0
    at = known(index[dim])
    for part in node.args[0]:
        if at < part.shape[dim]:
            return part, (*index[:dim], at, *index[dim + 1 :])
        at -= part.shape[dim]
    raise UnrecordableError("a concatenation without the entry that is asked for")


def _flip(node: Node, index: Index) -> tuple[Node, Index]:
    dims = [d % len(node.shape) for d in node.args[1]]
    entry = [node.shape[d] - 1 - known(i) if d in dims else i for d, i in enumerate(index)]
    return node.args[0], tuple(entry)


def _roll(node: Node, index: Index) -> tuple[Node, Index]:
    x, shifts = node.args[:2]
    dims = given(node, 2, ())
    if not dims:
        raise UnrecordableError("roll without dims is not known to the compiler")
    entry = list(index)
    for shift, dim in zip(shifts, dims, strict=True):
        entry[dim] = (known(index[dim]) - shift) % x.shape[dim]
    return x, tuple(entry)


VIEWS: dict[str, Callable[[Node, Index], tuple[Node, Index]]] = {
    "select": _select,
    "unbind": _unbind,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "slice": _slice,
    "unsqueeze": _unsqueeze,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "squeeze"), _reshape),
    "permute": _permute,
    **dict.fromkeys(("transpose", "t"), _transpose),
    "expand": _expand,
    "stack": _stack,
    "cat": _cat,
    "flip": _flip,
    "roll": _roll,
}
"""Which argument, and which entry of it, an entry of the result is."""
