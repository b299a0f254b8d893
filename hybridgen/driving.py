r"""Trajectories of a truth that may be driven, with steps that end where its inputs jump.

At a jump of u(t) inside an interval of the save times no method has an order: whatever the steps,
the one that holds the jump errs in proportion to its length. A signal that `hold` made says where
it jumps, so the integration goes on a finer grid,

.. math:: G = \{t_k\} \cup \{t_j\} \cup \{t_j - \epsilon\},

with the jumps :math:`t_j` between the first and the last save time and a time :math:`t_j -
\epsilon`, the last before each, at which the step that comes from the left ends. What is between
the save times :math:`t_k` is left out of the trajectories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from hybridgen.expert import Expert, ODEExpert
from hybridgen.integrate import Solution, Status, solve
from hybridgen.signals import Pieces, before_jumps

__all__ = ["Inputs", "respond", "step_ends"]


class Inputs(Protocol):
    """A function of times `(T,)` that returns inputs `(T, U)`."""

    def __call__(self, t: Tensor, /) -> Tensor:
        """Return the inputs at times."""


def step_ends(t: Tensor, inputs: Inputs | None) -> Tensor:
    """Return the times at which steps have to end: the save times, and the jumps between them.

    Arguments:
        t: Save times, strictly monotone, with shape `(T,)`.
        inputs: The inputs; jumps are known of those that `hold` made.

    Returns:
        The times G, in the direction of `t`, with shape `(G,)`; `t` itself if nothing jumps.

    Example:
        >>> from hybridgen.signals import hold
        >>> t = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        >>> switch = hold(torch.tensor([0.0, 0.25]), torch.tensor([[0.0], [5.0]]))
        >>> step_ends(t, switch)
        tensor([0.0000, 0.2500, 0.2500, 1.0000, 2.0000], dtype=torch.float64)
    """
    if not isinstance(inputs, Pieces):
        return t
    at = _jumps(inputs).to(t)
    at = at[(at > t.min()) & (at <= t.max())]
    if not len(at):
        return t
    ends = before_jumps(torch.cat([t, at]).unique(), at)[0].unique()
    return ends if t[-1] > t[0] else ends.flip(0)


def _jumps(signal: Pieces) -> Tensor:
    """Return when a signal jumps that is constant in each piece, with shape `(J,)`."""
    if signal.powers.shape[-2] > 1:
        return signal.starts[:0]
    changes = (signal.powers[1:] != signal.powers[:-1]).flatten(1).any(1)
    return signal.starts[1:][changes]


def respond(
    truth: ODEExpert | Expert,
    inputs: Inputs | None,
    x0: Tensor,
    t: Tensor,
    z: Tensor,
    **settings: Any,
) -> Solution:
    """Return what a truth does from its initial states, or at the points of its axis.

    Arguments:
        truth: The differential equation, or the function of points.
        inputs: What drives it; None where it declares no inputs.
        x0: Initial states, with shape `(N, C, *S)`; of a function of points none, `(N, 0)`.
        t: Save times or points, with shape `(T,)`.
        z: Parameters, with shape `(N, P)`.
        **settings: Tolerances, substeps and `compile`, as `solve` takes them; a function of
            points needs none.

    Returns:
        The trajectories at `t`, with shape `(N, T, C, *S)`. Their `substeps` are those of the
        intervals of `step_ends(t, inputs)`.
    """
    drive: Inputs | None = inputs
    if isinstance(inputs, Pieces):  # in a coarser dtype a jump and just before it were the same
        drive = Pieces(*(part.to(t) for part in inputs))
    if isinstance(truth, Expert):
        return _evaluated(truth, t, z, None if drive is None else drive(t))
    ends = step_ends(t, drive)
    found = solve(_driven(truth, drive), x0, ends, z, **settings)
    return found if len(ends) == len(t) else _at_save_times(found, ends, t)


def _at_save_times(found: Solution, ends: Tensor, t: Tensor) -> Solution:
    """Return a solution at times G at the save times `(T,)` among them."""
    saved = torch.isin(ends, t)
    direction = (t[-1] - t[0]).sign()
    last = torch.searchsorted(t * direction, found.t_reached * direction, right=True) - 1
    reached = torch.where(found.t_reached.isnan(), torch.nan, t[last])
    return replace(found, y=found.y[:, saved], t_reached=reached)


def _driven(truth: ODEExpert, inputs: Inputs | None) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """Return the truth with its inputs at hand, as functions of time."""
    if inputs is None:
        return truth
    count = len(truth.inputs)
    return lambda t, y, z: truth(t, y, z, inputs(t.reshape(-1)).reshape(*t.shape, count))


def _evaluated(truth: Expert, t: Tensor, z: Tensor, u: Tensor | None) -> Solution:
    """Return the responses at points `(T,)`, as `solve` returns trajectories."""
    y = truth(t, z, u)
    good = y.isfinite().flatten(1).all(1)
    codes = torch.where(good, int(Status.ok), int(Status.nonfinite))
    return Solution(
        y=y,
        status=codes.to(torch.int8),
        t_reached=torch.where(good, t[-1], torch.nan),
        n_steps=torch.zeros_like(codes),
        substeps=torch.ones(len(t) - 1, dtype=torch.int64),
    )
