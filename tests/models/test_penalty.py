"""The gauge penalty is the part of f_a that the expert's parameters could take over."""

import torch
from hybridgen.simulators import pendulum

from hybridgen.expert import ODEExpert
from hybridgen.models.penalty import project, reflected, sensitivities
from hybridgen.params import Param, State

LAST, BOTH = torch.tensor([1]), torch.tensor([0, 1])


def generator():
    return torch.Generator().manual_seed(0)


def test_sensitivities_are_derivatives():
    y = torch.randn(3, 2, generator=generator())
    omega0 = torch.tensor([[1.0], [2.0], [3.0]])
    g = sensitivities(pendulum.expert, torch.tensor(0.0), y, omega0)
    expected = torch.stack([torch.zeros(3), -2 * omega0[:, 0] * y[:, 0].sin()], -1)
    assert torch.allclose(g[0], expected)


def test_imitation_is_parallel_and_damping_is_not():
    y = torch.randn(400, 2, generator=generator())
    y = torch.cat([y, y * torch.tensor([-1.0, 1.0])])  # symmetric in the angle
    z_e = torch.full((1, 800, 1), 2.0)
    g = sensitivities(pendulum.expert, torch.tensor(0.0), y[None], z_e)
    imitation = torch.stack([torch.zeros(800), 0.3 * y[:, 0].sin()], -1)[None]
    damping = torch.stack([torch.zeros(800), -0.4 * y[:, 1]], -1)[None]
    assert torch.allclose(project(imitation, g, LAST).cosine, torch.ones(1), atol=1e-5)
    assert project(damping, g, LAST).cosine < 1e-5
    both = project(imitation + damping, g, LAST)
    assert torch.allclose(both.parallel, project(imitation, g, LAST).total, rtol=1e-4)


def test_units_of_the_parameters_do_not_matter():
    f = torch.randn(2, 50, 2, generator=generator())
    g = torch.randn(3, 2, 50, 2, generator=generator())
    scaled = g * torch.tensor([1e-4, 1.0, 1e4])[:, None, None, None]
    assert torch.allclose(
        project(f, g, BOTH).parallel, project(f, scaled, BOTH).parallel, rtol=1e-6
    )


def test_redundant_parameters_do_no_harm():
    f = torch.randn(1, 50, 1, generator=generator())
    g = torch.randn(1, 1, 50, 1, generator=generator())
    doubled = torch.cat([g, 2 * g])
    first = torch.tensor([0])
    expected = project(f, g, first).parallel
    assert torch.allclose(expected, project(f, doubled, first).parallel, rtol=1e-4)


def test_reflection_breaks_correlation_and_keeps_marginals():
    a = torch.randn(200, 50, 1, generator=generator())
    y = torch.cat([a, a + 0.1, a.exp()], dim=-1)
    orbits = reflected(y, 4000, generator())
    assert orbits.shape == (4000, 4, 3)
    states = orbits.flatten(0, 1)
    assert (torch.corrcoef(states.T) - torch.eye(3)).abs().max() < 0.05
    for component, images in zip(y.flatten(0, 1).T, states.T, strict=True):
        assert set(images.tolist()) <= set(component.tolist())
        assert abs(images.median() - component.median()) < 0.05


def test_reflections_stay_where_data_are():
    angle = torch.rand(20_000, generator=generator()) * 2 * torch.pi
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)[None]
    radius = reflected(circle, 1000, generator()).norm(dim=-1)
    assert (radius - 1).abs().max() < 0.05


def test_damping_is_orthogonal_within_every_orbit():
    t = torch.linspace(0, 20, 400)
    y = torch.stack([(-0.2 * t).exp() * t.cos(), (-0.2 * t).exp() * -t.sin()], dim=-1)[None]
    y = torch.cat([y, -y])
    states = reflected(y, 100, generator()).flatten(0, 1)
    z_e = torch.full((1, len(states), 1), 2.0)
    g = sensitivities(pendulum.expert, torch.tensor(0.0), states[None], z_e)
    damping = torch.stack([torch.zeros(len(states)), -0.4 * states[:, 1]], -1)[None]
    assert project(damping, g, LAST).cosine < 1e-3


def test_expert_without_effect_has_no_projection():
    still = ODEExpert(
        lambda t, y, z_e: 0 * y * z_e.k[..., None], (State("y", "m"),), (Param("k", "1", 0, 1),)
    )
    y = torch.randn(1, 20, 1, generator=generator())
    g = sensitivities(still, torch.tensor(0.0), y, torch.ones(1, 20, 1))
    assert project(y, g, torch.tensor([0])).parallel < 1e-12


def test_what_an_exact_equation_sees_is_left_alone():
    f = torch.zeros(1, 50, 2)
    f[..., 1] = torch.randn(50, generator=generator())
    hidden = torch.zeros(1, 1, 50, 2)
    hidden[..., 1] = f[..., 1]
    seen = hidden.clone()
    seen[..., 0] = 1.0
    assert torch.allclose(project(f, hidden, LAST).cosine, torch.ones(1), atol=1e-5)
    assert project(f, seen, LAST).parallel < 0.02 * project(f, hidden, LAST).parallel
