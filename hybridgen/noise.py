r"""Observation noise: what stands between the state and the data.

A noise has a link :math:`g` to the scale on which it is additive and Gaussian,

.. math:: g(y^{obs}) = g(y) + \sigma \epsilon, \qquad \epsilon \sim N(0, I),

the identity for Gaussian noise and the logarithm for log-normal noise. A simulator adds noise of
a known :math:`\sigma`; a model takes the noise as its likelihood, and where :math:`\sigma` is None
it is learned with the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hybridgen import rng
from hybridgen.errors import DataError, ParameterError

__all__ = ["GaussianNoise", "LogNormalNoise", "Noise", "estimate_sd"]


@dataclass(frozen=True)
class Noise:
    """What the kinds of noise share.

    Arguments:
        sd: Standard deviation on the scale of the link, one number for all states or one for
            each; None if it is to be learned.

    Raises:
        ParameterError: If a standard deviation is negative or not finite.
    """

    sd: float | tuple[float, ...] | None = None
    name: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        sds: Any = self.sd if isinstance(self.sd, (tuple, list)) else (self.sd,)
        if isinstance(self.sd, list):
            object.__setattr__(self, "sd", tuple(self.sd))
        for sd in sds:
            if sd is not None and not 0.0 <= sd < math.inf:
                raise ParameterError(f"noise sd is {sd}; give a finite number, not negative.")

    def link(self, y: Tensor) -> Tensor:
        """Return states on the scale on which the noise is additive, with the shape of `y`."""
        raise NotImplementedError  # each noise is its link

    def unlink(self, g: Tensor) -> Tensor:
        """Return states from that scale, with the shape of `g`."""
        raise NotImplementedError  # each noise is its link

    def scaled(self, factor: float) -> Self:
        """Return the noise with every standard deviation multiplied by `factor`."""
        if self.sd is None:
            return self
        if isinstance(self.sd, tuple):
            return replace(self, sd=tuple(factor * sd for sd in self.sd))
        return replace(self, sd=factor * self.sd)

    def scale(self, like: Tensor, space: int = 0) -> Tensor:
        """Return the standard deviations, with shape `(C,)` plus `space` ones, or `()`.

        Raises:
            ParameterError: If they are to be learned and so not known.
        """
        if self.sd is None:
            raise ParameterError(
                f"the sd of this {type(self).__name__} is to be learned; write a number to "
                f"simulate with, such as {type(self).__name__}(0.01)."
            )
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
        sd = self.scale(y, space)
        if not bool((sd > 0).any()):
            return y
        draws = rng.normal(root_seed, stream, indices, y[0].numel())
        noise = torch.from_numpy(draws).to(y).reshape(y.shape)
        return self._added(y, sd * noise)

    def _added(self, y: Tensor, noise: Tensor) -> Tensor:
        return self.unlink(self.link(y) + noise)

    def check(self, y: Tensor) -> None:
        """Raise if a value cannot have come with this noise; NaN are passed over.

        Arguments:
            y: Observed states, with any shape.

        Raises:
            DataError: Naming the value.
        """


@dataclass(frozen=True)
class GaussianNoise(Noise):
    r"""Additive independent noise, :math:`y_{obs} = y + \sigma \epsilon`.

    Arguments:
        sd: Standard deviation, one number for all states or one for each, in state units; None
            if it is to be learned.

    Example:
        >>> y = torch.zeros(2, 3, 1)
        >>> GaussianNoise(0.1).add(y, root_seed=0, stream="noise", indices=[0, 1]).shape
        torch.Size([2, 3, 1])
    """

    name: ClassVar[str] = "gaussian"

    def link(self, y: Tensor) -> Tensor:
        """Return the states as they are."""
        return y

    def unlink(self, g: Tensor) -> Tensor:
        """Return the states as they are."""
        return g


@dataclass(frozen=True)
class LogNormalNoise(Noise):
    r"""Multiplicative noise, :math:`\ln y_{obs} = \ln y + \sigma \epsilon`, for positive states.

    Below `floor` the logarithm goes on as its tangent, so that a model that strays to negative
    states is led back.

    Arguments:
        sd: Standard deviation of the logarithm, one number or one for each state; None if it is
            to be learned.
        floor: Where the tangent takes over, in state units.

    Example:
        >>> LogNormalNoise(0.1).link(torch.tensor([1.0, 0.0])).round(decimals=2)
        tensor([ 0.0000, -7.9100])
    """

    floor: float = 1e-3
    name: ClassVar[str] = "log-normal"

    def link(self, y: Tensor) -> Tensor:
        """Return the logarithm of the states, extended by its tangent."""
        safe = y.clamp_min(self.floor)
        return safe.log() + (y - safe) / self.floor

    def unlink(self, g: Tensor) -> Tensor:
        """Return the states of which `g` is the logarithm."""
        return g.exp()

    def _added(self, y: Tensor, noise: Tensor) -> Tensor:
        # multiplied, so that a state below the floor keeps its size, and zero stays zero
        return y * noise.exp()

    def check(self, y: Tensor) -> None:
        """Raise unless every value is above the floor; NaN are passed over.

        Raises:
            DataError: Naming the smallest value.
        """
        if (y <= self.floor).any():
            smallest = float(y[y.isfinite()].min())
            raise DataError(
                f"log-normal noise needs values above {self.floor:g}, but the data hold "
                f"{smallest:g}; declare what stands for a missing value, use GaussianNoise(), or "
                "write LogNormalNoise(floor=...) below your smallest value."
            )


def estimate_sd(y: Tensor) -> Tensor:
    r"""Estimate the standard deviation of the noise on smooth trajectories.

    Fourth differences on equal steps wipe out a smooth signal and leave the noise,

    .. math:: \sigma^2 = \frac{1}{70} E\,(y_{i} - 4 y_{i+1} + 6 y_{i+2} - 4 y_{i+3} + y_{i+4})^2,

    taken per trajectory; the median over trajectories is not moved by a few rough ones.

    Arguments:
        y: Trajectories on equal time steps, with shape `(B, T, C)`; differences that would need a
            value that is NaN are left out.

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
    return (fourth.pow(2).nanmean(1) / 70.0).sqrt().nanmedian(dim=0).values
