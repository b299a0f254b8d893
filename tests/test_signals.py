"""Inputs between their samples: exact for cubics, fourth order, one per member."""

import dataclasses

import numpy as np
import pytest
import torch
from hybridgen.simulators import rlc

from hybridgen.errors import DataError, ShapeError
from hybridgen.integrate import solve
from hybridgen.integrate.building import compiler
from hybridgen.signals import Held, before_jumps, cubic, hold, linear, spline


def test_cubics_are_exact():
    t = torch.tensor([0.0, 0.4, 1.0, 1.1, 2.0])
    u = (t**3 - 2 * t)[None, :, None]
    signal = spline(t, u)
    for x in (0.1, 0.4, 1.05, 1.9, 2.0):
        assert torch.allclose(signal(torch.tensor(x)), torch.full((1, 1), x**3 - 2 * x))


@pytest.mark.parametrize("own", [False, True])
def test_error_falls_with_the_fourth_power(own):
    errors = []
    for n in (61, 121):
        t = torch.linspace(0, 3, n)
        signal = spline(t.expand(2, -1) if own else t, (2 * t).sin().expand(2, -1)[..., None])
        x = torch.linspace(0.05, 2.95, 97)
        values = torch.stack([signal(v)[0, 0] for v in x])
        errors.append(float((values - (2 * x).sin()).abs().max()))
    assert 14 < errors[0] / errors[1] < 40


def test_each_member_has_its_own_time():
    t = torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]])
    signal = spline(t, 3 * t[..., None])
    assert torch.allclose(signal(torch.tensor([1.5, 3.0]))[:, 0], torch.tensor([4.5, 9.0]))


def test_held_inputs_do_not_move():
    values = torch.ones(2, 3, 1)
    assert Held(values)(torch.tensor(5.0)) is values


def test_faults_are_sentences():
    with pytest.raises(ShapeError, match=r"expected \(T,\) or \(B, T\)"):
        spline(torch.arange(3.0), torch.zeros(2, 4, 1))
    with pytest.raises(DataError, match="at least two times"):
        spline(torch.zeros(1), torch.zeros(2, 1, 1))


KINDS = {"hold": hold, "linear": linear, "cubic": cubic}


@pytest.mark.parametrize("count", [7, 200], ids=["few", "many"])
def test_the_kinds_of_signals(count):
    """Few samples are compared with all, many are searched."""
    t = torch.linspace(0, 3, count) + 0.2 * torch.linspace(0, 3, count) ** 2
    u = torch.stack([torch.sin(t), t], -1)
    x = torch.cat([torch.linspace(-1, float(t[-1]) + 1, 57), t])
    held, line = hold(t, u)(x), linear(t, u)(x)
    piece = np.searchsorted(t.numpy(), x.numpy(), side="right") - 1
    assert torch.equal(held, u[piece.clip(0)])
    for k in range(2):
        expected = torch.from_numpy(np.interp(x.numpy(), t.numpy(), u[:, k].numpy()))
        torch.testing.assert_close(line[:, k], expected)
    smooth = torch.stack([spline(t, u[None])(v)[0] for v in x])
    torch.testing.assert_close(cubic(t, u)(x), smooth)


@pytest.mark.parametrize("count", [7, 200])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [True, False])
def test_signals_of_systems_own(kind, count, shared):
    scale = torch.tensor([[1.0, 2.0, 4.0], [0.5, 3.0, 1.0]])
    t = torch.linspace(0, 3, count) * (1.0 if shared else scale[..., None])
    u = (scale[..., None] * t).sin()[..., None]
    whole = KINDS[kind](t, u)
    assert whole(torch.tensor(0.7)).shape == (2, 3, 1)
    own = whole(0.7 * scale)
    assert own.shape == (2, 3, 1)
    for i, j in ((0, 1), (1, 2)):
        alone = KINDS[kind](t if shared else t[i, j], u[i, j])
        assert torch.equal(alone(torch.tensor(0.7)), whole(torch.tensor(0.7))[i, j])
        assert torch.equal(alone(0.7 * scale[i, j]), own[i, j])


@pytest.mark.parametrize("count", [7, 200])
@pytest.mark.parametrize("kind", [*KINDS, "spline"])
@pytest.mark.parametrize("shared", [True, False])
def test_many_times_at_once(kind, count, shared):
    scale = torch.tensor([1.0, 0.5, 3.0])
    t = torch.linspace(0, 3, count)
    u = (scale[:, None] * t).sin()[..., None].repeat(1, 1, 2)
    signal = spline(t, u) if kind == "spline" else KINDS[kind](t, u)
    times = torch.cat([torch.linspace(-1, 4, 23), t]) * (1.0 if shared else scale[:, None])
    found = signal.at(times)
    assert found.shape == (3, 23 + count, 2)
    for m in range(times.shape[-1]):
        torch.testing.assert_close(found[:, m], signal(times[..., m]), rtol=1e-14, atol=1e-14)


