"""Events: closed forms, gradients, members of their own, and what counts as one."""

import math

import pytest
import torch

from hybridgen.errors import ConfigError, ExpertError, GradientError
from hybridgen.integrate import Event, Status, solve
from hybridgen.integrate.kernel import compiler

kernels = pytest.mark.parametrize(
    "compile",
    [
        False,
        pytest.param(True, marks=pytest.mark.skipif(compiler() is None, reason="no compiler")),
    ],
)
GRAVITY = 9.81


def ball(t, y, drag):
    """A ball in the air: height and speed."""
    speed = y[..., 1]
    return torch.stack([speed, -GRAVITY - drag * speed], -1)


def ground(t, y, args):
    return y[..., 0]


def thrown(count=20):
    height, speed = torch.linspace(1, 10, count), torch.linspace(0, 5, count)
    return torch.stack([height, speed], -1)


def landing(y0):
    height, speed = y0.unbind(-1)
    return (speed + (speed**2 + 2 * GRAVITY * height).sqrt()) / GRAVITY


@kernels
def test_time_and_place_of_the_landing(compile):
    y0, t = thrown(), torch.linspace(0, 1.5, 31)
    solution = solve(ball, y0, t, torch.zeros(20), event=ground, compile=compile)
    exact = landing(y0)
    late = exact > 1.5
    assert 3 < int(late.sum()) < 17
    assert solution.compiled == compile
    assert solution.status.tolist() == [Status.ok] * 20
    torch.testing.assert_close(solution.t_event[~late], exact[~late], rtol=1e-12, atol=0)
    assert bool(solution.t_event[late].isnan().all() & solution.y_event[late].isnan().all())
    speed = y0[:, 1] - GRAVITY * exact
    torch.testing.assert_close(solution.y_event[~late, 1], speed[~late], rtol=1e-11, atol=0)
    assert solution.y_event[~late, 0].abs().max() < 1e-12
    assert torch.equal(solution.t_reached[late], t[-1:].expand(int(late.sum())))
    reached = t <= solution.t_reached[:, None]
    assert torch.equal(reached, solution.y[..., 0].isfinite())
    passed = torch.where(late, 1.5, exact)
    assert bool(((solution.t_reached <= passed) & (solution.t_reached > passed - 0.0501)).all())


@kernels
def test_an_event_that_does_not_end_anything(compile):
    y0, t = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.linspace(0, 10, 41)
    rotate = lambda t, y, args: torch.stack([y[..., 1], -y[..., 0]], -1)  # noqa: E731
    event = Event(ground, direction=1, terminal=False)
    solution = solve(rotate, y0, t, event=event, compile=compile, rtol=1e-10, atol=1e-10)
    # cos t rises through zero first at 3 pi / 2, sin t (which starts at zero) at 2 pi
    expected = torch.tensor([1.5 * math.pi, 2.0 * math.pi])
    torch.testing.assert_close(solution.t_event, expected, rtol=0, atol=1e-8)
    plain = solve(rotate, y0, t, compile=compile, rtol=1e-10, atol=1e-10)
    assert torch.equal(solution.y, plain.y)


@pytest.mark.parametrize(("direction", "expected"), [(0, 0.5), (1, 1.5), (-1, 0.5)])
def test_directions(direction, expected):
    t = torch.linspace(0, 3, 31)
    wave = lambda t, y, args: -math.pi * torch.sin(math.pi * t) * torch.ones_like(y)  # noqa: E731
    event = Event(lambda t, y, args: y[:, 0], direction)
    found = solve(wave, torch.ones(3, 1), t, event=event, rtol=1e-10, atol=1e-10).t_event
    torch.testing.assert_close(found, torch.full((3,), expected), rtol=1e-8, atol=0)


