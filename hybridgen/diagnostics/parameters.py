r"""Which parameters the data determine.

With :math:`s_k` how wide a parameter is after the data and :math:`c_k` how wide if all others were
known, both as parts of its prior (see `hybridgen.diagnostics.linear`), it is

- `identified` where :math:`s_k < 1/3`, and then `at_bound` if more than one estimate in ten lies
  at an end of the encoder's box: the truth may well be outside;
- in a `trade_off` where :math:`s_k \ge 1/3` although :math:`c_k < 1/3`, and its multiple
  correlation with the others, :math:`\sqrt{1 - (c_k / s_k)^2}`, is above 0.95;
- `flat` otherwise: whatever its value, the data look much alike.

A parameter is what it is for most of the trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import xarray as xr
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.diagnostics.linear import Coordinate, LinearFit
from hybridgen.errors import ParameterError, nearest
from hybridgen.models import HybridModel, Inferred

__all__ = ["Identifiability", "Parameter", "identifiability"]

Verdict = Literal["identified", "flat", "trade_off", "at_bound"]

NARROW, TIED, AT_BOUND = 1 / 3, 0.95, 0.1


@dataclass(frozen=True)
class Parameter:
    """What the data say about one parameter, latent or initial value.

    Arguments:
        name: Its name.
        kind: `"z_e"`, `"z_a"` or `"x0"`.
        unit: Its unit.
        verdict: `"identified"`, `"flat"`, `"trade_off"` or `"at_bound"`.
        share: For how many of the trajectories that holds, from 0 to 1.
        sd: Standard deviation after the data, in `unit`; the median over trajectories.
        wide: The same in standard deviations of the prior, s.
        alone: The same if all others were known, c.
        partner: What it correlates with most; empty if there is nothing else.
        correlation: The correlation with it, as a median over trajectories.
        at_bound: The share of trajectories whose estimate lies at an end of the encoder's box.
    """

    name: str
    kind: str
    unit: str
    verdict: Verdict
    share: float
    sd: float
    wide: float
    alone: float
    partner: str
    correlation: float
    at_bound: float

    def __str__(self) -> str:
        text = f"{self.name} ({self.kind}): {self.verdict}"
        if self.verdict == "trade_off":
            text += f" with {self.partner} (correlation {self.correlation:.2f})"
        if self.verdict == "at_bound":
            text += f" in {100 * self.at_bound:.0f} % of the trajectories"
        return f"{text}; sd {self.sd:.2g} {self.unit}, {self.wide:.2g} of its prior's"


@dataclass(frozen=True)
class Identifiability:
    """What the data say about each parameter.

    Arguments:
        parameters: Inferred expert parameters, latents, and initial values, in this order.
    """

    parameters: tuple[Parameter, ...]

    def __getitem__(self, name: str) -> Parameter:
        for p in self.parameters:
            if p.name == name:
                return p
        raise ParameterError(
            f"no parameter {name!r} was fitted; {nearest(name, [p.name for p in self.parameters])}"
        )

    def __str__(self) -> str:
        return "\n".join(map(str, self.parameters))


@torch.no_grad()
def identifiability(
    model: HybridModel,
    data: xr.Dataset | Batch,
    refined: Inferred | None = None,
    *,
    noise: float | Tensor | None = None,
) -> Identifiability:
    """Say of each parameter whether the data determine it, by the rules at the top of the module.

    Arguments:
        model: A learner that is bound to data.
        data: Trajectories; only the observed window is looked at.
        refined: The least-squares fit, from `refine`; None for `best_fit`.
        noise: Standard deviation of the noise, one or `(C,)`; None to take the model's.

    Returns:
        The verdicts.

    Raises:
        DataError: If no trajectory could be fitted.

    Example:
        >>> from hybridgen import APHYNITY
        >>> from hybridgen.io import to_batch
        >>> from hybridgen.simulators import pendulum
        >>> data = pendulum.simulator.sample(8, seed=0)
        >>> model = APHYNITY(pendulum.truth, residual=None)
        >>> model.bind(to_batch(data, pendulum.truth).to(torch.float32), window=50)
        >>> identifiability(model, data)["omega0"].verdict
        'identified'
    """
    fit = LinearFit(model, data, refined, noise)
    return Identifiability(tuple(_judge(fit, k) for k in range(len(fit.coordinates))))


def _judge(fit: LinearFit, k: int) -> Parameter:
    c, wide, alone = fit.coordinates[k], fit.wide[:, k], fit.alone[:, k]
    tied = (1.0 - (alone / wide) ** 2).clamp_min(0.0).sqrt() > TIED
    identified = wide < NARROW
    traded = ~identified & (alone < NARROW) & tied
    flat = ~identified & ~traded
    shares = {"identified": identified, "trade_off": traded, "flat": flat}
    verdict: Any = max(shares, key=lambda name: int(shares[name].sum()))
    members = shares[verdict]
    others = [i for i in range(len(fit.coordinates)) if i != k]
    partner, correlation = "", 0.0
    if others:
        rho = fit.correlation[members][:, k, others]
        best = int(rho.abs().median(0).values.argmax())
        partner, correlation = fit.coordinates[others[best]].name, float(rho[:, best].median())
    share, at_bound = float(members.double().mean()), _at_bound(fit, c)
    if verdict == "identified" and at_bound > AT_BOUND:
        verdict = "at_bound"
    middle = float(wide.median())
    return Parameter(
        name=c.name,
        kind=c.kind,
        unit=c.unit,
        verdict=verdict,
        share=share,
        sd=middle * c.prior,
        wide=middle,
        alone=float(alone.median()),
        partner=partner,
        correlation=correlation,
        at_bound=at_bound,
    )


def _at_bound(fit: LinearFit, c: Coordinate) -> float:
    if c.kind != "z_e":
        return 0.0
    low, high = (float(b[c.column]) for b in (fit.model.box_low, fit.model.box_high))
    value, slack = fit.fitted[c.kind][:, c.column], 1e-4 * (high - low)
    return float(((value < low + slack) | (value > high - slack)).double().mean())
