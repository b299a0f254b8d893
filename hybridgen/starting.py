"""Where the fit of a single system starts: the best of many draws of the expert's parameters.

Trajectories of a non-linear system have many local minima in their parameters, and one system has
no other systems to learn from. So the expert alone is rolled out for draws all over its ranges,
the best of them are refined by least squares, and training starts from the best of those.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.models import APHYNITY, HybridModel, Inferred, Latents
from hybridgen.models.encoders import ConvolutionalEncoder, GlobalEncoder, GlobalParameters
from hybridgen.refinement import refine

__all__ = ["start_single_system"]

REFINED = 12
"""How many of the draws are refined."""


@torch.no_grad()
def start_single_system(model: HybridModel, train: Batch, generator: torch.Generator) -> None:
    """Set the parameters of a single system to those with which its expert alone does best.

    Arguments:
        model: The model, bound to the train split; its encoder is changed in place.
        train: Trajectories of the system; the one that moves most is fitted.
        generator: Source of the draws.
    """
    encoder, settings = model.encoder, model.config["encoder"]
    if not isinstance(encoder, GlobalEncoder) or not isinstance(settings, GlobalParameters):
        return
    if not isinstance(model, APHYNITY) or not settings.starts or not model.params:
        return
    alone = _expert_alone(model)
    run = _liveliest(alone, train)
    drawn = _draws(alone, run, settings.starts, generator)
    copies = run[torch.zeros(settings.starts, dtype=torch.int64)]
    best = _chi2(alone, copies, drawn).argsort()[:REFINED]
    drawn = Inferred(drawn.z_e[best], drawn.z_a[best], drawn.x0[best])
    refined = refine(alone, copies[best], start=drawn, iterations=30)
    winner = int(refined.chi2.nan_to_num(torch.inf).argmin())
    _set(model, encoder, refined.z_e[winner], refined.x0[winner], run)


def _expert_alone(model: APHYNITY) -> APHYNITY:
    """Return the same model without its residual, with the same scales."""
    alone = APHYNITY(
        model.expert,
        residual=None,
        encoder=model.config["encoder"],
        noise=model.noise,
        infer_x0=model.infer_x0,
    ).to(model.state_sd)
    shared = {k: v for k, v in model.state_dict().items() if not k.startswith("residual")}
    for k in ("z_a_mean", "z_a_sd", "encoder.values"):
        shared.pop(k)
    alone.load_state_dict(shared, strict=False)
    return alone


def _liveliest(model: APHYNITY, train: Batch) -> Batch:
    seen = train.window(int(model.window))
    values, mask, _ = model.observed(seen)
    spread = torch.where(mask > 0, values, 0.0).pow(2).flatten(1).sum(1)
    best = int(spread.argmax())
    return seen[best : best + 1]


def _draws(model: APHYNITY, run: Batch, n: int, generator: torch.Generator) -> Inferred:
    """Draw parameters from the encoder's box, and hidden initial states from their ranges."""
    low, high = model.box_low, model.box_high
    u = torch.rand(n, len(low), generator=generator).to(low)
    latents = model.encode(run)
    z_e = low + (high - low) * u
    for i, p in enumerate(model.params):
        if p.known:
            z_e[:, i] = latents.z_e[0, i]
    x0 = model.initial(run, latents).repeat(n, *(1,) * (1 + model.space))
    for i, state in enumerate(model.states):
        if not state.observed and state.low is not None and state.high is not None:
            draw = torch.rand(n, generator=generator).to(x0)
            x0[:, i] = state.low + (state.high - state.low) * draw
    return Inferred(z_e, x0.new_zeros(n, 0), x0)


def _chi2(model: APHYNITY, copies: Batch, drawn: Inferred) -> Tensor:
    """Return the misfit of each draw, infinite where it cannot be integrated."""
    latents = Latents(drawn.z_e, drawn.z_a, drawn.x0)
    error, _ = model.misfit(model.reconstruct(copies, latents), copies)
    return error.pow(2).flatten(1).sum(1).nan_to_num(torch.inf)


def _set(model: APHYNITY, encoder: GlobalEncoder, z_e: Tensor, x0: Tensor, run: Batch) -> None:
    """Write parameters and initial state into the encoder."""
    low, high = model.box_low, model.box_high
    inside = ((z_e - low) / (high - low)).clamp(0.01, 0.99)
    encoder.values[: len(model.free)] = inside.logit()[model.free]
    if isinstance(encoder.initial, ConvolutionalEncoder):
        code = model.start.code_of(x0[None], run, model.link_mean, model.link_sd)
        encoder.initial.start_at(code[0])
