"""Simulators: prefix property, supports, distances, units, refusals.

The first half is a contract that every simulator of the package keeps.
"""

import dataclasses
import importlib
import pickle
import pkgutil

import hybridgen.simulators
import numpy as np
import pytest
import torch
import xarray as xr
from hybridgen.simulators import pendulum, reaction_diffusion, rlc

from hybridgen.batch import Batch, Sampler
from hybridgen.errors import DataError, ParameterError, ShapeError, ShiftError
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch
from hybridgen.noise import GaussianNoise, estimate_sd
from hybridgen.params import Param, State
from hybridgen.shift import Shift
from hybridgen.testing import check_expert

SIMULATOR = pendulum.simulator

MODULES = {
    m.name: importlib.import_module(f"hybridgen.simulators.{m.name}")
    for m in pkgutil.iter_modules(hybridgen.simulators.__path__)
}
ALL = {
    f"{name}-{variant}": simulator
    for name, module in MODULES.items()
    for variant, simulator in module.variants.items()
}
every = pytest.mark.parametrize("simulator", ALL.values(), ids=ALL)


def short(simulator, points=6):
    """The simulator of the first few times, so that a test is quick."""
    return dataclasses.replace(simulator, times=simulator.times[:points])


def apart(a, b):
    """Whether two boxes of parameters have no inner point in common."""
    return any(a[k][1] <= b[k][0] or b[k][1] <= a[k][0] for k in a)


def test_modules_have_their_public_names():
    assert MODULES.keys() >= {"lotka_volterra", "pendulum", "reaction_diffusion", "rlc"}
    for name, module in MODULES.items():
        assert {"expert", "truth", "simulator", "variants"} <= set(module.__all__), name
        assert module.simulator is next(iter(module.variants.values()))
        assert module.simulator.expert == module.expert
        assert module.simulator.truth is module.truth
        problems = {s.problem for s in module.variants.values()}
        assert len(problems) == 1, f"{name} has several names: {problems}"
    assert len({(s.problem, s.variant) for s in ALL.values()}) == len(ALL)


@every
def test_is_a_sampler(simulator):
    assert isinstance(simulator, Sampler)


@every
def test_names_units_and_ranges_are_declared_once(simulator):
    truth, expert = simulator.truth, simulator.expert
    assert truth.states == expert.states
    assert truth.inputs == expert.inputs
    assert set(expert.params) <= set(truth.params)
    assert simulator.z_a_names
    assert all(d.unit for d in (*truth.states, *truth.params, *truth.inputs))
    assert simulator.time_unit
    # a trajectory is seen in part and forecast, a spectrum is seen whole
    unseen = len(simulator.times) - simulator.window
    assert unseen > 0 if isinstance(truth, ODEExpert) else unseen == 0


@every
def test_experts_keep_their_contract(simulator):
    for expert in (simulator.expert, simulator.truth):
        report = check_expert(expert)
        assert report.passed, str(report)


@every
def test_prefix_property(simulator):
    simulator = short(simulator)
    many, few = simulator.sample(70, seed=3), simulator.sample(5, seed=3)
    xr.testing.assert_identical(many.isel(sample=slice(5)), few)
    alone = simulator.draw(np.array([4]), 3)
    assert torch.equal(alone.y[0], to_batch(few).y[4])


@every
def test_prefix_property_of_shifts(simulator):
    simulator = short(simulator, 3).under("joint_large", split="test")
    many, few = (simulator.draw(np.arange(n), 1) for n in (8, 3))
    assert torch.equal(many.y[:3], few.y)
    assert torch.equal(many.distance[:3], few.distance)


@every
def test_round_trip_through_a_dataset(simulator):
    simulator = short(simulator)
    drawn = simulator.draw(np.arange(4), 0)
    read = to_batch(simulator.sample(4, seed=0), simulator.expert)
    for f in dataclasses.fields(Batch):
        a, b = getattr(drawn, f.name), getattr(read, f.name)
        assert (a is None) == (b is None), f.name
        assert a is None or torch.equal(a, b.to(a.dtype)), f.name


@every
def test_workers_get_the_same_members(simulator):
    simulator = short(simulator, 3)
    copy = pickle.loads(pickle.dumps(simulator))
    xr.testing.assert_identical(copy.sample(2, seed=0), simulator.sample(2, seed=0))


