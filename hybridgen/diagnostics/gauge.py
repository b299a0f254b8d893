"""How far a residual could be confused with its expert (see `hybridgen.models.penalty`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import xarray as xr

from hybridgen.batch import Batch
from hybridgen.errors import UnsupportedError
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, HybridModel, Latents
from hybridgen.models.penalty import orbits
from hybridgen.signals import Held

__all__ = ["Identification", "identification"]


@dataclass(frozen=True)
class Identification:
    """How far a residual could be confused with its expert.

    Arguments:
        cosine: Cosine of the angle between f_a and the span of df_e/dz_e on reflected states.
        share: Share of the squared rate that f_a carries along the data, from 0 to 1.
    """

    cosine: float
    share: float


@torch.no_grad()
def identification(
    model: HybridModel, data: xr.Dataset | Batch, generator: torch.Generator
) -> Identification:
    """Measure how far the residual of a hybrid could be confused with its expert.

    Arguments:
        model: A trained hybrid.
        data: Training trajectories.
        generator: Source of the states at which both are compared.

    Raises:
        UnsupportedError: If the model has no residual beside an expert.
        GradientError: If the expert has no gradient.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> data = pendulum.simulator.sample(8, seed=0)
        >>> model = APHYNITY(pendulum.expert)
        >>> model.bind(to_batch(data, pendulum.expert).to(torch.float32), window=50)
        >>> 0 <= identification(model, data, torch.Generator().manual_seed(0)).cosine <= 1
        True
    """
    if not isinstance(model, APHYNITY) or model.residual is None:
        raise UnsupportedError(
            "identification compares the residual of a hybrid with its expert; give an APHYNITY "
            f"with a residual, not {model.learner!r}."
        )
    batch = to_batch(data, model.expert, labels=False)
    batch = batch.to(model.state_sd).window(int(model.window))
    latents = model.encode(batch)
    count = 5000 if model.space == 0 else 32
    points = orbits(batch, model.states, count, generator).map(lambda v: v.flatten(0, 1))
    projection = model.projection(points, Latents(latents.z_e[:32], latents.z_a[:32]))
    y = batch.y
    if not y.isfinite().all():
        y = torch.where(y.isfinite(), y, model.reconstruct(batch, latents))
    u = None if batch.u is None else Held(batch.u)
    wide = Latents(latents.z_e[:, None, :], latents.z_a[:, None, :], u=u)
    f_a = model.f_a(y, wide.z_a) / model.rate_sd
    rate = model.field(batch.t, y, wide) / model.rate_sd
    return Identification(
        cosine=float((projection.parallel.mean() / projection.total.mean()).clamp(0, 1).sqrt()),
        share=float(f_a.pow(2).sum() / rate.pow(2).sum()),
    )
