r"""The damped pendulum, and an expert that does not know of the damping.

.. math:: \ddot\theta = -\omega_0^2 \sin\theta - \alpha \dot\theta

The expert has :math:`\alpha = 0`, so :math:`z_e = \omega_0` and the true
:math:`z_a = \alpha`; the equation :math:`\dot\theta = \omega` is exact. In the variant
`z_a_study` only half the damping is seen in training, so that each joint shift leaves the training
support in :math:`z_a` too.

References:
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from hybridgen.expert import ODEExpert
from hybridgen.noise import GaussianNoise
from hybridgen.params import Param, State, Values
from hybridgen.shift import Shift
from hybridgen.simulator import Simulator

__all__ = ["damped", "expert", "simulator", "truth", "undamped", "variants"]


def damped(t: Tensor, y: Tensor, z: Values) -> Tensor:
    """Return dy/dt of the damped pendulum.

    Arguments:
        t: Time in s.
        y: Angle in rad and angular velocity in rad/s, with shape `(*B, 2)`.
        z: `omega0` in rad/s and `alpha` in 1/s, each with shape `(*B)`.

    Returns:
        Rates in rad/s and rad/s^2, with shape `(*B, 2)`.
    """
    theta, omega = y.unbind(-1)
    return torch.stack([omega, -(z.omega0**2) * theta.sin() - z.alpha * omega], dim=-1)


def undamped(t: Tensor, y: Tensor, z_e: Values) -> Tensor:
    """Return dy/dt of the pendulum without damping.

    Arguments:
        t: Time in s.
        y: Angle in rad and angular velocity in rad/s, with shape `(*B, 2)`.
        z_e: `omega0` in rad/s, with shape `(*B)`.

    Returns:
        Rates in rad/s and rad/s^2, with shape `(*B, 2)`.
    """
    theta, omega = y.unbind(-1)
    return torch.stack([omega, -(z_e.omega0**2) * theta.sin()], dim=-1)


_states = (State("theta", "rad", exact=True), State("omega", "rad/s"))
_omega0 = Param("omega0", "rad/s", 0.5, 3.5)

truth = ODEExpert(damped, states=_states, params=(_omega0, Param("alpha", "1/s", 0.0, 3.0)))
expert = ODEExpert(undamped, states=_states, params=(_omega0,))

_slow = (0.5, 1.5)

simulator = Simulator(
    truth=truth,
    expert=expert,
    support={
        "omega0": (1.5, 3.1),
        "alpha": (0.0, 0.6),
        "theta": (-math.pi / 2, math.pi / 2),
        "omega": (0.0, 0.0),
    },
    times=np.linspace(0.0, 20.0, 201),
    window=50,
    noise=GaussianNoise(0.01),
    shifts={
        s.name: s
        for s in (
            Shift("ood", {"omega0": _slow}, what="slow pendulums"),
            Shift("near", {"omega0": (7 / 6, 1.5)}, what="a little slower than in training"),
            Shift("mid", {"omega0": (5 / 6, 7 / 6)}, what="slower than in training"),
            Shift("far", {"omega0": (0.5, 5 / 6)}, what="much slower than in training"),
            Shift("joint_small", {"omega0": _slow, "alpha": (0.3, 0.6)}, what="strong damping"),
            Shift("joint_medium", {"omega0": _slow, "alpha": (0.6, 1.0)}, what="more damping"),
            Shift("joint_large", {"omega0": _slow, "alpha": (1.0, 3.0)}, what="far more damping"),
        )
    },
)

variants = {
    "default": simulator,
    "z_a_study": dataclasses.replace(
        simulator, support={**simulator.support, "alpha": (0.0, 0.3)}, variant="z_a_study"
    ),
}
