r"""The encoder of a hybrid VAE, in parts: latent, filter, parameters.

.. math:: q(z_a, u \mid y) = q(z_a \mid y)\, q(u \mid \tilde y), \qquad \tilde y = \phi(y, z_a),

with a filter :math:`\phi` that turns what was observed into what the expert alone could have
made, and :math:`u` the expert's parameters where they know no bounds,
:math:`z_e = a + (b - a)\,\mathrm{sigmoid}(u)` in the encoder's box :math:`[a, b]`. Both factors
are Gaussians with independent components, so :math:`z_e` is logit-normal.

The filter works time by time: it adds to an observation what a network makes of that observation,
its time, :math:`z_a` and a few numbers about the whole window. It starts as the identity.

References:
    Physics-Integrated Variational Autoencoders for Robust and Interpretable Generative Modeling
    (Takeishi & Kalousis, 2021), arXiv:2102.13156
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hybridgen.models.encoders import EncoderConfig
from hybridgen.models.residual import mlp

__all__ = ["Draw", "Gaussian", "Variational", "VariationalEncoder"]

# log standard deviations go from -8 to 0 and start in the middle: with a wide posterior the first
# updates would lower the sensitivity to z_e instead of the noise in it
_MIDDLE = 4.0


class Gaussian(NamedTuple):
    """Gaussians with independent components.

    Arguments:
        mean: Means, with shape `(B, D)`.
        log_sd: Logarithms of the standard deviations, with shape `(B, D)`.
    """

    mean: Tensor
    log_sd: Tensor

    @classmethod
    def of(cls, raw: Tensor) -> Gaussian:
        """Return Gaussians from the numbers of a network, with shape `(B, 2 D)`."""
        mean, raw_sd = raw.chunk(2, dim=-1)
        return cls(mean, _MIDDLE * torch.tanh(raw_sd / _MIDDLE) - _MIDDLE)

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """Draw by reparametrisation, with shape `(B, D)`; the mean without a generator."""
        if generator is None:
            return self.mean
        shape, dtype = self.mean.shape, self.mean.dtype
        noise = torch.randn(shape, generator=generator, dtype=dtype).to(self.mean)
        return self.mean + self.log_sd.exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density at `z`, with shape `(B,)`.

        Example:
            >>> standard = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2))
            >>> standard.log_prob(torch.zeros(1, 2))
            tensor([-1.8379])
        """
        s = (z - self.mean) * (-self.log_sd).exp()
        return (-0.5 * s * s - self.log_sd - 0.5 * math.log(2.0 * math.pi)).sum(-1)


class Draw(NamedTuple):
    """A draw from the posterior, or its means.

    Arguments:
        z_a: Augmentation latents, with shape `(B, D)`.
        u: Unbounded expert parameters, with shape `(B, F)`.
        log_q: Log density of the draw, with shape `(B,)`.
        filtered: What the filter left, with shape `(B, T, C', *S)`.
        start: Numbers for the initial states, with shape `(B, X)`, or None.
    """

    z_a: Tensor
    u: Tensor
    log_q: Tensor
    filtered: Tensor
    start: Tensor | None


@dataclass(frozen=True)
class Variational:
    """Settings of the encoder in parts.

    Arguments:
        part: Settings of the encoder that each part is.
        z_a_dim: How many augmentation latents there are, D.
        inputs: How many of the series are inputs, which the filter leaves alone.
        width: How many numbers about the whole window the filter is told; its hidden layers are
            twice as wide.
    """

    part: EncoderConfig
    z_a_dim: int
    inputs: int
    width: int = 32

    def build(
        self, *, channels: int, known: int, latents: int, initial: int, space: int
    ) -> VariationalEncoder:
        """Return the network; see `EncoderConfig.build`."""
        return VariationalEncoder(channels, known, latents, initial, space, self)


