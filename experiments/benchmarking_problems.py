r"""The systems that integrators are measured on, written once for every array library.

A right-hand side is a function of the library, `rhs(xp)` with `xp` torch, numpy or jax.numpy, so
that all contestants do the same arithmetic. Members are drawn by the simulators of
`hybridgen.simulators`, from their training support: the pendulum with :math:`\omega_0` in 1.5-3.1
rad/s and :math:`\alpha` in 0-0.6 1/s from :math:`|\theta| \le \pi/2`; the driven circuit with L in
1-3 H, C in 0.5-1.5 F and R in 1-3 ohm; reaction and diffusion on 32 x 32 points with a in
0.001-0.002, b in 0.003-0.007 and k in 0.003-0.005 from random fields. `stiff` is the circuit with
one coil in a hundred drawn log-uniformly from 0.003-0.1 H, and `bad_member` the pendulum with a
drive :math:`\beta \dot\theta^3` that is zero for all but a member that diverges.

The reference is scipy's DOP853 at a relative tolerance of 1e-12, on at most 1,000 of the members.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from hybridgen.simulators import pendulum, reaction_diffusion, rlc
from numpy.typing import NDArray

from hybridgen import rng
from hybridgen.errors import ConfigError, nearest
from hybridgen.simulator import Simulator

__all__ = ["PROBLEMS", "Problem", "bad_members", "make_problem", "members", "reference"]

Array = NDArray[np.float64]
Field = Callable[[Any, Any, Any], Any]

REFERENCE_MEMBERS, REFERENCE_NUMBERS = 1000, 2**17


def _pendulum(xp: Any) -> Field:
    def field(t: Any, y: Any, z: Any) -> Any:
        omega0, alpha = z
        theta, omega = y[..., 0], y[..., 1]
        return xp.stack([omega, -omega0 * omega0 * xp.sin(theta) - alpha * omega], -1)

    return field


def _driven_pendulum(xp: Any) -> Field:
    def field(t: Any, y: Any, z: Any) -> Any:
        omega0, alpha, beta = z
        theta, omega = y[..., 0], y[..., 1]
        drive = beta * omega * omega * omega
        return xp.stack([omega, drive - omega0 * omega0 * xp.sin(theta) - alpha * omega], -1)

    return field


def _rlc(xp: Any) -> Field:
    def field(t: Any, y: Any, z: Any) -> Any:
        inductance, capacity, resistance = z
        voltage, current = y[..., 0], y[..., 1]
        drive = 1.0 + 2.5 * xp.sin(2.0 * t)
        rate = (drive - voltage - resistance * current) / inductance
        return xp.stack([current / capacity, rate], -1)

    return field


def _reaction_diffusion(xp: Any) -> Field:
    per_area = 1.0 / reaction_diffusion.SPACING**2

    def laplacian(f: Any) -> Any:
        beside = xp.roll(f, 1, -1) + xp.roll(f, -1, -1)
        return per_area * (beside + xp.roll(f, 1, -2) + xp.roll(f, -1, -2) - 4.0 * f)

    def field(t: Any, y: Any, z: Any) -> Any:
        a, b, k = z
        u, v = y[..., 0, :, :], y[..., 1, :, :]
        du = a * laplacian(u) + u - u * u * u - k - v
        return xp.stack([du, b * laplacian(v) + u - v], -3)

    return field


@dataclass(frozen=True)
class Problem:
    """Initial value problems of one kind.

    Arguments:
        name: What it is called.
        rhs: For an array library, the right-hand side `field(t, y, z)`; a state has shape
            `(*B, *S)`, a parameter `(*B)`, or `(*B, 1, 1)` for fields.
        y0: Initial states, with shape `(N, *S)`.
        z: Parameters, each with shape `(N,)`, or `(N, 1, 1)` for fields.
        t: Save times, with shape `(T,)`.
        checked: Which members the reference has, with shape `(K,)`.
    """

    name: str
    rhs: Callable[[Any], Field]
    y0: Array
    z: tuple[Array, ...]
    t: Array
    checked: NDArray[np.int64]

    @cached_property
    def reference(self) -> Array:
        """The solutions of the checked members, with shape `(K, T, *S)`."""
        return reference(self)

    def error(self, y: Any) -> float:
        """Return the largest error of trajectories, of the checked members or the first of them.

        Arguments:
            y: Trajectories, with shape `(J, T, *S)`, J at most K.
        """
        off = np.abs(np.asarray(y, dtype=np.float64) - self.reference[: len(y)])
        return float(off.max()) if np.isfinite(off).all() else math.inf


def reference(problem: Problem, rtol: float = 1e-12, atol: float = 1e-13) -> Array:
    """Integrate the checked members by scipy's DOP853, all of them as one system.

    Arguments:
        problem: The problem.
        rtol: Relative tolerance; scipy's norm is over all members.
        atol: Absolute tolerance.

    Returns:
        Trajectories, with shape `(K, T, *S)`.

    Raises:
        ArithmeticError: If scipy does not reach the last time.
    """
    from scipy.integrate import solve_ivp

    y0, z = problem.y0[problem.checked], [p[problem.checked] for p in problem.z]
    field, t = problem.rhs(np), problem.t

    def flat(time: float, y: Array) -> Array:
        return field(time, y.reshape(y0.shape), z).ravel()

    found = solve_ivp(
        flat, (t[0], t[-1]), y0.ravel(), method="DOP853", t_eval=t, rtol=rtol, atol=atol
    )
    if not found.success:
        raise ArithmeticError(f"the reference of {problem.name} failed: {found.message}")
    return np.moveaxis(found.y.reshape(*y0.shape, len(t)), -1, 1)


def members(
    simulator: Simulator, indices: NDArray[np.int64], seed: int, names: tuple[str, ...]
) -> tuple[Array, tuple[Array, ...]]:
    """Draw members of a simulator without integrating them.

    Arguments:
        simulator: The simulator.
        indices: Which members, with shape `(N,)`.
        seed: The seed of the draw.
        names: Of which parameters.

    Returns:
        Initial states, with shape `(N, C, *S)`, and the parameters in turn, each `(N,)`.
    """
    short = dataclasses.replace(simulator, times=simulator.times[:2])
    batch = short.draw(indices, seed)
    start = batch.y if batch.clean is None else batch.clean
    if batch.z_e is None or batch.z_a is None:
        raise ConfigError(f"{simulator.problem} draws no parameters")
    values = torch.cat([batch.z_e, batch.z_a], dim=1).numpy()
    known = (*simulator.expert.param_names, *simulator.z_a_names)
    return start[:, 0].numpy().copy(), tuple(values[:, known.index(n)].copy() for n in names)


def _checked(y0: Array, first: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Return which members the reference has: those of `first`, then the others in order."""
    count = min(REFERENCE_MEMBERS, max(1, REFERENCE_NUMBERS // math.prod(y0.shape[1:])), len(y0))
    order = np.arange(len(y0))
    if first is not None:
        order = np.concatenate([first, np.setdiff1d(order, first)])
    return np.sort(order[:count])


def _make_pendulum(n: int, t: Array, seed: int) -> Problem:
    y0, z = members(pendulum.simulator, np.arange(n), seed, ("omega0", "alpha"))
    return Problem("pendulum", _pendulum, y0, z, t, _checked(y0))


def _make_rlc(n: int, t: Array, seed: int) -> Problem:
    y0, z = members(rlc.simulator, np.arange(n), seed, ("L", "C", "R"))
    return Problem("rlc", _rlc, y0, z, t, _checked(y0))


def _make_stiff(n: int, t: Array, seed: int) -> Problem:
    y0, (inductance, *others) = members(rlc.simulator, np.arange(n), seed, ("L", "C", "R"))
    u = rng.uniform(seed, "benchmark/stiff", np.arange(n), 2)
    hard = np.sort(np.argsort(u[:, 0])[: max(1, round(n / 100))])
    inductance[hard] = 0.003 * (0.1 / 0.003) ** u[hard, 1]
    return Problem("stiff", _rlc, y0, (inductance, *others), t, _checked(y0, hard))


def _make_fields(n: int, t: Array, seed: int) -> Problem:
    y0, z = members(reaction_diffusion.simulator, np.arange(n), seed, ("a", "b", "k"))
    wide = tuple(p[:, None, None] for p in z)
    return Problem("reaction_diffusion", _reaction_diffusion, y0, wide, t, _checked(y0))


PROBLEMS: dict[str, Callable[[int, Array, int], Problem]] = {
    "pendulum": _make_pendulum,
    "rlc": _make_rlc,
    "reaction_diffusion": _make_fields,
    "stiff": _make_stiff,
}
"""What makes each problem, from the number of members, the save times and a seed."""


def make_problem(name: str, count: int, times: int, dt: float, seed: int) -> Problem:
    """Return a problem.

    Arguments:
        name: One of `PROBLEMS`.
        count: How many members.
        times: How many save times, the start included.
        dt: The time between two of them.
        seed: The seed of the draw.

    Raises:
        ConfigError: If there is no such problem.

    Example:
        >>> make_problem("pendulum", 3, times=11, dt=0.1, seed=0).y0.shape
        (3, 2)
    """
    if name not in PROBLEMS:
        raise ConfigError(f"no problem {name!r}; {nearest(name, PROBLEMS)}")
    return PROBLEMS[name](count, dt * np.arange(times, dtype=np.float64), seed)


def bad_members(
    count: int, times: int, dt: float, seed: int, *, nan: bool, diverging: bool
) -> Problem:
    """Return pendulums of which one has a NaN for a parameter, one diverges, or both.

    Arguments:
        count: How many members, at least 4; the bad ones are those in the middle.
        times: How many save times.
        dt: The time between two of them.
        seed: The seed of the draw.
        nan: Whether one has a NaN.
        diverging: Whether one diverges in finite time.
    """
    base = make_problem("pendulum", count, times, dt, seed)
    omega0, alpha = base.z
    beta = np.zeros_like(alpha)
    y0 = base.y0
    middle = count // 2
    if nan:
        omega0[middle] = math.nan
    if diverging:
        y0[middle + 1], beta[middle + 1] = (1.0, 0.0), 50.0
    good = np.setdiff1d(np.arange(count), [middle, middle + 1])
    z = (omega0, alpha, beta)
    return Problem("bad_member", _driven_pendulum, y0, z, base.t, good)