@every
def test_s0_7_6_support_boxes(simulator):
    """Shifted boxes are disjoint from the training's, and the valid one contains them all."""
    names = simulator.expert.param_names
    box = {p.name: (p.low, p.high) for p in simulator.truth.params}
    training = {k: simulator.support[k] for k in names}
    assert simulator.shifts.keys() >= {"ood", "near", "far", *(
        f"joint_{size}" for size in ("small", "medium", "large")
    )}  # fmt: skip
    for name, shift in simulator.shifts.items():
        moved = shift.apply(simulator.support)
        assert apart(training, {k: moved[k] for k in names}), name
        for support in (simulator.support, moved):
            assert all(a <= support[k][0] <= support[k][1] <= b for k, (a, b) in box.items())
        assert name.startswith("joint") == any(k in shift.moved for k in simulator.z_a_names)


@every
def test_s0_7_6_in_support_flags(simulator):
    """Distance is zero inside the training box, positive outside, and grows with the grade."""
    simulator = short(simulator, 2)
    assert (simulator.draw(np.arange(50), 0).distance == 0).all()
    p = simulator.expert.params[0]
    low, high = simulator.support[p.name]
    wide = simulator.sample(200, seed=0, shift=Shift("wide", {p.name: (p.low, p.high)}))
    inside = (wide[p.name] >= low) & (wide[p.name] <= high)
    assert 0 < int(inside.sum()) < 200
    assert ((wide["distance"] == 0) == inside).all()
    near, far = (simulator.under(k).draw(np.arange(100), 0).distance for k in ("near", "far"))
    assert near.min() > 0
    assert far.mean() > near.mean()


def test_splits_shifts_and_seeds_are_independent():
    first = {
        float(SIMULATOR.sample(1, seed=seed, split=split, shift=shift)["y"][0, 0, 0])
        for seed in (0, 1)
        for split in ("train", "valid")
        for shift in (None, "far", "near")
    }
    assert len(first) == 12


def test_members_lie_in_their_support():
    data = SIMULATOR.sample(200, seed=0, split="test", shift="joint_medium")
    assert data["omega0"].min() >= 0.5
    assert data["omega0"].max() <= 1.5
    assert data["alpha"].min() >= 0.6
    assert data["alpha"].max() <= 1.0
    expected = np.maximum((1.5 - data["omega0"]) / 1.6, (data["alpha"] - 0.6) / 0.6)
    assert np.allclose(data["distance"], expected)
    assert (SIMULATOR.sample(50, seed=0)["distance"] == 0).all()


def test_dataset_is_described():
    data = SIMULATOR.sample(2, seed=0, shift="far", split="test")
    assert data["y"].dims == ("sample", "time", "state")
    assert data["time"].attrs["units"] == "s"
    assert data["omega0"].attrs == {"units": "rad/s", "role": "z_e"}
    assert data["alpha"].attrs["role"] == "z_a"
    assert data.attrs["shift"] == "far"
    assert data.attrs["window"] == 50
    assert data["status"].dtype == np.int8
    assert "nonfinite" in data["status"].attrs["flag_meanings"]
    assert "_FillValue" not in data["status"].encoding


def test_noise_is_where_it_should_be():
    data = SIMULATOR.sample(300, seed=0)
    error = (data["y"] - data["clean"]).values
    assert abs(error.std() - 0.01) < 2e-4
    assert abs(error.mean()) < 2e-4


def test_noise_and_horizon_shifts():
    shifts = {"loud": Shift("loud", noise=3.0), "long": Shift("long", horizon=2.0)}
    simulator = dataclasses.replace(SIMULATOR, shifts=shifts)
    loud = simulator.sample(100, seed=0, shift="loud")
    assert abs(float((loud["y"] - loud["clean"]).std()) - 0.03) < 1e-3
    assert float(simulator.sample(2, seed=0, shift="long")["time"][-1]) == 40.0


def test_a_quiet_simulator_has_a_clean_copy_of_its_own_unless_it_is_a_field():
    quiet = rlc.simulator.draw(np.arange(2), 0)
    assert torch.equal(quiet.y, quiet.clean)
    assert quiet.y.data_ptr() != quiet.clean.data_ptr()
    field = short(reaction_diffusion.simulator)
    assert field.draw(np.arange(2), 0).clean is None
    noisy = dataclasses.replace(field, noise=GaussianNoise((0.1, 0.2))).draw(np.arange(20), 0)
    error = (noisy.y - noisy.clean).transpose(0, 2).flatten(1)
    assert torch.allclose(error.std(1), error.new_tensor([0.1, 0.2]), rtol=0.02)


