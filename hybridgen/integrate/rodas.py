r"""One step of a Rosenbrock method, which solves linear systems and so is stable where h is long.

With the Jacobian :math:`J = \partial f / \partial y`, the slope in time :math:`f_t` and
:math:`W = I / (\gamma h) - J`, the stages :math:`u_i` solve

.. math::
    W u_i = f\bigl(t + c_i h,\; y + \textstyle\sum_{j<i} a_{ij} u_j\bigr)
            + \tfrac{1}{h} \sum_{j<i} g_{ij} u_j + h \, d_i f_t .

The method is stiffly accurate: the last stage is taken at what already is a solution of order 4,
:math:`\hat y_1 = y + \sum_{j<s} a_{sj} u_j`, and :math:`u_s` is what it lacks,
:math:`y_1 = \hat y_1 + u_s`, so :math:`e = u_s` estimates the error. A component that decays at
once, :math:`h \lambda \to -\infty`, is damped to zero (L-stability).

References:
    Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia
    Differential Equations package (Steinebach, 2023), doi:10.1007/s10543-023-00967-x
    Solving Ordinary Differential Equations II (Hairer and Wanner, 1996), section IV.7,
    doi:10.1007/978-3-642-05221-7
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RODAS5P", "Rosenbrock", "advance_stiff"]


@dataclass(frozen=True)
class Rosenbrock:
    """The coefficients of a stiffly accurate Rosenbrock method of s stages.

    Arguments:
        name: The name of the method.
        order: Order of the method; its error estimate shrinks with `h^order` a step.
        gamma: The diagonal.
        c: Nodes of the s stages.
        d: Weights of the slope in time.
        a: One row of weights for the states of each stage after the first.
        g: One row of weights for the right-hand sides of each stage after the first.

    Example:
        >>> RODAS5P.order, len(RODAS5P.c), RODAS5P.c[-1]
        (5, 8, 1.0)
    """

    name: str
    order: int
    gamma: float
    c: tuple[float, ...]
    d: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    g: tuple[tuple[float, ...], ...]


_LAST = (
    -7.502846399306121,
    2.561846144803919,
    -11.627539656261098,
    -0.18268767659942256,
    0.030198172008377946,
)

RODAS5P = Rosenbrock(
    name="rodas5p",
    order=5,
    gamma=0.21193756319429014,
    c=(
        0.0,
        0.6358126895828704,
        0.4095798393397535,
        0.9769306725060716,
        0.4288403609558664,
        1.0,
        1.0,
        1.0,
    ),
    d=(
        0.21193756319429014,
        -0.42387512638858027,
        -0.3384627126235924,
        1.8046452872882734,
        2.325825639765069,
        0.0,
        0.0,
        0.0,
    ),
    a=(
        (3.0,),
        (2.849394379747939, 0.45842242204463923),
        (-6.954028509809101, 2.489845061869568, -10.358996098473584),
        (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
        _LAST,
        (*_LAST, 1.0),
        (*_LAST, 1.0, 1.0),
    ),
    g=(
        (-14.155112264123755,),
        (-17.97296035885952, -2.859693295451294),
        (147.12150275711716, -1.41221402718213, 71.68940251302358),
        (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
        (
            24.854864614690072,
            -3.0009227002832186,
            47.4931110020768,
            5.5814197821558125,
            -0.6610691825249471,
        ),
        (
            30.91273214028599,
            -3.1208243349937974,
            77.79954646070892,
            34.28646028294783,
            -19.097331116725623,
            -28.087943162872662,
        ),
        (
            37.80277123390563,
            -3.2571969029072276,
            112.26918849496327,
            66.9347231244047,
            -40.06618937091002,
            -54.66780262877968,
            -9.48861652309627,
        ),
    ),
)


def _combine(weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    """Return the weighted sum of stages, with shape `(N, D)`.

    Term by term: a matrix product would round a member's numbers as its neighbours' number has it.
    """
    total = weights[0] * stages[0]
    for weight, stage in zip(weights[1:], stages[1:], strict=True):
        total = torch.add(total, stage, alpha=weight)
    return total


def advance_stiff(
    rhs: Callable[[Tensor, Tensor], Tensor],
    method: Rosenbrock,
    t0: Tensor,
    t1: Tensor,
    y: Tensor,
    k: Tensor,
    jacobian: Tensor,
    slope: Tensor,
) -> tuple[Tensor, Tensor]:
    """Take one step with every member, each from its own time to its own.

    Arguments:
        rhs: The right-hand side, `(t, y) -> dy/dt`, with t of shape `(N,)` and y `(N, *S)`.
        method: The coefficients.
        t0: Where the steps start, with shape `(N,)`.
        t1: Where they end, with shape `(N,)`.
        y: State at `t0`, with shape `(N, *S)`.
        k: Its derivative, with shape `(N, *S)`.
        jacobian: The derivative of `rhs` by the D components of the state, with shape `(N, D, D)`.
        slope: The derivative of `rhs` by time, with shape `(N, *S)`.

    Returns:
        The state at `t1` and its error, both with shape `(N, *S)`; not finite where the linear
        system has no solution.

    Example:
        >>> decay = lambda t, y: -1e6 * y
        >>> t0, t1, y = torch.zeros(1), torch.ones(1), torch.ones(1, 1)
        >>> k, jacobian, slope = decay(t0, y), torch.tensor([[[-1e6]]]), torch.zeros(1, 1)
        >>> y1, _ = advance_stiff(decay, RODAS5P, t0, t1, y, k, jacobian, slope)
        >>> bool(y1.abs() < 1e-4)
        True
    """
    shape, flat = y.shape, (len(y), -1)
    h = (t1 - t0).to(y.dtype)[:, None]
    unit = torch.eye(jacobian.shape[-1], dtype=y.dtype, device=y.device)
    lu, pivots, _ = torch.linalg.lu_factor_ex(unit / (method.gamma * h[:, :, None]) - jacobian)
    y, f, hf_t = y.reshape(flat), k.reshape(flat), h * slope.reshape(flat)
    stages: list[Tensor] = []
    at = y
    for i, (c, d) in enumerate(zip(method.c, method.d, strict=True)):
        if i:
            at = y + _combine(method.a[i - 1], stages)
            time = t1 if c == 1.0 else torch.lerp(t0, t1, c)
            f = rhs(time, at.reshape(shape)).reshape(flat)
            f = f + _combine(method.g[i - 1], stages) / h
        right = f + d * hf_t if d else f
        stages.append(torch.linalg.lu_solve(lu, pivots, right[..., None])[..., 0])
    return (at + stages[-1]).reshape(shape), stages[-1].reshape(shape)
