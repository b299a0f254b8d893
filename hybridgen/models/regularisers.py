r"""What grounds a hybrid VAE in its expert: three penalties, each zero at its ideal.

The likelihood cannot tell a parameter of the expert from a residual that imitates it. In
standard deviations of the training set, as means over members, times and states:

**R_PPC** bounds how far the full model's trajectories are from those of the expert alone. By
Girsanov's theorem the divergence of the two path measures, with noise of one standard deviation
of the rate in a unit of time, is

.. math:: R_{PPC} = \tfrac12\, E\, \| f_a(y; z_a) \|^2 ,

and by the data processing inequality that of any marginal is less. It is taken at *reflected*
states (`hybridgen.models.penalty`): along observed trajectories, and so for the difference of
whole trajectories, a damping correlates with a change of the parameters, and the minimum is
biased. With the interaction on the expert's output it is :math:`\tfrac12 E\|h\|^2`, the
divergence of two Gaussians.

**R_DA1** is the distance of the filtered observation to the trajectory :math:`y_e` of the expert
alone, which is not differentiated, :math:`E\,(\tilde y - y_e)^2`.

**R_DA2** draws :math:`z_e` uniformly from the valid ranges of width :math:`w`, simulates the
expert alone from the observed start, adds noise, and asks the second part of the encoder for the
parameters, :math:`E\,((\hat z_e - z_e) / w)^2`.

References:
    Physics-Integrated Variational Autoencoders for Robust and Interpretable Generative Modeling
    (Takeishi & Kalousis, 2021), arXiv:2102.13156
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.config import config
from hybridgen.models.latents import Latents
from hybridgen.models.penalty import orbits
from hybridgen.models.posterior import Draw

if TYPE_CHECKING:
    from hybridgen.models.hvae import HybridVAE

__all__ = ["Regularisers", "r_da1", "r_da2", "r_ppc", "regularise"]

# at how many states, each with its mirror images, or fields, and for how many members R_PPC is
# taken
_ORBITS, _FRAMES, _MEMBERS = 64, 4, 16


@config
class Regularisers:
    """Weights of the three penalties, in nats for an observed value.

    Arguments:
        ppc: Weight of R_PPC.
        da1: Weight of R_DA1.
        da2: Weight of R_DA2.
    """

    ppc: float = 0.3
    da1: float = 10.0
    da2: float = 10.0


def regularise(
    model: HybridVAE,
    seen: Batch,
    draw: Draw,
    latents: Latents,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the penalties, and each of those that have a weight.

    Arguments:
        model: The hybrid VAE.
        seen: The observed windows.
        draw: What was drawn from the posterior, or its means.
        latents: The same as latents.
        generator: Source of randomness.
    """
    weights = model.regularisers
    parts: dict[str, Tensor] = {}
    if weights.ppc > 0:
        parts["ppc"] = r_ppc(model, seen, latents, generator)
    if weights.da1 > 0 or weights.da2 > 0:
        drawn = _uniform(model, seen, latents, generator)
        y_e, simulated = _expert_alone(model, seen, latents, drawn)
        if weights.da1 > 0:
            parts["da1"] = r_da1(model, seen, draw.filtered, y_e)
        if weights.da2 > 0:
            parts["da2"] = r_da2(model, seen, simulated, drawn, generator)
    total = seen.t.new_zeros(())
    for name, value in parts.items():
        total = total + getattr(weights, name) * value
    return total, parts


def r_ppc(model: HybridVAE, seen: Batch, latents: Latents, generator: torch.Generator) -> Tensor:
    """Return half the mean squared interaction.

    Arguments:
        model: The hybrid VAE.
        seen: The observed windows.
        latents: What was inferred of them.
        generator: Source of randomness.
    """
    if model.residual is None:
        y_e = model.expert_alone(seen, latents)
        return 0.5 * (model.h(y_e, seen.t, latents.z_a) / model.state_sd).pow(2).mean()
    count = _ORBITS if model.space == 0 else _FRAMES
    points = orbits(seen, model.states, count, generator).map(lambda v: v.flatten(0, 1))
    # states without a member axis: a residual linear in z_a then evaluates its network once
    f_a = model.f_a(points.y, latents.z_a[:_MEMBERS, None, :])
    return 0.5 * (f_a / model.rate_sd).pow(2).mean()


def r_da1(model: HybridVAE, seen: Batch, filtered: Tensor, y_e: Tensor) -> Tensor:
    """Return the mean squared distance of filtered observations to the expert's trajectories.

    Arguments:
        model: The hybrid VAE.
        seen: The observed windows.
        filtered: What the filter left, in standard deviations, with shape `(B, T, C', *S)`.
        y_e: Trajectories of the expert alone, in state units, with shape `(B, T, C, *S)`.
    """
    values, mask, _ = model.observed(seen.replace(y=y_e))
    c = filtered.shape[2]
    target, mask = values[:, :, :c].detach(), mask[:, :, :c]
    good = (mask > 0) & target.isfinite()
    return torch.where(good, filtered - target, 0.0).pow(2).sum() / good.sum().clamp_min(1)


def r_da2(
    model: HybridVAE, seen: Batch, simulated: Tensor, z_e: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the mean squared error of the parameters of simulated trajectories.

    Arguments:
        model: The hybrid VAE.
        seen: The observed windows, whose times, gaps and inputs the simulations share.
        simulated: Trajectories of the expert alone, in state units, with shape `(B, T, C, *S)`.
        z_e: Their parameters, with shape `(B, P)`.
        generator: Source of the observation noise.
    """
    good = simulated.isfinite().flatten(1).all(1)
    simulated = torch.where(good[(..., *(None,) * (simulated.ndim - 1))], simulated, 0.0)
    noise = torch.randn(simulated.shape, generator=generator, dtype=simulated.dtype)
    g = model.noise.link(simulated) + model.data_noise(seen) * noise.to(simulated)
    like = seen.replace(y=model.noise.unlink(g), z_e=z_e)
    values, mask, steps = model.observed(like)
    known, _ = model.known(like)
    filtered = values[:, :, : model.encoder.states]
    mean = model.encoder.q_u(filtered, values, mask, steps, known).mean
    width = (model.valid_high - model.valid_low)[model.free]
    error = (model.bounded(mean, None) - z_e[:, model.free]) / width
    return error[good].pow(2).mean() if good.any() else error.new_zeros(())


def _uniform(
    model: HybridVAE, seen: Batch, latents: Latents, generator: torch.Generator
) -> Tensor:
    """Draw parameters from their valid ranges, known ones as they are, with shape `(B, P)`."""
    z_e = latents.z_e.detach().clone()
    low, high = model.valid_low[model.free], model.valid_high[model.free]
    share = torch.rand((len(seen), len(model.free)), generator=generator, dtype=z_e.dtype)
    z_e[:, model.free] = low + (high - low) * share.to(z_e)
    return z_e


@torch.no_grad()
def _expert_alone(
    model: HybridVAE, seen: Batch, latents: Latents, drawn: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the expert's trajectories with the inferred and with the drawn parameters."""
    twice = torch.arange(len(seen), device=seen.y.device).repeat(2)
    x0 = None if latents.x0 is None else latents.x0[twice]
    both = Latents(torch.cat([latents.z_e, drawn]), latents.z_a[twice], x0)
    y_e, simulated = model.expert_alone(seen[twice], both).chunk(2)
    return y_e, simulated
