"""The weak form vanishes on solutions, sees errors of the field, and averages noise."""

import pytest
import torch

from hybridgen.errors import DataError
from hybridgen.models.weak import bumps, equation_error


def solution(t):
    return torch.stack([t.sin(), t.cos()], dim=-1)[None], torch.stack([t.cos(), -t.sin()], -1)[
        None
    ]


@pytest.mark.parametrize("points", [13, 50, 101])
def test_vanishes_on_a_solution(points):
    t = torch.linspace(0.0, 0.05 * (points - 1), points)
    y, dy = solution(t)
    error = equation_error(*bumps(t), y, dy).abs().max()
    assert error < 3e-3 * dy.abs().max()


def test_sees_a_wrong_field_at_its_size():
    t = torch.linspace(0, 5, 51)
    y, dy = solution(t)
    phi, dphi = bumps(t)
    wrong = equation_error(phi, dphi, y, dy + 0.1)
    assert torch.allclose(wrong, 0.1 * phi.sum(1)[None, :, None].expand_as(wrong), atol=5e-3)


def test_irregular_times_are_refused():
    jitter = 0.02 * torch.rand(80, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match="needs equal time steps"):
        bumps(torch.linspace(0, 5, 80) + jitter)


def test_weights_have_unit_norm():
    phi, dphi = bumps(torch.linspace(0, 5, 51))
    assert torch.allclose(phi.norm(dim=1), torch.ones(len(phi)))
    # a constant state has no rate: the weights of y sum to zero
    assert dphi.sum(1).abs().max() < 1e-9


def test_too_few_times():
    with pytest.raises(DataError, match="at least 13 observed times, got 8"):
        bumps(torch.linspace(0, 1, 8))
