r"""Advance a batch over one interval of the save grid by :math:`m` equal substeps.

With :math:`h = (t_1 - t_0) / m`, each substep adds its increment :math:`h \sum_i b_i k_i` to
:math:`y` once, after summing it up, so that in float32 the small terms are not lost one by one
against a large :math:`y`. The error of a member is the root mean square over its state of
:math:`e / (\mathrm{atol} + \mathrm{rtol} \max(|y|, |y_1|))`, and of its substeps the worst counts:
the interval is good where it is at most 1.

Everything the solver knows of the field passes through `advance`: static shapes, no decision that
depends on data, no write in place.

Plain autograd keeps what every substep computed until the backward pass. `advance_again` keeps the
state at the start alone; the backward pass takes the same steps once more before it goes back over
them, so that the gradient is the same, the exact adjoint of the steps, at the price of one more
forward pass (Training Deep Nets with Sublinear Memory Cost, 2016, arXiv:1604.06174).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hybridgen.integrate.tableaus import Tableau

__all__ = ["RHS", "Tolerance", "advance", "advance_again", "finite_rows", "rms"]

SMALL = 8

RHS = Callable[[Tensor, Tensor], Tensor]


def rms(ratio: Tensor) -> Tensor:
    """Return the root mean square of each row.

    Arguments:
        ratio: Scaled errors, with shape `(N, *S)`.

    Returns:
        One number a member, with shape `(N,)`.

    Example:
        >>> rms(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([3.5355, 0.0000])
    """
    squares = (ratio.abs() if ratio.is_complex() else ratio).square()
    return (_row_sum(squares) / max(math.prod(ratio.shape[1:]), 1)).sqrt()


def _row_sum(values: Tensor) -> Tensor:
    """Return the sum of each row, `(N,)`, of values of shape `(N, *S)`."""
    size = math.prod(values.shape[1:])
    rows = values.reshape(values.shape[0], size)
    if 0 < size <= SMALL:
        # On a CPU, reducing many short rows costs ten times as much as adding their columns.
        first, *others = rows.unbind(dim=1)
        return sum(others, first)
    return rows.sum(dim=1)


@dataclass(frozen=True)
class Tolerance:
    """What error a step may make.

    Arguments:
        rtol: Relative tolerance; a tensor must broadcast against the state, shape `S`.
        atol: Absolute tolerance, in the units of the state; a tensor as `rtol`.
        norm: Reduces scaled errors of shape `(N, *S)` to one number a member, `(N,)`.
    """

    rtol: float | Tensor
    atol: float | Tensor
    norm: Callable[[Tensor], Tensor] = rms


def finite_rows(y: Tensor) -> Tensor:
    """Return which members are finite.

    Arguments:
        y: States or derivatives, with shape `(N, *S)`.

    Returns:
        Truth values, with shape `(N,)`.

    Example:
        >>> finite_rows(torch.tensor([[1.0, 2.0], [1.0, torch.inf], [torch.nan, 0.0]]))
        tensor([ True, False, False])
    """
    return _row_sum(y.detach() * 0) == 0


def _weighted(weights: Sequence[float], terms: Sequence[Tensor], start: Tensor | None) -> Tensor:
    """Return `start + sum(weights * terms)`; zero weights cost nothing."""
    total = start
    for weight, term in zip(weights, terms, strict=False):
        if weight:
            total = term * weight if total is None else torch.add(total, term, alpha=weight)
    if total is None:
        raise ValueError("every weight is zero; a Runge-Kutta method has at least one that is not")
    return total


@torch.no_grad()
def _error(
    tableau: Tableau, tolerance: Tolerance, y: Tensor, y1: Tensor, hk: list[Tensor]
) -> Tensor:
    """Return the scaled error of each member, `(N,)`, for one substep from `y` to `y1`."""
    scale = torch.maximum(y.abs(), y1.abs()) * tolerance.rtol + tolerance.atol
    return tolerance.norm(_weighted(tableau.e, hk, None) / scale)


def advance(
    rhs: RHS,
    tableau: Tableau,
    t0: Tensor,
    t1: Tensor,
    y: Tensor,
    k: Tensor | None,
    substeps: int,
    tolerance: Tolerance | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Advance every member from `t0` to `t1`.

    Arguments:
        rhs: The right-hand side, `(t, y) -> dy/dt`, with `y` of shape `(N, *S)`.
        tableau: The method.
        t0: Start of the interval, with shape `()`, or `(N,)` for times of their own.
        t1: End of the interval, shaped like `t0`.
        y: State at `t0`, with shape `(N, *S)`.
        k: Derivative at `t0`, with shape `(N, *S)`, for an FSAL method; otherwise `None`.
        substeps: How many equal steps to take, `m`.
        tolerance: Scales the error; without it none is estimated.

    Returns:
        The state at `t1`, `(N, *S)`; its derivative, `(N, *S)`, if the method is FSAL; the scaled
        error of each member, `(N,)`, not finite where the member is not, if the method has one.

    Example:
        >>> from hybridgen.integrate.tableaus import RK4
        >>> t0, t1 = torch.tensor(0.0), torch.tensor(1.0)
        >>> advance(lambda t, y: -y, RK4, t0, t1, torch.ones(1), None, 10)[0]
        tensor([0.3679])
    """
    dt = (t1 - t0) / substeps
    real = y.dtype.to_real()
    h = dt.to(real).reshape(dt.shape + (1,) * (y.ndim - 1) * dt.ndim)
    error = last = None
    for j in range(substeps):
        start = torch.add(t0, dt, alpha=j) if j else t0
        end = t1 if j == substeps - 1 else torch.add(t0, dt, alpha=j + 1)
        first = rhs(start.to(real), y) if k is None else k
        hk = [first * h if last is None else last]
        for c, row in zip(tableau.c, tableau.a, strict=True):
            time = end if c == 1.0 else torch.add(start, dt, alpha=c)
            hk.append(rhs(time.to(real), _weighted(row, hk, y)) * h)
        y, before = y + _weighted(tableau.b, hk, None), y
        if not tableau.fsal:
            continue
        k = rhs(end.to(real), y)
        if tolerance is not None:
            last = k * h
            worst = _error(tableau, tolerance, before, y, [*hk, last])
            error = worst if error is None else torch.maximum(error, worst)
    return y, k, error


def advance_again(
    rhs: RHS,
    tableau: Tableau,
    t0: Tensor,
    t1: Tensor,
    y: Tensor,
    k: Tensor | None,
    substeps: int,
    tolerance: Tolerance | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Do what `advance` does, and again in the backward pass, which keeps only what is given here.

    Inside a `torch.func` transform, for which nothing can be computed again, all is kept.

    Arguments:
        rhs: As for `advance`; called twice, it has to return the same.
        tableau: The method.
        t0: Start of the interval, with shape `()` or `(N,)`.
        t1: End of the interval, shaped like `t0`.
        y: State at `t0`, with shape `(N, *S)`.
        k: Derivative at `t0`, with shape `(N, *S)`, or `None`.
        substeps: How many equal steps to take.
        tolerance: Scales the error.

    Returns:
        What `advance` returns.

    Example:
        >>> from hybridgen.integrate.tableaus import RK4
        >>> rate, (t0, t1) = torch.tensor(1.0, requires_grad=True), torch.tensor([0.0, 1.0])
        >>> y, *_ = advance_again(lambda t, y: -rate * y, RK4, t0, t1, torch.ones(1), None, 10)
        >>> torch.autograd.grad(y.sum(), rate)
        (tensor(-0.3679),)
    """
    given = rhs, tableau, t0, t1, y, k, substeps, tolerance
    if not torch.is_grad_enabled() or torch._C._functorch.maybe_current_level() is not None:
        return advance(*given)
    # Without the state of random generators: a right-hand side that draws numbers is none.
    return checkpoint(advance, *given, use_reentrant=False, preserve_rng_state=False)
