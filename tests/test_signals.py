"""Inputs between their samples: exact for cubics, fourth order, one per member."""

import pytest
import torch

from hybridgen.errors import DataError, ShapeError
from hybridgen.signals import Held, spline


def test_cubics_are_exact():
    t = torch.tensor([0.0, 0.4, 1.0, 1.1, 2.0])
    u = (t**3 - 2 * t)[None, :, None]
    signal = spline(t, u)
    for x in (0.1, 0.4, 1.05, 1.9, 2.0):
        assert torch.allclose(signal(torch.tensor(x)), torch.full((1, 1), x**3 - 2 * x))


@pytest.mark.parametrize("own", [False, True])
def test_error_falls_with_the_fourth_power(own):
    errors = []
    for n in (61, 121):
        t = torch.linspace(0, 3, n)
        signal = spline(t.expand(2, -1) if own else t, (2 * t).sin().expand(2, -1)[..., None])
        x = torch.linspace(0.05, 2.95, 97)
        values = torch.stack([signal(v)[0, 0] for v in x])
        errors.append(float((values - (2 * x).sin()).abs().max()))
    assert 14 < errors[0] / errors[1] < 40


def test_each_member_has_its_own_time():
    t = torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]])
    signal = spline(t, 3 * t[..., None])
    assert torch.allclose(signal(torch.tensor([1.5, 3.0]))[:, 0], torch.tensor([4.5, 9.0]))


def test_held_inputs_do_not_move():
    values = torch.ones(2, 3, 1)
    assert Held(values)(torch.tensor(5.0)) is values


def test_faults_are_sentences():
    with pytest.raises(ShapeError, match=r"expected \(T,\) or \(B, T\)"):
        spline(torch.arange(3.0), torch.zeros(2, 4, 1))
    with pytest.raises(DataError, match="at least two times"):
        spline(torch.zeros(1), torch.zeros(2, 1, 1))
