"""Compiled rollouts: the numbers and the gradients of plain autograd through the same steps."""

import itertools

import pytest
import torch
from hybridgen.simulators import lotka_volterra, pendulum
from torch import nn

from hybridgen import APHYNITY
from hybridgen.errors import UnsupportedError
from hybridgen.integrate import compilation, differentiable, solve
from hybridgen.integrate.building import compiler
from hybridgen.models import Latents

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")


@pytest.fixture
def device():
    """Kernels are for the CPU."""
    return torch.device("cpu")


def _both(field, y0, t, args, sources, **options):
    """Return trajectories and gradients with and without a kernel."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for compile in (True, False):
        y = solve(field, y0, t, args, method="grid_rk4", compile=compile, **options).y
        weight = torch.rand(y.shape, generator=generator.manual_seed(1), dtype=y.dtype)
        good = torch.where(torch.isnan(y), 0.0, y)
        found.append((y, torch.autograd.grad((weight * good**2).sum(), sources)))
    return found


def _assert_equal(found, tolerance=1e-10):
    (y, gradients), (expected, others) = found
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    for got, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(got, other, rtol=tolerance, atol=tolerance)


def _network(*widths, dtype=torch.float64):
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    activations = [nn.Tanh(), nn.SiLU(), nn.Sigmoid(), nn.Softplus(), nn.ReLU()]
    between = [m for pair in zip(layers, activations, strict=False) for m in pair]
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(*between[: 2 * len(layers) - 1]).to(dtype)
    for p in network.parameters():
        p.data.uniform_(-0.5, 0.5, generator=generator)
    return network


@pytest.fixture
def _no_draws():
    """Networks draw their first weights from the global generator."""
    with torch.random.fork_rng():
        yield


@pytest.mark.usefixtures("_no_draws")
@pytest.mark.parametrize("substeps", [1, [1, 3, 2, 1, 2]])
@pytest.mark.parametrize(
    "widths", [(3, 2), (3, 5, 2), (3, 20, 33, 2), (3, 12, 12, 12, 12, 2), (3, 90, 1)]
)
def test_a_hybrid_with_a_network(widths, substeps):
    """Layers written out, and layers as loops with a tape, and every activation."""
    network = _network(*widths)
    y0 = torch.linspace(-1, 1, 42).reshape(21, 2).requires_grad_()
    rate = torch.linspace(0.5, 2, 21).requires_grad_()
    shared = torch.tensor(0.3, requires_grad=True)

    def field(t, y, rate):
        theta, omega = y.unbind(-1)
        physics = torch.stack([omega, -(rate**2) * theta.sin() - shared**2 * omega], -1)
        return physics + network(torch.cat([y, rate[:, None] * t], -1))

    sources = [y0, rate, shared, *network.parameters()]
    t = torch.tensor([0.0, 0.1, 0.3, 0.4, 0.5, 0.6])
    _assert_equal(_both(field, y0, t, rate, sources, substeps=substeps))


@pytest.mark.usefixtures("_no_draws")
def test_a_long_tape_is_taken_in_parts(monkeypatch):
    network, y0 = _network(2, 20, 2), torch.linspace(-1, 1, 10).reshape(5, 2).requires_grad_()

    def run():
        sources = [y0, *network.parameters()]
        return _both(lambda t, y, _: network(y), y0, torch.linspace(0, 1, 9), None, sources)

    whole = run()
    monkeypatch.setattr(differentiable, "TAPE", 1000)
    _assert_equal(run())
    for a, b in zip(run()[0][1], whole[0][1], strict=True):
        torch.testing.assert_close(a, b)


SHAPES = {
    "indexing": lambda t, y, z: torch.stack([y[:, 1] * z[:, 0], y[..., 0] - y[:, 2], z[:, 1]], -1),
    "slices": lambda t, y, z: torch.cat([y[:, 1:] * z[:, :1], y[:, :1].exp()], -1),
    "broadcast": lambda t, y, z: y * z[:, :1] - y.mean(-1, keepdim=True) + z.sum(-1)[:, None],
    "matrix": lambda t, y, z: torch.einsum("nij,nj->ni", z[:, :9].reshape(-1, 3, 3), y),
    "functions": lambda t, y, z: y.tanh() + (y * y + 1).sqrt().log() - (y / (2 + y.cos())).atan(),
    "powers": lambda t, y, z: (y**2 + 1) ** -0.5 + z[:, :3].exp() ** 0.3 - y**3,
    "where": lambda t, y, z: torch.where(y > 0, y * z[:, :3], -y.abs()) + y.clamp(-0.5, 0.5),
    "extremes": lambda t, y, z: torch.maximum(y, z[:, :3]) - torch.minimum(y.flip(-1), y),
    "in_place": lambda t, y, z: _in_place(y, z),
}


def _in_place(y, z):
    k = torch.zeros_like(y)
    k[:, 0] = y[:, 1] * z[:, 0]
    k[:, 1:] -= y[:, :2] ** 2
    return k


@pytest.mark.parametrize("name", list(SHAPES))
def test_every_way_back(name):
    generator = torch.Generator().manual_seed(0)
    y0 = (2 * torch.rand(5, 3, generator=generator) - 1).requires_grad_()
    z = torch.rand(5, 9, generator=generator).requires_grad_()
    t = torch.linspace(0, 0.5, 4)
    field = SHAPES[name]
    _assert_equal(
        _both(lambda t, y, z: field(t, y, z) + 0 * z.sum(-1)[:, None], y0, t, z, [y0, z])
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_members_that_fail_have_no_gradient_and_spoil_none(dtype):
    y0 = torch.tensor([[1.0], [0.5], [2.0], [1.5]], dtype=dtype, requires_grad=True)
    rate = torch.tensor([[0.3], [torch.nan], [40.0], [0.2]], dtype=dtype, requires_grad=True)
    shared = torch.tensor(1.0, dtype=dtype, requires_grad=True)
    t = torch.linspace(0, 2, 21, dtype=dtype)

    def field(t, y, rate):
        return shared * rate * y * y

    found = _both(field, y0, t, rate, [y0, rate, shared])
    _assert_equal(found, 1e-10 if dtype == torch.float64 else 1e-4)
    assert all(bool(torch.isfinite(g).all()) for g in found[0][1])
    assert float(found[0][1][1][2].abs()) == 0.0


def test_times_of_their_own_and_batch_axes(pendulum):
    p = pendulum(6)
    y0 = p.y0.reshape(2, 3, 2).requires_grad_()
    args = [a.reshape(2, 3).requires_grad_() for a in p.args]
    t = (p.t[:5] * torch.linspace(0.5, 1.5, 6)[:, None]).reshape(2, 3, 5)
    for times in (t, p.t[:5]):
        _assert_equal(_both(p.field, y0, times, args, [y0, *args], batch_dims=2))


@pytest.mark.parametrize("module", [pendulum, lotka_volterra])
def test_a_whole_hybrid_trains_alike(module):
    """APHYNITY's own field: every parameter of its decoder has the gradient of autograd."""
    simulator = module.simulator
    model = APHYNITY(simulator.expert).double()
    data = simulator.sample(8, seed=0)
    with torch.no_grad():
        for i, p in enumerate(model.residual.parameters()):
            p.copy_(0.1 * torch.sin(torch.arange(p.numel(), dtype=p.dtype) + i).reshape(p.shape))
    y0 = torch.from_numpy(data.clean.values[:, 0]).requires_grad_()
    count = len(simulator.expert.params)
    latents = Latents(
        torch.full((8, count), 0.5, requires_grad=True), torch.ones(8, 1, requires_grad=True)
    )
    t = torch.linspace(0, 0.5, 6)
    sources = [y0, latents.z_e, latents.z_a, *model.residual.parameters()]
    _assert_equal(_both(model.field, y0, t, latents, sources), 1e-8)


