"""Truths with inputs that jump: steps end there, so that the method keeps its order."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from hybridgen.driving import respond, step_ends
from hybridgen.expert import ODEExpert
from hybridgen.integrate import Status
from hybridgen.integrate.kernel import compiler
from hybridgen.io import to_batch
from hybridgen.params import Param, State
from hybridgen.signals import cubic, hold, linear
from hybridgen.simulator import Simulator

TIMES = np.linspace(0.0, 3.0, 4)
SWITCHED = torch.tensor([0.0, 0.37, 1.0, 1.61], dtype=torch.float64)
LEVELS = torch.tensor([1.0, 5.0, -2.0, 3.0], dtype=torch.float64)
SIGNAL = hold(SWITCHED, LEVELS[:, None])


def charging(t, y, z, u):
    """dU/dt of a capacitor behind a resistor."""
    return ((u.V - y[..., 0]) / z.RC)[..., None]


CIRCUIT = ODEExpert(
    charging,
    states=(State("U", "V"),),
    params=(Param("RC", "s", 0.1, 10.0),),
    inputs=(State("V", "V"),),
)


def circuit(inputs, **settings):
    """A circuit that is driven; tolerances so wide that no step is repeated."""
    defaults = {"rtol": 1e6, "atol": 1e6, "times": TIMES}
    support = {"RC": (0.5, 2.0), "U": (-1.0, 1.0)}
    return Simulator(CIRCUIT, CIRCUIT, support, inputs=inputs, **(defaults | settings))


def closed_form(drawn):
    """The voltage at the save times, for it decays towards each level in turn."""
    rc, u = drawn.z_e[:, 0], drawn.clean[:, 0, 0]
    at = torch.from_numpy(TIMES)
    ends = torch.cat([at, SWITCHED]).unique()
    found = [u]
    for t0, t1 in itertools.pairwise(ends):
        level = LEVELS[torch.searchsorted(SWITCHED, t0, right=True) - 1]
        found.append(level + (found[-1] - level) * torch.exp((t0 - t1) / rc))
    return torch.stack(found, 1)[:, torch.isin(ends, at)]


def errors(simulator, intervals, levels):
    """The largest error for each number of substeps."""
    found = []
    for m in levels:
        drawn = dataclasses.replace(simulator, substeps=(m,) * intervals).draw(np.arange(8), 0)
        assert drawn.status.eq(Status.ok).all()
        found.append(float((drawn.clean[..., 0] - closed_form(drawn)).abs().max()))
    return np.array(found)


def test_a_jump_inside_an_interval_leaves_the_method_its_order():
    levels = (2, 4, 8)
    held = errors(
        circuit(SIGNAL), 8, levels
    )  # three jumps, and just before them: 3, and 0.37, 1.61
    orders = np.log2(held[:-1] / held[1:])
    assert orders.min() > 4.7, (held, orders)
    # the same function, of which nothing says that it jumps
    blind = errors(circuit(lambda t: SIGNAL(t)), 3, levels)
    assert blind.min() > 1000 * held.max()


@pytest.mark.parametrize("compile", [False, True])
def test_a_circuit_within_its_tolerance(compile):
    if compile and compiler() is None:
        pytest.skip("there is no C++ compiler")
    simulator = circuit(SIGNAL, rtol=1e-9, atol=1e-9, compile=compile)
    data = simulator.sample(5, seed=0)
    assert dict(data.y.sizes) == {"sample": 5, "time": 4, "state": 1}
    np.testing.assert_array_equal(data.inputs[0, :, 0], [1.0, -2.0, 3.0, 3.0])
    drawn = to_batch(data)
    torch.testing.assert_close(drawn.clean[..., 0], closed_form(drawn), rtol=0, atol=1e-8)
    assert drawn.t_reached.tolist() == [3.0] * 5


def test_where_steps_end():
    t = torch.from_numpy(TIMES)
    ends = step_ends(t, SIGNAL)
    assert len(ends) == 9
    assert torch.equal(ends[[0, 2, 4, 6, 7, 8]], torch.cat([t, SWITCHED[1::2]]).sort().values)
    before = ends[[1, 3, 5]]
    assert (before < SWITCHED[1:]).all()
    assert (SWITCHED[1:] - before < 1e-14).all()
    assert torch.equal(step_ends(t.flip(0), SIGNAL), ends.flip(0))
    # before the start, after the end, and where the level stays, nothing happens
    late = t[2:]
    assert step_ends(late, SIGNAL) is late
    same = hold(SWITCHED, torch.tensor([1.0, 1.0, 4.0, 4.0], dtype=torch.float64)[:, None])
    assert len(step_ends(t, same)) == 5
    # a jump that rounding has put beside a save time
    beside = hold(torch.tensor([0.0, 1.0 + 2e-16]).double(), LEVELS[:2, None])
    assert (step_ends(t, beside).diff() > 0).all()


@pytest.mark.parametrize("inputs", [None, torch.sin, linear(SWITCHED, LEVELS[:, None]),
                                    cubic(SWITCHED, LEVELS[:, None])])  # fmt: skip
def test_what_does_not_jump_has_the_save_times(inputs):
    t = torch.from_numpy(TIMES)
    assert step_ends(t, inputs) is t


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backwards", [False, True])
def test_coarse_signals_and_the_way_back(dtype, backwards):
    t = torch.from_numpy(TIMES)
    signal = hold(
        torch.tensor([0.0, 0.375], dtype=dtype), torch.tensor([[1.0], [5.0]], dtype=dtype)
    )
    z, x0 = torch.ones(1, 1, dtype=t.dtype), torch.zeros(1, 1, dtype=t.dtype)
    there = respond(CIRCUIT, signal, x0, t, z, rtol=1e-10, atol=1e-10)
    u = torch.tensor(1.0, dtype=t.dtype) - torch.exp(torch.tensor(-0.375, dtype=t.dtype))
    torch.testing.assert_close(
        there.y[0, 1, 0], 5.0 + (u - 5.0) * np.exp(-0.625), rtol=1e-8, atol=0
    )
    if backwards:
        back = respond(CIRCUIT, signal, there.y[:, -1], t.flip(0), z, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(back.y.flip(1), there.y, rtol=0, atol=1e-6)
        assert back.substeps.sum() < 2 * there.substeps.sum()


def test_a_member_that_ends_between_jumps_reached_a_save_time():
    def failing(t, y, z, u):
        return torch.where(t > 1.2, torch.nan, charging(t, y, z, u))

    truth = dataclasses.replace(CIRCUIT, field=failing)
    t = torch.from_numpy(TIMES)
    z, x0 = torch.ones(2, 1, dtype=t.dtype), torch.zeros(2, 1, dtype=t.dtype)
    x0[1] = torch.nan
    late = hold(torch.tensor([0.0, 1.1]).double(), LEVELS[:2, None])
    found = respond(truth, late, x0, t, z)
    assert found.t_reached[0] == 1.0
    assert found.t_reached[1].isnan()
    assert found.y[0, :, 0].isnan().tolist() == [False, False, True, True]
