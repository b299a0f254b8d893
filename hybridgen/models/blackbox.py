r"""A neural ODE without physics: the `network_only` baseline, with the same encoder.

.. math:: \dot y = n(y, u, z), \qquad z = g_\psi(y_{0 \ldots t_1})

References:
    Neural Ordinary Differential Equations (Chen et al., 2018), arXiv:1806.07366
"""

from __future__ import annotations

import torch
from torch import Tensor

from hybridgen import rng
from hybridgen.models.base import HybridModel
from hybridgen.models.encoders import Convolutional, EncoderConfig
from hybridgen.models.latents import Latents
from hybridgen.models.residual import Residual
from hybridgen.noise import GaussianNoise, Noise
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
        inputs: The inputs that drive the system; the network sees them.
        space: How many spatial axes a state has.
        kernel: How many pixels wide the network looks at a field; 3 if None.
        noise: The likelihood of the observations.
        infer_x0: Whether initial values that are observed are inferred as well.
        seed: Seed of the initial weights.

    Example:
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
        encoder: EncoderConfig = Convolutional(),
        inputs: tuple[State, ...] = (),
        space: int = 0,
        kernel: int | None = None,
        noise: Noise = GaussianNoise(),
        infer_x0: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            None,
            tuple(states),
            z_dim,
            encoder,
            seed,
            noise=noise,
            infer_x0=infer_x0,
            inputs=tuple(inputs),
            space=space,
        )
        kernel = kernel or (3 if space else 1)
        self.config = {
            "z_dim": z_dim,
            "hidden": tuple(hidden),
            "encoder": encoder,
            "inputs": tuple(inputs),
            "space": space,
            "kernel": kernel,
            "noise": noise,
            "infer_x0": infer_x0,
        }
        general = Residual(hidden=hidden, linear_in_z_a=False, kernel=kernel)
        names = tuple(s.name for s in states)
        with rng.scoped(rng.seed_of(seed, "network")):
            every = (True,) * len(names)
            self.network = general.build(names, every, z_dim + len(self.inputs), space)

    def field(self, t: Tensor, y: Tensor, latents: Latents) -> Tensor:
        """Return dy/dt of the network, in state units per time unit, shape `(*B, C, *S)`."""
        z = latents.z_a
        if latents.u is not None:
            u = (latents.u(t) - self.input_mean) / self.input_sd
            batch = torch.broadcast_shapes(z.shape[:-1], u.shape[:-1])
            z = torch.cat([z.expand(*batch, -1), u.expand(*batch, -1)], dim=-1)
        return self.network(self.standardised(y), z) * self.rate_sd
