"""S0.7.10: reaction and diffusion have their discrete modes and their limits."""

import dataclasses
import math

import numpy as np
import torch
from hybridgen.simulators import reaction_diffusion as rd

from hybridgen.integrate import solve

N = 32
DOUBLE = torch.float64


def plane_wave(ky, kx):
    x = torch.arange(N, dtype=DOUBLE)
    return torch.cos(2 * math.pi * (ky * x[:, None] + kx * x) / N)


def test_s0_7_10_diffusion_decays_at_the_discrete_rate():
    z = torch.tensor([[1e-3, 1e-2], [4e-3, 1e-3]], dtype=DOUBLE)
    start = torch.stack([plane_wave(1, 2), plane_wave(0, 16)])
    t = torch.linspace(0, 5, 6, dtype=DOUBLE)
    y = solve(rd.expert, start.expand(2, 2, N, N), t, z, rtol=1e-8, atol=1e-10).y
    rates = [
        4 / rd.SPACING**2 * (math.sin(math.pi * ky / N) ** 2 + math.sin(math.pi * kx / N) ** 2)
        for ky, kx in ((1, 2), (0, 16))
    ]
    decay = torch.exp(-t[:, None] * (z * torch.tensor(rates, dtype=DOUBLE))[:, None])
    assert (y - decay[..., None, None] * start).abs().max() < 1e-5
    assert (y.mean((-2, -1)) - start.mean((-2, -1))).abs().max() < 1e-12  # nothing leaves


def test_uniform_fields_follow_the_ordinary_equation():
    z = torch.tensor([[2e-3, 5e-3, 0.05], [1e-3, 3e-3, 0.0]], dtype=DOUBLE)
    start = torch.tensor([[0.8, 0.2], [0.1, 0.9]], dtype=DOUBLE)

    def ordinary(t, y, k):
        u, v = y.unbind(-1)
        return torch.stack([u - u**3 - k - v, u - v], dim=-1)

    t = torch.linspace(0, 5, 11, dtype=DOUBLE)
    exact = solve(ordinary, start, t, z[:, 2], rtol=1e-8, atol=1e-10).y
    fields = start[..., None, None].expand(2, 2, N, N)
    y = solve(rd.truth, fields, t, z, rtol=1e-8, atol=1e-10).y
    assert (y - exact[..., None, None]).abs().max() < 1e-6


def test_s0_7_10_batch_over_parameters():
    batch = rd.simulator.draw(np.arange(3), 0)
    y, z = batch.y[:, 0], torch.cat([batch.z_e, batch.z_a], -1)
    rates = rd.truth(0.0, y, z)
    assert rates.shape == y.shape
    for i in range(3):
        assert torch.allclose(rates[i], rd.truth(0.0, y[i], z[i]), atol=1e-14)
    assert not torch.allclose(rates[0], rd.truth(0.0, y[0], z[1]))


def test_released_expert_lacks_a_constant_only():
    batch = rd.variants["released"].draw(np.arange(2), 0)
    y, z = batch.y[:, 0], torch.cat([batch.z_e, batch.z_a], -1)
    lacking = rd.truth(0.0, y, z) - rd.variants["released"].expert(0.0, y, batch.z_e)
    expected = torch.stack([-batch.z_a[:, 0], torch.zeros(2, dtype=DOUBLE)], -1)[..., None, None]
    assert torch.allclose(lacking, expected.expand_as(lacking), atol=1e-12)
    lacking = rd.truth(0.0, y, z) - rd.expert(0.0, y, batch.z_e)
    u, v = y.unbind(1)
    assert torch.allclose(lacking[:, 1], u - v, atol=1e-12)


def test_each_point_starts_at_random():
    short = dataclasses.replace(rd.simulator, times=rd.simulator.times[:2])
    start = short.draw(np.arange(40), 0).y[:, 0]
    assert start.shape == (40, 2, N, N)
    assert start.min() >= 0
    assert start.max() <= 1
    assert abs(start.mean() - 0.5) < 0.005
    assert abs(start.var() - 1 / 12) < 0.001
    neighbours = torch.corrcoef(torch.stack([start[..., 1:].flatten(), start[..., :-1].flatten()]))
    assert abs(neighbours[0, 1]) < 0.02
    fields = torch.corrcoef(start.transpose(0, 1).flatten(1))
    assert abs(fields[0, 1]) < 0.02


def test_tolerance_of_the_simulation():
    loose = rd.simulator.draw(np.arange(4), 0).y
    tight = dataclasses.replace(rd.simulator, rtol=1e-10, atol=1e-12).draw(np.arange(4), 0).y
    assert (loose - tight).abs().max() < 1e-6
    assert loose.min() > -0.8
    assert loose.max() <= 1


def test_s0_7_13_joint_shifts_leave_the_support_of_both():
    support = rd.simulator.support
    assert support["k"] == (3e-3, 5e-3)
    assert rd.simulator.shifts["joint_small"].support["k"] == (5e-3, 8e-3)
    for name in ("joint_small", "joint_medium", "joint_large"):
        moved = rd.simulator.shifts[name].support
        assert moved["k"][0] >= support["k"][1]
        assert moved["a"][0] >= support["a"][1]
