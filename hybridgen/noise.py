"""Observation noise: what stands between the state and the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hybridgen import rng
from hybridgen.errors import DataError, ParameterError

__all__ = ["GaussianNoise", "estimate_sd"]


@dataclass(frozen=True)
class GaussianNoise:
    r"""Additive independent noise, :math:`y_{obs} = y + \sigma \epsilon,\ \epsilon \sim N(0, I)`.

    Arguments:
        sd: Standard deviation, one number for all states or one for each, in state units.

    Raises:
        ParameterError: If a standard deviation is negative or not finite.

    Example:
        >>> y = torch.zeros(2, 3, 1)
        >>> GaussianNoise(0.1).add(y, root_seed=0, stream="noise", indices=[0, 1]).shape
        torch.Size([2, 3, 1])
    """

    sd: float | tuple[float, ...]

    def __post_init__(self) -> None:
        for sd in self.sd if isinstance(self.sd, tuple) else (self.sd,):
            if not 0.0 <= sd < float("inf"):
                raise ParameterError(f"noise sd is {sd}; give a finite number, not negative.")

    def scaled(self, factor: float) -> GaussianNoise:
        """Return the noise with every standard deviation multiplied by `factor`."""
        if isinstance(self.sd, tuple):
            return GaussianNoise(tuple(factor * sd for sd in self.sd))
        return GaussianNoise(factor * self.sd)

    def scale(self, like: Tensor, space: int = 0) -> Tensor:
        """Return the standard deviations, with shape `(C,)` plus `space` ones, or `()`."""
        sd = like.new_tensor(self.sd)
        return sd[(..., *(None,) * space)] if sd.ndim else sd

    def add(
        self, y: Tensor, *, root_seed: int, stream: str, indices: ArrayLike, space: int = 0
    ) -> Tensor:
        """Return noisy copies of trajectories; a member's noise depends on its index alone.

        Arguments:
            y: Trajectories, with shape `(N, T, C, *S)`.
            root_seed: The seed of the study.
            stream: The name of the noise's random stream.
            indices: Member indices, with shape `(N,)`.
            space: How many spatial axes there are.

        Returns:
            Noisy trajectories, with shape `(N, T, C, *S)`.
        """
        draws = rng.normal(root_seed, stream, indices, y[0].numel())
        noise = torch.from_numpy(draws).to(y).reshape(y.shape)
        return y + self.scale(y, space) * noise


def estimate_sd(y: Tensor) -> Tensor:
    r"""Estimate the standard deviation of the noise on smooth trajectories.

    Fourth differences on equal steps wipe out a smooth signal and leave the noise,

    .. math:: \sigma^2 = \frac{1}{70} E\,(y_{i} - 4 y_{i+1} + 6 y_{i+2} - 4 y_{i+3} + y_{i+4})^2,

    taken per trajectory; the median over trajectories is not moved by a few rough ones.

    Arguments:
        y: Trajectories on equal time steps, with shape `(B, T, C)`.

    Returns:
        Standard deviations in state units, with shape `(C,)`.

    Raises:
        DataError: If there are fewer than five times.

    References:
        Residual variance and residual pattern in nonlinear regression (Gasser, Sroka &
        Jennen-Steinmetz, 1986), doi:10.1093/biomet/73.3.625
    """
    if y.shape[1] < 5:
        raise DataError(f"the noise needs at least 5 times to be estimated, got {y.shape[1]}.")
    fourth = y.diff(n=4, dim=1)
    return (fourth.pow(2).mean(1) / 70.0).sqrt().median(dim=0).values
