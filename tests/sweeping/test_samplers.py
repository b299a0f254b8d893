"""What simulators offer to a sweep: what is known beforehand, a pace to keep, a device."""

import dataclasses

import numpy as np
import pytest
import torch
from hybridgen.simulators import beer_lambert, pendulum, reaction_diffusion, rlc

from hybridgen import driving
from hybridgen.integrate import Solution, Status
from hybridgen.integrate.kernel import compiler
from hybridgen.sweeping import sweep

MODULES = [pendulum, rlc, reaction_diffusion, beer_lambert]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.rpartition(".")[2])
def test_an_outline_is_a_draw_without_trajectories(module):
    simulator = module.simulator
    members = np.array([3, 0])
    outline, drawn = simulator.outline(members, 5), simulator.draw(members, 5)
    for name in ("t", "u", "z_e", "z_a", "distance"):
        given, expected = getattr(outline, name), getattr(drawn, name)
        assert given is expected is None or torch.equal(given, expected), name
    for name in ("y", "status", "t_reached"):
        given, expected = getattr(outline, name), getattr(drawn, name)
        assert (given.shape, given.dtype) == (expected.shape, expected.dtype), name
    assert outline.y.isnan().all()
    assert (outline.status == Status.not_written).all()


def test_a_pace_is_kept():
    simulator = pendulum.simulator
    pace = simulator.pace(np.arange(64), 100)
    assert pace == {"substeps": simulator.schedule.tolist(), "compile": False}
    kept = simulator.paced({"substeps": [7] * 200, "compile": False})
    assert kept.schedule.tolist() == [7] * 200
    assert kept.under("far").substeps is None


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_many_members_are_compiled_where_that_can_be(simulator, tmp_path, sums):
    members, many = np.arange(8), 10**8
    assert pendulum.simulator.pace(members, many)["compile"]
    assert not simulator("raise").pace(members, many)["compile"]
    short = dataclasses.replace(pendulum.simulator, times=np.linspace(0.0, 1.0, 11))
    compiled = short.paced(short.pace(members, many))
    plain = short.paced(short.pace(members, 10))
    a, b = compiled.draw(np.arange(100), 0), plain.draw(np.arange(100), 0)
    assert torch.allclose(a.clean, b.clean, rtol=0, atol=1e-12)
    # a member does not depend on who is drawn beside it
    assert torch.equal(a.y[37:39], compiled.draw(np.array([37, 38]), 0).y)


def test_a_device_is_passed_on(monkeypatch):
    """All that is integrated is on the device, what is drawn is not."""
    seen = []

    def still(field, x0, t, z, **settings):
        """Stand where one started; tensors on meta have no numbers to integrate."""
        seen.append([v.device.type for v in (x0, t, z)])
        n = len(x0)
        return Solution(
            y=torch.ones(n, len(t), *x0.shape[1:], dtype=x0.dtype),
            status=torch.zeros(n, dtype=torch.int8),
            t_reached=torch.full((n,), 20.0, dtype=t.dtype),
            n_steps=torch.zeros(n, dtype=torch.int64),
            substeps=torch.ones(len(t) - 1, dtype=torch.int64),
        )

    monkeypatch.setattr(driving, "solve", still)
    for device in ("cpu", "meta"):
        moved = pendulum.simulator.on(device)
        drawn = moved.draw(np.arange(2), 0)
        assert moved.device == device
        assert seen == [[device] * 3] * 2, "once for the schedule, once for the members"
        assert {v.device.type for v in (drawn.y, drawn.clean, drawn.z_e, drawn.t)} == {"cpu"}
        seen.clear()


def test_a_sampler_that_cannot_move_says_so(tmp_path):
    class Fixed:
        def draw(self, indices, root_seed):
            return pendulum.simulator.draw(indices, root_seed)

        def describe(self):
            return pendulum.simulator.describe()

    with pytest.raises(TypeError, match=r"no method on\(device\)"):
        sweep(Fixed(), 3, tmp_path / "a", seed=0, workers=0, device="cuda")
