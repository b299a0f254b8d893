"""The stiff method: order, stiff problems of the literature, gradients, members kept apart."""

import math

import numpy as np
import pytest
import torch
from hybridgen.simulators import rlc
from scipy.integrate import solve_ivp
from torch import Size

from hybridgen.integrate.jacobian import Local, together
from hybridgen.integrate.members import Members
from hybridgen.integrate.rodas import RODAS5P, advance_stiff
from hybridgen.integrate.rosenbrock import cross_stiff, handles
from hybridgen.integrate.rule import Rule
from hybridgen.integrate.stepping import Tolerance
from hybridgen.integrate.tableaus import TSIT5

LOOSE, TIGHT = (1e-6, 1e-8), (1e-8, 1e-10)


def start(field, y0, t, args=None):
    members = Members(field, args, t, Size([len(y0)]))
    return members, members.rhs(members.time(0), y0)


def travel(field, y0, t, args=None, tolerance=LOOSE, max_steps=3000, forward=True):
    """Cross all intervals; returns states (N, T, *S) and steps (N,)."""
    members, k = start(field, y0, t, args)
    rule = Rule(TSIT5, Tolerance(*tolerance), 256)
    y, states, steps, pace = y0, [y0], 0, None
    for i in range(t.shape[-1] - 1):
        crossed = cross_stiff(members, i, y, k, rule, max_steps, pace)
        assert not crossed.failed.any()
        assert (crossed.step.error <= 1.0).all()
        (y, k, _), steps = crossed.step, steps + crossed.n_steps
        pace = crossed.pace if forward else None
        torch.testing.assert_close(k, members.rhs(members.time(i + 1), y))
        states.append(y)
    return torch.stack(states, dim=1), steps


def radau(field, y0, t, args=None, atol=1e-12):
    """The same for one member, by scipy at 1e-10, with shape (T, *S)."""

    def f(s, y):
        now = torch.tensor(s).reshape(1)
        return field(now, torch.tensor(y)[None], args)[0].numpy()

    found = solve_ivp(f, (t[0], t[-1]), y0[0].numpy(), "Radau", t.numpy(), rtol=1e-10, atol=atol)
    return torch.tensor(found.y.T)


# -- order ------------------------------------------------------------------------------------


def logistic(t, y, args):
    return 4.0 * y * (1.0 - y)


def driven(t, y, args):
    u, v = y.unbind(-1)
    return torch.stack([u * torch.cos(t), -(v**2) * (1.0 + t)], -1)


def logistic_at(t):
    return 1.0 / (1.0 + 9.0 * torch.exp(-4.0 * t))[:, None]


def driven_at(t):
    return torch.stack([torch.exp(torch.sin(t)), 1.0 / (1.0 + t + t**2 / 2)], -1)


@pytest.mark.parametrize(
    ("field", "exact"),
    [(logistic, logistic_at), (driven, driven_at)],
    ids=["autonomous", "driven"],
)
def test_order(field, exact):
    def run(steps):
        t = torch.linspace(0, 1.5, steps + 1)
        y, estimate = exact(t[:1]), 0.0
        members, _ = start(field, y, t)
        local, tolerance = Local(members, shared=True), Tolerance(1e-6, 1e-8)
        for now, then in zip(t[:-1, None], t[1:, None], strict=True):
            k = local.rhs(now, y)
            derivatives = local.linearise(now, then, y, k, tolerance)
            y, e = advance_stiff(local.rhs, RODAS5P, now, then, y, k, *derivatives)
            estimate += float(e.abs().max())
        return float((y - exact(t[-1:])).abs().max()), estimate

    (coarse, guess), (fine, better) = run(24), run(48)
    assert abs(math.log2(coarse / fine) - 5.0) < 0.3
    assert abs(math.log2(guess / better) - 4.0) < 0.4  # of order 5 a step, summed over the steps
    assert fine < better


def test_coefficients():
    """Of f = 1, whatever W is: stage i stands at t + c_i h, and the last three add nothing."""
    gamma, count = RODAS5P.gamma, len(RODAS5P.c)
    a, g = torch.zeros(count, count), torch.zeros(count, count)
    for i in range(1, count):
        a[i, :i], g[i, :i] = torch.tensor(RODAS5P.a[i - 1]), torch.tensor(RODAS5P.g[i - 1])
    stages = torch.linalg.inv(torch.eye(count) / gamma - g).sum(dim=1)
    torch.testing.assert_close(a @ stages, torch.tensor(RODAS5P.c), atol=1e-12, rtol=0)
    torch.testing.assert_close(stages[-3:], torch.zeros(3), atol=1e-12, rtol=0)


