r"""A neural ODE without physics: the `network_only` baseline, with the same encoder.

.. math:: \dot y = n(y, z), \qquad z = g_\psi(y_{0 \ldots t_1})

References:
    Neural Ordinary Differential Equations (Chen et al., 2018), arXiv:1806.07366
"""

from __future__ import annotations

from torch import Tensor

from hybridgen import rng
from hybridgen.models.base import HybridModel, Latents
from hybridgen.models.encoders import Convolutional
from hybridgen.models.residual import Residual
from hybridgen.params import State

__all__ = ["NeuralODE"]


class NeuralODE(HybridModel):
    """A network for the whole rate.

    Arguments:
        states: The states.
        z_dim: How many latents tell one system from another; give as many as the hybrid has,
            `z_e` and `z_a` together.
        hidden: Widths of the hidden layers.
        encoder: Settings of the encoder.
        seed: Seed of the initial weights.

    Example:
        >>> import torch
        >>> model = NeuralODE((State("y", "m"),), z_dim=2)
        >>> latents = Latents(torch.zeros(4, 0), torch.zeros(4, 2))
        >>> model.field(torch.tensor(0.0), torch.zeros(4, 1), latents).shape
        torch.Size([4, 1])
    """

    learner = "network_only"

    def __init__(
        self,
        states: tuple[State, ...],
        *,
        z_dim: int = 2,
        hidden: tuple[int, ...] = (64, 64),
        encoder: Convolutional = Convolutional(),
        seed: int = 0,
    ) -> None:
        super().__init__(None, tuple(states), z_dim, encoder, seed)
        self.config = {"z_dim": z_dim, "hidden": tuple(hidden), "encoder": encoder}
        general = Residual(hidden=hidden, linear_in_z_a=False)
        names = tuple(s.name for s in states)
        with rng.scoped(rng.seed_of(seed, "network")):
            self.network = general.build(names, (True,) * len(names), z_dim)

    def field(self, t: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return dy/dt of the network, in state units per time unit, shape `(*B, C)`."""
        return self.network(self.standardised(y), latents.z_a) * self.rate_sd
