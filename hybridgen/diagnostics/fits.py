"""Least-squares fits from many starts, for models that need not be trained."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
import xarray as xr
from torch import Tensor
from torch.quasirandom import SobolEngine

from hybridgen.batch import Batch
from hybridgen.io import to_batch
from hybridgen.models import HybridModel, Inferred, Latents
from hybridgen.refinement import Refined, refine

__all__ = ["best_fit", "careful_copy", "noise_sd", "pick"]

Found = TypeVar("Found", bound=Inferred)


@torch.no_grad()
def best_fit(
    model: HybridModel,
    data: xr.Dataset | Batch,
    *,
    noise: float | Tensor | None = None,
    starts: int = 64,
    keep: int = 4,
) -> Refined:
    """Refine each trajectory from the best of many starts, so that the model need not be trained.

    Arguments:
        model: A learner that is bound to data.
        data: Trajectories; only the observed window is looked at.
        noise: Standard deviation of the noise, one or `(C,)`; None to take the model's.
        starts: How many parameters are tried beside the amortised answer, spread evenly over the
            encoder's box, and with them initial states without data over their range.
        keep: How many of the starts are refined.

    Returns:
        The fit with the smallest chi2 of each trajectory, in double precision.

    Example:
        >>> from hybridgen import APHYNITY
        >>> from hybridgen.simulators import pendulum
        >>> data = pendulum.simulator.sample(4, seed=0)
        >>> model = APHYNITY(pendulum.truth, residual=None)
        >>> model.bind(to_batch(data, pendulum.truth).to(torch.float32), window=50)
        >>> error = best_fit(model, data).z_e[:, 0] - torch.from_numpy(data["omega0"].values)
        >>> bool(error.abs().max() < 0.05)
        True
    """
    careful, seen = careful_copy(model, data)
    tried = _starts(careful, careful.infer(seen), starts)
    # row s * n + i is start s of member i
    n, rows = len(seen), torch.arange(len(tried.z_e), device=seen.y.device)
    parts = rows.split(max(1, 2**22 // seen.y[0].numel()))
    chi2 = torch.cat([_misfit(careful, seen[part % n], pick(tried, part)) for part in parts])
    keep = min(keep, starts + 1)
    best = (chi2.reshape(-1, n).argsort(dim=0)[:keep] * n + rows[:n]).flatten()
    sigma = noise_sd(careful, seen, noise)
    found = refine(careful, seen[best % n], start=pick(tried, best), noise=sigma)
    winner = found.chi2.nan_to_num(torch.inf).reshape(keep, n).argmin(0)
    return pick(found, winner * n + rows[:n])


def careful_copy(model: HybridModel, data: xr.Dataset | Batch) -> tuple[HybridModel, Batch]:
    """Return a double-precision copy that integrates finely, and the observed windows."""
    careful = copy.deepcopy(model).double()
    batch = to_batch(data, careful.expert, labels=False)
    seen = batch.to(careful.state_sd).window(int(careful.window))
    found = careful.infer(seen)
    ok = found.x0.isfinite().flatten(1).all(1).nonzero()[:64, 0]
    some = pick(found, ok)
    steps = careful.rollout(some.x0, seen[ok].t, Latents(some.z_e, some.z_a, u=some.u)).substeps
    careful.substeps.copy_(torch.maximum(careful.substeps, steps.max().clamp(1, 16)))
    return careful, seen


def noise_sd(model: HybridModel, seen: Batch, noise: float | Tensor | None) -> Tensor:
    """Return the noise given, or else the model's, never quite zero, with shape `(C, *1)`."""
    if noise is None:
        sd = model.noise_level(seen)
    else:
        sd = torch.as_tensor(noise).to(model.link_sd)
        sd = sd.reshape(model.link_sd.shape) if sd.ndim else sd
    return sd.expand_as(model.link_sd).maximum(1e-5 * model.link_sd)


def _starts(model: HybridModel, amortised: Inferred, count: int) -> Inferred:
    """Return starts for N members: their amortised answers, then `count` times N others."""
    hidden = [] if model.space else [i for i, s in enumerate(model.states) if not s.observed]
    bounds = amortised.x0.new_tensor([model.states[i].bounds for i in hidden]).reshape(-1, 2)
    low = torch.cat([model.box_low[model.free], bounds[:, 0]])
    high = torch.cat([model.box_high[model.free], bounds[:, 1]])
    n, p = len(amortised.z_e), len(model.free)
    z_e, z_a, x0 = (
        v.repeat(count + 1, *(1,) * (v.ndim - 1))
        for v in (amortised.z_e, amortised.z_a, amortised.x0)
    )
    if count and len(low):
        # the first point of a Sobol sequence is a corner
        u = SobolEngine(len(low)).draw(count + 1, dtype=torch.float64)[1:]
        values = (low + (high - low) * u.to(low)).repeat_interleave(n, dim=0)
        z_e[n:, model.free] = values[:, :p]
        if hidden:
            x0[n:, hidden] = values[:, p:]
    return Inferred(z_e, z_a, x0)


def _misfit(model: HybridModel, seen: Batch, found: Inferred) -> Tensor:
    y = model.reconstruct(seen, Latents(found.z_e, found.z_a, found.x0))
    return model.misfit(y, seen)[0].pow(2).flatten(1).sum(1).nan_to_num(torch.inf)


def pick(found: Found, rows: Tensor) -> Found:
    """Return what was found for some members."""
    chosen: dict[str, Any] = {
        f.name: value[rows]
        for f in fields(found)
        if isinstance(value := getattr(found, f.name), Tensor)
    }
    if found.u is not None:
        chosen["u"] = type(found.u)(*(v[rows] for v in found.u))
    return replace(found, **chosen)
