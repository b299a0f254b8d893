"""S0.7.9: the series RLC circuit has its eigenvalues, its impedance, and gives no energy."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from hybridgen.simulators import rlc

from hybridgen.integrate import solve

GAMMA = {
    "textbook": lambda L, C, R: R / L,
    "thesis": lambda L, C, R: R / C,
    "released": lambda L, C, R: R / (C * L),
}
variant = pytest.mark.parametrize("variant", rlc.variants)


def silent(t):
    return torch.zeros(len(t), 1, dtype=t.dtype)


def fixed(variant, times, inputs=rlc.voltage, **values):
    """The simulator of one circuit."""
    simulator = rlc.variants[variant]
    support = {**simulator.support, **{k: (v, v) for k, v in values.items()}}
    return dataclasses.replace(simulator, support=support, times=times, inputs=inputs)


@variant
@pytest.mark.parametrize("values", [(2.0, 0.8, 1.5), (1.0, 2.5, 8.0), (4.0, 1.2, 0.3)])
def test_s0_7_9_eigenvalues(variant, values):
    L, C, R = values
    data = fixed(variant, np.linspace(0, 4, 41), silent, L=L, C=C, R=R, I=1.0).sample(8, seed=0)
    y = data["clean"].values
    before, after = y[:, :-1].reshape(-1, 2), y[:, 1:].reshape(-1, 2)
    step = np.linalg.lstsq(before, after, rcond=None)[0]
    found = np.sort_complex(np.log(np.linalg.eigvals(step).astype(complex)) / 0.1)
    gamma = GAMMA[variant](L, C, R)
    root = np.sqrt(complex(gamma**2 / 4 - 1 / (L * C)))
    assert np.abs(found - np.sort_complex([-gamma / 2 - root, -gamma / 2 + root])).max() < 1e-4


def test_s0_7_9_published_forms_differ():
    """The slowest decay of the variants for L = 2 H, C = 0.8 F and R = 1.5 ohm."""
    slowest = {}
    for name, simulator in rlc.variants.items():
        z = torch.tensor([[2.0, 0.8, 1.5]])
        system = functools.partial(simulator.truth, 0.0, z_e=z, u=torch.zeros(1, 1))
        matrix = torch.cat([system(row[None]) for row in torch.eye(2)]).T
        slowest[name] = float(torch.linalg.eigvals(matrix).real.max())
    assert slowest == pytest.approx(
        {"textbook": -0.375, "thesis": -0.434, "released": -0.469}, abs=5e-4
    )


@variant
def test_s0_7_9_steady_state_amplitude(variant):
    values = {"L": 2.0, "C": 0.7, "R": 2.5}
    data = fixed(variant, np.linspace(0, 60, 601), **values).sample(2, seed=0)
    late = data["clean"].sel(time=slice(40, 60))
    t = late["time"].values
    waves = np.stack([np.ones_like(t), np.sin(2 * t), np.cos(2 * t)], axis=1)
    fitted = np.linalg.lstsq(waves, late.sel(state="I").values.T, rcond=None)[0]
    resistance = GAMMA[variant](**values) * values["L"]
    impedance = abs(resistance + 1j * (2 * values["L"] - 1 / (2 * values["C"])))
    assert np.hypot(fitted[1], fitted[2]) == pytest.approx(2.5 / impedance, rel=1e-3)
    assert np.abs(fitted[0]).max() < 1e-3  # no current through a capacitor in the mean
    fitted = np.linalg.lstsq(waves, late.sel(state="U").values.T, rcond=None)[0]
    assert fitted[0] == pytest.approx(1.0, rel=1e-3)


@variant
def test_s0_7_9_passivity(variant):
    simulator = dataclasses.replace(rlc.variants[variant], inputs=silent)
    data = simulator.sample(50, seed=0)
    capacitor, current = data["clean"].sel(state="U"), data["clean"].sel(state="I")
    energy = (data["C"] * capacitor**2 + data["L"] * current**2).transpose(
        "sample", ...
    ).values / 2
    assert (np.diff(energy, axis=1) <= 1e-7 * energy[:, :1]).all()
    assert (energy[:, -1] < 0.1 * energy[:, 0]).all()


def test_energy_is_conserved_without_resistor():
    z = torch.tensor([[1.0, 0.5], [3.0, 1.5]], dtype=torch.float64)
    t = torch.linspace(0, 20, 201, dtype=z.dtype)

    def quiet(t, y, z):
        return rlc.expert(t, y, z, y.new_zeros(1))

    start = torch.tensor([[1.0, 0.0]], dtype=z.dtype).expand(2, 2)
    y = solve(quiet, start, t, z, rtol=1e-9, atol=1e-10).y
    energy = z[:, 1, None] * y[..., 0] ** 2 + z[:, 0, None] * y[..., 1] ** 2
    assert (energy / energy[:, :1] - 1).abs().max() < 1e-6


@variant
def test_expert_is_the_truth_without_resistor(variant):
    generator = torch.Generator().manual_seed(0)
    y, z = torch.randn(5, 2, generator=generator), 1 + torch.rand(5, 2, generator=generator)
    u = torch.randn(5, 1, generator=generator)
    whole = rlc.variants[variant].truth(0.0, y, torch.cat([z, torch.zeros(5, 1)], -1), u)
    assert torch.equal(whole, rlc.expert(0.0, y, z, u))


def test_inputs_are_sampled_and_start_has_the_moments_of_the_source():
    batch = rlc.simulator.draw(np.arange(2000), 0)
    assert batch.u.shape == (2000, 201, 1)
    assert torch.allclose(batch.u[7, :, 0], 1 + 2.5 * torch.sin(2 * batch.t))
    start = batch.clean[:, 0]
    assert abs(start[:, 0].mean()) < 0.1
    assert abs(start[:, 0].var() - 1) < 0.05
    assert (start[:, 1] == 0).all()
    assert batch.clean.abs().max() < 3.5
