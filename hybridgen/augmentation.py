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
from dataclasses import dataclass
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
from hybridgen.io import to_batch, to_dataset
from hybridgen.models import APHYNITY, HybridModel, Latents
from hybridgen.noise import GaussianNoise, estimate_sd
from hybridgen.shift import Interval, check_support

__all__ = ["Augmenter", "expert_augment"]


def expert_augment(
    model: HybridModel,
    data: xr.Dataset | Batch,
    ranges: Mapping[str, Interval] | None = None,
    *,
    spread: float = 1.3,
    noise: GaussianNoise | None = None,
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
    if not isinstance(model, APHYNITY):
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
        z_a = frozen.encode(batch).z_a
    if noise is None:
        noise = GaussianNoise(tuple(estimate_sd(batch.y).tolist()))
    return Augmenter(frozen, batch, z_a, _ranges(model, ranges), spread, noise)


def _ranges(
    model: APHYNITY, given: Mapping[str, Interval] | None
) -> dict[str, tuple[float, float]]:
    params = model.expert.params if model.expert else ()
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


@dataclass(frozen=True, eq=False)
class Augmenter:
    """A sampler of the hybrid's own trajectories; made by `expert_augment`.

    Arguments:
        model: The frozen hybrid.
        data: The observed windows of the training trajectories.
        z_a: Their encodings, with shape `(B, D)`.
        ranges: The interval of each expert parameter.
        spread: How much wider than its encodings `z_a` is drawn.
        noise: Observation noise.
    """

    model: APHYNITY
    data: Batch
    z_a: Tensor
    ranges: Mapping[str, Interval]
    spread: float
    noise: GaussianNoise

    @torch.no_grad()
    def draw(self, indices: NDArray[np.int64], root_seed: int) -> Batch:
        """Simulate the augmented members with these indices.

        Arguments:
            indices: Member indices, with shape `(N,)`.
            root_seed: The seed of the study.

        Returns:
            Noisy and clean trajectories with exact `z_e` and `z_a`, in the model's dtype.
        """
        x0, t, latents = self._start(indices, root_seed)
        solution = self.model.rollout(x0, t, latents, substeps=self.schedule)
        y = self.noise.add(solution.y, root_seed=root_seed, stream="noise", indices=indices)
        return Batch(
            t=t,
            y=y,
            clean=solution.y,
            z_e=latents.z_e,
            z_a=latents.z_a,
            status=solution.status,
            t_reached=solution.t_reached,
        )

    @cached_property
    def schedule(self) -> Tensor:
        """Substeps of each interval, measured on fixed members, so that no batch picks its own."""
        with torch.no_grad():
            return self.model.rollout(*self._start(np.arange(64), root_seed=0)).substeps

    def _start(self, indices: NDArray[np.int64], root_seed: int) -> tuple[Tensor, Tensor, Latents]:
        """Draw initial states `(N, C)`, times and latents."""
        u = torch.from_numpy(rng.uniform(root_seed, "augment", indices, 2 + len(self.ranges)))
        pick_x, pick_z = (u[:, :2] * len(self.data)).long().to(self.z_a.device).unbind(-1)
        low, high = (self.z_a.new_tensor([r[i] for r in self.ranges.values()]) for i in (0, 1))
        z_e = low + (high - low) * u[:, 2:].to(self.z_a)
        centre = self.z_a.mean(0)
        z_a = centre + self.spread * (self.z_a[pick_z] - centre)
        t = self.data.t if self.data.t.ndim == 1 else self.data.t[pick_x]
        return self.data.x[pick_x], t, Latents(z_e, z_a)

    def describe(self) -> dict[str, Any]:
        """Return the names, units and attributes of what `draw` draws."""
        expert = self.model.expert
        attrs = {"problem": expert.name if expert else "", "split": "augmented"}
        attrs |= {f"range_{k}": f"[{a}, {b}]" for k, (a, b) in self.ranges.items()}
        return {
            "states": self.model.states,
            "params": expert.params if expert else (),
            "z_a": tuple(f"z_a_{i}" for i in range(self.z_a.shape[-1])),
            "attrs": {**attrs, "window": int(self.model.window)},
        }

    def sample(self, n: int, *, seed: int) -> xr.Dataset:
        """Draw an augmented data set in memory; `sample(n)[:k]` is `sample(k)` up to rounding."""
        return to_dataset(self.draw(np.arange(n), seed), **self.describe(), seed=seed)
