"""Declarations: names, ranges, and sentences that name the fix."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridgen.errors import ParameterError, ShapeError
from hybridgen.params import Param, State, bind, check_range, encoder_box, vector

PARAMS = (Param("omega0", "rad/s", 0.5, 3.5), Param("alpha", "1/s", 0.0, 0.6))


def test_values_broadcast_against_a_component():
    z = torch.ones(4, 5, 2)
    assert bind(PARAMS, z).alpha.shape == (4, 5)
    assert bind(PARAMS, z, space=2).alpha.shape == (4, 5, 1, 1)
    assert bind(PARAMS, torch.ones(2), space=1).omega0.shape == (1,)


def test_misspelt_attribute_names_the_nearest():
    with pytest.raises(AttributeError, match="no parameter 'omega'; did you mean 'omega0'"):
        _ = bind(PARAMS, torch.ones(3, 2)).omega


def test_wrong_length_says_what_was_expected():
    with pytest.raises(ShapeError, match=r"shape \(3, 1\); expected \(\*B, 2\).*omega0, alpha"):
        bind(PARAMS, torch.ones(3, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"omega": 1.0, "alpha": 0.1}, "no parameter 'omega'; did you mean 'omega0'"),
        ({"omega0": 1.0}, "no value for 'alpha'"),
        ({"omega0": 9.0, "alpha": 0.1}, r"'omega0' = 9 rad/s is outside .*\[0.5, 3.5\] rad/s"),
        ({"omega0": math.nan, "alpha": 0.1}, "'omega0' is nan in 1 of 1 members"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ParameterError, match=message):
        vector(PARAMS, values)


def test_vector_orders_by_declaration():
    z = vector(PARAMS, {"alpha": torch.tensor([0.1, 0.2]), "omega0": 2.0})
    assert torch.equal(z, torch.tensor([[2.0, 0.1], [2.0, 0.2]], dtype=z.dtype))


@given(low=st.floats(allow_nan=True), high=st.floats(allow_nan=True))
def test_only_a_finite_range_is_a_range(low, high):
    good = math.isfinite(low) and math.isfinite(high) and low < high
    if good:
        assert Param("k", "1", low, high).low == low
    else:
        with pytest.raises(ParameterError, match="write two finite numbers"):
            Param("k", "1", low, high)


def test_names_are_identifiers():
    with pytest.raises(ParameterError, match="not a Python identifier"):
        State("my state", "m")


def test_check_range_accepts_the_ends():
    check_range(PARAMS, torch.tensor([[0.5, 0.0], [3.5, 0.6]]))


def test_encoder_box_is_wider_but_positive():
    low, high = encoder_box((*PARAMS, Param("c", "1", -1.0, 1.0)))
    assert torch.allclose(low, torch.tensor([0.2, 0.0, -1.2], dtype=low.dtype))
    assert torch.allclose(high, torch.tensor([3.8, 0.66, 1.2], dtype=low.dtype))
