"""One contract over what data and experts can look like: driven, fields, hidden, known, gaps."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from hybridgen.augmentation import expert_augment
from hybridgen.batch import Batch
from hybridgen.checkpoint import load_model, save_model
from hybridgen.errors import DataError, UnsupportedError
from hybridgen.expert import ODEExpert
from hybridgen.integrate import solve
from hybridgen.models import (
    APHYNITY,
    OBJECTIVES,
    Convolutional,
    GlobalParameters,
    HybridVAE,
    Latents,
    Residual,
)
from hybridgen.models.weak import weak_fits
from hybridgen.noise import GaussianNoise, LogNormalNoise
from hybridgen.params import Param, State
from hybridgen.refinement import refine
from hybridgen.train import FitConfig, Stage, fit

SMALL = Convolutional(width=4, bins=4, hidden=16)
STATES = (State("q", "m", exact=True), State("v", "m/s"))


def oscillator(t, y, z_e, u=None):
    q, v = y.unbind(-1)
    force = 0.0 if u is None else u.force
    mass = getattr(z_e, "mass", torch.ones(())) if hasattr(z_e, "mass") else 1.0
    return torch.stack([v, (force - z_e.k * q) / mass], dim=-1)


def reacting(t, y, z_e, u=None):
    """Concentrations on a line or an area, which may be fed."""
    rate = -z_e.k[..., None] * (y - 0.5)
    return rate if u is None else rate + u.force[..., None]


K = Param("k", "1/s2", 0.5, 3.0)
PLAIN = ODEExpert(oscillator, STATES, (K,))
EXPERTS = {
    "plain": PLAIN,
    "driven": ODEExpert(oscillator, STATES, (K,), inputs=(State("force", "N"),)),
    "field": ODEExpert(reacting, (State("c", "mol/L"),), (K,), space=2),
    "line": ODEExpert(reacting, (State("c", "mol/L"),), (K,), space=1),
    "volume": ODEExpert(reacting, (State("c", "mol/L"),), (K,), space=3),
    "fed field": ODEExpert(
        reacting, (State("c", "mol/L"),), (K,), inputs=(State("force", "mol/L/s"),), space=2
    ),
    "field with gaps": ODEExpert(reacting, (State("c", "mol/L"),), (K,), space=2),
    "hidden": ODEExpert(
        oscillator, (STATES[0], State("v", "m/s", observed=False, low=-2.0, high=2.0)), (K,)
    ),
    "known": ODEExpert(oscillator, STATES, (K, Param("mass", "kg", 0.5, 2.0, known=True))),
    "gaps": PLAIN,
    "own times": PLAIN,
    "inferred start": PLAIN,
    "positive": ODEExpert(lambda t, y, z_e: -z_e.k[..., None] * y, (State("c", "mol/L"),), (K,)),
    "single": PLAIN,
}
SETTINGS = {
    **{
        name: {"residual": Residual(hidden=(8,))}
        for name in ("field", "line", "volume", "fed field", "field with gaps")
    },
    "inferred start": {"infer_x0": True},
    "positive": {"noise": LogNormalNoise(floor=1e-4), "infer_x0": True},
    "single": {"encoder": GlobalParameters()},
}


def simulate(name, n=24, points=30):
    """Trajectories with damping that the expert lacks."""
    expert = EXPERTS[name]
    g = torch.Generator().manual_seed(3)
    t = torch.linspace(0, 3, points)
    if name == "own times":
        t = torch.rand(n, points, generator=g).cumsum(1) * 0.2
    z_e = torch.cat(
        [p.low + (p.high - p.low) * torch.rand(n, 1, generator=g) for p in expert.params], -1
    )
    size = (len(expert.states), *(8, 7, 6)[: expert.space])
    x0 = torch.rand(n, *size, generator=g) + 0.5
    u = torch.sin(2 * t).expand(n, points)[..., None] if expert.inputs else None

    def truth(time, y, args):
        force = (2 * time).sin().expand(len(y), 1) if expert.inputs else None
        rate = expert(time, y, args, force)
        loss = 0.3 * y
        if not expert.space and len(expert.states) == 2:
            loss = loss * y.new_tensor([0.0, 1.0])
        return rate - loss

    y = solve(truth, x0, t, z_e).y
    y = y * (1 + 0.01 * torch.randn(y.shape, generator=g))
    mask = None
    if "gaps" in name:
        mask = torch.rand(y.shape, generator=g) > (0.02 if expert.space else 0.2)
    if name == "hidden":
        mask = torch.tensor([True, False]).expand(y.shape)
    if mask is not None:
        y = torch.where(mask, y, torch.nan)
    known = torch.tensor([p.known for p in expert.params])
    return Batch(t=t, y=y, mask=mask, u=u, z_e=torch.where(known, z_e, torch.nan))


@pytest.fixture(params=EXPERTS)
def case(request, device, dtype):
    name = request.param
    settings = {"encoder": SMALL, **SETTINGS.get(name, {})}
    model = APHYNITY(EXPERTS[name], **settings).to(device)
    batch = simulate(name).to(model.state_sd)
    model.bind(batch, 20)
    return name, model, batch


def test_predicts_beyond_the_window(case):
    _, model, batch = case
    cut = batch.window(20)
    if batch.u is None:
        assert torch.equal(
            model.predict(None, batch.t, given=batch).y, model.predict(None, batch.t, given=cut).y
        )
    predicted = model.predict(None, batch.t, given=batch)
    assert predicted.y.shape == batch.y.shape
    assert predicted.y.isfinite().all()


def test_gradients_reach_encoder_and_residual(case):
    name, model, batch = case
    objective = "weak" if weak_fits(batch.t) and batch.mask is None else "rollout"
    for kind in {objective, "rollout"}:
        model.zero_grad()
        OBJECTIVES[kind](model, batch, 0, torch.Generator()).total.backward()
        reached = [k for k, p in model.named_parameters() if p.grad is not None]
        assert any(k.startswith("encoder") for k in reached), name
        assert any(k.startswith("residual") for k in reached), name
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in grads)


def test_a_stage_of_each_kind_trains(case):
    _, model, batch = case
    stages = (Stage(objective="rollout", steps=3, batch_size=8),)
    if model.is_fully_observed:
        stages += (Stage(objective="rollout", steps=3, batch_size=8, span=5),)
    config = FitConfig(stages=stages, window=20)
    trained, history = fit(model, batch[:16], batch[16:], config)
    assert all(row["valid"] < float("inf") for row in history.rows)
    augmenter = expert_augment(trained, batch[:16])
    again, _ = fit(
        trained,
        augmenter,
        config=FitConfig(stages=(Stage(objective="supervised", steps=3, batch_size=8, pool=40),)),
    )
    for a, b in zip(trained.decoder_parameters(), again.decoder_parameters(), strict=True):
        assert torch.equal(a, b)


def test_augmented_members_are_observed_like_the_data(case):
    _, model, batch = case
    drawn = expert_augment(model, batch).sample(6, seed=1)
    assert drawn["k"].attrs["role"] == "z_e"
    assert float(drawn["distance"].max()) > 0
    sampled = expert_augment(model, batch).draw(torch.arange(6).numpy(), 1)
    if batch.mask is not None:
        assert torch.equal(sampled.y.isnan(), ~sampled.mask)
    if batch.u is not None:
        assert sampled.u.shape == (6, 20, 1)


def test_refines(case):
    name, model, batch = case
    refined = refine(model, batch[:4], iterations=3)
    assert refined.z_e.isfinite().all()
    if name == "known":
        assert torch.equal(refined.z_e[:, 1], batch.z_e[:4, 1])
    assert model.predict(None, batch[:4].t, given=refined).y.isfinite().all()


def test_survives_the_disk(case, tmp_path):
    _, model, batch = case
    back = load_model(save_model(tmp_path / "m", model), expert=model.expert)
    assert torch.equal(back.infer(batch).z_e, model.infer(batch).z_e)


def test_known_parameters_are_taken_as_given():
    model = APHYNITY(EXPERTS["known"], encoder=SMALL)
    batch = simulate("known").to(model.state_sd)
    model.bind(batch, 20)
    assert torch.equal(model.infer(batch).z_e[:, 1], batch.z_e[:, 1])
    with pytest.raises(DataError, match=r"\(mass\) are declared as known"):
        model.infer(batch.replace(z_e=None))


def test_hidden_states_start_inside_their_range():
    model = APHYNITY(EXPERTS["hidden"], encoder=SMALL)
    batch = simulate("hidden").to(model.state_sd)
    model.bind(batch, 20)
    x0 = model.infer(batch).x0
    assert torch.equal(x0[:, 0], batch.y[:, 0, 0])
    assert (x0[:, 1].abs() <= 2.0).all()


@pytest.mark.parametrize("name", ["gaps", "field with gaps"])
def test_gaps_do_not_leak_into_the_answer(name):
    """What stands in a masked place must not matter."""
    expert = EXPERTS[name]
    model = APHYNITY(expert, encoder=SMALL, infer_x0=expert.space == 0)
    batch = simulate(name).to(model.state_sd)
    model.bind(batch, 20)
    other = batch.replace(y=batch.y.nan_to_num(1e6))
    assert torch.equal(model.infer(batch).z_e, model.infer(other).z_e)
    losses = [OBJECTIVES["rollout"](model, b, 0, torch.Generator()).total for b in (batch, other)]
    assert torch.equal(*losses)


def test_fields_infer_no_initial_state():
    with pytest.raises(UnsupportedError, match="infers no initial fields"):
        APHYNITY(EXPERTS["field"], infer_x0=True)


@pytest.mark.parametrize("decoder", ["rate", "output"])
def test_fields_keep_few_states_for_the_backward_pass(decoder):
    residual = Residual(hidden=(8,), constant=True)
    model = HybridVAE(EXPERTS["field"], decoder=decoder, residual=residual, encoder=SMALL).double()
    batch = simulate("field", n=4).to(model.state_sd)
    model.bind(batch, 20)
    model.substeps.fill_(4)
    with torch.no_grad():
        encoded = model.encode(batch)
    latents = Latents(encoded.z_e.requires_grad_(), encoded.z_a.requires_grad_())
    way, sources = model.expert_alone, [latents.z_e]
    if model.residual is not None:
        way, sources = model.reconstruct, [*latents[:2], *model.residual.parameters()]
    assert model.checkpoint == "interval"
    kept, gradients = {}, {}
    for model.checkpoint in (None, "interval"):
        found = {}

        def pack(x, found=found):
            found[x.untyped_storage().data_ptr()] = x
            return x

        with saved_tensors_hooks(pack, lambda x: x):
            y = way(batch, latents)
        kept[model.checkpoint] = sum(x.untyped_storage().nbytes() for x in found.values())
        gradients[model.checkpoint] = torch.autograd.grad(y.square().sum(), sources)
    assert kept[None] > {"rate": 100, "output": 5}[decoder] * kept["interval"]
    for plain, again in zip(*gradients.values(), strict=True):
        assert torch.equal(plain, again)


def test_only_fields_take_their_steps_again():
    for name, expert in EXPERTS.items():
        model = APHYNITY(expert, encoder=SMALL)
        assert model.checkpoint == ("interval" if expert.space else None), name


def test_log_normal_scale_is_learned():
    settings = {"noise": LogNormalNoise(floor=1e-4), "infer_x0": True}
    model = APHYNITY(EXPERTS["positive"], residual=None, **settings)
    batch = simulate("positive", n=60).to(model.state_sd)
    stages = (Stage(objective="rollout", steps=300, batch_size=40),)
    model, _ = fit(model, batch[:40], batch[40:], FitConfig(stages=stages, window=20))
    assert abs(float(model.noise_sd) - 0.01) < 0.01


def test_declared_noise_is_not_learned():
    model = APHYNITY(PLAIN, noise=GaussianNoise((0.1, 0.2)), encoder=SMALL)
    batch = simulate("plain").to(model.state_sd)
    model.bind(batch, 20)
    assert torch.allclose(model.noise_level(batch), batch.y.new_tensor([0.1, 0.2]))
