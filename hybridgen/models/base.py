"""What every learner is: an encoder of an observed window and a vector field to roll out.

    y(0..t1)  --encoder-->  (z_e, z_a)  --field, solve-->  y(0..t2)

Networks see states in standard deviations of the training set and return rates in standard
deviations of the rate; `bind` sets these scales from the train split, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hybridgen import rng
from hybridgen.batch import Batch
from hybridgen.errors import DataError, TrainingError
from hybridgen.expert import ODEExpert
from hybridgen.integrate import Solution, solve
from hybridgen.models.encoders import Convolutional
from hybridgen.params import State, encoder_box

__all__ = ["HybridModel", "Inferred", "Latents", "Loss", "Prediction"]


class Latents(NamedTuple):
    """What is inferred of each system.

    Arguments:
        z_e: Expert parameters in their units, with shape `(B, P)`.
        z_a: Augmentation latents, with shape `(B, D)`.
    """

    z_e: Tensor
    z_a: Tensor


@dataclass(frozen=True)
class Inferred:
    """Latents and initial states of B systems, and how they were found.

    Arguments:
        z_e: Expert parameters in their units, with shape `(B, P)`.
        z_a: Augmentation latents, with shape `(B, D)`.
        x0: Initial states in their units, with shape `(B, C)`.
        inference: `"amortised"` or `"refined"`.
    """

    z_e: Tensor
    z_a: Tensor
    x0: Tensor
    inference: str = "amortised"


@dataclass(frozen=True)
class Prediction:
    """Predicted trajectories and what they rest on.

    Arguments:
        y: Trajectories, with shape `(B, T, C)`; NaN after the last good time of a member.
        status: Status codes of the integration, with shape `(B,)`.
        t_reached: Last good times, with shape `(B,)`.
        inferred: The latents and initial states.
    """

    y: Tensor
    status: Tensor
    t_reached: Tensor
    inferred: Inferred


class Loss(NamedTuple):
    """A loss to minimise, the latents it was computed with, and its parts for the log."""

    total: Tensor
    latents: Latents
    parts: Mapping[str, Tensor]


class HybridModel(nn.Module):
    """Base of the learners.

    Arguments:
        expert: The partial physics, or None for a learner without any.
        states: The states, where there is no expert.
        z_a_dim: How many augmentation latents there are, D.
        encoder: Settings of the encoder.
        seed: Seed of the initial weights.
    """

    learner: str = "hybrid"
    state_mean: Tensor
    state_sd: Tensor
    rate_sd: Tensor
    mean_step: Tensor
    z_a_mean: Tensor
    z_a_sd: Tensor
    window: Tensor
    box_low: Tensor
    box_high: Tensor

    def __init__(
        self,
        expert: ODEExpert | None,
        states: tuple[State, ...],
        z_a_dim: int,
        encoder: Convolutional,
        seed: int,
    ) -> None:
        super().__init__()
        self.expert, self.states, self.z_a_dim = expert, states, z_a_dim
        self.config: dict[str, Any] = {}
        params = expert.params if expert else ()
        low, high = encoder_box(params)
        self.register_buffer("box_low", low, persistent=False)
        self.register_buffer("box_high", high, persistent=False)
        c = len(states)
        self.register_buffer("state_mean", torch.zeros(c))
        self.register_buffer("state_sd", torch.ones(c))
        self.register_buffer("rate_sd", torch.ones(c))
        self.register_buffer("mean_step", torch.ones(()))
        self.register_buffer("z_a_mean", torch.zeros(z_a_dim))
        self.register_buffer("z_a_sd", torch.ones(z_a_dim))
        self.register_buffer("window", torch.zeros((), dtype=torch.int64))
        with rng.scoped(seed):
            trunk = encoder.build(c)
            head = nn.Linear(trunk.features, len(params) + z_a_dim)
        self.encoder = nn.ModuleDict({"trunk": trunk, "head": head})

    # -- scales ---------------------------------------------------------------------------

    @property
    def is_bound(self) -> bool:
        """Whether the scales of a train split have been set."""
        return int(self.window) > 0

    @torch.no_grad()
    def bind(self, train: Batch, window: int | None = None) -> None:
        """Set the scales from the train split: standard deviations of states and rates.

        Arguments:
            train: The training trajectories.
            window: How many points are observed; all for None.

        Raises:
            DataError: If a state is constant, or has no finite values.
        """
        observed = train.window(window)
        y = observed.y
        rates = y.diff(dim=1) / observed.t.diff(dim=-1)[..., :, None]
        ok = y.isfinite().flatten(1).all(1)
        if not ok.any():
            raise DataError("no training trajectory is finite in the observed window.")
        mean, sd = y[ok].mean((0, 1)), y[ok].std((0, 1))
        for state, value in zip(self.states, sd.tolist(), strict=True):
            if not value > 0:
                raise DataError(
                    f"state {state.name!r} is constant in the train split, so it has no scale; "
                    "leave it out, or give data in which it varies."
                )
        self.state_mean.copy_(mean)
        self.state_sd.copy_(sd)
        self.rate_sd.copy_(rates[ok].std((0, 1)))
        self.mean_step.copy_(observed.t.diff(dim=-1).mean())
        self.window.fill_(y.shape[1])

    @torch.no_grad()
    def note_latents(self, train: Batch) -> None:
        """Keep mean and standard deviation of the train split's `z_a`, its aggregate posterior."""
        if self.z_a_dim == 0:
            return
        z_a = self.encode(train).z_a
        self.z_a_mean.copy_(z_a.mean(0))
        self.z_a_sd.copy_(z_a.std(0))

    def standardised(self, y: Tensor) -> Tensor:
        """Return states in standard deviations from the mean, with the shape of `y`."""
        return (y - self.state_mean) / self.state_sd

    # -- encoder --------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Latents:
        """Infer the latents from the observed window.

        Arguments:
            batch: Trajectories; only their first `window` points are looked at.

        Returns:
            The latents, `z_e` inside the encoder's box.

        Raises:
            TrainingError: If the model has not been bound to a train split.
            DataError: If the window is shorter than in training, or holds NaN.
        """
        if not self.is_bound:
            raise TrainingError("the model has no scales yet; train it with fit(model, data).")
        points = int(self.window)
        if batch.y.shape[1] < points:
            raise DataError(
                f"the observation has {batch.y.shape[1]} points; the encoder was trained on "
                f"{points}. Give at least the first {points} points."
            )
        seen = batch.window(points)
        mask = torch.ones_like(seen.y) if seen.mask is None else seen.mask.to(seen.y)
        gap = seen.t.diff(dim=-1) / self.mean_step
        steps = torch.cat([torch.ones_like(gap[..., :1]), gap], dim=-1)
        steps = steps.expand(len(seen), points)
        features = self.encoder["trunk"](self.standardised(seen.y), mask, steps)
        out = self.encoder["head"](features)
        split = out.shape[-1] - self.z_a_dim
        width = self.box_high - self.box_low
        return Latents(self.box_low + width * torch.sigmoid(out[..., :split]), out[..., split:])

    @torch.no_grad()
    def infer(self, batch: Batch) -> Inferred:
        """Infer latents and take the first observed state as the initial state."""
        batch = batch.to(self.state_sd)
        z_e, z_a = self.encode(batch)
        return Inferred(z_e, z_a, batch.x)

    # -- decoder --------------------------------------------------------------------------

    def field(self, t: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return dy/dt in state units per time unit, with the shape of `y`, `(*B, C)`."""
        raise NotImplementedError  # each learner is its field

    def decoder_parameters(self) -> list[nn.Parameter]:
        """Return every parameter that is not the encoder's."""
        inside = {id(p) for p in self.encoder.parameters()}
        return [p for p in self.parameters() if id(p) not in inside]

    def rollout(
        self,
        x0: Tensor,
        t: Tensor,
        latents: Latents,
        *,
        method: str = "tsit5",
        substeps: Tensor | None = None,
    ) -> Solution:
        """Integrate the field from an initial state.

        Arguments:
            x0: Initial states in their units, with shape `(B, C)`.
            t: Times, with shape `(T,)` or `(B, T)`.
            latents: The latents, `(B, P)` and `(B, D)`.
            method: `"tsit5"`, or `"grid_rk4"` for training.
            substeps: Substeps of each interval, with shape `(T-1,)`; None to choose them.

        Returns:
            Trajectories with shape `(B, T, C)`, and the status of each member.
        """
        # tighter than the accuracy of any learnt field, looser than float32's rounding
        rtol, atol = 1e-5, 1e-6
        return solve(
            self.field, x0, t, latents, method=method, rtol=rtol, atol=atol, substeps=substeps
        )

    @torch.no_grad()
    def predict(self, x: Tensor | None, t: Tensor, *, given: Batch | Inferred) -> Prediction:
        """Forecast a system that was observed, from the observed or from a new initial state.

        Arguments:
            x: Initial states in their units, with shape `(B, C)`; None for those of `given`.
            t: Times, with shape `(T,)` or `(B, T)`, from the initial state on.
            given: The observed windows of the same systems, or what was inferred from them.

        Returns:
            The prediction. A member that cannot be integrated has NaN and a status.
        """
        inferred = given if isinstance(given, Inferred) else self.infer(given)
        x0 = inferred.x0 if x is None else torch.as_tensor(x).to(inferred.x0)
        if x0.shape != inferred.x0.shape:
            raise DataError(
                f"x has shape {tuple(x0.shape)}; expected one initial state for each of the "
                f"observed systems, {tuple(inferred.x0.shape)}."
            )
        latents = Latents(inferred.z_e, inferred.z_a)
        out = self.rollout(x0, t.to(x0), latents)
        return Prediction(out.y, out.status, out.t_reached, inferred)
