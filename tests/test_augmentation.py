"""The augmented population: wider parameters, exact labels, one member by index alone."""

import math

import numpy as np
import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen.augmentation import expert_augment
from hybridgen.batch import Sampler
from hybridgen.errors import ParameterError, ShiftError, UnsupportedError
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Convolutional, Latents, NeuralODE, Residual
from hybridgen.noise import GaussianNoise

SMALL = Convolutional(width=4, hidden=16)


@pytest.fixture(scope="module")
def data():
    return pendulum.simulator.sample(30, seed=0)


@pytest.fixture(scope="module")
def model(data):
    model = APHYNITY(pendulum.expert, residual=Residual(hidden=(8,)), encoder=SMALL)
    model.bind(to_batch(data).to(model.state_sd), window=50)
    return model


def test_is_a_sampler_with_the_prefix_property(model, data):
    augmenter = expert_augment(model, data)
    assert isinstance(augmenter, Sampler)
    many, few = (augmenter.draw(np.arange(n), root_seed=5) for n in (90, 4))
    assert torch.equal(many.z_e[:4], few.z_e)
    assert torch.equal(many.z_a[:4], few.z_a)
    # matrix products of other sizes round differently
    assert torch.allclose(many.y[:4], few.y, rtol=0, atol=1e-12)


def test_parameters_cover_the_range_and_are_labels(model, data):
    batch = expert_augment(model, data, {"omega0": (0.6, 0.9)}).draw(np.arange(200), 0)
    assert 0.6 <= batch.z_e.min() < 0.62
    assert 0.88 < batch.z_e.max() <= 0.9
    default = expert_augment(model, data).draw(np.arange(200), 0)
    assert default.z_e.min() < 0.6
    assert default.z_e.max() > 3.4


def test_trajectories_are_the_hybrids_own(model, data):
    batch = expert_augment(model, data, noise=GaussianNoise(0.0)).draw(np.arange(5), 0)
    again = model.rollout(batch.x, batch.t, Latents(batch.z_e, batch.z_a))
    assert torch.allclose(again.y, batch.y, atol=1e-4)
    assert torch.equal(batch.y, batch.clean)


def test_latents_are_drawn_wider_than_their_encodings(model, data):
    spread = {
        s: expert_augment(model, data, spread=s).draw(np.arange(400), 0).z_a.std()
        for s in (1.0, 2.0)
    }
    assert math.isclose(spread[2.0] / spread[1.0], 2.0, rel_tol=1e-6)


def test_noise_is_estimated_from_the_data(model, data):
    noise = expert_augment(model, data).noise
    assert np.allclose(noise.sd, 0.01, rtol=0.15)


def test_sample_is_described(model, data):
    sample = expert_augment(model, data, {"omega0": (0.5, 1.0)}).sample(3, seed=0)
    assert sample["omega0"].attrs == {"units": "rad/s", "role": "z_e"}
    assert sample.attrs["range_omega0"] == "[0.5, 1.0]"
    assert sample["z_a_0"].attrs["role"] == "z_a"


def test_the_population_does_not_change_with_the_model(model, data):
    import copy

    student = copy.deepcopy(model)
    augmenter = expert_augment(student, data)
    before = augmenter.draw(np.arange(3), 0).y
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    assert torch.equal(before, augmenter.draw(np.arange(3), 0).y)


@pytest.mark.parametrize(
    ("ranges", "error", "message"),
    [
        ({"omega": (1, 2)}, ParameterError, "ranges has 'omega'; did you mean 'omega0'"),
        ({"omega0": (0.1, 2.0)}, ParameterError, r"\[0.1, 2\] rad/s, but the expert is valid in"),
        ({"omega0": (2.0, 1.0)}, ShiftError, "empty interval"),
    ],
)
def test_refusals(model, data, ranges, error, message):
    with pytest.raises(error, match=message):
        expert_augment(model, data, ranges)


def test_a_network_without_expert_cannot_be_augmented(data):
    with pytest.raises(UnsupportedError, match="needs a model with an expert"):
        expert_augment(NeuralODE(pendulum.expert.states, encoder=SMALL), data)
