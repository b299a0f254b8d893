import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridgen.errors import ConfigError, DataError, ExpertError, ShapeError
from hybridgen.integrate import Status, solve

METHODS = ["tsit5", "grid_rk4"]


def _decay(t, y, rate):
    return -rate * y


@pytest.mark.parametrize("method", METHODS)
def test_exponential(method, device):
    rate = torch.tensor([[0.5], [1.0], [2.0]], device=device)
    y0 = torch.tensor([[1.0], [2.0], [3.0]], device=device)
    t = torch.linspace(0, 2, 41, device=device)
    solution = solve(_decay, y0, t, rate, method=method)
    exact = y0[:, None] * torch.exp(-rate[:, None] * t[:, None])
    assert solution.y.shape == (3, 41, 1)
    torch.testing.assert_close(solution.y, exact, rtol=1e-5, atol=1e-7)
    assert solution.status.tolist() == [Status.ok] * 3
    assert solution.status.dtype == torch.int8
    assert solution.t_reached.tolist() == [2.0] * 3
    assert solution.n_steps.tolist() == [solution.substeps.sum().item()] * 3
    assert bool(solution.ok.all())


def test_oscillator_over_long_intervals(device):
    # Ten times around between save times: the level has to be found by itself.
    y0 = torch.tensor([1.0, 0.0], device=device)
    t = torch.linspace(0, 100, 3, device=device)
    field = lambda t, y, args: torch.stack([y[1], -y[0]])  # noqa: E731
    solution = solve(field, y0, t, batch_dims=0, max_substeps=4096)
    exact = torch.stack([t.cos(), -t.sin()], -1)
    torch.testing.assert_close(solution.y, exact, rtol=0, atol=1e-4)
    assert solution.status.shape == ()


def test_pendulum_keeps_its_energy(pendulum):
    p = pendulum(16)
    args = (p.omega0, 0.0 * p.alpha, p.blow)
    y = solve(p.field, p.y0, p.t, args, rtol=1e-9, atol=1e-9).y
    energy = y[..., 1] ** 2 / 2 - p.omega0[:, None] ** 2 * torch.cos(y[..., 0])
    torch.testing.assert_close(energy, energy[:, :1].expand_as(energy), rtol=0, atol=1e-6)


@pytest.mark.parametrize("tolerance", [1e-5, 1e-7])
def test_tolerance_is_respected_by_every_member(pendulum, tolerance):
    p = pendulum(200)
    tight = solve(p.field, p.y0, p.t, p.args, rtol=1e-12, atol=1e-12)
    solution = solve(p.field, p.y0, p.t, p.args, rtol=tolerance, atol=tolerance)
    assert bool(solution.ok.all())
    assert (solution.y - tight.y).abs().max() < 10 * tolerance
    # The estimate is honest: a hundred times the work would be a waste.
    assert solution.substeps.max() <= 4


def test_a_schedule_repeats_a_run_bit_for_bit(pendulum):
    p = pendulum(100)
    first = solve(p.field, p.y0, p.t, p.args)
    again = solve(p.field, p.y0, p.t, p.args, substeps=first.substeps)
    assert torch.equal(first.y, again.y)
    assert torch.equal(first.n_steps, again.n_steps)
    one = solve(p.field, p.y0[7:8], p.t, [a[7:8] for a in p.args], substeps=first.substeps)
    assert torch.equal(first.y[7:8], one.y)


@pytest.mark.parametrize("method", METHODS)
def test_own_times_equal_to_shared_ones_change_nothing(pendulum, method):
    p = pendulum(10)

    def driven(t, y, args):
        force = torch.cos(t) if t.ndim == 0 else torch.cos(t)[:, None]
        return p.field(t, y, args) + force

    shared = solve(driven, p.y0, p.t, p.args, method=method)
    own = solve(driven, p.y0, p.t.expand(10, -1), p.args, method=method)
    torch.testing.assert_close(own.y, shared.y, rtol=1e-13, atol=1e-13)
    assert own.t_reached.tolist() == shared.t_reached.tolist()


def test_own_times_differ(device):
    y0 = torch.ones(4, 1, device=device)
    t = torch.linspace(0, 1, 11, device=device) * torch.tensor([[1.0], [2.0], [-1.0], [5.0]]).to(
        y0
    )
    rate = torch.ones(4, 1, device=device)
    solution = solve(_decay, y0, t, rate)
    torch.testing.assert_close(solution.y[..., 0], torch.exp(-t), rtol=1e-5, atol=1e-7)
    assert solution.t_reached.tolist() == [1.0, 2.0, -1.0, 5.0]


def test_own_times_on_two_batch_axes(device):
    y0 = torch.ones(2, 3, 2, device=device)
    rate = torch.linspace(0.5, 3, 6, device=device).reshape(2, 3, 1)
    rate[1, 0] = torch.nan
    t = torch.linspace(0, 1, 5, device=device) * torch.tensor([1.0, 2.0]).to(y0)[:, None, None]
    t = t.expand(2, 3, 5)
    shapes = set()

    def field(t, y, rate):
        shapes.add((t.shape, y.shape[:-1], rate.shape[:-1]))
        return -rate * y

    solution = solve(field, y0, t, rate, batch_dims=2)
    assert solution.y.shape == (2, 3, 5, 2)
    exact = torch.exp(-rate * t)
    torch.testing.assert_close(
        solution.y[..., 0][solution.ok], exact[solution.ok], rtol=1e-5, atol=0
    )
    assert solution.status[1, 0] == Status.nonfinite
    assert solution.ok.sum() == 5
    assert all(t == y == a for t, y, a in shapes)
    assert {len(y) for _, y, _ in shapes} == {2}


