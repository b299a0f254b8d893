r"""Spatial operators on regular grids, by central differences of second order.

With spacing :math:`h` and ghost values :math:`u_{-1}, u_n` beside a row of :math:`n` points,

.. math:: u'(x_j) \approx \frac{u_{j+1} - u_{j-1}}{2h}, \qquad
          u''(x_j) \approx \frac{u_{j+1} - 2 u_j + u_{j-1}}{h^2} ,

and the Laplacian is the sum of the second differences over the axes (five points in a plane). The
boundary says what the ghosts are, and with it which waves the second difference keeps, all of them
exactly:

=============  ===========================  ============================  =====================
boundary       ghosts                       waves                         eigenvalue
=============  ===========================  ============================  =====================
``periodic``   the other end of the row     Fourier, period n             -4/h^2 sin^2(pi k/n)
``neumann``    the end itself: no flux      cos(pi k (j + 1/2) / n)       -4/h^2 sin^2(pi k/2n)
``dirichlet``  zero, one step outside       sin(pi k (j + 1) / (n + 1))   -4/h^2 sin^2(pi k/2(n+1))
=============  ===========================  ============================  =====================

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

__all__ = ["Boundary", "derivative", "laplacian"]

Boundary = Literal["periodic", "neumann", "dirichlet"]

_BOUNDARIES = ("periodic", "neumann", "dirichlet")


def laplacian(
    u: Tensor,
    spacing: float | Sequence[float],
    boundary: Boundary = "periodic",
    *,
    axes: int = 2,
) -> Tensor:
    """Return the Laplacian of a field over its last axes.

    Arguments:
        u: The field, with shape `(*B, *S)`, at least two points along each spatial axis.
        spacing: The distance of neighbouring points, one for all axes or one for each, in the
            order of `S`.
        boundary: `"periodic"`, `"neumann"` (no flux through the ends) or `"dirichlet"` (zero one
            step outside).
        axes: How many spatial axes there are.

    Returns:
        The Laplacian in units of u over spacing squared, with shape `(*B, *S)`.

    Raises:
        ShapeError: If the field has fewer axes than that, or an axis of one point.
        ParameterError: If a spacing is not positive, or there is not one for each axis.
        ConfigError: If the boundary is unknown.

    Example:
        >>> x = 2 * torch.pi * torch.arange(64, dtype=torch.float64) / 64
        >>> u = torch.sin(x)[:, None] * torch.cos(2 * x)
        >>> bool((laplacian(u, 2 * torch.pi / 64) + 5 * u).abs().max() < 0.02)
        True
    """
    if axes < 1 or u.ndim < axes:
        raise ShapeError(
            f"the field has shape {tuple(u.shape)}, but axes={axes}; give a field (*B, *S) "
            "with that many spatial axes, at least 1."
        )
    steps = tuple(spacing) if isinstance(spacing, Sequence) else (spacing,) * axes
    if len(steps) != axes:
        raise ParameterError(f"spacing has {len(steps)} numbers for {axes} axes; give one or all.")
    parts = [
        _with_ghosts(u, axis - axes, boundary).diff(n=2, dim=axis - axes) / _positive(h) ** 2
        for axis, h in enumerate(steps)
    ]
    return sum(parts[1:], parts[0])


def derivative(
    u: Tensor, spacing: float, boundary: Boundary = "periodic", *, axis: int = -1
) -> Tensor:
    """Return the first derivative of a field along one axis, as advection needs it.

    Arguments:
        u: The field, with shape `(*B, *S)`, at least two points along the axis.
        spacing: The distance of neighbouring points.
        boundary: As for `laplacian`.
        axis: The axis, counted from the right: -1 is the last.

    Returns:
        The derivative in units of u over spacing, with shape `(*B, *S)`.

    Raises:
        ShapeError: If the field has no such axis, or it has one point.
        ParameterError: If the spacing is not positive.
        ConfigError: If the boundary is unknown.

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
    wide = _with_ghosts(u, axis, boundary)
    n = u.shape[axis]
    return (wide.narrow(axis, 2, n) - wide.narrow(axis, 0, n)) / (2.0 * _positive(spacing))


def _with_ghosts(u: Tensor, axis: int, boundary: str) -> Tensor:
    """Return the field with one more value at both ends of an axis, `n + 2` values along it."""
    if u.shape[axis] < 2:
        raise ShapeError(
            f"the field has shape {tuple(u.shape)}, one point along axis {axis}; "
            "differences need two."
        )
    first, last = u.narrow(axis, 0, 1), u.narrow(axis, -1, 1)
    if boundary == "periodic":
        return torch.cat([last, u, first], axis)
    if boundary == "neumann":
        return torch.cat([first, u, last], axis)
    if boundary == "dirichlet":
        zero = torch.zeros_like(first)
        return torch.cat([zero, u, zero], axis)
    raise ConfigError(f"no boundary {boundary!r}; {nearest(str(boundary), _BOUNDARIES)}")


def _positive(spacing: float) -> float:
    if not 0.0 < spacing < float("inf"):
        raise ParameterError(f"spacing is {spacing}; give a positive finite number.")
    return spacing
