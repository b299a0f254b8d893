"""Simulators: a known truth, the expert that explains part of it, and how they are sampled.

The truth is an `ODEExpert` with all the physics. The expert has fewer parameters: those it shares
with the truth are `z_e`, those that only the truth has are the true `z_a`. A support gives an
interval for every parameter of the truth and for every initial state; members are drawn
uniformly from it, each by its index alone.
"""

from __future__ import annotations

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
from hybridgen.errors import ParameterError, ShiftError, nearest
from hybridgen.expert import ODEExpert
from hybridgen.integrate import Solution, solve
from hybridgen.noise import GaussianNoise
from hybridgen.params import check_range
from hybridgen.shift import Interval, Shift, check_support, distance

__all__ = ["Simulator"]


@dataclass(frozen=True)
class Simulator:
    """A system to experiment on; it is a `Sampler` of its own training distribution.

    Arguments:
        truth: The whole physics.
        expert: The part that the scientist knows; its states are those of the truth and its
            parameters are among those of the truth.
        support: The training interval of each parameter of the truth and of each initial state,
            in their units. Equal ends fix a value.
        times: The save times, with shape `(T,)`.
        noise: The observation noise.
        shifts: The shifts by name.
        window: How many of the times are observed; the rest is to be forecast.
        time_unit: The unit of `times`.
        variant: Which published form of the problem this is.
        rtol: Relative tolerance of the integration.
        atol: Absolute tolerance of the integration, in state units.

    Raises:
        ParameterError: If the expert's names are not the truth's, or a support is missing.
        ShiftError: If a shift leaves the range where truth or expert are valid.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> data = pendulum.simulator.sample(3, seed=0)
        >>> dict(data.y.sizes)
        {'sample': 3, 'time': 201, 'state': 2}
    """

    truth: ODEExpert
    expert: ODEExpert
    support: Mapping[str, Interval]
    times: NDArray[np.float64]
    noise: GaussianNoise = GaussianNoise(0.0)
    shifts: Mapping[str, Shift] = field(default_factory=dict)
    window: int | None = None
    time_unit: str = "s"
    variant: str = "default"
    rtol: float = 1e-8
    atol: float = 1e-8
    split: str = "train"
    shift: Shift | None = None

    def __post_init__(self) -> None:
        if self.expert.state_names != self.truth.state_names:
            raise ParameterError(
                f"the expert has the states {self.expert.state_names}, the truth "
                f"{self.truth.state_names}; declare the same states in the same order."
            )
        for name in self.expert.param_names:
            if name not in self.truth.param_names:
                raise ParameterError(
                    f"the expert's parameter {name!r} is none of the truth's; "
                    f"{nearest(name, self.truth.param_names)}"
                )
        known = (*self.truth.param_names, *self.truth.state_names)
        for name in self.support:
            if name not in known:
                raise ParameterError(f"support has {name!r}; {nearest(name, known)}")
        for name in known:
            if name not in self.support:
                raise ParameterError(f"support lacks {name!r}; give its interval (low, high).")
        check_support(self.support, "the training support")
        self._check_valid("the training support", self.support)
        for shift in self.shifts.values():
            self._check_valid(f"shift {shift.name!r}", shift.apply(self.support))

    def _check_valid(self, owner: str, support: Mapping[str, Interval]) -> None:
        for p in (*self.truth.params, *self.expert.params):
            low, high = support[p.name]
            if low < p.low or high > p.high:
                raise ShiftError(
                    f"{owner} has {p.name} in [{low:g}, {high:g}] {p.unit}, but its valid range "
                    f"is [{p.low:g}, {p.high:g}] {p.unit}; stay inside, or declare a wider range."
                )

    @cached_property
    def z_a_names(self) -> tuple[str, ...]:
        """The parameters that only the truth has."""
        return tuple(n for n in self.truth.param_names if n not in self.expert.param_names)

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
        return replace(self, split=split, shift=shift)

    def _stream(self, what: str) -> str:
        shift = "" if self.shift is None else f"/{self.shift.name}"
        return f"{self.split}{shift}/{what}"

    def _values(self, indices: NDArray[np.int64], root_seed: int) -> dict[str, Tensor]:
        support = self.support if self.shift is None else self.shift.apply(self.support)
        names = (*self.truth.param_names, *self.truth.state_names)
        u = torch.from_numpy(rng.uniform(root_seed, self._stream("values"), indices, len(names)))
        low = torch.tensor([support[n][0] for n in names], dtype=u.dtype)
        high = torch.tensor([support[n][1] for n in names], dtype=u.dtype)
        return dict(zip(names, (low + (high - low) * u).unbind(-1), strict=True))

    @cached_property
    def schedule(self) -> Tensor:
        """Substeps of each interval, measured on fixed members, so that no batch picks its own."""
        values = self._values(np.arange(64), root_seed=0)
        x0, z = self._start(values)
        return self._solve(x0, self._times(), z, None).substeps

    def _solve(self, x0: Tensor, t: Tensor, z: Tensor, substeps: Tensor | None) -> Solution:
        return solve(self.truth, x0, t, z, rtol=self.rtol, atol=self.atol, substeps=substeps)

    def _start(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        x0 = torch.stack([values[n] for n in self.truth.state_names], dim=-1)
        z = torch.stack([values[n] for n in self.truth.param_names], dim=-1)
        check_range(self.truth.params, z)
        return x0, z

    def _times(self) -> Tensor:
        horizon = 1.0 if self.shift is None else self.shift.horizon
        return torch.from_numpy(np.asarray(self.times, dtype=np.float64)) * horizon

    def draw(self, indices: NDArray[np.int64], root_seed: int) -> Batch:
        """Simulate the members with these indices.

        Arguments:
            indices: Member indices, with shape `(N,)`.
            root_seed: The seed of the study.

        Returns:
            Observed and clean trajectories, parameters, status and distance, in float64.
        """
        values = self._values(indices, root_seed)
        x0, z = self._start(values)
        factor, moved = (self.shift.noise, self.shift.moved) if self.shift else (1.0, ())
        t = self._times()
        solution = self._solve(x0, t, z, self.schedule)
        y = self.noise.scaled(factor).add(
            solution.y, root_seed=root_seed, stream=self._stream("noise"), indices=indices
        )
        return Batch(
            t=t,
            y=y,
            clean=solution.y,
            z_e=_stack(values, self.expert.param_names, len(x0)),
            z_a=_stack(values, self.z_a_names, len(x0)),
            status=solution.status,
            t_reached=solution.t_reached,
            distance=distance(values, self.support, moved).expand(len(x0)).clone(),
        )

    def describe(self) -> dict[str, Any]:
        """Return the names, units and attributes of what `draw` draws."""
        shift = "none" if self.shift is None else self.shift.name
        return {
            "states": self.truth.states,
            "params": self.expert.params,
            "z_a": tuple(p for p in self.truth.params if p.name in self.z_a_names),
            "time_unit": self.time_unit,
            "attrs": {
                "problem": self.truth.name,
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
            A Dataset with `y` and `clean` (sample, time, state), parameters as coordinates and
            `status`, `t_reached` and `distance` beside every sample.
        """
        sampler = self.under(shift, split=split)
        batch = sampler.draw(np.arange(n), seed)
        return io.to_dataset(batch, **sampler.describe(), seed=seed)


def _stack(values: Mapping[str, Tensor], names: tuple[str, ...], n: int) -> Tensor:
    return torch.stack([values[k] for k in names], dim=-1) if names else torch.zeros(n, 0)
