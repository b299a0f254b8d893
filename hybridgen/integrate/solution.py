"""What an integration returns: the trajectories, and how each member fared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

__all__ = ["Solution", "Status"]


class Status(IntEnum):
    """How a member fared.

    Example:
        >>> Status(3), Status.diverged.description
        (<Status.diverged: 3>, 'the state grew without bound')
    """

    not_written = -1
    ok = 0
    retried = 1
    max_steps = 2
    diverged = 3
    nonfinite = 4
    error = 5
    timeout = 6

    @property
    def description(self) -> str:
        """One line for reports."""
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    Status.not_written: "not computed yet",
    Status.ok: "within tolerance at the steps of the batch",
    Status.retried: "within tolerance, at smaller steps than the batch for some intervals",
    Status.max_steps: "not within tolerance at the largest number of substeps",
    Status.diverged: "the state grew without bound",
    Status.nonfinite: "an input or the field is not a number",
    Status.error: "the computation raised an error",
    Status.timeout: "the computation took longer than allowed",
}


@dataclass(frozen=True)
class Solution:
    """Trajectories on the save grid, with a verdict on each member.

    Arguments:
        y: The trajectories, with shape `(*B, T, *S)`; NaN after the last good time of a member,
            and after its terminal event.
        status: A `Status` for each member, int8, with shape `(*B)`.
        t_reached: The last good time of each member, with shape `(*B)`; NaN where not even the
            initial state is finite.
        n_steps: Substeps spent on each member, retries included, with shape `(*B)`.
        substeps: Substeps that the batch took in each interval, with shape `(T-1,)`. Given back
            to `solve` as `substeps=`, they make a run reproducible member by member.
        compiled: Whether a kernel integrated them.
        t_event: When the first event of each member was, NaN where none, with shape `(*B)`; `None`
            if none was looked for.
        y_event: The states at these times, with shape `(*B, *S)`.
    """

    y: Tensor
    status: Tensor
    t_reached: Tensor
    n_steps: Tensor
    substeps: Tensor
    compiled: bool = False
    t_event: Tensor | None = None
    y_event: Tensor | None = None

    @property
    def ok(self) -> Tensor:
        """Which members are good to the end, retried or not, with shape `(*B)`."""
        return (self.status == Status.ok) | (self.status == Status.retried)
