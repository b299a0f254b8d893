"""Which column or variable holds which quantity, and in which unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from hybridgen.errors import DataError, nearest
from hybridgen.expert import ODEExpert
from hybridgen.params import Param, State
from hybridgen.reading.columns import Markers
from hybridgen.units import factor_between, same_unit, split_header

__all__ = [
    "Asked",
    "Conversion",
    "Names",
    "Plan",
    "Quantity",
    "Sources",
    "conversion_to_write",
    "factors",
    "make_plan",
]

Names = Mapping[str, str] | Sequence[str]
Conversion = float | tuple[float, float]


class Asked(TypedDict, total=False):
    """What a user says of quantities, whatever the data are read from; see `read_csv`."""

    states: Names | None
    inputs: Names | None
    known: Names | None
    units: Mapping[str, str] | None
    convert: Mapping[str, Conversion] | None
    time_unit: str | None
    missing: Markers | Mapping[str, Markers] | None


_KINDS = {"states": "state", "inputs": "input", "known": "known parameter"}


@dataclass(frozen=True)
class Quantity:
    """A state, an input or a known parameter, and where it stands in the data.

    Arguments:
        kind: `"state"`, `"input"` or `"known parameter"`.
        name: Its name.
        unit: Its unit after conversion.
        source: The column or variable.
        factor: What the data are multiplied with.
        offset: What is added after that.
        low: The least that a known parameter may be, in `unit`.
        high: The most that it may be.
    """

    kind: str
    name: str
    unit: str
    source: str
    factor: float = 1.0
    offset: float = 0.0
    low: float = -math.inf
    high: float = math.inf

    def converted(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values in the declared unit, with the shape of `values`.

        Raises:
            DataError: If a value becomes infinite.
        """
        with np.errstate(over="ignore"):
            converted = values * self.factor + self.offset
        if np.isinf(converted).any():
            raise DataError(f"convert[{self.name!r}] = {self.factor:g} makes numbers infinite.")
        return converted


@dataclass(frozen=True)
class Plan:
    """Where everything stands.

    Arguments:
        states: The observed states, in the order of the expert.
        inputs: The inputs.
        known: The parameters that are given with each run.
    """

    states: tuple[Quantity, ...]
    inputs: tuple[Quantity, ...]
    known: tuple[Quantity, ...]


@dataclass(frozen=True)
class Sources:
    """The columns of a table, or the variables of a file.

    Arguments:
        noun: `"column"` or `"variable"`.
        units: The unit of each, None where the data do not say.
        short: The name of each without its unit.
    """

    noun: str
    units: Mapping[str, str | None]
    short: Mapping[str, str]

    @classmethod
    def of_headers(cls, headers: Iterable[str]) -> Sources:
        """Read names and units from the headers of columns."""
        split = {header: split_header(header) for header in headers if header}
        return cls("column", {h: u for h, (_, u) in split.items()},
                   {h: n for h, (n, _) in split.items()})  # fmt: skip

    def find(self, wanted: str, purpose: str, advice: str = "") -> str:
        """Return the source with a header or a name.

        Raises:
            DataError: Naming the nearest, if there is none or more than one.
        """
        found = [wanted] * (wanted in self.units) or [
            source for source, name in self.short.items() if name == wanted
        ]
        if len(found) > 1:
            both = " and ".join(map(repr, found))
            raise DataError(f"the {self.noun}s {both} are both {wanted!r}; write one in full.")
        if not found:
            hint = nearest(wanted, dict.fromkeys(self.short.values()))
            stop = " " if hint.endswith("?") else "; "
            raise DataError(
                f"there is no {self.noun} {wanted!r} for {purpose}; {hint}{stop}{advice}"
            )
        return found[0]


def _pairs(names: Names | None, argument: str) -> dict[str, str]:
    """Return the source of each name."""
    if names is None:
        return {}
    if isinstance(names, str):
        return {names: names}
    pairs = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    for name, source in pairs.items():
        if not (isinstance(name, str) and isinstance(source, str)):
            raise DataError(
                f"{argument} has {name!r}: {source!r}; write {argument}={{'name': 'column'}}."
            )
    return pairs


def make_plan(
    sources: Sources,
    expert: ODEExpert | None,
    asked: Mapping[str, Names | None],
    units: Mapping[str, str] | None,
    convert: Mapping[str, Conversion] | None,
) -> Plan:
    """Find everything that the expert, or the user, asks for.

    Arguments:
        sources: What there is.
        expert: Whose states, inputs and known parameters are needed; those not mentioned stand
            under their own names.
        asked: The source of each state, input and known parameter, under `"states"`, `"inputs"`
            and `"known"`.
        units: Units by name, as they are after conversion.
        convert: Factors, or pairs (factor, offset), by name.

    Returns:
        The plan.

    Raises:
        DataError: If something is missing, not declared, used twice, or in another unit.
    """
    units, convert = dict(units or {}), dict(convert or {})
    pairs = {argument: _pairs(names, argument) for argument, names in asked.items()}
    declared = _declared(expert, pairs)
    names = [d.name for members in declared.values() for d in members]
    for argument, given in (("units", units), ("convert", convert)):
        for name in given:
            if name not in names and (argument, name) != ("convert", "time"):
                hint = "write time_unit=" if name == "time" else nearest(name, names)
                raise DataError(f"{argument} has {name!r}; {hint}")
    plan = Plan(*(
        tuple(
            _quantity(sources, argument, d, pairs[argument].get(d.name, d.name), units, convert)
            for d in declared[argument]
        )
        for argument in _KINDS
    ))  # fmt: skip
    everything = [*plan.states, *plan.inputs, *plan.known]
    for i, one in enumerate(everything):
        for other in everything[:i]:
            if one.source == other.source:
                raise DataError(
                    f"the {sources.noun} {one.source!r} is used for {other.name!r} and for "
                    f"{one.name!r}; give each its own."
                )
    return plan


