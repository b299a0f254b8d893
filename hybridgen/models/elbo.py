r"""Objectives of a hybrid VAE, in nats for an observed value.

**elbo**: the negative evidence lower bound of one draw, divided by the number of values that are
scored, plus the weighted regularisers.

**weak**: the start, without a solver. The weak equation errors at the posterior means take the
likelihood's place, Gaussian with the scale that fits them best, state by state,

.. math:: \frac{1}{C} \sum_c \tfrac12 \log E\, r_c^2 \; - \; \tfrac1N \log p(z_a, u) ,

so that the regularisers weigh as much as in the bound: more while the fit is bad, less than a
hundredth when it is good.

**supervised**: :math:`-\log q(z_a, u \mid y)` of simulated trajectories whose latents are known:
the filter is told the true :math:`z_a`, so the density is that of the pair.

References:
    Physics-Integrated Variational Autoencoders for Robust and Interpretable Generative Modeling
    (Takeishi & Kalousis, 2021), arXiv:2102.13156
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn.functional import huber_loss

from hybridgen.batch import Batch
from hybridgen.errors import ConfigError, TrainingError
from hybridgen.models.base import HybridModel
from hybridgen.models.latents import Latents, Loss
from hybridgen.models.objectives import weak_errors
from hybridgen.models.regularisers import regularise

if TYPE_CHECKING:
    from hybridgen.models.hvae import HybridVAE

__all__ = ["elbo", "supervised", "weak"]


def elbo(model: HybridModel, batch: Batch, span: int, generator: torch.Generator) -> Loss:
    """Return the negative evidence lower bound, for an observed value.

    Arguments:
        model: The hybrid VAE.
        batch: Trajectories.
        span: Not used.
        generator: Source of the draws.
    """
    del span
    model = cast("HybridVAE", model)
    seen = model.windowed(batch)
    draw, latents = model.draw(seen, generator)
    y = model.reconstruct(seen, latents)
    divergence = draw.log_q - model.log_prior(draw)
    fit = -model.bound(seen, draw, y).sum() / model.scored(seen).sum()
    penalty, parts = regularise(model, seen, draw, latents, generator)
    return Loss(fit + penalty, latents, {"fit": fit, "kl": divergence.mean(), **parts})


def weak(model: HybridModel, batch: Batch, span: int, generator: torch.Generator) -> Loss:
    """Return the weak equation error as a likelihood, for an observed value.

    Arguments:
        model: The hybrid VAE, with the network on the rate.
        batch: Fully observed trajectories on shared times.
        span: Not used.
        generator: Source of the draws of the regularisers.

    Raises:
        ConfigError: If the network acts on the expert's output.
        DataError: If values are missing or times differ from member to member.
    """
    del span
    model = cast("HybridVAE", model)
    if model.decoder != "rate":
        raise ConfigError(
            'the weak form looks at rates, but the decoder is "output"; train with the elbo '
            'objective: Stage(objective="elbo").'
        )
    seen = model.windowed(batch)
    draw, latents = model.draw(seen)
    squares = weak_errors(model, seen, latents).pow(2).movedim(2, 0).flatten(1)
    fit = 0.5 * squares.mean(1).clamp_min(1e-12).log().mean()
    prior = -model.log_prior(draw).sum() / model.scored(seen).sum()
    penalty, parts = regularise(model, seen, draw, latents, generator)
    return Loss(fit + prior + penalty, latents, {"fit": fit, **parts})


def supervised(model: HybridModel, batch: Batch, span: int, generator: torch.Generator) -> Loss:
    """Return the negative log density of known latents under the posterior.

    Arguments:
        model: The hybrid VAE.
        batch: Simulated trajectories with `z_e` and `z_a`.
        span: Not used.
        generator: Not used.

    Raises:
        TrainingError: If the batch has no labels.
    """
    del span, generator
    model = cast("HybridVAE", model)
    if batch.z_e is None or batch.z_a is None:
        raise TrainingError(
            "the supervised objective needs trajectories whose z_e and z_a are known; "
            "give fit the sampler that expert_augment(model, data) returns."
        )
    seen = model.windowed(batch)
    known, given = model.known(seen)
    values, mask, steps = model.observed(seen)
    q_a, context, start = model.encoder.q_a(values, mask, steps, known)
    filtered = model.encoder.filtered(values, mask, steps, batch.z_a, context)
    q_u = model.encoder.q_u(filtered, values, mask, steps, known)
    parts = {"fit": -q_u.log_prob(model.unbounded(batch.z_e)).mean()}
    total = parts["fit"]
    if model.z_a_dim:
        parts["z_a"] = -q_a.log_prob(batch.z_a).mean()
        total = total + parts["z_a"]
    x0 = model.started(start, seen)
    if x0 is not None and batch.clean is not None:
        away = (x0 - batch.clean[:, 0]) / model.state_sd
        parts["x0"] = huber_loss(away, torch.zeros_like(away))
        total = total + parts["x0"]
    return Loss(total, Latents(model.bounded(q_u.mean, given), q_a.mean, x0), parts)
