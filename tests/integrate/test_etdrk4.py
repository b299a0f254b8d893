"""Exact diffusion, explicit reactions: closed forms, order, members of their own, gradients."""

import math

import mpmath
import pytest
import torch
from hybridgen.simulators import reaction_diffusion
from torch import Size

from hybridgen.errors import ConfigError, ShapeError
from hybridgen.integrate import Status, solve
from hybridgen.integrate.diffusion import Diffusion, Fourier, Matrices
from hybridgen.integrate.etdrk4 import etdrk4_rollout, phi
from hybridgen.integrate.members import Members
from hybridgen.operators import laplacian, waves


def roll(field, y0, t, args=None, *, linear, steps=1, axes=1, first=None):
    """Trajectories, status and last good save time."""
    batch = y0.shape[:axes]
    flat = y0.reshape(batch.numel(), *y0.shape[axes:])
    members, bad = Members(field, args, t, batch), torch.isnan(flat).flatten(1).any(1)
    schedule = [steps] * (t.shape[-1] - 1)
    schedule[0] = first or steps
    return etdrk4_rollout(members, flat, bad, linear, schedule)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("z", [-1e5, -40.0, -1.01, -0.99, -1e-3, -1e-12, 0.0, 0.5, 3.0])
def test_phi(z):
    with mpmath.workdps(60):
        exact, at = [], mpmath.mpf(z)
        value = mpmath.exp(at)
        for k in range(3):
            value = (value - 1 / mpmath.factorial(k)) / at if z else 1 / mpmath.factorial(k + 1)
            exact.append(float(value))
    found = phi(torch.tensor(z))
    torch.testing.assert_close(torch.stack(found), torch.tensor(exact), rtol=2e-14, atol=0)


def test_phi_has_derivatives():
    z = torch.tensor([-1e6, -30.0, -2.0, -0.5, -1e-9, 0.0], requires_grad=True)
    assert torch.autograd.gradcheck(phi, z, atol=1e-8)
    for k in range(3):
        assert torch.autograd.grad(phi(z)[k].sum(), z)[0].isfinite().all()


@pytest.mark.parametrize(
    ("boundary", "order"), [("periodic", 2), ("periodic", 4), ("neumann", 2), ("dirichlet", 2)]
)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_pure_diffusion_is_exact_in_one_step(boundary, order, axes):
    shape, spacing, rate = (6, 5, 4)[:axes], (0.3, 0.2, 0.1)[:axes], 0.7

    def field(t, y, args):
        return rate * laplacian(y, spacing, boundary, axes=axes, order=order)

    y0, t = random(2, *shape), torch.tensor([0.0, 0.01, 2.0])
    linear = Diffusion(rate, spacing, boundary, axes=axes, order=order)
    y, status, reached = roll(field, y0, t, linear=linear)
    size = math.prod(shape)
    unit = torch.eye(size).reshape(size, *shape)
    matrix = field(None, unit, None).reshape(size, size)
    for i in (1, 2):
        exact = y0.reshape(2, size) @ torch.linalg.matrix_exp(t[i] * matrix)
        torch.testing.assert_close(y[:, i], exact.reshape(y0.shape), rtol=1e-11, atol=1e-13)
    assert status.tolist() == [Status.ok] * 2
    assert reached.tolist() == [2, 2]


def allen_cahn(t, y, a):
    return a * laplacian(y, 0.1, "neumann", axes=1) + (1.0 + torch.sin(t)) * (y - y**3)


def driven_rod(t, y, a):
    return a * laplacian(y, 0.1, "dirichlet", axes=1) + torch.cos(3.0 * t) * torch.exp(-y)


def ring(t, y, a):
    return a * laplacian(y, 0.1, axes=1) + y * (1.0 - y) * torch.cos(t)


