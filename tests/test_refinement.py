"""Refinement is least squares: exact on exact models, with honest uncertainty."""

import numpy as np
import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Convolutional, Inferred
from hybridgen.refinement import Convergence, refine

SMALL = Convolutional(width=2, hidden=4)


@pytest.fixture(scope="module")
def truth():
    """The whole physics as a model without residual, and test pendulums."""
    batch = to_batch(
        pendulum.simulator.sample(60, seed=0, split="test", shift="ood"), pendulum.truth
    )
    model = APHYNITY(pendulum.truth, residual=None, encoder=SMALL)
    model.bind(batch, window=50)
    return model, batch


def start(batch, factor=1.0):
    return Inferred(batch.z_e * factor, batch.y.new_zeros(len(batch), 0), batch.x)


def test_finds_the_parameters_from_a_rough_start(truth):
    model, batch = truth
    found = refine(model, batch, start=start(batch, 1.05))
    swinging = batch.clean[:, 0, 0].abs() > 0.3
    error = ((found.z_e - batch.z_e) / batch.z_e)[swinging, 0].abs()
    assert error.max() < 0.05
    assert error.mean() < 0.01
    assert (found.convergence == Convergence.converged).float().mean() > 0.9


def test_noise_free_data_are_fitted_exactly(truth):
    model, batch = truth
    clean = batch.replace(y=batch.clean)
    found = refine(model, clean, start=start(clean, 1.02), noise=0.01, tolerance=1e-12)
    swinging = clean.y[:, 0, 0].abs() > 0.3
    # what is left is the step of the roll-out grid
    assert (found.z_e - batch.z_e)[swinging].abs().max() < 1e-3


def test_chi2_is_that_of_the_noise(truth):
    model, batch = truth
    found = refine(model, batch, start=start(batch), noise=0.01)
    degrees = 2 * 50 - 4
    assert abs(found.chi2.mean() / degrees - 1) < 0.1


def test_covariance_predicts_the_scatter(truth):
    model, batch = truth
    found = refine(model, batch, start=start(batch), noise=0.01)
    swinging = batch.clean[:, 0, 0].abs() > 0.3
    pull = ((found.z_e - batch.z_e)[:, 0] / found.covariance[:, 0, 0].sqrt())[swinging]
    assert 0.7 < pull.std() < 1.4
    assert pull.mean().abs() < 0.5


def test_members_do_not_depend_on_each_other(truth):
    model, batch = truth
    together = refine(model, batch, start=start(batch), noise=0.01)
    alone = refine(model, batch[:3], start=start(batch[:3]), noise=0.01)
    assert torch.allclose(together.z_e[:3], alone.z_e, rtol=1e-6)


def test_bounds_are_kept_and_told(truth):
    model, batch = truth
    fast = batch.replace(
        y=torch.stack([10 * batch.t.cos(), -10 * batch.t.sin()], -1).expand_as(batch.y)
    )
    found = refine(model, fast, start=start(batch), iterations=8)
    assert (found.z_e <= model.box_high).all()
    assert (found.z_e >= model.box_low).all()
    assert (found.convergence != Convergence.converged).any()


def test_a_member_of_nan_harms_nobody(truth):
    model, batch = truth
    y = batch.y.clone()
    y[1] = torch.nan
    found = refine(model, batch.replace(y=y), start=start(batch), noise=0.01)
    assert found.convergence[1] == Convergence.nonfinite
    clean = refine(model, batch, start=start(batch), noise=0.01)
    others = np.r_[0, 2 : len(batch)]
    assert torch.allclose(found.z_e[others], clean.z_e[others], rtol=1e-6)


def test_masked_values_are_not_looked_at(truth):
    model, batch = truth
    y, mask = batch.y.clone(), torch.ones_like(batch.y, dtype=torch.bool)
    y[:, 10:20, 1], mask[:, 10:20, 1] = 99.0, False
    found = refine(model, batch.replace(y=y, mask=mask), start=start(batch), noise=0.01)
    swinging = batch.clean[:, 0, 0].abs() > 0.3
    assert ((found.z_e - batch.z_e) / batch.z_e)[swinging, 0].abs().max() < 0.03
