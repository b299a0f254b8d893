"""What is inferred of systems, and what is predicted of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from hybridgen.signals import Held, Signal

__all__ = ["Inferred", "Latents", "Loss", "Prediction"]


class Latents(NamedTuple):
    """What is inferred of each system, and what drives it.

    Arguments:
        z_e: Expert parameters in their units, with shape `(B, P)`.
        z_a: Augmentation latents, with shape `(B, D)`.
        x0: Initial states in their units, with shape `(B, C, *S)`, where they were inferred.
        u: The inputs as functions of time, where the expert has any.
    """

    z_e: Tensor
    z_a: Tensor
    x0: Tensor | None = None
    u: Signal | Held | None = None


@dataclass(frozen=True)
class Inferred:
    """Latents and initial states of B systems, and how they were found.

    Arguments:
        z_e: Expert parameters in their units, with shape `(B, P)`.
        z_a: Augmentation latents, with shape `(B, D)`.
        x0: Initial states in their units, with shape `(B, C, *S)`.
        inference: `"amortised"` or `"refined"`.
        u: The inputs as functions of time, where the expert has any.
    """

    z_e: Tensor
    z_a: Tensor
    x0: Tensor
    inference: str = "amortised"
    u: Signal | Held | None = None


@dataclass(frozen=True)
class Prediction:
    """Predicted trajectories and what they rest on.

    Arguments:
        y: Trajectories, with shape `(B, T, C, *S)`; NaN after the last good time of a member.
        status: Status codes of the integration, with shape `(B,)`.
        t_reached: Last good times, with shape `(B,)`.
        inferred: The latents and initial states.
    """

    y: Tensor
    status: Tensor
    t_reached: Tensor
    inferred: Inferred


class Loss(NamedTuple):
    """A loss to minimise, the latents it was computed with, and its parts for the log."""

    total: Tensor
    latents: Latents
    parts: Mapping[str, Tensor]
