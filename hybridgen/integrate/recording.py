r"""Record what a field computes: the torch operations of one call, as a graph.

The field is called on a few members under a dispatch mode that notes every operation with its
arguments. Nothing of the field's Python is kept, only its arithmetic, so the graph is of use as
long as the field does the same operations for all values. Whatever could make that untrue is
refused: a branch on a value of a tensor, a call out of torch (where numbers come in that torch has
not computed), a number of members that is built into the code. Python numbers become part of the
graph; tensors that all members share stay outside, to be passed at each call.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hybridgen.errors import HybridgenError

__all__ = ["Graph", "Node", "Recorder", "UnrecordableError", "record", "tensors"]

MEMBERS = (13, 17, 19, 23)
"""How many members to record on: a number that is no other size in the field."""


class UnrecordableError(HybridgenError, RuntimeError):
    """A field does something that a graph of torch operations cannot express."""


@dataclass(frozen=True, eq=False)
class Node:
    """A tensor in the field.

    Arguments:
        op: The operation, such as `"aten.sin.default"`; `"input"` for what differs between
            members, `"constant"` for what they share.
        args: Its arguments: nodes, numbers, and lists of them.
        kwargs: Its keywords.
        shape: The shape of the result.
        dtype: Its dtype.
        number: Its place in the graph; that of an input counts the inputs, and so for constants.
        function: What computes it, from `args` and `kwargs` with tensors for nodes.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype
    number: int
    function: Callable[..., Any] | None = None


@dataclass
class Graph:
    """The operations of one call.

    Arguments:
        members: On how many members it was recorded; an axis of that size is the members'.
        inputs: Time, state, and the tensors of the arguments that differ between members.
        constants: Nodes of tensors that all members share.
        values: Those tensors.
        nodes: What is computed, in order.
        result: The derivative.
        key: What distinguishes the graph from others; the values of `values` do not.
    """

    members: int
    inputs: list[Node] = field(default_factory=list)
    constants: list[Node] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    result: Node | None = None
    key: tuple[Any, ...] = ()


def tensors(args: Any) -> Iterator[Tensor]:
    """Yield the tensors in the arguments of a field, also inside tuples, lists and dicts."""
    if isinstance(args, Tensor):
        yield args
    elif isinstance(args, dict):
        for value in args.values():
            yield from tensors(value)
    elif isinstance(args, tuple | list):
        for value in args:
            yield from tensors(value)


def record(
    call: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor, members: list[Tensor]
) -> Graph:
    """Record one call of a field.

    Arguments:
        call: The field with its arguments bound, `(t, y) -> dy/dt`.
        t: A time, with shape `()`, or `(N,)` for N members with times of their own.
        y: States of N members, with shape `(N, *S)`, N one of `MEMBERS`.
        members: The tensors among the bound arguments that differ between members, `(N, ...)`.

    Returns:
        The graph; the first two inputs are `t` and `y`, the others are `members`.

    Raises:
        UnrecordableError: If the graph would not be the field.
    """
    first = _record(call, t, y, members)
    if first.key in _VERIFIED:
        return first
    # Numbers that come from outside torch look like constants, but change with the state.
    second = _record(call, t + 0.3, y * 1.1 + 0.1, members)
    same = len(first.values) == len(second.values) and first.key == second.key
    if not same or not all(map(_equal, first.values, second.values)):
        raise UnrecordableError("it does other operations, or uses other numbers, at other states")
    _VERIFIED.add(first.key)
    return first


_VERIFIED: set[tuple[Any, ...]] = set()
"""Keys of graphs that were recorded twice; the same operations need no second look."""


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or torch.equal(a, b)


def _record(
    call: Callable[[Tensor, Tensor], Tensor], t: Tensor, y: Tensor, members: list[Tensor]
) -> Graph:
    t, y = t.detach(), y.detach()
    recorder = Recorder(len(y))
    for value in (t, y, *members):
        recorder.add_input(value)
    functional = torch.func.functionalize(call)
    with _NoWayOut(), recorder:
        result = functional(t, y)
    return recorder.finish(result)


