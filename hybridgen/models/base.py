"""What every learner is: an encoder of an observed window and a vector field to roll out.

    y(0..t1)  --encoder-->  (z_e, z_a, x0)  --field, solve-->  y(0..t2)

Networks see states in standard deviations of the training set and return rates in standard
deviations of the rate; `bind` sets these scales from the train split, once. What is not observed
is inferred: states without data by a head of the encoder inside their declared range, and with
`infer_x0` the other initial values, as corrections of the first observation.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hybridgen import rng
from hybridgen.batch import Batch
from hybridgen.errors import DataError, TrainingError
from hybridgen.expert import AnyExpert
from hybridgen.integrate import Solution, solve
from hybridgen.models.encoders import EncoderConfig
from hybridgen.models.initial import InitialStates
from hybridgen.models.latents import Inferred, Latents, Prediction
from hybridgen.models.scales import Scales, measure
from hybridgen.models.weak import weak_fits
from hybridgen.noise import GaussianNoise, Noise, estimate_sd
from hybridgen.params import State, encoder_box
from hybridgen.signals import spline

__all__ = ["HybridModel"]

# how many numbers of a batch are encoded at once where no gradient is needed
_PART = 1 << 20


class HybridModel(nn.Module):
    """Base of the learners.

    Arguments:
        expert: The partial physics, or None for a learner without any.
        states: The states, where there is no expert.
        z_a_dim: How many augmentation latents there are, D.
        encoder: Settings of the encoder.
        seed: Seed of the initial weights.
        noise: The likelihood of the observations.
        infer_x0: Whether initial values that are observed are inferred as well.
        inputs: The inputs, where there is no expert.
        space: How many spatial axes a state has, where there is no expert.
    """

    learner: str = "hybrid"
    state_mean: Tensor
    state_sd: Tensor
    rate_sd: Tensor
    link_mean: Tensor
    link_sd: Tensor
    input_mean: Tensor
    input_sd: Tensor
    noise_sd: Tensor
    mean_step: Tensor
    substeps: Tensor
    z_a_mean: Tensor
    z_a_sd: Tensor
    window: Tensor
    box_low: Tensor
    box_high: Tensor

    def __init__(
        self,
        expert: AnyExpert | None,
        states: tuple[State, ...],
        z_a_dim: int,
        encoder: EncoderConfig,
        seed: int,
        *,
        noise: Noise = GaussianNoise(),
        infer_x0: bool = False,
        inputs: tuple[State, ...] = (),
        space: int = 0,
    ) -> None:
        super().__init__()
        self.expert, self.states, self.z_a_dim = expert, states, z_a_dim
        self.noise, self.infer_x0 = noise, infer_x0
        self.config: dict[str, Any] = {}
        self.space = expert.space if expert else space
        # every step of a field, kept for the backward pass, would take gigabytes
        self.checkpoint: Literal["interval"] | None = "interval" if self.space else None
        self.params = expert.params if expert else ()
        self.inputs = expert.inputs if expert else inputs
        driven = len(self.inputs)
        low, high = encoder_box(self.params)
        self.register_buffer("box_low", low, persistent=False)
        self.register_buffer("box_high", high, persistent=False)
        c = (len(states), *(1,) * self.space)
        for name in ("state", "link"):
            self.register_buffer(f"{name}_mean", torch.zeros(c))
            self.register_buffer(f"{name}_sd", torch.ones(c))
        self.register_buffer("rate_sd", torch.ones(c))
        self.register_buffer("noise_sd", torch.ones(c))
        self.register_buffer("input_mean", torch.zeros(driven))
        self.register_buffer("input_sd", torch.ones(driven))
        self.register_buffer("mean_step", torch.ones(()))
        self.register_buffer("substeps", torch.ones((), dtype=torch.int64))
        self.register_buffer("z_a_mean", torch.zeros(z_a_dim))
        self.register_buffer("z_a_sd", torch.ones(z_a_dim))
        self.register_buffer("window", torch.zeros((), dtype=torch.int64))
        # states that data hold, and parameters that the encoder infers
        self.data_states = [i for i, s in enumerate(states) if s.observed]
        self.free = [i for i, p in enumerate(self.params) if not p.known]
        self.start = InitialStates(states, noise, infer_x0)
        with rng.scoped(seed):
            self.encoder = encoder.build(
                channels=len(self.data_states) + driven,
                known=len(self.params) - len(self.free),
                latents=len(self.free) + z_a_dim,
                initial=len(self.start.inferred),
                space=self.space,
            )

    # -- scales ---------------------------------------------------------------------------

    @property
    def is_bound(self) -> bool:
        """Whether the scales of a train split have been set."""
        return int(self.window) > 0

    @property
    def is_fully_observed(self) -> bool:
        """Whether data hold every state."""
        return len(self.data_states) == len(self.states)

    @torch.no_grad()
    def bind(self, train: Batch, window: int | None = None) -> None:
        """Set the scales from the train split: means and standard deviations of states and rates.

        Arguments:
            train: The training trajectories.
            window: How many points are observed; all for None.

        Raises:
            DataError: If a state is constant, or has no finite values.
        """
        observed = train.window(window)
        scales: Scales = measure(observed, self.states, self.noise, self.space)
        for name, value in scales._asdict().items():
            getattr(self, name).copy_(value)
        self.noise_sd.copy_(self.link_sd)
        if observed.u is not None:
            self.input_mean.copy_(observed.u.mean((0, 1)))
            sd = observed.u.std((0, 1))
            self.input_sd.copy_(torch.where(sd > 0, sd, 1.0))
        self.window.fill_(observed.y.shape[1])

    @torch.no_grad()
    def note_latents(self, train: Batch) -> None:
        """Keep mean and standard deviation of the train split's `z_a`, its aggregate posterior."""
        if self.z_a_dim == 0 or len(train) < 2:
            return
        z_a = self.encode_all(train).z_a
        self.z_a_mean.copy_(z_a.mean(0))
        self.z_a_sd.copy_(z_a.std(0))

    def standardised(self, y: Tensor) -> Tensor:
        """Return states in standard deviations from the mean, with the shape of `y`."""
        return (y - self.state_mean) / self.state_sd

    @torch.no_grad()
    def noise_level(self, data: Batch) -> Tensor:
        """Return the standard deviation of the noise on the scale of its link.

        That is the one declared; or else the smaller of two estimates, the roughness of the data
        on equal steps and the misfit noted in training, since either can only be too large.

        Arguments:
            data: Trajectories of the kind that the model was trained on.

        Returns:
            Standard deviations, with shape `(C, *1)`.
        """
        if self.noise.sd is not None:
            return self.noise.scale(self.noise_sd, self.space).expand_as(self.noise_sd)
        seen = data.window(int(self.window))
        if not weak_fits(seen.t) or self.space:
            return self.noise_sd
        rough = estimate_sd(self.noise.link(seen.y)).to(self.noise_sd)
        noted = torch.where(self.noise_sd < self.link_sd, self.noise_sd, torch.inf)
        best = torch.minimum(rough.nan_to_num(torch.inf), noted)
        return torch.where(best.isfinite(), best, self.noise_sd)

    # -- encoder --------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Latents:
        """Infer latents and initial states from the observed window.

        Arguments:
            batch: Trajectories; only their first `window` points are looked at.

        Returns:
            The latents, the parameters inside the encoder's box, known ones as they are given.

        Raises:
            TrainingError: If the model has not been bound to a train split.
            DataError: If the window is shorter than in training.
        """
        seen = self.windowed(batch)
        known, given = self.known(seen)
        out, start = self.encoder(*self.observed(seen), known)
        split = len(self.free)
        x0 = self.start.states_of(start, seen, self.link_mean, self.link_sd)
        return Latents(self.bounded(out[..., :split], given), out[..., split:], x0)

    def windowed(self, batch: Batch) -> Batch:
        """Return the observed windows of trajectories; see `encode` for what it raises."""
        if not self.is_bound:
            raise TrainingError("the model has no scales yet; train it with fit(model, data).")
        points = int(self.window)
        if batch.y.shape[1] < points:
            raise DataError(
                f"the observation has {batch.y.shape[1]} points; the encoder was trained on "
                f"{points}. Give at least the first {points} points."
            )
        return batch.window(points)

    def bounded(self, raw: Tensor, given: Tensor | None) -> Tensor:
        """Lead unbounded numbers `(B, F)` into the box; known parameters stay as given."""
        width = self.box_high - self.box_low
        inside = self.box_low[self.free] + width[self.free] * torch.sigmoid(raw)
        return inside if given is None else given.index_copy(-1, _index(self.free, raw), inside)

    @torch.no_grad()
    def encode_all(self, batch: Batch) -> Latents:
        """Return what `encode` does, a part of the members at a time: fields take much room."""
        size = max(1, _PART // batch.y[0].numel())
        parts = [self.encode(batch[i : i + size]) for i in range(0, len(batch), size)]
        z_e, z_a = torch.cat([p.z_e for p in parts]), torch.cat([p.z_a for p in parts])
        starts = [p.x0 for p in parts if p.x0 is not None]
        return Latents(z_e, z_a, torch.cat(starts) if starts else None)

    def observed(self, seen: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the encoder reads of the observed windows.

        Arguments:
            seen: The observed windows.

        Returns:
            Values in standard deviations and mask, of observed states and inputs, with shape
            `(B, T, C', *S)`, and time steps in mean steps, with shape `(B, T)`.
        """
        y = (self.noise.link(seen.y) - self.link_mean) / self.link_sd
        mask = torch.ones_like(y) if seen.mask is None else seen.mask.to(y)
        values, mask = y[:, :, self.data_states], mask[:, :, self.data_states]
        if seen.u is not None:
            u = (seen.u - self.input_mean) / self.input_sd
            # an input is the same all over a field
            u = u[(..., *(None,) * self.space)].expand(*u.shape, *y.shape[3:])
            values = torch.cat([values, u], dim=2)
            mask = torch.cat([mask, torch.ones_like(u)], dim=2)
        gap = seen.t.diff(dim=-1) / self.mean_step
        steps = torch.cat([torch.ones_like(gap[..., :1]), gap], dim=-1)
        return values, mask, steps.expand(len(seen), -1)

    def known(self, seen: Batch) -> tuple[Tensor, Tensor | None]:
        """Return known parameters in units of their box, `(B, K)`, and all of them, `(B, P)`."""
        index = [i for i, p in enumerate(self.params) if p.known]
        if not index:
            return seen.y.new_zeros(len(seen), 0), None
        names = ", ".join(self.params[i].name for i in index)
        if seen.z_e is None or seen.z_e[:, index].isnan().any():
            raise DataError(
                f"the parameters ({names}) are declared as known, but the data do not give them "
                "for every sample."
            )
        width = (self.box_high - self.box_low)[index]
        return (seen.z_e[:, index] - self.box_low[index]) / width, seen.z_e

    def initial(self, batch: Batch, latents: Latents) -> Tensor:
        """Return the initial states: those inferred, or else the first that were observed."""
        if latents.x0 is not None:
            return latents.x0
        return batch.x if batch.mask is None else self.start.first(batch, self.link_mean)

    def driven(self, latents: Latents, batch: Batch) -> Latents:
        """Add the inputs of a batch to its latents, as functions of time."""
        if batch.u is None or not self.inputs:
            return latents
        return latents._replace(u=spline(batch.t, batch.u))

    @torch.no_grad()
    def infer(self, batch: Batch) -> Inferred:
        """Infer latents and initial states, as `encode` does, ready to predict from."""
        batch = batch.to(self.state_sd)
        latents = self.driven(self.encode_all(batch), batch)
        return Inferred(
            latents.z_e, latents.z_a, self.initial(batch, latents), "amortised", latents.u
        )

    # -- decoder --------------------------------------------------------------------------

    def field(self, t: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return dy/dt in state units per time unit, with the shape of `y`, `(*B, C, *S)`."""
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
        substeps: Tensor | int | None = None,
    ) -> Solution:
        """Integrate the field from an initial state.

        Arguments:
            x0: Initial states in their units, with shape `(B, C, *S)`.
            t: Times, with shape `(T,)` or `(B, T)`.
            latents: The latents, `(B, P)` and `(B, D)`.
            method: `"tsit5"`, or `"grid_rk4"` for training.
            substeps: Substeps of each interval, one number or `(T-1,)`; None to choose them.

        Returns:
            Trajectories with shape `(B, T, C, *S)`, and the status of each member.
        """
        # tighter than the accuracy of any learnt field, looser than float32's rounding
        rtol, atol = 1e-5, 1e-6
        numerics = partial(solve, rtol=rtol, atol=atol, checkpoint=self.checkpoint)
        return numerics(self.field, x0, t, latents, method=method, substeps=substeps)

    def reconstruct(self, batch: Batch, latents: Latents) -> Tensor:
        """Return the trajectory of the observed window by the training solver.

        Arguments:
            batch: Trajectories; their times and inputs are used, and the first states where
                `latents` has none.
            latents: What was inferred of them.

        Returns:
            States, with shape `(B, T, C, *S)`.
        """
        seen = batch.window(int(self.window))
        driven = self.driven(latents, seen)
        return self.rollout(
            self.initial(seen, latents),
            seen.t,
            driven,
            method="grid_rk4",
            substeps=int(self.substeps),
        ).y

    def misfit(self, y: Tensor, observed: Batch) -> tuple[Tensor, Tensor]:
        """Compare states with observations, on the scale of the noise's link.

        Arguments:
            y: States, with shape `(B, T, C, *S)`.
            observed: What was observed of them at the same times.

        Returns:
            Differences in standard deviations of the training set, zero where nothing was
            observed; and one where something was, zero elsewhere; both with the shape of `y`.
        """
        error = (self.noise.link(y) - self.noise.link(observed.y)) / self.link_sd
        if observed.mask is None:
            return error, torch.ones_like(error)
        return torch.where(observed.mask, error, 0.0), observed.mask.to(error)

    @torch.no_grad()
    def predict(self, x: Tensor | None, t: Tensor, *, given: Batch | Inferred) -> Prediction:
        """Forecast a system that was observed, from the observed or from a new initial state.

        Arguments:
            x: Initial states in their units, with shape `(B, C, *S)`; None for those of `given`.
            t: Times, with shape `(T,)` or `(B, T)`, from the initial state on.
            given: The observed windows of the same systems, or what was inferred from them. Where
                the expert has inputs, they must go on over all of `t`.

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
        latents = Latents(inferred.z_e, inferred.z_a, u=inferred.u)
        out = self.rollout(x0, t.to(x0), latents)
        return Prediction(out.y, out.status, out.t_reached, inferred)


def _index(columns: list[int], like: Tensor) -> Tensor:
    return torch.tensor(columns, device=like.device)
