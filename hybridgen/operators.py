r"""Spatial operators on regular grids, by central differences of second or fourth order.

With spacing :math:`h` and ghost values :math:`u_{-1}, u_n` beside a row of :math:`n` points,

.. math:: u'(x_j) \approx \frac{u_{j+1} - u_{j-1}}{2h}, \qquad
          u''(x_j) \approx \frac{u_{j+1} - 2 u_j + u_{j-1}}{h^2} ,

and the Laplacian is the sum of the second differences over the axes (five points in a plane). On a
periodic grid the same differences over two steps, :math:`D_{2h}`, remove the leading error:
:math:`(4 D_h - D_{2h}) / 3` is of fourth order.

The boundary says what the ghosts are, and with it which waves the second difference keeps, all of
them exactly:

=============  ===========================  ============================  =====================
boundary       ghosts                       waves                         eigenvalue
=============  ===========================  ============================  =====================
``periodic``   the other end of the row     Fourier, period n             -4/h^2 sin^2(pi k/n)
``neumann``    the end itself: no flux      cos(pi k (j + 1/2) / n)       -4/h^2 sin^2(pi k/2n)
``dirichlet``  zero, one step outside       sin(pi k (j + 1) / (n + 1))   -4/h^2 sin^2(pi k/2(n+1))
=============  ===========================  ============================  =====================

So with ``neumann`` the ends of the domain are half a step outside, with ``dirichlet`` a whole one.
The second difference is of second order up to the ends for fields that vanish there with all even
derivatives (``dirichlet``) or whose odd derivatives vanish there (``neumann``); for any other that
keeps the boundary condition it is with ``dirichlet``, too, while with ``neumann`` the values at
the two end points are of first order. What is solved for with it is of second order all the same.

References:
    Finite Difference Methods for Ordinary and Partial Differential Equations (LeVeque, 2007),
    doi:10.1137/1.9780898717839
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hybridgen.errors import ConfigError, ParameterError, ShapeError, nearest

__all__ = ["Boundary", "derivative", "gradient", "laplacian", "waves"]

Boundary = Literal["periodic", "neumann", "dirichlet"]

_BOUNDARIES = ("periodic", "neumann", "dirichlet")


def laplacian(
    u: Tensor,
    spacing: float | Sequence[float],
    boundary: Boundary | Sequence[Boundary] = "periodic",
    *,
    axes: int = 2,
    order: Literal[2, 4] = 2,
) -> Tensor:
    """Return the Laplacian of a field over its last axes.

    Arguments:
        u: The field, with shape `(*B, *S)`, at least two points along each spatial axis.
        spacing: The distance of neighbouring points, one for all axes or one for each, in the
            order of `S`.
        boundary: `"periodic"`, `"neumann"` (no flux through the ends) or `"dirichlet"` (zero one
            step outside), one for all axes or one for each.
        axes: How many spatial axes there are.
        order: Order of accuracy; 4 on periodic axes only.

    Returns:
        The Laplacian in units of u over spacing squared, with shape `(*B, *S)`.

    Raises:
        ShapeError: If the field has fewer axes than that, or an axis of one point.
        ParameterError: If a spacing is not positive, or there is not one for each axis.
        ConfigError: If the boundary is unknown, or the order is not there for it.

    Example:
        >>> x = 2 * torch.pi * torch.arange(64, dtype=torch.float64) / 64
        >>> u = torch.sin(x)[:, None] * torch.cos(2 * x)
        >>> bool((laplacian(u, 2 * torch.pi / 64) + 5 * u).abs().max() < 0.02)
        True
    """
    _check_axes(u, axes)
    parts = [
        _second(u, axis - axes, edge, order) / _positive(h) ** 2
        for axis, (h, edge) in enumerate(_per_axis(spacing, boundary, axes))
    ]
    return sum(parts[1:], parts[0])


def derivative(
    u: Tensor,
    spacing: float,
    boundary: Boundary = "periodic",
    *,
    axis: int = -1,
    order: Literal[2, 4] = 2,
) -> Tensor:
    """Return the first derivative of a field along one axis, as advection needs it.

    Arguments:
        u: The field, with shape `(*B, *S)`, at least two points along the axis.
        spacing: The distance of neighbouring points.
        boundary: As for `laplacian`.
        axis: The axis, counted from the right: -1 is the last.
        order: Order of accuracy; 4 on periodic axes only.

    Returns:
        The derivative in units of u over spacing, with shape `(*B, *S)`.

    Raises:
        ShapeError: If the field has no such axis, or it has one point.
        ParameterError: If the spacing is not positive.
        ConfigError: If the boundary is unknown, or the order is not there for it.

    Example:
        >>> x = torch.arange(4.0)
        >>> derivative(x * x, 1.0, "dirichlet")[1:-1]
        tensor([2., 4.])
    """
    if not -u.ndim <= axis < 0:
        raise ShapeError(
            f"the field has shape {tuple(u.shape)} and axis is {axis}; count it from the right, "
            f"from -{u.ndim} to -1."
        )
    return _first(u, axis, boundary, order) / (2.0 * _positive(spacing))


def gradient(
    u: Tensor,
    spacing: float | Sequence[float],
    boundary: Boundary | Sequence[Boundary] = "periodic",
    *,
    axes: int = 2,
    order: Literal[2, 4] = 2,
) -> Tensor:
    """Return the first derivatives of a field along its last axes.

    Arguments:
        u: The field, with shape `(*B, *S)`, at least two points along each spatial axis.
        spacing: As for `laplacian`.
        boundary: As for `laplacian`.
        axes: How many spatial axes there are.
        order: Order of accuracy; 4 on periodic axes only.

    Returns:
        One derivative for each axis, in the order of `S` and in units of u over spacing, with
        shape `(*B, axes, *S)`.

    Raises:
        ShapeError: If the field has fewer axes than that, or an axis of one point.
        ParameterError: If a spacing is not positive, or there is not one for each axis.
        ConfigError: If the boundary is unknown, or the order is not there for it.

    Example:
        >>> x = torch.arange(4.0)
        >>> gradient(x[:, None] + 10 * x, 1.0, "neumann")[:, 1, 1]
        tensor([ 1., 10.])
    """
    _check_axes(u, axes)
    parts = [
        derivative(u, h, edge, axis=axis - axes, order=order)
        for axis, (h, edge) in enumerate(_per_axis(spacing, boundary, axes))
    ]
    return torch.stack(parts, dim=-1 - axes)


def waves(
    n: int,
    spacing: float,
    boundary: Boundary = "periodic",
    *,
    order: Literal[2, 4] = 2,
    like: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the waves that the second difference keeps, and what it multiplies them by.

    Arguments:
        n: The number of points of the row, at least two.
        spacing: The distance of neighbouring points.
        boundary: As for `laplacian`.
        order: Order of accuracy; 4 on periodic axes only.
        like: A tensor, of any shape, whose dtype and device are wanted; otherwise float64.

    Returns:
        The eigenvalues, in units of one over spacing squared, with shape `(n,)`, and the waves,
        orthonormal columns, with shape `(n, n)`.

    Raises:
        ShapeError: If there are fewer than two points.
        ParameterError: If the spacing is not positive.
        ConfigError: If the boundary is unknown, or the order is not there for it.

    Example:
        >>> values, vectors = waves(8, 0.1, "neumann")
        >>> kept = laplacian(vectors.mT, 0.1, "neumann", axes=1).mT
        >>> torch.allclose(kept, vectors * values)
        True
    """
    if n < 2:
        raise ShapeError(f"a row of {n} points has no differences; give at least two.")
    _check_order(boundary, order)
    j = torch.arange(n, dtype=torch.float64)
    if boundary == "periodic":
        # cos and sin of each frequency in turn; an even row has one wave, cos, of the highest
        k = (j + 1).div(2, rounding_mode="floor")
        phase = torch.where(j % 2 == 1, 0.0, -0.5 * torch.pi).where(k > 0, 0.0)
        vectors = torch.cos(2 * torch.pi * torch.outer(j, k) / n + phase)
        angle = torch.pi * k / n
    elif boundary == "neumann":
        vectors, angle = torch.cos(torch.pi * torch.outer(j + 0.5, j) / n), torch.pi * j / (2 * n)
    else:
        vectors = torch.sin(torch.pi * torch.outer(j + 1, j + 1) / (n + 1))
        angle = torch.pi * (j + 1) / (2 * n + 2)
    values = -4.0 * torch.sin(angle) ** 2
    if order == 4:
        values = (4.0 * values + torch.sin(2.0 * angle) ** 2) / 3.0
    values, vectors = values / _positive(spacing) ** 2, vectors / vectors.norm(dim=0)
    return (values, vectors) if like is None else (values.to(like), vectors.to(like))


