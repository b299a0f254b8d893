"""Who diverges is found out soon, and nobody else is taken for it."""

import pytest
import torch
from torch import Size

from hybridgen.integrate import Status, solve
from hybridgen.integrate.kernel import compiler
from hybridgen.integrate.members import Members
from hybridgen.integrate.rule import Rule
from hybridgen.integrate.runaway import runs_away
from hybridgen.integrate.stepping import Tolerance
from hybridgen.integrate.tableaus import TSIT5
from hybridgen.integrate.trace import Front


def away(field, y0, t, args=None, start=None):
    """Who runs away in the first interval, as a list; calls of the field are counted."""
    calls = []

    def counted(t, y, args):
        calls.append(len(y))
        return field(t, y, args)

    members = Members(counted, args, t, Size([len(y0)]))
    front = Front(members, torch.arange(len(y0)), y0, members.rhs(members.time(0), y0))
    rule = Rule(TSIT5, Tolerance(1e-6, 1e-6), 256)
    found = runs_away(front, 0, rule, y0 if start is None else start).tolist()
    # On each of at most 64 steps 7 calls; one by one for a member that is alone.
    assert len(calls) < 8 * 64 * max(1, len(y0))
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_poles(dtype):
    # y' = y^2 from y0 has its pole at t = 1 / y0.
    y0 = torch.tensor([[1.0], [9.9], [10.2], [30.0], [-30.0]], dtype=dtype)
    t = torch.tensor([0.0, 0.1], dtype=dtype)
    assert away(lambda t, y, _: y * y, y0, t) == [False, False, True, True, False]
    back = away(lambda t, y, _: -y * y, y0, -t)
    assert back == [False, False, True, True, False]


def test_poles_in_time_of_their_own():
    y0 = torch.full((3, 1), 2.0)
    t = torch.tensor([[0.0, 0.4], [0.0, 0.6], [1.0, 1.49]])
    field = lambda t, y, _: y * y  # noqa: E731
    assert away(field, y0, t) == [False, True, False]


def test_a_pole_of_one_component_among_several(pendulum):
    p = pendulum(3)
    p.blow[1] = 50.0
    assert away(p.field, p.y0, p.t[:2], p.args) == [False, True, False]


def relax(t, y, rate):
    return -rate * (y - torch.cos(t).reshape(-1, 1))


def van_der_pol(t, y, mu):
    u, v = y.unbind(-1)
    return torch.stack([v, mu[:, 0] * (1.0 - u * u) * v - u], -1)


def test_stiff_members_do_not_run_away():
    rate = torch.logspace(1, 8, 8)[:, None]
    for y0 in (torch.zeros(8, 1), torch.ones(8, 1), torch.full((8, 1), 1e3)):
        assert not any(away(relax, y0, torch.tensor([0.0, 0.5]), rate))
    mu = torch.tensor([[1e2], [1e3], [1e4]])
    for start in ([2.0, 0.0], [1.001, -0.6], [0.5, 5.0]):
        y0 = torch.tensor([start] * 3)
        assert not any(away(van_der_pol, y0, torch.tensor([0.0, 100.0]), mu))


def test_growth_alone_is_not_divergence():
    """exp(20) is out of all proportion, too, but no number that float64 does not have."""
    rate, t = torch.tensor([[200.0], [1e4]]), torch.tensor([0.0, 0.1])
    grow = lambda t, y, rate: rate * y  # noqa: E731
    assert away(grow, torch.ones(2, 1), t, rate) == [False, True]
    # The limit is that of the state at the very start.
    assert away(grow, torch.full((2, 1), 1e8), t, rate, torch.ones(2, 1)) == [False, True]


def test_nan_and_complex_states_are_left_to_others():
    t, y0 = torch.tensor([0.0, 1.0]), torch.ones(2, 1)
    assert away(lambda t, y, _: torch.where(y > 1.1, torch.nan, 1.0), y0, t) == [False, False]
    assert away(lambda t, y, _: 1e3 * y, y0 + 0j, t) == [False, False]
    assert away(lambda t, y, _: y * y, y0[:0], t) == []


@pytest.mark.parametrize("later", [False, True])
def test_a_diverging_member_costs_little(pendulum, later):
    p = pendulum(256)
    p.blow[130] = 0.5 if later else 50.0
    p.y0[130] = torch.tensor([1.0, 0.5])
    calls = []

    def field(t, y, args):
        calls.append(len(y))
        return p.field(t, y, args)

    solution = solve(field, p.y0, p.t, p.args, compile=False)
    assert solution.status[130] == Status.diverged
    assert (float(solution.t_reached[130]) > 0.1) == later
    assert len([n for n in calls if n == 1]) < 1400
    if compiler() is not None and p.y0.device.type == "cpu":
        fast = solve(p.field, p.y0, p.t, p.args, compile=True)
        assert torch.equal(fast.status, solution.status)
        assert torch.equal(fast.t_reached, solution.t_reached)
