"""The contestants of the integrator benchmark: ours and its peers, each as its users run it.

Adaptive solvers get one number for both tolerances, fixed steps a number of substeps a save
interval. All of them return the states at the save times. Peers come with the extra
`hybridgen[bench]`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from hybridgen.experiments.benchmarking import Absent, Contestant, chosen
from hybridgen.experiments.benchmarking_machine import synchronise
from hybridgen.experiments.benchmarking_problems import Problem
from torchdiffeq import odeint

from hybridgen.integrate import solve

__all__ = ["CONTESTANTS", "SUBSTEPS", "TOLERANCES", "entrants", "missing"]

TOLERANCES = tuple(10.0 ** (-k / 3) for k in range(9, 37))
"""Tolerances from 1e-3 to 1e-12, three in a decade."""

SUBSTEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
"""Numbers of substeps a save interval."""

# How many systems a solver that takes one at a time solves; the others are counted in.
SINGLE = 20


def missing(*modules: str) -> str:
    """Return why libraries cannot be used, or nothing.

    Example:
        >>> missing("torch"), missing("no_such_library")
        ('', "no_such_library is not installed: pip install 'hybridgen[bench]'")
    """
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    return f"{' and '.join(absent)} {verb} not installed: pip install 'hybridgen[bench]'"


class _Torch:
    """A problem as tensors: the field, initial states `(N, *S)`, parameters and times `(T,)`."""

    def __init__(self, problem: Problem, dtype: str, device: str) -> None:
        self.problem, self.device = problem, device
        like = {"dtype": getattr(torch, dtype), "device": device}
        self.y0 = torch.tensor(problem.y0, **like)
        self.z = tuple(torch.tensor(z, **like) for z in problem.z)
        self.t = torch.tensor(problem.t, **like)
        self.field = problem.rhs(torch)

    def timed(self, work: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """Return work without gradients that is done when it returns."""

        def call() -> torch.Tensor:
            with torch.no_grad():
                y = work()
            synchronise(self.device)
            return y

        return call

    def checked(self, y: torch.Tensor) -> np.ndarray:
        """Return the trajectories of the checked members, of `(N, T, *S)`."""
        return y[torch.from_numpy(self.problem.checked).to(y.device)].cpu().numpy()


def _hybridgen(problem: Problem, dtype: str, device: str, compile: bool) -> Contestant:
    work = _Torch(problem, dtype, device)

    def prepare(rtol: float, compile: bool) -> Callable[[], torch.Tensor]:
        return work.timed(
            lambda: (
                solve(work.field, work.y0, work.t, work.z, rtol=rtol, atol=rtol, compile=compile).y
            )
        )

    return Contestant(
        f"hybridgen {'compiled' if compile else 'eager'}",
        partial(prepare, compile=compile),
        work.checked,
        problem.error,
        TOLERANCES,
        "rtol",
        search=partial(prepare, compile=False),
    )


def _torchdiffeq(problem: Problem, dtype: str, device: str, method: str) -> Contestant:
    work = _Torch(problem, dtype, device)
    adaptive = method == "dopri5"

    def prepare(knob: Any) -> Callable[[], torch.Tensor]:
        keywords = {"rtol": knob, "atol": knob} if adaptive else {"options": _grid(knob)}
        return work.timed(
            lambda: odeint(
                lambda t, y: work.field(t, y, work.z), work.y0, work.t, method=method, **keywords
            )
        )

    ladder, knob = (TOLERANCES, "rtol") if adaptive else (SUBSTEPS, "substeps")
    return Contestant(
        f"torchdiffeq {method}",
        prepare,
        lambda y: work.checked(y.transpose(0, 1)),
        problem.error,
        ladder,
        knob,
    )


def _grid(substeps: int) -> dict[str, Any]:
    """Return torchdiffeq's options for equal substeps of the save intervals."""

    def refined(func: Any, y0: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        part = torch.arange(substeps, dtype=t.dtype, device=t.device) / substeps
        return torch.cat([(t[:-1, None] + t.diff()[:, None] * part).flatten(), t[-1:]])

    return {"grid_constructor": refined}


def _torchode(problem: Problem, dtype: str, device: str) -> Contestant | Absent:
    name = "torchode tsit5"
    if why := missing("torchode"):
        return Absent(name, why)
    import torchode

    work = _Torch(problem, dtype, device)
    shape = work.y0.shape

    def flat(t: torch.Tensor, y: torch.Tensor, z: Any) -> torch.Tensor:
        return work.field(t, y.reshape(-1, *shape[1:]), z).reshape(y.shape)

    def prepare(rtol: float) -> Callable[[], torch.Tensor]:
        term = torchode.ODETerm(flat, with_args=True)
        control = torchode.IntegralController(atol=rtol, rtol=rtol, term=term)
        solver = torchode.AutoDiffAdjoint(torchode.Tsit5(term=term), control)
        start = torchode.InitialValueProblem(
            y0=work.y0.flatten(1), t_eval=work.t.expand(shape[0], -1)
        )
        return work.timed(
            lambda: solver.solve(start, args=work.z).ys.reshape(shape[0], -1, *shape[1:])
        )

    return Contestant(name, prepare, work.checked, problem.error, TOLERANCES, "rtol")


def _diffrax(problem: Problem, dtype: str, device: str, kind: str) -> Contestant | Absent:
    name = f"diffrax tsit5 {kind}"
    if why := missing("jax", "diffrax"):
        return Absent(name, why)
    import jax

    if device != "cpu" and jax.default_backend() != "gpu":
        return Absent(name, "jax sees no GPU: pip install 'jax[cuda12]'")
    jax.config.update("jax_enable_x64", True)
    y0, *z = (jax.numpy.asarray(a, dtype=dtype) for a in (problem.y0, *problem.z))

    def prepare(knob: Any) -> Callable[[], Any]:
        one = _diffeqsolve(problem, dtype, kind, knob)
        run = jax.jit(jax.vmap(one) if kind == "vmap" else one)
        return lambda: run(y0, tuple(z)).block_until_ready()

    return Contestant(
        name,
        prepare,
        lambda y: np.asarray(_members_first(y, kind)[problem.checked]),
        problem.error,
        SUBSTEPS if kind == "fixed" else TOLERANCES,
        "substeps" if kind == "fixed" else "rtol",
    )


def _members_first(y: Any, kind: str) -> Any:
    return y if kind == "vmap" else y.swapaxes(0, 1)


def _diffeqsolve(problem: Problem, dtype: str, kind: str, knob: Any) -> Callable[[Any, Any], Any]:
    """Return what solves one system, or with a shared step all of them as one."""
    import diffrax
    import jax.numpy as jnp

    field, t = problem.rhs(jnp), np.asarray(problem.t, dtype=dtype)
    term = diffrax.ODETerm(field)
    save = diffrax.SaveAt(ts=jnp.asarray(t))
    if kind == "fixed":
        grid = np.concatenate([np.linspace(a, b, knob + 1)[:-1] for a, b in pairwise(t)])
        control: Any = diffrax.StepTo(ts=np.append(grid, t[-1]).astype(dtype))
    else:
        control = diffrax.PIDController(rtol=knob, atol=knob)

    def one(y0: Any, z: Any) -> Any:
        return diffrax.diffeqsolve(
            term, diffrax.Tsit5(), t[0], t[-1], None, y0, z,
            saveat=save, stepsize_controller=control, max_steps=None,
        ).ys  # fmt: skip

    return one


def _scipy(problem: Problem, dtype: str, device: str, kind: str) -> Contestant | Absent:
    name = f"scipy DOP853 {kind}"
    if device != "cpu" or dtype != "float64":
        return Absent(name, "scipy computes in float64 on the CPU")
    single = kind == "one by one"
    if single and problem.name == "stiff":
        return Absent(name, "a few systems, of which one in a hundred is stiff, say nothing")
    from scipy.integrate import solve_ivp

    count = min(SINGLE if problem.y0.ndim == 2 else 2, len(problem.y0))
    rows = [[i] for i in problem.checked[:count]] if single else [np.arange(len(problem.y0))]
    field, t = problem.rhs(np), problem.t

    def solved(rtol: float, members: Any) -> np.ndarray:
        # a single system is passed as its users write it, without an axis of members
        members = members[0] if single else members
        y0, z = problem.y0[members], [p[members] for p in problem.z]
        found = solve_ivp(
            lambda time, y: field(time, y.reshape(y0.shape), z).ravel(),
            (t[0], t[-1]), y0.ravel(), method="DOP853", t_eval=t, rtol=rtol, atol=rtol,
        )  # fmt: skip
        if not found.success:
            raise ArithmeticError(found.message)
        return np.moveaxis(found.y.reshape(*y0.shape, len(t)), -1, 0 if single else 1)

    def outcome(found: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(found) if single else found[0][problem.checked]

    return Contestant(
        name,
        lambda rtol: lambda: [solved(rtol, members) for members in rows],
        outcome,
        problem.error,
        TOLERANCES,
        "rtol",
        scale=len(problem.y0) / count if single else 1.0,
        remark=f"{count} systems, scaled" if single else "",
    )


def _copy(problem: Problem, dtype: str, device: str) -> Contestant:
    """Writing a result and doing nothing else: nobody can be faster."""
    shape = (len(problem.y0), len(problem.t), *problem.y0.shape[1:])
    source = torch.zeros(shape[:1] + shape[2:], dtype=getattr(torch, dtype), device=device)

    def call() -> torch.Tensor:
        y = source[:, None].expand(shape).contiguous()
        synchronise(device)
        return y

    return Contestant(
        "memory write alone",
        lambda _: call,
        lambda y: y,
        lambda _: 0.0,
        remark="nothing is integrated",
    )


_MAKERS: dict[str, Callable[[Problem, str, str], Contestant | Absent]] = {
    "hybridgen compiled": partial(_hybridgen, compile=True),
    "hybridgen eager": partial(_hybridgen, compile=False),
    "torchdiffeq dopri5": partial(_torchdiffeq, method="dopri5"),
    "torchdiffeq rk4": partial(_torchdiffeq, method="rk4"),
    "torchode tsit5": _torchode,
    "diffrax tsit5 shared": partial(_diffrax, kind="shared"),
    "diffrax tsit5 vmap": partial(_diffrax, kind="vmap"),
    "diffrax tsit5 fixed": partial(_diffrax, kind="fixed"),
    "scipy DOP853 as one system": partial(_scipy, kind="as one system"),
    "scipy DOP853 one by one": partial(_scipy, kind="one by one"),
    "memory write alone": _copy,
}

CONTESTANTS = tuple(_MAKERS)
"""The names of all contestants; the first one is what the others are compared with."""


def entrants(
    problem: Problem, dtype: str, device: str, wanted: Sequence[str] = ()
) -> list[Contestant | Absent]:
    """Return the contestants of a problem.

    Arguments:
        problem: The problem.
        dtype: `"float64"` or `"float32"`.
        device: The torch device; jax follows if it has a GPU.
        wanted: Names of contestants or libraries; all for none.

    Raises:
        ConfigError: If there is no such contestant.
    """
    return [_MAKERS[name](problem, dtype, device) for name in chosen(CONTESTANTS, wanted)]
