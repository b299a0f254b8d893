"""Signals in kernels that pick their own steps: looked up at any time, as eager steps do."""

import pytest
import torch

from hybridgen.errors import UnsupportedError
from hybridgen.integrate import solve
from hybridgen.integrate.building import compiler
from hybridgen.signals import before_jumps, cubic, hold, linear, spline

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
KINDS = {"hold": hold, "linear": linear, "cubic": cubic, "spline": spline}


@pytest.fixture
def device():
    """Kernels are for the CPU."""
    return torch.device("cpu")


def _waves(count, points, inputs=1):
    t = torch.linspace(0, 3, points)
    phase = torch.linspace(0, 2, count * inputs).reshape(count, 1, inputs)
    return t, torch.sin(2 * t[:, None] + phase)


def _both(field, y0, t, args):
    kernel, eager = (solve(field, y0, t, args, compile=c) for c in (True, False))
    assert kernel.compiled
    assert not eager.compiled
    assert torch.equal(kernel.status, eager.status)
    assert torch.equal(kernel.n_steps, eager.n_steps)
    torch.testing.assert_close(kernel.y, eager.y, rtol=1e-12, atol=1e-12)
    return kernel


@pytest.mark.parametrize("points", [7, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_of_driven_members(kind, points):
    t, u = _waves(70, points, 2)
    signal, rate = KINDS[kind](t, u), torch.linspace(0.5, 2, 70)[:, None]
    grid, _ = before_jumps(t)

    def field(t, y, args):
        rate, signal = args
        return signal(t) * y.cos() - rate * y + t[..., None] * 0.1

    _both(field, torch.ones(70, 2), grid, (rate, signal))
    if kind in ("cubic", "spline"):  # whose kinks are none that a step would feel
        own = grid * torch.linspace(0.5, 1, 70)[:, None]
        _both(field, torch.ones(70, 2), own, (rate, signal))


@pytest.mark.parametrize("kind", ["hold", "linear", "cubic"])
def test_a_kernel_of_a_long_signal_that_all_share(kind):
    """More samples than are compared one by one, captured by the field or among its arguments."""
    t, u = _waves(1, 150)
    signal, grid = KINDS[kind](t, u[0]), before_jumps(t)[0]
    y0 = torch.linspace(0.1, 2, 9)[:, None]
    captured = _both(lambda t, y, a: signal(t) - a * y, y0, grid, y0)
    passed = _both(lambda t, y, a: a[1](t) - a[0] * y, y0, grid, (y0, signal))
    assert torch.equal(captured.y, passed.y)


def test_the_answer_may_be_of_any_time():
    """Delayed and mirrored drives, and an integral in closed form: cubics are exact."""
    t = torch.linspace(0, 2, 9)
    factor = torch.tensor([1.0, 3.0])[:, None]
    signal = spline(t, factor[..., None] * (t**3 - 2 * t)[:, None])
    y0, late = torch.zeros(2, 1), 0.25
    y = solve(lambda t, y, u: u(t - late) - u(-t), y0, t, signal, compile=True).y
    before = (t - late) ** 4 / 4 - (t - late) ** 2 - (late**4 / 4 - late**2)
    torch.testing.assert_close(y[..., 0], factor * (before - (-(t**4) / 4 + t**2)))


def test_before_the_first_and_after_the_last_sample():
    t = torch.linspace(0, 1, 5)
    signal = linear(t, torch.arange(5.0)[:, None] + torch.zeros(2, 5, 1))
    grid = torch.cat([torch.tensor([-2.0, -1.0]), t, torch.tensor([3.0, 4.0])])
    y = solve(lambda t, y, u: u(t), torch.zeros(2, 1), grid, signal, compile=True, rtol=1e-9).y
    torch.testing.assert_close(y[:, 1], torch.zeros(2, 1))
    torch.testing.assert_close(y[:, -1] - y[:, -2], torch.full((2, 1), 4.0))


def test_a_field_may_look_into_a_signal_after_it_has_asked():
    t, u = _waves(3, 9)
    _both(lambda t, y, u: u(t) - y * u.powers[:, 3, 0], torch.ones(3, 1), t, linear(t, u))


def test_float32():
    t, u = (v.float() for v in _waves(20, 30))
    y0, signal = torch.ones(20, 1, dtype=torch.float32), spline(t, u)
    field = lambda t, y, u: u(t) - y  # noqa: E731
    kernel, eager = (solve(field, y0, t, signal, rtol=1e-4, compile=c) for c in (True, False))
    assert kernel.compiled
    torch.testing.assert_close(kernel.y, eager.y, rtol=1e-5, atol=1e-5)


REFUSED = {
    "long": (lambda t, y, u: u(t) - y, 2000, "2001 numbers, too many"),
    "looking": (lambda t, y, u: y * u.powers[:, 3, 0] + u(t), 9, "looks into a signal"),
    "made": (
        lambda t, y, u: u._replace(powers=2 * u.powers)(t) - y,
        9,
        "makes a signal by itself",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_looked_up_is_refused(name):
    field, points, reason = REFUSED[name]
    t, u = _waves(3, points)
    with pytest.raises(UnsupportedError, match=reason):
        solve(field, torch.ones(3, 1), t[:5], linear(t, u), compile=True)
