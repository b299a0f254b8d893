"""What operations of torch are in C++, entry by entry."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from hybridgen.integrate.indexing import (
    MEMBER,
    Index,
    entries,
    given,
    indices,
    known,
    literal,
    root,
)
from hybridgen.integrate.recording import Graph, Node, UnrecordableError

__all__ = ["ELEMENTWISE", "RULES", "Term", "Writer", "is_layer"]

UNROLLED = 64
"""How many terms of a sum, and entries of a product of matrices, are written one by one."""

FUNCTIONS = {
    name: f"v{name}({{0}})"
    for name in (
        *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "expm1"),
        *("log", "log1p", "log2", "log10", "exp2", "sqrt", "abs", "erf", "floor", "ceil"),
    )
}
ELEMENTWISE = FUNCTIONS | {
    "neg": "(-{0})",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
    "reciprocal": "(splat(1) / {0})",
    "rsqrt": "(splat(1) / vsqrt({0}))",
    "square": "({0} * {0})",
    "sigmoid": "(splat(1) / (splat(1) + vexp(-{0})))",
    "silu": "({0} / (splat(1) + vexp(-{0})))",
    "relu": "vmax({0}, splat(0))",
    "sign": "(({0} > splat(0) ? splat(1) : splat(0)) - ({0} < splat(0) ? splat(1) : splat(0)))",
    "minimum": "vmin({0}, {1})",
    "maximum": "vmax({0}, {1})",
    "clamp_min": "vmax({0}, {1})",
    "clamp_max": "vmin({0}, {1})",
    "atan2": "vatan2({0}, {1})",
    "where": "({0} ? {1} : {2})",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "eq": "({0} == {1})",
    "ne": "({0} != {1})",
    "logical_and": "({0} & {1})",
    "logical_or": "({0} | {1})",
    "logical_not": "(~{0})",
    "bitwise_and": "({0} & {1})",
    "bitwise_or": "({0} | {1})",
    "bitwise_not": "(~{0})",
    "tanh_backward": "({0} * (splat(1) - {1} * {1}))",
    "sigmoid_backward": "({0} * {1} * (splat(1) - {1}))",
    "sgn": "(({0} > splat(0) ? splat(1) : splat(0)) - ({0} < splat(0) ? splat(1) : splat(0)))",
}
"""What operations on single numbers are in C++; names without namespace and overload."""


class Term(NamedTuple):
    """A number in the code: the C++ that names it, and whether it is known before the first step.

    Arguments:
        code: An expression without operators, of type `V`, or `M` for truth values.
        once: Whether it depends on neither time nor state.
        truth: Whether it is a truth value.
        clock: Whether it depends on time alone.
    """

    code: str
    once: bool
    truth: bool = False
    clock: bool = False


class Writer(Protocol):
    """What rules ask of the one who writes the code."""

    graph: Graph

    def term(self, node: Node, index: Index) -> Term:
        """Return one entry of a tensor."""

    def number(self, value: Any, index: Index) -> Term:
        """Return an argument, which may be a Python number, broadcast to an index."""

    def define(self, code: str, terms: list[Term], *, truth: bool = False) -> Term:
        """Give a name to an expression in which `{0}`, `{1}`, ... stand for terms."""

    def layer(self, node: Node, x: Node, w: Node, bias: Node | None) -> None:
        """Write a whole product `(N, K) @ (K, O)` with a shared matrix."""


def _add(self: Writer, node: Node, index: Index) -> Term:
    sign = "+" if ".add." in node.op else "-"
    a, b = (self.number(v, index) for v in node.args[:2])
    alpha = node.kwargs.get("alpha", 1)
    if node.op.startswith("aten.rsub"):
        a, b = b, a
    if alpha != 1:
        b = self.define(f"({{0}} * splat({literal(alpha)}))", [b])
    return self.define(f"({{0}} {sign} {{1}})", [a, b])


def _power(self: Writer, node: Node, index: Index) -> Term:
    base, exponent = node.args[:2]
    if isinstance(exponent, Node) or not isinstance(base, Node):
        return self.define("vpow({0}, {1})", [self.number(v, index) for v in node.args[:2]])
    x = self.number(base, index)
    if exponent == 0.5:
        return self.define("vsqrt({0})", [x])
    if exponent != int(exponent) or not 1 <= abs(exponent) <= 8:
        return self.define(f"vpow({{0}}, splat({literal(exponent)}))", [x])
    product = " * ".join(["{0}"] * abs(int(exponent)))
    return self.define(f"({product})" if exponent > 0 else f"(splat(1) / ({product}))", [x])


def _clamp(self: Writer, node: Node, index: Index) -> Term:
    value, *bounds = (*node.args, None, None)[:3]
    x = self.number(value, index)
    for bound, name in zip(bounds, ("vmax", "vmin"), strict=True):
        if bound is not None:
            x = self.define(f"{name}({{0}}, {{1}})", [x, self.number(bound, index)])
    return x


def _softplus(self: Writer, node: Node, index: Index) -> Term:
    if node.args[1:] not in ((), (1,), (1, 20)):
        raise UnrecordableError("softplus with beta or threshold is not known to the compiler")
    # log(1 + exp(x)) without overflow
    code = "(vmax({0}, splat(0)) + vlog1p(vexp(-vabs({0}))))"
    return self.define(code, [self.number(node.args[0], index)])


def _silu_backward(self: Writer, node: Node, index: Index) -> Term:
    g, x = (self.number(v, index) for v in node.args)
    s = self.define("(splat(1) / (splat(1) + vexp(-{0})))", [x])
    return self.define("({0} * {1} * (splat(1) + {2} * (splat(1) - {1})))", [g, s, x])


def _threshold_backward(self: Writer, node: Node, index: Index) -> Term:
    g, x, threshold = (self.number(v, index) for v in node.args)
    above = self.define("({0} > {1})", [x, threshold], truth=True)
    return self.define("({0} ? {1} : splat(0))", [above, g])


def _softplus_backward(self: Writer, node: Node, index: Index) -> Term:
    g, x = (self.number(v, index) for v in node.args[:2])
    return self.define("({0} / (splat(1) + vexp(-{1})))", [g, x])


def _masked_fill(self: Writer, node: Node, index: Index) -> Term:
    x, mask, value = (self.number(v, index) for v in node.args)
    return self.define("({0} ? {1} : {2})", [mask, value, x])


def _select_backward(self: Writer, node: Node, index: Index) -> Term:
    g, sizes, dim, at = node.args
    dim, at = dim % len(sizes), at % sizes[dim]
    if known(index[dim]) != at:
        return self.number(0, index)
    return self.term(g, (*index[:dim], *index[dim + 1 :]))


def _slice_backward(self: Writer, node: Node, index: Index) -> Term:
    g, sizes, dim, *ends = node.args
    dim %= len(sizes)
    if g.shape[dim] == sizes[dim]:
        return self.term(g, index)
    places, at = range(sizes[dim])[slice(*ends)], known(index[dim])
    if at not in places:
        return self.number(0, index)
    return self.term(g, (*index[:dim], places.index(at), *index[dim + 1 :]))


def _filled(self: Writer, node: Node, index: Index) -> Term:
    values = {
        "zeros": 0,
        "zeros_like": 0,
        "new_zeros": 0,
        "ones": 1,
        "ones_like": 1,
        "new_ones": 1,
    }
    name = node.op.removeprefix("aten.").split(".")[0]
    return self.number(values[name] if name in values else node.args[-1], index)


def _copy(self: Writer, node: Node, index: Index) -> Term:
    return self.number(node.args[1], index)


def _sum(self: Writer, node: Node, index: Index) -> Term:
    x = node.args[0]
    dims = node.args[1] if len(node.args) > 1 else None
    dims = range(len(x.shape)) if dims in (None, ()) else dims
    dims = sorted(d % len(x.shape) for d in ([dims] if isinstance(dims, int) else dims))
    keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    count = math.prod(x.shape[d] for d in dims)
    if count > UNROLLED or self.graph.members in (x.shape[d] for d in dims):
        raise UnrecordableError(f"{node.op} over {count} entries is not known to the compiler")
    rest = [i for d, i in enumerate(index) if not (keep and d in dims)]
    terms = []
    for inner in indices(tuple(x.shape[d] for d in dims)):
        inside, outside = iter(inner), iter(rest)
        full = tuple(next(inside if d in dims else outside) for d in range(len(x.shape)))
        terms.append(self.term(x, full))
    code = " + ".join(f"{{{i}}}" for i in range(len(terms)))
    scale = f" * splat({literal(1.0 / count)})" if "mean" in node.op else ""
    return self.define(f"(({code}){scale})", terms)


def _product(self: Writer, node: Node, index: Index) -> Term:
    """Write an entry of a product of matrices, `(N, K) @ (K, O)` or `(N, I, K) @ (N, K, O)`."""
    a, b = node.args[-2:]
    bias = node.args[0] if "addmm" in node.op else None
    if bias is not None and any(v != 1 for v in node.kwargs.values()):
        raise UnrecordableError("addmm with alpha or beta is not known to the compiler")
    if is_layer(node):
        self.layer(node, a, b, bias)
        return self.term(node, index)
    inner = a.shape[-1]
    if inner * entries(node) // self.graph.members > UNROLLED:
        raise UnrecordableError(f"{node.op} of shape {node.shape} is not known to the compiler")
    terms = [] if bias is None else [self.number(bias, index)]
    first = len(terms)
    for k in range(inner):
        left = (*index[:-1], k)
        right = (*index[:-2], k, index[-1]) if len(b.shape) == len(index) == 3 else (k, index[-1])
        terms += [self.term(a, left), self.term(b, right)]
    code = [f"{{{first + 2 * k}}} * {{{first + 2 * k + 1}}}" for k in range(inner)]
    return self.define(f"({' + '.join(['{0}'] * first + code)})", terms)


def is_layer(node: Node) -> bool:
    """Return whether a tensor is a product `(N, K) @ (K, O)` with a large, shared matrix."""
    if node.op not in ("aten.mm.default", "aten.addmm.default"):
        return False
    w = node.args[-1]
    return root(w, (0, 0))[0].op == "constant" and entries(w) > UNROLLED


def _select_scatter(self: Writer, node: Node, index: Index) -> Term:
    x, source, dim, at = node.args
    dim, at = dim % len(x.shape), at % x.shape[dim]
    if known(index[dim]) == at:
        return self.number(source, (*index[:dim], *index[dim + 1 :]))
    return self.term(x, index)


def _slice_scatter(self: Writer, node: Node, index: Index) -> Term:
    x, source = node.args[:2]
    dim = given(node, 2, 0) % len(x.shape)
    if index[dim] == MEMBER:
        return self.number(source, index)
    places = range(x.shape[dim])[slice(*(*node.args[3:], None, None, None)[:3])]
    at = known(index[dim])
    if at in places:
        return self.number(source, (*index[:dim], places.index(at), *index[dim + 1 :]))
    return self.term(x, index)


def _pad(self: Writer, node: Node, index: Index) -> Term:
    x, pads = node.args[:2]
    entry = list(index)
    for d in range(len(pads) // 2):
        dim = len(x.shape) - 1 - d
        at = known(index[dim]) - pads[2 * d]
        if not 0 <= at < x.shape[dim]:
            return self.number(given(node, 2, 0), index)
        entry[dim] = at
    return self.term(x, tuple(entry))


RULES: dict[str, Callable[[Writer, Node, Index], Term]] = {
    "add": _add,
    "sub": _add,
    "rsub": _add,
    "pow": _power,
    "clamp": _clamp,
    "softplus": _softplus,
    "silu_backward": _silu_backward,
    "threshold_backward": _threshold_backward,
    "softplus_backward": _softplus_backward,
    "masked_fill": _masked_fill,
    "select_backward": _select_backward,
    "slice_backward": _slice_backward,
    "copy": _copy,
    "sum": _sum,
    "mean": _sum,
    "mm": _product,
    "addmm": _product,
    "bmm": _product,
    "select_scatter": _select_scatter,
    "slice_scatter": _slice_scatter,
    "constant_pad_nd": _pad,
    **dict.fromkeys(
        ("zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"), _filled
    ),
    **dict.fromkeys(("full", "full_like", "new_full", "fill", "scalar_tensor"), _filled),
}
