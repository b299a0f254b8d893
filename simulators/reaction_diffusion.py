r"""Reaction and diffusion of two species (FitzHugh-Nagumo), and an expert that knows only part.

.. math:: \partial_t u = a\,\Delta u + u - u^3 - k - v, \qquad
          \partial_t v = b\,\Delta v + u - v

on a periodic square of side 2 with 32 x 32 points, all of it without dimension. The Laplacian is
that of five points. :math:`z_e = (a, b)` and the true :math:`z_a = k`. Publications differ in what
the expert knows: in `thesis` (eq. 7.8) only the diffusion, in `released` (the authors' program)
the whole field with k = 0, so that a constant is all that it lacks.

References:
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
    Augmenting Physical Models with Deep Networks for Complex Dynamics Forecasting (Yin, Le Guen,
    Dona et al., 2021), arXiv:2010.04456
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hybridgen.expert import ODEExpert
from hybridgen.noise import GaussianNoise
from hybridgen.operators import laplacian
from hybridgen.params import Param, State, Values
from hybridgen.shift import Shift
from hybridgen.simulator import Simulator

__all__ = [
    "SPACING",
    "diffusion",
    "expert",
    "fitzhugh_nagumo",
    "simulator",
    "truth",
    "variants",
    "without_feed",
]

SPACING = 2.0 / 32
"""The distance of neighbouring points."""


def diffusion(t: Tensor, y: Tensor, z_e: Values) -> Tensor:
    """Return dy/dt of diffusion alone.

    Arguments:
        t: Time.
        y: Concentrations u and v, with shape `(*B, 2, Y, X)`.
        z_e: Diffusion coefficients `a` and `b`, each with shape `(*B, 1, 1)`.

    Returns:
        Rates, with shape `(*B, 2, Y, X)`.
    """
    u, v = laplacian(y, SPACING).unbind(-3)
    return torch.stack([z_e.a * u, z_e.b * v], dim=-3)


def without_feed(t: Tensor, y: Tensor, z_e: Values) -> Tensor:
    """Return dy/dt of the whole field with k = 0; arguments as for `diffusion`."""
    u, v = y.unbind(-3)
    du, dv = laplacian(y, SPACING).unbind(-3)
    return torch.stack([z_e.a * du + u - u * u * u - v, z_e.b * dv + u - v], dim=-3)


def fitzhugh_nagumo(t: Tensor, y: Tensor, z: Values) -> Tensor:
    """Return dy/dt of the whole field; as `diffusion`, and `k` with shape `(*B, 1, 1)`."""
    u, v = y.unbind(-3)
    du, dv = laplacian(y, SPACING).unbind(-3)
    return torch.stack([z.a * du + u - u * u * u - z.k - v, z.b * dv + u - v], dim=-3)


_states = (State("u", "1"), State("v", "1"))
_params = (Param("a", "1", 1e-3, 4e-3), Param("b", "1", 1e-3, 1e-2))

truth = ODEExpert(fitzhugh_nagumo, _states, (*_params, Param("k", "1", 0.0, 0.1)), space=2)
expert = ODEExpert(diffusion, _states, _params, space=2)

_ood = {"a": (2e-3, 4e-3), "b": (1e-3, 1e-2)}
_shifts = (
    Shift("ood", _ood, what="faster diffusion"),
    Shift("near", {"a": (2e-3, 3e-3), "b": (7e-3, 8.5e-3)}, what="a little faster diffusion"),
    Shift("far", {"a": (3e-3, 4e-3), "b": (8.5e-3, 1e-2)}, what="much faster diffusion"),
    Shift("joint_small", {**_ood, "k": (5e-3, 8e-3)}, what="a little more feed"),
    Shift("joint_medium", {**_ood, "k": (8e-3, 2e-2)}, what="more feed"),
    Shift("joint_large", {**_ood, "k": (2e-2, 1e-1)}, what="far more feed"),
)


def _simulator(variant: str, field: Callable[..., Tensor]) -> Simulator:
    axis = SPACING * np.arange(32, dtype=np.float64)
    return Simulator(
        truth=truth,
        expert=ODEExpert(field, _states, _params, space=2),
        support={
            "a": (1e-3, 2e-3),
            "b": (3e-3, 7e-3),
            "k": (3e-3, 5e-3),
            "u": (0.0, 1.0),
            "v": (0.0, 1.0),
        },
        times=np.linspace(0.0, 5.0, 51),
        grid={"y": axis, "x": axis},
        window=10,
        noise=GaussianNoise(0.0),
        shifts={s.name: s for s in _shifts},
        time_unit="1",
        problem="reaction_diffusion",
        variant=variant,
        rtol=1e-6,
        atol=1e-8,
    )


variants = {
    "thesis": _simulator("thesis", diffusion),
    "released": _simulator("released", without_feed),
}
simulator = variants["thesis"]
