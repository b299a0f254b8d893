r"""APHYNITY, amortised: the expert's rate plus a residual, with latents from an encoder.

.. math:: \dot y = f_e(t, y; z_e) + f_a(y; z_a), \qquad (z_e, z_a) = g_\psi(y_{0 \ldots t_1})

With `encoder=GlobalParameters()` the latents are those of one system, and this is the original
APHYNITY.

References:
    Augmenting Physical Models with Deep Networks for Complex Dynamics Forecasting (Yin, Le Guen,
    Dona et al., 2021), arXiv:2010.04456
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hybridgen import rng
from hybridgen.batch import Batch
from hybridgen.errors import UnsupportedError
from hybridgen.expert import ODEExpert
from hybridgen.integrate import solve
from hybridgen.models.base import HybridModel
from hybridgen.models.encoders import Convolutional, EncoderConfig, GlobalParameters
from hybridgen.models.latents import Latents
from hybridgen.models.penalty import Points, Projection, project, sensitivities
from hybridgen.models.residual import Residual
from hybridgen.noise import GaussianNoise, Noise

__all__ = ["APHYNITY"]


class APHYNITY(HybridModel):
    """A hybrid of an ODE expert and a residual network.

    Arguments:
        expert: The partial physics.
        residual: Settings of the residual; None leaves the expert alone (the `expert_only`
            baseline, with the same encoder).
        z_a_dim: How many augmentation latents there are.
        encoder: Settings of the encoder; `GlobalParameters()` fits a single system.
        noise: The likelihood of the observations.
        infer_x0: Whether initial values that are observed are inferred as well; those that are
            not observed always are.
        seed: Seed of the initial weights.

    Raises:
        UnsupportedError: If the expert is not an ODEExpert.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> model = APHYNITY(pendulum.expert)
        >>> y, z_e, z_a = torch.zeros(4, 2), torch.ones(4, 1), torch.zeros(4, 1)
        >>> model.field(torch.tensor(0.0), y, Latents(z_e, z_a)).shape
        torch.Size([4, 2])
    """

    expert: ODEExpert
    default_norm: ClassVar[tuple[float, float]] = (0.015, 0.0015)
    default_gauge: ClassVar[float] = 0.15

    def __init__(
        self,
        expert: ODEExpert,
        *,
        residual: Residual | None = Residual(),
        z_a_dim: int | None = None,
        encoder: EncoderConfig = Convolutional(),
        noise: Noise = GaussianNoise(),
        infer_x0: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(expert, ODEExpert):
            raise UnsupportedError(
                f"APHYNITY adds a rate to an ODE, but got {type(expert).__name__}; wrap the "
                "function: ODEExpert(f, states=(State('y', 'm'),), params=(Param(...),)), or use "
                "HybridVAE for an expert that is no ODE."
            )
        if z_a_dim is None:
            # of a single system there is nothing that differs from one trajectory to the next
            z_a_dim = 0 if isinstance(encoder, GlobalParameters) else 1
        z_a_dim = z_a_dim if residual else 0
        super().__init__(
            expert, expert.states, z_a_dim, encoder, seed, noise=noise, infer_x0=infer_x0
        )
        self.config = {
            "residual": residual,
            "z_a_dim": z_a_dim,
            "encoder": encoder,
            "noise": noise,
            "infer_x0": infer_x0,
        }
        acts = tuple(bool(a) for a in expert.acts_on)
        self.residual = None
        if residual:
            with rng.scoped(rng.seed_of(seed, "residual")):
                self.residual = residual.build(expert.state_names, acts, z_a_dim, expert.space)
        self.learner = "aphynity" if residual else "expert_only"

    @torch.no_grad()
    def bind(self, train: Batch, window: int | None = None) -> None:
        """Set the scales from the train split, and the steps of the training solver.

        Arguments:
            train: The training trajectories.
            window: How many points are observed; all for None.

        Raises:
            DataError: If a state is constant, or has no finite values.
        """
        super().bind(train, window)
        some = train.window(window)[:16]
        latents = self.driven(self.encode(some), some)
        x0 = self.initial(some, latents)
        ok = x0.isfinite().flatten(1).all(1)
        if not ok.any():
            return
        members = torch.arange(len(some), device=x0.device)[ok]
        some = some[members]
        latents = self.driven(self.encode(some), some)
        # a per cent is enough for the start of a training, whose field is not known anyway
        out = solve(self.f_e, x0[ok], some.t, latents, rtol=1e-2, atol=1e-2)
        self.substeps.fill_(int(out.substeps.max().clamp(1, 8)))

    def f_e(self, t: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return the expert's rate, in its units, with the shape of `y`, `(*B, C, *S)`."""
        u = None if latents.u is None else latents.u(t)
        return self.expert(t, y, latents.z_e, u)

    def f_a(self, y: Tensor, z_a: Tensor) -> Tensor:
        """Return the residual's rate, in state units per time unit, with the shape of `y`."""
        if self.residual is None:
            return torch.zeros_like(y)
        return self.residual(self.standardised(y), z_a) * self.rate_sd

    def field(self, t: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return dy/dt of the hybrid, in state units per time unit.

        Arguments:
            t: Time, a scalar or with shape `(*B,)`.
            y: States, with shape `(*B, C, *S)`.
            latents: Latents that broadcast against the batch axes of `y`.
        """
        rate = self.f_e(t, y, latents)
        return rate if self.residual is None else rate + self.f_a(y, latents.z_a)

    def projection(self, points: Points, latents: Latents) -> Projection:
        """Project the residual on the span of the expert's sensitivities.

        Arguments:
            points: N states at which both are compared, with their times and inputs, such as
                `penalty.orbits` draws.
            latents: Latents of the M systems that are looked at.

        Returns:
            The projection in standard deviations of the rate.
        """
        if self.residual is None:
            raise UnsupportedError("without a residual there is nothing to project")
        members, n = len(latents.z_a), len(points.y)
        z_e = latents.z_e.detach()[:, None, :].expand(-1, n, -1)
        wide = points.map(lambda v: v.expand(members, *v.shape))
        with torch.no_grad():
            g = sensitivities(self.expert, wide, z_e) / self.rate_sd
        # states without a member axis: a residual linear in z_a then evaluates its network once
        f_a = self.f_a(points.y, latents.z_a.detach()[:, None, :]) / self.rate_sd
        f_a = f_a.expand(members, *points.y.shape)
        return project(_pixels(f_a, self.space), _pixels(g, self.space), self.residual.acts)


def _pixels(rates: Tensor, space: int) -> Tensor:
    """Return rates `(..., N, C, *S)` as `(..., N * S, C)`: a pixel counts as a state."""
    if space == 0:
        return rates
    last = rates.movedim(-1 - space, -1)
    return last.flatten(-2 - space, -2)
