r"""The driven series RLC circuit, and an expert that does not know of the resistor.

Kirchhoff's law :math:`V = U + R I + L \dot I` with the voltage U of the capacitor and the
current I gives

.. math:: \dot U = I / C, \qquad \dot I = (V(t) - U) / L - \gamma I, \qquad \gamma = R / L,

driven by the known :math:`V(t) = 1 + 2.5 \sin 2t`. The expert has :math:`R = 0`, so
:math:`z_e = (L, C)` and the true :math:`z_a = R`; the equation :math:`\dot U = I / C` is exact.

Publications of this problem differ in the damping. `textbook` is the law above; `thesis` is
:math:`\gamma = R / C` as printed in eq. 7.7, whose unit is not that of a rate; `released` is
:math:`\gamma = R / (C L)` as the authors' program has it. In none of them is the damping
independent of z_e. The source draws U at the start from N(0, 1); here it is uniform with the same
mean and variance.

References:
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hybridgen.expert import ODEExpert
from hybridgen.noise import GaussianNoise
from hybridgen.params import Param, State, Values
from hybridgen.shift import Shift
from hybridgen.simulator import Simulator

__all__ = [
    "expert",
    "lossless",
    "released",
    "simulator",
    "textbook",
    "thesis",
    "truth",
    "variants",
    "voltage",
]


def voltage(t: Tensor) -> Tensor:
    """Return the driving voltage.

    Arguments:
        t: Times in s, with shape `(T,)`.

    Returns:
        Voltages in V, with shape `(T, 1)`.
    """
    return (1.0 + 2.5 * torch.sin(2.0 * t))[:, None]


def lossless(t: Tensor, y: Tensor, z_e: Values, u: Values) -> Tensor:
    """Return dy/dt of the circuit without resistor.

    Arguments:
        t: Time in s.
        y: Capacitor voltage in V and current in A, with shape `(*B, 2)`.
        z_e: `L` in H and `C` in F, each with shape `(*B)`.
        u: `V` in V, with shape `(*B)`.

    Returns:
        Rates in V/s and A/s, with shape `(*B, 2)`.
    """
    capacitor, current = y.unbind(-1)
    return torch.stack([current / z_e.C, (u.V - capacitor) / z_e.L], dim=-1)


def textbook(t: Tensor, y: Tensor, z: Values, u: Values) -> Tensor:
    """Return dy/dt with the damping -R I / L; as `lossless`, and `R` in ohm."""
    return _damped(t, y, z, u, z.R / z.L)


def thesis(t: Tensor, y: Tensor, z: Values, u: Values) -> Tensor:
    """Return dy/dt with the damping -(R / C) I; as `lossless`, and `R` in ohm."""
    return _damped(t, y, z, u, z.R / z.C)


def released(t: Tensor, y: Tensor, z: Values, u: Values) -> Tensor:
    """Return dy/dt with the damping -R I / (C L); as `lossless`, and `R` in ohm."""
    return _damped(t, y, z, u, z.R / (z.C * z.L))


def _damped(t: Tensor, y: Tensor, z: Values, u: Values, gamma: Tensor) -> Tensor:
    current = y[..., 1]
    loss = torch.stack([torch.zeros_like(current), gamma * current], dim=-1)
    return lossless(t, y, z, u) - loss


_states = (State("U", "V", exact=True), State("I", "A"))
_params = (Param("L", "H", 1.0, 5.0), Param("C", "F", 0.5, 2.5))
_inputs = (State("V", "V"),)

expert = ODEExpert(lossless, states=_states, params=_params, inputs=_inputs)

_ood = {"L": (3.0, 5.0), "C": (1.0, 2.5)}
_shifts = (
    Shift("ood", _ood, what="larger coils and capacitors"),
    Shift("near", {"L": (3.0, 11 / 3), "C": (1.0, 1.5)}, what="a little larger than in training"),
    Shift("mid", {"L": (11 / 3, 13 / 3), "C": (1.5, 2.0)}, what="larger than in training"),
    Shift("far", {"L": (13 / 3, 5.0), "C": (2.0, 2.5)}, what="much larger than in training"),
    Shift("joint_small", {**_ood, "R": (3.0, 4.0)}, what="a little more resistance"),
    Shift("joint_medium", {**_ood, "R": (4.0, 8.0)}, what="more resistance"),
    Shift("joint_large", {**_ood, "R": (10.0, 20.0)}, what="far more resistance"),
)


def _simulator(field: Callable[..., Tensor]) -> Simulator:
    return Simulator(
        truth=ODEExpert(field, _states, (*_params, Param("R", "ohm", 0.0, 20.0)), inputs=_inputs),
        expert=expert,
        support={
            "L": (1.0, 3.0),
            "C": (0.5, 1.5),
            "R": (1.0, 3.0),
            "U": (-math.sqrt(3.0), math.sqrt(3.0)),
            "I": (0.0, 0.0),
        },
        times=np.linspace(0.0, 20.0, 201),
        inputs=voltage,
        window=50,
        noise=GaussianNoise(0.0),
        shifts={s.name: s for s in _shifts},
        problem="rlc",
        variant=field.__name__,
    )


variants = {f.__name__: _simulator(f) for f in (textbook, thesis, released)}
simulator = variants["textbook"]
truth = simulator.truth
