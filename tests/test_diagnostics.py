"""Diagnostics: closed-form cases of identifiability, right and wrong experts, gauge."""

import math

import numpy as np
import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen import Batch, ODEExpert, Param, State, solve
from hybridgen.diagnostics import best_fit, identifiability, identification, misspecification
from hybridgen.errors import DataError, ParameterError, UnsupportedError
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Convolutional, Inferred, Residual
from hybridgen.refinement import refine

SMALL = Convolutional(width=2, hidden=4)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(low, high, *shape, seed=0):
    u = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * u


def observe(truth, x0, z, t, noise, seed=0):
    """Trajectories of a system, each with the same noise relative to the spread of its states."""
    clean = solve(truth, x0, t, z, rtol=1e-9, atol=1e-9).y
    sd = noise * clean.std((0, 1))
    return Batch(t=t, y=clean + sd * normal(*clean.shape, seed=seed + 1), clean=clean), sd


def alone(expert, batch, window=None):
    """A model that is nothing but its expert."""
    model = APHYNITY(expert, residual=None, encoder=SMALL)
    model.bind(batch, window=window)
    return model


# -- identifiability --------------------------------------------------------------------------

Y = (State("y", "m"),)
A, B, C = Param("a", "1", 0.5, 2.0), Param("b", "1/s", 0.5, 2.0), Param("c", "m", 0.0, 1.0)


def decays(seed=0, rate=(0.8, 1.2)):
    expert = ODEExpert(lambda t, y, z: -z.b[..., None] * y, Y, (B,))
    k = uniform(*rate, 10, 1, seed=seed)
    x0 = uniform(1.0, 2.0, 10, 1, seed=seed + 1)
    return observe(expert, x0, k, torch.linspace(0, 3, 31), 0.02)


def test_a_rate_seen_decaying_is_identified():
    batch, sd = decays()
    expert = ODEExpert(lambda t, y, z: -z.b[..., None] * y, Y, (B,))
    found = identifiability(alone(expert, batch), batch)
    b = found["b"]
    assert (b.verdict, b.share, b.kind, b.unit) == ("identified", 1.0, "z_e", "1/s")
    assert b.partner == "y"
    # y = y0 exp(-b t): the textbook covariance of b and y0
    t, y0 = batch.t, batch.clean[:, 0]
    rates = torch.full_like(y0, 0.0) + torch.log(y0 / batch.clean[:, -1]) / batch.t[-1]
    j = torch.stack([-t * y0 * (-rates * t).exp(), (-rates * t).exp()], -1) / sd
    expected = torch.linalg.inv(j.mT @ j)[:, 0, 0].sqrt().median()
    assert abs(b.sd / float(expected) - 1) < 0.15
    assert [(p.name, p.kind) for p in found.parameters] == [("b", "z_e"), ("y", "x0")]


def test_two_parameters_of_which_only_the_product_matters_trade_off():
    batch, _ = decays()
    expert = ODEExpert(lambda t, y, z: -(z.a * z.b)[..., None] * y, Y, (A, B))
    found = identifiability(alone(expert, batch), batch)
    assert [found[n].verdict for n in "ab"] == ["trade_off", "trade_off"]
    assert (found["a"].partner, found["b"].partner) == ("b", "a")
    assert found["a"].correlation < -0.95
    assert found["a"].alone < 0.1
    # the product is known: along it, half of the prior's variance goes to each
    assert 0.6 < found["a"].wide < 0.9
    assert found["y"].verdict == "identified"
    assert "trade_off with b" in str(found)


def test_a_parameter_that_never_enters_is_flat():
    batch, _ = decays()
    expert = ODEExpert(lambda t, y, z: -z.b[..., None] * y + 0 * z.c[..., None], Y, (B, C))
    found = identifiability(alone(expert, batch), batch)
    assert found["b"].verdict == "identified"
    assert found["c"].verdict == "flat"
    assert found["c"].wide == pytest.approx(1.0)
    assert found["c"].sd == pytest.approx(1 / math.sqrt(12))


def test_a_truth_outside_the_range_is_at_bound():
    batch, _ = decays(rate=(3.0, 3.5))
    expert = ODEExpert(lambda t, y, z: -z.b[..., None] * y, Y, (B,))
    b = identifiability(alone(expert, batch), batch)["b"]
    assert (b.verdict, b.at_bound) == ("at_bound", 1.0)
    assert "at_bound in 100 % of the trajectories" in str(b)


