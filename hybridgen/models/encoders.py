"""Encoders: networks that read an observed window and say what they infer from it.

Whatever the encoder, it takes (values, mask, steps, known): values in units of the training set's
standard deviations, which of them were observed, the time steps between them, and the known
parameters; and it returns numbers for the latents and for the initial states. What these mean is
the model's affair.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from hybridgen.config import config
from hybridgen.errors import UnsupportedError

__all__ = [
    "Convolutional",
    "ConvolutionalEncoder",
    "EncoderConfig",
    "FieldEncoder",
    "GlobalEncoder",
    "GlobalParameters",
    "series",
]


class EncoderConfig(Protocol):
    """Settings of an encoder."""

    def build(
        self, *, channels: int, known: int, latents: int, initial: int, space: int
    ) -> nn.Module:
        """Return the network.

        Arguments:
            channels: How many series are read, observed states and inputs.
            known: How many parameters are known.
            latents: How many numbers are returned for the latents.
            initial: How many numbers are returned for the initial state.
            space: How many spatial axes a state has.
        """
        ...


@config
class Convolutional:
    """Settings of the convolutional encoder: over time for an ODE, over space for fields.

    Arguments:
        width: Channels of the first layer, and of fields the only one.
        bins: Into how many pieces a window is pooled before the heads.
        hidden: Width of the two fully connected layers.

    Example:
        >>> encoder = Convolutional(width=8).build(
        ...     channels=2, known=0, latents=3, initial=0, space=0
        ... )
        >>> values, mask = torch.zeros(5, 50, 2), torch.ones(5, 50, 2)
        >>> encoder(values, mask, torch.ones(5, 50), torch.zeros(5, 0))[0].shape
        torch.Size([5, 3])
    """

    width: int = 32
    bins: int = 8
    hidden: int = 128

    def build(
        self, *, channels: int, known: int, latents: int, initial: int, space: int
    ) -> nn.Module:
        """Return the network; see `EncoderConfig.build`."""
        if space == 0:
            return ConvolutionalEncoder(channels, known, latents, initial, self)
        if initial:
            raise UnsupportedError(
                "the convolutional encoder infers no initial fields; declare every field as "
                "observed, and infer_x0=False."
            )
        return FieldEncoder(channels, known, latents, space, self)


@config
class GlobalParameters:
    """Settings of the encoder of a single system: one set of latents for all its trajectories.

    With it APHYNITY is the original one, which fits one system. Initial states, where they are
    inferred, still come from each trajectory.

    Arguments:
        starts: How many draws of the parameters `fit` tries on the expert alone before it starts
            from the best; zero starts in the middle of the ranges.
        initial: Settings of the encoder of the initial states.

    Example:
        >>> encoder = GlobalParameters().build(channels=2, known=0, latents=3, initial=0, space=0)
        >>> values, mask = torch.zeros(5, 50, 2), torch.ones(5, 50, 2)
        >>> encoder(values, mask, torch.ones(5, 50), torch.zeros(5, 0))[0].shape
        torch.Size([5, 3])
    """

    starts: int = 256
    initial: Convolutional = Convolutional(width=8, bins=4, hidden=32)

    def build(
        self, *, channels: int, known: int, latents: int, initial: int, space: int
    ) -> nn.Module:
        """Return the network; see `EncoderConfig.build`."""
        network = None
        if initial:
            network = self.initial.build(
                channels=channels, known=known, latents=0, initial=initial, space=space
            )
        return GlobalEncoder(latents, network)


class ConvolutionalEncoder(nn.Module):
    """Strided 1-D convolutions over time, pooled into a fixed number of bins.

    Arguments:
        channels: How many series are read, C.
        known: How many parameters are known, K.
        latents: How many numbers are returned for the latents, L.
        initial: How many numbers are returned for the initial state, X.
        config: The settings.
    """

    def __init__(
        self, channels: int, known: int, latents: int, initial: int, config: Convolutional
    ) -> None:
        super().__init__()
        w = config.width
        self.latents = latents
        self.convolutions = nn.Sequential(
            nn.Conv1d(2 * channels + 1, w, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv1d(w, 2 * w, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv1d(2 * w, 2 * w, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.AdaptiveAvgPool1d(config.bins),
            nn.Flatten(),
        )
        self.heads = _heads(2 * w * config.bins + known, config.hidden, latents, initial)

    def forward(
        self, values: Tensor, mask: Tensor, steps: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what is inferred of each window.

        Arguments:
            values: Observations in standard deviations, with shape `(B, T, C)`.
            mask: One where observed, zero where not, with shape `(B, T, C)`.
            steps: Time steps in units of the training set's mean step, with shape `(B, T)`.
            known: Known parameters in units of their range, with shape `(B, K)`.

        Returns:
            Numbers for the latents, with shape `(B, L)`, and for the initial state, `(B, X)`.
        """
        features = self.convolutions(series(values, mask, steps).movedim(-1, -2))
        out = self.heads(torch.cat([features, known], dim=-1))
        return out[..., : self.latents], out[..., self.latents :]

    @torch.no_grad()
    def start_at(self, initial: Tensor) -> None:
        """Return these numbers for the initial state, with shape `(X,)`, until trained further."""
        last = self.heads[-1]
        if isinstance(last, nn.Linear):
            last.bias[self.latents :] = initial


