r"""Objectives: from a batch to a loss.

**weak**: the squared weak equation error at the observed states, summed over states, in standard
deviations of the rate. No solver; the start of every training.

**rollout**: the squared error of the trajectory, summed over states, in standard deviations of the
training set on the scale of the noise, integrated by RK4 on the save grid: from the initial state
over the whole window, or over `span` intervals from a random time at which every state was
observed. Short spans have no local minima, long ones weigh the noise of the start less.

**supervised**: regression of the encoder on simulated trajectories whose latents are known,

.. math:: \frac{1}{P} \sum_p \frac{|\hat z_{e,p} - z_{e,p}|}{|z_{e,p}| + 0.01\,w_p}
          + 0.05\, \frac{1}{D} \sum_d h\!\left(\frac{\hat z_{a,d} - z_{a,d}}{\mathrm{sd}}\right),

:math:`w_p` the width of the valid range and :math:`h` Huber's function: absolute, since a few
members (a pendulum nearly at rest) hold almost no information and must not lead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from hybridgen.batch import Batch
from hybridgen.errors import ConfigError, DataError, TrainingError
from hybridgen.models.base import HybridModel
from hybridgen.models.latents import Latents, Loss
from hybridgen.models.weak import bumps, equation_error
from hybridgen.signals import Held

__all__ = [
    "OBJECTIVES",
    "Objective",
    "objective_of",
    "rollout",
    "supervised",
    "weak",
    "weak_errors",
]

Objective = Callable[[HybridModel, Batch, int, torch.Generator], Loss]


def weak(model: HybridModel, batch: Batch, span: int, generator: torch.Generator) -> Loss:
    """Return the weak equation error of a batch.

    Arguments:
        model: The learner.
        batch: Fully observed trajectories on shared times.
        span: Not used.
        generator: Not used.

    Raises:
        DataError: If values are missing or times differ from member to member.
    """
    del span, generator
    seen = batch.window(int(model.window))
    latents = model.encode(seen)
    fit = weak_errors(model, seen, latents).pow(2).sum(2).mean()
    return Loss(fit, latents, {"fit": fit})


def weak_errors(model: HybridModel, seen: Batch, latents: Latents) -> Tensor:
    """Return the weak equation errors in standard deviations of the rate.

    Arguments:
        model: The learner.
        seen: Fully observed windows on shared times.
        latents: What was inferred of them.

    Returns:
        Errors of each trajectory, test function and state, with shape `(B, K, C, *S)`.

    Raises:
        DataError: If values are missing or times differ from member to member.
    """
    if seen.t.ndim != 1 or (seen.mask is not None and not seen.mask.all()):
        raise DataError(
            "the weak form needs every state at every time, and times shared by all samples; "
            "use the rollout objective for gaps or irregular times."
        )
    wide = Latents(
        latents.z_e[:, None, :],
        latents.z_a[:, None, :],
        u=None if seen.u is None else Held(seen.u),
    )
    rates = model.field(seen.t, seen.y, wide)
    shape = rates.shape
    error = equation_error(*bumps(seen.t), seen.y.flatten(2), rates.flatten(2))
    return error.unflatten(-1, shape[2:]) / model.rate_sd


def rollout(model: HybridModel, batch: Batch, span: int, generator: torch.Generator) -> Loss:
    """Return the trajectory error of a batch over the observed window, or over parts of it.

    Arguments:
        model: The learner.
        batch: Trajectories.
        span: Over how many intervals; zero for the whole window from the initial state.
        generator: Source of the random starts.
    """
    seen = batch.window(int(model.window))
    latents = model.encode(seen)
    if span and span < seen.y.shape[1] - 1:
        y, part = _from_random_start(model, seen, latents, span, generator)
    else:
        y, part = model.reconstruct(seen, latents), seen
    error, observed = model.misfit(y, part)
    fit = len(model.states) * error.pow(2).sum() / observed.sum().clamp_min(1.0)
    return Loss(fit, latents, {"fit": fit})


def _from_random_start(
    model: HybridModel, seen: Batch, latents: Latents, span: int, generator: torch.Generator
) -> tuple[Tensor, Batch]:
    """Roll out over `span` intervals from an observed state; the first states are not scored."""
    if not model.is_fully_observed:
        raise DataError(
            "a roll-out over a span starts from observed states, but some state is declared as "
            "not observed; roll out over the whole window: span=0."
        )
    start = int(torch.randint(seen.y.shape[1] - span, (), generator=generator))
    part = seen.between(start, start + span + 1)
    whole = part.x.isfinite().flatten(1).all(1)
    if part.mask is not None:
        whole = whole & part.mask[:, 0].flatten(1).all(1)
    # a member that cannot start here rests at the mean and is not scored
    x0 = torch.where(_like(whole, part.x), part.x, model.state_mean)
    mask = torch.ones_like(part.y, dtype=torch.bool) if part.mask is None else part.mask.clone()
    mask &= _like(whole, mask)
    mask[:, 0] = False
    out = model.rollout(
        x0,
        part.t,
        model.driven(latents, seen),
        method="grid_rk4",
        substeps=int(model.substeps),
    )
    return out.y, part.replace(mask=mask)


def _like(flags: Tensor, y: Tensor) -> Tensor:
    return flags[(..., *(None,) * (y.ndim - 1))]


def supervised(model: HybridModel, batch: Batch, span: int, generator: torch.Generator) -> Loss:
    """Return the error of the encoder on trajectories whose latents are known.

    Arguments:
        model: The learner.
        batch: Simulated trajectories with `z_e` and `z_a`, and their initial states in `x0`.
        span: Not used.
        generator: Not used.

    Raises:
        TrainingError: If the batch has no labels.
    """
    del span, generator
    if batch.z_e is None or batch.z_a is None or model.expert is None:
        raise TrainingError(
            "the supervised objective needs trajectories whose z_e and z_a are known; "
            "give fit the sampler that expert_augment(model, data) returns."
        )
    latents = model.encode(batch)
    free = [i for i, p in enumerate(model.params) if not p.known]
    width = latents.z_e.new_tensor([model.params[i].high - model.params[i].low for i in free])
    z_e, truth = latents.z_e[:, free], batch.z_e[:, free]
    relative = (z_e - truth).abs() / (truth.abs() + 0.01 * width)
    parts = {"fit": relative.mean()}
    total = parts["fit"]
    if model.z_a_dim:
        sd = batch.z_a.std(0).clamp_min(1e-6)
        parts["z_a"] = huber_loss(latents.z_a / sd, batch.z_a / sd)
        total = total + 0.05 * parts["z_a"]
    if latents.x0 is not None and batch.clean is not None:
        start = (latents.x0 - batch.clean[:, 0]) / model.state_sd
        parts["x0"] = huber_loss(start, torch.zeros_like(start))
        total = total + 0.05 * parts["x0"]
    return Loss(total, latents, parts)


OBJECTIVES: dict[str, Objective] = {
    "weak": weak,
    "rollout": rollout,
    "supervised": supervised,
}


def objective_of(model: HybridModel, name: str) -> Objective:
    """Return an objective of a learner: its own, or else the one that all have.

    Arguments:
        model: The learner.
        name: Name of the objective.

    Raises:
        ConfigError: If the learner has no objective of that name.
    """
    known: dict[str, Objective] = {**OBJECTIVES, **getattr(model, "objectives", {})}
    if name not in known:
        raise ConfigError(
            f"{type(model).__name__} has no objective {name!r}; it has {', '.join(known)}."
        )
    return known[name]
