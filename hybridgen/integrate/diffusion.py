r"""The linear part of a field that diffuses, and the waves in which it is a list of numbers.

The discrete Laplacian of `hybridgen.operators` keeps the waves that fit its boundary: each is only
multiplied by a number, its eigenvalue. Where all axes are periodic, fast Fourier transforms lead
to the amplitudes of the waves and back; otherwise the orthonormal matrices that
`hybridgen.operators.waves` returns, an axis at a time, which is quick up to some hundred points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Size, Tensor

from hybridgen.errors import ShapeError
from hybridgen.integrate.members import Members
from hybridgen.operators import Boundary, waves

__all__ = ["Basis", "Diffusion", "Fourier", "Matrices", "fourier_order"]


class Basis(Protocol):
    """Changes states to amplitudes of waves and back."""

    def to_waves(self, y: Tensor) -> Tensor:
        """Return the amplitudes of states, with shape `(N, *S)`."""

    def from_waves(self, v: Tensor) -> Tensor:
        """Return the states, with shape `(N, *S)`, of amplitudes."""


@dataclass(frozen=True)
class Matrices:
    """Waves as the columns of a matrix for each of the last axes.

    Arguments:
        vectors: The matrices, each with shape `(n, n)` for n points.

    Example:
        >>> basis = Matrices([waves(4, 0.1, "neumann")[1]])
        >>> basis.to_waves(torch.ones(1, 4, dtype=torch.float64)).round(decimals=9).abs()
        tensor([[2., 0., 0., 0.]], dtype=torch.float64)
    """

    vectors: list[Tensor]

    def to_waves(self, y: Tensor) -> Tensor:
        """Return the amplitudes of states, both with shape `(N, *S)`."""
        return self._along(y, [vectors.to(y) for vectors in self.vectors])

    def from_waves(self, v: Tensor) -> Tensor:
        """Return the states of amplitudes, both with shape `(N, *S)`."""
        return self._along(v, [vectors.mT.to(v) for vectors in self.vectors])

    def _along(self, y: Tensor, matrices: list[Tensor]) -> Tensor:
        for axis, matrix in enumerate(matrices):
            at = axis - len(matrices)
            y = (y.movedim(at, -1) @ matrix).movedim(-1, at)
        return y


@dataclass(frozen=True)
class Fourier:
    """Waves of a periodic grid, by fast Fourier transforms.

    Arguments:
        shape: How many points each of the last axes has.

    Example:
        >>> basis = Fourier(Size([4]))
        >>> basis.to_waves(torch.ones(1, 4))
        tensor([[4.+0.j, 0.+0.j, 0.+0.j]])
    """

    shape: Size

    def to_waves(self, y: Tensor) -> Tensor:
        """Return the amplitudes, half of them along the last axis, of states `(N, *S)`."""
        return torch.fft.rfftn(y, dim=tuple(range(-len(self.shape), 0)))

    def from_waves(self, v: Tensor) -> Tensor:
        """Return the states, with shape `(N, *S)`, of amplitudes."""
        return torch.fft.irfftn(v, s=self.shape, dim=tuple(range(-len(self.shape), 0)))


def fourier_order(values: list[Tensor]) -> list[Tensor]:
    """Return eigenvalues as fast Fourier transforms order their amplitudes.

    Arguments:
        values: Those of `hybridgen.operators.waves` for each axis, with shape `(n,)`.

    Returns:
        The same by frequency, with shape `(n,)`; for the last axis up to the highest one, with
        shape `(n // 2 + 1,)`.

    Example:
        >>> fourier_order([torch.tensor([0.0, -1.0, -1.0, -2.0])] * 2)
        [tensor([ 0., -1., -2., -1.]), tensor([ 0., -1., -2.])]
    """
    ordered = []
    for axis, value in enumerate(values):
        n = len(value)
        k = torch.arange(n // 2 + 1 if axis == len(values) - 1 else n, device=value.device)
        ordered.append(value[(2 * torch.minimum(k, n - k) - 1).clamp(min=0)])
    return ordered


@dataclass(frozen=True)
class Diffusion:
    """The linear part of a field that diffuses: a coefficient times the Laplacian.

    Arguments:
        coefficient: A number, a tensor, or a function of the field's `args` that returns one; in
            units of spacing squared over time. It must broadcast against the state, `(*B, C, *S)`,
            and not vary in space: `torch.stack([z.a, z.b], -3)` with `a` and `b` of shape
            `(*B, 1, 1)` gives two components coefficients of their own, and 0 is one.
        spacing: The distance of neighbouring points, one for all axes or one for each.
        boundary: As for `hybridgen.operators.laplacian`, one for all axes or one for each.
        axes: How many spatial axes there are.
        order: That of the Laplacian in the field, 2 or 4.

    Example:
        >>> Diffusion(0.1, spacing=1 / 16).boundary
        'periodic'
    """

    coefficient: float | Tensor | Callable[[Any], float | Tensor]
    spacing: float | Sequence[float]
    boundary: Boundary | Sequence[Boundary] = "periodic"
    axes: int = 2
    order: Literal[2, 4] = 2

    def rates(self, members: Members, y: Tensor) -> tuple[Tensor, Basis]:
        """Return the linear part in waves.

        Arguments:
            members: Whose arguments the coefficient is a function of.
            y: Their states, with shape `(N, *S)`, where S ends with the spatial axes.

        Returns:
            What each wave is multiplied by, which broadcasts against their amplitudes, and what
            changes states to amplitudes and back.

        Raises:
            ShapeError: If the states have fewer axes, or the coefficient does not broadcast or
                varies in space.
        """
        if y.ndim - 1 < self.axes:
            raise ShapeError(
                f"the state of a member has shape {tuple(y.shape[1:])}, but Diffusion(axes="
                f"{self.axes}); write axes={y.ndim - 1} or give fields (*B, C, Y, X)."
            )
        like, shape = y.real if y.is_complex() else y, y.shape[y.ndim - self.axes :]
        each = self.spacing if isinstance(self.spacing, Sequence) else (self.spacing,) * self.axes
        edges = (self.boundary,) * self.axes if isinstance(self.boundary, str) else self.boundary
        kept = [
            waves(n, h, edge, order=self.order, like=like)
            for n, h, edge in zip(shape, each, edges, strict=True)
        ]
        values = [value for value, _ in kept]
        basis: Basis = Matrices([vectors for _, vectors in kept])
        if set(edges) == {"periodic"} and not y.is_complex():
            values, basis = fourier_order(values), Fourier(shape)
        total = torch.zeros((), dtype=like.dtype, device=like.device)
        for axis, value in enumerate(values):
            total = total + value.reshape(-1, *(1,) * (self.axes - 1 - axis))
        return self._coefficient(members, like) * total, basis

    def _coefficient(self, members: Members, y: Tensor) -> Tensor:
        """Return the coefficient, which broadcasts against states of shape `(N, *S)`."""
        given = self.coefficient(members.args) if callable(self.coefficient) else self.coefficient
        value = torch.as_tensor(given, dtype=y.dtype, device=y.device)
        whole = members.axes + y.shape[1:]
        flat = value.shape[max(value.ndim - self.axes, 0) :].numel() == 1
        try:
            fits = torch.broadcast_shapes(value.shape, whole) == whole
        except RuntimeError:
            fits = False
        if not (flat and fits):
            raise ShapeError(
                f"the coefficient of Diffusion has shape {tuple(value.shape)} for states of shape "
                f"{tuple(whole)}; it must broadcast against them and not vary along the last "
                f"{self.axes} axes, as torch.stack([z.a, z.b], -{self.axes + 1}) does."
            )
        if value.ndim <= y.ndim - 1:
            return value
        rest = value.shape[value.ndim - y.ndim + 1 :]
        return value.expand(members.axes + rest).reshape(len(y), *rest)
