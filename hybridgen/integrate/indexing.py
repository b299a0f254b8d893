"""Where the entries of tensors are: indices that are numbers while code is written.

An index has an entry for each axis: a number, the name of a loop variable, an `Axis` where the
tensor is a field on a grid, or `MEMBER` on the axis of the members. Operations that only move
entries map the index of a result to that of an argument.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import sub
from typing import Any

from hybridgen.integrate.recording import Node, UnrecordableError

__all__ = [
    "MEMBER",
    "VIEWS",
    "Axis",
    "Entry",
    "Index",
    "broadcast",
    "entries",
    "flat",
    "given",
    "indices",
    "known",
    "literal",
    "name_of",
    "root",
    "strides",
]


@dataclass(frozen=True)
class Axis:
    """All points along an axis of the grid at once.

    Arguments:
        axis: 0 for the rows of the grid, 1 for the points in a row.
        places: Where along an axis of the tensor each of the points finds its entry.
    """

    axis: int
    places: tuple[int, ...]


Entry = int | str | Axis
Index = tuple[Entry, ...]
"""One entry of a tensor, or as many as the grid has points."""

MEMBER = "m"


def name_of(node: Node) -> str:
    """Return the name of an operation, without its namespace and overload."""
    return node.op.removeprefix("aten.").split(".")[0]


def entries(node: Node) -> int:
    """Return how many numbers a tensor has."""
    return math.prod(node.shape)


def indices(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield every index into a shape, in order."""
    yield from itertools.product(*map(range, shape))


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


def known(entry: Entry) -> int:
    """Return an entry that must be a number while the code is written."""
    if not isinstance(entry, int):
        raise UnrecordableError("entries are rearranged along the members, or inside a loop")
    return entry


def _mapped(entry: Entry, where: Callable[[int], int]) -> Entry:
    """Return an entry, or each place along an axis, moved to where it comes from."""
    if isinstance(entry, Axis):
        return Axis(entry.axis, tuple(map(where, entry.places)))
    return where(known(entry))


def _moved(index: Index, dim: int, start: int, step: int = 1) -> Index:
    if start == 0 and step == 1:
        return index
    there = _mapped(index[dim], lambda i: start + step * i)
    return (*index[:dim], there, *index[dim + 1 :])


def broadcast(index: Index, shape: tuple[int, ...]) -> Index:
    """Return which entry of a smaller tensor is broadcast to an index."""
    last = index[len(index) - len(shape) :]
    return tuple(0 if size == 1 else i for i, size in zip(last, shape, strict=True))


def flat(index: Index, shape: tuple[int, ...]) -> str:
    """Return the place of an entry in memory, as code."""
    place, stride = 0, 1
    code: list[str] = []
    for i, size in zip(reversed(index), reversed(shape), strict=True):
        if isinstance(i, str):
            code.append(i if stride == 1 else f"{stride} * {i}")
        else:
            place += known(i) * stride
        stride *= size
    return " + ".join([str(place), *code]) if place or not code else " + ".join(code)


def _squeezed(index: Index, shape: tuple[int, ...]) -> list[tuple[int, Entry]]:
    """Return size and entry of every axis that is longer than 1."""
    return [(size, i) for size, i in zip(shape, index, strict=True) if size != 1]


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
    index: list[Entry] = []
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
    long = _squeezed(index, node.shape)
    if [size for size, _ in long] == [size for size in x.shape if size != 1]:
        rest = iter(long)
        return x, tuple(0 if size == 1 else next(rest)[1] for size in x.shape)
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
    dim = given(node, 1, 0) % len(node.shape)
    entry = index[dim]
    if not isinstance(entry, Axis):
        part, at = _part_at(node, dim, known(entry))
        return part, (*index[:dim], at, *index[dim + 1 :])
    found = [_part_at(node, dim, i) for i in entry.places]
    if len({id(part) for part, _ in found}) == 1:
        there = Axis(entry.axis, tuple(at for _, at in found))
        return found[0][0], (*index[:dim], there, *index[dim + 1 :])
    ends = [root(part, (*index[:dim], at, *index[dim + 1 :])) for part, at in found]
    origin, first = ends[0]
    varying = {d for _, i in ends for d in range(len(i)) if i[d] != first[d]}
    if any(node is not origin for node, _ in ends) or len(varying) > 1:
        raise UnrecordableError("fields that are no parts of one are joined")
    if not varying:
        return origin, first
    (d,) = varying
    there = Axis(entry.axis, tuple(known(i[d]) for _, i in ends))
    return origin, (*first[:d], there, *first[d + 1 :])


def _part_at(node: Node, dim: int, at: int) -> tuple[Node, int]:
    """Return which part of a concatenation has an entry, and where."""
    for part in node.args[0]:
        if at < part.shape[dim]:
            return part, at
        at -= part.shape[dim]
    raise UnrecordableError("a concatenation without the entry that is asked for")


def root(node: Node, index: Index) -> tuple[Node, Index]:
    """Return the tensor that a view shows, and where the entry is in it."""
    while name_of(node) in VIEWS:
        node, index = VIEWS[name_of(node)](node, index)
    return node, index


def strides(view: Node) -> tuple[Node, int, list[int]]:
    """Return what a view shows, where it begins there in memory, and the stride of each axis."""
    corner: Index = (0,) * len(view.shape)
    end, index = root(view, corner)
    first = int(flat(index, end.shape))
    steps = []
    for d, size in enumerate(view.shape):
        _, index = root(view, (*corner[:d], min(1, size - 1), *corner[d + 1 :]))
        steps.append(int(flat(index, end.shape)) - first)
    return end, first, steps


def _flip(node: Node, index: Index) -> tuple[Node, Index]:
    dims = [d % len(node.shape) for d in node.args[1]]
    last = [size - 1 for size in node.shape]
    entry = [_mapped(i, partial(sub, last[d])) if d in dims else i for d, i in enumerate(index)]
    return node.args[0], tuple(entry)


def _before(shift: int, size: int, place: int) -> int:
    """Return what a periodic shift brings to a place."""
    return (place - shift) % size


def _roll(node: Node, index: Index) -> tuple[Node, Index]:
    x, shifts = node.args[:2]
    dims = given(node, 2, ())
    if not dims:
        raise UnrecordableError("roll without dims is not known to the compiler")
    entry = list(index)
    for shift, dim in zip(shifts, dims, strict=True):
        entry[dim] = _mapped(entry[dim], partial(_before, shift, x.shape[dim]))
    return x, tuple(entry)


def _same(node: Node, index: Index) -> tuple[Node, Index]:
    return node.args[0], index


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
    **dict.fromkeys(("clone", "alias", "detach", "_to_copy", "contiguous"), _same),
    **dict.fromkeys(("lift_fresh_copy", "lift_fresh"), _same),
}
"""Which argument, and which entry of it, an entry of the result is."""
