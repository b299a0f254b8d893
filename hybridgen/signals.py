r"""Inputs u(t) between their samples, as cubic splines.

A system that is driven from outside is observed together with its drive, at the same times
:math:`t_k`. Between two of them the drive is the cubic

.. math:: u(t) = \sum_{j=0}^{3} a_{kj}\, (t - t_k)^j, \qquad t_k \le t < t_{k+1},

of the not-a-knot spline, whose error falls with the fourth power of the step. Before the first and
after the last sample the outermost cubics go on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from hybridgen.errors import DataError, ShapeError

__all__ = ["Held", "Signal", "spline"]


class Signal(NamedTuple):
    """The inputs of B systems as functions of time; made by `spline`.

    Arguments:
        knots: Left ends of the pieces, in time units, with shape `(B, K)`.
        cubics: Coefficients, lowest power first, with shape `(B, K, 4, U)`.
    """

    knots: Tensor
    cubics: Tensor

    def __call__(self, t: Tensor) -> Tensor:
        """Return the inputs at a time, a scalar or one for each system, with shape `(B, U)`."""
        times = t.to(self.knots).expand(len(self.knots))[:, None].contiguous()
        piece = torch.searchsorted(self.knots, times, right=True).sub(1).clamp_min(0)
        dt = times - self.knots.gather(1, piece)
        a = self.cubics[torch.arange(len(piece), device=piece.device), piece[:, 0]]
        return a[:, 0] + dt * (a[:, 1] + dt * (a[:, 2] + dt * a[:, 3]))


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


def _cubics(t: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coefficients, lowest power first, with shape `(4, K, *u.shape[1:])`."""
    return CubicSpline(t, u).c[::-1]
