r"""Who differentiates a roll-out of the hybrid pendulum, and how.

The field is the expert without damping plus a network of the state,

.. math:: \dot\theta = \omega + n_1(\theta, \omega), \qquad
          \dot\omega = -\omega_0^2 \sin\theta + n_2(\theta, \omega),

and the loss the mean squared difference to trajectories of the damped pendulum. Every contestant
gets the same weights and returns the gradient with respect to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from hybridgen.experiments.benchmarking import Absent, Contestant, chosen
from hybridgen.experiments.benchmarking_machine import synchronise
from hybridgen.experiments.benchmarking_peers import missing
from hybridgen.experiments.benchmarking_problems import make_problem
from numpy.typing import NDArray
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from hybridgen import rng
from hybridgen.integrate import solve

__all__ = ["CONTESTANTS", "Hybrid", "Step", "entrants", "make_step"]

Array = NDArray[np.float64]

TOLERANCE = 1e-6
TIGHT = {"rtol": 1e-10, "atol": 1e-12}


class Hybrid(nn.Module):
    """The field of the hybrid pendulum.

    Arguments:
        omega0: Frequencies in rad/s, with shape `(B,)`.
        weights: Weights and biases of the layers in turn, with shapes `(out, in)` and `(out,)`.
    """

    def __init__(self, omega0: Tensor, weights: Sequence[Tensor]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for weight, bias in zip(weights[::2], weights[1::2], strict=True):
            out, width = weight.shape
            layer = nn.utils.skip_init(nn.Linear, width, out, dtype=weight.dtype)
            layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
            layers += [layer.to(weight.device), nn.Tanh()]
        self.network = nn.Sequential(*layers[:-1])
        self.register_buffer("stiffness", omega0.square())

    def rates(self, y: Tensor, stiffness: Tensor) -> Tensor:
        """Return dy/dt of states `(B, 2)` with omega_0^2 of shape `(B,)`."""
        expert = torch.stack([y[..., 1], -stiffness * y[..., 0].sin()], -1)
        return expert + self.network(y)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """Return dy/dt, as torchdiffeq asks for it."""
        return self.rates(y, self.get_buffer("stiffness"))


@dataclass(frozen=True)
class Step:
    """A training step: what is rolled out, and what it is compared with.

    Arguments:
        y0: Initial states, with shape `(B, 2)`.
        omega0: Frequencies in rad/s, with shape `(B,)`.
        t: Times in s, with shape `(T,)`.
        target: Trajectories, with shape `(B, T, 2)`.
        weights: Weights `(out, in)` and biases `(out,)` of the network, layer by layer.
    """

    y0: Array
    omega0: Array
    t: Array
    target: Array
    weights: tuple[Array, ...]

    @cached_property
    def reference(self) -> Array:
        """The gradient in float64 at a tight tolerance, with shape `(W,)`."""
        tensors = _Tensors(self, "float64", "cpu")
        roll = partial(odeint, tensors.field, tensors.y0, tensors.t, method="dopri5", **TIGHT)
        return _flat(tensors.gradient(lambda: roll().transpose(0, 1)))

    def error(self, gradient: Array) -> float:
        """Return how far a gradient, with shape `(W,)`, is off, relative to the reference."""
        off = np.linalg.norm(gradient - self.reference)
        return float(off / np.linalg.norm(self.reference))


def make_step(batch: int, times: int, dt: float, hidden: Sequence[int], seed: int) -> Step:
    """Return a step on pendulums of the training support, with a network as torch draws it.

    Arguments:
        batch: How many trajectories.
        times: How many times each has.
        dt: The time between them, in s.
        hidden: Widths of the hidden layers.
        seed: The seed of the draw and of the weights.

    Example:
        >>> [w.shape for w in make_step(4, 5, 0.1, (8,), seed=0).weights]
        [(8, 2), (8,), (2, 8), (2,)]
    """
    problem = make_problem("pendulum", batch, times, dt, seed)
    widths = (2, *hidden, 2)
    with rng.scoped(rng.seed_of(seed, "benchmark/weights")):
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    weights = tuple(p.detach().double().numpy() for p in parameters)
    return Step(problem.y0, problem.z[0], problem.t, problem.reference, weights)


class _Tensors:
    """A step as tensors, and its gradient by autograd."""

    def __init__(self, step: Step, dtype: str, device: str) -> None:
        like: dict[str, Any] = {"dtype": getattr(torch, dtype), "device": device}
        self.device = device
        self.y0, self.omega0, self.t, self.target = (
            torch.tensor(a, **like) for a in (step.y0, step.omega0, step.t, step.target)
        )
        self.field = Hybrid(self.omega0, [torch.tensor(w, **like) for w in step.weights])
        self.parameters = list(self.field.parameters())

    def gradient(self, roll: Callable[[], Tensor]) -> list[Tensor]:
        """Return the gradient of the loss of trajectories, with shape `(B, T, 2)`."""
        for parameter in self.parameters:
            parameter.grad = None
        (roll() - self.target).square().mean().backward()
        synchronise(self.device)
        return [p.grad for p in self.parameters if p.grad is not None]


def _flat(gradient: Sequence[Any]) -> Array:
    parts = [np.asarray(g.cpu() if isinstance(g, Tensor) else g).ravel() for g in gradient]
    return np.concatenate(parts).astype(np.float64)


Roll = Callable[[_Tensors], Tensor]


def _torch(step: Step, dtype: str, device: str, name: str, roll: Roll, remark: str) -> Contestant:
    """Return a contestant that rolls out in torch."""

    def prepare(_: Any) -> Callable[[], list[Tensor]]:
        tensors = _Tensors(step, dtype, device)
        return lambda: tensors.gradient(lambda: roll(tensors))

    return Contestant(name, prepare, _flat, step.error, remark=remark)


def _ours(**keywords: Any) -> Roll:
    def roll(s: _Tensors) -> Tensor:
        def field(t: Tensor, y: Tensor, stiffness: Tensor) -> Tensor:
            return s.field.rates(y, stiffness)

        given = s.field.get_buffer("stiffness")
        return solve(field, s.y0, s.t, given, method="grid_rk4", **keywords).y

    return roll


def _torchdiffeq(solver: Callable[..., Tensor], **keywords: Any) -> Roll:
    return lambda s: solver(s.field, s.y0, s.t, **keywords).transpose(0, 1)


def _torchode(s: _Tensors) -> Tensor:
    import torchode

    term = torchode.ODETerm(s.field)
    control = torchode.IntegralController(atol=TOLERANCE, rtol=TOLERANCE, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), control)
    start = torchode.InitialValueProblem(y0=s.y0, t_eval=s.t.expand(len(s.y0), -1))
    return solver.solve(start).ys


_AT = {"rtol": TOLERANCE, "atol": TOLERANCE}
_AT_WORDS = f"rtol {TOLERANCE:g}"
_ROLLS: dict[str, tuple[Roll, str]] = {
    "hybridgen compiled": (_ours(compile=True), "1 step of RK4"),
    "hybridgen compiled, checkpoint": (
        _ours(compile=True, checkpoint="interval"),
        "1 step of RK4, exact discrete adjoint",
    ),
    "hybridgen eager": (_ours(compile=False), "1 step of RK4"),
    "hybridgen eager, checkpoint": (
        _ours(compile=False, checkpoint="interval"),
        "1 step of RK4, exact discrete adjoint",
    ),
    "torchdiffeq rk4": (_torchdiffeq(odeint, method="rk4"), "1 step of the 3/8 rule"),
    "torchdiffeq dopri5": (_torchdiffeq(odeint, method="dopri5", **_AT), _AT_WORDS),
    "torchdiffeq rk4 adjoint": (
        _torchdiffeq(odeint_adjoint, method="rk4"),
        "1 step of the 3/8 rule",
    ),
    "torchdiffeq dopri5 adjoint": (
        _torchdiffeq(odeint_adjoint, method="dopri5", **_AT),
        _AT_WORDS,
    ),
    "torchode dopri5": (_torchode, _AT_WORDS),
}
_JAX = ("diffrax dopri5", "diffrax tsit5", "jax rk4 scan")

CONTESTANTS = (*_ROLLS, *_JAX)
"""The names of all contestants; the first one is what the others are compared with."""


def entrants(
    step: Step, dtype: str, device: str, wanted: Sequence[str] = ()
) -> list[Contestant | Absent]:
    """Return the contestants of a step.

    Arguments:
        step: The step.
        dtype: `"float32"` or `"float64"`.
        device: The torch device; jax follows if it has a GPU.
        wanted: Names of contestants or libraries; all for none.

    Raises:
        ConfigError: If there is no such contestant.
    """
    found: list[Contestant | Absent] = []
    for name in chosen(CONTESTANTS, wanted):
        why = missing(*_needs(name))
        if why:
            found.append(Absent(name, why))
        elif name in _ROLLS:
            found.append(_torch(step, dtype, device, name, *_ROLLS[name]))
        else:
            found.append(_jax(step, dtype, device, name))
    return found


def _needs(name: str) -> tuple[str, ...]:
    library = name.partition(" ")[0]
    return {"diffrax": ("jax", "diffrax")}.get(library, (library,))


def _jax(step: Step, dtype: str, device: str, name: str) -> Contestant | Absent:
    """Return a contestant in jax: a value and a gradient, compiled as one."""
    import jax
    import jax.numpy as jnp

    if device != "cpu" and jax.default_backend() != "gpu":
        return Absent(name, "jax sees no GPU: pip install 'jax[cuda12]'")
    jax.config.update("jax_enable_x64", True)
    y0, omega0, t, target, *weights = (
        jnp.asarray(a, dtype=dtype)
        for a in (step.y0, step.omega0, step.t, step.target, *step.weights)
    )

    def field(_: Any, y: Any, parameters: Any) -> Any:
        h = y
        for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            h = jnp.tanh(h @ weight.T + bias)
        network = h @ parameters[-2].T + parameters[-1]
        return jnp.stack([y[:, 1], -omega0 * omega0 * jnp.sin(y[:, 0])], -1) + network

    roll = _jax_rk4 if name == "jax rk4 scan" else partial(_diffrax, name.partition(" ")[2])

    def loss(parameters: Any) -> Any:
        y = roll(field, y0, t, parameters)
        return jnp.mean(jnp.square(y - target.swapaxes(0, 1)))

    def prepare(_: Any) -> Callable[[], Any]:
        run = jax.jit(jax.value_and_grad(loss))
        return lambda: jax.block_until_ready(run(weights))[1]

    remark = "1 step of RK4" if name == "jax rk4 scan" else _AT_WORDS
    return Contestant(name, prepare, _flat, step.error, remark=remark)


def _jax_rk4(field: Any, y0: Any, t: Any, parameters: Any) -> Any:
    """Return states `(T, B, 2)` by one step of RK4 an interval, rematerialised in the backward."""
    import jax
    import jax.numpy as jnp

    def advance(y: Any, times: Any) -> tuple[Any, Any]:
        start, end = times
        h = end - start
        k1 = field(start, y, parameters)
        k2 = field(start + h / 2, y + h / 2 * k1, parameters)
        k3 = field(start + h / 2, y + h / 2 * k2, parameters)
        k4 = field(end, y + h * k3, parameters)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y, y

    _, states = jax.lax.scan(jax.checkpoint(advance), y0, (t[:-1], t[1:]))
    return jnp.concatenate([y0[None], states])


def _diffrax(method: str, field: Any, y0: Any, t: Any, parameters: Any) -> Any:
    """Return states `(T, B, 2)` by a step shared by all, with diffrax's own adjoint."""
    import diffrax

    solver = diffrax.Tsit5() if method == "tsit5" else diffrax.Dopri5()
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field), solver, t[0], t[-1], None, y0, parameters,
        saveat=diffrax.SaveAt(ts=t), adjoint=diffrax.RecursiveCheckpointAdjoint(),
        stepsize_controller=diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE), max_steps=1000,
    ).ys  # fmt: skip
