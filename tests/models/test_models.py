"""Contract of every learner, one row each: shapes, gradients, dtype, device, save and load."""

import copy

import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen import rng
from hybridgen.batch import Batch
from hybridgen.checkpoint import load_model, save_model
from hybridgen.errors import ConfigError, DataError, TrainingError, UnsupportedError
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, OBJECTIVES, Convolutional, Latents, NeuralODE, Residual
from hybridgen.params import Param, State

SMALL = Convolutional(width=4, hidden=16)
LEARNERS = {
    "aphynity": lambda: APHYNITY(pendulum.expert, encoder=SMALL),
    "aphynity, general residual": lambda: APHYNITY(
        pendulum.expert, residual=Residual(hidden=(8,), linear_in_z_a=False), encoder=SMALL
    ),
    "aphynity, two latents": lambda: APHYNITY(pendulum.expert, z_a_dim=2, encoder=SMALL),
    "aphynity, all states": lambda: APHYNITY(
        pendulum.expert, residual=Residual(acts_on=("theta", "omega")), encoder=SMALL
    ),
    "expert_only": lambda: APHYNITY(pendulum.expert, residual=None, encoder=SMALL),
    "network_only": lambda: NeuralODE(pendulum.expert.states, encoder=SMALL),
}


@pytest.fixture(scope="module")
def batch():
    return to_batch(pendulum.simulator.sample(12, seed=0), pendulum.expert)


@pytest.fixture(params=LEARNERS, ids=list(LEARNERS))
def model(request, batch, device, dtype):
    model = LEARNERS[request.param]().to(device)
    model.bind(batch.to(model.state_sd), window=50)
    return model


def test_predicts_the_whole_horizon_from_the_window(model, batch):
    predicted = model.predict(None, batch.t, given=batch)
    assert predicted.y.shape == batch.y.shape
    assert predicted.status.shape == (12,)
    assert torch.equal(predicted.y[:, 0], batch.x.to(predicted.y))
    cut = batch.window(50)
    again = model.predict(None, batch.t, given=cut)
    assert torch.equal(predicted.y, again.y), "the forecast must not see beyond the window"


def test_predicts_a_new_start_of_the_same_system(model, batch):
    x = batch.x.roll(1, 0)
    predicted = model.predict(x, batch.t[:20], given=batch)
    assert torch.equal(predicted.y[:, 0], x.to(predicted.y))
    assert torch.equal(predicted.inferred.z_a, model.infer(batch).z_a)
    with pytest.raises(DataError, match="expected one initial state for each"):
        model.predict(x[:3], batch.t, given=batch)


def test_parameters_stay_in_the_box(model, batch):
    z_e = model.infer(batch.replace(y=1e3 * batch.y)).z_e
    assert (z_e >= model.box_low).all()
    assert (z_e <= model.box_high).all()


@pytest.mark.parametrize("objective", ["weak", "rollout"])
def test_gradient_reaches_every_parameter(model, batch, objective):
    part = batch.to(model.state_sd)
    loss = OBJECTIVES[objective](model, part, 0, torch.Generator()).total
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_batch_equals_singles(model, batch):
    together = model.infer(batch)
    for i in range(3):
        alone = model.infer(batch[i : i + 1])
        assert torch.allclose(together.z_e[i], alone.z_e[0], rtol=1e-5)
        assert torch.allclose(together.z_a[i], alone.z_a[0], rtol=1e-5, atol=1e-6)


def test_save_and_load(model, batch, tmp_path):
    save_model(tmp_path / "m", model)
    back = load_model(tmp_path / "m")
    assert type(back) is type(model)
    first, second = (
        m.predict(None, batch.t, given=batch) for m in (model, back.to(model.state_sd))
    )
    assert torch.equal(first.y, second.y)


def test_weights_come_from_the_seed():
    one, same, other = (APHYNITY(pendulum.expert, encoder=SMALL, seed=s) for s in (1, 1, 2))
    weights = [m.encoder.heads[-1].weight for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_deepcopy_and_dtype_follow(model, batch):
    half = copy.deepcopy(model).float()
    assert half.predict(None, batch.t, given=batch).y.dtype == torch.float32


def test_unbound_model_says_so(batch):
    with pytest.raises(TrainingError, match="train it with fit"):
        APHYNITY(pendulum.expert).infer(batch)


def test_short_observation_says_so(batch):
    model = APHYNITY(pendulum.expert)
    model.bind(batch, window=50)
    with pytest.raises(DataError, match="has 20 points; the encoder was trained on 50"):
        model.infer(batch.window(20))


def test_constant_state_says_so(batch):
    still = batch.replace(y=torch.cat([batch.y[..., :1], 0 * batch.y[..., 1:]], -1))
    with pytest.raises(DataError, match="state 'omega' is constant in the train split"):
        APHYNITY(pendulum.expert).bind(still)


def test_residual_leaves_exact_states_alone(batch):
    model = APHYNITY(pendulum.expert, encoder=SMALL)
    model.bind(batch, window=50)
    f_a = model.f_a(batch.y, torch.ones(12, 1, 1))
    assert (f_a[..., 0] == 0).all()
    assert f_a[..., 1].abs().min() > 0


def test_linear_residual_is_linear(batch):
    with rng.scoped(0):
        network = Residual().build(("theta", "omega"), (False, True), z_a_dim=2)
    a, b = torch.tensor([1.0, 0.5]), torch.tensor([-0.3, 2.0])
    y = batch.y[:, 0]
    assert torch.allclose(network(y, 2 * a + b), 2 * network(y, a) + network(y, b))


def test_network_alone_has_no_parameters_to_report(batch):
    model = NeuralODE(pendulum.expert.states, encoder=SMALL)
    model.bind(batch, window=50)
    assert model.infer(batch).z_e.shape == (12, 0)


def test_refusals():
    with pytest.raises(UnsupportedError, match="wrap the function"):
        APHYNITY(pendulum.undamped)
    with pytest.raises(ConfigError, match="acts_on names 'thta'"):
        APHYNITY(pendulum.expert, residual=Residual(acts_on=("thta",)))
    exact = tuple(State(s.name, s.unit, exact=True) for s in pendulum.expert.states)
    with pytest.raises(ConfigError, match="acts on no state"):
        APHYNITY(ODEExpert(pendulum.undamped, exact, pendulum.expert.params))


def test_weak_form_refuses_gaps(batch):
    model = APHYNITY(pendulum.expert, encoder=SMALL)
    model.bind(batch, window=50)
    mask = torch.ones_like(batch.y, dtype=torch.bool)
    mask[0, 3] = False
    with pytest.raises(DataError, match="use the rollout objective for gaps"):
        OBJECTIVES["weak"](model, batch.replace(mask=mask), 0, torch.Generator())


def test_s0_7_1_predictor_of_a_linear_system_is_exact():
    """The expert's answer plus the residual, from an observation to a new start: closed form."""

    def decay(t, y, z_e):
        return -z_e.k[..., None] * y

    expert = ODEExpert(decay, (State("y", "m"),), (Param("k", "1/s", 0.1, 2.0),))
    model = APHYNITY(expert, residual=None, encoder=SMALL)
    t = torch.linspace(0, 2, 21)
    k = torch.tensor([[0.5], [1.0]])
    y = torch.exp(-k * t)[..., None]
    model.bind(Batch(t=t, y=y))
    x = torch.tensor([[3.0], [5.0]])
    solution = model.rollout(x, t, Latents(k, torch.zeros(2, 0)))
    assert torch.allclose(solution.y[..., 0], x * torch.exp(-k * t), atol=1e-4)
