r"""Record what a field computes: the torch operations of one call, as a graph.

The field is called on a few members under a dispatch mode that notes every operation with its
arguments. Nothing of the field's Python is kept, only its arithmetic, so the graph is of use as
long as the field does the same operations for all values. Whatever could make that untrue is
refused: a branch on a value of a tensor, a call out of torch (where numbers come in that torch has
not computed), a number of members that is built into the code. Python numbers become part of the
graph; tensors that all members share stay outside, to be passed at each call.

A signal, an input as a function of time, has a node for its answer, and nothing of how that was
found. Where it is asked at the field's own time alone, the answer can be known before anybody
steps; elsewhere a kernel has to look it up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hybridgen.errors import HybridgenError
from hybridgen.signals import Pieces, Signal

__all__ = ["AnySignal", "Graph", "Node", "Recorder", "UnrecordableError", "record", "tensors"]

MEMBERS = (13, 17, 19, 23)
"""How many members to record on: a number that is no other size in the field."""

SAME = {"view", "_unsafe_view", "expand", "alias", "clone", "detach", "_to_copy"}
"""What may be done to the time before a signal is asked."""


AnySignal = Signal | Pieces


class UnrecordableError(HybridgenError, RuntimeError):
    """A field does something that a graph of torch operations cannot express."""


@dataclass(frozen=True, eq=False)
class Node:
    """A tensor in the field.

    Arguments:
        op: The operation, such as `"aten.sin.default"`; `"input"` for what differs between
            members, `"constant"` for what they share, `"signal"` for the answer of a signal that
            is known beforehand, `"lookup"` for any other.
        args: Its arguments: nodes, numbers, and lists of them.
        kwargs: Its keywords.
        shape: The shape of the result.
        dtype: Its dtype.
        number: Its place in the graph; that of an input counts the inputs, and so for constants;
            that of a signal is its place among those that were declared.
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
        signals: What signals answer at the time, `(N, U)`, of those that were asked.
        constants: Nodes of tensors that all members share.
        values: Those tensors.
        nodes: What is computed, in order.
        result: The derivative.
        key: What distinguishes the graph from others; the values of `values` do not.
    """

    members: int
    inputs: list[Node] = field(default_factory=list)
    signals: list[Node] = field(default_factory=list)
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
    call: Callable[[Tensor, Tensor], Tensor],
    t: Tensor,
    y: Tensor,
    members: list[Tensor],
    signals: Sequence[AnySignal] | None = None,
) -> Graph:
    """Record one call of a field.

    Arguments:
        call: The field with its arguments bound, `(t, y) -> dy/dt`.
        t: A time, with shape `()`, or `(N,)` for N members with times of their own.
        y: States of N members, with shape `(N, *S)`, N one of `MEMBERS`.
        members: The tensors among the bound arguments that differ between members, `(N, ...)`.
        signals: The signals of members' own, if their answers will be known beforehand; then
            others are recorded as what they compute. If it is left out, all are looked up.

    Returns:
        The graph; the first two inputs are `t` and `y`, the others are `members`.

    Raises:
        UnrecordableError: If the graph would not be the field.
    """
    first = _record(call, t, y, members, signals)
    if first.key in _VERIFIED:
        return first
    # Numbers that come from outside torch look like constants, but change with the state.
    second = _record(call, t + 0.3, y * 1.1 + 0.1, members, signals)
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
    call: Callable[[Tensor, Tensor], Tensor],
    t: Tensor,
    y: Tensor,
    members: list[Tensor],
    signals: Sequence[AnySignal] | None,
) -> Graph:
    t, y = t.detach(), y.detach()
    recorder = Recorder(len(y))
    for value in (t, y, *members):
        recorder.add_input(value)
    functional = torch.func.functionalize(call)
    with _Gate(recorder, signals, t), recorder:
        result = functional(t, y)
    return recorder.finish(result)


class _Gate(TorchFunctionMode):
    """Answers for signals; refuses what takes numbers out of torch, which no operation would show.

    Arguments:
        recorder: What notes the operations.
        signals: Signals whose answers are known beforehand; `None` to look up those of all.
        t: The time.
    """

    def __init__(self, recorder: Recorder, signals: Sequence[AnySignal] | None, t: Tensor) -> None:
        super().__init__()
        self.recorder, self.signals = recorder, signals
        self.answers = [_answer(signal, t) for signal in signals or ()]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (Signal.__call__, Pieces.__call__):
            return self._ask(*args)
        name = getattr(func, "__name__", "")
        if name in ("numpy", "__array__", "tolist", "item", "data_ptr", "__dlpack__"):
            raise UnrecordableError(f"it takes numbers out of a tensor (Tensor.{name})")
        return func(*args, **(kwargs or {}))

    def _ask(self, signal: AnySignal, t: Tensor) -> Tensor:
        """Return what a signal answers at a time."""
        if self.signals is None:
            with self.recorder.looking_away():
                out = signal(t)
            self.recorder.add_lookup(_inside(out), [*map(_inside, signal)], _inside(t))
            return out
        for place, known in enumerate(self.signals):
            if known is signal:
                answer = self.answers[place]
                self.recorder.add_signal(place, answer, _inside(t))
                return answer
        return signal(t)


def _answer(signal: AnySignal, t: Tensor) -> Tensor:
    """Return what signals `(*B, K, ...)` of N members are at a time, `()` or `(N,)`: `(*B, U)`."""
    times = t.reshape(*signal[0].shape[:-1], 1) if t.ndim else t.reshape(1)
    return signal.at(times)[..., 0, :].detach()


def _inside(value: Tensor) -> Tensor:
    """Return the tensor that a transform has wrapped, or the tensor itself."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(value)
    return torch._C._functorch.get_unwrapped(value) if wrapped else value


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
        self._looking = True
        self._key: list[Any] = [members]

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Note nothing of what happens inside."""
        self._looking = False
        try:
            yield
        finally:
            self._looking = True

    def add_input(self, value: Tensor) -> None:
        """Declare a tensor that differs between members, or the time."""
        shape = tuple(value.shape)
        node = Node("input", (), {}, shape, value.dtype, len(self.graph.inputs))
        self.graph.inputs.append(node)
        self._note(value, node)
        self._key.append(("input", shape, value.dtype))

    def add_signal(self, place: int, value: Tensor, t: Tensor | None = None) -> None:
        """Declare what the signal at a place among several answers, `(N, U)`.

        Arguments:
            place: The place.
            value: The answer.
            t: When it was asked, which must be the time of the field; not checked without.
        """
        if t is not None:
            node = self.node(t)
            while node.op.removeprefix("aten.").split(".")[0] in SAME:
                node = node.args[0]
            if node is not self.graph.inputs[0] or t.shape not in ((), value.shape[:-1]):
                raise UnrecordableError("it asks a signal at another time than its own")
        if id(value) in self._nodes:
            return
        shape = tuple(value.shape)
        node = Node("signal", (), {}, shape, value.dtype, place)
        self.graph.signals.append(node)
        self._note(value, node)
        self._key.append(("signal", place, shape, value.dtype))

    def add_lookup(self, value: Tensor, signal: list[Tensor], t: Tensor) -> None:
        """Declare that a tensor, `(..., U)`, is what a signal answers at a time.

        Arguments:
            value: The answer, with the shape of `t`, or `(N,)`, before its last axis.
            signal: Starts, knots and powers of the pieces; starts are knots if there are two.
            t: When it was asked.
        """
        first, *others = map(self.node, signal)
        parts = (first, *others) if len(others) == 2 else (first, first, *others)
        shape = tuple(value.shape)
        node = Node("lookup", (*parts, self.node(t)), {}, shape, value.dtype, next(self._count))
        self.graph.nodes.append(node)
        self._note(value, node)
        self._key.append(("lookup", self._plain(node.args), shape, value.dtype))

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
        if not self._looking:
            return out
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
        kind = node.op if node.op in ("input", "constant", "signal") else "node"
        return kind, node.number


def _several(out: Any) -> tuple[Any, ...]:
    return tuple(out) if isinstance(out, tuple | list) else (out,)
