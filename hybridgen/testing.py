"""Public checks of a user's own expert: does the function keep the contract?

A check calls the function on random states (or points of its axis) and parameters inside the
declared ranges and compares what comes back. Nothing is asserted: the result is a report, one line
a check.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybridgen import rng
from hybridgen.errors import ExpertError
from hybridgen.expert import Expert, ODEExpert

__all__ = ["Check", "CheckReport", "check_expert"]

AnyExpert = ODEExpert | Expert

_BATCH, _POINTS = 8, 16


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Arguments:
        name: What was looked at.
        passed: Whether it holds.
        detail: What was seen, and if it failed, what to write instead.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class CheckReport:
    """The outcome of all checks of one expert.

    Arguments:
        expert: The name of the expert.
        checks: The checks in the order in which they ran.
    """

    expert: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(c.passed for c in self.checks)

    def __str__(self) -> str:
        lines = [f"{'ok  ' if c.passed else 'FAIL'} {c.name}: {c.detail}" for c in self.checks]
        return "\n".join([f"expert {self.expert!r}", *lines])

    def raise_if_failed(self) -> None:
        """Raise one error that lists every failed check.

        Raises:
            ExpertError: If a check failed.
        """
        failed = [f"{c.name}: {c.detail}" for c in self.checks if not c.passed]
        if failed:
            raise ExpertError(f"expert {self.expert!r} fails: " + "; ".join(failed))


def check_expert(expert: AnyExpert, *, y0: Tensor | None = None, seed: int = 0) -> CheckReport:
    """Check shapes, batching, gradients, dtype, determinism, mutation and speed of an expert.

    An expert in numpy has no gradients; the report says so and holds it against nobody.

    Arguments:
        expert: The expert.
        y0: Where the function is tried: states with shape `(8, C, *S)`, or for an `Expert` points
            of its axis with shape `(8, T)`. By default states are absolute values of normal draws,
            since many (levels, concentrations) are positive, and points lie between the declared
            `low` and `high` of the axis, or else between 0 and 1.
        seed: Seed of the states and parameters.

    Returns:
        The report; `report.passed` tells whether all is well.

    Raises:
        ExpertError: If `expert` is neither an ODEExpert nor an Expert.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> check_expert(pendulum.expert).passed
        True
    """
    if not isinstance(expert, (ODEExpert, Expert)):
        raise ExpertError(
            f"check_expert got {type(expert).__name__}; wrap the function: "
            "ODEExpert(f, states=(State('y', 'm'),), params=(Param('k', '1/s', 0, 1),))."
        )
    y, z_e = _probe(expert, y0, seed)
    # an expert that draws random numbers must not move the caller's generators
    with rng.scoped(seed), _numpy_scoped():
        checks = [_run("call", _call, expert, y, z_e)]
        if checks[0].passed:
            checks += [_run(k, check, expert, y, z_e) for k, check in _CHECKS.items()]
    return CheckReport(expert.name, tuple(checks))


@contextlib.contextmanager
def _numpy_scoped() -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _probe(expert: AnyExpert, y0: Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """Return states `(8, C, *S)`, or points `(8, T)` of an axis, and parameters `(8, P)`."""
    index = np.arange(_BATCH)
    if y0 is None and isinstance(expert, Expert):
        draws = np.sort(rng.uniform(seed, "check/y", index, _POINTS))
        low, high = expert.axis.low, expert.axis.high
        if low is not None and high is not None:
            draws = low + (high - low) * draws
        y0 = torch.from_numpy(draws)
    elif y0 is None:
        shape = (len(expert.states), *(8,) * expert.space)
        draws = rng.normal(seed, "check/y", index, int(np.prod(shape)))
        y0 = torch.from_numpy(np.abs(draws)).reshape(_BATCH, *shape)
    u = torch.from_numpy(rng.uniform(seed, "check/z_e", index, len(expert.params)))
    lows = torch.tensor([p.low for p in expert.params], dtype=torch.float64)
    highs = torch.tensor([p.high for p in expert.params], dtype=torch.float64)
    return y0.to(torch.float64), lows + (highs - lows) * u


def _run(
    name: str,
    check: Callable[[AnyExpert, Tensor, Tensor], tuple[bool, str]],
    expert: AnyExpert,
    y: Tensor,
    z_e: Tensor,
) -> Check:
    try:
        passed, detail = check(expert, y.clone(), z_e.clone())
    except Exception as error:  # the user's code may raise anything; the report says what
        frames = traceback.extract_tb(error.__traceback__)
        detail = f"raised {type(error).__name__}: {error}"
        where = next((f for f in reversed(frames) if f.name == expert.name), None)
        if where is not None:
            detail += f" (line {where.lineno}: {where.line})"
        return Check(name, False, detail)
    return Check(name, passed, detail)


def _evaluate(expert: AnyExpert, y: Tensor, z_e: Tensor) -> Tensor:
    """Return what the expert says at states `(*B, C, *S)`, or points `(*B, T)` of its axis."""
    count = len(expert.inputs)
    # at time one and inputs of one: at zero, whatever multiplies them would seem not to matter
    if isinstance(expert, Expert):
        return expert(y, z_e, y.new_ones(*y.shape, count) if count else None)
    u = y.new_ones(*z_e.shape[:-1], count) if count else None
    return expert(y.new_ones(()), y, z_e, u)


def _call(expert: AnyExpert, y: Tensor, z_e: Tensor) -> tuple[bool, str]:
    dy = _evaluate(expert, y, z_e)
    what = "the response" if isinstance(expert, Expert) else "dy/dt"
    if isinstance(expert, ODEExpert) and dy.shape != y.shape:
        stack = "np.stack" if expert.backend == "numpy" else "torch.stack"
        axis = "axis" if expert.backend == "numpy" else "dim"
        rates = ", ".join("d" + n for n in expert.state_names)
        return False, (
            f"returned shape {tuple(dy.shape)} for y {tuple(y.shape)}; return dy/dt for every "
            f"state: {stack}([{rates}], {axis}=-1)"
        )
    if not dy.isfinite().all():
        bad = [expert.state_names[i] for i in _bad_states(expert, dy)]
        where = "points" if isinstance(expert, Expert) else "states of order one"
        return False, (
            f"not finite in {', '.join(bad)} at {where} inside the declared ranges; "
            "guard roots and divisions (h.clamp_min(0).sqrt()), or pass y0= that do occur"
        )
    return True, f"{what} has shape {tuple(dy.shape)} and is finite"


def _bad_states(expert: AnyExpert, dy: Tensor) -> list[int]:
    rows = (~dy.isfinite()).movedim(-1 - expert.space, 0).flatten(1).any(1)
    return [int(i) for i in rows.nonzero()[:, 0]]


def _batching(expert: AnyExpert, y: Tensor, z_e: Tensor) -> tuple[bool, str]:
    dy = _evaluate(expert, y, z_e)
    single = torch.stack([_evaluate(expert, y[i], z_e[i]) for i in range(len(y))])
    double = _evaluate(expert, y[None].repeat(2, *(1,) * y.ndim), z_e[None].repeat(2, 1, 1))[1]
    scale = dy.abs().max().clamp_min(1e-30)
    worst = max(((dy - other).abs().max() / scale).item() for other in (single, double))
    if worst > 1e-9:
        return False, (
            f"a batch differs from its members one by one by {worst:.1e}; index states from the "
            "right (y.unbind(-1), y[..., 0]) and never mix members"
        )
    return True, "a batch equals its members one by one, also with two batch axes"


def _gradients(expert: AnyExpert, y: Tensor, z_e: Tensor) -> tuple[bool, str]:
    if expert.backend == "numpy":
        return _influence(expert, y, z_e)
    y, z_e = y.requires_grad_(), z_e.requires_grad_()
    dy = _evaluate(expert, y, z_e)
    if not dy.requires_grad:
        return False, "no gradient reaches y or z_e; compute with torch, not numpy or .item()"
    grad_y, grad_z = torch.autograd.grad(dy.pow(2).sum(), (y, z_e), allow_unused=True)
    dead = list(expert.param_names)
    if grad_z is not None:
        if not grad_z.isfinite().all():
            return False, "the gradient with respect to z_e is not finite; guard roots at zero"
        dead = [
            n
            for n, g in zip(expert.param_names, grad_z.unbind(-1), strict=True)
            if not g.abs().max() > 0
        ]
    if grad_y is not None and not grad_y.isfinite().all():
        return False, "the gradient with respect to y is not finite; guard roots at zero"
    if dead:
        what = "the response" if isinstance(expert, Expert) else "dy/dt"
        return False, f"{what} does not depend on {', '.join(dead)}; use it or leave it out"
    return True, "finite, and every parameter matters"


def _influence(expert: AnyExpert, y: Tensor, z_e: Tensor) -> tuple[bool, str]:
    """Look by differences whether parameters matter, where there are no gradients."""
    dy = _evaluate(expert, y, z_e)
    dead = []
    for i, p in enumerate(expert.params):
        moved = z_e.clone()
        moved[:, i] = p.low + p.high - moved[:, i]
        if torch.equal(_evaluate(expert, y, moved), dy):
            dead.append(p.name)
    if dead:
        return False, f"nothing depends on {', '.join(dead)}; use it or leave it out"
    return True, (
        "not available, as the function is in numpy: simulate, augment and refine with it, but "
        "write it in torch to train; every parameter matters"
    )


def _dtype(expert: AnyExpert, y: Tensor, z_e: Tensor) -> tuple[bool, str]:
    for dtype in (torch.float32, torch.float64):
        got = _evaluate(expert, y.to(dtype), z_e.to(dtype)).dtype
        if got != dtype:
            return False, (
                f"{dtype} in, {got} out; "
                "build constants from y (torch.zeros_like(y), y.new_tensor)"
            )
    return True, "float32 and float64 come back as they went in"


def _determinism(expert: AnyExpert, y: Tensor, z_e: Tensor) -> tuple[bool, str]:
    first = _evaluate(expert, y, z_e)
    second = _evaluate(expert, y, z_e)
    if not torch.equal(first, second):
        return False, "two calls with the same arguments differ; an expert must not draw numbers"
    return True, "two calls agree bit for bit"


def _mutation(expert: AnyExpert, y: Tensor, z_e: Tensor) -> tuple[bool, str]:
    before = y.clone(), z_e.clone()
    _evaluate(expert, y, z_e)
    for name, old, new in zip(("y", "z_e"), before, (y, z_e), strict=True):
        if not torch.equal(old, new):
            return (
                False,
                f"{name} was changed in place; write a new tensor instead of {name}[...] =",
            )
    return True, "y and z_e are left as they were"


def _speed(expert: AnyExpert, y: Tensor, z_e: Tensor) -> tuple[bool, str]:
    if _seconds(expert, y, z_e) < 0.01:
        y, z_e = (a.repeat(32, *(1,) * (a.ndim - 1)) for a in (y, z_e))
    times = [_seconds(expert, y, z_e)]
    while len(times) < 20 and sum(times) < 1.0:
        times.append(_seconds(expert, y, z_e))
    return True, f"{1e6 * sorted(times)[len(times) // 2]:.0f} us a call with {len(y)} members"


def _seconds(expert: AnyExpert, y: Tensor, z_e: Tensor) -> float:
    start = time.perf_counter()
    _evaluate(expert, y, z_e)
    return time.perf_counter() - start


_CHECKS: dict[str, Callable[[AnyExpert, Tensor, Tensor], tuple[bool, str]]] = {
    "mutation": _mutation,
    "determinism": _determinism,
    "batching": _batching,
    "dtype": _dtype,
    "gradients": _gradients,
    "speed": _speed,
}
