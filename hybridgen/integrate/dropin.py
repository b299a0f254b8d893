"""A drop-in for `torchdiffeq.odeint`: same arguments, same layout, same meaning of names.

Names that torchdiffeq knows (`dopri5`, `rk4`, ...) mean its methods and go to it with their own
options; `tsit5`, the default, and `grid_rk4` are ours. As there, `y0` of any shape is one system,
since `func` may couple all of it, and a failure raises.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchdiffeq import odeint as torchdiffeq_odeint
from torchdiffeq._impl.odeint import SOLVERS

from hybridgen.errors import ConfigError, HybridgenError, ShapeError, UnsupportedError, nearest
from hybridgen.integrate.native import integrate
from hybridgen.integrate.plan import Plan
from hybridgen.integrate.solution import Solution, Status
from hybridgen.integrate.stepping import Tolerance, rms
from hybridgen.integrate.tableaus import TABLEAUS

__all__ = ["IntegrationError", "odeint"]

OPTIONS: dict[str, dict[str, Any]] = {
    "tsit5": {"max_substeps": 4096, "substeps": None},
    "grid_rk4": {"substeps": 1},
}


class IntegrationError(HybridgenError, RuntimeError):
    """The system could not be integrated to the last save time."""


def odeint(
    func: Callable[[Tensor, Any], Any],
    y0: Tensor | tuple[Tensor, ...],
    t: Tensor,
    *,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[[Tensor, Any], Tensor] | None = None,
) -> Any:
    """Integrate one system of ordinary differential equations, as `torchdiffeq.odeint` does.

    Our steps end on the save times, and each interval is cut into equal substeps; where the
    solution changes its pace within a long interval, save more times or write
    `method="dopri5"`. With `event_fn` and no method torchdiffeq's default is used.

    Arguments:
        func: The right-hand side, `func(t, y) -> dy/dt`, with `t` of shape `()`.
        y0: Initial state, of any shape `S`, or a tuple of such tensors.
        t: Save times, the first that of `y0`, strictly monotone, with shape `(T,)`.
        rtol: Relative tolerance; also a tensor of shape `S`, or one for each tensor of a tuple.
        atol: Absolute tolerance, as `rtol`.
        method: `"tsit5"` (default), `"grid_rk4"`, or a method of torchdiffeq.
        options: For `"tsit5"`, `max_substeps` an interval and `substeps`, which fixes them; for
            `"grid_rk4"`, `substeps`; for a method of torchdiffeq, its own.
        event_fn: Ends the integration where it is zero; see torchdiffeq.

    Returns:
        The trajectory, with shape `(T, *S)`, or a tuple of such; with `event_fn`, the time of the
        event and the trajectory.

    Raises:
        ConfigError: If the method or an option is unknown.
        UnsupportedError: If `event_fn` is given together with a method of ours.
        IntegrationError: If a later save time is not reached.

    References:
        torchdiffeq (Chen, 2018), https://github.com/rtqichen/torchdiffeq

    Example:
        >>> odeint(lambda t, y: -y, torch.ones(2), torch.tensor([0.0, 1.0]))[-1]
        tensor([0.3679, 0.3679])
    """
    name = method or ("tsit5" if event_fn is None else None)
    _check_name(name)
    if name not in TABLEAUS:
        keywords = {"rtol": rtol, "atol": atol, "method": name, "event_fn": event_fn}
        return torchdiffeq_odeint(func, y0, t, options=options, **keywords)
    if event_fn is not None:
        raise UnsupportedError(
            f"method {name!r} does not look for events; leave the method out, or write "
            "method='dopri5', and torchdiffeq will."
        )
    chosen = _options(name, options or {})
    if isinstance(y0, Tensor):
        tolerance = Tolerance(rtol, atol)
        return _run(lambda t, y, _: func(t, y), y0, t, name, tolerance, chosen)
    return _run_tuple(func, y0, t, name, (rtol, atol), chosen)


def _check_name(name: str | None) -> None:
    if name is not None and name not in TABLEAUS and name not in SOLVERS:
        known = [*TABLEAUS, *SOLVERS]
        raise ConfigError(
            f"unknown method {name!r}, {nearest(name, known)} Ours: {', '.join(TABLEAUS)}; "
            f"torchdiffeq's: {', '.join(SOLVERS)}."
        )


def _options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    known = OPTIONS[method]
    for key in options:
        if key not in known:
            raise ConfigError(f"method {method!r} has no option {key!r}; {nearest(key, known)}")
    return {"max_substeps": 1, **known, **options}


def _run(
    field: Callable[[Tensor, Tensor, Any], Tensor],
    y0: Tensor,
    t: Tensor,
    method: str,
    tolerance: Tolerance,
    options: dict[str, Any],
) -> Tensor:
    """Return the trajectory of one system, with shape `(T, *S)`, or raise."""
    if isinstance(t, Tensor) and t.device != y0.device:
        warnings.warn(f"t is on {t.device}, y0 on {y0.device}; t is moved.", stacklevel=3)
        t = t.to(y0.device)
    plan = Plan(
        tolerance=tolerance,
        method=method,
        max_substeps=options["max_substeps"],
        substeps=options["substeps"],
        batch_dims=0,
    )
    solution = integrate(field, y0, t, None, plan)
    if not bool(solution.ok):
        raise IntegrationError(_advice(solution, t, method))
    return solution.y


def _advice(solution: Solution, t: Tensor, method: str) -> str:
    status = Status(int(solution.status))
    advice = {
        Status.max_steps: "raise options={'max_substeps': ...}, loosen rtol and atol, save more "
        "times between, or write method='dopri5'",
        Status.diverged: "look at the field there, or end the save times before it",
        Status.nonfinite: "look for a division by zero or the root or logarithm of a negative "
        "number in the field, and for NaN in y0",
    }[status]
    if method == "grid_rk4":
        advice += "; where the steps are too long, write options={'substeps': ...}"
    return (
        f"{method} stopped after t = {solution.t_reached.item():g}, on the way from "
        f"{t[0].item():g} to {t[-1].item():g}: {status.description}. To go on, {advice}."
    )


def _run_tuple(
    func: Callable[[Tensor, Any], Any],
    y0: tuple[Tensor, ...],
    t: Tensor,
    method: str,
    tolerances: tuple[Any, Any],
    options: dict[str, Any],
) -> tuple[Tensor, ...]:
    """Integrate a tuple of tensors as one vector; the worst of them sets the error."""
    if not isinstance(y0, tuple) or not all(isinstance(part, Tensor) for part in y0):
        raise ShapeError(f"y0 is {type(y0).__name__}; write a tensor or a tuple of tensors.")
    shapes = [part.shape for part in y0]
    sizes = [math.prod(shape) for shape in shapes]

    def split(flat: Tensor) -> tuple[Tensor, ...]:
        parts = flat.split(sizes, dim=-1)
        lead = flat.shape[:-1]
        return tuple(p.reshape(lead + s) for p, s in zip(parts, shapes, strict=True))

    def field(time: Tensor, flat: Tensor, _: Any) -> Tensor:
        return torch.cat([part.reshape(-1) for part in func(time, split(flat))])

    def worst(ratio: Tensor) -> Tensor:
        return torch.stack([rms(part) for part in ratio.split(sizes, dim=-1)]).amax(dim=0)

    def spread(value: Any) -> Any:
        if isinstance(value, int | float) or (isinstance(value, Tensor) and not value.ndim):
            return value
        parts = [torch.as_tensor(v).expand(size) for v, size in zip(value, sizes, strict=True)]
        return torch.cat(parts)

    flat = torch.cat([part.reshape(-1) for part in y0])
    rtol, atol = map(spread, tolerances)
    return split(_run(field, flat, t, method, Tolerance(rtol, atol, worst), options))