def test_verdicts_do_not_depend_on_units():
    batch, _ = decays()
    verdicts = []
    for scale in (1e-9, 1e9):
        params = (A, Param("b", "1", 0.5 * scale, 2.0 * scale), C)
        expert = ODEExpert(
            lambda t, y, z, s=scale: -(z.a * z.b / s)[..., None] * y + 0 * z.c[..., None],
            Y,
            params,
        )
        found = identifiability(alone(expert, batch), batch)
        verdicts.append([found[n].verdict for n in "abc"])
    assert verdicts == [["trade_off", "trade_off", "flat"]] * 2


def test_latents_are_judged_too():
    data = pendulum.simulator.sample(12, seed=0)
    batch = to_batch(data, pendulum.expert)
    model = APHYNITY(pendulum.expert, residual=Residual(hidden=(8,)), encoder=SMALL)
    model.bind(batch, window=50)
    found = identifiability(model, data, refined=refine(model, data, iterations=2))
    assert [(p.name, p.kind) for p in found.parameters] == [
        ("omega0", "z_e"),
        ("z_a_0", "z_a"),
        ("theta", "x0"),
        ("omega", "x0"),
    ]
    with pytest.raises(ParameterError, match="'omga0' was fitted; did you mean 'omega0'"):
        found["omga0"]


def test_known_parameters_and_hidden_states():
    """A known parameter is no unknown; a state without data is, and is found from many starts."""
    states = (State("q", "m"), State("v", "m/s", observed=False, low=-2.0, high=2.0))
    params = (Param("k", "1/s^2", 0.5, 4.0), Param("m", "kg", 0.5, 2.0, known=True))

    def spring(t, y, z):
        return torch.stack([y[..., 1], -z.k / z.m * y[..., 0]], dim=-1)

    expert = ODEExpert(spring, states, params)
    z = torch.stack([uniform(1.0, 3.0, 6), uniform(0.8, 1.5, 6, seed=1)], -1)
    batch, _ = observe(expert, uniform(-1, 1, 6, 2, seed=2), z, torch.linspace(0, 6, 61), 0.02)
    y = batch.y.clone()
    y[..., 1] = torch.nan
    given = torch.stack([torch.full((6,), torch.nan), z[:, 1]], -1)
    batch = batch.replace(y=y, mask=y.isfinite(), z_e=given)
    model = alone(expert, batch)
    fit = best_fit(model, batch)
    assert torch.allclose(fit.z_e, z, rtol=0.02)
    assert (fit.x0[:, 1] - batch.clean[:, 0, 1]).abs().max() < 0.1
    found = identifiability(model, batch, refined=fit)
    assert [p.name for p in found.parameters] == ["k", "q", "v"]
    assert {p.verdict for p in found.parameters} == {"identified"}


# -- misspecification -------------------------------------------------------------------------


def swing(t, y, z):
    return torch.stack([y[..., 1], -(z.w**2) * y[..., 0].sin()], -1)


def swing_linear(t, y, z):
    return torch.stack([y[..., 1], -(z.w**2) * y[..., 0]], -1)


def swing_damped(t, y, z):
    rate = -(z.w**2) * y[..., 0].sin() - z.d * y[..., 1]
    return torch.stack([y[..., 1], rate], -1)


def circuit(t, y, z, u):
    return torch.stack([y[..., 1] / z.c, (u.V - y[..., 0] - z.r * y[..., 1]) / z.l], -1)


def circuit_lossless(t, y, z, u):
    return torch.stack([y[..., 1] / z.c, (u.V - y[..., 0]) / z.l], -1)


def first_order(t, y, z):
    return -z.k[..., None] * y


def second_order(t, y, z):
    return -z.k[..., None] * y**2


def saturating(t, y, z):
    return -z.k[..., None] * y / (z.h[..., None] + y)


def logistic(t, y, z):
    return z.k[..., None] * y * (1 - y)


def gompertz(t, y, z):
    return -z.k[..., None] * y * y.clamp_min(1e-9).log()


def hunters(t, y, z):
    prey, hunter = y.unbind(-1)
    return torch.stack([z.k * prey - prey * hunter, prey * hunter - z.d * hunter], -1)


def hunters_linear(t, y, z):
    prey, hunter = y.unbind(-1)
    return torch.stack([z.k * (1 - hunter), z.d * (prey - 1)], -1)


def drag(power):
    def falls(t, y, z):
        return 9.81 - z.k[..., None] * y.abs().pow(power) * y.sign()

    return falls


def cools(t, y, z):
    return z.k[..., None] * (z.e[..., None] - y)


def radiates(t, y, z):
    return 0.2 * z.k[..., None] * (z.e[..., None] ** 4 - y**4)


