r"""Inputs u(t) between their samples: held, joined by lines, or as cubic splines.

A system that is driven from outside is observed together with its drive, at the same times
:math:`t_k`. A controller that holds its output makes steps (`hold`), a table is joined by lines
(`linear`), and what is smooth is the cubic

.. math:: u(t) = \sum_{j=0}^{3} a_{kj}\, (t - t_k)^j, \qquad t_k \le t < t_{k+1},

of the not-a-knot spline, whose error falls with the fourth power of the step. Before the first and
after the last sample the outermost cubics go on, and the others keep their outermost value.

At a jump no method has an order, and one whose steps end there would see the value after it too
soon. `before_jumps` puts one more save time in front of each, at which the steps end instead.

Signals are called as torch functions are, so that a `TorchFunctionMode` sees them: what records a
field takes the call for what it is, a number known at each time, and not for a search in a table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.overrides import wrap_torch_function

from hybridgen.errors import DataError, ShapeError

__all__ = ["Held", "Pieces", "Signal", "before_jumps", "cubic", "hold", "linear", "spline"]

FEW = 64
"""Of how many pieces the right one is found by comparing with all: a kernel can do that."""


def _asked(self: Any, t: Tensor) -> tuple[Tensor]:
    return (t,)


class Signal(NamedTuple):
    """The inputs of B systems as functions of time; made by `spline`.

    Arguments:
        knots: Left ends of the pieces, in time units, with shape `(B, K)`.
        cubics: Coefficients, lowest power first, with shape `(B, K, 4, U)`.
    """

    knots: Tensor
    cubics: Tensor

    @wrap_torch_function(_asked)
    def __call__(self, t: Tensor) -> Tensor:
        """Return the inputs at a time, a scalar or one for each system, with shape `(B, U)`."""
        return self.at(t.expand(len(self.knots))[:, None])[:, 0]

    def at(self, times: Tensor) -> Tensor:
        """Return the inputs at many times.

        Arguments:
            times: The times, with shape `(M,)`, or `(B, M)` for times of their own.

        Returns:
            The inputs, with shape `(B, M, U)`.
        """
        return _values(self.knots, self.knots, self.cubics, times)


class Held(NamedTuple):
    """Inputs that stay as they are: where the times are those of the samples.

    Arguments:
        values: The inputs, with shape `(*B, U)`.
    """

    values: Tensor

    def __call__(self, t: Tensor) -> Tensor:
        """Return the inputs, whatever the time."""
        return self.values


def spline(t: Tensor, u: Tensor) -> Signal:
    """Interpolate sampled inputs.

    Arguments:
        t: Times, strictly increasing, with shape `(T,)` or `(B, T)`.
        u: Inputs there, with shape `(B, T, U)`.

    Returns:
        The signal, in the dtype and on the device of `u`.

    Raises:
        ShapeError: If the shapes do not go together.
        DataError: If there are fewer than two times.

    Example:
        >>> t = torch.linspace(0, 1, 11, dtype=torch.float64)
        >>> signal = spline(t, t.sin()[None, :, None])
        >>> bool((signal(torch.tensor(0.55)) - np.sin(0.55)).abs().max() < 1e-6)
        True
    """
    if u.ndim != 3 or t.shape[-1] != u.shape[1]:
        raise ShapeError(
            f"times have shape {tuple(t.shape)} and inputs {tuple(u.shape)}; expected (T,) or "
            "(B, T) and (B, T, U)."
        )
    if u.shape[1] < 2:
        raise DataError("inputs need at least two times to be interpolated, got 1.")
    knots, values = t.detach().double().cpu().numpy(), u.detach().double().cpu().numpy()
    if knots.ndim == 1:
        cubics = np.moveaxis(_cubics(knots, values.swapaxes(0, 1)), 2, 0)
    else:
        cubics = np.stack([_cubics(k, v) for k, v in zip(knots, values, strict=True)])
    cubics = cubics.swapaxes(1, 2)
    left = torch.from_numpy(np.broadcast_to(knots[..., :-1], cubics.shape[:2]).copy())
    return Signal(left.to(u), torch.from_numpy(np.ascontiguousarray(cubics)).to(u))


class Pieces(NamedTuple):
    """Inputs as functions of time that are a polynomial in each piece; see `hold`.

    Arguments:
        starts: Where each piece starts, in time units; the first does so at -inf. With shape
            `(K,)`, or `(*B, K)` for systems with signals of their own.
        knots: The origin of each polynomial, shaped like `starts`.
        powers: The coefficients, lowest power first, with shape `(K, P, U)` or `(*B, K, P, U)`.
    """

    starts: Tensor
    knots: Tensor
    powers: Tensor

    @wrap_torch_function(_asked)
    def __call__(self, t: Tensor) -> Tensor:
        """Return the inputs.

        Arguments:
            t: Times of any shape, `(*N)`; for signals of systems' own `()` or `(*B)`.

        Returns:
            The inputs, with shape `(*N, U)` or `(*B, U)`.
        """
        if self.starts.shape[-1] <= FEW:
            return self._compare(t.to(self.starts))
        batch = self.starts.shape[:-1]
        if not batch:
            return self.at(t.reshape(-1)).reshape(*t.shape, -1)
        return self.at(t.expand(batch)[..., None])[..., 0, :]

    def at(self, times: Tensor) -> Tensor:
        """Return the inputs at many times.

        Arguments:
            times: The times, with shape `(M,)`, or `(*B, M)` for times of their own.

        Returns:
            The inputs, with shape `(*B, M, U)`.
        """
        return _values(self.starts, self.knots, self.powers, times)

    def _compare(self, t: Tensor) -> Tensor:
        """Return what a call does, by operations on all pieces."""
        last = torch.full_like(self.starts[..., :1], torch.inf)
        ends = torch.cat([self.starts[..., 1:], last], -1)
        here = ((t[..., None] >= self.starts) & (t[..., None] < ends))[..., None]
        values = [self.knots[..., None], *self.powers.unbind(-2)]
        knot, *powers = [torch.where(here, value, 0.0).sum(-2) for value in values]
        return _horner(t[..., None] - knot, powers)


def hold(t: Tensor, u: Tensor) -> Pieces:
    """Hold each sample until the next: a zero-order hold.

    The result is what `Simulator(inputs=...)` takes. In a field of your own, capture signals that
    all members share, and pass signals of members' own through `args`. For kernels of
    `"tsit5"`, these may have 1,024 numbers a member; for those of `"grid_rk4"`, captured signals
    may have 64 pieces (`linear` has one more than samples). See `before_jumps`.

    Arguments:
        t: Times, strictly increasing, with shape `(T,)`, or `(*B, T)`.
        u: Inputs from there on, with shape `(T, U)`, or `(*B, T, U)` for systems' own.

    Returns:
        The signal, in the dtype and on the device of `u`; the first sample counts also before
        its time.

    Raises:
        ShapeError: If the shapes do not go together.
        DataError: If the times do not increase, or there are none.

    Example:
        >>> signal = hold(torch.tensor([0.0, 1.0]), torch.tensor([[5.0], [7.0]]))
        >>> signal(torch.tensor([-1.0, 0.5, 1.0, 9.0]))[:, 0]
        tensor([5., 5., 7., 7.])
    """
    knots = _checked(t, u, 1)
    return _pieces(knots, u[..., None, :])


def linear(t: Tensor, u: Tensor) -> Pieces:
    """Join samples by straight lines; arguments and result as for `hold`.

    Arguments:
        t: Times, strictly increasing, with shape `(T,)`, or `(*B, T)`.
        u: Inputs there, with shape `(T, U)`, or `(*B, T, U)` for systems' own.

    Returns:
        The signal; before the first and after the last sample it does not change.

    Raises:
        ShapeError: If the shapes do not go together.
        DataError: If the times do not increase, or there are fewer than two.

    Example:
        >>> signal = linear(torch.tensor([0.0, 2.0]), torch.tensor([[5.0], [7.0]]))
        >>> signal(torch.tensor([-1.0, 0.5, 1.0, 9.0]))[:, 0]
        tensor([5.0000, 5.5000, 6.0000, 7.0000])
    """
    knots = _checked(t, u, 2)
    slopes = u.diff(dim=-2) / knots.diff(dim=-1)[..., None]
    flat = torch.zeros_like(slopes[..., :1, :])
    before = torch.cat([knots[..., :1], knots], -1)
    values = torch.cat([u[..., :1, :], u], -2)
    return _pieces(before, torch.stack([values, torch.cat([flat, slopes, flat], -2)], -2))


def cubic(t: Tensor, u: Tensor) -> Pieces:
    """Join samples by the cubics of `spline`; arguments and result as for `hold`.

    Arguments:
        t: Times, strictly increasing, with shape `(T,)`, or `(*B, T)`.
        u: Inputs there, with shape `(T, U)`, or `(*B, T, U)` for systems' own.

    Returns:
        The signal.

    Raises:
        ShapeError: If the shapes do not go together.
        DataError: If the times do not increase, or there are fewer than two.

    Example:
        >>> t = torch.linspace(0, 1, 11, dtype=torch.float64)
        >>> bool((cubic(t, t.sin()[:, None])(torch.tensor([0.55])) - np.sin(0.55)).abs() < 1e-6)
        True
    """
    knots = _checked(t, u, 2)
    batch = u.shape[:-2]
    flat = u.reshape(-1, *u.shape[-2:])
    signal = spline(knots.reshape(-1, knots.shape[-1]).expand(len(flat), -1), flat)
    starts = signal.knots.reshape(*batch, -1)
    return _pieces(starts, signal.cubics.reshape(*batch, *signal.cubics.shape[1:]))


def before_jumps(t: Tensor, jumps: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return save times with one more just before each jump of the inputs.

    With `grid, at = before_jumps(t)`, the trajectories at `t` are `solve(..., grid).y[:, at]`.

    Arguments:
        t: Save times, strictly increasing, with shape `(T,)`, in the dtype of the states.
        jumps: Which of them are jumps, with shape `(J,)`; `None` for all.

    Returns:
        The times, with shape `(T + J,)`, and where among them the given ones are, `(T,)`.

    Raises:
        DataError: If a jump is none of the times.

    Example:
        >>> grid, at = before_jumps(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0]))
        >>> len(grid), at.tolist(), bool(grid[1] < 1.0)
        (4, [0, 2, 3], True)
    """
    jump = torch.ones_like(t, dtype=torch.bool) if jumps is None else torch.isin(t, jumps)
    if jumps is not None and int(jump.sum()) != len(jumps.unique()):
        raise DataError(
            "some jumps are not among the save times; add them to t, since steps end only there."
        )
    jump[0] = False  # what is before the start does not count
    near = 4.0 * torch.finfo(t.dtype).eps * float(t.abs().max())
    grid = torch.cat([t, t[jump] - near]).sort().values
    return grid, torch.searchsorted(grid, t)


