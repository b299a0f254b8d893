"""Units in whatever spelling, compared with what they mean."""

import math

import pytest

from hybridgen.errors import DataError
from hybridgen.units import (
    factor_between,
    in_seconds,
    is_time,
    same_unit,
    split_header,
    time_units,
)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("m/s^2", "m s-2"),
        ("m/s²", "m·s⁻²"),
        ("m/s**2", "s^-2 m"),
        ("W/m/K", "W m-1 K-1"),
        ("-", "1"),
        ("", "dimensionless"),
        ("°C", "degC"),
        ("°", "degrees"),
        ("µs", "us"),
        ("years", "yr"),
        ("1/sec", "s^-1"),
        ("kg/(m s)", "kg/(m s)"),
    ],
)
def test_one_unit_in_two_spellings(a, b):
    assert same_unit(a, b)
    assert same_unit(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("deg", "rad"),
        ("s", "ms"),
        ("m", "M"),
        ("%", "1"),
        ("J/kg K", "J/kg/K"),  # may mean (J/kg) K
        ("thousand", "1"),
        ("Hz", "1/s"),
        ("m", "m^2"),
        ("kg/(m s)", "kg/m/s"),  # brackets are not read
    ],
)
def test_two_units(a, b):
    assert not same_unit(a, b)
    assert not same_unit(b, a)


@pytest.mark.parametrize(
    ("found", "wanted", "factor"),
    [
        ("deg", "rad", math.pi / 180),
        ("deg/s", "rad/s", math.pi / 180),
        ("ms", "s", 1e-3),
        ("km/h", "m/s", 1 / 3.6),
        ("cm^2", "m^2", 1e-4),
        ("%", "1", 0.01),
        ("1/day", "1/week", 7.0),
        ("degC", "K", None),
        ("m", "s", None),
        ("parsec", "m", None),
    ],
)
def test_factors(found, wanted, factor):
    result = factor_between(found, wanted)
    assert result == (None if factor is None else pytest.approx(factor, rel=1e-12))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("angle [deg]", ("angle", "deg")),
        ("angle(deg)", ("angle", "deg")),
        (" angle [ m/s ] ", ("angle", "m/s")),
        ("angle", ("angle", None)),
        ("angle []", ("angle", "1")),
        ("hare (wild) [thousand]", ("hare (wild)", "thousand")),
        ("[deg]", ("[deg]", None)),
    ],
)
def test_headers(header, expected):
    assert split_header(header) == expected


def test_units_of_time():
    assert time_units(["rad", "1/ms", "kg/m", "Hz", "1/thousand/year"]) == {"ms", "s", "year"}
    assert is_time("hours")
    assert not is_time("1/s")
    assert not is_time("s^2")
    assert in_seconds("weeks") == 7 * 86400
    with pytest.raises(DataError, match=r"'m' is no unit of time .* write one of day, h"):
        in_seconds("m")
