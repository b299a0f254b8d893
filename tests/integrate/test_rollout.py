"""With `checkpoint="interval"` a backward pass keeps less and finds the same."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from hybridgen.errors import ConfigError, UnsupportedError
from hybridgen.integrate import Diffusion, Status, compilation, solve
from hybridgen.integrate.kernel import compiler

METHODS = ["tsit5", "grid_rk4"]

# torch itself scripts its forward-mode decompositions at their first use.
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no compiler")


class Learnt:
    """A learnt field, `dy/dt = tanh(y W) V - rate y + cos t`, that counts how often it is called.

    The hidden layer is ten times as wide as the state, so what a step computes is what is large.
    """

    def __init__(self, device, count=6, times=11):
        g = torch.Generator().manual_seed(1)
        self.w = torch.randn(2, 20, generator=g).to(device).requires_grad_()
        self.v = (0.2 * torch.randn(20, 2, generator=g)).to(device).requires_grad_()
        self.y0 = torch.randn(count, 2, generator=g).to(device).requires_grad_()
        self.rate = torch.rand(count, 1, generator=g).to(device).requires_grad_()
        self.t = torch.linspace(0, 2, times, device=device).requires_grad_()
        self.calls = 0

    def __call__(self, t, y, rate):
        self.calls += 1
        return torch.tanh(y @ self.w) @ self.v - rate * y + torch.cos(t)

    @property
    def sources(self):
        return [self.y0, self.rate, self.t, self.w, self.v]

    def solve(self, checkpoint, **settings):
        return solve(self, self.y0, self.t, self.rate, checkpoint=checkpoint, **settings)


def _gradients(solution, sources):
    good = solution.status <= Status.retried
    return torch.autograd.grad(solution.y[good].square().sum(), sources)


def _saved(call):
    """Return how many numbers autograd keeps of a call, each storage counted once."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        result = call()
    assert result.y.requires_grad
    return sum(x.untyped_storage().nbytes() // x.element_size() for x in kept.values())


@pytest.mark.parametrize("substeps", [1, 3, 70])
@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_is_the_same_bit_for_bit(method, substeps, device):
    field = Learnt(device, times=4)
    found = []
    for checkpoint in (None, "interval"):
        solution = field.solve(checkpoint, method=method, substeps=substeps)
        found.append((solution.y, *_gradients(solution, field.sources)))
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)
        assert bool(plain.abs().sum() > 0)


@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_derivative(method):
    def trajectory(y0, t, rate):
        field = lambda t, y, rate: -rate * torch.sin(y) + torch.cos(t)[:, None]  # noqa: E731
        return solve(field, y0, t, rate, method=method, substeps=2, checkpoint="interval").y

    y0 = torch.tensor([[0.3], [1.0]], requires_grad=True)
    t = torch.tensor([[0.0, 0.3, 0.7], [0.0, 0.2, 0.9]], requires_grad=True)
    rate = torch.tensor([[1.0], [2.0]], requires_grad=True)
    assert torch.autograd.gradcheck(trajectory, (y0, t, rate))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept_does_not_grow_with_the_steps_of_an_interval(method, device):
    field = Learnt(device, count=50)
    kept = {
        (checkpoint, substeps): _saved(
            lambda c=checkpoint, m=substeps: field.solve(
                c, method=method, substeps=m, rtol=1.0, atol=1.0
            )
        )
        for checkpoint in (None, "interval")
        for substeps in (2, 8)
    }
    assert kept[None, 8] > 3.5 * kept[None, 2]
    assert kept["interval", 8] == kept["interval", 2]
    # Ten intervals, each from a state; by tsit5 from its derivative too, the first of them learnt.
    assert kept["interval", 8] < 4 * 10 * 50 * 2
    assert kept[None, 8] > 100 * kept["interval", 8]


@pytest.mark.parametrize("method", METHODS)
def test_each_step_is_taken_again_once(method, device):
    field = Learnt(device)
    solution = field.solve("interval", method=method, substeps=3)
    forward, field.calls = field.calls, 0
    _gradients(solution, field.sources)
    # The derivative at the first time belongs to no interval.
    assert field.calls == forward - (method == "tsit5")


@pytest.mark.parametrize("method", METHODS)
def test_without_a_gradient_nothing_is_different(method, device):
    field = Learnt(device)
    calls = []
    with torch.no_grad():
        for checkpoint in (None, "interval"):
            field.calls = 0
            field.solve(checkpoint, method=method, substeps=3)
            calls.append(field.calls)
    assert calls[0] == calls[1] > 0


