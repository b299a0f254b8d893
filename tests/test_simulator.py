"""Simulators: prefix property, supports, distances, units, refusals."""

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from hybridgen.simulators import pendulum

from hybridgen.batch import Batch, Sampler
from hybridgen.errors import DataError, ParameterError, ShiftError
from hybridgen.expert import ODEExpert
from hybridgen.noise import GaussianNoise, estimate_sd
from hybridgen.params import Param
from hybridgen.shift import Shift

SIMULATOR = pendulum.simulator


def test_is_a_sampler():
    assert isinstance(SIMULATOR, Sampler)


def test_prefix_property():
    many, few = SIMULATOR.sample(70, seed=3), SIMULATOR.sample(5, seed=3)
    xr.testing.assert_identical(many.isel(sample=slice(5)), few)


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
