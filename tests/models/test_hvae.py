"""The hybrid VAE: its bound against closed forms, its penalties at their ideals, its decoder."""

import copy
import math

import numpy as np
import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen.augmentation import expert_augment
from hybridgen.batch import Batch
from hybridgen.checkpoint import load_model, save_model
from hybridgen.errors import ConfigError, UnsupportedError
from hybridgen.evaluation import evaluate
from hybridgen.expert import Expert, ODEExpert
from hybridgen.io import to_batch
from hybridgen.models import (
    APHYNITY,
    Convolutional,
    GlobalParameters,
    HybridVAE,
    Latents,
    Regularisers,
    Residual,
)
from hybridgen.models.objectives import objective_of
from hybridgen.models.posterior import Draw, Gaussian
from hybridgen.models.regularisers import r_da1, r_da2, r_ppc, regularise
from hybridgen.noise import GaussianNoise, LogNormalNoise
from hybridgen.params import Param, State
from hybridgen.train import FitConfig, Stage, fit

SMALL = Convolutional(width=4, bins=4, hidden=16)
ALONE = Regularisers(ppc=0.0, da1=0.0, da2=0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def decay(t, y, z_e):
    return -z_e.k[..., None] * y


def line(x, z_e):
    return z_e.slope * x.force


DECAY = ODEExpert(decay, (State("y", "m"),), (Param("k", "1/s", 0.1, 2.0),))
LINE = Expert(
    line, (State("force", "N"),), (State("length", "m"),), (Param("slope", "m/N", 0.1, 2.0),)
)


def decays(n=6, seed=0):
    """Noiseless decays and their rates."""
    t = torch.linspace(0, 2, 21)
    k = 0.2 + 1.6 * torch.rand(n, 1, generator=generator(seed))
    x = 1.0 + torch.rand(n, 1, generator=generator(seed + 1))
    return Batch(t=t, y=(x * torch.exp(-k * t))[..., None], z_e=k)


def bound_to(expert, batch, **settings):
    settings = {"encoder": SMALL, **settings}
    model = HybridVAE(expert, **settings).to(batch.y)
    model.bind(batch, window=batch.y.shape[1])
    return model


def zero(module):
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()


@pytest.fixture(scope="module")
def data():
    return pendulum.simulator.sample(12, seed=0)


@pytest.fixture
def batch(data, device, dtype):
    return to_batch(data, pendulum.expert).to(dtype).to(device)


# -- the bound -------------------------------------------------------------------------------


@pytest.fixture
def linear():
    """A model whose observations are y_i = x + a + b z_a + noise, and its closed forms."""
    still = ODEExpert(lambda t, y, z_e: 0.0 * y, (State("y", "m"),), ())
    t = torch.linspace(0, 1, 6)
    y = torch.randn(1, 6, 1, generator=generator())
    sigma, a, b = 0.4, 0.3, 0.7
    model = bound_to(
        still, Batch(t=t, y=y), decoder="output", noise=GaussianNoise(sigma), regularisers=ALONE
    )
    zero(model.interaction)
    with torch.no_grad():  # outputs: state and time, each with the latent and the constant
        model.interaction.network[-1].bias[:2] = torch.tensor([b, a]) / model.state_sd
    residual = (y[0, 1:, 0] - y[0, 0, 0] - a).double()
    covariance = sigma**2 * torch.eye(5) + b * b * torch.ones(5, 5)
    marginal = torch.distributions.MultivariateNormal(torch.zeros(5), covariance)
    evidence = marginal.log_prob(residual)
    precision = 1.0 + 5 * b * b / sigma**2
    mean = b / sigma**2 * residual.sum() / precision
    return model, Batch(t=t, y=y), evidence, float(mean), precision**-0.5


def bounds(model, batch, z_a, log_q):
    """The bound at many draws of z_a for one observation."""
    n = len(z_a)
    many = batch[torch.zeros(n, dtype=torch.long)]
    draw = Draw(z_a[:, None], z_a.new_zeros(n, 0), log_q, many.y, None)
    y = model.reconstruct(many, Latents(z_a.new_zeros(n, 0), draw.z_a))
    return model.bound(many, draw, y)


def test_s0_7_4_bound_is_the_evidence_at_the_exact_posterior(linear):
    model, batch, evidence, mean, sd = linear
    q = Gaussian(torch.tensor([[mean]]), torch.tensor([[math.log(sd)]]))
    z_a = mean + 3 * sd * torch.randn(20, generator=generator())
    values = bounds(model, batch, z_a, q.log_prob(z_a[:, None]))
    assert torch.allclose(values, evidence.expand(20), atol=1e-9)


@pytest.mark.parametrize(("shift", "factor"), [(0.3, 1.0), (0.0, 2.0), (-0.2, 0.5)])
def test_s0_7_4_bound_lacks_the_divergence_from_the_posterior(linear, shift, factor):
    model, batch, evidence, mean, sd = linear
    q = torch.distributions.Normal(mean + shift, sd * factor)
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    z_a = q.mean + q.stddev * torch.from_numpy(nodes)
    values = bounds(model, batch, z_a, q.log_prob(z_a))
    expected = (torch.from_numpy(weights) * values).sum() / math.sqrt(2 * math.pi)
    exact = torch.distributions.Normal(mean, sd)
    divergence = torch.distributions.kl_divergence(q, exact)
    assert expected < evidence
    assert torch.allclose(evidence - expected, divergence.double(), atol=1e-9)


def test_s0_7_4_parameters_have_a_uniform_prior_in_the_box():
    """Quadrature of the joint density over u, against that of the likelihood over z_e."""
    one = decays(1)
    model = bound_to(DECAY, one, noise=GaussianNoise(0.1), regularisers=ALONE)
    zero(model.residual)
    observed = one.replace(y=one.y + 0.1 * torch.randn(one.y.shape, generator=generator()))

    def at(u):
        n = len(u)
        many = observed[torch.zeros(n, dtype=torch.long)]
        latents = Latents(model.bounded(u[:, None], None), u.new_zeros(n, 1))
        y = model.reconstruct(many, latents)
        normal = Gaussian(latents.z_a, latents.z_a)
        log_q = normal.log_prob(latents.z_a)
        return many, Draw(latents.z_a, u[:, None], log_q, many.y, None), y

    low, high = float(model.box_low), float(model.box_high)
    z_e = torch.linspace(low, high, 2003)[1:-1]
    many, _, y = at(model.unbounded(z_e[:, None])[:, 0])
    evidence = torch.trapezoid(model.log_likelihood(y, many).exp(), z_e) / (high - low)
    u = torch.linspace(-9.0, 9.0, 2001)
    many, draw, y = at(u)
    joint = model.bound(many, draw, y)
    assert torch.allclose(torch.trapezoid(joint.exp(), u), evidence, rtol=1e-3)

    q = Gaussian(torch.tensor([[-0.4]]), torch.tensor([[-1.5]]))
    log_q = q.log_prob(u[:, None])
    elbo = torch.trapezoid(log_q.exp() * (joint - log_q), u)
    divergence = torch.trapezoid(log_q.exp() * (log_q - (joint - evidence.log())), u)
    assert divergence > 0
    assert elbo < evidence.log()
    assert torch.allclose(evidence.log() - elbo, divergence, atol=1e-6)


def test_gaussian_is_torchs():
    q = Gaussian(torch.randn(5, 3, generator=generator()), torch.full((5, 3), -0.7))
    z = torch.randn(5, 3, generator=generator(1))
    expected = torch.distributions.Normal(q.mean, q.log_sd.exp()).log_prob(z).sum(-1)
    assert torch.allclose(q.log_prob(z), expected)
    draws = torch.stack([q.draw(generator(s)) for s in range(2000)])
    assert torch.allclose(draws.std(0), q.log_sd.exp(), rtol=0.1)
    assert torch.equal(q.draw(None), q.mean)


def test_first_observation_is_scored_only_where_it_is_not_the_start(batch):
    model = bound_to(pendulum.expert, batch.window(50))
    assert model.scored(batch.window(50))[:, 0].sum() == 0
    free = bound_to(pendulum.expert, batch.window(50), infer_x0=True)
    assert (free.scored(batch.window(50)) == 1).all()


def test_scale_is_learned_unless_declared(batch):
    seen = batch.window(50)
    model = bound_to(pendulum.expert, seen, regularisers=ALONE)
    objective_of(model, "elbo")(model, seen, 0, generator()).total.backward()
    assert (model.log_scale.grad != 0).all()
    fixed = bound_to(pendulum.expert, seen, noise=GaussianNoise((0.1, 0.2)))
    assert torch.equal(fixed.scale, fixed.link_sd.new_tensor([0.1, 0.2]))


# -- the regularisers --------------------------------------------------------------------------


def test_s0_7_5_ppc_is_zero_without_a_residual(batch):
    seen = batch.window(50)
    model = bound_to(pendulum.expert, seen, residual=Residual(hidden=(8,), constant=True))
    latents = model.encode(seen)
    assert r_ppc(model, seen, latents, generator()) > 0
    zero(model.residual)
    assert r_ppc(model, seen, latents, generator()) == 0
    with torch.no_grad():  # a constant rate of 0.3 standard deviations on one state of two
        model.residual.network[-1].bias[:] = torch.tensor([0.0, 0.3])
    value = r_ppc(model, seen, latents, generator())
    assert torch.allclose(value, value.new_tensor(0.5 * 0.3**2 / 2))


def test_s0_7_5_da1_is_zero_where_the_filter_is_right():
    batch = decays()
    model = bound_to(DECAY, batch)
    zero(model.residual)
    y_e = model.expert_alone(batch, Latents(batch.z_e, batch.y.new_zeros(6, 1)))
    ideal = model.observed(batch.replace(y=y_e))[0]
    assert r_da1(model, batch, ideal, y_e) == 0
    off = r_da1(model, batch, ideal + 0.2, y_e)
    assert torch.allclose(off, off.new_tensor(0.04))
    # the filter starts as the identity, and noiseless decays are the expert's own trajectories
    draw, _ = model.draw(batch)
    assert r_da1(model, batch, draw.filtered, y_e) < 1e-8


def test_s0_7_5_da2_is_zero_where_the_encoder_is_right(monkeypatch):
    batch = decays()
    model = bound_to(DECAY, batch, noise=GaussianNoise(0.0))
    rates = 0.2 + 1.6 * torch.rand(6, 1, generator=generator(5))
    simulated = model.expert_alone(batch, Latents(rates, batch.y.new_zeros(6, 1)))

    def exact(filtered, values, mask, steps, known):
        y = filtered[..., 0] * model.state_sd + model.state_mean
        k = -(y[:, -1] / y[:, 0]).log() / 2.0
        u = model.unbounded(k[:, None])
        return Gaussian(u, torch.zeros_like(u))

    before = r_da2(model, batch, simulated, rates, generator())
    assert before > 1e-3
    monkeypatch.setattr(model.encoder, "q_u", exact)
    assert r_da2(model, batch, simulated, rates, generator()) < 1e-8
    scrambled = r_da2(model, batch, simulated, rates.roll(1, 0), generator())
    expected = ((rates - rates.roll(1, 0)) / 1.9).pow(2).mean()
    assert torch.allclose(scrambled, expected, rtol=1e-3)


def test_s0_7_5_da2_survives_an_expert_that_blows_up():
    batch = decays()
    model = bound_to(DECAY, batch)
    simulated = batch.y.clone()
    simulated[2] = torch.nan
    assert r_da2(model, batch, simulated, batch.z_e, generator()).isfinite()


def test_s0_7_5_weights_switch_penalties_off(batch):
    seen = batch.window(50)
    for weights, names in (
        (Regularisers(), {"ppc", "da1", "da2"}),
        (Regularisers(da1=0.0, da2=0.0), {"ppc"}),
        (ALONE, set()),
    ):
        model = bound_to(pendulum.expert, seen, regularisers=weights)
        total, parts = regularise(model, seen, *model.draw(seen), generator())
        assert names == set(parts)
        assert all(p >= 0 for p in parts.values())
        expected = sum(getattr(weights, k) * float(v.detach()) for k, v in parts.items())
        assert float(total.detach()) == pytest.approx(expected)


def test_output_decoders_ppc_is_its_interaction():
    batch = decays()
    model = bound_to(DECAY, batch, decoder="output")
    zero(model.interaction)
    latents = model.encode(batch)
    assert r_ppc(model, batch, latents, generator()) == 0
    assert torch.allclose(model.reconstruct(batch, latents), model.expert_alone(batch, latents))


# -- axes ------------------------------------------------------------------------------------


def test_members_do_not_mix(batch):
    seen = batch.window(50)
    model = bound_to(pendulum.expert, seen)
    with torch.no_grad():
        for p in model.encoder.filter[-1].parameters():
            p.normal_(generator=generator())
    order = torch.randperm(len(seen), generator=generator())
    draw, latents = model.draw(seen)
    other, moved = model.draw(seen[order])
    for a, b in zip((*draw[:4], *latents[:2]), (*other[:4], *moved[:2]), strict=True):
        assert torch.allclose(a[order], b, rtol=1e-4, atol=1e-5)
    y, again = model.expert_alone(seen, latents), model.expert_alone(seen[order], moved)
    assert torch.allclose(y[order], again, rtol=1e-4, atol=1e-5)


def test_filter_starts_as_the_identity_and_skips_gaps(batch):
    seen = batch.window(50)
    model = bound_to(pendulum.expert, seen)
    values = model.observed(seen)[0]
    assert torch.equal(model.draw(seen)[0].filtered, values)
    gaps = torch.ones_like(seen.y, dtype=torch.bool)
    gaps[:, 10:20] = False
    holes = seen.replace(y=torch.where(gaps, seen.y, torch.nan), mask=gaps)
    loss = objective_of(model, "elbo")(model, holes, 0, generator())
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_parameters_stay_in_the_box_and_follow_the_dtype(batch):
    model = bound_to(pendulum.expert, batch.window(50))
    wild = batch.replace(y=1e3 * batch.y)
    z_e = model.infer(wild).z_e
    assert ((z_e >= model.box_low) & (z_e <= model.box_high)).all()
    single = copy.deepcopy(model).float()
    assert single.predict(None, batch.t, given=batch).y.dtype == torch.float32
    many = [single.draw(batch.to(torch.float32), generator(s))[1].z_e for s in range(2)]
    assert not torch.equal(*many)


# -- training and augmentation ---------------------------------------------------------------


@pytest.mark.parametrize("objective", ["weak", "elbo"])
def test_gradient_reaches_every_parameter(batch, objective):
    seen = batch.window(50)
    model = bound_to(pendulum.expert, seen)
    with torch.no_grad():  # a filter that is the identity has a gradient in its last layer only
        for p in model.encoder.filter[-1].parameters():
            p.normal_(generator=generator())
    objective_of(model, objective)(model, seen, 0, generator()).total.backward()
    for name, p in model.named_parameters():
        if name == "log_scale" and objective == "weak":
            continue
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


@pytest.fixture(scope="module")
def trained(data):
    train = pendulum.simulator.sample(20, seed=0)
    valid = pendulum.simulator.sample(10, seed=0, split="valid")
    residual = Residual(hidden=(8,), constant=True)
    model = HybridVAE(pendulum.expert, residual=residual, encoder=SMALL)
    stages = tuple(
        Stage(objective=o, steps=n, batch_size=20) for o, n in (("weak", 30), ("elbo", 5))
    )
    return fit(model, train, valid, FitConfig(stages=stages))


def test_training_logs_the_parts_of_the_bound(trained):
    model, history = trained
    assert model.learner == "hvae"
    assert {"fit", "kl", "ppc", "da1", "da2", "valid"} <= set(history.rows[-1])
    assert history.rows[0]["fit"] < -1.5


def test_s0_7_7_decoder_is_the_same_bit_for_bit_after_augmentation(trained):
    model, _ = trained
    train = pendulum.simulator.sample(20, seed=0)
    stage = Stage(objective="supervised", steps=5, batch_size=20, pool=40)
    wider, _ = fit(model, expert_augment(model, train), config=FitConfig(stages=(stage,)))
    assert wider.learner == "hvae+"
    for (name, before), after in zip(
        model.state_dict().items(), wider.state_dict().values(), strict=True
    ):
        assert torch.equal(before, after) != name.startswith("encoder."), name
    assert torch.equal(model.scale, wider.scale)


def test_supervised_objective_is_the_density_of_the_truth(trained):
    model, _ = trained
    train = pendulum.simulator.sample(20, seed=0)
    batch = expert_augment(model, train).draw(np.arange(8), 0)
    values, mask, steps = model.observed(batch)
    known, _ = model.known(batch)
    q_a, context, _ = model.encoder.q_a(values, mask, steps, known)
    filtered = model.encoder.filtered(values, mask, steps, batch.z_a, context)
    q_u = model.encoder.q_u(filtered, values, mask, steps, known)
    u = torch.logit((batch.z_e - model.box_low) / (model.box_high - model.box_low))
    expected = -(q_a.log_prob(batch.z_a) + q_u.log_prob(u)).mean()
    loss = objective_of(model, "supervised")(model, batch, 0, generator())
    assert torch.allclose(loss.total, expected)


def test_predicts_and_saves(trained, data, tmp_path):
    model, _ = trained
    save_model(tmp_path / "m", model)
    back = load_model(tmp_path / "m")
    assert isinstance(back, HybridVAE)
    batch = to_batch(data)
    first, second = (m.predict(None, batch.t, given=batch).y for m in (model, back))
    assert torch.equal(first, second)
    assert {r["metric"] for r in evaluate(model, data)} >= {"relative_error", "log_mse_summed"}


def test_expert_without_a_rate():
    x = torch.linspace(0, 2, 21)
    slopes = 0.2 + 1.6 * torch.rand(30, 1, generator=generator())
    bend = 0.1 * (2.0 * x).sin()
    y = (slopes * x + bend)[..., None]
    batch = Batch(t=x, y=y + 0.01 * torch.randn(y.shape, generator=generator(1)), z_e=slopes)
    plain = batch.replace(z_e=None)
    model = HybridVAE(LINE, decoder="output", encoder=SMALL, regularisers=Regularisers(ppc=1.0))
    stage = Stage(objective="elbo", steps=150, batch_size=30)
    trained, history = fit(model.double(), plain[:20], plain[20:], FitConfig(stages=(stage,)))
    assert history.rows[-1]["fit"] < 0.5 * history.rows[0]["fit"] or history.rows[-1]["fit"] < 0
    error = (trained.encode(batch).z_e - slopes).abs().mean()
    assert error < 0.15
    assert trained.predict(None, x, given=plain).y.shape == y.shape


def test_log_normal_likelihood():
    batch = decays()
    model = bound_to(DECAY, batch, noise=LogNormalNoise(0.2), regularisers=ALONE)
    zero(model.residual)
    y = model.expert_alone(batch, Latents(batch.z_e, batch.y.new_zeros(6, 1)))
    observed = batch.replace(y=1.1 * batch.y)
    value = model.log_likelihood(y, observed)
    s = math.log(1.1) / 0.2
    expected = 20 * (-0.5 * s * s - math.log(0.2) - 0.5 * math.log(2 * math.pi))
    assert torch.allclose(value, value.new_tensor(expected).expand(6), atol=1e-3)


def test_refusals(batch):
    with pytest.raises(UnsupportedError, match='write decoder="output"'):
        HybridVAE(LINE)
    with pytest.raises(ConfigError, match="decoder is 'rates'"):
        HybridVAE(pendulum.expert, decoder="rates")
    with pytest.raises(UnsupportedError, match="wrap the function"):
        HybridVAE(pendulum.undamped)
    with pytest.raises(UnsupportedError, match="a posterior for each trajectory"):
        HybridVAE(pendulum.expert, encoder=GlobalParameters())
    model = bound_to(DECAY, decays(), decoder="output")
    with pytest.raises(ConfigError, match="the weak form looks at rates"):
        objective_of(model, "weak")(model, decays(), 0, generator())
    with pytest.raises(ConfigError, match="APHYNITY has no objective 'elbo'"):
        objective_of(APHYNITY(pendulum.expert, encoder=SMALL), "elbo")
