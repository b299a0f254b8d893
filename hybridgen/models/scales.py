"""The scales of a train split, in which networks and losses work."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.errors import DataError
from hybridgen.noise import Noise
from hybridgen.params import State

__all__ = ["Scales", "measure"]


class Scales(NamedTuple):
    """Means and standard deviations, each with shape `(C, *1)`, and the mean time step.

    Arguments:
        state_mean: Means of the states, in their units.
        state_sd: Their standard deviations.
        rate_sd: Standard deviations of their rates.
        link_mean: Means on the scale of the noise.
        link_sd: Standard deviations there.
        mean_step: The mean time step, in time units.
    """

    state_mean: Tensor
    state_sd: Tensor
    rate_sd: Tensor
    link_mean: Tensor
    link_sd: Tensor
    mean_step: Tensor


def measure(train: Batch, states: tuple[State, ...], noise: Noise, space: int) -> Scales:
    """Measure the scales of the observed trajectories; a state without data has its range.

    Arguments:
        train: The observed windows.
        states: Declarations of the C states.
        noise: The noise, on whose scale `link_mean` and `link_sd` are.
        space: How many spatial axes there are.

    Raises:
        DataError: If an observed state is constant or has no finite value.
    """
    y = train.y if train.mask is None else torch.where(train.mask, train.y, torch.nan)
    noise.check(y)
    step = train.t.diff(dim=-1)
    wide = step[(..., *(None,) * (y.ndim - 2))]
    parts = [_moments(y), _moments(y.diff(dim=1) / wide), _moments(noise.link(y))]
    mean, sd, rate, g_mean, g_sd = *parts[0], parts[1][1], *parts[2]
    for i, state in enumerate(states):
        if not state.observed:
            continue
        if not sd[i].isfinite():
            raise DataError(f"state {state.name!r} has no observed value in the train split.")
        if not sd[i] > 1e-9 * mean[i].abs():
            raise DataError(
                f"state {state.name!r} is constant in the train split, so it has no scale; "
                "leave it out, or give data in which it varies."
            )
    # rates of a state without data: as fast, in its own units, as the others
    pace = (rate / sd)[sd.isfinite() & rate.isfinite()].median()
    for i, state in enumerate(states):
        if not state.observed:
            low, high = state.bounds
            mean[i] = g_mean[i] = 0.5 * (low + high)
            sd[i] = g_sd[i] = 0.25 * (high - low)
        if not rate[i].isfinite() or rate[i] == 0:
            rate[i] = sd[i] * pace
    shape = (len(states), *(1,) * space)
    mean, sd, rate, g_mean, g_sd = (v.reshape(shape) for v in (mean, sd, rate, g_mean, g_sd))
    return Scales(mean, sd, rate, g_mean, g_sd, step.mean())


def _moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the finite values of each state, `(C,)`."""
    columns = y.movedim(2, 0).flatten(1)
    finite = columns.isfinite()
    n = finite.sum(1)
    mean = torch.where(finite, columns, 0.0).sum(1) / n
    squares = torch.where(finite, columns - mean[:, None], 0.0).pow(2).sum(1)
    return mean, torch.where(n > 1, squares / (n - 1), torch.nan).sqrt()