def _checked(t: Tensor, u: Tensor, least: int) -> Tensor:
    """Return times in the dtype of the samples, if they go together, with shape `(*B, T)`."""
    if u.ndim < 2 or t.shape not in (u.shape[-2:-1], u.shape[:-1]):
        raise ShapeError(
            f"times have shape {tuple(t.shape)} and inputs {tuple(u.shape)}; expected (T,) and "
            "(T, U), or (T,) or (*B, T) and (*B, T, U) for systems with inputs of their own."
        )
    if t.shape[-1] < least or not bool((t.diff() > 0).all()):
        raise DataError(f"inputs need {least} or more times, strictly increasing; sort them.")
    return t.to(u).expand(u.shape[:-1])


def _values(starts: Tensor, knots: Tensor, powers: Tensor, times: Tensor) -> Tensor:
    """Return pieces `(*B, K, P, U)` at times `(M,)` or `(*B, M)`, with shape `(*B, M, U)`."""
    t = times.to(starts).expand(*starts.shape[:-1], -1).contiguous()
    piece = torch.searchsorted(starts.contiguous(), t, right=True).sub(1).clamp_min(0)
    dt = t - knots.gather(-1, piece)
    found = powers.take_along_dim(piece[..., None, None], dim=-3)
    return _horner(dt[..., None], list(found.unbind(-2)))


def _horner(dt: Tensor, powers: list[Tensor]) -> Tensor:
    """Return polynomials at `dt` from their coefficients, lowest power first."""
    total = powers[-1]
    for power in reversed(powers[:-1]):
        total = power + dt * total
    return total


def _pieces(knots: Tensor, powers: Tensor) -> Pieces:
    """Return the signal with pieces from knots `(*B, K)` on, with powers `(*B, K, P, U)`."""
    starts = knots.clone()
    starts[..., 0] = -torch.inf
    return Pieces(starts, knots, powers)


def _cubics(t: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coefficients, lowest power first, with shape `(4, K, *u.shape[1:])`."""
    return CubicSpline(t, u).c[::-1]