@pytest.mark.parametrize(
    ("field", "boundary"),
    [(allen_cahn, "neumann"), (driven_rod, "dirichlet"), (ring, "periodic")],
)
def test_order_four(field, boundary):
    x = torch.linspace(0, 1, 16)
    y0 = (1.0 + torch.stack([torch.sin(3 * x), x * (1 - x)])) * (x * (1 - x)) ** 2
    y0, a, t = (
        y0 + 0.5 * torch.cos(2 * torch.pi * x),
        torch.tensor([[0.05], [0.2]]),
        torch.tensor([0.0, 1.0]),
    )
    linear = Diffusion(lambda a: a, 0.1, boundary, axes=1)
    exact = solve(field, y0, t, a, rtol=1e-11, atol=1e-12, max_substeps=8192).y[:, -1]
    coarse, fine = (
        float((roll(field, y0, t, a, linear=linear, steps=n)[0][:, -1] - exact).abs().max())
        for n in (40, 80)
    )
    assert abs(math.log2(coarse / fine) - 4.0) < 0.35
    assert fine < 1e-5


def coefficients(z):
    z = reaction_diffusion.truth.bind(z)
    return torch.stack([z.a, z.b], -3)


SPECIES = Diffusion(coefficients, reaction_diffusion.SPACING)


def test_strong_diffusion_of_two_species():
    """a, b = 0.1: explicit steps are bound to h < 0.014 for ever, these to the reactions.

    Only the random field at the start, which is gone at once, asks for short ones.
    """
    z = torch.tensor([[0.1, 0.1, 0.005], [0.1, 0.05, 0.004]])
    y0, t = random(2, 2, 32, 32), torch.linspace(0, 1, 11)
    y, status, _ = roll(reaction_diffusion.truth, y0, t, z, linear=SPECIES, steps=3, first=40)
    exact = solve(reaction_diffusion.truth, y0, t, z, rtol=1e-9, atol=1e-10).y
    assert float((y - exact).abs().max()) < 5e-7
    assert status.tolist() == [Status.ok] * 2


def test_a_wrong_linear_part_costs_steps_and_not_the_answer():
    z, y0, t = torch.tensor([[2e-3, 5e-3, 4e-3]]), random(1, 2, 32, 32), torch.linspace(0, 1, 6)
    exact = solve(reaction_diffusion.truth, y0, t, z, rtol=1e-9, atol=1e-10).y
    for coefficient in (0.0, 1e-2):
        linear = Diffusion(coefficient, reaction_diffusion.SPACING)
        y, _, _ = roll(reaction_diffusion.truth, y0, t, z, linear=linear, steps=8)
        torch.testing.assert_close(y, exact, rtol=0, atol=1e-5)


def test_without_linear_part_it_is_runge_kutta():
    y0, t, a = random(2, 8), torch.linspace(0, 1, 5), torch.full((2, 1), 0.01)
    y, _, _ = roll(ring, y0, t, a, linear=Diffusion(0.0, 0.1, axes=1), steps=2)
    expected = solve(ring, y0, t, a, method="grid_rk4", substeps=2).y
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_members_have_coefficients_and_times_of_their_own():
    def field(t, y, a):
        return a * laplacian(y, 0.1, axes=1) + y * (1.0 - y) * torch.cos(t).reshape(-1, 1)

    y0, a = random(3, 8), torch.tensor([[0.01], [0.1], [1.0]])
    t = torch.tensor([[0.0, 0.3, 0.6], [0.0, 0.5, 0.6], [0.6, 0.7, 1.0]])
    linear = Diffusion(lambda a: a, 0.1, axes=1)
    y, status, _ = roll(field, y0, t, a, linear=linear, steps=2)
    assert status.tolist() == [Status.ok] * 3
    for j in range(3):
        alone, _, _ = roll(ring, y0[j : j + 1], t[j], a[j : j + 1], linear=linear, steps=2)
        torch.testing.assert_close(alone[0], y[j], rtol=1e-12, atol=1e-14)


def test_batch_of_two_axes():
    y0, a = random(2, 3, 8), random(2, 3, 1, seed=1)
    t, linear = torch.linspace(0, 1, 3), Diffusion(lambda a: a, 0.1, axes=1)
    y, _, _ = roll(ring, y0, t, a, linear=linear, axes=2)
    flat, _, _ = roll(ring, y0.reshape(6, 8), t, a.reshape(6, 1), linear=linear)
    torch.testing.assert_close(y, flat, rtol=1e-12, atol=1e-14)