class _Declared(NamedTuple):
    """What is asked for; the unit is None where only the data can tell it."""

    name: str
    unit: str | None = None
    low: float = -math.inf
    high: float = math.inf


def _declared(
    expert: ODEExpert | None, pairs: Mapping[str, Mapping[str, str]]
) -> dict[str, list[_Declared]]:
    """Return what to look for by argument, in the order of the expert."""
    if expert is None:
        if not pairs["states"]:
            raise DataError(
                "neither an expert nor states are given; write states=['name', ...] or "
                "states={'name': 'column'}."
            )
        return {argument: [_Declared(name) for name in names] for argument, names in pairs.items()}
    members: dict[str, dict[str, State | Param]] = {
        "states": {s.name: s for s in expert.states},
        "inputs": {i.name: i for i in expert.inputs},
        "known": {p.name: p for p in expert.params},
    }
    for argument, names in pairs.items():
        for name in names:
            if name not in members[argument]:
                raise DataError(
                    f"expert {expert.name!r} has no {_KINDS[argument]} {name!r}; "
                    f"{nearest(name, members[argument])}"
                )
    for s in expert.states:
        if s.name in pairs["states"] and not s.observed:
            raise DataError(
                f"state {s.name!r} is declared with observed=False, but states= has it; declare "
                "it as observed, or leave it out of states=."
            )
    known = [p for p in expert.params if p.known or p.name in pairs["known"]]
    return {
        "states": [_Declared(s.name, s.unit) for s in expert.states if s.observed],
        "inputs": [_Declared(i.name, i.unit) for i in expert.inputs],
        "known": [_Declared(p.name, p.unit, p.low, p.high) for p in known],
    }


def _quantity(
    sources: Sources,
    argument: str,
    declared: _Declared,
    wanted: str,
    units: Mapping[str, str],
    convert: Mapping[str, Conversion],
) -> Quantity:
    kind, name, unit = _KINDS[argument], declared.name, declared.unit
    advice = f"write {argument}={{{name!r}: '...'}} if its {sources.noun} has another name."
    source = sources.find(wanted, f"{kind} {name!r}", advice)
    found = units.get(name) or (None if name in convert else sources.units[source])
    if unit is None and name in convert and found is None:
        raise DataError(
            f"convert has {name!r}, but nothing says its new unit; write "
            f"units={{{name!r}: '...'}}."
        )
    if unit is not None and found is not None and not same_unit(found, unit):
        raise DataError(
            f"{kind} {name!r} is in {found} in the data ({sources.noun} {source!r}) but in "
            f"{unit} in the expert; write {conversion_to_write(name, found, unit)} to convert, "
            f"or units={{{name!r}: {unit!r}}} if {found} is wrong."
        )
    low, high = declared.low, declared.high
    return Quantity(kind, name, unit or found or "1", source, *factors(name, convert), low, high)


def factors(name: str, convert: Mapping[str, Conversion]) -> tuple[float, float]:
    """Return the factor and the offset that are declared for a quantity; (1, 0) if none are.

    Raises:
        DataError: If they are no finite numbers, or the factor is zero.

    Example:
        >>> factors("T", {"T": (1.0, 273.15)})
        (1.0, 273.15)
    """
    value = convert.get(name, 1.0)
    try:
        factor, offset = value if isinstance(value, (tuple, list)) else (value, 0.0)
        pair = float(factor), float(offset)
    except (TypeError, ValueError):
        pair = (np.nan, np.nan)
    if not np.isfinite(pair).all() or pair[0] == 0.0:
        raise DataError(
            f"convert[{name!r}] is {value!r}; give a finite factor, or a pair (factor, offset)."
        )
    return pair


def conversion_to_write(name: str, found: str, wanted: str) -> str:
    """Return what a user may write to convert, with the factor where it is known.

    Example:
        >>> conversion_to_write("t", "ms", "s")
        "convert={'t': 1 / 1000}"
    """
    if same_unit(found, "degC") and same_unit(wanted, "K"):
        return f"convert={{{name!r}: (1, 273.15)}}"
    factor = factor_between(found, wanted)
    inverse = 0 if factor is None else round(1.0 / factor)
    if factor is None:
        text = "factor"
    elif inverse > 1 and math.isclose(inverse * factor, 1.0, rel_tol=1e-12):
        text = f"1 / {inverse}"
    else:
        text = f"{factor:.15g}"
    return f"convert={{{name!r}: {text}}}"
