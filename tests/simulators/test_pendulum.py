"""S0.7.8: the damped pendulum conserves energy without damping and has its analytic limits."""

import math

import torch
from hybridgen.simulators import pendulum

from hybridgen.integrate import solve


def test_s0_7_8_energy_is_conserved_without_damping():
    omega0 = torch.linspace(0.5, 3.5, 7, dtype=torch.float64)
    z = torch.stack([omega0, torch.zeros_like(omega0)], dim=-1)
    x0 = torch.tensor([1.5, 0.3], dtype=torch.float64).expand(7, 2)
    y = solve(
        pendulum.truth,
        x0,
        torch.linspace(0, 20, 201, dtype=torch.float64),
        z,
        rtol=1e-9,
        atol=1e-10,
    ).y
    energy = 0.5 * y[..., 1] ** 2 + omega0[:, None] ** 2 * (1 - y[..., 0].cos())
    drift = (energy / energy[:, :1] - 1).abs().max()
    assert drift < 1e-6


def test_s0_7_8_small_angle_period():
    z = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    t = torch.tensor([0.0, math.pi], dtype=torch.float64)  # one period of omega0 = 2
    y = solve(pendulum.truth, torch.tensor([[1e-3, 0.0]], dtype=torch.float64), t, z).y
    assert abs(float(y[0, 1, 0]) / 1e-3 - 1) < 1e-3
    assert abs(float(y[0, 1, 1])) < 1e-6


def test_s0_7_8_small_angle_decay():
    omega0, alpha = 2.0, 0.4
    z = torch.tensor([[omega0, alpha]], dtype=torch.float64)
    t = torch.linspace(0, 20, 2001, dtype=torch.float64)
    y = solve(pendulum.truth, torch.tensor([[1e-3, 0.0]], dtype=torch.float64), t, z).y[0, :, 0]
    damped = math.sqrt(omega0**2 - alpha**2 / 4)
    exact = (
        1e-3
        * torch.exp(-alpha * t / 2)
        * (torch.cos(damped * t) + alpha / (2 * damped) * torch.sin(damped * t))
    )
    assert (y - exact).abs().max() < 0.01 * 1e-3


def test_expert_is_the_truth_without_damping():
    y, omega0 = (
        torch.randn(5, 2, generator=torch.Generator().manual_seed(0)),
        torch.full((5, 1), 2.0),
    )
    whole = pendulum.truth(0.0, y, torch.cat([omega0, torch.zeros(5, 1)], -1))
    assert torch.equal(whole, pendulum.expert(0.0, y, omega0))


def test_s0_7_13_training_of_the_z_a_study_lies_outside_every_joint_shift():
    study = pendulum.variants["z_a_study"]
    assert study.support == {**pendulum.simulator.support, "alpha": (0.0, 0.3)}
    for name in ("joint_small", "joint_medium", "joint_large"):
        moved = study.shifts[name].support
        assert moved["alpha"][0] >= 0.3
        assert moved["omega0"] == (0.5, 1.5)
    data = study.sample(100, seed=0, split="test", shift="joint_small")
    assert data.attrs["variant"] == "z_a_study"
    assert data["alpha"].min() > 0.3
    assert (data["distance"] >= (data["alpha"] - 0.3) / 0.3 - 1e-12).all()