def test_gradients_reach_the_samples():
    t, x = torch.linspace(0, 1, 4), torch.tensor([0.1, 0.5, 1.2])
    u = torch.rand(4, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for kind in (hold, linear):
        assert torch.autograd.gradcheck(lambda u, k=kind: k(t, u)(x), u)


def driven(t, y, args):
    rate, *signal = args
    return -rate * y + signal[0](t)


STEPS = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)[:, None]


def stepped(y0, rate, t):
    """What y' = -rate y + u is at t = 0, 1, 2, ..., where u is held for 1."""
    found = [y0]
    for k in range(len(t) - 1):
        level = STEPS[k // 5] / rate
        found.append(level + (found[-1] - level) * torch.exp(-rate * (t[k + 1] - t[k])))
    return torch.stack(found, 1)


@pytest.mark.parametrize("method", ["tsit5", "grid_rk4"])
@pytest.mark.parametrize("compile", [False, True])
def test_steps_end_before_jumps(method, compile):
    if compile and compiler() is None:
        pytest.skip("no kernels here")
    t, rate = torch.linspace(0, 4, 21), torch.linspace(0.5, 2, 6)[:, None]
    y0, signal = torch.ones(6, 1), hold(torch.arange(4.0), STEPS)
    grid, at = before_jumps(t, torch.arange(1.0, 4.0))
    assert len(grid) == 24
    assert torch.equal(grid[at], t)
    field = lambda t, y, rate: -rate * y + signal(t)  # noqa: E731
    settings = {"rtol": 1e-9, "atol": 1e-9} if method == "tsit5" else {"substeps": 20}
    solution = solve(field, y0, grid, rate, method=method, compile=compile, **settings)
    assert solution.status.tolist() == [0] * 6
    torch.testing.assert_close(solution.y[:, at], stepped(y0, rate, t), rtol=1e-7, atol=1e-8)
    if method == "tsit5":
        blind = solve(field, y0, t, rate, compile=False, **settings)
        assert blind.n_steps.sum() > 2 * solution.n_steps.sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compile", [False, True])
def test_members_with_signals_of_their_own(kind, compile):
    if compile and compiler() is None:
        pytest.skip("no kernels here")
    t = torch.linspace(0, 2, 9)
    u = torch.rand(70, 9, 1, generator=torch.Generator().manual_seed(0))
    rate, y0 = torch.linspace(0.5, 2, 70)[:, None], torch.ones(70, 1)
    rate[66] = 60.0  # repeated alone, outside the pilot
    grid, _ = before_jumps(t)
    whole = solve(driven, y0, grid, (rate, KINDS[kind](t, u)), compile=compile, rtol=1e-8)
    assert whole.compiled == compile
    assert whole.status[66] == 1
    for j in (3, 66):
        part = rate[j : j + 1], KINDS[kind](t, u[j : j + 1])
        alone = solve(driven, y0[:1], grid, part, rtol=1e-8)
        torch.testing.assert_close(whole.y[j], alone.y[0], rtol=1e-6, atol=1e-7)


def test_a_simulator_takes_samples():
    t = torch.linspace(0, 20, 201)
    table = dataclasses.replace(
        rlc.simulator, inputs=linear(t, rlc.voltage(t)), times=np.linspace(0, 2, 21)
    )
    smooth = dataclasses.replace(table, inputs=rlc.voltage)
    close, exact = (s.sample(3, seed=0) for s in (table, smooth))
    assert float(abs(close.y - exact.y).max()) < 0.01
    np.testing.assert_allclose(close.inputs[0, :, 0], linear(t, rlc.voltage(t))(
        torch.from_numpy(table.times))[:, 0])  # fmt: skip


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hold(torch.arange(3.0), torch.zeros(4, 1)), ShapeError, r"\(3,\) and inputs"),
        (lambda: hold(torch.arange(3.0), torch.zeros(3)), ShapeError, r"expected \(T,\) and"),
        (lambda: linear(torch.zeros(1), torch.zeros(1, 1)), DataError, "2 or more times"),
        (lambda: hold(torch.tensor([0.0, 0.0]), torch.zeros(2, 1)), DataError, "strictly"),
        (
            lambda: before_jumps(torch.arange(3.0), torch.tensor([0.5])),
            DataError,
            "not among the save times",
        ),
    ],
)
def test_what_signals_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