class FieldEncoder(nn.Module):
    r"""Second moments, over space, of learnt stencils of a frame and of its change to the next.

    .. math:: f = W * (y_i,\, \Delta y_i / \Delta t_i), \qquad
              \log \mathrm{Var} f_j, \quad \mathrm{Corr}(f_j, f_k), \quad E f_j

    A coefficient of a partial differential equation is what a regression of the change on a
    stencil of the frame would give, and these moments are all that a regression asks for. They are
    taken over the pixels whose neighbours were all observed, without regard to what lies beyond
    the border, and over a part of the window: each wavelength shows at its own time.

    Arguments:
        channels: How many fields are read, C.
        known: How many parameters are known, K.
        latents: How many numbers are returned for the latents, L.
        space: How many spatial axes there are.
        config: The settings; its width is the number of stencils.
    """

    def __init__(
        self, channels: int, known: int, latents: int, space: int, config: Convolutional
    ) -> None:
        super().__init__()
        w = config.width
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[space - 1]
        self.stencils = conv(2 * channels, w, 3)
        self.pool = nn.AdaptiveAvgPool1d(config.bins)
        self.heads = _heads(w * (w + 3) // 2 * config.bins + known, config.hidden, latents, 0)

    def forward(
        self, values: Tensor, mask: Tensor, steps: Tensor, known: Tensor
    ) -> tuple[Tensor, None]:
        """Return what is inferred of each window.

        Arguments:
            values: Frames in standard deviations, with shape `(B, T, C, *S)`.
            mask: One where observed, with the shape of `values`.
            steps: Time steps in units of the training set's mean step, with shape `(B, T)`.
            known: Known parameters in units of their range, with shape `(B, K)`.

        Returns:
            Numbers for the latents, with shape `(B, L)`, and nothing for the initial state.
        """
        seen = torch.where(mask > 0, values, 0.0)
        gap = steps[:, 1:].reshape(*steps[:, 1:].shape, *(1,) * (values.ndim - 2))
        pairs = torch.cat([seen[:, :-1], seen.diff(dim=1) / gap], dim=2).flatten(0, 1)
        f = self.stencils(pairs).flatten(2)
        pixels = self._observed(mask).flatten(0, 1).flatten(1)[:, None, :]
        times = len(values), values.shape[1] - 1
        count = self._binned(pixels.sum(-1), times).clamp_min(1e-6)
        mean = self._binned((f * pixels).sum(-1), times) / count
        square = self._binned(((f * pixels) @ f.mT).flatten(1), times) / count
        square = square.unflatten(-1, (f.shape[1], f.shape[1]))
        covariance = square - mean[..., :, None] * mean[..., None, :]
        features = torch.cat([mean, *_log_moments(covariance)], dim=-1).flatten(1)
        return self.heads(torch.cat([features, known], dim=-1)), None

    def _observed(self, mask: Tensor) -> Tensor:
        """Return one where a stencil saw observed pixels only, with shape `(B, T - 1, *S - 2)`."""
        whole = (mask[:, 1:] * mask[:, :-1]).amin(2)
        for axis in range(2, whole.ndim):
            n = whole.shape[axis] - 2
            whole = torch.stack([whole.narrow(axis, i, n) for i in range(3)]).amin(0)
        return whole

    def _binned(self, sums: Tensor, times: tuple[int, int]) -> Tensor:
        """Return means over the parts of the window, `(B, bins, N)`, of sums `(B * T, N)`."""
        return self.pool(sums.unflatten(0, times).mT).mT


def _log_moments(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return log variances `(..., W)` and correlations `(..., W (W - 1) / 2)`."""
    variance = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0.0) + 1e-8
    sd = variance.sqrt()
    w = covariance.shape[-1]
    i, j = torch.triu_indices(w, w, offset=1, device=covariance.device)
    return variance.log(), covariance[..., i, j] / (sd[..., i] * sd[..., j])


class GlobalEncoder(nn.Module):
    """Latents that do not depend on what is observed, and an encoder of the initial states.

    Arguments:
        latents: How many numbers are returned for the latents, L.
        initial: The encoder of the initial states, or None.
    """

    def __init__(self, latents: int, initial: nn.Module | None) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(latents))
        self.initial = initial

    def forward(
        self, values: Tensor, mask: Tensor, steps: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the latents, expanded to the batch, and what is inferred of the start."""
        start = None if self.initial is None else self.initial(values, mask, steps, known)[1]
        return self.values.expand(len(values), -1), start


def series(values: Tensor, mask: Tensor, steps: Tensor) -> Tensor:
    """Return what a network over time reads: values, what is missing, and uneven steps.

    Arguments:
        values: Observations in standard deviations, with shape `(B, T, C)`.
        mask: One where observed, zero where not, with shape `(B, T, C)`.
        steps: Time steps in units of the training set's mean step, with shape `(B, T)`.

    Returns:
        Channels, with shape `(B, T, 2 C + 1)`.
    """
    seen = torch.where(mask > 0, values, 0.0)
    return torch.cat([seen, mask - 1.0, steps[..., None] - 1.0], dim=-1)


def _heads(features: int, hidden: int, latents: int, initial: int) -> nn.Sequential:
    """Return the fully connected layers; what concerns the initial state starts at zero."""
    last = nn.Linear(hidden, latents + initial)
    with torch.no_grad():
        last.weight[latents:] = 0.0
        last.bias[latents:] = 0.0
    return nn.Sequential(
        nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
    )
