"""Kernels against torch: every operation they know, and every rule of the solver."""

import math
import os
import stat

import pytest
import torch
from torch import nn
from torch.nn import functional

from hybridgen import ODEExpert, Param, State
from hybridgen.errors import ConfigError, UnsupportedError
from hybridgen.integrate import Status, building, compilation, kernel, repeated, solve
from hybridgen.integrate.building import compiler
from hybridgen.integrate.kernel import kernel_for
from hybridgen.integrate.members import Members
from hybridgen.integrate.stepping import Tolerance
from hybridgen.integrate.tableaus import TSIT5

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")


@pytest.fixture
def device():
    """Kernels are for the CPU."""
    return torch.device("cpu")


# A state of three numbers, all between 0.1 and 0.9.
OPERATIONS = {
    "arithmetic": lambda y, z: 2 * y - y / 3 + (1 - y) * y.reciprocal() - (-y) + torch.rsub(y, 2),
    "scaled": lambda y, z: torch.add(y, y, alpha=3) - torch.sub(y, y, alpha=0.5),
    "powers": lambda y, z: y**2 + y**-3 + y**0.5 + y**1.7 + y**12 + 2.0**y + y**y + y.square(),
    "roots": lambda y, z: y.sqrt() + y.rsqrt(),
    "circular": lambda y, z: y.sin() + y.cos() * y.tan() - y.asin() + y.acos() - y.atan(),
    "atan2": lambda y, z: torch.atan2(y, y.flip(-1)),
    "hyperbolic": lambda y, z: y.sinh() + y.cosh() + y.tanh(),
    "exponential": lambda y, z: y.exp() + y.expm1() + y.exp2(),
    "logarithm": lambda y, z: y.log() + y.log1p() + y.log2() + y.log10(),
    "error": lambda y, z: torch.erf(y),
    "rounding": lambda y, z: (3 * y).floor() - (3 * y).ceil(),
    "signs": lambda y, z: (y - 0.5).abs() * (y - 0.5).sign(),
    "activations": lambda y, z: (
        torch.sigmoid(y) + functional.silu(y) + functional.relu(y - 0.5) + functional.softplus(y)
    ),
    "bounds": lambda y, z: y.clamp(0.2, 0.6) + y.clamp_min(0.5) - y.clamp_max(0.4),
    "extremes": lambda y, z: torch.maximum(y, y.flip(-1)) - torch.minimum(y, y.roll(1, -1)),
    "where": lambda y, z: torch.where((y > 0.4) & ~(y >= 0.7) | (y < 0.2), y, -1.0),
    "truth": lambda y, z: (y > 0.4) * y - (z[:, :1] < 0.5) / (1 + (y < 0.7).to(y)),
    "compare": lambda y, z: torch.where((y <= 0.5) == (y.flip(-1) != y), y, z[:, :1]),
    "masked_fill": lambda y, z: torch.zeros_like(y) + torch.ones_like(y) + torch.full_like(y, 3),
    "sums": lambda y, z: (
        y * y.sum(-1, keepdim=True) - y.mean(-1, keepdim=True) + y.sum(1)[:, None]
    ),
    "indexing": lambda y, z: torch.stack([y[:, 2], y[..., 0], y[:, 1:].sum(-1)], -1),
    "cat": lambda y, z: torch.cat([y[:, 1:], z[:, :1]], -1),
    "chunks": lambda y, z: torch.stack([c.squeeze(-1) for c in y.split(1, -1)], -1).flip(-1),
    "views": lambda y, z: y.reshape(-1, 1, 3).transpose(1, 2).permute(0, 2, 1).squeeze(1),
    "pad": lambda y, z: functional.pad(y[:, :2], (1, 0), value=2.0),
    "broadcast": lambda y, z: y * z[:, :1] + z[:, 1, None].expand(-1, 3),
    "small_matrix": lambda y, z: y @ torch.arange(9.0, dtype=y.dtype).reshape(3, 3).T,
    "own_matrix": lambda y, z: (z.reshape(-1, 3, 3) @ y[..., None])[..., 0],
    "einsum": lambda y, z: torch.einsum("nij,nj->ni", z.reshape(-1, 3, 3), y),
}


