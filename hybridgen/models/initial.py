r"""Initial states that the data do not give.

An encoder returns a number :math:`c_i` for every initial state that is inferred. A state that no
data hold starts inside its declared range :math:`[a_i, b_i]`, at
:math:`x_{0,i} = a_i + (b_i - a_i)\,\mathrm{sigmoid}(c_i)`. One that is observed starts beside its
first observation, on the scale of the noise:
:math:`g(x_{0,i}) = g(y_{0,i}) + \mathrm{sd}_i\, c_i`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.noise import Noise
from hybridgen.params import State

__all__ = ["InitialStates"]


class InitialStates:
    """The map between an encoder's numbers and initial states.

    Arguments:
        states: Declarations of the C states.
        noise: The noise, whose link is the scale of the corrections.
        everything: Whether observed states are inferred as well.
    """

    def __init__(self, states: tuple[State, ...], noise: Noise, everything: bool) -> None:
        self.states, self.noise = states, noise
        self.inferred = [i for i, s in enumerate(states) if everything or not s.observed]

    def states_of(
        self, code: Tensor | None, seen: Batch, mean: Tensor, sd: Tensor
    ) -> Tensor | None:
        """Return initial states.

        Arguments:
            code: The encoder's numbers, with shape `(B, X)`, if it has any.
            seen: The observed windows.
            mean: Means on the scale of the noise, with shape `(C,)`.
            sd: Standard deviations there, with shape `(C,)`.

        Returns:
            States in their units, with shape `(B, C)`; None where they are those observed.
        """
        if code is None or not self.inferred:
            return None
        columns = list(_first(self.noise.link(seen.y), seen.mask, mean).unbind(-1))
        for k, i in enumerate(self.inferred):
            if self.states[i].observed:
                columns[i] = columns[i] + sd[i] * code[:, k]
        columns = list(self.noise.unlink(torch.stack(columns, dim=-1)).unbind(-1))
        for k, i in enumerate(self.inferred):
            if not self.states[i].observed:
                low, high = self.states[i].bounds
                columns[i] = low + (high - low) * torch.sigmoid(code[:, k])
        return torch.stack(columns, dim=-1)

    def code_of(self, x0: Tensor, seen: Batch, mean: Tensor, sd: Tensor) -> Tensor:
        """Return the numbers for which the initial states are these, the inverse of `states_of`.

        Arguments:
            x0: States in their units, with shape `(B, C)`; a hidden one is led into its range.
            seen: The observed windows.
            mean: Means on the scale of the noise, with shape `(C,)`.
            sd: Standard deviations there, with shape `(C,)`.

        Returns:
            Numbers, with shape `(B, X)`.
        """
        first = _first(self.noise.link(seen.y), seen.mask, mean)
        codes = []
        for i in self.inferred:
            if self.states[i].observed:
                codes.append((self.noise.link(x0)[:, i] - first[:, i]) / sd[i])
            else:
                low, high = self.states[i].bounds
                codes.append(((x0[:, i] - low) / (high - low)).clamp(0.01, 0.99).logit())
        return torch.stack(codes, dim=-1)

    def first(self, seen: Batch, mean: Tensor) -> Tensor:
        """Return the first value that was observed of each state, in its units.

        Arguments:
            seen: The observed windows.
            mean: What stands for a state of which none was, on the scale of the noise.

        Returns:
            States, with shape `(B, C, *S)`.
        """
        return self.noise.unlink(_first(self.noise.link(seen.y), seen.mask, mean))


def _first(g: Tensor, mask: Tensor | None, mean: Tensor) -> Tensor:
    """Return the first value that was observed of each state, the mean where none was."""
    if mask is None:
        return g[:, 0]
    when = mask.to(torch.int8).argmax(dim=1, keepdim=True)
    return torch.where(mask.any(1), g.gather(1, when)[:, 0], mean.expand_as(g[:, 0]))