@pytest.mark.parametrize("method", METHODS)
def test_decreasing_times_go_back(pendulum, method):
    p = pendulum(5)
    there = solve(p.field, p.y0, p.t, p.args, method=method, substeps=8)
    back = solve(p.field, there.y[:, -1], p.t.flip(0), p.args, method=method, substeps=8)
    torch.testing.assert_close(back.y.flip(1), there.y, rtol=0, atol=1e-5)
    assert back.t_reached.tolist() == [0.0] * 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("shape", "batch_dims"), [((), 0), ((3,), 1), ((3, 2), 1), ((2, 3, 4, 5), 2), ((0, 2), 1)]
)
def test_shapes(method, shape, batch_dims, device):
    y0 = torch.ones(shape, device=device)
    solution = solve(
        lambda t, y, args: -y,
        y0,
        torch.tensor([0.0, 0.1, 0.2]).to(y0),
        method=method,
        batch_dims=batch_dims,
    )
    assert solution.y.shape == (*shape[:batch_dims], 3, *shape[batch_dims:])
    for each in (solution.status, solution.t_reached, solution.n_steps):
        assert each.shape == shape[:batch_dims]
    assert solution.substeps.shape == (2,)


@pytest.mark.parametrize("method", METHODS)
def test_one_time_returns_the_start(method):
    y0 = torch.tensor([[1.0], [torch.nan]])
    solution = solve(lambda t, y, args: -y, y0, torch.tensor([3.0]), method=method)
    assert solution.y[0].tolist() == [[1.0]]
    assert solution.y[1].isnan().all()
    assert solution.status.tolist() == [Status.ok, Status.nonfinite]
    assert solution.t_reached[0] == 3.0
    assert solution.t_reached[1].isnan()


@pytest.mark.parametrize("method", METHODS)
def test_float32_stays_float32(pendulum, method):
    p = pendulum(70, torch.float32)
    seen = set()

    def field(t, y, args):
        seen.add(t.dtype)
        return p.field(t, y, args)

    solution = solve(field, p.y0, p.t.double(), p.args, method=method)
    assert solution.y.dtype == torch.float32
    assert seen == {torch.float32}
    assert bool(solution.ok.all())


def test_complex_states():
    t = torch.linspace(0, 3, 7)
    y0 = torch.ones(2, 1, dtype=torch.complex128)
    y = solve(lambda t, y, args: 1j * y, y0, t).y
    torch.testing.assert_close(y[0, :, 0], torch.exp(1j * t), rtol=1e-5, atol=1e-6)


def test_every_status_has_a_description():
    assert len({status.description for status in Status}) == len(Status)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"t": torch.tensor([0.0, 1.0, 1.0])}, DataError, "goes from 1 to 1 at index 1"),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, DataError, "goes from 1 to 0.5 at index 1"),
        ({"t": torch.tensor([0.0, torch.nan])}, DataError, "NaN at"),
        ({"t": torch.tensor([[0.0, 1.0], [1.0, 1.0]])}, DataError, "member"),
        ({"t": torch.zeros(0)}, ShapeError, "T >= 1"),
        ({"t": torch.zeros(3, 2)}, ShapeError, r"\(3, 2\)"),
        ({"t": torch.arange(3)}, ShapeError, "int64"),
        ({"t": [0.0, 1.0]}, ShapeError, "t is list"),
        ({"y0": torch.ones(2, 1, dtype=torch.int64)}, ShapeError, "int64"),
        ({"batch_dims": 3}, ShapeError, "batch_dims is 3"),
        ({"method": "dopri5"}, ConfigError, "'tsit5', 'grid_rk4'"),
        ({"rtol": 0.0}, ConfigError, "rtol is 0"),
        ({"atol": -1.0}, ConfigError, "atol is -1"),
        ({"max_substeps": 0}, ConfigError, "max_substeps is 0"),
        ({"substeps": [1]}, ConfigError, "1 entries for 2 intervals"),
        ({"substeps": [1, 0]}, ConfigError, "substeps is 0"),
    ],
)
def test_bad_inputs_are_named(change, error, message):
    inputs = {"y0": torch.ones(2, 1), "t": torch.tensor([0.0, 1.0, 2.0]), **change}
    with pytest.raises(error, match=message):
        solve(lambda t, y, args: -y, **inputs)


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_field_is_named(method):
    with pytest.raises(ExpertError, match=r"\(2,\) .* \(2, 1\)"):
        solve(
            lambda t, y, args: -y[:, 0], torch.ones(2, 1), torch.tensor([0.0, 1.0]), method=method
        )


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6))
def test_any_times_are_either_monotone_or_refused(times):
    t = torch.tensor(times, dtype=torch.float64)
    y0 = torch.ones(1, 1, dtype=torch.float64)
    steps = t.diff()
    if bool((steps > 0).all()) or bool((steps < 0).all()):
        y = solve(lambda t, y, args: torch.ones_like(y), y0, t).y
        torch.testing.assert_close(y[0, :, 0], 1.0 + t - t[0])
    else:
        with pytest.raises(DataError, match="strictly"):
            solve(lambda t, y, args: torch.ones_like(y), y0, t)
