r"""The hybrid VAE: an expert and what it lacks, as a generative model with a posterior.

.. math:: z_e \sim U(\text{box}), \quad z_a \sim N(0, I), \quad
          g(y_i) = g(y(t_i)) + \sigma \epsilon_i, \qquad
          \dot y = f_e(t, y; z_e) + f_a(y; z_a) .

With `decoder="output"` the interaction stands on the expert's response instead of its rate,
:math:`y(t) = y_e(t) + h(y_e(t), t; z_a)`, for experts that are no differential equations, too.
The posterior :math:`q` comes from an encoder in parts (`hybridgen.models.posterior`), and all are
trained by the evidence lower bound,

.. math:: \log p(y) \ge E_q\left[ \log p(y \mid z_a, z_e) + \log p(z_a) + \log p(u)
          - \log q(z_a, u \mid y) \right],

one draw each, in the unbounded :math:`u` of the parameters, where the uniform prior is the
standard logistic density. Each term is evaluated at the draw: the estimate does not vary where
:math:`q` is the exact posterior. It is conditional on the initial state: that is the first
observation, which is then not scored, or a point estimate (`infer_x0`).

The bound does not say what belongs to the expert. That is the affair of the regularisers
(`hybridgen.models.regularisers`) and of what the residual may see and change.

References:
    Physics-Integrated Variational Autoencoders for Robust and Interpretable Generative Modeling
    (Takeishi & Kalousis, 2021), arXiv:2102.13156
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from hybridgen import rng
from hybridgen.batch import Batch
from hybridgen.errors import ConfigError, UnsupportedError
from hybridgen.expert import Expert, ODEExpert
from hybridgen.integrate import Solution, Status, solve
from hybridgen.models.aphynity import APHYNITY
from hybridgen.models.base import HybridModel
from hybridgen.models.elbo import elbo, supervised, weak
from hybridgen.models.encoders import Convolutional, GlobalParameters
from hybridgen.models.latents import Latents
from hybridgen.models.objectives import Objective
from hybridgen.models.posterior import Draw, Gaussian, Variational, VariationalEncoder
from hybridgen.models.regularisers import Regularisers
from hybridgen.models.residual import Residual
from hybridgen.noise import GaussianNoise, Noise

__all__ = ["HybridVAE"]

# the likelihood's standard deviation at the start, in those of the training set
_START = 0.05
# how much faster than other parameters the likelihood's log scale goes: it has to follow the fit
_PACE = 20.0


class HybridVAE(APHYNITY):
    """A variational auto-encoder whose decoder is an expert and a network.

    Arguments:
        expert: The partial physics: an `ODEExpert`, or with `decoder="output"` any `Expert`.
        decoder: `"rate"` adds the network to dy/dt, `"output"` to the expert's response.
        residual: Settings of the network; not to vanish with `z_a`, whose prior is centred at
            zero, it has a constant part.
        z_a_dim: How many augmentation latents there are, D.
        encoder: Settings of both parts of the encoder.
        noise: The likelihood of the observations; its scale is learned unless declared.
        infer_x0: Whether initial values that are observed are inferred as well.
        regularisers: Weights of the penalties that ground the model in the expert.
        seed: Seed of the initial weights.

    Raises:
        UnsupportedError: If expert, decoder and encoder do not go together.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> model = HybridVAE(pendulum.expert)
        >>> y, z_e, z_a = torch.zeros(4, 2), torch.ones(4, 1), torch.zeros(4, 1)
        >>> model.field(torch.tensor(0.0), y, Latents(z_e, z_a)).shape
        torch.Size([4, 2])
    """

    objectives: ClassVar[Mapping[str, Objective]] = {
        "weak": weak,
        "elbo": elbo,
        "supervised": supervised,
    }
    # R_PPC is its norm; the gauge is in nats for an observed value, as all of its objectives
    default_norm: ClassVar[tuple[float, float]] = (0.0, 0.0)
    default_gauge: ClassVar[float] = 30.0
    encoder: VariationalEncoder
    valid_low: Tensor
    valid_high: Tensor

    def __init__(
        self,
        expert: ODEExpert | Expert,
        *,
        decoder: Literal["rate", "output"] = "rate",
        residual: Residual = Residual(constant=True),
        z_a_dim: int = 1,
        encoder: Convolutional = Convolutional(),
        noise: Noise = GaussianNoise(),
        infer_x0: bool = False,
        regularisers: Regularisers = Regularisers(),
        seed: int = 0,
    ) -> None:
        _check(expert, decoder, encoder)
        parts = Variational(encoder, z_a_dim, len(expert.inputs), encoder.width)
        # past APHYNITY's own, whose encoder and residual are others
        HybridModel.__init__(
            self,
            expert,
            expert.states,
            z_a_dim,
            parts,
            seed,
            noise=noise,
            infer_x0=infer_x0,
        )
        self.config = {
            "decoder": decoder,
            "residual": residual,
            "z_a_dim": z_a_dim,
            "encoder": encoder,
            "noise": noise,
            "infer_x0": infer_x0,
            "regularisers": regularisers,
        }
        self.decoder, self.regularisers, self.learner = decoder, regularisers, "hvae"
        for name in ("low", "high"):
            ends = torch.tensor([float(getattr(p, name)) for p in self.params])
            self.register_buffer(f"valid_{name}", ends, persistent=False)
        self.residual, self.interaction = None, None
        names = expert.state_names
        with rng.scoped(rng.seed_of(seed, "residual")):
            if decoder == "rate":
                acts = tuple(bool(a) for a in expert.acts_on)
                self.residual = residual.build(names, acts, z_a_dim, self.space)
            else:
                acts = (*(True for _ in names), False)
                self.interaction = residual.build((*names, "time"), acts, z_a_dim, self.space)
        self.log_scale = nn.Parameter(torch.zeros(len(names), *(1,) * self.space))

    def bind(self, train: Batch, window: int | None = None) -> None:
        """Set the scales from the train split; see `APHYNITY.bind`."""
        if isinstance(self.expert, ODEExpert):
            super().bind(train, window)
        else:
            HybridModel.bind(self, train, window)

    # -- likelihood -------------------------------------------------------------------------

    @property
    def scale(self) -> Tensor:
        """The likelihood's standard deviation on the scale of its link, with shape `(C, *1)`."""
        if self.noise.sd is not None:
            return self.noise.scale(self.link_sd, self.space).expand_as(self.link_sd)
        return self.link_sd * _START * (_PACE * self.log_scale).exp()

    def data_noise(self, seen: Batch) -> Tensor:
        """Return how noisy simulations for the encoder are to be, with shape `(C, *1)`."""
        return torch.minimum(self.noise_level(seen), self.scale.detach())

    def log_likelihood(self, y: Tensor, seen: Batch) -> Tensor:
        """Return log p(observations | trajectory), on the scale of the noise's link.

        Arguments:
            y: Trajectories, with shape `(B, T, C, *S)`.
            seen: What was observed of them.

        Returns:
            Nats, with shape `(B,)`.
        """
        error, _ = self.misfit(y, seen)
        scale = self.scale
        s = error * (self.link_sd / scale)
        nats = -0.5 * s * s - scale.log() - 0.5 * math.log(2.0 * math.pi)
        return (self.scored(seen) * nats).flatten(1).sum(1)

    def scored(self, seen: Batch) -> Tensor:
        """Return one where the likelihood counts a value, zero elsewhere, with the shape of `y`.

        Arguments:
            seen: The observed windows. The first observation is left out where it is the
                initial state.
        """
        count = torch.ones_like(seen.y) if seen.mask is None else seen.mask.to(seen.y)
        if not self.infer_x0 and isinstance(self.expert, ODEExpert):
            count = torch.cat([torch.zeros_like(count[:, :1]), count[:, 1:]], dim=1)
        return count

    def log_prior(self, draw: Draw) -> Tensor:
        """Return the log density of the prior, with shape `(B,)`: normal z_a, logistic u."""
        normal = Gaussian(torch.zeros_like(draw.z_a), torch.zeros_like(draw.z_a))
        u = draw.u
        return normal.log_prob(draw.z_a) + (logsigmoid(u) + logsigmoid(-u)).sum(-1)

    def unbounded(self, z_e: Tensor) -> Tensor:
        """Return the numbers that `bounded` maps to parameters.

        Arguments:
            z_e: Parameters inside the encoder's box, with shape `(B, P)`.

        Returns:
            Numbers of those that are inferred, with shape `(B, F)`.
        """
        low, high = self.box_low[self.free], self.box_high[self.free]
        return ((z_e[:, self.free] - low) / (high - low)).logit()

    # -- posterior --------------------------------------------------------------------------

    def draw(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Draw, Latents]:
        """Draw from the posterior; or return its means, without a generator.

        Arguments:
            batch: Trajectories; only their first `window` points are looked at.
            generator: Source of randomness.

        Returns:
            The draw, and the same as latents in their units.
        """
        seen = self.windowed(batch)
        known, given = self.known(seen)
        draw = self.encoder.draw(*self.observed(seen), known, generator)
        z_e = self.bounded(draw.u, given)
        return draw, Latents(z_e, draw.z_a, self.started(draw.start, seen))

    def started(self, start: Tensor | None, seen: Batch) -> Tensor | None:
        """Return initial states from the encoder's numbers; None where they are those observed."""
        return self.start.states_of(start, seen, self.link_mean, self.link_sd)

    def bound(self, seen: Batch, draw: Draw, y: Tensor) -> Tensor:
        """Return an unbiased estimate of the evidence lower bound, in nats, with shape `(B,)`.

        Arguments:
            seen: The observed windows.
            draw: A draw from the posterior of each.
            y: The decoder's trajectories for it, with shape `(B, T, C, *S)`.
        """
        return self.log_likelihood(y, seen) + self.log_prior(draw) - draw.log_q

    # -- decoder ----------------------------------------------------------------------------

    def h(self, y_e: Tensor, t: Tensor, z_a: Tensor) -> Tensor:
        """Return what is added to the expert's response, in state units.

        Arguments:
            y_e: The response, with shape `(B, T, C, *S)`.
            t: Times, with shape `(T,)` or `(B, T)`.
            z_a: Augmentation latents, with shape `(B, D)`.
        """
        if self.interaction is None:
            raise UnsupportedError('the decoder is "rate"; h belongs to decoder="output".')
        share = (t - t[..., :1]) / (self.mean_step * self.window)
        time = share.expand(y_e.shape[:2])[(..., None, *(None,) * self.space)]
        reads = torch.cat([self.standardised(y_e), time.expand_as(y_e[:, :, :1])], dim=2)
        return self.interaction(reads, z_a[:, None, :])[:, :, :-1] * self.state_sd

    def expert_alone(self, batch: Batch, latents: Latents) -> Tensor:
        """Return the expert's own response in the observed window.

        Arguments:
            batch: Trajectories; their times, inputs and initial states are used.
            latents: Parameters, and initial states where they are inferred.

        Returns:
            States, with shape `(B, T, C, *S)`.
        """
        seen = batch.window(int(self.window))
        x0, driven = self.initial(seen, latents), self.driven(latents, seen)
        steps = int(self.substeps)
        return self._respond(x0, seen.t, driven, method="grid_rk4", substeps=steps).y

    def rollout(
        self,
        x0: Tensor,
        t: Tensor,
        latents: Latents,
        *,
        method: str = "tsit5",
        substeps: Tensor | int | None = None,
    ) -> Solution:
        """Return the decoder's trajectories; see `HybridModel.rollout`."""
        if self.decoder == "rate":
            return super().rollout(x0, t, latents, method=method, substeps=substeps)
        response = self._respond(x0, t, latents, method=method, substeps=substeps)
        return replace(response, y=response.y + self.h(response.y, t, latents.z_a))

    def _respond(
        self,
        x0: Tensor,
        t: Tensor,
        latents: Latents,
        *,
        method: str,
        substeps: Tensor | int | None,
    ) -> Solution:
        """Return the expert's own response from an initial state."""
        if isinstance(self.expert, ODEExpert):
            rtol, atol = 1e-5, 1e-6
            numerics = partial(solve, rtol=rtol, atol=atol, checkpoint=self.checkpoint)
            return numerics(self.f_e, x0, t, latents, method=method, substeps=substeps)
        u = latents.u
        times = t.expand(len(x0), -1)
        along = None if u is None else torch.stack([u(v) for v in times.unbind(-1)], dim=1)
        y = self.expert(t, latents.z_e, along)
        good = y.isfinite().flatten(1).all(1)
        status = torch.where(good, int(Status.ok), int(Status.nonfinite)).to(torch.int8)
        steps = torch.ones(y.shape[1] - 1, dtype=torch.int64, device=y.device)
        return Solution(y, status, times[:, -1], torch.zeros_like(status), steps)


def _check(expert: ODEExpert | Expert, decoder: str, encoder: Convolutional) -> None:
    """Raise unless expert, decoder and encoder go together."""
    if decoder not in ("rate", "output"):
        raise ConfigError(f'decoder is {decoder!r}; write "rate" or "output".')
    if not isinstance(expert, (ODEExpert, Expert)):
        raise UnsupportedError(
            f"HybridVAE needs an expert, but got {type(expert).__name__}; wrap the function: "
            "ODEExpert(f, states=(State('y', 'm'),), params=(Param(...),))."
        )
    if decoder == "rate" and isinstance(expert, Expert):
        raise UnsupportedError(
            f"expert {expert.name!r} is no differential equation, so it has no rate to add to; "
            'write decoder="output".'
        )
    if isinstance(encoder, GlobalParameters):
        raise UnsupportedError(
            "HybridVAE has a posterior for each trajectory, GlobalParameters are those of one "
            "system; use APHYNITY(expert, encoder=GlobalParameters())."
        )