class VariationalEncoder(nn.Module):
    """Two encoders with a filter between them.

    Arguments:
        channels: How many series are read, C' states and the inputs.
        known: How many parameters are known, K.
        latents: How many latents there are, F parameters and D of `z_a`.
        initial: How many numbers are returned for the initial state, X.
        space: How many spatial axes there are.
        config: The settings.
    """

    def __init__(
        self,
        channels: int,
        known: int,
        latents: int,
        initial: int,
        space: int,
        config: Variational,
    ) -> None:
        super().__init__()
        self.z_a_dim, self.space = config.z_a_dim, space
        self.states, self.free = channels - config.inputs, latents - config.z_a_dim

        def part(numbers: int, initial: int) -> nn.Module:
            return config.part.build(
                channels=channels, known=known, latents=numbers, initial=initial, space=space
            )

        w = config.width
        self.first = part(2 * self.z_a_dim + w, initial)
        reads = 2 * channels + 1 + self.z_a_dim + w
        self.filter = mlp((reads, 2 * w, 2 * w, self.states))
        for p in self.filter[-1].parameters():
            nn.init.zeros_(p)
        self.second = part(2 * self.free, 0) if self.free else None

    def forward(
        self, values: Tensor, mask: Tensor, steps: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the posterior means, as any encoder does.

        Arguments:
            values: Observations in standard deviations, with shape `(B, T, C, *S)`.
            mask: One where observed, with the shape of `values`.
            steps: Time steps in units of the training set's mean step, with shape `(B, T)`.
            known: Known parameters in units of their range, with shape `(B, K)`.

        Returns:
            `u` and `z_a`, with shape `(B, F + D)`, and numbers for the initial state.
        """
        draw = self.draw(values, mask, steps, known)
        return torch.cat([draw.u, draw.z_a], dim=-1), draw.start

    def draw(
        self,
        values: Tensor,
        mask: Tensor,
        steps: Tensor,
        known: Tensor,
        generator: torch.Generator | None = None,
    ) -> Draw:
        """Draw from the posterior.

        Arguments:
            values: As for `forward`, and so are the next three.
            mask: One where observed.
            steps: Time steps.
            known: Known parameters.
            generator: Source of randomness; None for the means.
        """
        q_a, context, start = self.q_a(values, mask, steps, known)
        z_a = q_a.draw(generator)
        filtered = self.filtered(values, mask, steps, z_a, context)
        q_u = self.q_u(filtered, values, mask, steps, known)
        u = q_u.draw(generator)
        return Draw(z_a, u, q_a.log_prob(z_a) + q_u.log_prob(u), filtered, start)

    def q_a(
        self, values: Tensor, mask: Tensor, steps: Tensor, known: Tensor
    ) -> tuple[Gaussian, Tensor, Tensor | None]:
        """Return the posterior of `z_a`, the window's context `(B, W)`, and the start."""
        out, start = self.first(values, mask, steps, known)
        split = 2 * self.z_a_dim
        return Gaussian.of(out[..., :split]), out[..., split:], start

    def filtered(
        self, values: Tensor, mask: Tensor, steps: Tensor, z_a: Tensor, context: Tensor
    ) -> Tensor:
        """Return what the expert alone could have made, with shape `(B, T, C', *S)`.

        Arguments:
            values: Observations, with shape `(B, T, C, *S)`.
            mask: One where observed.
            steps: Time steps.
            z_a: Augmentation latents, with shape `(B, D)`.
            context: Numbers about the whole window.
        """
        seen = torch.where(mask > 0, values, 0.0)
        time = (steps.cumsum(-1) - 1.0) / steps.shape[-1]
        wide = torch.cat([z_a, context], dim=-1)[:, None, :].expand(-1, steps.shape[1], -1)
        told = torch.cat([time[..., None], wide], dim=-1)[(..., *(None,) * self.space)]
        told = told.expand(*told.shape[:3], *values.shape[3:])
        reads = torch.cat([seen, mask - 1.0, told], dim=2).movedim(2, -1)
        return seen[:, :, : self.states] + self.filter(reads).movedim(-1, 2)

    def q_u(
        self, filtered: Tensor, values: Tensor, mask: Tensor, steps: Tensor, known: Tensor
    ) -> Gaussian:
        """Return the posterior of the parameters.

        Arguments:
            filtered: Signals of the expert alone, with shape `(B, T, C', *S)`.
            values: Observations, of which only the inputs are read.
            mask: One where observed.
            steps: Time steps.
            known: Known parameters.
        """
        if self.second is None:
            return Gaussian(values.new_zeros(len(values), 0), values.new_zeros(len(values), 0))
        signals = torch.cat([filtered, values[:, :, self.states :]], dim=2)
        return Gaussian.of(self.second(signals, mask, steps, known)[0])
