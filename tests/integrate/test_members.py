from typing import NamedTuple

import pytest
import torch
from torch import Size

from hybridgen.errors import ExpertError
from hybridgen.integrate.members import Members, nan_members, select


class Pair(NamedTuple):
    first: object
    second: object


def test_select_indexes_what_belongs_to_members_and_nothing_else():
    per_member, shared = torch.arange(6.0).reshape(3, 2), torch.arange(4.0)
    label, module = "sin", torch.nn.Identity()
    args = {"a": (per_member, None), "b": [shared, label], "c": Pair(module, per_member[:, 0])}
    rows = torch.tensor([2, 0])
    picked = select(args, Size([3]), rows)
    assert torch.equal(picked["a"][0], per_member[rows])
    assert picked["a"][1] is None
    assert picked["b"][0] is shared
    assert picked["b"][1] is label
    assert isinstance(picked["c"], Pair)
    assert picked["c"].first is module
    assert torch.equal(picked["c"].second, per_member[rows, 0])


def test_select_keeps_the_number_of_batch_axes():
    value = torch.arange(24.0).reshape(2, 3, 4)
    picked = select(value, Size([2, 3]), torch.tensor([5, 1]))
    assert picked.shape == (2, 1, 4)
    assert torch.equal(picked[0, 0], value[1, 2])
    assert select(value, Size([2, 3]), torch.arange(6).flip(0)).shape == (2, 3, 4)


def test_without_batch_axes_nothing_is_indexed():
    value = torch.arange(3.0)
    assert select(value, Size([]), torch.tensor([0])) is value
    assert nan_members(value * torch.nan, Size([]), value.device).tolist() == [False]


def test_nan_members_looks_inside():
    a, b = torch.zeros(3, 2), torch.zeros(3)
    a[1, 1], b[2] = torch.nan, torch.nan
    shared = torch.full((5,), torch.nan)
    found = nan_members({"a": [a], "b": (b, None, shared, torch.arange(3))}, Size([3]), a.device)
    assert found.tolist() == [False, True, True]


def test_taking_twice_does_not_mistake_shared_tensors_for_members():
    # Three members are left, and the shared tensor begins with an axis of three.
    shared = torch.arange(3.0)
    members = Members(lambda t, y, args: y, (torch.arange(5.0), shared), torch.zeros(1), Size([5]))
    left = members.take(torch.tensor([0, 2, 4])).take(torch.tensor([1]))
    assert left.args[0].tolist() == [2.0]
    assert left.args[1] is shared


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (lambda t, y, args: y[:, :1], r"returned \(4, 1\) of torch.float64 .* \(4, 2\)"),
        (lambda t, y, args: y.float(), r"torch.float32 for a state of shape .* torch.float64"),
        (lambda t, y, args: (y, y), "returned tuple"),
    ],
)
def test_a_wrong_derivative_is_named(field, message):
    members = Members(field, None, torch.zeros(1), Size([4]))
    with pytest.raises(ExpertError, match=message):
        members.rhs(torch.tensor(0.0), torch.ones(4, 2, dtype=torch.float64))


def test_captured_values_of_members_are_explained():
    rate = torch.arange(4.0)
    members = Members(lambda t, y, args: rate[:, None] * y, None, torch.zeros(1), Size([4]))
    members.rhs(torch.tensor(0.0), torch.ones(4, 2))
    with pytest.raises(ExpertError, match="through `args`"):
        members.take(torch.tensor([1, 2])).rhs(torch.tensor(0.0), torch.ones(2, 2))
    # One member alone broadcasts against all of them; the shape gives it away.
    with pytest.raises(ExpertError, match="through `args`"):
        members.take(torch.tensor([1])).rhs(torch.tensor(0.0), torch.ones(1, 2))


def test_a_fields_own_error_passes_through():
    def field(t, y, args):
        raise RuntimeError("of its own")

    members = Members(field, None, torch.zeros(1), Size([4]))
    with pytest.raises(RuntimeError, match=r"^of its own$"):
        members.rhs(torch.tensor(0.0), torch.ones(4, 2))
