import pytest
import torch
import torchdiffeq

from hybridgen.errors import ConfigError, HybridgenError, ShapeError, UnsupportedError
from hybridgen.integrate import IntegrationError, odeint


def _spiral(t, y):
    return y @ torch.tensor([[-0.1, 2.0], [-2.0, -0.1]]) + torch.cos(t)


def _both(func, y0, t, **options):
    ours = odeint(func, y0, t)
    theirs = torchdiffeq.odeint(func, y0, t, rtol=1e-10, atol=1e-10, **options)
    return ours, theirs


@pytest.mark.parametrize("method", [None, "tsit5"])
@pytest.mark.parametrize(
    "t", [torch.linspace(0, 3, 7), torch.linspace(2, -1, 4), torch.tensor([1.0])]
)
def test_agrees_with_torchdiffeq(method, t):
    y0 = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    ours = odeint(_spiral, y0, t, method=method)
    theirs = torchdiffeq.odeint(_spiral, y0, t, rtol=1e-10, atol=1e-10)
    assert ours.shape == (len(t), 2, 2)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [torch.linspace(0, 3, 7), torch.linspace(2, -1, 4)])
def test_tuples_agree_with_torchdiffeq(t):
    def func(t, state):
        y, z = state
        return (_spiral(t, y), -z * y.sum())

    y0 = (torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor(0.5))
    for ours, theirs in zip(*_both(func, y0, t), strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    loose = odeint(func, y0, t, rtol=(1e-7, 1e-5), atol=(1e-9, torch.tensor(1e-6)))
    torch.testing.assert_close(
        loose[0], theirs.new_tensor(0) + _both(func, y0, t)[1][0], rtol=0, atol=1e-5
    )


def test_a_small_part_of_a_tuple_is_not_outvoted():
    # Thousands of components at rest must not hide the error of the one that moves.
    def func(t, state):
        return (torch.stack([state[0][1], -25 * state[0][0]]), torch.zeros_like(state[1]))

    t = torch.linspace(0, 4, 3)
    y0 = (torch.tensor([1.0, 0.0]), torch.zeros(10_000))
    together, _ = odeint(func, y0, t, rtol=1e-6, atol=1e-6)
    alone = odeint(lambda t, y: func(t, (y, y0[1]))[0], y0[0], t, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_events_are_torchdiffeqs():
    def func(t, y):
        return torch.stack([y[1], -9.81 * torch.ones_like(y[1])])

    y0, t = torch.tensor([10.0, 0.0]), torch.tensor([0.0, 1.0])
    event = lambda t, y: y[0]  # noqa: E731
    time, y = odeint(func, y0, t, event_fn=event)
    assert time.item() == pytest.approx((2 * 10 / 9.81) ** 0.5, abs=1e-6)
    assert torch.equal(y, torchdiffeq.odeint(func, y0, t, event_fn=event)[1])
    with pytest.raises(UnsupportedError, match="dopri5"):
        odeint(func, y0, t, event_fn=event, method="tsit5")


@pytest.mark.parametrize("method", ["dopri5", "rk4", "euler", "dopri8"])
def test_torchdiffeqs_names_mean_torchdiffeqs_methods(method):
    y0, t = torch.tensor([2.0, 0.0]), torch.linspace(0, 1, 5)
    theirs = torchdiffeq.odeint(_spiral, y0, t, method=method)
    assert torch.equal(odeint(_spiral, y0, t, method=method), theirs)


def test_options_go_through_to_torchdiffeq():
    y0, t = torch.tensor([2.0, 0.0]), torch.linspace(0, 1, 5)
    fine = {"method": "rk4", "options": {"step_size": 0.01}}
    assert torch.equal(odeint(_spiral, y0, t, **fine), torchdiffeq.odeint(_spiral, y0, t, **fine))


def test_rows_may_be_coupled():
    # One row drives the other: y0 of any shape is one system.
    def func(t, y):
        return torch.stack([y[1], -y[0]])

    t = torch.linspace(0, 1, 3)
    y = odeint(func, torch.tensor([[0.0], [1.0]]), t)
    torch.testing.assert_close(y[:, 0, 0], torch.sin(t), rtol=0, atol=1e-7)


def test_gradients_agree_with_torchdiffeq():
    y0, t = torch.tensor([2.0, 0.0], requires_grad=True), torch.linspace(0, 3, 7).requires_grad_()
    gradients = [
        torch.autograd.grad(solver(_spiral, y0, t, rtol=1e-9, atol=1e-9)[1:].sum(), (y0, t))
        for solver in (odeint, torchdiffeq.odeint)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_grid_rk4_takes_the_steps_it_is_told():
    y0, t = torch.ones(1), torch.linspace(0, 1, 3)
    coarse, fine = (
        odeint(lambda t, y: -y, y0, t, method="grid_rk4", options={"substeps": m}) for m in (1, 2)
    )
    exact = torch.exp(-t)[:, None]
    ratio = (coarse - exact)[-1].abs() / (fine - exact)[-1].abs()
    assert ratio.item() == pytest.approx(16, rel=0.3)


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (lambda t, y: 1.1 * y * y, "after t = 0.75, .* without bound"),
        (lambda t, y: torch.sqrt(0.8 - t) * y, "after t = 0.75, .* not a number"),
    ],
)
def test_a_failure_raises_and_says_where_and_why(func, message):
    with pytest.raises(IntegrationError, match=message) as caught:
        odeint(func, torch.ones(1), torch.linspace(0, 2, 9), options={"max_substeps": 256})
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, HybridgenError)


def test_too_few_substeps_are_explained():
    with pytest.raises(IntegrationError, match="max_substeps"):
        # A thousand times around between two save times.
        odeint(
            lambda t, y: torch.stack([y[1], -y[0]]),
            torch.tensor([1.0, 0.0]),
            torch.tensor([0.0, 6283.0]),
            options={"max_substeps": 4},
        )


def test_unknown_names_are_named():
    y0, t = torch.ones(1), torch.tensor([0.0, 1.0])
    with pytest.raises(
        ConfigError, match=r"unknown method 'dopri'.*tsit5, grid_rk4; .*adaptive_heun"
    ):
        odeint(lambda t, y: -y, y0, t, method="dopri")
    with pytest.raises(ConfigError, match="did you mean 'max_substeps'"):
        odeint(lambda t, y: -y, y0, t, options={"max_substep": 9})
    with pytest.raises(ShapeError, match="list"):
        odeint(lambda t, y: -y, [y0], t)