def van_der_pol(t, y, z):
    return torch.stack([y[..., 1], z.k * (1 - y[..., 0] ** 2) * y[..., 1] - y[..., 0]], -1)


def damped_linear(t, y, z):
    return torch.stack([y[..., 1], z.k * y[..., 1] - y[..., 0]], -1)


W, D, K = Param("w", "1/s", 0.5, 3.0), Param("d", "1/s", 0.0, 1.0), Param("k", "1/s", 0.2, 2.0)
E = Param("e", "1", 0.0, 0.5)
TWO = (State("p", "1"), State("q", "1"))
COIL = (Param("l", "H", 0.5, 3.0), Param("c", "F", 0.3, 2.0), Param("r", "ohm", 0.1, 2.0))

# name, truth, wrong expert, parameters of each, initial states, duration
SYSTEMS = [
    ("pendulum", swing, swing_linear, (W,), (W,), ((1.0, 2.0), (-0.5, 0.5)), 6.0),
    ("damped", swing_damped, swing, (W, D), (W,), ((0.5, 1.5), (-0.5, 0.5)), 6.0),
    ("circuit", circuit, circuit_lossless, COIL, COIL[:2], ((-1, 1), (-0.5, 0.5)), 6.0),
    ("decay", first_order, second_order, (K,), (K,), ((1.0, 2.0),), 3.0),
    ("enzyme", saturating, first_order, (K, Param("h", "1", 0.1, 1)), (K,), ((1, 2),), 4.0),
    ("growth", logistic, gompertz, (K,), (K,), ((0.05, 0.2),), 6.0),
    ("hunters", hunters, hunters_linear, (K, Param("d", "1/s", 0.2, 2)), (K, D), ((1, 2),) * 2, 6),
    ("fall", drag(2), drag(1), (K,), (Param("k", "1/s", 0.2, 20.0),), ((0.0, 1.0),), 1.0),
    ("cooling", cools, radiates, (K, E), (K, E), ((1, 2),), 4.0),
    (
        "oscillator",
        van_der_pol,
        damped_linear,
        (K,),
        (Param("k", "1/s", -1, 2),),
        ((1, 2),) * 2,
        8,
    ),
]


def case(i, noise=0.03, members=6, points=40):
    """Return data of a system, the right and the wrong expert for it, and the noise."""
    _, right, wrong, params, fewer, start, duration = SYSTEMS[i]
    t = torch.linspace(0, duration, points)
    states, driven = TWO[: len(start)], (State("V", "V"),) if right is circuit else ()
    low, high = (torch.tensor([p.low + s * (p.high - p.low) for p in params]) for s in (0.2, 0.7))
    z = low + (high - low) * uniform(0, 1, members, len(params), seed=50 + i)
    x0 = torch.stack([uniform(*s, members, seed=80 + i + j) for j, s in enumerate(start)], -1)
    truth = ODEExpert(right, states, params, driven)
    field = (lambda t, y, z: truth(t, y, z, t.sin().expand(len(y), 1))) if driven else truth
    batch, sd = observe(field, x0, z, t, noise, seed=i)
    if driven:
        batch = batch.replace(u=t.sin()[None, :, None].repeat(members, 1, 1))
    return batch, truth, ODEExpert(wrong, states, fewer, driven), sd


def auc(scores, labels):
    """Share of pairs of a right and a wrong expert in which the wrong one scores higher."""
    right, wrong = (
        [s for s, good in zip(scores, labels, strict=True) if good is g] for g in (1, 0)
    )
    return np.mean([w > r for w in wrong for r in right])


def test_s0_7_14_right_and_wrong_experts_are_told_apart():
    labels, known, estimated = [], [], []
    for i in range(len(SYSTEMS)):
        batch, right, wrong, sd = case(i)
        for expert in (right, wrong):
            model = alone(expert, batch)
            fit = best_fit(model, batch, noise=sd, starts=32, keep=3)
            labels.append(int(expert is right))
            known.append(misspecification(model, batch, fit, noise=sd))
            estimated.append(misspecification(model, batch, fit))
    assert (sum(labels), len(labels)) == (10, 20)
    for found in (known, estimated):
        assert auc([m.statistic for m in found], labels) == 1.0
        assert [not m.misspecified for m in found] == [bool(g) for g in labels]
    assert all(m.noise_is_known for m in known)
    assert not any(m.noise_is_known for m in estimated)


@pytest.fixture(scope="module")
def falling():
    """Decays of the first order, one expert that is right, one of the second order, the noise."""
    batch, sd = decays()
    params = (Param("k", "1/s", 0.2, 2.0),)
    right, wrong = (alone(ODEExpert(f, Y, params), batch) for f in (first_order, second_order))
    return batch, right, wrong, sd


