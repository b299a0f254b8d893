r"""Whether an expert can be right: what its best fit leaves must be white noise of the right size.

The lag-one autocorrelation :math:`\rho` of the residual needs no noise level. It is the share of
the residual that its neighbour predicts, and for a right expert :math:`\sqrt n \rho` is standard
normal, or lower, since the fit takes its share. (A misfit that swings faster than four samples a
period is negatively correlated and is not seen this way.) The squared residuals, in variances of
the noise, which must be known for that,
sum to :math:`\chi^2` with as many degrees of freedom as there are observations, less the
:math:`\sum_k (1 - s_k^2)` that the fit took (see `hybridgen.diagnostics.linear`).

A misfit below a thousandth of the signal's standard deviation counts as noise: no integrator and
no fit is exact. The scores of trajectories are pooled after a cap at four, so that a single one
that was fitted badly does not speak for all.

References:
    Testing for Serial Correlation in Least Squares Regression: I (Durbin & Watson, 1950),
    doi:10.1093/biomet/37.3-4.409
    The Distribution of Chi-Square (Wilson & Hilferty, 1931), doi:10.1073/pnas.17.12.684
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.diagnostics.linear import LinearFit
from hybridgen.models import HybridModel, Inferred

__all__ = ["Misspecification", "misspecification"]

CAP = 4.0


@dataclass(frozen=True)
class Misspecification:
    """Whether an expert can be right, from what its best fit leaves of the data.

    Arguments:
        score: Of each trajectory, how many standard deviations its residual is from that of a
            right expert, with shape `(B,)`; NaN where it could not be fitted.
        autocorrelation: Lag-one autocorrelation of its residual, with shape `(B,)`.
        chi2: Its squared residual per degree of freedom, with shape `(B,)`: 1 for a right expert.
        noise_is_known: Whether the noise level is known, so that chi2 counts.
        statistic: All scores pooled, standard normal for a right expert, or lower.
        p_value: How probable a larger statistic is for a right expert.
        misspecified: Whether that is less than `level`.
        level: The level of the test.
    """

    score: Tensor
    autocorrelation: Tensor
    chi2: Tensor
    noise_is_known: bool
    statistic: float
    p_value: float
    misspecified: bool
    level: float

    def __str__(self) -> str:
        says = "cannot be right" if self.misspecified else "explains the data"
        rho, chi2 = (float(v.nanmedian()) for v in (self.autocorrelation, self.chi2))
        known = "known" if self.noise_is_known else "estimated"
        return (
            f"the expert {says} (p = {self.p_value:.2g}): the residual's neighbours predict "
            f"{100 * rho:.0f} % of it, and it has {chi2:.2g} times the variance of the {known} "
            "noise"
        )


@torch.no_grad()
def misspecification(
    model: HybridModel,
    data: xr.Dataset | Batch,
    refined: Inferred | None = None,
    *,
    noise: float | Tensor | None = None,
    level: float = 1e-3,
    floor: float = 1e-3,
) -> Misspecification:
    """Ask whether a model explains the data, up to white noise.

    Arguments:
        model: A learner that is bound to data, such as `APHYNITY(expert, residual=None)`.
        data: Trajectories; only the observed window is looked at.
        refined: The least-squares fit, from `refine`; None for `best_fit`.
        noise: Standard deviation of the noise, one or `(C,)`; None to take the model's. If none
            is declared, only the autocorrelation counts.
        level: Below which p-value the expert is called misspecified.
        floor: What counts as noise in any case, in standard deviations of the signal.

    Returns:
        The verdict.

    Raises:
        DataError: If no trajectory could be fitted.

    Example:
        >>> from hybridgen import APHYNITY
        >>> from hybridgen.io import to_batch
        >>> from hybridgen.simulators import pendulum
        >>> data = pendulum.simulator.sample(8, seed=0)
        >>> for expert in (pendulum.truth, pendulum.expert):
        ...     model = APHYNITY(expert, residual=None)
        ...     model.bind(to_batch(data, expert).to(torch.float32), window=50)
        ...     print(misspecification(model, data).misspecified)
        False
        True
    """
    fit = LinearFit(model, data, refined, noise)
    sigma = fit.sigma / fit.model.link_sd
    residual = fit.residual * sigma
    rho, z_rho = _autocorrelation(residual.flatten(2), fit.weight.flatten(2), floor)
    freedom = (fit.weight.flatten(1).sum(1) - (1.0 - fit.wide**2).sum(1)).clamp_min(1.0)
    chi2 = (residual.pow(2) / (sigma**2 + floor**2)).flatten(1).sum(1) / freedom
    scores = torch.stack([z_rho, _excess(chi2, freedom)] if fit.noise_is_known else [z_rho])
    statistic = float(scores.clamp_max(CAP).sum(1).max()) / math.sqrt(scores.shape[1])
    # the larger of two statistics has two chances to be large
    p_value = min(1.0, len(scores) * 0.5 * math.erfc(statistic / math.sqrt(2.0)))
    empty = torch.full((fit.count,), torch.nan).to(rho)
    return Misspecification(
        score=empty.index_copy(0, fit.members, scores.amax(0)),
        autocorrelation=empty.index_copy(0, fit.members, rho),
        chi2=empty.index_copy(0, fit.members, chi2),
        noise_is_known=fit.noise_is_known,
        statistic=statistic,
        p_value=p_value,
        misspecified=p_value < level,
        level=level,
    )


def _excess(chi2: Tensor, freedom: Tensor) -> Tensor:
    """Return standard normal scores of chi2 per degree of freedom, by Wilson and Hilferty."""
    spread = 2.0 / (9.0 * freedom)
    return (chi2.pow(1.0 / 3.0) - 1.0 + spread) / spread.sqrt()


def _autocorrelation(r: Tensor, weight: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Return lag-one autocorrelations and their scores, `(B,)`, of residuals `(B, T, C)`."""
    pairs = weight[:, 1:] * weight[:, :-1]
    n = pairs.sum(1)
    power = (r * r * weight).sum(1) / weight.sum(1).clamp_min(1.0) + floor**2
    rho = (r[:, 1:] * r[:, :-1] * pairs).sum(1) / (n * power).clamp_min(1e-300)
    used = (n > 1).to(r)
    count = used.sum(1).clamp_min(1.0)
    return (rho * used).sum(1) / count, (rho * n.sqrt() * used).sum(1) / count.sqrt()
