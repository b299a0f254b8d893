r"""Notice that a function of the state passes through zero.

An event is where :math:`g(t, y(t)) = 0`. It is seen at the end of an interval, by a value of g
whose sign is not that at the start, and found within the interval later, see
`hybridgen.integrate.locating`. A zero at the start of an interval is none of that interval's: so a
member that starts at a zero leaves it first, and none is seen twice. Two zeros between two save
times cancel, and neither is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hybridgen.errors import ConfigError
from hybridgen.integrate.members import Members

__all__ = ["Event", "Watch", "check_event"]


@dataclass(frozen=True)
class Event:
    """What to look for while a batch is integrated.

    Arguments:
        function: The function `g(t, y, args)` that is zero there. It gets what the field gets, and
            returns a number for each member, with shape `(*B)`.
        direction: 1 for zeros where g increases along the trajectory, -1 for those where it
            decreases, 0 for both.
        terminal: Whether a member ends at its event; otherwise its first one is noted.

    Raises:
        ConfigError: If the direction is none of these, or the function cannot be called.

    Example:
        >>> Event(lambda t, y, args: y[..., 0], direction=-1).terminal
        True
    """

    function: Callable[[Tensor, Tensor, Any], Tensor]
    direction: int = 0
    terminal: bool = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(
                f"event is {self.function!r}; write a function g(t, y, args), or "
                "Event(g, direction=-1)."
            )
        if self.direction not in (-1, 0, 1):
            raise ConfigError(f"direction is {self.direction!r}; write -1, 0 or 1.")

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """Return where it lies between two values of the function, all with shape `(K,)`."""
        up, down = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        return {1: up, -1: down, 0: up | down}[self.direction]


def check_event(event: Event | Callable[[Tensor, Tensor, Any], Tensor] | None) -> Event | None:
    """Return an event, where only its function may have been given.

    Raises:
        ConfigError: If it is neither.
    """
    return event if event is None or isinstance(event, Event) else Event(event)


@dataclass(frozen=True)
class Watch:
    """Which members of a batch passed their event; written while the batch marches.

    Arguments:
        event: What to look for.
        value: The function at the last save time of each, with shape `(N,)`.
        interval: In which interval the first event of each is, -1 for none, with shape `(N,)`.
    """

    event: Event
    value: Tensor
    interval: Tensor

    @classmethod
    def begin(cls, event: Event, y0: Tensor) -> Watch:
        """Return a watch over members that have not started, with states `(N, *S)`."""
        value = y0.new_full((len(y0),), torch.nan, dtype=y0.dtype.to_real())
        return cls(event, value, torch.full_like(value, -1, dtype=torch.int64))

    def copy(self) -> Watch:
        """Return a watch to write in without touching this one."""
        return replace(self, value=self.value.clone(), interval=self.interval.clone())

    def take(self, ids: Tensor) -> Watch:
        """Return the watch over some of the members, with shape `(J,)`."""
        return replace(self, value=self.value[ids], interval=self.interval[ids])

    def put(self, ids: Tensor, part: Watch) -> None:
        """Take over what a watch over some of the members, with shape `(J,)`, has noted."""
        self.value[ids], self.interval[ids] = part.value, part.interval

    @torch.no_grad()
    def start(self, members: Members, ids: Tensor, i: int, y: Tensor) -> None:
        """Note members `ids`, `(K,)`, at the start of interval `i`, with states `(K, *S)`."""
        if len(ids):
            self.value[ids] = self._measure(members, i, y)

    @torch.no_grad()
    def pass_by(self, members: Members, ids: Tensor, i: int, y: Tensor) -> Tensor:
        """Note members at the end of an interval.

        Arguments:
            members: Who.
            ids: Their numbers in the batch, with shape `(K,)`.
            i: Which interval.
            y: Their states, with shape `(K, *S)`.

        Returns:
            Which of them end here, with shape `(K,)`.
        """
        if not len(ids):
            return torch.zeros_like(ids, dtype=torch.bool)
        now = self._measure(members, i + 1, y)
        first = self.event.between(self.value[ids], now) & (self.interval[ids] < 0)
        self.value[ids] = now
        self.interval[ids[first]] = i
        return first if self.event.terminal else torch.zeros_like(first)

    def _measure(self, members: Members, i: int, y: Tensor) -> Tensor:
        return members.measure(self.event.function, members.time(i).to(y.dtype.to_real()), y)