def _states(count, width, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 0.8 * torch.rand(count, width, generator=generator, dtype=dtype)


def _slope(field, y, z=None, t=0.5):
    """Return the derivative by the kernel and by torch."""
    times = torch.tensor([t, t + 1], dtype=y.dtype)
    members = Members(field, z, times, y.shape[:1])
    made = kernel_for(members, y, TSIT5, Tolerance(1e-6, 1e-6), 256)
    return made.slope(y), field(times[0], y, z)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_operation_is_that_of_torch(dtype):
    """All in one kernel: an operation for each three numbers of the state."""
    names = list(OPERATIONS)[:21]
    later = list(OPERATIONS)[21:]
    for part in (names, later):
        y, z = _states(37, 3 * len(part), dtype), _states(37, 9, dtype, 1)

        def field(t, y, z, part=part):
            blocks = y.split(3, -1)
            return torch.cat([OPERATIONS[n](b, z) for n, b in zip(part, blocks, strict=True)], -1)

        got, expected = _slope(field, y, z)
        for i, name in enumerate(part):
            columns = slice(3 * i, 3 * i + 3)
            torch.testing.assert_close(
                got[:, columns], expected[:, columns], rtol=30 * torch.finfo(dtype).eps,
                atol=30 * torch.finfo(dtype).eps, msg=lambda m, n=name: f"{n}: {m}",
            )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_network_is_that_of_torch(dtype):
    with torch.random.fork_rng():
        network = nn.Sequential(
            nn.Linear(3, 20), nn.SiLU(), nn.Linear(20, 33), nn.Tanh(), nn.Linear(33, 2)
        ).to(dtype)

    def field(t, y, z):
        return network(torch.cat([y, z], -1)) * t

    with torch.no_grad():
        got, expected = _slope(field, _states(21, 2, dtype), _states(21, 1, dtype, 1))
    torch.testing.assert_close(got, expected)


def test_weights_and_numbers_that_change_are_seen(pendulum):
    p = pendulum(3)
    shared = torch.tensor(1.0)
    with torch.no_grad():
        for shared_now, number_now in ((1.0, 1.0), (2.0, 1.0), (2.0, -0.5)):
            shared.fill_(shared_now)
            solution = solve(
                lambda t, y, _, n=number_now: -shared * n * y, p.y0, p.t, compile=True
            )
            rate = shared_now * number_now
            torch.testing.assert_close(
                solution.y[:, -1], p.y0 * math.exp(-rate * 5.0), rtol=1e-5, atol=1e-7
            )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("substeps", [None, 2])
def test_it_does_what_the_eager_solver_does(pendulum, dtype, substeps):
    """Schedule, status and steps are the same; the numbers but for rounding."""
    p = pendulum(100, dtype)
    p.omega0[[70, 90]] = 60.0  # not in the pilot
    p.blow[5] = 2.0
    p.alpha[11] = torch.nan
    rtol = 1e-5 if dtype == torch.float64 else 1e-3
    tight = {"rtol": rtol, "atol": rtol, "substeps": substeps}
    eager = solve(p.field, p.y0, p.t, p.args, compile=False, **tight)
    fast = solve(p.field, p.y0, p.t, p.args, compile=True, **tight)
    assert (fast.compiled, eager.compiled) == (True, False)
    assert torch.equal(fast.substeps, eager.substeps)
    assert torch.equal(fast.status, eager.status)
    assert {Status.retried, Status.diverged, Status.nonfinite} <= set(fast.status.tolist())
    torch.testing.assert_close(fast.t_reached, eager.t_reached)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-2
    torch.testing.assert_close(fast.y, eager.y, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_member_does_not_depend_on_its_neighbours(pendulum, dtype):
    """Bit for bit: alone, elsewhere in the batch, beside members that fail."""
    p = pendulum(50, dtype)
    schedule = [2] * 50
    whole = solve(p.field, p.y0, p.t, p.args, substeps=schedule, compile=True)
    for rows in ([7], [49, 3, 7], list(range(5, 40))):
        part = [a[rows] for a in p.args]
        alone = solve(p.field, p.y0[rows], p.t, part, substeps=schedule, compile=True)
        assert torch.equal(alone.y, whole.y[rows])
    p.alpha[8], p.blow[9] = torch.nan, 2.0
    beside = solve(p.field, p.y0, p.t, p.args, substeps=schedule, compile=True)
    keep = [i for i in range(50) if i not in (8, 9)]
    assert torch.equal(beside.y[keep], whole.y[keep])


def test_threads_do_not_change_the_numbers(pendulum):
    p = pendulum(1000)
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            runs.append(solve(p.field, p.y0, p.t, p.args, compile=True).y)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*runs)


def test_stiff_members_go_on_by_the_method_for_them():
    """y' = -rate (y - cos t): rates of 1e5 need more substeps than there may be."""
    t = torch.linspace(0, 2, 21)
    rate = torch.tensor([1.0, 1e5, 2.0, 3e5])[:, None]

    def field(t, y, rate):
        return -rate * (y - torch.cos(t))

    tight = {"rtol": 1e-6, "atol": 1e-9, "max_substeps": 64}
    fast = solve(field, torch.ones(4, 1), t, rate, compile=True, **tight)
    eager = solve(field, torch.ones(4, 1), t, rate, compile=False, **tight)
    assert fast.status.tolist() == eager.status.tolist() == [0, 1, 0, 1]
    exact = (rate**2 * torch.cos(t) + rate * torch.sin(t)) / (1 + rate**2)
    exact = exact + (1 - rate**2 / (1 + rate**2)) * torch.exp(-rate * t)
    assert float((fast.y[..., 0] - exact).abs().max()) < 1e-5
    # The others take the same steps; who is stiff is chased here, and crosses by Rodas5P there.
    torch.testing.assert_close(fast.y[[0, 2]], eager.y[[0, 2]], rtol=1e-8, atol=1e-10)


def test_a_kernel_knows_who_diverged_and_whose_field_is_no_number(device):
    """Poles, square roots of what becomes negative, and stiffness, each within an interval."""
    t = torch.linspace(0, 2, 5)
    y0 = torch.tensor([0.1, 0.96, 0.9, 0.3, 1.0])[:, None]
    kind = torch.tensor([0, 0, 1, 1, 2])[:, None]

    def field(t, y, kind):
        root = -torch.sqrt(y)
        fast = -3e5 * (y - torch.cos(t))
        return torch.where(kind == 0, y * y, torch.where(kind == 1, root, fast))

    solution = solve(field, y0, t, kind.double(), compile=True)
    assert solution.status.tolist() == [0, Status.diverged, 4, 4, Status.retried]
    assert solution.t_reached.tolist() == [2.0, 1.0, 1.5, 1.0, 2.0]
    assert float((solution.y[4, :, 0] - torch.cos(t)).abs().max()) < 1e-5


def test_a_clock_is_read_once_for_all(pendulum):
    """What depends on time alone, with times that all share and with times of their own."""

    def field(t, y, rate):
        wave = torch.sin(3 * t) + torch.exp(-t)
        return wave[..., None] * rate[:, None] - y

    y0, rate = torch.ones(20, 1), torch.linspace(0, 1, 20)
    t = torch.linspace(0, 2, 9)
    shared = solve(field, y0, t, rate, compile=True)
    own = solve(field, y0, t.repeat(20, 1), rate, substeps=shared.substeps, compile=True)
    eager = solve(field, y0, t, rate, compile=False)
    torch.testing.assert_close(shared.y, eager.y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.y, eager.y, rtol=1e-12, atol=1e-12)


def test_times_of_their_own_and_batch_axes(pendulum):
    p = pendulum(6)
    t = p.t * torch.linspace(0.5, 1.5, 6)[:, None]
    for shape, times in (((6,), t), ((2, 3), t.reshape(2, 3, -1)), ((2, 3), p.t)):
        args = [a.reshape(shape) for a in p.args]
        y0 = p.y0.reshape(*shape, 2)
        both = [
            solve(p.field, y0, times, args, batch_dims=len(shape), compile=c)
            for c in (True, False)
        ]
        assert both[0].y.shape == (*shape, 51, 2)
        torch.testing.assert_close(both[0].y, both[1].y)


def test_an_expert_with_named_parameters_is_compiled():
    def decay(t, y, z_e):
        return -z_e.rate[..., None] * y

    expert = ODEExpert(decay, (State("y", "m"),), (Param("rate", "1/s", 0.0, 2.0),))
    y0, rate = torch.ones(3, 1), torch.tensor([[0.5], [1.0], [2.0]])
    fast = solve(expert, y0, torch.linspace(0, 1, 3), rate, compile=True)
    torch.testing.assert_close(fast.y[:, -1], torch.exp(-rate), rtol=1e-6, atol=1e-6)


def test_a_field_in_numpy_is_refused_or_taken_as_it_is(monkeypatch):
    """Also where the field is recorded on a part of the batch."""
    field = lambda t, y, _: torch.from_numpy(-y.numpy())  # noqa: E731
    y0, t = torch.ones(200, 1), torch.linspace(0, 1, 3)
    with pytest.raises(UnsupportedError, match=r"out of a tensor \(Tensor.numpy\)"):
        solve(field, y0, t, compile=True)
    monkeypatch.setattr(compilation, "WORTH", 0)
    solution = solve(field, y0, t)
    assert not solution.compiled
    torch.testing.assert_close(
        solution.y[:, -1], torch.full((200, 1), math.exp(-1)), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("what", ["state", "argument", "captured"])
def test_a_gradient_is_refused_or_taken_without_a_kernel(what, pendulum, monkeypatch):
    monkeypatch.setattr(compilation, "WORTH", 0)
    y0, rate, shared = torch.ones(2, 1), torch.ones(2, 1), torch.ones(1)
    {"state": y0, "argument": rate, "captured": shared}[what].requires_grad_()

    def field(t, y, rate):
        return -rate * shared * y

    t = torch.linspace(0, 1, 3)
    with pytest.raises(UnsupportedError, match="a gradient is wanted"):
        solve(field, y0, t, rate, compile=True)
    solution = solve(field, y0, t, rate)
    assert solution.y.requires_grad
    assert not solution.compiled
    with torch.no_grad():
        assert solve(field, y0, t, rate).compiled


def test_auto_depends_on_the_size_and_on_a_compiler(pendulum, monkeypatch):
    p = pendulum(10)
    assert not solve(p.field, p.y0, p.t, p.args).compiled
    with repeated(1000):
        assert solve(p.field, p.y0, p.t, p.args).compiled
    assert not solve(p.field, p.y0, p.t, p.args).compiled
    monkeypatch.setattr(compilation, "WORTH", 0)
    assert solve(p.field, p.y0, p.t, p.args).compiled
    for module in (compilation, kernel):
        monkeypatch.setattr(module, "compiler", lambda: None)
    assert not solve(p.field, p.y0, p.t, p.args).compiled
    with pytest.raises(UnsupportedError, match="no C\\+\\+ compiler here; install g\\+\\+"):
        solve(p.field, p.y0, p.t, p.args, compile=True)
    with pytest.raises(ConfigError, match="write 'auto', True or False"):
        solve(p.field, p.y0, p.t, p.args, compile="yes")


def test_kernels_are_kept_where_nobody_else_can_write(pendulum, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernel, "_LIBRARIES", {})
    building._folder.cache_clear()
    try:
        p = pendulum(2)
        first = solve(p.field, p.y0, p.t, p.args, compile=True)
        folder = tmp_path / "hybridgen" / "kernels"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (kept,) = folder.iterdir()
        built = kept.stat().st_mtime_ns
        kernel._LIBRARIES.clear()
        again = solve(p.field, p.y0, p.t, p.args, compile=True)
        assert torch.equal(first.y, again.y)
        assert kept.stat().st_mtime_ns == built
        os.chmod(folder, 0o777)
        building._folder.cache_clear()
        assert building._folder() != folder
    finally:
        building._folder.cache_clear()


def test_a_compiler_that_fails_says_why(pendulum, monkeypatch, tmp_path):
    false = tmp_path / "c++"
    false.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(false))
    monkeypatch.setattr(kernel, "_LIBRARIES", {})
    building._folder.cache_clear()
    compiler.cache_clear()
    try:
        p = pendulum(2)
        with pytest.raises(UnsupportedError, match="no such luck"):
            solve(p.field, p.y0, p.t, p.args, compile=True)
    finally:
        monkeypatch.undo()
        building._folder.cache_clear()
        compiler.cache_clear()


def test_a_batch_may_lose_all_its_members():
    """The pilot too, which then has nobody left to fly."""
    rate, y0 = torch.full((20, 1), 3.0), torch.ones(20, 1)
    found = solve(lambda t, y, rate: rate * y * y, y0, torch.linspace(0, 2, 5), rate, compile=True)
    assert bool((found.status == Status.diverged).all())
