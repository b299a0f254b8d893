r"""Numbers from cells, and what may be hidden among them.

A number that stands for "missing" betrays itself by lying far outside the others. A value
:math:`v` at the end of a channel, whose other values span :math:`[a, b]`, is suspicious if

.. math:: \max(a - v,\; v - b) > \lambda\, (b - a)

with :math:`\lambda = 1/2` for the numbers that instruments and file formats use for it (-999,
9.96921e36 and so on), and :math:`\lambda = 10` for any other that is repeated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridgen.errors import DataError

__all__ = [
    "Channel",
    "Markers",
    "Missing",
    "is_gap",
    "is_number",
    "parse_numbers",
    "without_markers",
]

_USUAL = (
    -99, -999, -9999, -99999, -999999, 999, 9999, 99999, 999999, -8888,
    -99.9, -999.9, -9999.9, -999.25, -999.99,
    -32768, 32767, 65535, -2147483648, 2147483647,
    1e20, -1e20, 1e30, -1e30, -1e34, 1e35, 9.969209968386869e36,
    3.4028234663852886e38, -3.4028234663852886e38,
)  # fmt: skip
_NUMBER = r"[+-]?(?:[0-9]+{0}?[0-9]*|{0}[0-9]+)(?:[eE][+-]?[0-9]+)?"
_PATTERNS = {mark: re.compile(_NUMBER.format(re.escape(mark))) for mark in ".,"}

Markers = Sequence[str | float]


@dataclass(frozen=True)
class Missing:
    """The values that are declared to stand for a missing one.

    Arguments:
        markers: Numbers or text for all channels, or by name of the channel; None declares
            nothing, an empty sequence that every number is a value.

    Example:
        >>> Missing((-999, "NA")).numbers("theta"), Missing(()).is_watched("theta")
        ((-999.0,), False)
    """

    markers: Markers | Mapping[str, Markers] | None = None

    def of(self, name: str) -> tuple[Any, ...]:
        """Return what is declared for a channel."""
        own = self.markers.get(name) if isinstance(self.markers, Mapping) else self.markers
        return (own,) if isinstance(own, (str, Real)) else tuple(own or ())

    def texts(self, name: str) -> frozenset[str]:
        """Return the text that stands for a missing value in a channel."""
        return frozenset(str(marker).strip() for marker in self.of(name))

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return the numbers that stand for a missing value in a channel."""
        return tuple(n for n in map(_marker_number, self.of(name)) if not math.isnan(n))

    def is_watched(self, name: str) -> bool:
        """Whether numbers that look like missing values are to be refused in a channel."""
        if isinstance(self.markers, Mapping):
            return name not in self.markers
        return self.markers is None or bool(self.of(name))

    def with_marker(self, name: str, marker: str | float) -> str:
        """Return what to write so that a channel has one more marker."""
        markers = (*self.of(name), marker)
        return f"missing={ {name: markers} if isinstance(self.markers, Mapping) else markers!r}"

    def without_check(self, name: str) -> str:
        """Return what to write so that no number of a channel is suspicious."""
        plain = not self.of(name) and not isinstance(self.markers, Mapping)
        return "missing=()" if plain else f"missing={ {name: self.of(name)} }"


def _marker_number(marker: Any) -> float:
    try:
        return float(marker)
    except (TypeError, ValueError):
        return math.nan  # text that is no number equals no number


@dataclass(frozen=True)
class Channel:
    """What the values of one quantity are called where something is wrong with them.

    Arguments:
        name: The quantity.
        what: Where it stands, such as `"column 'angle'"`.
        place: Where the i-th value stands, such as `"row 7"`.
        missing: The markers declared for missing values.
        advice: What to write where text is no number; by default, how to declare a marker.
    """

    name: str
    what: str
    place: Callable[[int], str]
    missing: Missing = Missing()
    advice: str = ""

    def fault(self, i: int, text: str) -> DataError:
        """Return the error that names the i-th value."""
        return DataError(f"{self.place(i)}, {self.what}: {text}")


