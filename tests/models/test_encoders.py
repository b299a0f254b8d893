"""Encoders read what they are said to read."""

import pytest
import torch

from hybridgen import rng
from hybridgen.models import Convolutional
from hybridgen.models.encoders import FieldEncoder


@pytest.fixture
def encoder():
    """An encoder of one field whose two stencils are the pixel itself and its change."""
    with rng.scoped(0):
        encoder = FieldEncoder(1, 0, 1, 2, Convolutional(width=2, bins=1, hidden=4))
    with torch.no_grad():
        encoder.stencils.weight.zero_()
        encoder.stencils.bias.zero_()
        encoder.stencils.weight[0, 0, 1, 1] = encoder.stencils.weight[1, 1, 1, 1] = 1.0
    encoder.heads = torch.nn.Identity()
    return encoder


def read(encoder, values, mask):
    steps = torch.ones(values.shape[:2])
    return encoder(values, mask, steps, torch.zeros(len(values), 0))[0]


def test_a_field_is_read_by_the_moments_of_its_inside(encoder):
    values = torch.randn(3, 2, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    found = read(encoder, values, torch.ones_like(values))
    for member, (before, after) in zip(found, values[:, :, 0, 1:-1, 1:-1], strict=True):
        pair = torch.stack([before, after - before]).flatten(1)
        covariance = torch.cov(pair, correction=0)
        assert torch.allclose(member[:2], pair.mean(1))
        assert torch.allclose(member[2:4], covariance.diagonal().log(), atol=1e-6)
        assert torch.allclose(member[4], torch.corrcoef(pair)[0, 1], atol=1e-6)


def test_stencils_that_saw_a_gap_are_left_out(encoder):
    values = torch.randn(1, 2, 1, 12, 10, generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(values)
    mask[0, 1, 0, :7] = 0
    found = read(encoder, values, mask)
    below = values[:, :, :, 7:]
    assert torch.allclose(found, read(encoder, below, torch.ones_like(below)))
