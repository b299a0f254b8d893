r"""Units as they are written in data, compared and never converted unasked.

A unit is read as a product of powers, :math:`u = \prod_i b_i^{p_i}`, whatever its spelling:
`m/s^2`, `m s-2` and `m/s²` are one unit. Two units are the same if their powers are. Where the
bases measure the same kind of quantity in other sizes, :math:`b_i = s_i b_i^{SI}`, the factor that
a user may declare is :math:`\prod_i s_i^{p_i} / \prod_j s_j^{p_j}`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable

from hybridgen.errors import DataError

__all__ = ["factor_between", "in_seconds", "is_time", "same_unit", "split_header", "time_units"]

# kind of quantity and size in SI units; only times are used to convert, the rest to advise
_BASES = {
    "s": ("time", 1.0), "ms": ("time", 1e-3), "us": ("time", 1e-6), "ns": ("time", 1e-9),
    "min": ("time", 60.0), "h": ("time", 3600.0), "day": ("time", 86400.0),
    "week": ("time", 604800.0), "year": ("time", 31557600.0),
    "rad": ("angle", 1.0), "mrad": ("angle", 1e-3), "deg": ("angle", math.pi / 180),
    "rev": ("angle", 2 * math.pi),
    "m": ("length", 1.0), "km": ("length", 1e3), "dm": ("length", 1e-1), "cm": ("length", 1e-2),
    "mm": ("length", 1e-3), "um": ("length", 1e-6), "nm": ("length", 1e-9),
    "kg": ("mass", 1.0), "g": ("mass", 1e-3), "mg": ("mass", 1e-6), "ug": ("mass", 1e-9),
    "mol": ("amount", 1.0), "mmol": ("amount", 1e-3), "umol": ("amount", 1e-6),
    "A": ("current", 1.0), "mA": ("current", 1e-3), "uA": ("current", 1e-6),
    "V": ("voltage", 1.0), "mV": ("voltage", 1e-3), "kV": ("voltage", 1e3),
    "Pa": ("pressure", 1.0), "hPa": ("pressure", 1e2), "kPa": ("pressure", 1e3),
    "MPa": ("pressure", 1e6), "bar": ("pressure", 1e5), "mbar": ("pressure", 1e2),
    "N": ("force", 1.0), "kN": ("force", 1e3),
    "J": ("energy", 1.0), "kJ": ("energy", 1e3), "MJ": ("energy", 1e6),
    "W": ("power", 1.0), "kW": ("power", 1e3), "MW": ("power", 1e6),
    "K": ("temperature", 1.0), "mK": ("temperature", 1e-3),
    "L": ("volume", 1e-3), "mL": ("volume", 1e-6),
    "%": ("number", 1e-2), "thousand": ("number", 1e3), "million": ("number", 1e6),
}  # fmt: skip

_SPELLINGS = {
    "sec": "s", "second": "s", "seconds": "s", "minute": "min", "minutes": "min",
    "hr": "h", "hour": "h", "hours": "h", "d": "day", "days": "day", "weeks": "week",
    "yr": "year", "years": "year", "radian": "rad", "radians": "rad",
    "°": "deg", "degree": "deg", "degrees": "deg", "l": "L", "ml": "mL",
    "percent": "%", "thousands": "thousand", "millions": "million",
    "°C": "degC", "celsius": "degC", "Celsius": "degC", "kelvin": "K", "Kelvin": "K",
    "metre": "m", "meter": "m", "metres": "m", "meters": "m",
    "dimensionless": "1", "none": "1", "-": "1", "": "1",
}  # fmt: skip

_TOKEN = re.compile(r"([^\W\d_]+|°[^\W\d_]*|%)(-?[0-9]+(?:\.[0-9]+)?)?")
_HEADER = re.compile(r"(.*\S)\s*(?:\[([^\[\]]*)\]|\(([^()]*)\))")
_TIMES = frozenset(name for name, (kind, _) in _BASES.items() if kind == "time")


def split_header(header: str) -> tuple[str, str | None]:
    """Split the header of a column into its name and its unit.

    Arguments:
        header: Such as `"angle [deg]"` or `"angle (deg)"`.

    Returns:
        The name, and the unit or None.

    Example:
        >>> split_header("angle [deg]"), split_header("angle")
        (('angle', 'deg'), ('angle', None))
    """
    match = _HEADER.fullmatch(header.strip())
    if match is None:
        return header.strip(), None
    unit = match[2] if match[2] is not None else match[3]
    return match[1], unit.strip() or "1"


def _powers(unit: str) -> dict[str, float] | None:
    """Return the powers of the bases, or None where the unit cannot be read in one way only."""
    for old, new in (("**", ""), ("^", ""), ("²", "2"), ("³", "3"), ("⁻", "-"), ("¹", "1"),
                     ("µ", "u"), ("μ", "u"), ("·", " "), ("⋅", " "), ("*", " ")):  # fmt: skip
        unit = unit.replace(old, new)
    powers: defaultdict[str, float] = defaultdict(float)
    for place, part in enumerate(unit.split("/")):
        tokens = _SPELLINGS.get(part.strip(), part).split()
        if place and len(tokens) != 1:
            return None  # a/b c may mean (a/b) c or a/(b c)
        for token in tokens:
            match = _TOKEN.fullmatch(token)
            if match is None and token != "1":
                return None
            if match is not None and (base := _SPELLINGS.get(match[1], match[1])) != "1":
                powers[base] += (-1 if place else 1) * float(match[2] or 1)
    return {base: power for base, power in powers.items() if power}


def same_unit(a: str, b: str) -> bool:
    """Whether two units are one, however they are spelt.

    Example:
        >>> same_unit("m/s^2", "m s-2"), same_unit("seconds", "s"), same_unit("deg", "rad")
        (True, True, False)
    """
    first, second = _powers(a), _powers(b)
    if first is None or second is None:
        return a.strip() == b.strip()
    return first == second


def factor_between(found: str, wanted: str) -> float | None:
    """Return what to multiply numbers in one unit with to have them in another, where it is known.

    Arguments:
        found: The unit of the numbers.
        wanted: The unit to have them in.

    Returns:
        The factor, or None where the units do not measure the same or are not known.

    Example:
        >>> factor_between("ms", "s"), factor_between("deg", "kg")
        (0.001, None)
    """
    sizes = _size(found), _size(wanted)
    if sizes[0] is None or sizes[1] is None or sizes[0][0] != sizes[1][0]:
        return None
    return sizes[0][1] / sizes[1][1]


def _size(unit: str) -> tuple[dict[str, float], float] | None:
    """Return the powers of the kinds of quantity, and the size in SI units."""
    powers = _powers(unit)
    if powers is None or any(base not in _BASES for base in powers):
        return None
    kinds: defaultdict[str, float] = defaultdict(float)
    size = 1.0
    for base, power in powers.items():
        kind, scale = _BASES[base]
        size *= scale**power
        if kind != "number":
            kinds[kind] += power
    return {kind: power for kind, power in kinds.items() if power}, size


def time_units(units: Iterable[str]) -> set[str]:
    """Return the units of time that occur in units, such as the s of rad/s.

    Example:
        >>> time_units(["rad", "rad/s", "1/s"])
        {'s'}
    """
    bases = {base for unit in units for base in _powers(unit) or {}}
    return (bases & _TIMES) | ({"s"} if "Hz" in bases else set())


def is_time(unit: str) -> bool:
    """Whether a unit is one of time, such as s or year.

    Example:
        >>> is_time("years"), is_time("m")
        (True, False)
    """
    return list((_powers(unit) or {}).items()) in [[(time, 1.0)] for time in _TIMES]


def in_seconds(unit: str) -> float:
    """Return the length of a unit of time in seconds; a year has 365.25 days.

    Arguments:
        unit: The unit, such as `"day"`.

    Raises:
        DataError: If it is no unit of time.

    Example:
        >>> in_seconds("day")
        86400.0
    """
    size = _size(unit)
    if size is None or not is_time(unit):
        raise DataError(
            f"{unit!r} is no unit of time that dates can be counted in; "
            f"write one of {', '.join(sorted(_TIMES))}."
        )
    return size[1]