def test_a_start_at_zero_is_no_event():
    y0 = torch.tensor([[0.0, 5.0], [0.0, 0.0], [0.0, -1.0]])
    solution = solve(ball, y0, torch.linspace(0, 2, 21), torch.zeros(3), event=ground)
    assert solution.t_event[0] == pytest.approx(10 / GRAVITY, rel=1e-12)
    assert bool(solution.t_event[1:].isnan().all())
    assert solution.t_reached.tolist() == [1.0, 2.0, 2.0]


@kernels
def test_what_comes_after_an_event_is_nobodys_business(compile):
    """y' = y^2 has a pole at t = 1 / y0; the event comes before it, in an interval of its own."""
    y0, t = torch.linspace(0.5, 1.0, 80)[:, None], torch.linspace(0, 2.1, 64)
    event = lambda t, y, args: y[..., 0] - 3.0  # noqa: E731
    grow = lambda t, y, args: y * y  # noqa: E731
    solution = solve(grow, y0, t, event=event, compile=compile, rtol=1e-9, atol=1e-9)
    assert bool(solution.ok.all())
    torch.testing.assert_close(solution.t_event, (1 / y0 - 1 / 3)[:, 0], rtol=1e-7, atol=0)
    assert bool((solution.y_event == 3.0).all()) or (solution.y_event - 3).abs().max() < 1e-12


@kernels
def test_events_of_stiff_members(compile):
    """y' = -rate (y - cos t) is cos t but for a start that is gone at once."""
    rate = torch.tensor([1.0, 1e5, 2.0, 3e5])[:, None]
    field = lambda t, y, rate: -rate * (y - torch.cos(t))  # noqa: E731
    t = torch.linspace(0, 3, 31)
    tight = {"rtol": 1e-9, "atol": 1e-9, "compile": compile, "max_substeps": 64}
    event = lambda t, y, args: y[..., 0]  # noqa: E731
    solution = solve(field, torch.ones(4, 1), t, rate, event=event, **tight)
    r = rate[[1, 3], 0]
    expected = math.pi / 2 + torch.atan(1 / r)
    torch.testing.assert_close(solution.t_event[[1, 3]], expected, rtol=0, atol=1e-8)
    assert solution.status.tolist() == [0, 1, 0, 1]


def test_times_of_their_own_and_batch_axes():
    y0 = thrown(6).reshape(2, 3, 2)
    scale = torch.tensor([[1.0, 1.5, 2.0], [2.5, 2.0, 1.0]])
    t = torch.linspace(0, 1, 41) * scale[..., None]
    drag = torch.zeros(2, 3)
    solution = solve(ball, y0, t, drag, event=ground, batch_dims=2)
    exact = torch.where(landing(y0) < scale, landing(y0), torch.nan)
    assert bool(exact.isnan().any() & exact.isfinite().any())
    torch.testing.assert_close(solution.t_event, exact, rtol=1e-12, atol=0, equal_nan=True)
    assert solution.y_event.shape == (2, 3, 2)


def test_one_system_and_back_in_time():
    y0, t = torch.tensor([1.0, 0.0]), torch.linspace(2, -1, 16)
    rotate = lambda t, y, args: torch.stack([y[1], -y[0]])  # noqa: E731
    event = lambda t, y, args: y[0] + 0.0 * t  # noqa: E731
    solution = solve(rotate, y0, t, event=event, batch_dims=0, rtol=1e-10, atol=1e-10)
    assert solution.t_event.shape == ()
    assert float(solution.t_event) == pytest.approx(2 - math.pi / 2, abs=1e-8)


def test_a_field_for_times_of_the_whole_batch():
    """With t of shape (N,) it would broadcast along the wrong axis."""
    field = lambda t, y, args: torch.ones_like(y) * torch.cos(t)  # noqa: E731
    event = lambda t, y, args: y[:, 0] - 0.5 + 0.0 * t  # noqa: E731
    y0 = torch.tensor([[0.0, 0.0], [0.2, 0.0]])
    t = torch.linspace(0, 1, 11)
    found = solve(field, y0, t, event=event, rtol=1e-10, atol=1e-10).t_event
    expected = torch.tensor([0.5, 0.3]).asin()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_single_precision():
    y0, t = thrown().float(), torch.linspace(0, 3, 31, dtype=torch.float32)
    solution = solve(ball, y0, t, torch.zeros(20, dtype=torch.float32), event=ground, rtol=1e-5)
    assert solution.t_event.dtype == solution.y_event.dtype == torch.float32
    torch.testing.assert_close(solution.t_event, landing(y0), rtol=1e-5, atol=0)


