"""Simulators: a known truth, the expert that explains part of it, and how they are sampled.

The truth is an `ODEExpert` with all the physics. The expert has fewer parameters: those it shares
with the truth are `z_e`, those that only the truth has are the true `z_a`. A support gives an
interval for every parameter of the truth and for every initial state; members are drawn
uniformly from it, each by its index alone. A field draws every point of the grid for itself. A
driven system is integrated with its inputs as a function of time; data hold their samples.

Where truth and expert are no differential equations but an `Expert`, nothing is integrated and
nothing starts anywhere: the times are the points of their axis.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from hybridgen import io, rng
from hybridgen.batch import Batch
from hybridgen.driving import Inputs, respond, step_ends
from hybridgen.errors import ShiftError, UnsupportedError, nearest
from hybridgen.expert import Expert, ODEExpert
from hybridgen.integrate import Solution, Status
from hybridgen.noise import GaussianNoise, Noise
from hybridgen.pairing import check_drive, check_grid, check_pair, check_supports, check_valid
from hybridgen.params import check_range
from hybridgen.shift import Interval, Shift, Support, distance

__all__ = ["Simulator"]

_CHUNK = 2**17
"""How many numbers the state has of the members that are integrated at once: a cache full."""

_WORTH = 10_000_000
"""From how many numbers on a compiled kernel repays its compiler."""


@dataclass(frozen=True)
class Simulator:
    """A system to experiment on; it is a `Sampler` of its own training distribution.

    Arguments:
        truth: The whole physics.
        expert: The part that the scientist knows; its states and inputs are those of the truth
            and its parameters are among those of the truth.
        support: The training interval of each parameter of the truth and, for an ODE, of each
            initial state, in their units. Equal ends fix a value.
        times: The save times, with shape `(T,)`.
        grid: The coordinates of each spatial axis by name, in the order of the axes; a data
            array says its unit, a mere array has none.
        inputs: The inputs u(t), a function of times `(T,)` that returns `(T, U)`; where they jump,
            make them by `hybridgen.signals.hold`, so that steps end there.
        noise: The observation noise.
        shifts: The shifts by name.
        window: How many of the times are observed; the rest is to be forecast.
        time_unit: The unit of `times`; that of the axis, where the truth is an `Expert`.
        problem: The name of the system; by default that of the truth's function.
        variant: Which published form of the problem this is.
        rtol: Relative tolerance of the integration.
        atol: Absolute tolerance of the integration, in state units.
        split: The name of the data set that is drawn; a random stream of its own.
        shift: The shift of the population that is drawn.
        substeps: Substeps of each interval, jumps of the inputs being ends of intervals too; None
            to measure them on fixed members.
        compile: Whether to integrate by a compiled kernel, which rounds differently.
        device: The torch device to integrate on.

    Raises:
        ParameterError: If the expert's names are not the truth's, or a support is missing.
        ShapeError: If the grid or the inputs do not have the shape that truth and expert declare.
        ShiftError: If a shift leaves the range where truth or expert are valid.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> data = pendulum.simulator.sample(3, seed=0)
        >>> dict(data.y.sizes)
        {'sample': 3, 'time': 201, 'state': 2}
    """

    truth: ODEExpert | Expert
    expert: ODEExpert | Expert
    support: Mapping[str, Interval]
    times: NDArray[np.float64]
    grid: Mapping[str, NDArray[np.float64] | xr.DataArray] = field(default_factory=dict)
    inputs: Inputs | None = None
    noise: Noise = GaussianNoise(0.0)
    shifts: Mapping[str, Shift] = field(default_factory=dict)
    window: int | None = None
    time_unit: str = "s"
    problem: str = ""
    variant: str = "default"
    rtol: float = 1e-8
    atol: float = 1e-8
    split: str = "train"
    shift: Shift | None = None
    substeps: tuple[int, ...] | None = None
    compile: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.problem:
            object.__setattr__(self, "problem", self.truth.name)
        check_pair(self.truth, self.expert)
        if isinstance(self.truth, Expert):
            object.__setattr__(self, "time_unit", self.truth.axis.unit)
        check_supports(self.support, (*self.truth.param_names, *self.start_names))
        check_grid(self.grid, self.truth, self.expert)
        check_drive(self.inputs, self.truth, self.times)
        self._check_valid("the training support", self.support)
        for shift in self.shifts.values():
            self._check_valid(f"shift {shift.name!r}", shift.apply(self.support))

    def _check_valid(self, owner: str, support: Support) -> None:
        check_valid(owner, support, (*self.truth.params, *self.expert.params))

    @cached_property
    def z_a_names(self) -> tuple[str, ...]:
        """The parameters that only the truth has."""
        return tuple(n for n in self.truth.param_names if n not in self.expert.param_names)

    @property
    def start_names(self) -> tuple[str, ...]:
        """The states that start somewhere: all those of an ODE."""
        return self.truth.state_names if isinstance(self.truth, ODEExpert) else ()

    def under(self, shift: str | Shift | None = None, *, split: str = "test") -> Simulator:
        """Return the simulator of a shifted population, with random streams of its own.

        Arguments:
            shift: A shift, or the name of one; None keeps the training support.
            split: The name of the data set, such as `"valid"`.

        Raises:
            ShiftError: If there is no shift of that name, or it leaves the valid range.
        """
        if isinstance(shift, str):
            if shift not in self.shifts:
                raise ShiftError(f"no shift {shift!r}; {nearest(shift, self.shifts)}")
            shift = self.shifts[shift]
        if shift is not None:
            self._check_valid(f"shift {shift.name!r}", shift.apply(self.support))
        return replace(self, split=split, shift=shift, substeps=None)

    def _stream(self, what: str) -> str:
        shift = "" if self.shift is None else f"/{self.shift.name}"
        return f"{self.split}{shift}/{what}"

    def _values(self, indices: NDArray[np.int64], root_seed: int) -> dict[str, Tensor]:
        """Return parameters with shape `(N,)` and initial states `(N, *S)` by name."""
        support = self.support if self.shift is None else self.shift.apply(self.support)
        space = tuple(len(axis) for axis in self.grid.values())
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(self.truth.param_names, ())
        shapes |= dict.fromkeys(self.start_names, space)
        counts = [math.prod(shape) for shape in shapes.values()]
        u = torch.from_numpy(
            rng.uniform(root_seed, self._stream("values"), indices, sum(counts))
        ).split(counts, dim=1)
        values = {}
        for (name, shape), part in zip(shapes.items(), u, strict=True):
            low, high = support[name]
            values[name] = (low + (high - low) * part).reshape(-1, *shape)
        return values

    @cached_property
    def schedule(self) -> Tensor:
        """Substeps of each interval, measured on fixed members, so that no batch picks its own."""
        if self.substeps is not None:
            return torch.tensor(self.substeps, dtype=torch.int64)
        return self._measured(np.arange(64))

    def _measured(self, members: NDArray[np.int64]) -> Tensor:
        x0, z = self._start(self._values(members, root_seed=0))
        return self._solve(x0, self._times(), z, None).substeps

    def pace(self, members: NDArray[np.int64], n: int) -> dict[str, Any]:
        """Measure how the integration has to step, and whether it can be compiled.

        Arguments:
            members: The members to measure on, drawn with seed 0, with shape `(N,)`.
            n: How many members there will be; of few the compiler is not repaid.

        Returns:
            What `paced` takes; JSON can hold it.
        """
        numbers = n * len(self.times) * len(self.truth.states)
        numbers *= math.prod(len(axis) for axis in self.grid.values())
        compiled = replace(self, compile=True)
        compile = self.compile
        if isinstance(self.truth, ODEExpert) and numbers >= _WORTH:
            with contextlib.suppress(UnsupportedError):
                compiled._measured(members)
                compile = True
        return {"substeps": self._measured(members).tolist(), "compile": compile}

    def paced(self, pace: Mapping[str, Any]) -> Simulator:
        """Return the simulator that integrates as was measured before."""
        return replace(self, substeps=tuple(pace["substeps"]), compile=bool(pace["compile"]))

    def on(self, device: str) -> Simulator:
        """Return the simulator that integrates on a torch device."""
        return replace(self, device=device)

    def _solve(self, x0: Tensor, t: Tensor, z: Tensor, substeps: Tensor | None) -> Solution:
        x0, t, z = (v.to(self.device) for v in (x0, t, z))
        how = {"rtol": self.rtol, "atol": self.atol, "compile": self.compile, "substeps": substeps}
        return respond(self.truth, self.inputs, x0, t, z, **how)

    def _start(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        n = len(next(iter(values.values())))
        z = _stack(values, self.truth.param_names, n)
        check_range(self.truth.params, z)
        if not self.start_names:
            return torch.zeros(n, 0, dtype=torch.float64), z
        return torch.stack([values[k] for k in self.start_names], dim=1), z

    def _times(self) -> Tensor:
        horizon = 1.0 if self.shift is None else self.shift.horizon
        return torch.from_numpy(np.asarray(self.times, dtype=np.float64)) * horizon

    def _distance(self, values: Mapping[str, Tensor], n: int) -> Tensor:
        """Return distances with shape `(N,)`; a field is as far off as its farthest point."""
        moved = self.shift.moved if self.shift else ()
        if not moved:
            return torch.zeros(n, dtype=torch.float64)
        wide = torch.broadcast_tensors(*(values[k].reshape(n, -1) for k in moved))
        return distance(dict(zip(moved, wide, strict=True)), self.support, moved).amax(-1)

    def outline(self, indices: NDArray[np.int64], root_seed: int) -> Batch:
        """Return what is known of members before they are simulated.

        Arguments:
            indices: Member indices, with shape `(N,)`.
            root_seed: The seed of the study.

        Returns:
            What `draw` returns, with NaN for the trajectories and a status of `not_written`.
        """
        values = self._values(indices, root_seed)
        t, n = self._times(), len(indices)
        space = tuple(len(axis) for axis in self.grid.values())
        y = torch.full((n, len(t), len(self.truth.states), *space), torch.nan, dtype=t.dtype)
        return Batch(
            t=t,
            y=y,
            u=None if self.inputs is None else self.inputs(t).repeat(n, 1, 1),
            z_e=_stack(values, self.expert.param_names, n),
            z_a=_stack(values, self.z_a_names, n),
            status=torch.full((n,), int(Status.not_written), dtype=torch.int8),
            t_reached=torch.full((n,), torch.nan, dtype=t.dtype),
            distance=self._distance(values, n),
        )

    def draw(self, indices: NDArray[np.int64], root_seed: int) -> Batch:
        """Simulate the members with these indices.

        Arguments:
            indices: Member indices, with shape `(N,)`.
            root_seed: The seed of the study.

        Returns:
            Observed and clean trajectories, inputs, parameters, status and distance, in float64.
            Fields without noise have no clean copy.
        """
        values = self._values(indices, root_seed)
        x0, z = self._start(values)
        t, n = self._times(), len(x0)
        numbers = max(1, math.prod(x0.shape[1:])) * len(step_ends(t, self.inputs)) // len(t)
        size = max(1, _CHUNK // numbers)
        parts = zip(x0.split(size), z.split(size), strict=True)
        solutions = [self._solve(x, t, p, self.schedule) for x, p in parts]
        states = torch.cat([s.y for s in solutions]).cpu()
        y = self.noise.scaled(self.shift.noise if self.shift else 1.0).add(
            states,
            root_seed=root_seed,
            stream=self._stream("noise"),
            indices=indices,
            space=len(self.grid),
        )
        clean: Tensor | None = states
        if y is states:  # nothing was added
            clean = None if self.grid else states.clone()
        return Batch(
            t=t,
            y=y,
            u=None if self.inputs is None else self.inputs(t).repeat(n, 1, 1),
            clean=clean,
            z_e=_stack(values, self.expert.param_names, n),
            z_a=_stack(values, self.z_a_names, n),
            status=torch.cat([s.status for s in solutions]).cpu(),
            t_reached=torch.cat([s.t_reached for s in solutions]).cpu(),
            distance=self._distance(values, n),
        )

    def describe(self) -> dict[str, Any]:
        """Return the names, units and attributes of what `draw` draws."""
        shift = "none" if self.shift is None else self.shift.name
        return {
            "states": self.truth.states,
            "params": self.expert.params,
            "z_a": tuple(p for p in self.truth.params if p.name in self.z_a_names),
            "inputs": self.truth.inputs,
            "grid": self.grid,
            "time_unit": self.time_unit,
            "attrs": {
                "problem": self.problem,
                "variant": self.variant,
                "split": self.split,
                "shift": shift,
                "window": self.window or len(self.times),
            },
        }

    def sample(
        self, n: int, *, seed: int, split: str = "train", shift: str | Shift | None = None
    ) -> xr.Dataset:
        """Draw a data set in memory; `sample(n)[:k]` is `sample(k)`.

        Arguments:
            n: How many members.
            seed: The seed of the study; train, valid and test are independent streams of it.
            split: The name of the data set: `"train"`, `"valid"` or `"test"`.
            shift: A shift, or the name of one; None for the training support.

        Returns:
            A Dataset with `y` and `clean` (sample, time, state), or for a field one variable
            (sample, time, y, x) for each state; inputs, parameters as coordinates, and `status`,
            `t_reached` and `distance` beside every sample.
        """
        sampler = self.under(shift, split=split)
        batch = sampler.draw(np.arange(n), seed)
        return io.to_dataset(batch, **sampler.describe(), seed=seed)


def _stack(values: Mapping[str, Tensor], names: tuple[str, ...], n: int) -> Tensor:
    if not names:
        return torch.zeros(n, 0, dtype=torch.float64)
    return torch.stack([values[k] for k in names], dim=-1)