def test_uneven_and_equal_intervals():
    """Equal steps share their weights; others, and those of a level of their own, do not."""
    y0, a = random(2, 8), torch.full((2, 1), 0.3)
    t, linear = torch.tensor([0.0, 0.1, 0.2, 0.7, 0.8]), Diffusion(0.3, 0.1, axes=1)
    members = Members(ring, a, t, Size([2]))
    bad = torch.zeros(2, dtype=torch.bool)
    y, _, _ = etdrk4_rollout(members, y0, bad, linear, [1, 2, 5, 1])
    for i, steps in enumerate([1, 2, 5, 1]):
        one, _, _ = roll(ring, y[:, i], t[i : i + 2], a, linear=linear, steps=steps)
        torch.testing.assert_close(one[:, 1], y[:, i + 1], rtol=1e-12, atol=1e-13)


def test_single_precision():
    z = torch.tensor([[0.1, 0.1, 0.005]], dtype=torch.float32)
    y0, t = random(1, 2, 32, 32).float(), torch.linspace(0, 1, 6, dtype=torch.float32)
    y, _, _ = roll(reaction_diffusion.truth, y0, t, z, linear=SPECIES, steps=6)
    assert y.dtype == torch.float32
    double, _, _ = roll(
        reaction_diffusion.truth, y0.double(), t.double(), z.double(), linear=SPECIES, steps=6
    )
    torch.testing.assert_close(y.double(), double, rtol=0, atol=2e-5)


def test_failures_cost_only_their_own_members():
    def field(t, y, args):
        a, blow = args
        return a * laplacian(y, 0.1, axes=1) + blow * y**3

    y0, t = 1.0 + random(4, 8), torch.linspace(0, 1, 6)
    y0[1, 3] = torch.nan
    a, blow = torch.full((4, 1), 0.1), torch.tensor([[0.0], [0.0], [50.0], [-1.0]])
    linear = Diffusion(lambda args: args[0], 0.1, axes=1)
    y, status, reached = roll(field, y0, t, (a, blow), linear=linear)
    assert status.tolist() == [Status.ok, Status.nonfinite, Status.diverged, Status.ok]
    assert reached.tolist()[:2] == [5, -1]
    assert y[1, 1:].isnan().all()
    good = torch.tensor([0, 3])
    alone, _, _ = roll(field, y0[good], t, (a[good], blow[good]), linear=linear)
    torch.testing.assert_close(y[good], alone, rtol=1e-12, atol=1e-14)
    shared = torch.tensor(1.0, requires_grad=True)
    tracked, _, _ = roll(
        lambda t, y, args: shared * field(t, y, args), y0, t, (a, blow), linear=linear
    )
    (gradient,) = torch.autograd.grad(tracked[good].sum(), shared)
    kept, _, _ = roll(
        lambda t, y, args: shared * field(t, y, args),
        y0[good], t, (a[good], blow[good]), linear=linear,
    )  # fmt: skip
    (expected,) = torch.autograd.grad(kept.sum(), shared)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=0)


def test_gradcheck():
    def final(y0, t, a):
        return roll(ring, y0, t, a, linear=Diffusion(lambda a: a, 0.1, axes=1), steps=2)[0]

    y0, a = random(2, 6).requires_grad_(), torch.tensor([[0.02], [0.5]], requires_grad=True)
    t = torch.tensor([0.0, 0.3, 0.6], requires_grad=True)
    assert torch.autograd.gradcheck(final, (y0, t, a))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_transforms():
    y0, t = random(3, 2, 8), torch.linspace(0, 1, 4)

    def final(a, y0):
        linear = Diffusion(lambda a: a, 0.1, axes=1)
        return roll(ring, y0, t, a.expand(2, 1), linear=linear, steps=2)[0][:, -1]

    a = torch.tensor(0.3)
    _, tangent = torch.func.jvp(lambda a: final(a, y0[0]), (a,), (torch.ones(()),))
    central = (final(a + 1e-6, y0[0]) - final(a - 1e-6, y0[0])) / 2e-6
    torch.testing.assert_close(tangent, central, rtol=1e-6, atol=1e-9)
    mapped = torch.func.vmap(lambda y: final(a, y))(y0)
    torch.testing.assert_close(mapped, torch.stack([final(a, y) for y in y0]))


