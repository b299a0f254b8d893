import pytest
import torch

from hybridgen.integrate import Status, solve

METHODS = ["tsit5", "grid_rk4"]

# torch itself scripts its forward-mode decompositions at their first use.
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def _relax(t, y, rate):
    return -rate * (y - torch.cos(t))


@pytest.mark.parametrize("method", METHODS)
def test_gradcheck(method):
    def final(y0, t, rate):
        def field(t, y, rate):
            return -rate * torch.sin(y) + torch.cos(t)

        return solve(field, y0, t, rate, method=method, substeps=2).y

    y0 = torch.tensor([[0.3], [1.0]], requires_grad=True)
    t = torch.tensor([0.0, 0.3, 0.7], requires_grad=True)
    rate = torch.tensor([[1.0], [2.0]], requires_grad=True)
    assert torch.autograd.gradcheck(final, (y0, t, rate))


def test_gradcheck_of_a_repeated_member():
    t = torch.linspace(0, 0.5, 4)
    y0 = torch.tensor([[0.3], [1.0], [0.5]], requires_grad=True)
    rate = torch.tensor([[1.0], [60.0], [2.0]], requires_grad=True)

    def trajectory(y0, rate):
        solution = solve(_relax, y0, t, rate, substeps=1, rtol=1e-8, atol=1e-8)
        assert solution.status[1] == Status.retried
        return solution.y

    assert torch.autograd.gradcheck(trajectory, (y0, rate))


def test_gradient_against_the_closed_form():
    rate = torch.tensor([[0.5], [1.5]], requires_grad=True)
    t = torch.linspace(0, 2, 5)
    y = solve(lambda t, y, r: -r * y, torch.ones(2, 1), t, rate, rtol=1e-9, atol=1e-9).y
    (gradient,) = torch.autograd.grad(y[:, -1].sum(), rate)
    torch.testing.assert_close(gradient, -2.0 * torch.exp(-2.0 * rate.detach()), rtol=1e-7, atol=0)


def _shared_gradient(method, keep_bad, count=80):
    """The gradient of a shared weight from the good members, with or without two bad ones."""
    y0 = torch.linspace(0.1, 0.5, count)[:, None].repeat(1, 2)
    start, blow = torch.zeros(count, 1), torch.zeros(count, 1)
    start[3] = torch.nan
    blow[70] = 50.0
    if not keep_bad:
        keep = torch.ones(count, dtype=torch.bool)
        keep[[3, 70]] = False
        y0, start, blow = y0[keep], start[keep], blow[keep]
    weight = torch.tensor([[0.2, -1.0], [1.0, 0.1]], requires_grad=True)

    def field(t, y, args):
        start, blow = args
        return torch.tanh(y @ weight) + start + blow * y**3 * weight[0, 0]

    t = torch.linspace(0, 2, 11)
    solution = solve(field, y0, t, (start, blow), method=method, substeps=2)
    good = solution.status == Status.ok
    assert good.sum() == count - 2
    (gradient,) = torch.autograd.grad(solution.y[good].square().sum(), weight)
    return gradient


@pytest.mark.parametrize("method", METHODS)
def test_failed_members_do_not_poison_the_others(method):
    gradient = _shared_gradient(method, keep_bad=True)
    torch.testing.assert_close(
        gradient, _shared_gradient(method, keep_bad=False), rtol=1e-12, atol=1e-12
    )


def test_a_captured_nan_does_not_poison_the_others():
    # NaN that the solver cannot see among the arguments: the field makes it from a good state.
    weight = torch.tensor(0.7, requires_grad=True)
    y0 = torch.tensor([[1.0], [-1.0], [2.0]])
    solution = solve(lambda t, y, _: -weight * torch.sqrt(y), y0, torch.linspace(0, 0.5, 3))
    assert solution.status.tolist() == [Status.ok, Status.nonfinite, Status.ok]
    (gradient,) = torch.autograd.grad(solution.y[solution.ok].sum(), weight)
    assert bool(gradient.isfinite())


def _final(y0, rate):
    field = lambda t, y, r: -r * torch.sin(y)  # noqa: E731
    return solve(field, y0, torch.linspace(0, 1, 6), rate, method="grid_rk4").y[:, -1]


@forward_mode
def test_jvp_through_a_rollout():
    y0, rate = torch.tensor([[0.5], [1.0]]), torch.tensor([[1.0], [2.0]])
    tangent = torch.ones_like(rate)
    _, forward = torch.func.jvp(lambda r: _final(y0, r), (rate,), (tangent,))
    h = 1e-6
    central = (_final(y0, rate + h) - _final(y0, rate - h)) / (2 * h)
    torch.testing.assert_close(forward, central, rtol=1e-7, atol=1e-9)


@forward_mode
def test_vmap_over_jvp_gives_the_jacobian():
    y0, rate = torch.tensor([[0.5], [1.0]]), torch.tensor([[1.0], [2.0]])
    directions = torch.eye(2).reshape(2, 2, 1)

    def column(direction):
        return torch.func.jvp(lambda r: _final(y0, r), (rate,), (direction,))[1]

    columns = torch.func.vmap(column)(directions)
    jacobian = torch.autograd.functional.jacobian(lambda r: _final(y0, r), rate)
    torch.testing.assert_close(columns, jacobian[..., 0].permute(2, 0, 1))


def test_vmap_over_systems():
    y0 = torch.linspace(0.1, 1.0, 12).reshape(4, 3, 1)
    rate = torch.linspace(0.5, 2.0, 12).reshape(4, 3, 1)
    mapped = torch.func.vmap(_final)(y0, rate)
    torch.testing.assert_close(
        mapped, torch.stack([_final(*each) for each in zip(y0, rate, strict=True)])
    )
    gradient = torch.func.vmap(torch.func.grad(lambda y, r: _final(y, r).sum()))(y0, rate)
    assert gradient.shape == y0.shape
    assert bool(gradient.isfinite().all())
