"""Hares and lynxes: the conserved quantity, fixed points, and the limits of what is missing."""

import math

import numpy as np
import pytest
import torch
from hybridgen.simulators import lotka_volterra as lv

from hybridgen.integrate import solve

DOUBLE = torch.float64
Z_E = torch.tensor(
    [[0.55, 0.028, 0.024, 0.80], [0.3, 0.06, 0.01, 0.4], [1.4, 0.02, 0.03, 1.4]], dtype=DOUBLE
)
ALPHA, BETA, DELTA, GAMMA = Z_E.unbind(-1)
YEARS = torch.linspace(0, 20, 81, dtype=DOUBLE)


def pairs(*values):
    return torch.tensor(values, dtype=DOUBLE)


def truth(variant, *extra):
    z = pairs(*extra).expand(len(Z_E), len(extra))
    return lv.variants[variant].truth, torch.cat([Z_E, z], -1)


def test_the_expert_conserves_its_first_integral():
    start = pairs([30.0, 4.0], [30.0, 8.0], [60.0, 60.0])
    hare, lynx = solve(lv.expert, start, YEARS, Z_E, rtol=1e-10, atol=1e-10).y.unbind(-1)
    a, b, d, g = (c[:, None] for c in (ALPHA, BETA, DELTA, GAMMA))
    v = d * hare - g * hare.log() + b * lynx - a * lynx.log()
    assert (v / v[:, :1] - 1).abs().max() < 1e-6
    assert (hare.amax(1) > 1.5 * hare.amin(1)).all()


def test_the_expert_rests_at_its_fixed_point():
    start = torch.stack([GAMMA / DELTA, ALPHA / BETA], -1)
    assert lv.expert(0.0, start, Z_E).abs().max() < 1e-12


def test_small_cycles_have_the_period_of_the_linear_law():
    rest = torch.stack([GAMMA / DELTA, ALPHA / BETA], -1)
    start = rest * pairs(1.001, 1.0)
    for i, period in enumerate(2 * math.pi / (ALPHA * GAMMA).sqrt()):
        t = torch.stack([torch.zeros_like(period), period / 2, period])
        y = solve(lv.expert, start[i : i + 1], t, Z_E[i : i + 1], rtol=1e-10, atol=1e-12).y[0]
        away = (y - rest[i]) / rest[i] / 0.001
        assert away[1, 0] == pytest.approx(-1, abs=5e-3)
        assert away[2, 0] == pytest.approx(1, abs=5e-3)


def test_hares_alone_grow_logistically():
    field, z = truth("logistic", 0.004)
    capacity, start = ALPHA / 0.004, 10.0
    y = solve(field, pairs([start, 0.0]).expand(3, 2), YEARS, z, rtol=1e-9).y
    grown = torch.exp(ALPHA[:, None] * YEARS)
    exact = capacity[:, None] * start * grown / (capacity[:, None] + start * (grown - 1))
    assert (y[..., 0] / exact - 1).abs().max() < 1e-6
    assert (y[..., 1] == 0).all()


def test_competition_moves_the_fixed_point_of_the_lynxes():
    field, z = truth("logistic", 0.004)
    hare = GAMMA / DELTA
    rest = torch.stack([hare, (ALPHA - 0.004 * hare) / BETA], -1)
    assert field(0.0, rest, z).abs().max() < 1e-12


def test_what_is_missing_vanishes():
    y = 100 * torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    expert = lv.expert(0.0, y, Z_E)
    for variant, zeros in (("logistic", (0.0,)), ("holling", (0.0, 0.0))):
        field, z = truth(variant, *zeros)
        assert torch.allclose(field(0.0, y, z), expert, rtol=1e-12)
    logistic, z = truth("logistic", 0.004)
    holling, z_h = truth("holling", 0.004, 0.0)
    assert torch.allclose(logistic(0.0, y, z), holling(0.0, y, z_h), rtol=1e-12)


def test_sated_lynxes_eat_no_more_than_their_handling_allows():
    field, z = truth("holling", 0.0, 0.01)
    y = pairs([1e6, 2.0]).expand(3, 2)
    eaten = ALPHA * 1e6 - field(0.0, y, z)[:, 0]
    assert torch.allclose(eaten, BETA * 2.0 / 0.01, rtol=1e-3)


@pytest.mark.parametrize("variant", lv.variants)
def test_states_and_data_stay_positive(variant):
    for shift in (None, "far", "joint_large"):
        data = lv.variants[variant].sample(100, seed=0, shift=shift)
        assert (data["clean"] > 0).all()
        assert (data["y"] > 0).all()
        assert (data["status"] <= 1).all()


def test_noise_multiplies():
    data = lv.simulator.sample(300, seed=0)
    ratio = np.log(data["y"] / data["clean"]).values
    assert abs(ratio.std() - 0.1) < 2e-3
    assert abs(ratio.mean()) < 2e-3


def test_negative_states_are_read_as_zero():
    y = pairs([-1.0, 5.0], [5.0, -1.0], [-1.0, -1.0])
    assert torch.equal(lv.expert(0.0, y, Z_E), lv.expert(0.0, y.clamp_min(0.0), Z_E))
    assert (lv.expert(0.0, y, Z_E)[2] == 0).all()
