"""One system, many trajectories: `GlobalParameters`, the original APHYNITY (row S0.7.2)."""

import math

import numpy as np
import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, GlobalParameters, Latents, Residual
from hybridgen.noise import GaussianNoise
from hybridgen.params import Param
from hybridgen.simulator import Simulator
from hybridgen.train import FitConfig, Stage, fit

OMEGA0, ALPHA = 2.1, 0.35


@pytest.fixture(scope="module")
def runs():
    """Runs of one damped pendulum without noise, and more for validation."""
    support = {
        "omega0": (OMEGA0, OMEGA0),
        "alpha": (ALPHA, ALPHA),
        "theta": (-math.pi / 2, math.pi / 2),
        "omega": (-2.0, 2.0),
    }
    one = Simulator(
        truth=pendulum.truth,
        expert=pendulum.expert,
        support=support,
        times=np.linspace(0.0, 5.0, 51),
        noise=GaussianNoise(0.0),
    )
    return one.sample(25, seed=0), one.sample(10, seed=0, split="valid")


def trained(expert, runs, **settings):
    model = APHYNITY(expert, encoder=GlobalParameters(), residual=Residual(hidden=(32, 32)))
    stage = Stage(batch_size=25, **settings)
    return fit(model, *runs, FitConfig(stages=(stage,), valid_every=50))[0]


@torch.no_grad()
def rates(model, runs):
    """Return states, f_e and f_a along the runs."""
    y = to_batch(runs[0], model.expert).to(model.state_sd).y.flatten(0, 1)
    z_e = model.encode(to_batch(runs[0]).to(model.state_sd)).z_e[:1]
    none = z_e.new_zeros(1, 0)
    return y, model.f_e(torch.zeros(()), y, Latents(z_e, none)), model.f_a(y, none)


def test_s0_7_2_complete_physics_leaves_nothing_to_learn(runs):
    model = trained(pendulum.truth, runs, steps=400)
    z_e = model.infer(to_batch(runs[1]).to(model.state_sd)).z_e[0]
    assert abs(z_e[0] / OMEGA0 - 1) < 0.01
    assert abs(z_e[1] / ALPHA - 1) < 0.01
    _, f_e, f_a = rates(model, runs)
    assert f_a.norm() / f_e.norm() < 1e-2


def test_s0_7_2_what_is_missing_is_found(runs):
    model = trained(pendulum.expert, runs, steps=800)
    z_e = model.infer(to_batch(runs[1]).to(model.state_sd)).z_e[0]
    assert abs(z_e[0] / OMEGA0 - 1) < 0.02
    y, _, f_a = rates(model, runs)
    missing = -ALPHA * y[:, 1]
    r2 = 1 - (f_a[:, 1] - missing).pow(2).sum() / (missing - missing.mean()).pow(2).sum()
    assert r2 > 0.99


def test_all_runs_share_their_parameters(runs):
    model = APHYNITY(pendulum.expert, encoder=GlobalParameters())
    model.bind(to_batch(runs[0]).to(model.state_sd))
    z_e = model.encode(to_batch(runs[0]).to(model.state_sd)).z_e
    assert (z_e == z_e[0]).all()
    assert model.z_a_dim == 0


def test_the_start_is_found_among_many(runs):
    """A misfit with many minima: the start must be the right one before any training."""
    wide = ODEExpert(
        pendulum.damped,
        pendulum.truth.states,
        (Param("omega0", "rad/s", 0.5, 6.0), Param("alpha", "1/s", 0.0, 3.0)),
    )
    model = APHYNITY(wide, encoder=GlobalParameters(), residual=None)
    stage = Stage(steps=1, learning_rate=1e-6)
    model = fit(model, *runs, FitConfig(stages=(stage,)))[0]
    z_e = model.infer(to_batch(runs[1]).to(model.state_sd)).z_e[0]
    assert torch.allclose(z_e, z_e.new_tensor([OMEGA0, ALPHA]), rtol=1e-3)
