"""Shifts: supports, distances, and what is refused."""

import pytest
import torch

from hybridgen.errors import ShiftError
from hybridgen.shift import Shift, check_support, distance

TRAINING = {"omega0": (1.5, 3.1), "alpha": (0.0, 0.5), "fixed": (1.0, 1.0)}


def test_distance_is_the_largest_excess_in_training_widths():
    values = {
        "omega0": torch.tensor([2.0, 0.7, 3.9, 1.5]),
        "alpha": torch.tensor([0.1, 0.1, 1.5, 0.0]),
    }
    d = distance(values, TRAINING, ("omega0", "alpha"))
    assert torch.allclose(d, torch.tensor([0.0, 0.5, 2.0, 0.0], dtype=d.dtype))


def test_axes_that_do_not_move_do_not_count():
    values = {"omega0": torch.tensor([2.0]), "alpha": torch.tensor([9.0])}
    assert distance(values, TRAINING, ("omega0",)) == 0
    assert distance(values, TRAINING, ()) == 0


def test_fixed_axis_has_no_unit():
    with pytest.raises(ShiftError, match=r"'fixed' is fixed at 1\.0 in training"):
        distance({"fixed": torch.ones(2)}, TRAINING, ("fixed",))


def test_apply_moves_only_what_it_names():
    moved = Shift("slow", {"omega0": (0.5, 1.5)}).apply(TRAINING)
    assert moved == {**TRAINING, "omega0": (0.5, 1.5)}


def test_graded_cuts_the_interval():
    parts = Shift("slow", {"omega0": (0.0, 3.0)}).graded(3)
    assert [p.support["omega0"] for p in parts] == [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]
    assert [p.name for p in parts] == ["slow_1", "slow_2", "slow_3"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shift("s"), "moves nothing"),
        (
            lambda: Shift("s", {"k": (2.0, 1.0)}),
            r"shift 's' has the empty interval k = \(2.0, 1.0\)",
        ),
        (lambda: Shift("s", {"k": (0.0, float("nan"))}), "write two finite numbers"),
        (lambda: Shift("s", {"omega": (0, 1)}).apply(TRAINING), "did you mean 'omega0'"),
        (lambda: check_support({"k": (0.0,)}, "the support"), "the support has k"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ShiftError, match=message):
        make()
