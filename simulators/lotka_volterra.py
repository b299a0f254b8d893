r"""Hares and lynxes, and an expert whose hares never run out of food.

The expert is the predator-prey law of Lotka and Volterra, for hares x and lynxes y,

.. math:: \dot x = \alpha x - \beta x y, \qquad \dot y = \delta x y - \gamma y .

It conserves :math:`V = \delta x - \gamma \ln x + \beta y - \alpha \ln y` and rests at
:math:`x = \gamma / \delta,\ y = \alpha / \beta`. What it lacks is, by variant,

`logistic`
    hares compete: :math:`\dot x = \alpha x - \kappa x^2 - \beta x y`, so that without lynxes they
    saturate at :math:`K = \alpha / \kappa`. The rate :math:`\kappa` is the true :math:`z_a`,
    rather than K, because what is missing then does not depend on :math:`z_e`.
`holling`
    lynxes are sated as well: encounters are divided by :math:`1 + h x` (Holling's type II), and
    the true :math:`z_a = (\kappa, h)`. Satiation alone would let the cycles grow without bound.

The ranges suit the pelts of the Hudson's Bay Company, 1900 to 1920, in thousands and years. States
are never negative; the expert reads a negative one, which a learner may try, as zero.

References:
    Fluctuations in the abundance of a species considered mathematically (Volterra, 1926),
    doi:10.1038/118558a0
    Some characteristics of simple types of predation and parasitism (Holling, 1959),
    doi:10.4039/Ent91385-7
    The ten-year cycle in numbers of the lynx in Canada (Elton & Nicholson, 1942), doi:10.2307/1358
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hybridgen.expert import ODEExpert
from hybridgen.noise import LogNormalNoise
from hybridgen.params import Param, State, Values
from hybridgen.shift import Shift, Support
from hybridgen.simulator import Simulator

__all__ = ["expert", "holling", "logistic", "predation", "simulator", "truth", "variants"]


def predation(t: Tensor, y: Tensor, z_e: Values) -> Tensor:
    """Return dy/dt of the law of Lotka and Volterra.

    Arguments:
        t: Time in years.
        y: Hares and lynxes in thousands, with shape `(*B, 2)`.
        z_e: `alpha` and `gamma` in 1/year, `beta` and `delta` in 1/thousand/year, each with
            shape `(*B)`.

    Returns:
        Rates in thousands a year, with shape `(*B, 2)`.
    """
    hare, lynx = y.clamp_min(0.0).unbind(-1)
    met = hare * lynx
    return torch.stack(
        [z_e.alpha * hare - z_e.beta * met, z_e.delta * met - z_e.gamma * lynx], dim=-1
    )


def logistic(t: Tensor, y: Tensor, z: Values) -> Tensor:
    """Return dy/dt with competing hares; as `predation`, and `kappa` in 1/thousand/year."""
    hare = y[..., 0].clamp_min(0.0)
    lost = torch.stack([z.kappa * hare * hare, torch.zeros_like(hare)], dim=-1)
    return predation(t, y, z) - lost


def holling(t: Tensor, y: Tensor, z: Values) -> Tensor:
    """Return dy/dt with sated lynxes too; as `logistic`, and `h` in 1/thousand."""
    hare, lynx = y.clamp_min(0.0).unbind(-1)
    met = hare * lynx / (1.0 + z.h * hare)
    grown = (z.alpha - z.kappa * hare) * hare
    return torch.stack([grown - z.beta * met, z.delta * met - z.gamma * lynx], dim=-1)


_states = (State("hare", "thousand"), State("lynx", "thousand"))
_params = (
    Param("alpha", "1/year", 0.2, 1.5),
    Param("beta", "1/thousand/year", 0.005, 0.1),
    Param("delta", "1/thousand/year", 0.005, 0.1),
    Param("gamma", "1/year", 0.2, 1.5),
)

expert = ODEExpert(predation, _states, _params)

_ood = {"alpha": (0.8, 1.4), "gamma": (1.0, 1.45)}


def _shifts(small: Support, medium: Support, large: Support) -> tuple[Shift, ...]:
    return (
        Shift("ood", _ood, what="faster lives"),
        Shift("near", {"alpha": (0.8, 1.0), "gamma": (1.0, 1.15)}, what="a little faster lives"),
        Shift("mid", {"alpha": (1.0, 1.2), "gamma": (1.15, 1.3)}, what="faster lives"),
        Shift("far", {"alpha": (1.2, 1.4), "gamma": (1.3, 1.45)}, what="much faster lives"),
        Shift("joint_small", {**_ood, **small}, what="a little more of what is missing"),
        Shift("joint_medium", {**_ood, **medium}, what="more of what is missing"),
        Shift("joint_large", {**_ood, **large}, what="far more of what is missing"),
    )


def _simulator(
    field: Callable[..., Tensor],
    missing: tuple[Param, ...],
    training: Support,
    shifts: tuple[Shift, ...],
) -> Simulator:
    support = {
        "alpha": (0.4, 0.8),
        "beta": (0.02, 0.04),
        "delta": (0.015, 0.035),
        "gamma": (0.6, 1.0),
        "hare": (10.0, 60.0),
        "lynx": (3.0, 30.0),
    }
    return Simulator(
        truth=ODEExpert(field, _states, (*_params, *missing)),
        expert=expert,
        support={**support, **training},
        times=np.linspace(0.0, 20.0, 81),
        window=41,
        noise=LogNormalNoise(0.1),
        shifts={s.name: s for s in shifts},
        time_unit="year",
        problem="lotka_volterra",
        variant=field.__name__,
    )


_kappa = Param("kappa", "1/thousand/year", 0.0, 0.02)
_h = Param("h", "1/thousand", 0.0, 0.01)
_crowded: tuple[Support, ...] = (
    {"kappa": (0.003, 0.005)},
    {"kappa": (0.005, 0.008)},
    {"kappa": (0.008, 0.012)},
)
_sated: tuple[Support, ...] = ({"h": (0.002, 0.003)}, {"h": (0.003, 0.004)}, {"h": (0.004, 0.006)})

variants = {
    "logistic": _simulator(logistic, (_kappa,), {"kappa": (0.0, 0.003)}, _shifts(*_crowded)),
    "holling": _simulator(
        holling, (_kappa, _h), {"kappa": (0.002, 0.004), "h": (0.0, 0.002)}, _shifts(*_sated)
    ),
}
simulator = variants["logistic"]
truth = simulator.truth