def test_a_field_is_as_far_off_as_its_farthest_point():
    field = short(reaction_diffusion.simulator, 2)
    bright = Shift("bright", {"u": (0.0, 1.5), "a": (1e-3, 3e-3)})
    batch = field.under(bright).draw(np.arange(20), 0)
    farthest = (batch.y[:, 0, 0].flatten(1).amax(1) - 1.0).clamp_min(0)
    a = (batch.z_e[:, 0] - 2e-3).clamp_min(0) / 1e-3
    assert torch.allclose(batch.distance, torch.maximum(farthest, a))
    assert batch.distance.min() > 0.4


def test_inputs_drive_the_truth_as_a_function_of_time():
    """Far between two save times the drive is still the exact one."""
    coarse = dataclasses.replace(rlc.simulator, times=np.array([0.0, 5.0, 20.0])).draw([0, 1], 0)
    fine = rlc.simulator.draw([0, 1], 0)
    assert torch.allclose(coarse.y[:, 1:], fine.y[:, [50, 200]], atol=1e-6)
    later = dataclasses.replace(rlc.simulator, shifts={"long": Shift("long", horizon=2.0)})
    long = later.under("long").draw([0], 0)
    assert torch.equal(long.u[0], rlc.voltage(long.t))


def test_refusals_of_grids_and_inputs():
    field, driven = reaction_diffusion.simulator, rlc.simulator
    with pytest.raises(ShapeError, match=r"the truth has space=2 but the grid has the axes \(\)"):
        dataclasses.replace(field, grid={})
    with pytest.raises(ShapeError, match=r"grid axis 'x' has shape \(2, 2\)"):
        dataclasses.replace(field, grid={**field.grid, "x": np.zeros((2, 2))})
    with pytest.raises(ParameterError, match=r"declares the inputs \('V',\), but inputs= is None"):
        dataclasses.replace(driven, inputs=None)
    with pytest.raises(
        ParameterError, match=r"declares the inputs \(\), but inputs= is <function"
    ):
        dataclasses.replace(SIMULATOR, inputs=rlc.voltage)
    with pytest.raises(
        ShapeError, match=r"returned shape \(201,\) for 201 times; return \(T, U\)"
    ):
        dataclasses.replace(driven, inputs=torch.sin)
    other = dataclasses.replace(driven.expert, inputs=(State("V", "mV"),))
    with pytest.raises(ParameterError, match="declare the same inputs"):
        dataclasses.replace(driven, expert=other)


def test_refusals():
    with pytest.raises(ShiftError, match=r"no shift 'fr'; did you mean 'far'"):
        SIMULATOR.sample(1, seed=0, shift="fr")
    too_far = Shift("x", {"omega0": (0.1, 0.4)})
    with pytest.raises(
        ShiftError, match=r"shift 'x' has omega0 in \[0.1, 0.4\] rad/s, but its valid"
    ):
        SIMULATOR.sample(1, seed=0, shift=too_far)
    with pytest.raises(ShiftError, match="the training support has omega0"):
        dataclasses.replace(SIMULATOR, support={**SIMULATOR.support, "omega0": (0.0, 1.0)})
    with pytest.raises(ParameterError, match="support has 'omga'"):
        dataclasses.replace(SIMULATOR, support={**SIMULATOR.support, "omga": (0.0, 1.0)})
    support = {k: v for k, v in SIMULATOR.support.items() if k != "theta"}
    with pytest.raises(ParameterError, match="support lacks 'theta'"):
        dataclasses.replace(SIMULATOR, support=support)
    stranger = ODEExpert(pendulum.undamped, pendulum.truth.states, (Param("w", "1", 0, 1),))
    with pytest.raises(ParameterError, match="'w' is none of the truth's"):
        dataclasses.replace(SIMULATOR, expert=stranger)


def test_batches_check_their_shapes():
    with pytest.raises(DataError, match="times have shape"):
        Batch(t=torch.zeros(4), y=torch.zeros(2, 3, 1))
    with pytest.raises(DataError, match="z_e has 3 members but y has 2"):
        Batch(t=torch.zeros(3), y=torch.zeros(2, 3, 1), z_e=torch.zeros(3, 1))


def test_noise_refuses_nonsense_and_is_estimated():
    with pytest.raises(ParameterError, match="noise sd is -1"):
        GaussianNoise(-1.0)
    y = torch.from_numpy(SIMULATOR.sample(200, seed=0)["y"].values)
    assert torch.allclose(estimate_sd(y), torch.tensor([0.01, 0.01], dtype=y.dtype), rtol=0.05)
    with pytest.raises(DataError, match="at least 5 times"):
        estimate_sd(y[:, :4])