def test_scores_of_a_right_expert_are_standard_normal():
    k = uniform(0.5, 1.5, 300, 1)
    expert = ODEExpert(first_order, Y, (K,))
    x0 = uniform(1.0, 2.0, 300, 1, seed=1)
    batch, sd = observe(expert, x0, k, torch.linspace(0, 3, 101), 0.05)
    model = alone(expert, batch)
    found = misspecification(model, batch, best_fit(model, batch, starts=8, keep=1))
    assert not found.misspecified
    assert abs(float(found.score.std()) - 1) < 0.15
    assert -0.5 < float(found.score.mean()) < 0.1
    chi2 = misspecification(model, batch, best_fit(model, batch, starts=8, keep=1), noise=sd).chi2
    assert abs(float(chi2.mean()) - 1) < 4 * math.sqrt(2 / 99 / 300)


def test_one_trajectory_is_enough(falling):
    batch, right, wrong, sd = falling
    assert not misspecification(right, batch[:1], noise=sd).misspecified
    assert misspecification(wrong, batch[:1], noise=sd).misspecified
    assert misspecification(wrong, batch[:1]).misspecified


def test_what_stays_below_the_floor_is_no_evidence(falling):
    batch, right, wrong, _ = falling
    clean = batch.replace(y=batch.clean)
    for noise in (None, 0.0):
        found = misspecification(right, clean, noise=noise)
        assert found.p_value > 0.1
        assert found.score.abs().max() < 1
    assert misspecification(wrong, clean).misspecified
    assert not misspecification(wrong, clean, floor=1.0).misspecified


def test_too_much_white_noise_is_seen_only_if_the_noise_is_known(falling):
    batch, right, _, sd = falling
    assert misspecification(right, batch, noise=0.5 * sd).misspecified
    assert not misspecification(right, batch).misspecified


def test_a_fit_that_failed_does_not_speak_for_all(falling):
    batch, right, _, sd = falling
    fit = best_fit(right, batch, noise=sd)
    z_e = fit.z_e.clone()
    z_e[3] *= 2.0
    found = misspecification(right, batch, Inferred(z_e, fit.z_a, fit.x0), noise=sd)
    assert found.score[3] > 5
    assert not found.misspecified


def test_gaps_and_trajectories_of_nan(falling):
    batch, right, wrong, sd = falling
    mask = uniform(0, 1, *batch.y.shape) > 0.3
    mask[:, 0] = True
    y = torch.where(mask, batch.y, torch.nan)
    y[2] = torch.nan
    gaps = batch.replace(y=torch.where(mask, y, torch.nan), mask=mask)
    for model, verdict in ((right, False), (wrong, True)):
        found = misspecification(model, gaps, noise=sd)
        assert found.misspecified is verdict
        assert found.score.isnan().nonzero().tolist() == [[2]]
    assert "explains the data" in str(misspecification(right, gaps, noise=sd))
    with pytest.raises(DataError, match="no trajectory could be fitted"):
        misspecification(right, gaps[2:3], noise=sd)


# -- identification ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "cosine"), [("gravity", 1.0), ("friction", 0.0)])
def test_a_residual_that_the_expert_can_imitate(kind, cosine):
    """f_a along sin(theta) is a change of omega0; along omega it is not."""
    data = pendulum.simulator.sample(40, seed=0)
    batch = to_batch(data, pendulum.expert)
    model = APHYNITY(pendulum.expert, residual=Residual(hidden=(4,)), encoder=SMALL)
    model.bind(batch, window=50)

    def f_a(y, z_a):
        force = 0.3 * (y[..., 0].sin() if kind == "gravity" else y[..., 1])
        return torch.stack([torch.zeros_like(force), force], -1) + 0.0 * z_a[..., :1]

    model.f_a = f_a
    found = identification(model, data, torch.Generator().manual_seed(0))
    assert abs(found.cosine - cosine) < 0.05
    seen = batch.window(50)
    z_e = model.encode(seen).z_e.detach()[:, None, :]
    force = f_a(seen.y, torch.zeros(1)) / model.rate_sd
    rate = pendulum.expert(0.0, seen.y, z_e) / model.rate_sd + force
    assert found.share == pytest.approx(float(force.pow(2).sum() / rate.pow(2).sum()))


def test_without_a_residual_there_is_nothing_to_identify(falling):
    batch, right, _, _ = falling
    with pytest.raises(UnsupportedError, match="give an APHYNITY with a residual"):
        identification(right, batch, torch.Generator())