@pytest.mark.parametrize(
    ("linear", "message"),
    [
        (Diffusion(torch.ones(8), 0.1, axes=1), r"shape \(8,\) for states of shape \(2, 8\)"),
        (Diffusion(torch.ones(3, 1), 0.1, axes=1), r"must broadcast against them"),
        (
            Diffusion(0.1, 0.1, axes=2),
            r"state of a member has shape \(8,\), but Diffusion\(axes=2",
        ),
    ],
)
def test_refusals(linear, message):
    with pytest.raises(ShapeError, match=message):
        roll(ring, random(2, 8), torch.linspace(0, 1, 3), 0.1, linear=linear)


@pytest.mark.parametrize("shape", [(6,), (7,), (6, 5), (5, 6)])
def test_fourier_and_matrices_agree(shape):
    """Both take a state to amplitudes, multiply them, and come back."""
    y, t = random(2, *shape), torch.zeros(1)
    linear = Diffusion(0.3, 0.2, axes=len(shape))
    members = Members(ring, None, t, Size([2]))
    rates, basis = linear.rates(members, y)
    assert isinstance(basis, Fourier)
    found = basis.from_waves(torch.exp(rates) * basis.to_waves(y))
    rates, basis = linear.rates(members, y.to(torch.complex128))
    assert isinstance(basis, Matrices)
    expected = basis.from_waves(torch.exp(rates) * basis.to_waves(y))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_waves_are_orthonormal_to_the_last_digit():
    """A roll-out goes to waves and back at every stage."""
    _, vectors = waves(64, 0.1)
    torch.testing.assert_close(vectors @ vectors.mT, torch.eye(64), rtol=0, atol=1e-13)


# -- through the front door ---------------------------------------------------------------------


def test_solve_takes_it_as_a_method():
    z = torch.tensor([[0.1, 0.1, 0.005], [0.1, torch.nan, 0.004]])
    y0, t = random(2, 2, 32, 32), torch.linspace(0, 1, 11)
    steps = torch.tensor([40, *[3] * 9])
    solution = solve(
        reaction_diffusion.truth, y0, t, z, method="etdrk4", linear=SPECIES, substeps=steps
    )
    assert solution.status.tolist() == [Status.ok, Status.nonfinite]
    assert solution.n_steps.tolist() == [67, 0]
    assert torch.equal(solution.substeps, steps)
    exact = solve(reaction_diffusion.truth, y0[:1], t, z[:1], rtol=1e-9, atol=1e-10)
    assert float((solution.y[0] - exact.y[0]).abs().max()) < 5e-7
    assert int(exact.n_steps) > 300


def test_one_step_an_interval_unless_told_otherwise():
    y0, a, t = random(2, 3, 8), random(2, 3, 1, seed=1), torch.linspace(0, 1, 3)
    linear = Diffusion(lambda a: a, 0.1, axes=1)
    solution = solve(ring, y0, t, a, method="etdrk4", linear=linear, batch_dims=2)
    expected, _, _ = roll(ring, y0, t, a, linear=linear, axes=2)
    torch.testing.assert_close(solution.y.reshape(expected.shape), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "etdrk4"}, "linear is None, but 'etdrk4' needs .* linear=Diffusion"),
        ({"method": "etdrk4", "linear": 0.1}, "linear is 0.1, but"),
        ({"linear": Diffusion(0.1, 0.1)}, "'tsit5' has no use for it; write method='etdrk4'"),
        ({"method": "grid_rk4", "linear": Diffusion(0.1, 0.1)}, "'grid_rk4' has no use"),
        (
            {"method": "etdrk4", "linear": Diffusion(0.1, 0.1), "max_steps": 9},
            "max_steps is given, but 'etdrk4' takes the steps that it is told",
        ),
        ({"method": "etdrk5"}, "unknown method 'etdrk5', did you mean 'etdrk4'"),
        ({"max_steps": 0}, "max_steps is 0"),
    ],
)
def test_settings_that_do_not_go_together(change, message):
    with pytest.raises(ConfigError, match=message):
        solve(ring, random(2, 8), torch.linspace(0, 1, 3), 0.1, **change)