def test_what_has_no_kernel_is_refused_or_rolled_out_without(monkeypatch):
    y0, t = torch.ones(2, 1, requires_grad=True), torch.linspace(0, 1, 3)
    times = t.clone().requires_grad_()
    with pytest.raises(UnsupportedError, match="a gradient of the times is wanted"):
        solve(lambda t, y, _: -y, y0, times, method="grid_rk4", compile=True)
    monkeypatch.setattr(compilation, "WORTH", 0)
    y = solve(lambda t, y, _: -y.cumsum(-1), y0, t, method="grid_rk4").y
    assert y.requires_grad
    with pytest.raises(UnsupportedError, match="cumsum"):
        solve(lambda t, y, _: -y.cumsum(-1), y0, t, method="grid_rk4", compile=True)


def test_second_derivatives_are_refused():
    y0 = torch.ones(2, 1, requires_grad=True)
    y = solve(
        lambda t, y, _: -(y**3), y0, torch.linspace(0, 1, 3), method="grid_rk4", compile=True
    ).y
    (first,) = torch.autograd.grad((y**2).sum(), y0, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_under_a_transform_there_is_no_kernel(monkeypatch):
    monkeypatch.setattr(compilation, "WORTH", 0)
    t = torch.linspace(0, 1, 3)

    def last(y0):
        return solve(lambda t, y, _: -y, y0, t, method="grid_rk4").y[:, -1].sum()

    y0 = torch.ones(2, 1)
    _, tangent = torch.func.jvp(last, (y0,), (y0,))
    torch.testing.assert_close(tangent, last(y0))
