"""Spectra of dyes: closed forms, limits, supports, and what the data sets say."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import xarray as xr
from hybridgen.simulators import beer_lambert, pendulum
from hybridgen.simulators.beer_lambert import BANDS, absorptivity, expert, variants

from hybridgen.batch import Sampler
from hybridgen.errors import ParameterError, ShiftError
from hybridgen.expert import Expert
from hybridgen.io import to_batch
from hybridgen.params import State
from hybridgen.testing import check_expert

AXIS = torch.linspace(400, 700, 101)
each = pytest.mark.parametrize("variant", list(variants))


def test_contributions_add_up_and_are_gaussian_bands():
    one = expert(AXIS, torch.tensor([[0.02, 0.0, 0.0]]))[0, :, 0]
    two = expert(AXIS, torch.tensor([[0.0, 0.03, 0.01]]))[0, :, 0]
    both = expert(AXIS, torch.tensor([[0.02, 0.03, 0.01]]))[0, :, 0]
    assert torch.allclose(one + two, both)
    by_hand = sum(h * math.exp(-(((504.0 - c) / w) ** 2) / 2) for h, c, w in BANDS["red"])
    assert float(absorptivity("red", torch.tensor(504.0))) == pytest.approx(by_hand)


def test_without_a_baseline_or_stray_light_the_truth_is_the_expert():
    z_e = torch.tensor([[0.02, 0.01, 0.03], [0.1, 0.1, 0.1]])
    y = expert(AXIS, z_e)
    for simulator in variants.values():
        assert torch.allclose(simulator.truth(AXIS, torch.cat([z_e, torch.zeros(2, 1)], -1)), y)


def test_scattering_falls_with_the_fourth_power():
    z = torch.tensor([[0.01, 0.01, 0.01, 0.2]])
    lost = (variants["scattering"].truth(AXIS, z) - expert(AXIS, z[:, :3]))[0, :, 0]
    at = torch.tensor([500.0])
    here = variants["scattering"].truth(at, z) - expert(at, z[:, :3])
    assert float(here) == pytest.approx(0.2)
    slope = (lost[-1] / lost[0]).log() / (AXIS[-1] / AXIS[0]).log()
    assert float(slope) == pytest.approx(-4.0)


def test_stray_light_saturates():
    s = 0.02
    truth, at = variants["stray_light"].truth, torch.tensor([504.0])
    thick = truth(at, torch.tensor([[0.0, 10.0, 0.0, s]]))
    assert float(thick) == pytest.approx(math.log10((1 + s) / s))
    thin = truth(at, torch.tensor([[0.0, 1e-6, 0.0, s]]))
    law = expert(at, torch.tensor([[0.0, 1e-6, 0.0]]))
    assert float(thin) / float(law) == pytest.approx(1 / (1 + s), rel=1e-4)


def test_the_dyes_can_be_told_apart():
    """Least squares on the bands finds the concentrations of noisy spectra without a baseline."""
    clear = {**beer_lambert.simulator.support, "k": (0.0, 0.0)}
    data = dataclasses.replace(beer_lambert.simulator, support=clear).sample(50, seed=0)
    design = torch.stack([absorptivity(dye, AXIS) for dye in BANDS], -1).numpy()
    found = np.linalg.lstsq(design, data["y"].values[..., 0].T, rcond=None)[0].T
    truth = np.stack([data[dye] for dye in BANDS], -1)
    sd = 0.002 * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    assert abs(((found - truth) / sd).std() - 1) < 0.15


@each
def test_a_simulator_like_any_other(variant):
    simulator = variants[variant]
    assert isinstance(simulator, Sampler)
    data = simulator.sample(60, seed=1)
    assert dict(data["y"].sizes) == {"sample": 60, "time": 101, "state": 1}
    assert data["time"].attrs["units"] == "nm"
    assert data["state"].values.tolist() == ["absorbance"]
    assert data["yellow"].attrs == {"units": "mmol/L", "role": "z_e"}
    extra = "k" if variant == "scattering" else "s"
    assert data[extra].attrs["role"] == "z_a"
    assert data.attrs["problem"] == "beer_lambert"
    assert data.attrs["variant"] == variant
    assert data.attrs["window"] == 101
    assert (data["status"] == 0).all()
    assert (data["t_reached"] == 700.0).all()
    assert abs(float((data["y"] - data["clean"]).std()) / 0.002 - 1) < 0.05
    xr.testing.assert_identical(data.isel(sample=slice(4)), simulator.sample(4, seed=1))
    batch = to_batch(data, simulator.expert)
    assert batch.z_e.shape == (60, 3)
    assert batch.u is None
    clean = simulator.truth(batch.t, torch.cat([batch.z_e, batch.z_a], -1))
    assert torch.allclose(clean, batch.clean)


@each
@pytest.mark.parametrize("shift", ["ood", "near", "far", "joint_large"])
def test_shifts_leave_the_training_support(variant, shift):
    simulator = variants[variant]
    data = simulator.sample(50, seed=0, split="test", shift=shift)
    assert (data["distance"] > 0).all()
    assert (data["red"] >= 0.03).all()
    expected = max((float(data[d].max()) - 0.03) / 0.025 for d in BANDS)
    if not shift.startswith("joint"):
        assert float(data["distance"].max()) == pytest.approx(expected)


def test_experts_pass_their_checks():
    for e in (expert, *(s.truth for s in variants.values())):
        assert check_expert(e).passed, str(check_expert(e))


def test_what_does_not_go_together_is_refused():
    simulator = beer_lambert.simulator
    with pytest.raises(ParameterError, match="the truth is an Expert, the expert an ODEExpert"):
        dataclasses.replace(simulator, expert=pendulum.expert)
    other = dataclasses.replace(expert, axis=State("wavenumber", "1/cm"))
    with pytest.raises(ParameterError, match="declare the same"):
        dataclasses.replace(simulator, expert=other)
    support = {**simulator.support, "absorbance": (0.0, 1.0)}
    with pytest.raises(ParameterError, match="support has 'absorbance'"):
        dataclasses.replace(simulator, support=support)
    with pytest.raises(ShiftError, match="no shift 'farr'; did you mean 'far'"):
        simulator.sample(2, seed=0, shift="farr")


def test_a_response_that_is_not_finite_has_a_status():
    def rooted(x, z):
        return (x.s - z.a).sqrt()

    a = dataclasses.replace(beer_lambert.variants["scattering"].truth.params[0], name="a")
    broken = Expert(rooted, (State("s", "nm"),), (State("y", "1"),), (a,))
    simulator = dataclasses.replace(
        beer_lambert.simulator,
        truth=broken,
        expert=broken,
        support={"a": (0.005, 0.1)},
        shifts={},
        times=np.array([0.05, 0.2]),
    )
    data = simulator.sample(40, seed=0)
    bad = data["a"] > 0.05
    assert 0 < int(bad.sum()) < 40
    assert ((data["status"] == 4) == bad).all()
    assert (np.isnan(data["t_reached"]) == bad).all()