# -- stiff problems ---------------------------------------------------------------------------


def relax(t, y, rate):
    return -rate * (y - torch.cos(t).reshape(-1, 1))


@pytest.mark.parametrize("rate", [1e4, 1e5, 1e6])
def test_stiff_relaxation(rate):
    t = torch.linspace(0, 2, 5)
    y0 = torch.tensor([[1.0], [2.0], [-1.0]])
    rates = torch.full((3, 1), rate)
    y, steps = travel(relax, y0, t, rates)
    a, b = rate**2 / (rate**2 + 1), rate / (rate**2 + 1)
    closed = a * torch.cos(t) + b * torch.sin(t)
    torch.testing.assert_close(y[:, 1:, 0], closed[1:].expand(3, 4), atol=1e-6, rtol=0)
    assert steps.max() < 80  # explicit steps: at least 0.3 * rate * 2


def robertson(t, y, args):
    u, v, w = y.unbind(-1)
    decay, back, fuse = 0.04 * u, 1e4 * v * w, 3e7 * v * v
    return torch.stack([-decay + back, decay - back - fuse, fuse], -1)


def van_der_pol(t, y, mu):
    u, v = y.unbind(-1)
    return torch.stack([v, mu * (1.0 - u * u) * v - u], -1)


def hires(t, y, args):
    a, b, c, d, e, f, g, h = y.unbind(-1)
    fh = 280.0 * f * h
    return torch.stack(
        [
            -1.71 * a + 0.43 * b + 8.32 * c + 0.0007,
            1.71 * a - 8.75 * b,
            -10.03 * c + 0.43 * d + 0.035 * e,
            8.32 * b + 1.71 * c - 1.12 * d,
            -1.745 * e + 0.43 * f + 0.43 * g,
            -fh + 0.69 * d + 1.71 * e - 0.43 * f + 0.69 * g,
            fh - 1.81 * g,
            -fh + 1.81 * g,
        ],
        -1,
    )


def test_robertson():
    t = torch.cat([torch.zeros(1), torch.logspace(-4, 8, 13)])
    y0 = torch.tensor([[1.0, 0.0, 0.0]])
    y, steps = travel(robertson, y0, t, tolerance=(1e-6, 1e-12))
    expected = radau(robertson, y0, t, atol=1e-16)
    torch.testing.assert_close(y[0], expected, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(y.sum(-1), torch.ones(1, 14), rtol=1e-9, atol=0)
    assert steps < 400


def test_van_der_pol():
    t = torch.linspace(0, 1000, 6)
    y0 = torch.tensor([[2.0, 0.0]])
    mu = torch.tensor([1000.0])
    y, steps = travel(van_der_pol, y0, t, mu)
    torch.testing.assert_close(y[0], radau(van_der_pol, y0, t, mu), rtol=1e-4, atol=1e-6)
    assert steps < 700


def test_hires():
    t = torch.tensor([0.0, 1.0, 20.0, 321.8122])
    y0 = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0.0057]])
    y, steps = travel(hires, y0, t)
    torch.testing.assert_close(y[0], radau(hires, y0, t), rtol=1e-4, atol=1e-6)
    assert steps < 150


def circuit(t, y, z):
    return rlc.truth(t, y, z, rlc.voltage(t.reshape(-1)).reshape(*t.shape, 1))


