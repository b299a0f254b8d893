import math

import pytest
import torch

from hybridgen.integrate.stepping import Tolerance, advance, rms
from hybridgen.integrate.tableaus import RK4, TABLEAUS, TSIT5


def _cross(tableau, rhs, y0, t0, t1, m, tolerance=None):
    k = rhs(t0, y0) if tableau.fsal else None
    return advance(rhs, tableau, t0, t1, y0, k, m, tolerance)


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS.keys())
def test_order_of_convergence(tableau, device):
    # y' = cos 2t - y from 1: y = (cos 2t + 2 sin 2t + 4 exp(-t)) / 5.
    t0, t1 = torch.zeros((), device=device), torch.full((), 2.0, device=device)
    y0 = torch.ones(1, 1, device=device)
    exact = (math.cos(4.0) + 2.0 * math.sin(4.0) + 4.0 * math.exp(-2.0)) / 5.0
    errors = []
    for m in (32, 64):
        y, _, _ = _cross(tableau, lambda t, y: torch.cos(2 * t) - y, y0, t0, t1, m)
        errors.append(abs(y.item() - exact))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(tableau.order, abs=0.25)


def test_error_estimate_shrinks_with_its_order():
    t0, t1 = torch.tensor(0.0), torch.tensor(1.0)
    errors = [
        _cross(
            TSIT5,
            lambda t, y: y.flip(1) * torch.tensor([1.0, -1.0]),
            torch.tensor([[1.0, 0.3]]),
            t0,
            t1,
            m,
            Tolerance(1e-6, 1e-6),
        )[2].item()
        for m in (8, 16)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(5.0, abs=0.1)


def test_derivative_at_the_end_is_the_fields_own():
    def rhs(t, y):
        return torch.cos(t) - y

    t0, t1 = torch.tensor(0.3), torch.tensor(0.7)
    y, k, _ = _cross(TSIT5, rhs, torch.ones(3, 2), t0, t1, 3, Tolerance(1e-6, 1e-6))
    assert torch.equal(k, rhs(t1, y))


def test_fsal_saves_one_call_a_step():
    calls = []

    def rhs(t, y):
        calls.append(t)
        return -y

    t0, t1 = torch.tensor(0.0), torch.tensor(1.0)
    _cross(TSIT5, rhs, torch.ones(1, 1), t0, t1, 4, Tolerance(1e-6, 1e-6))
    assert len(calls) == 1 + 4 * 6
    calls.clear()
    _cross(RK4, rhs, torch.ones(1, 1), t0, t1, 4)
    assert len(calls) == 4 * 4


def test_small_increments_are_not_lost_in_float32():
    # y grows by 1 in 1000 on top of 1e4, where float32 resolves 1e-3: adding up first keeps the
    # rounding to one half of it a step; adding the six terms one by one does not.
    y = torch.full((1, 1), 1e4, dtype=torch.float32)
    t0, t1 = torch.tensor(0.0, dtype=torch.float32), torch.tensor(1.0, dtype=torch.float32)
    done, _, _ = _cross(TSIT5, lambda t, y: torch.full_like(y, 0.5), y, t0, t1, 4)
    assert done.item() == pytest.approx(1e4 + 0.5, abs=1e-3)


@pytest.mark.parametrize("size", [1, 2, 8, 9, 100])
def test_rms(size):
    ratio = torch.linspace(-3, 5, 4 * size).reshape(4, size)
    torch.testing.assert_close(rms(ratio), ratio.square().mean(1).sqrt())
    torch.testing.assert_close(rms(1j * ratio), ratio.square().mean(1).sqrt())
