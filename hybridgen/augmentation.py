r"""Expert augmentation: trajectories simulated by the hybrid itself over a wider range.

The expert is valid far beyond the training data, so the hybrid can simulate what was never
seen. A member of the augmented population is

.. math:: z_e \sim U(\text{ranges}), \quad z_a = \bar z_a + s\,(\hat z_{a,k} - \bar z_a), \quad
          x_0 \sim \mathcal{D}, \quad y = \mathrm{solve}(f_e + f_a;\, x_0, z_e, z_a) + \epsilon,

with :math:`\hat z_{a,k}` the encoding of a random training trajectory and :math:`s > 1` so that
the encoder is also trained a little outside its own support. The labels are exact, and only the
encoder learns from them: `fit(model, expert_augment(model, data), valid)`.

References:
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from hybridgen import rng
from hybridgen.batch import Batch
from hybridgen.errors import ParameterError, TrainingError, UnsupportedError, nearest
from hybridgen.integrate import Status
from hybridgen.io import to_batch, to_dataset
from hybridgen.models import HybridModel, Latents
from hybridgen.noise import Noise
from hybridgen.shift import Interval, check_support

__all__ = ["Augmenter", "expert_augment"]


def expert_augment(
    model: HybridModel,
    data: xr.Dataset | Batch,
    ranges: Mapping[str, Interval] | None = None,
    *,
    spread: float = 1.3,
    noise: Noise | None = None,
) -> Augmenter:
    """Return a sampler of trajectories that the hybrid simulates over wider ranges.

    Arguments:
        model: A trained hybrid; a copy is kept, so that later training does not change the
            population.
        data: Training trajectories, from which initial states and latents are taken.
        ranges: The interval of each expert parameter, in its unit; those not named have their
            valid range.
        spread: How much wider than its encodings `z_a` is drawn, s.
        noise: Observation noise to add; None to estimate it from the data.

    Returns:
        The augmenter, a `Sampler`.

    Raises:
        ParameterError: If a range is misspelt, empty or outside the valid range.
        UnsupportedError: If the model has no expert.
        TrainingError: If the model has not been trained.

    Example:
        >>> from hybridgen import APHYNITY
        >>> from hybridgen.simulators import pendulum
        >>> train = pendulum.simulator.sample(20, seed=0)
        >>> model = APHYNITY(pendulum.expert)
        >>> model.bind(to_batch(train).to(torch.float32), window=50)
        >>> augmenter = expert_augment(model, train, {"omega0": (0.5, 1.0)})
        >>> augmenter.draw(np.arange(4), root_seed=0).y.shape
        torch.Size([4, 50, 2])
    """
    if model.expert is None:
        raise UnsupportedError(
            f"expert augmentation needs a model with an expert, such as APHYNITY; "
            f"got {type(model).__name__}."
        )
    if not model.is_bound:
        raise TrainingError("the model is not trained yet; call fit(model, train, valid) first.")
    batch = to_batch(data, model.expert, labels=False).to(model.state_sd)
    batch = batch.window(int(model.window))
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad():
        latents = frozen.encode_all(batch)
        x0 = frozen.initial(batch, latents)
    if noise is None:
        level = tuple(frozen.noise_level(batch).flatten().tolist())
        noise = replace(frozen.noise, sd=level)
    latents = latents._replace(x0=x0)
    axes = _axes(data, model.space)
    return Augmenter(frozen, batch, latents, _ranges(model, ranges), spread, noise, *axes)


def _ranges(
    model: HybridModel, given: Mapping[str, Interval] | None
) -> dict[str, tuple[float, float]]:
    params = model.params
    given = dict(given or {})
    for name in given:
        if name not in [p.name for p in params]:
            known = [p.name for p in params]
            raise ParameterError(f"ranges has {name!r}; {nearest(name, known)}")
    check_support(given, "the augmentation range")
    ranges = {p.name: given.get(p.name, (p.low, p.high)) for p in params}
    for p in params:
        low, high = ranges[p.name]
        if low < p.low or high > p.high:
            raise ParameterError(
                f"the augmentation range of {p.name!r} is [{low:g}, {high:g}] {p.unit}, but the "
                f"expert is valid in [{p.low:g}, {p.high:g}] {p.unit}; stay inside, or declare a "
                "wider range if the expert holds there."
            )
    return ranges


def _axes(
    data: xr.Dataset | Batch, space: int
) -> tuple[str, dict[str, NDArray[np.float64] | xr.DataArray]]:
    """Return the unit of time, and the spatial coordinates: pixels where the data have none."""
    if isinstance(data, Batch):
        names = ("z", "y", "x")[3 - space :] if space else ()
        sizes = data.y.shape[3:]
        return "1", {k: np.arange(n, dtype=float) for k, n in zip(names, sizes, strict=True)}
    name = "time" if "time" in data.coords else "t"
    fields = [v for v in data.data_vars.values() if v.attrs.get("role") == "state"]
    names = tuple(str(d) for d in fields[0].dims[2:]) if fields else ()
    return str(data[name].attrs.get("units", "1")), {k: data[k] for k in names}


@dataclass(frozen=True, eq=False)
class Augmenter:
    """A sampler of the hybrid's own trajectories; made by `expert_augment`.

    Arguments:
        model: The frozen hybrid.
        data: The observed windows of the training trajectories.
        latents: What the hybrid infers of them, initial states included.
        ranges: The interval of each expert parameter.
        spread: How much wider than its encodings `z_a` is drawn.
        noise: Observation noise.
        time_unit: The unit of the times.
        grid: Coordinates of the spatial axes by name.
        substeps: Substeps of each interval; None to measure them on fixed members.
    """

    model: HybridModel
    data: Batch
    latents: Latents
    ranges: Mapping[str, Interval]
    spread: float
    noise: Noise
    time_unit: str = "1"
    grid: Mapping[str, NDArray[np.float64] | xr.DataArray] = field(default_factory=dict)
    substeps: tuple[int, ...] | None = None

    @torch.no_grad()
    def outline(self, indices: NDArray[np.int64], root_seed: int) -> Batch:
        """Return what is known of augmented members before they are simulated.

        Arguments:
            indices: Member indices, with shape `(N,)`.
            root_seed: The seed of the study.

        Returns:
            What `draw` returns, with NaN for the trajectories and a status of `not_written`.
        """
        like, latents = self._start(indices, root_seed)
        n = len(like)
        return Batch(
            t=like.t,
            y=torch.full_like(like.y, torch.nan),
            mask=None if like.mask is None else torch.zeros_like(like.mask),
            u=like.u,
            z_e=latents.z_e,
            z_a=latents.z_a,
            status=torch.full((n,), int(Status.not_written), dtype=torch.int8),
            t_reached=like.t.new_full((n,), torch.nan),
            distance=self._distance(latents.z_e),
        )

    @torch.no_grad()
    def draw(self, indices: NDArray[np.int64], root_seed: int) -> Batch:
        """Simulate the augmented members with these indices.

        A member is observed like the training trajectory whose start it takes: at its times,
        with its inputs and its gaps.

        Arguments:
            indices: Member indices, with shape `(N,)`.
            root_seed: The seed of the study.

        Returns:
            Noisy and clean trajectories with exact `z_e` and `z_a`, in the model's dtype, and
            their distances from the parameters that were inferred of the training data.
        """
        like, latents = self._start(indices, root_seed)
        x0 = self.model.initial(like, latents)
        solution = self.model.rollout(
            x0, like.t, self.model.driven(latents, like), substeps=self.schedule
        )
        space = self.model.space
        y = self.noise.add(
            solution.y, root_seed=root_seed, stream="noise", indices=indices, space=space
        )
        return Batch(
            t=like.t,
            y=y if like.mask is None else torch.where(like.mask, y, torch.nan),
            mask=like.mask,
            u=like.u,
            clean=None if space else solution.y,
            z_e=latents.z_e,
            z_a=latents.z_a,
            status=solution.status,
            t_reached=solution.t_reached,
            distance=self._distance(latents.z_e),
        )

    @cached_property
    def schedule(self) -> Tensor:
        """Substeps of each interval, measured on fixed members, so that no batch picks its own."""
        if self.substeps is not None:
            return torch.tensor(self.substeps, dtype=torch.int64)
        return self._measured(np.arange(64))

    @torch.no_grad()
    def _measured(self, members: NDArray[np.int64]) -> Tensor:
        like, latents = self._start(members, root_seed=0)
        x0 = self.model.initial(like, latents)
        return self.model.rollout(x0, like.t, self.model.driven(latents, like)).substeps

    def pace(self, members: NDArray[np.int64], n: int) -> dict[str, Any]:
        """Measure how the integration has to step.

        Arguments:
            members: The members to measure on, drawn with seed 0, with shape `(N,)`.
            n: How many members there will be.

        Returns:
            What `paced` takes; JSON can hold it.
        """
        return {"substeps": self._measured(members).tolist()}

    def paced(self, pace: Mapping[str, Any]) -> Augmenter:
        """Return the augmenter that steps as was measured before."""
        return replace(self, substeps=tuple(pace["substeps"]))

    def on(self, device: str) -> Augmenter:
        """Return the augmenter that simulates on a torch device."""
        z_e, z_a, x0, _ = self.latents
        moved = Latents(z_e.to(device), z_a.to(device), None if x0 is None else x0.to(device))
        model = copy.deepcopy(self.model).to(device)
        return replace(self, model=model, data=self.data.to(device), latents=moved)

    def _start(self, indices: NDArray[np.int64], root_seed: int) -> tuple[Batch, Latents]:
        """Draw latents, and the training trajectories that give start, times and inputs."""
        z_a = self.latents.z_a
        u = torch.from_numpy(rng.uniform(root_seed, "augment", indices, 2 + len(self.ranges)))
        pick_x, pick_z = (u[:, :2] * len(self.data)).long().to(z_a.device).unbind(-1)
        low, high = (z_a.new_tensor([r[i] for r in self.ranges.values()]) for i in (0, 1))
        z_e = low + (high - low) * u[:, 2:].to(z_a)
        centre = z_a.mean(0)
        drawn = centre + self.spread * (z_a[pick_z] - centre)
        x0 = None if self.latents.x0 is None else self.latents.x0[pick_x]
        return self.data[pick_x], Latents(z_e, drawn, x0)

    def _distance(self, z_e: Tensor) -> Tensor:
        """Return distances from the interval of the training encodings, in its widths."""
        low, high = self.latents.z_e.amin(0), self.latents.z_e.amax(0)
        # of a single system all encodings are one; its unit is then the valid range
        valid = z_e.new_tensor([p.high - p.low for p in self.model.params])
        width = torch.where(high - low > 1e-3 * valid, high - low, valid)
        return (torch.maximum(low - z_e, z_e - high).clamp_min(0.0) / width).amax(-1)

    def describe(self) -> dict[str, Any]:
        """Return the names, units and attributes of what `draw` draws."""
        expert = self.model.expert
        attrs = {"problem": expert.name if expert else "", "split": "augmented"}
        attrs |= {f"range_{k}": f"[{a}, {b}]" for k, (a, b) in self.ranges.items()}
        return {
            "states": self.model.states,
            "params": self.model.params,
            "z_a": tuple(f"z_a_{i}" for i in range(self.latents.z_a.shape[-1])),
            "inputs": expert.inputs if expert else (),
            "time_unit": self.time_unit,
            "grid": self.grid,
            "attrs": {**attrs, "window": int(self.model.window)},
        }

    def sample(self, n: int, *, seed: int) -> xr.Dataset:
        """Draw an augmented data set in memory; `sample(n)[:k]` is `sample(k)` up to rounding."""
        return to_dataset(self.draw(np.arange(n), seed), **self.describe(), seed=seed)