def test_stiff_circuits():
    t = torch.linspace(0, 2, 21)
    z = torch.tensor([[1e-3, 1.0, 2.0], [3e-3, 0.6, 1.0], [2e-3, 1.4, 3.0]])
    y0 = torch.tensor([[0.5, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    y, steps = travel(circuit, y0, t, z)
    for j in range(3):
        expected = radau(circuit, y0[j : j + 1], t, z[j : j + 1])
        torch.testing.assert_close(y[j], expected, rtol=0, atol=2e-6)
    assert steps.max() < 160


def test_backwards():
    t = torch.linspace(2, 0, 5)
    y0 = torch.cos(t[:1])[:, None]
    field = lambda t, y, _: 1e5 * (y - torch.cos(t)) - torch.sin(t)  # noqa: E731
    y, steps = travel(field, y0, t)
    torch.testing.assert_close(y[0, :, 0], torch.cos(t), rtol=0, atol=1e-6)
    assert steps < 40


def test_single_precision():
    t = torch.linspace(0, 2, 5, dtype=torch.float32)
    y0, rate = torch.ones(2, 1, dtype=torch.float32), torch.full((2, 1), 1e4, dtype=torch.float32)
    y, steps = travel(relax, y0, t, rate, tolerance=(1e-3, 1e-4))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y[0, :, 0], torch.cos(t), rtol=0, atol=1e-3)
    assert steps.max() < 40


# -- members ----------------------------------------------------------------------------------


def test_a_member_does_not_depend_on_its_neighbours():
    y0 = torch.tensor([[2.0, 0.0], [1.0, 0.5], [torch.nan, 0.0], [0.5, -1.0]])
    mu = torch.tensor([100.0, 1.0, 1.0, 1000.0])
    members, k = start(van_der_pol, y0, torch.tensor([0.0, 1.0]), mu)
    rule = Rule(TSIT5, Tolerance(*LOOSE), 256)
    whole = cross_stiff(members, 0, y0, k, rule, 1000)
    assert whole.failed.tolist() == [False, False, True, False]
    assert whole.step.error[2].isnan()
    for j in (0, 1, 3):
        row = torch.tensor([j])
        alone = cross_stiff(members.take(row), 0, y0[row], k[row], rule, 1000)
        assert torch.equal(alone.step.y, whole.step.y[row])
        assert torch.equal(alone.step.k, whole.step.k[row])
        assert torch.equal(alone.n_steps, whole.n_steps[row])
        assert torch.equal(alone.pace, whole.pace[row])


def test_who_is_through_leaves_the_batch():
    seen = []

    def field(t, y, rate):
        seen.append(len(y))
        return -rate * (y - torch.cos(t).reshape(-1, 1))

    rate, y0 = torch.tensor([[0.1]] * 20 + [[1e6]]), torch.ones(21, 1) + 1.0
    members, k = start(field, y0, torch.tensor([0.0, 1.0]), rate)
    rule = Rule(TSIT5, Tolerance(*LOOSE), 256)
    steps = cross_stiff(members, 0, y0, k, rule, 1000).n_steps
    assert steps[:20].max() <= 3 < 15 < steps[20]
    assert sum(count > 1 for count in seen) <= 2 + 10 * int(steps[:20].max())


def test_too_many_steps():
    y0, mu = torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([1000.0, 0.0])
    members, k = start(van_der_pol, y0, torch.tensor([0.0, 1.0]), mu)
    crossed = cross_stiff(members, 0, y0, k, Rule(TSIT5, Tolerance(*LOOSE), 256), 9)
    assert crossed.failed.tolist() == [True, False]
    assert crossed.n_steps[0] == 9
    assert crossed.step.error[0] == torch.inf
    assert torch.equal(crossed.step.y[0], y0[0])


def test_a_member_that_diverges_or_is_nan_from_some_point_on():
    def field(t, y, kind):
        wall = torch.where((kind == 2.0) & (y > 1.5), torch.nan, 1.0)
        return torch.where(kind == 1.0, y * y, wall)

    y0, kind = torch.ones(3, 1), torch.tensor([[0.0], [1.0], [2.0]])
    members, k = start(field, y0, torch.tensor([0.0, 2.0]), kind)
    crossed = cross_stiff(members, 0, y0, k, Rule(TSIT5, Tolerance(*LOOSE), 256), 400)
    assert crossed.failed.tolist() == [False, True, True]
    assert not crossed.step.error[1:].isfinite().any()
    torch.testing.assert_close(crossed.step.y, torch.tensor([[3.0], [1.0], [1.0]]))


def test_times_of_their_own():
    t = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.5, 4.0]])
    field = lambda t, y, r: -r * (y - torch.cos(t)[:, None])  # noqa: E731
    rate = torch.full((2, 1), 1e6)
    y, _ = travel(field, torch.cos(t[:, :1]), t, rate)
    torch.testing.assert_close(y[..., 0], torch.cos(t), rtol=0, atol=2e-6)


