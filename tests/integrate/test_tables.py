"""Signals of members in roll-outs: a table that kernels read, the numbers of the eager steps."""

import itertools

import pytest
import torch
from hybridgen.simulators import rlc

from hybridgen import APHYNITY
from hybridgen.errors import UnsupportedError
from hybridgen.integrate import compilation, solve
from hybridgen.integrate.building import compiler
from hybridgen.integrate.members import Members
from hybridgen.integrate.rollout import steps
from hybridgen.integrate.tableaus import RK4
from hybridgen.integrate.tables import apart, tabulated
from hybridgen.io import to_batch
from hybridgen.models import Residual
from hybridgen.models.objectives import rollout
from hybridgen.signals import cubic, hold, linear, spline

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
KINDS = {"hold": hold, "linear": linear, "cubic": cubic, "spline": spline}
T = torch.tensor([0.0, 0.1, 0.3, 0.4, 0.7, 1.0], dtype=torch.float64)


def _samples(count, inputs=1):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, len(T), inputs, generator=generator)


def _times(own, count):
    return T * torch.linspace(0.5, 1.5, count)[:, None] if own else T


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_has_what_the_field_would_ask_for(kind, own):
    """Exactly: a signal that jumps at a save time must not be asked an instant before it."""
    count, schedule, asked = 3, [1, 3, 2, 1, 2], []
    times = _times(own, count)
    signals = [KINDS[kind](times, _samples(count, 2)), hold(times, _samples(count))]

    def field(t, y, args):
        asked.append(torch.cat([args["u"](t), args["more"][0](t)], -1))
        return -y

    members = Members(field, {"u": signals[0], "more": signals[1:]}, times, torch.Size([count]))
    assert [s is found for s, found in zip(signals, apart(members)[1], strict=True)] == [True] * 2
    steps(members, torch.ones(count, 1), RK4, schedule)
    rows = torch.tensor([0, 1, 2, 2])
    table = tabulated(signals, members, RK4, schedule, rows)
    assert table.shape == (2 * sum(schedule) + 1, 3, 4)
    stages = torch.stack(asked).reshape(sum(schedule), 4, count, 3)
    for step, (stage, place) in itertools.product(range(9), enumerate((0, 1, 1, 2))):
        torch.testing.assert_close(
            table[2 * step + place], stages[step, stage][rows].T, rtol=1e-13, atol=1e-13
        )


@needs_compiler
@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_driven_roll_out_is_that_of_plain_autograd(kind, own, dims):
    """Members, weights and states have the gradients that they have without a kernel."""
    if kind == "spline" and dims == 2:
        pytest.skip("these have one batch axis")
    batch = (6,) if dims == 1 else (2, 3)
    shaped = lambda v: v.reshape(*batch, *v.shape[1:])  # noqa: E731
    times = shaped(_times(True, 6)) if own else T
    signal = KINDS[kind](times, shaped(_samples(6, 2)))
    y0 = shaped(torch.linspace(-1, 1, 12).reshape(6, 2)).requires_grad_()
    rate = shaped(torch.linspace(0.5, 2, 6)).requires_grad_()
    first = torch.linspace(-1, 1, 80).reshape(4, 20).requires_grad_()
    last = torch.linspace(-1, 1, 40).reshape(20, 2).requires_grad_()

    def field(t, y, args):
        rate, signal = args
        u, t = signal(t), t[..., None]
        wide = torch.cat([y * u, t * u[..., 1:], y.new_ones(1).expand(*y.shape[:-1], 1)], -1)
        return torch.tanh(wide @ first) @ last - rate[..., None] * y + u[..., :1]

    found = []
    for compile in (True, False):
        y = solve(
            field, y0, times, (rate, signal), method="grid_rk4", substeps=[1, 3, 2, 1, 2],
            compile=compile, batch_dims=dims,
        ).y  # fmt: skip
        found.append((y, *torch.autograd.grad(y.square().sum(), [y0, rate, first, last])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@needs_compiler
def test_a_driven_integral_is_exact():
    """Simpson's rule, which these steps are of y' = u(t), is exact for cubics."""
    signal = spline(T, (T**3 - 2 * T)[None, :, None] * torch.tensor([1.0, 3.0])[:, None, None])
    y = solve(
        lambda t, y, u: u(t), torch.zeros(2, 1), T, signal, method="grid_rk4", compile=True
    ).y
    torch.testing.assert_close(y[0, :, 0], T**4 / 4 - T**2)
    torch.testing.assert_close(y[1, :, 0], 3 * (T**4 / 4 - T**2))


REFUSED = {
    "later": (lambda t, y, u: -y + u(t + 1), "at another time"),
    "fixed": (lambda t, y, u: -y + u(torch.tensor(0.5)), "at another time"),
    "looking": (lambda t, y, u: -y + u.powers[:, 0, 0], "did not come as its arguments"),
}


@needs_compiler
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_beforehand_is_refused(name, monkeypatch):
    field, reason = REFUSED[name]
    y0, signal = torch.ones(3, 1), linear(T, _samples(3))
    with pytest.raises(UnsupportedError, match=reason):
        solve(field, y0, T, signal, method="grid_rk4", compile=True)
    monkeypatch.setattr(compilation, "WORTH", 0)
    y = solve(field, y0, T, signal, method="grid_rk4").y
    torch.testing.assert_close(y, solve(field, y0, T, signal, method="grid_rk4", compile=False).y)


@needs_compiler
def test_samples_that_want_a_gradient_have_no_kernel():
    u = _samples(3).requires_grad_()
    with pytest.raises(UnsupportedError, match="gradient of an input's samples"):
        solve(
            lambda t, y, s: s(t) - y, torch.ones(3, 1), T, linear(T, u),
            method="grid_rk4", compile=True,
        )  # fmt: skip


@needs_compiler
def test_the_time_may_be_shown_in_another_shape():
    y0, signal = torch.ones(3, 1), linear(T, _samples(3))
    fields = (lambda t, y, u: u(t) - y, lambda t, y, u: u(t.clone().expand(len(y))) - y)
    one, other = (solve(f, y0, T, signal, method="grid_rk4", compile=True).y for f in fields)
    assert torch.equal(one, other)


@needs_compiler
def test_a_hybrid_circuit_trains_in_kernels(monkeypatch):
    """The objective of a driven circuit: no eager step, and the gradients of eager steps."""
    data = to_batch(rlc.simulator.sample(8, seed=0), rlc.expert)
    gradients = []

    def never(*given):
        raise AssertionError("an eager roll-out")

    for worth, way in ((0.0, never), (1e9, steps)):
        monkeypatch.setattr(compilation, "WORTH", worth)
        monkeypatch.setattr(compilation, "steps", way)
        model = APHYNITY(rlc.expert, residual=Residual(hidden=(24, 24))).double()
        model.bind(data, 20)
        loss = rollout(model, data, 0, torch.Generator().manual_seed(0))
        loss.total.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-9, atol=1e-11)