def test_members_do_not_matter_to_each_other():
    y0, t = thrown(), torch.linspace(0, 3, 31)
    drag = torch.linspace(0, 1, 20)
    drag[4], y0[9] = torch.nan, torch.nan
    whole = solve(ball, y0, t, drag, event=ground)
    assert whole.status[[4, 9]].tolist() == [Status.nonfinite] * 2
    for rows in ([7], [3, 4, 5, 19]):
        part = solve(ball, y0[rows], t, drag[rows], event=ground, substeps=whole.substeps)
        assert torch.equal(part.y.nan_to_num(), whole.y[rows].nan_to_num())
        torch.testing.assert_close(
            part.t_event, whole.t_event[rows], rtol=1e-14, atol=0, equal_nan=True
        )


def test_gradients_of_time_and_place():
    y0, t = thrown(4).requires_grad_(), torch.linspace(0, 3, 31)
    drag = torch.linspace(0, 0.5, 4).requires_grad_()

    def events(y0, drag, level):
        event = lambda t, y, args: y[..., 0] - level * (1 + t)  # noqa: E731
        tight = {"rtol": 1e-10, "atol": 1e-10, "substeps": 2}
        solution = solve(ball, y0, t, drag, event=event, **tight)
        assert bool(solution.t_event.isfinite().all())
        return solution.t_event, solution.y_event

    level = torch.tensor(0.1, requires_grad=True)
    assert torch.autograd.gradcheck(events, (y0, drag, level), eps=1e-5, atol=1e-6, rtol=1e-5)


def test_the_gradient_of_a_landing_is_the_closed_form():
    y0, t = thrown(5).requires_grad_(), torch.linspace(0, 3, 31)
    solution = solve(ball, y0, t, torch.zeros(5), event=ground)
    ours = torch.autograd.grad(solution.t_event.sum(), y0)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(landing(y0).sum(), y0)[0])


def test_who_has_no_event_does_not_poison_the_others():
    y0, t = thrown(6).requires_grad_(), torch.linspace(0, 1, 11)
    shared = torch.tensor(0.1, requires_grad=True)
    field = lambda t, y, args: ball(t, y, shared)  # noqa: E731
    solution = solve(field, y0, t, event=ground)
    landed = solution.t_event.isfinite()
    assert 0 < int(landed.sum()) < 6
    total = solution.t_event[landed].sum() + solution.y_event[landed].sum()
    gradients = torch.autograd.grad(total, (y0, shared))
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert bool((gradients[0][~landed] == 0).all())


def test_what_is_refused():
    y0, t = thrown(3), torch.linspace(0, 1, 5)
    drag = torch.zeros(3)
    with pytest.raises(ConfigError, match="event is 3; write a function"):
        solve(ball, y0, t, drag, event=3)
    with pytest.raises(ConfigError, match="direction is 2; write -1, 0 or 1"):
        Event(ground, direction=2)
    with pytest.raises(ConfigError, match="event is given, but 'grid_rk4'"):
        solve(ball, y0, t, drag, event=ground, method="grid_rk4")
    with pytest.raises(ExpertError, match=r"returned \(3, 2\) .* members of shape \(3,\)"):
        solve(ball, y0, t, drag, event=lambda t, y, args: y)
    with pytest.raises(GradientError, match="event function does not let gradients through"):
        solve(
            ball,
            thrown(3).requires_grad_(),
            torch.linspace(0, 3, 9),
            drag,
            event=lambda t, y, args: y[..., 0].detach(),
        )