def _check_axes(u: Tensor, axes: int) -> None:
    if axes < 1 or u.ndim < axes:
        raise ShapeError(
            f"the field has shape {tuple(u.shape)}, but axes={axes}; give a field (*B, *S) "
            "with that many spatial axes, at least 1."
        )


def _per_axis(
    spacing: float | Sequence[float], boundary: Boundary | Sequence[Boundary], axes: int
) -> list[tuple[float, Boundary]]:
    """Return spacing and boundary of each axis."""
    steps = tuple(spacing) if isinstance(spacing, Sequence) else (spacing,) * axes
    edges = (boundary,) * axes if isinstance(boundary, str) else tuple(boundary)
    for name, given in (("spacing", steps), ("boundary", edges)):
        if len(given) != axes:
            raise ParameterError(
                f"{name} has {len(given)} entries for {axes} axes; give one or all."
            )
    return list(zip(steps, edges, strict=True))


def _check_order(boundary: str, order: int) -> None:
    if boundary not in _BOUNDARIES:
        raise ConfigError(f"no boundary {boundary!r}; {nearest(str(boundary), _BOUNDARIES)}")
    if order != 2 and not (order == 4 and boundary == "periodic"):
        raise ConfigError(
            f"no differences of order {order} with boundary {boundary!r}; write order=2, or "
            "order=4 on a periodic grid."
        )


