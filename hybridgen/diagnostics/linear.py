r"""What the data say about everything that was fitted, to first order around the fit.

With :math:`p` the parameters, latents and initial states in standard deviations of their prior
(a uniform one over the valid range for :math:`z_e`), and :math:`r` the residuals in those of the
noise, the information of the data is :math:`A = J^\top J` with
:math:`J = \partial r / \partial p`, and

.. math:: s_k = \sqrt{[(A + I)^{-1}]_{kk}}, \qquad c_k = 1 / \sqrt{A_{kk} + 1}

are how wide a parameter is after the data, and how wide if all others were known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import xarray as xr
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.diagnostics.fits import best_fit, careful_copy, noise_sd
from hybridgen.errors import DataError
from hybridgen.models import HybridModel, Inferred, Latents

__all__ = ["Coordinate", "LinearFit"]


class Coordinate(NamedTuple):
    """Something that was fitted.

    Arguments:
        name: Its name.
        kind: `"z_e"`, `"z_a"` or `"x0"`.
        unit: Its unit.
        column: Which of its kind it is.
        prior: Standard deviation of its prior, in `unit`.
    """

    name: str
    kind: str
    unit: str
    column: int
    prior: float


class LinearFit:
    """The residuals of a fit and their derivatives, in standard deviations of noise and prior.

    Members that could not be fitted are left out; B counts the others, R the residuals of one and
    K what was fitted.

    Arguments:
        model: The learner.
        data: Trajectories.
        refined: The fit; None to make one.
        noise: Standard deviation of the noise; None for the model's, or if that is not declared,
            the smaller of what the data say and what the fit leaves.

    Attributes:
        count: How many trajectories there are, whether fitted or not.
        members: Which members were fitted, with shape `(B,)`.
        fitted: z_e, z_a and x0 by kind, in their units.
        residual: Residuals r, zero where nothing was observed, with shape `(B, T, C, *S)`.
        weight: One where something was observed, zero elsewhere, with the same shape.
        coordinates: What was fitted.
        wide: How wide each is after the data, s, with shape `(B, K)`.
        alone: How wide each is if all others were known, c, with shape `(B, K)`.
        correlation: Correlations after the data, with shape `(B, K, K)`.

    Raises:
        DataError: If no trajectory could be fitted.
    """

    def __init__(
        self,
        model: HybridModel,
        data: xr.Dataset | Batch,
        refined: Inferred | None,
        noise: float | Tensor | None,
    ) -> None:
        found = best_fit(model, data, noise=noise) if refined is None else refined
        self.model, self.seen = careful_copy(model, data)
        self.count, like = len(self.seen), self.seen.y
        fitted = {k: getattr(found, k).to(like) for k in ("z_e", "z_a", "x0")}
        error, _ = self._error(fitted)
        self.members = error.isfinite().flatten(1).all(1).nonzero()[:, 0]
        if not len(self.members):
            raise DataError(
                "no trajectory could be fitted; look at refine(model, data).convergence, and at "
                "the ranges of the parameters."
            )
        self.seen = self.seen[self.members]
        self.fitted = {k: v[self.members] for k, v in fitted.items()}
        error, self.weight = self._error(self.fitted)
        self.noise_is_known = noise is not None or model.noise.sd is not None
        self.sigma = self._noise(error, noise)
        self.residual = error / self.sigma
        self.coordinates = self._coordinates()
        self._posterior()

    def _error(self, fitted: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what a fit leaves and where there is anything, with shape `(B, T, C, *S)`."""
        y = self.model.reconstruct(self.seen, Latents(fitted["z_e"], fitted["z_a"], fitted["x0"]))
        error, weight = self.model.misfit(y, self.seen)
        return error * self.model.link_sd, weight

    def _noise(self, error: Tensor, noise: float | Tensor | None) -> Tensor:
        sd = noise_sd(self.model, self.seen, noise)
        if self.noise_is_known:
            return sd
        axes = (0, 1, *range(3, error.ndim))
        left = error.pow(2).sum(axes) / self.weight.sum(axes).clamp_min(1.0)
        left = torch.where(left > 0, left.sqrt(), torch.inf).reshape(sd.shape)
        return torch.minimum(sd, left).maximum(1e-5 * self.model.link_sd)

    def _coordinates(self) -> list[Coordinate]:
        """Return what was fitted; a field keeps its initial state, as in `refine`."""
        model = self.model
        free = [(i, model.params[i]) for i in model.free]
        made = [
            Coordinate(p.name, "z_e", p.unit, i, (p.high - p.low) / math.sqrt(12.0))
            for i, p in free
        ]
        made += [
            Coordinate(f"z_a_{i}", "z_a", "1", i, max(float(sd), 1e-6))
            for i, sd in enumerate(model.z_a_sd)
        ]
        if model.space == 0:
            made += [
                Coordinate(s.name, "x0", s.unit, i, float(model.state_sd[i]))
                for i, s in enumerate(model.states)
            ]
        return made

    def _posterior(self) -> None:
        jacobian = self._jacobian()
        k = jacobian.shape[-1]
        whole = jacobian.mT @ jacobian + torch.eye(k, dtype=jacobian.dtype).to(jacobian)
        # scaled to unit diagonal, so that the inverse is exact whatever the parameters' units
        self.alone = whole.diagonal(dim1=1, dim2=2).rsqrt()
        inverse = torch.linalg.inv(whole * self.alone[:, :, None] * self.alone[:, None, :])
        inflation = inverse.diagonal(dim1=1, dim2=2).sqrt()
        self.wide = self.alone * inflation
        self.correlation = inverse / inflation[:, :, None] / inflation[:, None, :]

    def _jacobian(self) -> Tensor:
        """Return J by central differences, with shape `(B, R, K)`."""
        columns = [self.residual.new_zeros(len(self.members), self.residual[0].numel(), 0)]
        for c in self.coordinates:
            sides = []
            for step in (1e-4, -1e-4):
                moved = self.fitted[c.kind].clone()
                moved[:, c.column] += step * c.prior
                sides.append(self._error({**self.fitted, c.kind: moved})[0])
            change = (sides[0] - sides[1]) / (2e-4 * self.sigma)
            columns.append(change.flatten(1).nan_to_num(0.0, 0.0, 0.0)[..., None])
        return torch.cat(columns, dim=-1)
