"""The sine and the cosine that kernels compute by themselves."""

import math

import pytest
import torch

from hybridgen.integrate.building import compiler
from hybridgen.integrate.kernel import kernel_for
from hybridgen.integrate.members import Members
from hybridgen.integrate.stepping import Tolerance
from hybridgen.integrate.tableaus import TSIT5

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")


def _waves(x):
    """Return sine and cosine of numbers `(N,)` by a kernel, each with shape `(N,)`."""

    def field(t, y, z):
        return torch.stack([torch.sin(y[..., 0]), torch.cos(y[..., 1])], -1)

    y = torch.stack([x, x], -1)
    members = Members(field, None, torch.tensor([0.0, 1.0], dtype=x.dtype), y.shape[:1])
    return kernel_for(members, y, TSIT5, Tolerance(1e-6, 1e-6), 256).slope(y).unbind(-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("largest", [1e-8, 2.0, 100.0, 1e5, 1e9])
def test_they_are_those_of_torch(dtype, largest):
    """In units of the last place, also around the zeros, where n pi must be taken off exactly."""
    x = largest * torch.linspace(-1, 1, 4001, dtype=torch.float64)
    zeros = math.pi / 2 * (x / math.pi * 2).round()
    x = torch.cat([x, zeros, zeros + 1e-9]).to(dtype)
    for got, exact in zip(_waves(x), (torch.sin(x.double()), torch.cos(x.double())), strict=True):
        # As far as the library, the sine of large numbers in float32 is allowed 4 such units.
        off = (got.double() - exact).abs() / (exact.abs() * torch.finfo(dtype).eps)
        assert float(off.nan_to_num(0.0).max()) < 4.0


def test_numbers_without_a_sine():
    x = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e300, 1.0, 2.0, 3.0]).double()
    for got, exact in zip(_waves(x), (torch.sin(x), torch.cos(x)), strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-15, atol=0, equal_nan=True)


def test_a_number_does_not_depend_on_those_beside_it():
    x = torch.linspace(-50.0, 50.0, 40, dtype=torch.float64)
    alone = _waves(x)
    x[::3] = torch.tensor([math.nan, 1e9, math.inf, 1e5] * 4, dtype=torch.float64)[:14]
    rest = torch.arange(40) % 3 != 0
    for got, before in zip(_waves(x), alone, strict=True):
        assert torch.equal(got[rest], before[rest])