@pytest.mark.parametrize("method", METHODS)
def test_members_that_fail_spoil_no_gradient(method, device):
    weight = torch.tensor(0.7, device=device, requires_grad=True)
    rate = torch.ones(80, 1, device=device)
    y0 = torch.linspace(0.1, 0.5, 80, device=device)[:, None]
    blow = torch.zeros_like(rate)
    rate[3], blow[70] = torch.nan, 50.0
    t = torch.linspace(0, 2, 11, device=device)

    def field(t, y, args):
        rate, blow = args
        return torch.sin(weight * y) - rate * y + blow * y**3

    found = []
    for checkpoint in (None, "interval"):
        solution = solve(
            field, y0, t, (rate, blow), method=method, substeps=2, checkpoint=checkpoint
        )
        assert solution.status.count_nonzero() == 2
        found.append(_gradients(solution, weight)[0])
    assert bool(found[0].isfinite())
    assert torch.equal(*found)


def test_members_that_are_repeated_or_stiff_have_their_gradient(device):
    # One that asks for 64 substeps and more, and one for the stiff method.
    rate = torch.ones(20, 1, device=device)
    rate[5], rate[9] = 900.0, 1e5
    rate.requires_grad_()
    y0, t = torch.ones(20, 1, device=device), torch.linspace(0, 1, 6, device=device)
    relax = lambda t, y, rate: -rate * (y - torch.cos(t))  # noqa: E731
    found = []
    for checkpoint in (None, "interval"):
        solution = solve(relax, y0, t, rate, checkpoint=checkpoint)
        assert solution.status.nonzero()[:, 0].tolist() == [5, 9]
        found.append(_gradients(solution, rate)[0])
    assert torch.equal(*found)


def test_second_derivatives_are_the_same(device):
    field = Learnt(device)
    found = []
    for checkpoint in (None, "interval"):
        y = field.solve(checkpoint, method="grid_rk4").y
        (first,) = torch.autograd.grad(y.square().sum(), field.rate, create_graph=True)
        found.append(torch.autograd.grad(first.sum(), field.w)[0])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


@forward_mode
def test_under_a_transform_all_is_kept(device):
    field = Learnt(device)

    def loss(checkpoint, rate):
        y = solve(field, field.y0, field.t, rate, method="grid_rk4", checkpoint=checkpoint).y
        return y.square().sum()

    tangent = torch.ones_like(field.rate)
    found = []
    for checkpoint in (None, "interval"):
        along = torch.func.jvp(lambda r, c=checkpoint: loss(c, r), (field.rate,), (tangent,))[1]
        found.append((torch.func.grad(lambda r, c=checkpoint: loss(c, r))(field.rate), along))
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)


@needs_compiler
@pytest.mark.parametrize("compile", [True, "auto"])
def test_a_kernel_goes_on_as_it_does(compile, monkeypatch):
    monkeypatch.setattr(compilation, "WORTH", 0)
    calls, found = [], []
    rate = torch.linspace(0.5, 1, 6)[:, None].requires_grad_()
    y0, t = torch.ones(6, 2), torch.linspace(0, 1, 6)

    def field(t, y, rate):
        calls.append(t)
        return -rate * torch.sin(y)

    for checkpoint in (None, "interval"):
        solution = solve(
            field, y0, t, rate, method="grid_rk4", compile=compile, checkpoint=checkpoint
        )
        calls.clear()
        found.append(_gradients(solution, rate)[0])
        assert not calls
    assert torch.equal(*found)


@needs_compiler
def test_what_has_no_kernel_keeps_little_all_the_same(monkeypatch):
    monkeypatch.setattr(compilation, "WORTH", 0)
    calls = []
    y0, t = torch.ones(6, 2, requires_grad=True), torch.linspace(0, 1, 6)

    def field(t, y, _):
        calls.append(t)
        return -y.cumsum(-1)

    y = solve(field, y0, t, method="grid_rk4", checkpoint="interval").y
    calls.clear()
    torch.autograd.grad(y.sum(), y0)
    assert len(calls) == 5 * 4
    with pytest.raises(UnsupportedError, match="cumsum"):
        solve(field, y0, t, method="grid_rk4", checkpoint="interval", compile=True)


def test_a_wrong_choice_is_named():
    y0, t = torch.ones(2, 5), torch.linspace(0, 1, 3)
    with pytest.raises(ConfigError, match="checkpoint is 'all'; write 'interval'"):
        solve(lambda t, y, _: -y, y0, t, checkpoint="all")
    linear = Diffusion(lambda a: a, 0.1, "neumann", axes=1)
    with pytest.raises(UnsupportedError, match="'etdrk4' keeps every step; leave checkpoint out"):
        solve(
            lambda t, y, a: -y, y0, t, 1.0, method="etdrk4", linear=linear, checkpoint="interval"
        )
