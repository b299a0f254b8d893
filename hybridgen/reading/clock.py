"""Times and their unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridgen.errors import DataError
from hybridgen.expert import ODEExpert
from hybridgen.reading.quantities import Conversion, Sources, conversion_to_write, factors
from hybridgen.reading.runs import check_times
from hybridgen.units import in_seconds, same_unit, time_units

__all__ = ["Clock", "make_clock"]

# a column of this name says the unit of its times
_TELLING = {"second", "minute", "hour", "day", "week", "year"}


@dataclass(frozen=True)
class Clock:
    """How to read the times.

    Arguments:
        source: The column or variable of the times.
        unit: Their unit after conversion.
        seconds: The length of the unit where times are dates, else None.
        factor: What the times are multiplied with.
        offset: What is added after that.
    """

    source: str
    unit: str
    seconds: float | None = None
    factor: float = 1.0
    offset: float = 0.0

    def elapsed(self, times: NDArray[Any]) -> NDArray[np.float64]:
        """Return the times of one run as numbers; dates as the time since the first.

        Arguments:
            times: Numbers or dates, with shape `(T,)`.

        Example:
            >>> days = np.array(["2024-01-01", "2024-01-03"], "datetime64[us]")
            >>> Clock("date", "day", 86400.0).elapsed(days)
            array([0., 2.])
        """
        if self.seconds is None:
            with np.errstate(over="ignore"):  # what overflows is refused with the missing times
                return np.asarray(times * self.factor + self.offset)
        since = times - times[0] if times.dtype.kind == "M" else times
        return since / np.timedelta64(1, "us") / (1e6 * self.seconds)

    def checked(
        self, times: NDArray[Any], place: Callable[[int], str], advice: str = ""
    ) -> NDArray[np.float64]:
        """Return what `elapsed` does, if it increases.

        Arguments:
            times: Numbers or dates of one run, with shape `(T,)`.
            place: Where the i-th of them stands.
            advice: What to write where they do not increase.

        Raises:
            DataError: Naming the place of a time that is missing or does not increase.
        """
        t = self.elapsed(times)
        check_times(t, place, advice)
        return t


def make_clock(
    sources: Sources,
    source: str,
    given: str | None,
    expert: ODEExpert | None,
    convert: Mapping[str, Conversion] | None,
    *,
    dated: bool,
) -> Clock:
    """Find out in which unit the times are.

    Arguments:
        sources: What there is.
        source: The column or variable of the times.
        given: The unit that the user says; as it is after conversion.
        expert: The expert, whose units tell in which unit it takes its times.
        convert: Conversions by name; that of the times is under `"time"`.
        dated: Whether the times are dates or durations.

    Returns:
        How to read the times.

    Raises:
        DataError: If the units do not go together, or cannot be told.

    Example:
        >>> sources = Sources.of_headers(["t [ms]"])
        >>> make_clock(sources, "t [ms]", "s", None, {"time": 1e-3}, dated=False).factor
        0.001
    """
    converted = "time" in (convert or {})
    if dated:
        if given is None or converted:
            raise DataError(
                f"the times in {sources.noun} {source!r} are dates or durations; to count days "
                "from the start of each run, write time_unit='day', and no convert."
            )
        return Clock(source, given, in_seconds(given))
    found, name = sources.units[source], sources.short[source]
    if found is None and name.lower().rstrip("s") in _TELLING:
        found = name.lower()
    if found and given and not converted and not same_unit(found, given):
        raise DataError(
            f"the times are in {found} in the data ({sources.noun} {source!r}), but time_unit is "
            f"{given!r}; write {conversion_to_write('time', found, given)} as well to convert."
        )
    unit = given or _time_unit(source, None if converted else found, expert, converted)
    return Clock(source, unit, None, *factors("time", convert or {}))


def _time_unit(source: str, found: str | None, expert: ODEExpert | None, converted: bool) -> str:
    """Return the unit of times where the user does not say it."""
    taken = sorted(_times_taken(expert))
    if found and taken and not any(same_unit(found, each) for each in taken):
        raise DataError(
            f"the times are in {found} in the data ({source!r}), but the units of the expert are "
            f"per {taken[0]}; write {conversion_to_write('time', found, taken[0])} to convert, or "
            f"time_unit={found!r} if that is how the expert takes its times."
        )
    if found or len(taken) == 1:
        return found or taken[0]
    if taken:
        raise DataError(
            f"{source!r} does not tell the unit of the times, and the units of the expert mention "
            f"{' and '.join(taken)}; write time_unit={taken[0]!r}, for example."
        )
    if converted:
        raise DataError("convert has 'time', but not its new unit; write time_unit='s', say.")
    return "1"


def _times_taken(expert: ODEExpert | None) -> set[str]:
    if expert is None:
        return set()
    states, params = (*expert.states, *expert.inputs), expert.params
    return time_units([*(s.unit for s in states), *(p.unit for p in params)])