def test_batch_of_two_axes():
    t, batch = torch.tensor([0.0, 1.0]), Size([2, 3])
    field = lambda t, y, r: -r * (y - torch.cos(t)[..., None])  # noqa: E731
    rate = torch.linspace(1e3, 1e5, 6).reshape(2, 3, 1)
    members = Members(field, rate, t.expand(6, 2), batch)
    y0 = torch.ones(6, 1)
    k = members.rhs(members.time(0), y0)
    crossed = cross_stiff(members, 0, y0, k, Rule(TSIT5, Tolerance(*LOOSE), 256), 100)
    torch.testing.assert_close(crossed.step.y, torch.cos(t[1:]).expand(6, 1), rtol=0, atol=1e-3)
    assert not crossed.failed.any()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_field_for_one_time_is_called_one_by_one(size):
    # Of size 3 it broadcasts a time of each member along the state without a complaint.
    def scalar(t, y, rate):
        return -rate * (y - torch.cos(t))

    def own(t, y, rate):
        return -rate * (y - torch.cos(t).reshape(-1, 1))

    t, y0 = torch.tensor([0.0, 1.0]), torch.ones(3, size)
    rate = torch.tensor([[1e4], [1e3], [1e5]])
    members, _ = start(scalar, y0, t, rate)
    assert not together(members, t[:1].expand(3), t[1:].expand(3), y0)
    one_by_one, steps = travel(scalar, y0, t, rate)
    at_once, others = travel(own, y0, t, rate)
    torch.testing.assert_close(one_by_one, at_once, rtol=1e-12, atol=0)
    assert torch.equal(steps, others)


def black_box(t, y, rate):
    numbers = np.asarray(y.numpy()), np.asarray(rate), np.cos(t.numpy()).reshape(-1, 1)
    return torch.tensor(-numbers[1] * (numbers[0] - numbers[2]) * (1.0 + numbers[0] ** 2))


def silent(t, y, rate):
    shape = y.shape
    values = [v.item() for v in y.detach().reshape(-1)]
    y = torch.tensor(values, dtype=torch.get_default_dtype()).reshape(shape)
    return -rate * (y - torch.cos(t).reshape(-1, 1)) * (1.0 + y**2)


def plain(t, y, rate):
    return -rate * (y - torch.cos(t).reshape(-1, 1)) * (1.0 + y**2)


@pytest.mark.parametrize("field", [black_box, silent], ids=["numpy", "item"])
def test_differences_where_there_is_no_derivative(field):
    t, y0, rate = torch.linspace(0, 1, 3), torch.ones(2, 2), torch.tensor([[1e4], [1e2]])
    members, k = start(field, y0, t, rate)
    local = Local(members, shared=True)
    now, then = t[:1].expand(2), t[1:2].expand(2)
    found = local.linearise(now, then, y0, k, Tolerance(*LOOSE))
    assert local.exact is False
    exact = Local(start(plain, y0, t, rate)[0], shared=True)
    expected = exact.linearise(now, then, y0, k, Tolerance(*LOOSE))
    assert exact.exact is True
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-3)
    y, steps = travel(field, y0, t, rate)
    torch.testing.assert_close(y, travel(plain, y0, t, rate)[0], rtol=0, atol=1e-6)
    assert steps.max() < 60


def test_what_it_does_not_handle():
    assert handles(torch.zeros(2, 512))
    for y0 in (torch.ones(2, 513), torch.ones(2, 1, dtype=torch.complex128), torch.ones(2, 0)):
        assert not handles(y0)
        members, k = start(lambda t, y, _: -y, y0, torch.tensor([0.0, 1.0]))
        crossed = cross_stiff(members, 0, y0, k, Rule(TSIT5, Tolerance(*LOOSE), 256), 100)
        assert crossed.failed.all()
        assert not crossed.n_steps.any()
        assert torch.equal(crossed.step.y, y0)
        assert crossed.step.error.isinf().all()


# -- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False], ids=["at once", "one by one"])
def test_gradcheck(shared):
    def field(t, y, mu):
        if t.ndim and not shared:
            raise TypeError("one time for all, please")
        u, v = y.unbind(-1)
        return torch.stack([v, mu * (1.0 - u * u) * v - u + torch.cos(3.0 * t)], -1)

    def final(y0, t, mu):
        members, k = start(field, y0, t, mu)
        rule = Rule(TSIT5, Tolerance(1e-3, 1e-4), 256)
        crossed = cross_stiff(members, 0, y0, k, rule, 1000)
        assert crossed.n_steps.min() > 3
        return crossed.step.y, crossed.step.k / 100.0

    y0 = torch.tensor([[2.0, 0.3], [1.0, 1.0]], requires_grad=True)
    t = torch.tensor([0.1, 0.6], requires_grad=True)
    mu = torch.tensor([30.0, 10.0], requires_grad=True)
    assert torch.autograd.gradcheck(final, (y0, t, mu), rtol=1e-5)


