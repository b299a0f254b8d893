r"""The weak form: an equation error that needs neither a derivative of noisy data nor a solver.

For a test function :math:`\varphi` that vanishes at both ends of its support, integration by
parts turns :math:`\dot y = f(y)` into

.. math:: r = \int \dot\varphi(t)\, y(t)\, dt + \int \varphi(t)\, f(t, y(t))\, dt = 0 .

The test functions are the bumps :math:`\varphi(t) = (1 - s^2)^4,\ s = (t - c) / h`, for which the
trapezoid rule on equal steps is accurate to high order. Each is divided by its norm, so that
all of them see the same error of :math:`f`.

References:
    Weak SINDy: Galerkin-based data-driven model selection (Messenger & Bortz, 2021),
    arXiv:2005.04339
"""

from __future__ import annotations

import torch
from torch import Tensor

from hybridgen.errors import DataError

__all__ = ["bumps", "equation_error", "weak_fits"]

HALF_WIDTHS = (6, 9, 12, 16, 20, 24)
"""Half widths of the bumps, in points."""


def bumps(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return quadrature weights of the test functions and of their derivatives.

    Arguments:
        t: Times, with shape `(T,)`.

    Returns:
        Weights for f and for y, each with shape `(K, T)`, such that `phi @ f + dphi @ y` is the
        weak residual in rate units.

    Raises:
        DataError: If there are too few times for a bump, or the steps are not equal.
    """
    points, step = len(t), (t[-1] - t[0]).abs() / (len(t) - 1)
    half = [h for h in HALF_WIDTHS if 2 * h + 1 <= points]
    if not half:
        raise DataError(
            f"the weak form needs at least {2 * HALF_WIDTHS[0] + 1} observed times, got {points}; "
            "observe more, or start with the rollout objective."
        )
    gap = t.diff()
    if not _equal(gap):
        raise DataError(
            "the weak form needs equal time steps, since its quadrature is accurate on no others; "
            "use the rollout objective for irregular times."
        )
    pairs = [(c, h) for h in half for c in range(h, points - h, 2)]
    index, width = torch.tensor(pairs, device=t.device).T
    centre, h = t[index][:, None], (width * step)[:, None]
    s = (t - centre) / h
    base = (1.0 - s * s).clamp_min(0.0)
    phi = base**4 * gap.mean()
    dphi = -8.0 * s * base**3 / h * gap.mean()
    norm = phi.norm(dim=1, keepdim=True)
    return phi / norm, dphi / norm


def weak_fits(t: Tensor) -> bool:
    """Return whether the weak form can be taken on these times, `(T,)` or `(B, T)`."""
    return t.ndim == 1 and len(t) > 2 * HALF_WIDTHS[0] and _equal(t.diff())


def _equal(gap: Tensor) -> bool:
    return bool(((gap - gap.mean()).abs() <= 0.01 * gap.mean().abs()).all())


def equation_error(phi: Tensor, dphi: Tensor, y: Tensor, rates: Tensor) -> Tensor:
    """Return the weak residual of every trajectory, state and test function.

    Arguments:
        phi: Weights for the rates, with shape `(K, T)`.
        dphi: Weights for the states, with shape `(K, T)`.
        y: Observed states, with shape `(B, T, C)`.
        rates: The model's dy/dt at the observed states, with shape `(B, T, C)`.

    Returns:
        Residuals in rate units, with shape `(B, K, C)`.

    Example:
        >>> t = torch.linspace(0, 5, 51, dtype=torch.float64)
        >>> y = torch.exp(-t)[None, :, None]
        >>> bool(equation_error(*bumps(t), y, -y).abs().max() < 3e-3)
        True
    """
    return phi @ rates + dphi @ y
