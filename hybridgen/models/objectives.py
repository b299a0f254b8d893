r"""Objectives: from a batch to a loss.

**weak**: the squared weak equation error at the observed states, summed over states, in standard
deviations of the rate. No solver; the start of every training.

**rollout**: the squared error of the trajectory from the first observed state, summed over states,
in standard deviations of the state, integrated by RK4 on the save grid.

**supervised**: regression of the encoder on simulated trajectories whose latents are known,

.. math:: \frac{1}{P} \sum_p \frac{|\hat z_{e,p} - z_{e,p}|}{|z_{e,p}| + 0.01\,w_p}
          + 0.05\, \frac{1}{D} \sum_d h\!\left(\frac{\hat z_{a,d} - z_{a,d}}{\mathrm{sd}}\right),

:math:`w_p` the width of the valid range and :math:`h` Huber's function: absolute, since a few
members (a pendulum nearly at rest) hold almost no information and must not lead.
"""

from __future__ import annotations

import torch
from torch.nn.functional import huber_loss

from hybridgen.batch import Batch
from hybridgen.errors import DataError, TrainingError
from hybridgen.models.base import HybridModel, Loss
from hybridgen.models.weak import bumps, equation_error

__all__ = ["OBJECTIVES", "rollout", "supervised", "weak"]


def weak(model: HybridModel, batch: Batch) -> Loss:
    """Return the weak equation error of a batch.

    Arguments:
        model: The learner.
        batch: Fully observed trajectories on shared times.

    Raises:
        DataError: If values are missing or times differ from member to member.
    """
    seen = batch.window(int(model.window))
    if seen.t.ndim != 1 or (seen.mask is not None and not seen.mask.all()):
        raise DataError(
            "the weak form needs every state at every time, and times shared by all samples; "
            "use the rollout objective for gaps or irregular times."
        )
    latents = model.encode(seen)
    z = type(latents)(*(v[:, None, :] for v in latents))
    rates = model.field(seen.t[0], seen.y, z)
    error = equation_error(*bumps(seen.t), seen.y, rates) / model.rate_sd
    fit = error.pow(2).sum(-1).mean()
    return Loss(fit, latents, {"fit": fit})


def rollout(model: HybridModel, batch: Batch) -> Loss:
    """Return the trajectory error of a batch over the observed window.

    Arguments:
        model: The learner.
        batch: Trajectories whose first state is observed.
    """
    seen = batch.window(int(model.window))
    latents = model.encode(seen)
    solution = model.rollout(seen.x, seen.t, latents, method="grid_rk4")
    error = (solution.y - seen.y) / model.state_sd
    if seen.mask is not None:
        error = torch.where(seen.mask, error, 0.0)
    fit = error.pow(2).sum(-1).mean()
    return Loss(fit, latents, {"fit": fit})


def supervised(model: HybridModel, batch: Batch) -> Loss:
    """Return the error of the encoder on trajectories whose latents are known.

    Arguments:
        model: The learner.
        batch: Simulated trajectories with `z_e` and `z_a`.

    Raises:
        TrainingError: If the batch has no labels.
    """
    if batch.z_e is None or batch.z_a is None or model.expert is None:
        raise TrainingError(
            "the supervised objective needs trajectories whose z_e and z_a are known; "
            "give fit the sampler that expert_augment(model, data) returns."
        )
    latents = model.encode(batch)
    width = latents.z_e.new_tensor([p.high - p.low for p in model.expert.params])
    relative = (latents.z_e - batch.z_e).abs() / (batch.z_e.abs() + 0.01 * width)
    parts = {"fit": relative.mean()}
    total = parts["fit"]
    if model.z_a_dim:
        sd = batch.z_a.std(0).clamp_min(1e-6)
        parts["z_a"] = huber_loss(latents.z_a / sd, batch.z_a / sd)
        total = total + 0.05 * parts["z_a"]
    return Loss(total, latents, parts)


OBJECTIVES = {"weak": weak, "rollout": rollout, "supervised": supervised}
