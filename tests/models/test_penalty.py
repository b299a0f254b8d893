"""The gauge penalty is the part of f_a that the expert's parameters could take over."""

import torch
from hybridgen.simulators import pendulum

from hybridgen.batch import Batch
from hybridgen.expert import ODEExpert
from hybridgen.models.penalty import Points, orbits, project, reflected, sensitivities
from hybridgen.params import Param, State

LAST, BOTH = torch.tensor([1]), torch.tensor([0, 1])


def generator():
    return torch.Generator().manual_seed(0)


def at(y):
    return Points(y, torch.zeros(y.shape[:-1]))


def test_sensitivities_are_derivatives():
    y = torch.randn(3, 2, generator=generator())
    omega0 = torch.tensor([[1.0], [2.0], [3.0]])
    g = sensitivities(pendulum.expert, at(y), omega0)
    expected = torch.stack([torch.zeros(3), -2 * omega0[:, 0] * y[:, 0].sin()], -1)
    assert torch.allclose(g[0], expected)


def test_imitation_is_parallel_and_damping_is_not():
    y = torch.randn(400, 2, generator=generator())
    y = torch.cat([y, y * torch.tensor([-1.0, 1.0])])  # symmetric in the angle
    z_e = torch.full((1, 800, 1), 2.0)
    g = sensitivities(pendulum.expert, at(y[None]), z_e)
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
    images = reflected(y.flatten(0, 1), 4000, generator())
    assert images.shape == (4000, 4, 3)
    states = images.flatten(0, 1)
    assert (torch.corrcoef(states.T) - torch.eye(3)).abs().max() < 0.05
    for component, drawn in zip(y.flatten(0, 1).T, states.T, strict=True):
        assert set(drawn.tolist()) <= set(component.tolist())
        assert abs(drawn.median() - component.median()) < 0.05


def test_reflections_stay_where_data_are():
    angle = torch.rand(20_000, generator=generator()) * 2 * torch.pi
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)[None]
    radius = reflected(circle[0], 1000, generator()).norm(dim=-1)
    assert (radius - 1).abs().max() < 0.05


def test_damping_is_orthogonal_within_every_orbit():
    t = torch.linspace(0, 20, 400)
    y = torch.stack([(-0.2 * t).exp() * t.cos(), (-0.2 * t).exp() * -t.sin()], dim=-1)[None]
    y = torch.cat([y, -y])
    states = reflected(y.flatten(0, 1), 100, generator()).flatten(0, 1)
    z_e = torch.full((1, len(states), 1), 2.0)
    g = sensitivities(pendulum.expert, at(states[None]), z_e)
    damping = torch.stack([torch.zeros(len(states)), -0.4 * states[:, 1]], -1)[None]
    assert project(damping, g, LAST).cosine < 1e-3


def test_expert_without_effect_has_no_projection():
    still = ODEExpert(
        lambda t, y, z_e: 0 * y * z_e.k[..., None], (State("y", "m"),), (Param("k", "1", 0, 1),)
    )
    y = torch.randn(1, 20, 1, generator=generator())
    g = sensitivities(still, at(y), torch.ones(1, 20, 1))
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


def test_times_are_not_mirrored():
    table = torch.rand(500, 3, generator=generator())
    table[:, 2] = table[:, 0] + 1.0
    images = reflected(table, 50, generator(), fixed=1)
    assert images.shape == (50, 4, 3)
    assert torch.equal(images[:, 0, 2], images[:, 3, 2])
    kept = (images[:, :, 0] - (images[:, :, 2] - 1.0)).abs() < 1e-6
    assert kept.sum(1).eq(2).all(), "half of the images keep the first column, half mirror it"


def test_orbits_carry_inputs_and_draw_hidden_states_from_their_range():
    states = (State("a", "m"), State("b", "m", observed=False, low=2.0, high=3.0))
    y = torch.rand(6, 20, 2, generator=generator())
    mask = torch.ones_like(y, dtype=torch.bool)
    y[..., 1], mask[..., 1] = torch.nan, False
    u = torch.rand(6, 20, 1, generator=generator()) - 5.0
    points = orbits(Batch(t=torch.arange(20.0), y=y, mask=mask, u=u), states, 30, generator())
    assert points.y.shape == (30, 4, 2)
    assert (points.y[..., 1] >= 2.0).all()
    assert (points.y[..., 1] <= 3.0).all()
    assert points.u.shape == (30, 4, 1)
    assert (points.u < -4.0).all()


def test_orbits_of_a_table_full_of_gaps_put_columns_together():
    y = torch.rand(2, 10, 2, generator=generator())
    y[:, ::2, 0], y[:, 1::2, 1] = torch.nan, torch.nan
    points = orbits(
        Batch(t=torch.arange(10.0), y=y, mask=y.isfinite()),
        (State("a", "m"), State("b", "m")),
        9,
        generator(),
    )
    assert points.y.isfinite().all()
