"""An expert that is no differential equation, from spectra to concentrations, end to end."""

import pytest
import torch
from hybridgen.simulators import beer_lambert

from hybridgen.augmentation import expert_augment
from hybridgen.checkpoint import load_model, save_model
from hybridgen.errors import UnsupportedError
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Convolutional, HybridVAE
from hybridgen.refinement import refine
from hybridgen.train import FitConfig, Stage, fit


@pytest.fixture(scope="module")
def trained():
    """A hybrid VAE of mixture spectra, before and after expert augmentation."""
    sim = beer_lambert.simulator
    train, valid = (sim.sample(n, seed=0, split=s) for n, s in ((300, "train"), (60, "valid")))
    vae = HybridVAE(beer_lambert.expert, decoder="output", encoder=Convolutional(width=16))
    stages = (Stage(objective="elbo", steps=250, batch_size=64),)
    base, _ = fit(vae, train, valid, FitConfig(stages=stages))
    supervised = Stage(objective="supervised", steps=300, learning_rate=2e-3, pool=1000)
    plus, _ = fit(base, expert_augment(base, train), config=FitConfig(stages=(supervised,)))
    return base, plus


def concentrations(model, shift):
    """Return true, amortised and refined concentrations in mmol/L, each `(B, 3)`."""
    test = beer_lambert.simulator.sample(60, seed=0, split="test", shift=shift)
    batch = to_batch(test, model.expert)
    return batch.z_e, model.infer(batch).z_e.double(), refine(model, test).z_e.double()


def test_concentrations_are_found_in_support(trained):
    truth, amortised, _ = concentrations(trained[0], None)
    # dyes and baseline overlap: what the smallest baseline leaves to the dyes is a constant
    assert (amortised - truth).abs().mean() < 0.1 * (0.1 - 0.005)


def test_augmentation_brings_the_encoder_to_least_squares_outside(trained):
    assert trained[1].learner == "hvae+"
    gaps = []
    for model in trained:
        _, amortised, refined = concentrations(model, "ood")
        gaps.append(float((amortised - refined).abs().mean()))
    assert gaps[1] < 0.5 * gaps[0]


def test_the_decoder_is_left_alone(trained):
    base, plus = trained
    for a, b in zip(base.decoder_parameters(), plus.decoder_parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_survives_the_disk(trained, tmp_path):
    model = load_model(save_model(tmp_path / "m", trained[1]))
    assert model.expert == beer_lambert.expert
    batch = to_batch(beer_lambert.simulator.sample(5, seed=0), model.expert)
    assert torch.equal(model.infer(batch).z_e, trained[1].infer(batch).z_e)


def test_aphynity_points_to_the_hybrid_vae():
    with pytest.raises(UnsupportedError, match="use HybridVAE for an expert that is no ODE"):
        APHYNITY(beer_lambert.expert)
