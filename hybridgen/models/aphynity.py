r"""APHYNITY, amortised: the expert's rate plus a residual, with latents from an encoder.

.. math:: \dot y = f_e(t, y; z_e) + f_a(y; z_a), \qquad (z_e, z_a) = g_\psi(y_{0 \ldots t_1})

References:
    Augmenting Physical Models with Deep Networks for Complex Dynamics Forecasting (Yin, Le Guen,
    Dona et al., 2021), arXiv:2010.04456
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

import torch
from torch import Tensor

from hybridgen import rng
from hybridgen.errors import UnsupportedError
from hybridgen.expert import ODEExpert
from hybridgen.models.base import HybridModel, Latents
from hybridgen.models.encoders import Convolutional
from hybridgen.models.penalty import Projection, project, sensitivities
from hybridgen.models.residual import Residual

__all__ = ["APHYNITY"]


class APHYNITY(HybridModel):
    """A hybrid of an ODE expert and a residual network.

    Arguments:
        expert: The partial physics.
        residual: Settings of the residual; None leaves the expert alone (the `expert_only`
            baseline, with the same encoder).
        z_a_dim: How many augmentation latents there are.
        encoder: Settings of the encoder.
        seed: Seed of the initial weights.

    Raises:
        UnsupportedError: If the expert is not an ODEExpert, has inputs or spatial axes.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> model = APHYNITY(pendulum.expert)
        >>> y, z_e, z_a = torch.zeros(4, 2), torch.ones(4, 1), torch.zeros(4, 1)
        >>> model.field(torch.tensor(0.0), y, Latents(z_e, z_a)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        expert: ODEExpert,
        *,
        residual: Residual | None = Residual(),
        z_a_dim: int = 1,
        encoder: Convolutional = Convolutional(),
        seed: int = 0,
    ) -> None:
        if not isinstance(expert, ODEExpert):
            raise UnsupportedError(
                f"APHYNITY adds a rate to an ODE, but got {type(expert).__name__}; wrap the "
                "function: ODEExpert(f, states=(State('y', 'm'),), params=(Param(...),))."
            )
        if expert.inputs or expert.space:
            raise UnsupportedError(
                f"expert {expert.name!r} has inputs or spatial axes, which APHYNITY does not "
                "take yet; state and parameters only."
            )
        super().__init__(expert, expert.states, z_a_dim if residual else 0, encoder, seed)
        self.config = {"residual": residual, "z_a_dim": z_a_dim, "encoder": encoder}
        acts = tuple(bool(a) for a in expert.acts_on)
        with rng.scoped(rng.seed_of(seed, "residual")):
            self.residual = residual.build(expert.state_names, acts, z_a_dim) if residual else None
        self.learner = "aphynity" if residual else "expert_only"

    def f_e(self, t: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return the expert's rate, in its units, with the shape of `y`, `(*B, C)`."""
        if self.expert is None:
            raise UnsupportedError("the model has no expert")
        return self.expert(t, y, latents.z_e)

    def f_a(self, y: Tensor, z_a: Tensor) -> Tensor:
        """Return the residual's rate, in state units per time unit, with the shape of `y`."""
        if self.residual is None:
            return torch.zeros_like(y)
        return self.residual(self.standardised(y), z_a) * self.rate_sd

    def field(self, t: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return dy/dt of the hybrid, in state units per time unit.

        Arguments:
            t: Time, a scalar or with shape `(*B,)`.
            y: States, with shape `(*B, C)`.
            latents: Latents that broadcast against the batch axes of `y`.
        """
        rate = self.f_e(t, y, latents)
        return rate if self.residual is None else rate + self.f_a(y, latents.z_a)

    def projection(self, states: Tensor, latents: Latents) -> Projection:
        """Project the residual on the span of the expert's sensitivities.

        Arguments:
            states: States at which both are compared, such as `penalty.reflected` draws, with
                shape `(N, C)`.
            latents: Latents of the M systems that are looked at.

        Returns:
            The projection in standard deviations of the rate.
        """
        if self.expert is None or self.residual is None:
            raise UnsupportedError("without an expert or a residual there is nothing to project")
        members, points = len(latents.z_a), len(states)
        grid = states.expand(members, -1, -1)
        z_e = latents.z_e.detach()[:, None, :].expand(-1, points, -1)
        with torch.no_grad():
            g = sensitivities(self.expert, states.new_zeros(()), grid, z_e) / self.rate_sd
        # states without a member axis: a residual linear in z_a then evaluates its network once
        f_a = self.f_a(states, latents.z_a.detach()[:, None, :])
        return project(f_a / self.rate_sd, g, self.residual.acts)
