"""Members fail, batches don't."""

import pytest
import torch

from hybridgen.integrate import Status, solve
from hybridgen.integrate.kernel import compiler
from hybridgen.integrate.pace import CAP, SIZE

BAD = {7: "nan", 130: "blow"}


def _without(members, bad):
    keep = torch.ones(len(members.y0), dtype=torch.bool, device=members.y0.device)
    keep[list(bad)] = False
    return keep


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scheduled", [True, False])
@pytest.mark.parametrize("bad", [(7, 130), (130, 7), (3, 9)])
def test_the_others_do_not_notice(pendulum, dtype, scheduled, bad):
    """Bit for bit, with members that fail within and outside the pilot."""
    p = pendulum(256, dtype)
    p.alpha[bad[0]], p.blow[bad[1]] = torch.nan, 2.0
    keep = _without(p, bad)
    alone = solve(p.field, p.y0[keep], p.t, [a[keep] for a in p.args])
    substeps = alone.substeps if scheduled else None
    solution = solve(p.field, p.y0, p.t, p.args, substeps=substeps)
    assert torch.equal(solution.y[keep], alone.y)
    assert torch.equal(solution.substeps, alone.substeps)
    assert torch.equal(solution.n_steps[keep], alone.n_steps)
    assert solution.status[bad[0]] == Status.nonfinite
    assert solution.status[bad[1]] == Status.diverged
    assert bool(solution.ok[keep].all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_others_do_not_notice_in_a_rollout(pendulum, dtype):
    p = pendulum(256, dtype)
    p.alpha[7], p.blow[130] = torch.nan, 2.0
    keep = _without(p, BAD)
    alone = solve(p.field, p.y0[keep], p.t, [a[keep] for a in p.args], method="grid_rk4")
    solution = solve(p.field, p.y0, p.t, p.args, method="grid_rk4")
    assert torch.equal(solution.y[keep], alone.y)
    assert solution.status[[7, 130]].tolist() == [Status.nonfinite, Status.diverged]
    assert solution.status.count_nonzero() == 2


@pytest.mark.parametrize("method", ["tsit5", "grid_rk4"])
def test_blow_up_is_nan_after_the_last_good_time(method, device):
    # y' = y^2 from y0 ends at t = 1 / y0, within an interval here.
    y0 = torch.tensor([[0.1], [0.96], [1.83]], device=device)
    t = torch.linspace(0, 2, 21, device=device)
    solution = solve(lambda t, y, args: y * y, y0, t, method=method, substeps=8)
    assert solution.status[0] in (Status.ok, Status.retried)
    assert solution.status[1:].tolist() == [Status.diverged] * 2
    poles = 1.0 / y0[1:, 0]
    # A fixed step runs over the pole and overflows soon after it; the error estimate does not.
    late = 0.0 if method == "tsit5" else 0.3
    assert bool((solution.t_reached[1:] < poles + 1e-9 + late).all())
    assert bool((solution.t_reached[1:] > poles - 0.15).all())
    for member in (1, 2):
        good = t <= solution.t_reached[member]
        assert bool(solution.y[member, good].isfinite().all())
        assert bool(solution.y[member, ~good].isnan().all())
    if method == "tsit5":
        exact = y0 / (1 - y0 * t)
        reached = t <= solution.t_reached[:, None]
        torch.testing.assert_close(solution.y[..., 0][reached], exact[reached], rtol=1e-3, atol=0)


def test_the_fields_own_nan_is_told_from_overflow(device):
    # sqrt(1 - t) has no value after t = 1; the state is harmless there.
    def field(t, y, start):
        return torch.sqrt(start - t) * torch.ones_like(y)

    start = torch.tensor([[1.0], [9.0]], device=device)
    t = torch.linspace(0, 2, 11, device=device)
    solution = solve(field, torch.zeros(2, 1, device=device), t, start, atol=1e-3)
    assert solution.status.tolist()[0] == Status.nonfinite
    assert solution.t_reached[0] == pytest.approx(1.0, abs=0.21)
    assert bool(solution.ok[1])


@pytest.mark.parametrize("where", ["y0", "args", "t"])
@pytest.mark.parametrize("method", ["tsit5", "grid_rk4"])
def test_nan_inputs_are_never_tried(where, method, device):
    y0, rate = torch.ones(3, 1, device=device), torch.ones(3, 1, device=device)
    t = torch.linspace(0, 1, 5, device=device).repeat(3, 1)
    {"y0": y0, "args": rate, "t": t[:, 2:3]}[where][1] = torch.nan
    seen = []

    def field(t, y, rate):
        seen.append(bool((t.sum() + y.sum() + rate.sum()).isnan()))
        return -rate * y

    solution = solve(field, y0, t, rate, method=method)
    assert not any(seen)
    assert solution.status.tolist() == [Status.ok, Status.nonfinite, Status.ok]
    assert solution.n_steps[1] == 0
    assert bool(solution.y[1, 1:].isnan().all())
    if where == "y0":
        assert bool(solution.y[1].isnan().all())
        assert bool(solution.t_reached[1].isnan())
    else:
        assert solution.y[1, 0] == 1.0
        assert solution.t_reached[1] == 0.0


@pytest.mark.parametrize("method", ["tsit5", "grid_rk4"])
def test_nobody_left(method, device):
    y0 = torch.full((3, 2), torch.nan, device=device)
    t = torch.linspace(0, 1, 4, device=device)
    solution = solve(lambda t, y, args: -y, y0, t, method=method)
    assert bool(solution.y.isnan().all())
    assert solution.status.tolist() == [Status.nonfinite] * 3


def test_all_blow_up(device):
    y0 = torch.tensor([[0.9], [1.8]], device=device)
    solution = solve(lambda t, y, args: y * y, y0, torch.linspace(0, 2, 9).to(y0))
    assert solution.status.tolist() == [Status.diverged] * 2
    assert solution.y.shape == (2, 9, 1)
    assert bool(solution.y[:, -1].isnan().all())


def _relax(t, y, rate):
    return -rate * (y - torch.cos(t))


def _rotate(t, y, rate):
    return rate * torch.stack([y[:, 1], -y[:, 0]], -1)


def test_a_hard_member_is_repeated_alone(device):
    """By explicit steps, if it is hard for what it does and not for what it would do."""
    rate = torch.ones(1024, 1, device=device)
    rate[5], rate[200] = 50.0, 100.0
    y0, t = torch.ones(1024, 2, device=device), torch.linspace(0, 2, 21, device=device)
    rows = []

    def field(t, y, rate):
        rows.append(len(y))
        return _rotate(t, y, rate)

    solution = solve(field, y0, t, rate)
    assert solution.status[[5, 200]].tolist() == [Status.retried] * 2
    assert solution.substeps.max() <= 4
    assert solution.n_steps[200] > solution.n_steps[5] > 100 > solution.n_steps[0]
    exact = solve(_rotate, y0[[5, 200]], t, rate[[5, 200]], rtol=1e-10, atol=1e-10).y
    torch.testing.assert_close(solution.y[[5, 200]], exact, rtol=0, atol=1e-3)
    # The hard steps are taken by those who need them, at a tenth of what all would pay.
    assert 10 * sum(rows) < 1024 * 6 * solution.n_steps[200]


def test_stiffish_members_go_over_to_the_stiff_method_together(device):
    """Each would take 6 to 32 explicit substeps an interval, at a level of its own."""
    rate = torch.ones(1024, 1, device=device)
    hard = torch.tensor([70, 90, 150, 200], device=device)
    rate[hard, 0] = torch.tensor([170.0, 300.0, 650.0, 900.0], device=device)
    y0, t = torch.ones(1024, 1, device=device), torch.linspace(0, 4, 41, device=device)
    calls = []

    def field(t, y, rate):
        calls.append(len(y))
        return _relax(t, y, rate)

    solution = solve(field, y0, t, rate)
    assert solution.status[hard].tolist() == [Status.retried] * 4
    exact = solve(_relax, y0[hard], t, rate[hard], rtol=1e-10, atol=1e-10).y
    torch.testing.assert_close(solution.y[hard], exact, rtol=0, atol=1e-5)
    # About one step each in most of the 40 intervals.
    assert solution.n_steps[hard].max() < 160
    alone = solve(_relax, y0[hard[:1]], t, rate[hard[:1]], substeps=solution.substeps)
    assert torch.equal(alone.y, solution.y[hard[:1]])


@pytest.mark.parametrize("max_substeps", [1, 32, 256])
def test_a_member_beyond_the_highest_level_goes_on_by_the_stiff_method(device, max_substeps):
    rate = torch.ones(100, 1, device=device)
    rate[5] = 1e5
    y0, t = torch.zeros(100, 1, device=device), torch.linspace(0, 1, 6, device=device)
    solution = solve(_relax, y0, t, rate, max_substeps=max_substeps)
    assert solution.status.tolist() == [Status.ok] * 5 + [Status.retried] + [Status.ok] * 94
    exact = (rate[5] ** 2 * torch.cos(t[1:]) + rate[5] * torch.sin(t[1:])) / (1 + rate[5] ** 2)
    torch.testing.assert_close(solution.y[5, 1:, 0], exact, rtol=0, atol=1e-6)


def test_what_no_method_can_do_in_its_steps_ends_as_nan(device):
    rate = torch.ones(20, 1, device=device)
    rate[5] = 6283.0  # a thousand times around between two save times
    y0, t = torch.ones(20, 2, device=device), torch.linspace(0, 2, 3, device=device)
    rotate = lambda t, y, rate: rate * torch.stack([y[:, 1], -y[:, 0]], -1)  # noqa: E731
    solution = solve(rotate, y0, t, rate, max_substeps=8)
    assert solution.status[5] == Status.max_steps
    assert bool(solution.y[5, 1:].isnan().all())
    assert bool(solution.ok[torch.arange(20, device=device) != 5].all())


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("hard", [60.0, 1e5], ids=["explicit", "stiff"])
def test_a_member_may_take_so_many_steps_in_all(device, compile, hard):
    if compile and (compiler() is None or device.type != "cpu"):
        pytest.skip("no kernels here")
    rate = torch.ones(70, 1, device=device)
    rate[66] = hard
    y0, t = torch.ones(70, 1, device=device), torch.linspace(0, 4, 21, device=device)
    y0[66] = 0.0
    free = solve(_relax, y0, t, rate, compile=compile, rtol=1e-8, atol=1e-10)
    assert bool(free.ok.all())
    limit = int(free.n_steps[66]) - 20
    assert limit > int(free.n_steps[0])
    solution = solve(_relax, y0, t, rate, compile=compile, rtol=1e-8, atol=1e-10, max_steps=limit)
    assert solution.compiled == compile
    others = torch.arange(70, device=device) != 66
    assert torch.equal(solution.y[others], free.y[others])
    assert solution.status[66] == Status.max_steps
    assert 0 <= solution.t_reached[66] < 4.0
    good = t <= solution.t_reached[66]
    torch.testing.assert_close(solution.y[66, good], free.y[66, good], rtol=0, atol=1e-12)
    assert bool(solution.y[66, ~good].isnan().all())
    assert limit < int(solution.n_steps[66]) <= limit + 256
    tight = solve(_relax, y0, t, rate, compile=compile, max_steps=5)
    assert tight.status.tolist() == [Status.max_steps] * 70
    assert int(tight.n_steps.max()) < 300


def test_a_hard_batch_raises_its_own_level(device):
    rate = torch.full((100, 1), 400.0, device=device)
    y0, t = torch.ones(100, 1, device=device), torch.linspace(0, 1, 6, device=device)
    solution = solve(_relax, y0, t, rate)
    assert solution.status.tolist() == [Status.ok] * 100
    assert solution.substeps.max() > CAP


@pytest.mark.parametrize("count", [3, 200])
def test_a_batch_that_is_stiff_goes_on_by_the_stiff_method(device, count):
    """Explicit steps must be shorter than 3.3 / rate: 256 an interval would do for all of them."""
    rate = torch.full((count, 1), 5e3, device=device)
    y0, t = torch.ones(count, 1, device=device), torch.linspace(0, 2, 21, device=device)
    rows = []

    def field(t, y, rate):
        rows.append(len(y))
        return _relax(t, y, rate)

    solution = solve(field, y0, t, rate, compile=False)
    assert solution.status.tolist() == [Status.retried] * count
    a, b = 5e3**2 / (5e3**2 + 1), 5e3 / (5e3**2 + 1)
    exact = a * torch.cos(t[1:]) + b * torch.sin(t[1:])
    torch.testing.assert_close(solution.y[:, 1:, 0], exact.expand(count, 20), rtol=0, atol=1e-6)
    assert solution.n_steps.max() < 200
    assert 5 * sum(rows) < count * 6 * 256 * 20


def test_members_outside_the_pilot_are_verified(device):
    rate = torch.ones(SIZE + 1, 1, device=device)
    rate[SIZE] = 30.0
    y0, t = torch.ones(SIZE + 1, 1, device=device), torch.linspace(0, 1, 6, device=device)
    solution = solve(_relax, y0, t, rate)
    assert solution.status.tolist() == [Status.ok] * SIZE + [Status.retried]


def test_a_failed_member_costs_nothing_afterwards(device):
    y0 = torch.tensor([[0.1], [3.9]], device=device)
    t = torch.linspace(0, 2, 41, device=device)
    rows = []

    def field(t, y, args):
        rows.append(len(y))
        return y * y

    solution = solve(field, y0, t, substeps=1)
    assert solution.status.tolist() == [Status.ok, Status.diverged]
    after = 6 * (41 - 2 - round(solution.t_reached[1].item() / 0.05))
    assert rows[-after:] == [1] * after
    assert solution.n_steps[0] == 40


def test_a_stiff_member_keeps_the_step_it_has_found(device):
    """From interval to interval, also where the next one is shorter or longer.

    A fast oscillation is as hard everywhere: who began each interval with the whole of it would
    pay for finding the step each time, some 440 steps in all.
    """
    rate = torch.ones(40, 1, device=device)
    rate[5] = 80.0
    y0 = torch.ones(40, 2, device=device)
    rotate = lambda t, y, rate: rate * torch.stack([y[:, 1], -y[:, 0]], -1)  # noqa: E731
    even, pairs = torch.linspace(0, 4, 21, device=device), torch.tensor([0.3, 0.1], device=device)
    uneven = torch.cat([even[:1], pairs.repeat(10).cumsum(0)])
    for t in (even, uneven):
        solution = solve(rotate, y0, t, rate, rtol=1e-4, atol=1e-4, max_substeps=2)
        assert solution.status[5] == Status.retried
        angle = 80.0 * t
        exact = torch.stack([angle.cos() + angle.sin(), angle.cos() - angle.sin()], -1)
        assert (solution.y[5] - exact).abs().max() < 0.05
        assert int(solution.n_steps[5]) < 420