def test_gradient_of_stiff_circuits():
    t = torch.linspace(0, 0.5, 6)
    z = torch.tensor([[1e-3, 1.0, 2.0], [3e-3, 0.6, 1.0]])
    y0 = torch.tensor([[0.5, 0.0], [-1.0, 0.3]])

    def loss(z):
        return travel(circuit, y0, t, z, tolerance=TIGHT, forward=False)[0].square().sum()

    (gradient,) = torch.autograd.grad(loss(z.requires_grad_()), z)
    with torch.no_grad():
        for at in np.ndindex(2, 3):
            step = torch.zeros_like(z)
            step[at] = 1e-5 * z[at]
            central = (loss(z + step) - loss(z - step)) / (2 * step[at])
            torch.testing.assert_close(gradient[at], central, rtol=1e-5, atol=1e-6)


def test_gradient_through_differences():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, grad):
            return 2.0 * ctx.saved_tensors[0] * grad

    # An old-style function, which torch.func refuses, so that the Jacobian is of differences.
    field = lambda t, y, rate: -rate * (y + Square.apply(y))  # noqa: E731
    t, y0 = torch.tensor([0.0, 0.01]), torch.tensor([[1.0], [0.5]])

    def loss(rate):
        return travel(field, y0, t, rate)[0].sum()

    rate = torch.tensor([[1e3], [1e2]], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(rate), rate)
    with torch.no_grad():
        for j in range(2):
            step = torch.zeros_like(rate)
            step[j] = 1e-5 * rate[j]
            central = (loss(rate + step) - loss(rate - step)) / (2 * step[j])
            torch.testing.assert_close(gradient[j], central[None][0], rtol=1e-4, atol=1e-9)


def test_failed_members_poison_nobody():
    weight = torch.tensor([[2.0, -1.0], [1.0, 3.0]])

    def gradient(keep):
        shared = weight.clone().requires_grad_()

        def field(t, y, args):
            gain, blow = args
            return -gain * torch.tanh(y @ shared) + blow * y**3 * shared[0, 0]

        y0 = torch.tensor([[0.5, 0.2], [torch.nan, 1.0], [5.0, 5.0], [-0.3, 0.1]])[keep]
        gain = torch.tensor([[1e4], [1.0], [1.0], [1e3]])[keep]
        blow = torch.tensor([[0.0], [0.0], [9.0], [0.0]])[keep]
        members, k = start(field, y0, torch.tensor([0.0, 1.0]), (gain, blow))
        # As the solver does: what is not finite at the start is not in the graph of k.
        crossed = cross_stiff(members, 0, y0, k.nan_to_num() if k.isnan().any() else k,
                              Rule(TSIT5, Tolerance(*LOOSE), 256), 300)  # fmt: skip
        good = ~crossed.failed
        assert good.sum() == 2
        y1, k1, _ = crossed.step
        (found,) = torch.autograd.grad(y1[good].sum() + 1e-3 * k1[good].sum(), shared)
        return found

    found = gradient([0, 2, 3])
    assert found.isfinite().all()
    torch.testing.assert_close(found, gradient([0, 3]), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_forward_mode():
    t, y0 = torch.tensor([0.0, 0.5]), torch.tensor([[2.0, 0.3]])

    def final(mu):
        return travel(van_der_pol, y0, t, mu, forward=False)[0][:, -1]

    mu, one = torch.tensor([30.0]), torch.ones(1)
    _, tangent = torch.func.jvp(final, (mu,), (one,))
    with torch.autograd.forward_ad.dual_level():
        dual = final(torch.autograd.forward_ad.make_dual(mu, one))
        also = torch.autograd.forward_ad.unpack_dual(dual).tangent
    central = (final(mu + 1e-5) - final(mu - 1e-5)) / 2e-5
    torch.testing.assert_close(tangent, central, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(also, central, rtol=1e-5, atol=1e-8)