def _second(u: Tensor, axis: int, boundary: str, order: int) -> Tensor:
    """Return the second difference along an axis, of a spacing of 1, with shape `(*B, *S)`."""
    if not _rolls(u, axis, boundary, order):
        return _with_ghosts(u, axis, boundary).diff(n=2, dim=axis)
    near = (u.roll(-1, axis) - u) - (u - u.roll(1, axis))
    if order == 2:
        return near
    far = (u.roll(-2, axis) - u) - (u - u.roll(2, axis))
    return (4.0 * near - 0.25 * far) / 3.0


def _first(u: Tensor, axis: int, boundary: str, order: int) -> Tensor:
    """Return the difference over two steps along an axis, with shape `(*B, *S)`."""
    if not _rolls(u, axis, boundary, order):
        wide, n = _with_ghosts(u, axis, boundary), u.shape[axis]
        return wide.narrow(axis, 2, n) - wide.narrow(axis, 0, n)
    near = u.roll(-1, axis) - u.roll(1, axis)
    return near if order == 2 else (4.0 * near - 0.5 * (u.roll(-2, axis) - u.roll(2, axis))) / 3.0


def _rolls(u: Tensor, axis: int, boundary: str, order: int) -> bool:
    """Return whether to roll the field, with shape `(*B, *S)`, instead of adding ghosts to it.

    A compiler fuses rolls and not concatenations; eagerly, one copy with ghosts is faster.
    """
    if u.shape[axis] < 2:
        raise ShapeError(
            f"the field has shape {tuple(u.shape)}, one point along axis {axis}; "
            "differences need two."
        )
    _check_order(boundary, order)
    return boundary == "periodic" and (order == 4 or torch.compiler.is_compiling())


def _with_ghosts(u: Tensor, axis: int, boundary: str) -> Tensor:
    """Return the field with one more value at both ends of an axis, `n + 2` values along it."""
    first, last = u.narrow(axis, 0, 1), u.narrow(axis, -1, 1)
    if boundary == "periodic":
        return torch.cat([last, u, first], axis)
    if boundary == "neumann":
        return torch.cat([first, u, last], axis)
    zero = torch.zeros_like(first)
    return torch.cat([zero, u, zero], axis)


def _positive(spacing: float) -> float:
    if not 0.0 < spacing < float("inf"):
        raise ParameterError(f"spacing is {spacing}; give a positive finite number.")
    return spacing
