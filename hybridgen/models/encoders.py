"""Encoders: networks that read an observed window and return features of fixed size.

Whatever the encoder, it takes (values, mask, steps): values in units of the training set's
standard deviations, which of them were observed, and the time steps between them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridgen.config import config

__all__ = ["Convolutional", "ConvolutionalEncoder"]


@config
class Convolutional:
    """Settings of the convolutional encoder.

    Arguments:
        width: Channels of the first layer; the others have twice as many.
        bins: Into how many pieces the window is pooled before the heads.
        hidden: Width of the two fully connected layers.

    Example:
        >>> encoder = Convolutional(width=8).build(channels=2)
        >>> values, mask = torch.zeros(5, 50, 2), torch.ones(5, 50, 2)
        >>> encoder(values, mask, torch.ones(5, 50)).shape
        torch.Size([5, 128])
    """

    width: int = 32
    bins: int = 8
    hidden: int = 128

    def build(self, channels: int) -> ConvolutionalEncoder:
        """Return the network for `channels` states."""
        return ConvolutionalEncoder(channels, self)


class ConvolutionalEncoder(nn.Module):
    """Strided 1-D convolutions over time, pooled into a fixed number of bins.

    Arguments:
        channels: How many states are observed, C.
        config: The settings.
    """

    def __init__(self, channels: int, config: Convolutional) -> None:
        super().__init__()
        w = config.width
        self.features = config.hidden
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
        self.mixing = nn.Sequential(
            nn.Linear(2 * w * config.bins, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
        )

    def forward(self, values: Tensor, mask: Tensor, steps: Tensor) -> Tensor:
        """Return features of each window.

        Arguments:
            values: Observations in standard deviations, with shape `(B, T, C)`.
            mask: One where observed, zero where not, with shape `(B, T, C)`.
            steps: Time steps in units of the training set's mean step, with shape `(B, T)`.

        Returns:
            Features, with shape `(B, F)`.
        """
        seen = torch.where(mask > 0, values, 0.0)
        channels = torch.cat([seen, mask - 1.0, steps[..., None] - 1.0], dim=-1)
        return self.mixing(self.convolutions(channels.movedim(-1, -2)))
