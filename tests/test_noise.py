"""Noise: additive on the scale of its link, by index, refused where it cannot be."""

import pytest
import torch

from hybridgen.errors import DataError, ParameterError
from hybridgen.noise import GaussianNoise, LogNormalNoise, estimate_sd


@pytest.mark.parametrize("noise", [GaussianNoise(0.2), LogNormalNoise(0.2)])
def test_noise_has_its_scale_on_the_link(noise):
    y = torch.full((400, 50, 2), 3.0)
    noisy = noise.add(y, root_seed=0, stream="n", indices=range(400))
    error = noise.link(noisy) - noise.link(y)
    assert abs(float(error.std()) - 0.2) < 0.005
    assert abs(float(error.mean())) < 0.005


def test_a_members_noise_depends_on_its_index_alone():
    y = torch.ones(6, 5, 1)
    noise = LogNormalNoise(0.3)
    every = noise.add(y, root_seed=1, stream="n", indices=range(6))
    some = noise.add(y[2:4], root_seed=1, stream="n", indices=[2, 3])
    assert torch.equal(every[2:4], some)


def test_scales_by_state_and_factor():
    noise = GaussianNoise((0.1, 0.0)).scaled(2.0)
    assert noise.sd == (0.2, 0.0)
    y = torch.zeros(3, 4, 2)
    assert (noise.add(y, root_seed=0, stream="n", indices=range(3))[..., 1] == 0).all()


def test_the_logarithm_goes_on_below_its_floor():
    noise = LogNormalNoise(floor=0.1)
    y = torch.tensor([0.2, 0.1, 0.0, -1.0], requires_grad=True)
    g = noise.link(y)
    assert torch.allclose(g[:2], y[:2].log())
    (slope,) = torch.autograd.grad(g.sum(), y)
    assert torch.allclose(slope, torch.tensor([5.0, 10.0, 10.0, 10.0]))


def test_states_below_the_floor_keep_their_size():
    y = torch.full((1, 3, 1), 1e-6)
    noisy = LogNormalNoise(0.1).add(y, root_seed=0, stream="n", indices=[0])
    assert ((noisy / y - 1).abs() < 0.5).all()


def test_faults_are_sentences():
    with pytest.raises(ParameterError, match="noise sd is -1"):
        GaussianNoise(-1.0)
    with pytest.raises(ParameterError, match="is to be learned"):
        GaussianNoise().add(torch.zeros(1, 2, 1), root_seed=0, stream="n", indices=[0])
    with pytest.raises(DataError, match=r"needs values above 0\.001, but the data hold -2"):
        LogNormalNoise().check(torch.tensor([1.0, torch.nan, -2.0]))


def test_roughness_passes_over_missing_values():
    g = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 5, 200)
    y = t.sin()[None, :, None] + 0.05 * torch.randn(30, 200, 1, generator=g)
    y[:, ::17] = torch.nan
    assert abs(float(estimate_sd(y)) - 0.05) < 0.01