class _NoWayOut(TorchFunctionMode):
    """Refuses what would take numbers out of torch, which no operation would show."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("numpy", "__array__", "tolist", "item", "data_ptr", "__dlpack__"):
            raise UnrecordableError(f"it takes numbers out of a tensor (Tensor.{name})")
        return func(*args, **(kwargs or {}))


class Recorder(TorchDispatchMode):
    """Notes operations while they run.

    Arguments:
        members: How many members take part.
        fold: Whether what follows from constants alone is a constant itself; otherwise it must be
            a view of one.
    """

    def __init__(self, members: int, fold: bool = True) -> None:
        super().__init__()
        self.fold = fold
        self.graph = Graph(members)
        self._nodes: dict[int, Node] = {}
        self._alive: list[Tensor] = []  # An address names a tensor only while it lives.
        self._count = itertools.count()
        self._key: list[Any] = [members]

    def add_input(self, value: Tensor) -> None:
        """Declare a tensor that differs between members, or the time."""
        shape = tuple(value.shape)
        node = Node("input", (), {}, shape, value.dtype, len(self.graph.inputs))
        self.graph.inputs.append(node)
        self._note(value, node)
        self._key.append(("input", shape, value.dtype))

    def finish(self, result: Tensor) -> Graph:
        """Return the graph of a result."""
        self.graph.result = self.node(result)
        self._key.append(self._name(self.graph.result))
        self.graph.key = tuple(self._key)
        return self.graph

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = str(func)
        if not all(isinstance(v, Tensor) for v in _several(out)):
            raise UnrecordableError(f"it branches on, or takes a number out of, a tensor ({name})")
        alone = not any(map(self._differs, tensors([args, kwargs])))
        if alone and self.fold and not self._spread(out):
            return out  # What follows from constants alone is a constant, if it is used.
        inputs = self._replace(args), self._replace(kwargs)
        if name.split(".")[1].endswith("_"):  # in place: from here on the tensor is the result
            name = name.replace("_.", ".")
        for i, value in enumerate(_several(out)):
            op = name if isinstance(out, Tensor) else f"{name}[{i}]"
            shape = tuple(value.shape)
            node = Node(op, *inputs, shape, value.dtype, next(self._count), func)
            self.graph.nodes.append(node)
            self._note(value, node)
            self._key.append((op, *map(self._plain, inputs), shape, value.dtype))
        return out

    def _differs(self, value: Tensor) -> bool:
        """Return whether a tensor depends on time, state or arguments of members."""
        node = self._nodes.get(id(value))
        return node is not None and node.op != "constant"

    def _spread(self, out: Any) -> bool:
        """Return whether a result has an axis for the members."""
        return any(self.graph.members in v.shape for v in _several(out))

    def _note(self, value: Tensor, node: Node) -> None:
        self._nodes[id(value)] = node
        self._alive.append(value)

    def node(self, value: Tensor) -> Node:
        """Return the node of a tensor; one that nobody here made is a constant."""
        if id(value) in self._nodes:
            return self._nodes[id(value)]
        shape = tuple(value.shape)
        if self.graph.members in shape:
            raise UnrecordableError(
                "it uses numbers for each member that did not come as its arguments"
            )
        node = Node("constant", (), {}, shape, value.dtype, len(self.graph.constants))
        self.graph.constants.append(node)
        self.graph.values.append(value)
        self._note(value, node)
        # Whole numbers and truth values choose what is computed; others are only computed with.
        baked = () if value.is_floating_point() else tuple(value.flatten().tolist())
        self._key.append(("constant", shape, value.dtype, baked))
        return node

    def _replace(self, value: Any) -> Any:
        """Return arguments with nodes in the place of tensors."""
        if isinstance(value, Tensor):
            return self.node(value)
        if isinstance(value, dict):
            return {k: self._replace(v) for k, v in value.items()}
        if isinstance(value, tuple | list):
            return tuple(map(self._replace, value))
        return value

    def _plain(self, value: Any) -> Any:
        """Return arguments as something to compare."""
        if isinstance(value, Node):
            return self._name(value)
        if isinstance(value, dict):
            return tuple((k, self._plain(v)) for k, v in value.items())
        if isinstance(value, tuple):
            return tuple(map(self._plain, value))
        # 0.0 and -0.0, 1 and 1.0 are equal, but they are not the same number
        return (type(value).__name__, repr(value))

    @staticmethod
    def _name(node: Node) -> tuple[str, int]:
        kind = node.op if node.op in ("input", "constant") else "node"
        return kind, node.number


def _several(out: Any) -> tuple[Any, ...]:
    return tuple(out) if isinstance(out, tuple | list) else (out,)