def is_gap(cell: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, NaT, NA or blank text.

    Example:
        >>> is_gap(" "), is_gap(math.nan), is_gap(0)
        (True, True, False)
    """
    if isinstance(cell, str):
        return not cell.strip()
    missing = cell is None or cell is pd.NA or cell is pd.NaT
    return missing or (isinstance(cell, Real) and cell != cell)


def is_number(text: str) -> bool:
    """Whether text is a number, with whichever decimal mark.

    Example:
        >>> is_number("3,5"), is_number("1e3"), is_number("NA")
        (True, True, False)
    """
    return any(pattern.fullmatch(text) for pattern in _PATTERNS.values())


def parse_numbers(column: pd.Series, channel: Channel, decimal: str = ".") -> NDArray[np.float64]:
    """Read a column of numbers.

    Arguments:
        column: Text, numbers or a mixture, with N cells.
        channel: What to call it.
        decimal: The decimal mark of numbers in text.

    Returns:
        The numbers, NaN where a cell is empty, NaN or declared text, with shape `(N,)`.

    Raises:
        DataError: Naming the row and the column, if a cell holds something else.

    Example:
        >>> x = Channel("x", "column 'x'", "row {}".format, Missing(("NA",)))
        >>> parse_numbers(pd.Series(["1.5", "", "NA"]), x)
        array([1.5, nan, nan])
    """
    if decimal not in _PATTERNS:
        raise DataError(f"decimal is {decimal!r}; write '.' or ','.")
    kind = column.dtype
    if pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind):
        numbers: NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers
    texts = channel.missing.texts(channel.name)
    cells = enumerate(column.tolist())
    return np.array([_number(cell, i, channel, texts, decimal) for i, cell in cells], np.float64)


def _number(cell: Any, i: int, channel: Channel, texts: frozenset[str], decimal: str) -> float:
    if is_gap(cell):
        return math.nan
    if isinstance(cell, str):
        text = cell.strip()
        if text in texts or text.lower() == "nan":
            return math.nan
        if _PATTERNS[decimal].fullmatch(text):
            return float(text.replace(",", "."))
        other = {".": ",", ",": "."}[decimal]
        if _PATTERNS[other].fullmatch(text):
            raise channel.fault(
                i, f"{text!r} has the decimal mark {other!r}; write decimal={other!r}."
            )
        marker = channel.missing.with_marker(channel.name, text)
        advice = channel.advice or f"if it stands for a missing value, write {marker}"
        raise channel.fault(i, f"{text!r} is not a number; {advice}.")
    if isinstance(cell, (Real, np.bool_)):
        try:
            return float(cell)
        except OverflowError:
            return math.inf  # refused with the other infinite values
    raise channel.fault(i, f"{cell!r} ({type(cell).__name__}) is not a number.")


def without_markers(
    numbers: NDArray[np.float64], channel: Channel, *, repeated: bool = True
) -> NDArray[np.float64]:
    """Take out declared markers of missing values, and refuse what looks like undeclared ones.

    Arguments:
        numbers: The values of a channel, with shape `(N,)`.
        channel: What to call it.
        repeated: Whether a repeated extreme is suspicious; the usual markers are anyway.

    Returns:
        The numbers, NaN for each marker, with shape `(N,)`.

    Raises:
        DataError: Naming the value, how many there are, and the place of the first.

    Example:
        >>> x = Channel("x", "column 'x'", "row {}".format, Missing((-999,)))
        >>> without_markers(np.array([0.1, -999.0, 0.3]), x)
        array([0.1, nan, 0.3])
    """
    numbers, missing = numbers.copy(), channel.missing
    for marker in missing.numbers(channel.name):
        numbers[_equal(numbers, marker)] = math.nan
    if np.isinf(numbers).any():
        i = int(np.isinf(numbers).argmax())
        advice = missing.with_marker(channel.name, str(numbers[i]))
        raise channel.fault(
            i, f"{numbers[i]} is not finite; if it stands for a missing value, write {advice}."
        )
    value = _suspicious(numbers, repeated) if missing.is_watched(channel.name) else None
    if value is None:
        return numbers
    same = _equal(numbers, value)
    others = numbers[np.isfinite(numbers) & ~same]
    count = "once" if same.sum() == 1 else f"{same.sum()} times"
    plain = int(value) if value.is_integer() and abs(value) < 1e15 else value
    raise DataError(
        f"{channel.what} holds {plain!r} {count}, first in {channel.place(int(same.argmax()))}, "
        f"far outside the other values [{others.min():.6g}, {others.max():.6g}]; if it stands "
        f"for a missing value, write {missing.with_marker(channel.name, plain)}, and if it is a "
        f"value, {missing.without_check(channel.name)}."
    )


def _equal(numbers: NDArray[np.float64], value: float) -> NDArray[np.bool_]:
    """Compare in the precision of float32, in which many files hold their markers."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.isclose(numbers, value, rtol=1e-6, atol=0.0)


def _suspicious(numbers: NDArray[np.float64], repeated: bool) -> float | None:
    """Return a value that looks like a marker, the usual ones first; see the module."""
    finite = numbers[np.isfinite(numbers)]
    usual = np.zeros(finite.shape, dtype=bool)
    for value in _USUAL:
        usual |= _equal(finite, value)
    bulk = np.unique(finite[~usual])
    if not bulk.size:
        return None
    with np.errstate(over="ignore"):
        gap = np.maximum(bulk[0] - finite, finite - bulk[-1])
        far = finite[usual & (gap > 0.5 * (bulk[-1] - bulk[0]))]
        if far.size:
            return float(far[0])
        for value, others in ((bulk[0], bulk[1:]), (bulk[-1], bulk[:-1])):
            if not repeated or others.size < 3 or _equal(finite, value).sum() < 2:
                continue
            if max(others[0] - value, value - others[-1]) > 10.0 * (others[-1] - others[0]):
                return float(value)
    return None
