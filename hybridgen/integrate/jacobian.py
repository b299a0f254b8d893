r"""The field as an implicit method sees it: members at times of their own, and its derivatives.

With D components, :math:`J = \partial f / \partial y` and :math:`f_t = \partial f / \partial t`
are exact, by reverse-mode differentiation: D passes, each of which gives one row of J and one
component of :math:`f_t` for all members at once, since no member depends on another. (Forward mode
would need D + 1, and its elementwise operations cost ten times as much in torch.) Both may be
differentiated again.

A field that torch cannot differentiate (in numpy, or one that leaves torch on the way) gets
forward differences. Such a field need not raise: `item()` or `detach()` only make a derivative
zero. So the first Jacobian of a crossing is compared with a difference quotient.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hybridgen.integrate.members import Members
from hybridgen.integrate.stepping import Tolerance, finite_rows

__all__ = ["Local", "together"]

# What a field may raise that was not made for what it is shown: times of the members' own,
# numbers that carry a graph. The errors of hybridgen are of these types, too.
REFUSALS = (RuntimeError, TypeError, ValueError, IndexError)

AGREEMENT = 1e-2


def together(members: Members, t0: Tensor, t1: Tensor, y: Tensor) -> bool:
    """Return whether the field can be called on these members at different times.

    A field written for the times of the whole batch gets `t` with shape `()`, and may not know
    what to do with `(N,)`, or broadcast it along the wrong axis.

    Arguments:
        members: Who, N of them.
        t0: A time, with shape `(N,)`.
        t1: Another, with shape `(N,)`.
        y: A state, with shape `(N, *S)`.

    Returns:
        Whether the first and the last member get at different times what they get alone; false
        for a single member, which needs no times of its own.

    Example:
        >>> members = Members(lambda t, y, _: y * t, None, torch.ones(2), torch.Size([3]))
        >>> together(members, torch.zeros(3), torch.ones(3), torch.ones(3, 1))
        False
    """
    count = len(y)
    if count == 1 or members.t.ndim > 1:
        return members.t.ndim > 1
    t = torch.lerp(t0, t1, torch.linspace(0.1, 0.9, count, dtype=t0.dtype, device=t0.device))
    try:
        found = members.rhs(t, y)
    except REFUSALS:
        return False
    for row in {0, count - 1}:
        rows = torch.tensor([row], device=y.device)
        alone = members.take(rows).rhs(t[row], y[rows])
        scale = float(torch.nan_to_num(alone).abs().max()) * math.sqrt(torch.finfo(y.dtype).eps)
        if not torch.allclose(found[rows], alone, rtol=0.0, atol=scale, equal_nan=True):
            return False
    return True


class Local:
    """The field of some members, each at its own time.

    Arguments:
        members: Who, N of them.
        shared: Whether the field can be called on all of them at once, see `together`; otherwise
            they are called one by one.
        exact: Whether torch can differentiate the field; `None` where that is not
            known yet.
    """

    def __init__(self, members: Members, shared: bool, exact: bool | None = None) -> None:
        self.members, self.shared, self.exact = members, shared, exact

    def take(self, rows: Tensor) -> Local:
        """Return some of these members, numbered among these, with shape `(K,)`."""
        return Local(self.members.take(rows), self.shared, self.exact)

    @cached_property
    def _each(self) -> list[Members]:
        count = self.members.axes.numel()
        return [self.members.take(row) for row in torch.arange(count)[:, None]]

    def rhs(self, t: Tensor, y: Tensor) -> Tensor:
        """Call the field.

        Arguments:
            t: Times, with shape `(N,)`.
            y: States, with shape `(N, *S)`.

        Returns:
            Their derivatives, with shape `(N, *S)`.
        """
        t = t.to(y.dtype)
        if self.shared:
            return self.members.rhs(t, y)
        rows = zip(self._each, t, y[:, None], strict=True)
        return torch.cat([member.rhs(*at) for member, *at in rows])

    def linearise(
        self, t: Tensor, t1: Tensor, y: Tensor, k: Tensor, tolerance: Tolerance
    ) -> tuple[Tensor, Tensor]:
        """Return the derivatives of the field by state and by time.

        Arguments:
            t: Times, with shape `(N,)`.
            t1: The times that the members are on their way to, with shape `(N,)`.
            y: States, with shape `(N, *S)`.
            k: Their derivatives, with shape `(N, *S)`.
            tolerance: Says which states are small.

        Returns:
            J, with shape `(N, D, D)` for D components, and f_t, with shape `(N, *S)`.
        """
        if self.exact:
            return self._exact(t, y)
        size = _size(y, tolerance)
        if self.exact is None:
            derivatives = self._verify(t, y, k, size)
            if derivatives is not None:
                return derivatives
        return self._difference(t, y, k, size), self._difference_in_time(t, t1, y, k)

    def _verify(
        self, t: Tensor, y: Tensor, k: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Return exact derivatives, if torch can differentiate the field, and note if not."""
        try:
            jacobian, slope = self._exact(t, y)
        except REFUSALS:
            self.exact = False
            return None
        step = math.sqrt(torch.finfo(y.dtype).eps) * size
        step[:, 1::2] *= -0.5
        moved = self.rhs(t, y + step.reshape(y.shape))
        found = (moved - k).reshape(size.shape)
        expected = (jacobian @ step[..., None])[..., 0]
        scale = torch.maximum(found.abs().amax(dim=1), expected.abs().amax(dim=1))
        noise = 64.0 * torch.finfo(y.dtype).eps * moved.reshape(size.shape).abs().amax(dim=1)
        differs = (found - expected).abs().amax(dim=1) > AGREEMENT * scale + noise
        self.exact = not bool((differs & finite_rows(found) & finite_rows(expected)).any())
        return (jacobian, slope) if self.exact else None

    def _exact(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        size = math.prod(y.shape[1:])
        pulled: Any = torch.func.vjp(self.rhs, t, y)
        k, pull = pulled
        unit = torch.eye(size, dtype=k.dtype, device=k.device).reshape(size, 1, *y.shape[1:])
        rows = [pull(one.expand_as(k)) for one in unit]
        slope = torch.stack([by_t for by_t, _ in rows], dim=1).to(y.dtype)
        jacobian = torch.stack([by_y.reshape(len(y), size) for _, by_y in rows], dim=1)
        return jacobian, slope.reshape(y.shape)

    def _difference(self, t: Tensor, y: Tensor, k: Tensor, size: Tensor) -> Tensor:
        step = math.sqrt(torch.finfo(y.dtype).eps) * size
        columns = []
        for j in range(size.shape[1]):
            wide = y.reshape(size.shape).clone()
            wide[:, j] += step[:, j]
            width = (wide - y.reshape(size.shape))[:, j].detach()
            change = self.rhs(t, wide.reshape(y.shape)) - k
            columns.append(change.reshape(size.shape) / width[:, None])
        return torch.stack(columns, dim=-1)

    def _difference_in_time(self, t: Tensor, t1: Tensor, y: Tensor, k: Tensor) -> Tensor:
        size = torch.maximum(t.abs(), (t1 - t).abs()).detach()
        step = math.sqrt(torch.finfo(y.dtype).eps) * torch.copysign(size, (t1 - t).detach())
        step = ((t + step) - t).detach()
        change = self.rhs(t + step, y) - k
        return change / step.to(y.dtype).reshape(-1, *(1,) * (y.ndim - 1))


def _size(y: Tensor, tolerance: Tolerance) -> Tensor:
    """Return how large a state is, at least where `atol` ends to matter, `(N, D)`."""
    small = torch.as_tensor(tolerance.atol) / torch.as_tensor(tolerance.rtol).clamp(min=1e-8)
    return (y.detach().abs() + small.to(y)).reshape(len(y), -1)
