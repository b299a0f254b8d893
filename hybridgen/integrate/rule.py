"""How members cross an interval: the method, the error allowed, the levels to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from hybridgen.integrate.levels import ladder, next_level
from hybridgen.integrate.members import Members
from hybridgen.integrate.stepping import RHS, Tolerance, advance, advance_again, finite_rows
from hybridgen.integrate.tableaus import Tableau

__all__ = ["Rule", "Step"]

CHUNK = 64
STIFF = 2**30
LEAST_STIFF_STEPS = 256
DOUBTFUL = 12


class Step(NamedTuple):
    """Where members stand after an interval.

    Arguments:
        y: Their state, with shape `(N, *S)`.
        k: Its derivative, with shape `(N, *S)`.
        error: The scaled error of each, with shape `(N,)`: at most 1 where it crossed well, not
            finite where its state or derivative is not.
    """

    y: Tensor
    k: Tensor
    error: Tensor

    def take(self, rows: Tensor) -> Step:
        """Return the step of some of these members, with shape `(J,)`."""
        return Step(self.y[rows], self.k[rows], self.error[rows])


@dataclass(frozen=True)
class Rule:
    """The method, what error is allowed, and how far to go for it.

    Arguments:
        tableau: The method, with an error estimate.
        tolerance: The error allowed.
        max_substeps: The highest level.
        max_explicit: The highest level of members that cannot follow the batch, after which comes
            the stiff method; `None` for `max_substeps`.
        max_steps: The most substeps that a member may take in all; `None` for no limit.
        again: Whether to take explicit steps again in the backward pass instead of keeping them.
    """

    tableau: Tableau
    tolerance: Tolerance
    max_substeps: int
    max_explicit: int | None = None
    max_steps: int | None = None
    again: bool = False

    @property
    def stiff(self) -> int:
        """What stands for the level of a member for which none is high enough."""
        return STIFF

    @property
    def highest(self) -> int:
        """The highest level of members that cannot follow the batch."""
        return self.max_substeps if self.max_explicit is None else self.max_explicit

    @property
    def doubtful(self) -> int:
        """The level from which on a member that stays at it may well be stiff."""
        return STIFF if self.max_explicit is None else max(1, self.max_explicit // DOUBTFUL)

    @property
    def stiff_steps(self) -> int:
        """How many steps the stiff method may try in an interval."""
        return max(self.max_substeps, LEAST_STIFF_STEPS)

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The levels."""
        return ladder(self.max_substeps)

    def next_level(self, error: float, level: int) -> int:
        """Return the level that a member needs, by its error at a given level."""
        return next_level(error, level, self.tableau.order, self.rungs)

    def next_levels(self, error: Tensor, level: int) -> Tensor:
        """Return the level that each member needs, `(N,)`, by its error at one level, `(N,)`."""
        needed = [self.next_level(value, level) for value in error.tolist()]
        return torch.tensor(needed, dtype=torch.int64, device=error.device)

    def cross(
        self, members: Members, i: int, y: Tensor, k: Tensor, level: int, rhs: RHS | None = None
    ) -> Step:
        """Advance members over one interval.

        Many substeps are taken in chunks of 64, and given up when no member is finite any more.

        Arguments:
            members: Who; their field and times.
            i: Which interval.
            y: Their state, with shape `(N, *S)`.
            k: Its derivative, with shape `(N, *S)`.
            level: The number of substeps.
            rhs: Used instead of the members' own right-hand side.

        Returns:
            State, derivative and error at the end of the interval.

        Raises:
            ValueError: If the method has no error estimate.
        """
        t0, t1 = members.time(i), members.time(i + 1)
        marks = [j / level for j in range(0, level, CHUNK)]
        times = [t0, *(t0 + (t1 - t0) * mark for mark in marks[1:]), t1]
        advanced, errors = advance_again if self.again else advance, []
        for j, (start, end) in enumerate(pairwise(times)):
            steps = min(CHUNK, level - j * CHUNK)
            y, slope, error = advanced(
                rhs or members.rhs, self.tableau, start, end, y, k, steps, self.tolerance
            )
            if slope is None or error is None:
                raise ValueError(f"{self.tableau.name} has no error estimate to step by")
            k = slope
            errors.append(error)
            # An infinite state has an infinite scale and so no error; one sum finds it cheaply.
            if not bool(torch.isfinite(y.detach().sum())):
                finite = finite_rows(y)
                errors.append(torch.where(finite, error, torch.nan))
                if not bool(finite.any()):
                    break
        return Step(y, k, errors[0] if len(errors) == 1 else torch.stack(errors).amax(dim=0))
