"""Experts as functions: in torch or numpy, for a batch or for one member, ODE or not."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen import expert_augment, fit, refine
from hybridgen.errors import ExpertError, GradientError, HybridgenError, ParameterError, ShapeError
from hybridgen.expert import Expert, ODEExpert
from hybridgen.forward import directional
from hybridgen.integrate import Status, solve
from hybridgen.io import to_batch
from hybridgen.locating import expert_of
from hybridgen.models import APHYNITY, Convolutional, Inferred, Residual
from hybridgen.params import Param, State
from hybridgen.testing import check_expert
from hybridgen.train import FitConfig, Stage

OMEGA0 = Param("omega0", "rad/s", 0.5, 3.5)
ALPHA = Param("alpha", "1/s", 0.0, 3.0)


def in_numpy(t, y, z):
    theta, omega = y[..., 0], y[..., 1]
    return np.stack([omega, -(z.omega0**2) * np.sin(theta) - z.alpha * omega], axis=-1)


def of_one(t, y, z):
    assert isinstance(z.omega0, float)
    assert y.shape == (2,)
    return [y[1], -(z.omega0**2) * math.sin(y[0]) - z.alpha * y[1]]


def of_one_in_torch(t, y, z):
    return torch.stack([y[1], -(z.omega0**2) * y[0].sin() - z.alpha * y[1]])


STATES = pendulum.truth.states
NUMPY = ODEExpert(in_numpy, STATES, (OMEGA0, ALPHA), backend="numpy")
ONE = ODEExpert(of_one, STATES, (OMEGA0, ALPHA), backend="numpy", vectorised=False)
ONE_TORCH = ODEExpert(of_one_in_torch, STATES, (OMEGA0, ALPHA), vectorised=False)
ALL = pytest.mark.parametrize("expert", [NUMPY, ONE, ONE_TORCH], ids=["numpy", "one", "one_torch"])
BLACK = pytest.mark.parametrize("expert", [NUMPY, ONE], ids=["numpy", "one"])


def points(*batch, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(*batch, 2, generator=generator, dtype=dtype)
    z = torch.rand(*batch, 2, generator=generator, dtype=dtype) + 0.5
    return y, z


@ALL
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_black_boxes_say_what_the_truth_says(expert, batch, kind):
    y, z = points(*batch, dtype=kind)
    for t in (0.0, torch.tensor(1.0), torch.ones(batch)):
        dy = expert(t, y, z)
        assert dy.dtype == kind
        assert dy.shape == y.shape
        assert torch.allclose(dy, pendulum.truth(t, y, z), rtol=1e-6)


@ALL
def test_parameters_broadcast(expert):
    (y, _), (_, z) = points(4, 7), points(4, 1)
    assert torch.allclose(expert(0.0, y, z), pendulum.truth(0.0, y, z))


@ALL
def test_solve_gives_the_same_trajectories(expert):
    y, z = points(6)
    t = torch.linspace(0, 3, 31)
    ours, truth = solve(expert, y, t, z), solve(pendulum.truth, y, t, z)
    assert torch.allclose(ours.y, truth.y, rtol=1e-10, atol=1e-12)
    assert ours.ok.all()


def test_members_have_times_and_inputs_of_their_own():
    def pushed(t, y, z, u):
        return z.k * y + u.q * t

    one = ODEExpert(
        pushed,
        (State("y", "m"),),
        (Param("k", "1/s", 0, 1),),
        (State("q", "m/s^2"),),
        backend="numpy",
        vectorised=False,
    )
    t, u = torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [4.0]])
    dy = one(t, torch.ones(2, 1), torch.tensor([[0.5], [0.25]]), u)
    assert dy.tolist() == [[3.5], [8.25]]
    with pytest.raises(ParameterError, match=r"declares the inputs \(q\)"):
        one(t, torch.ones(2, 1), torch.ones(2, 1))


@pytest.mark.parametrize("vectorised", [True, False])
def test_fields_keep_their_axes(vectorised):
    def decay(t, y, z):
        u, v = y[..., 0, :, :], y[..., 1, :, :]
        return np.stack([-z.a * u, -z.b * v * t], axis=-3)

    states = (State("u", "1"), State("v", "1"))
    params = (Param("a", "1/s", 0, 1), Param("b", "1/s", 0, 1))
    expert = ODEExpert(decay, states, params, space=2, backend="numpy", vectorised=vectorised)
    y, z = torch.ones(3, 2, 4, 5), torch.tensor([[1.0, 2.0]] * 3)
    dy = expert(torch.tensor([1.0, 2.0, 3.0]), y, z)
    assert dy.shape == y.shape
    assert dy[:, :, 0, 0].tolist() == [[-1.0, -2.0], [-1.0, -4.0], [-1.0, -6.0]]
    assert check_expert(expert).passed


@BLACK
def test_gradients_are_refused_with_a_way_out(expert):
    y, z = points(3)
    for y_, z_ in ((y.clone().requires_grad_(), z), (y, z.clone().requires_grad_())):
        with pytest.raises(
            GradientError, match=r"a gradient is wanted.*Simulator\.sample.*refine"
        ):
            expert(0.0, y_, z_)
        with pytest.raises(GradientError, match="write it in torch"):
            solve(expert, y_, torch.linspace(0, 1, 3), z_)
        with torch.no_grad():
            assert torch.equal(expert(0.0, y_, z_), expert(0.0, y, z))
    with pytest.raises(GradientError, match="a gradient is wanted"):
        directional(lambda v: expert(0.0, y, v), z, torch.ones(2))
    with pytest.raises(GradientError, match=r"inside a torch\.func transform"):
        torch.func.vmap(lambda a, b: expert(0.0, a, b))(y, z)
    with pytest.raises(GradientError, match=r"torch\.func transform|gradient is wanted"):
        torch.func.jvp(lambda v: expert(0.0, y, v), (z,), (z,))
    assert issubclass(GradientError, HybridgenError)
    assert issubclass(GradientError, TypeError)


def test_torch_of_one_member_has_gradients():
    y, z = points(3)
    z.requires_grad_()
    for expert in (ONE_TORCH, pendulum.truth):
        (grad,) = torch.autograd.grad(expert(0.0, y, z).pow(2).sum(), z)
        assert torch.allclose(grad, pendulum_gradient(y, z))


def pendulum_gradient(y, z):
    z = z.detach().requires_grad_()
    theta, omega = y.unbind(-1)
    rate = -(z[:, 0] ** 2) * theta.sin() - z[:, 1] * omega
    return torch.autograd.grad((rate.pow(2)).sum(), z)[0]


@BLACK
def test_a_simulator_draws_from_a_black_box(expert):
    short = dataclasses.replace(pendulum.simulator, times=np.linspace(0, 2, 21), window=20)
    ours = dataclasses.replace(short, truth=expert).sample(4, seed=0)
    truth = short.sample(4, seed=0)
    assert np.allclose(ours["y"], truth["y"], rtol=1e-9, atol=1e-10)


def undamped(t, y, z):
    return np.stack([y[..., 1], -(z.omega0**2) * np.sin(y[..., 0])], axis=-1)


@pytest.fixture(scope="module")
def hybrid():
    """A hybrid with an expert in numpy, bound to data but not trained."""
    data = pendulum.simulator.sample(16, seed=0)
    expert = ODEExpert(undamped, STATES, (OMEGA0,), backend="numpy")
    model = APHYNITY(expert, residual=Residual(hidden=(4,)), encoder=Convolutional(2, 4))
    model.bind(to_batch(data, expert), window=50)
    return model, data


def test_augmentation_runs_on_a_black_box(hybrid):
    model, data = hybrid
    made = expert_augment(model, data, {"omega0": (0.5, 1.0)}).sample(3, seed=0)
    assert made["y"].shape == (3, 50, 2)
    assert np.isfinite(made["y"]).all()
    assert made["omega0"].max() <= 1.0


def test_training_on_a_black_box_is_refused(hybrid):
    model, data = hybrid
    valid = pendulum.simulator.sample(4, seed=0, split="valid")
    with pytest.raises(GradientError, match="expert 'undamped' is written in numpy"):
        fit(model, data, valid, FitConfig(stages=(Stage("rollout", 1, batch_size=4),)))


def test_refinement_needs_no_gradient():
    data = pendulum.simulator.sample(5, seed=0)
    found = []
    for expert in (pendulum.truth, NUMPY):
        batch = to_batch(data, expert)
        model = APHYNITY(expert, residual=None, encoder=Convolutional(2, 4))
        model.bind(batch, window=50)
        start = Inferred(1.03 * batch.z_e, batch.y.new_zeros(5, 0), batch.x)
        found.append(refine(model, batch, start=start, iterations=4).z_e)
    assert torch.allclose(*found, rtol=1e-6)


def test_one_member_that_overflows_harms_nobody():
    def grows(t, y, z):
        return [z.k * math.exp(y[0])]

    expert = ODEExpert(
        grows, (State("y", "1"),), (Param("k", "1/s", 0, 2),), backend="numpy", vectorised=False
    )
    rate = expert(0.0, torch.tensor([[0.0], [1000.0]]), torch.ones(2, 1))
    assert rate[0] == 1.0
    assert rate[1].isnan()
    # y = -ln(1 - k t): the second member blows up at t = 0.5
    t, k = torch.linspace(0, 0.9, 10), torch.tensor([[1.0], [2.0]])
    out = solve(expert, torch.zeros(2, 1), t, k, max_substeps=32)
    assert out.ok.tolist() == [True, False]
    assert out.status[1] in (Status.diverged, Status.nonfinite, Status.max_steps)
    assert abs(float(out.y[0, -1, 0]) + math.log(0.1)) < 1e-4


def test_overflow_in_numpy_is_no_warning():
    def overflows(t, y, z):
        return np.exp(1e3 * y)

    expert = ODEExpert(overflows, (State("y", "1"),), (), backend="numpy")
    assert expert(0.0, torch.ones(2, 1), torch.zeros(2, 0)).isinf().all()


def test_a_function_that_reuses_its_memory_or_writes_to_its_arguments():
    buffer = np.zeros((3, 2))

    def reuses(t, y, z):
        y *= 2.0
        buffer[:] = y
        return buffer

    expert = ODEExpert(reuses, STATES, (), backend="numpy")
    y = torch.ones(3, 2)
    first = expert(0.0, y, torch.zeros(3, 0))
    expert(0.0, 5 * y, torch.zeros(3, 0))
    assert torch.equal(first, 2 * y)
    assert torch.equal(y, torch.ones(3, 2))
    buffer = np.zeros(2)
    alone = ODEExpert(reuses, STATES, (), backend="numpy", vectorised=False)
    y = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(alone(0.0, y, torch.zeros(3, 0)), 2 * y)


RETURNS = [
    (lambda t, y, z: [y, y], True, r"returned list; return one array .*\(3, 2\) \(np\.stack"),
    (lambda t, y, z: None, True, "returned NoneType; return one array of real numbers"),
    (lambda t, y, z: y * 1j, True, "returned an array of complex128"),
    (lambda t, y, z: torch.ones(3, 2), True, "returned Tensor; return one array"),
    (lambda t, y, z: None, False, "returned NoneType"),
    (lambda t, y, z: [1.0], False, r"returned shape \(1,\) for one member; return \(2,\)"),
    (lambda t, y, z: [1.0, [2.0, 3.0]], False, r"a list that makes no array .* return \(2,\)"),
    (lambda t, y, z: ["a", "b"], False, "returned an array of <U1"),
]


@pytest.mark.parametrize(("field", "vectorised", "message"), RETURNS)
def test_what_a_function_in_numpy_returns_is_looked_at(field, vectorised, message):
    expert = ODEExpert(field, STATES, (OMEGA0,), backend="numpy", vectorised=vectorised)
    with pytest.raises(ExpertError, match=message):
        expert(0.0, torch.ones(3, 2), torch.ones(3, 1))


def test_numpy_without_a_declaration_is_told_of_it():
    expert = ODEExpert(lambda t, y, z: np.ones((3, 2)), STATES, (OMEGA0,))
    with pytest.raises(ExpertError, match=r"returned ndarray; .* or declare backend='numpy'"):
        expert(0.0, torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(ExpertError, match="backend is 'np'; write 'torch' or 'numpy'"):
        ODEExpert(undamped, STATES, (OMEGA0,), backend="np")


@BLACK
def test_misspelt_parameters_and_wrong_shapes(expert):
    with pytest.raises(ShapeError, match=r"shape \(4, 3\)"):
        expert(0.0, torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ShapeError, match=r"shape \(4, 1\); expected \(\*B, 2\)"):
        expert(0.0, torch.zeros(4, 2), torch.zeros(4, 1))
    wrong = dataclasses.replace(expert, params=(Param("omega1", "rad/s", 0, 1), ALPHA))
    with pytest.raises(AttributeError, match="no parameter 'omega0'; did you mean 'omega1'"):
        wrong(0.0, *points(2))


# -- experts that are no differential equation ------------------------------------------------


def bands(x, z):
    """Two lines and their sum: outputs `p` and `q`."""
    p = z.a * x.s + z.b
    return torch.stack([p, p + x.shift], dim=-1)


def bands_in_numpy(x, z):
    p = z.a * x.s + z.b
    return np.stack([p, p + x.shift], axis=-1)


INPUTS = (State("s", "nm", low=0.0, high=2.0), State("shift", "1"))
OUTPUTS = (State("p", "1"), State("q", "1"))
PARAMS = (Param("a", "1/nm", 0.0, 1.0), Param("b", "1", 0.0, 1.0))
TORCH_BANDS = Expert(bands, INPUTS, OUTPUTS, PARAMS)


@pytest.mark.parametrize(
    "expert",
    [
        TORCH_BANDS,
        dataclasses.replace(TORCH_BANDS, vectorised=False),
        Expert(bands_in_numpy, INPUTS, OUTPUTS, PARAMS, backend="numpy"),
        Expert(bands_in_numpy, INPUTS, OUTPUTS, PARAMS, backend="numpy", vectorised=False),
    ],
    ids=["torch", "one_torch", "numpy", "one_numpy"],
)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_expert_closed_form(expert, batch, own):
    s = torch.linspace(0, 2, 5)
    z = torch.arange(2.0 * math.prod(batch)).reshape(*batch, 2) + 1.0
    u = torch.ones(*batch, 5, 1)
    y = expert(s.expand(*batch, 5) if own else s, z, u)
    p = z[..., :1] * s + z[..., 1:]
    assert torch.allclose(y, torch.stack([p, p + 1.0], dim=-1))
    assert y.dtype == z.dtype
    assert check_expert(expert).passed


def test_a_single_output_may_lack_its_axis():
    def line(x, z):
        return z.a * x.s

    expert = Expert(line, INPUTS[:1], OUTPUTS[:1], PARAMS[:1])
    alone = dataclasses.replace(expert, vectorised=False)
    s, z = torch.linspace(0, 2, 5), torch.ones(3, 1)
    assert expert(s, z).shape == alone(s, z).shape == (3, 5, 1)
    assert torch.equal(expert(s, z), alone(s, z))


def test_expert_is_read_as_an_ode_expert_is():
    expert = TORCH_BANDS
    assert expert.states == expert.outputs == OUTPUTS
    assert expert.axis == INPUTS[0]
    assert expert.inputs == INPUTS[1:]
    assert expert.state_names == ("p", "q")
    assert expert.param_names == ("a", "b")
    assert expert.space == 0
    assert expert.name == expert.function.__name__ == "bands"
    assert pendulum.expert.function is pendulum.expert.field
    renamed = dataclasses.replace(expert, params=(PARAMS[0], Param("c", "1", 0.0, 1.0)))
    assert (renamed.axis, renamed.inputs) == (expert.axis, expert.inputs)
    assert dataclasses.replace(expert) == expert
    assert expert_of(expert, "mine") is expert


def test_expert_without_gradient_says_so():
    expert = Expert(bands_in_numpy, INPUTS, OUTPUTS, PARAMS, backend="numpy")
    s, z, u = torch.linspace(0, 2, 5), torch.ones(3, 2), torch.ones(3, 5, 1)
    with pytest.raises(GradientError, match="expert 'bands_in_numpy' is written in numpy"):
        expert(s, z.requires_grad_(), u)


def test_expert_declarations_are_checked():
    with pytest.raises(ParameterError, match=r"needs the axis .* inputs=\(State\("):
        Expert(bands, (), OUTPUTS, PARAMS)
    with pytest.raises(ParameterError, match="needs an output"):
        Expert(bands, INPUTS, (), PARAMS)
    with pytest.raises(ParameterError, match="declared twice: s"):
        Expert(bands, INPUTS, (State("s", "1"),), PARAMS)
    with pytest.raises(ExpertError, match=r"function; give a function f\(x, z_e\)"):
        Expert("bands", INPUTS, OUTPUTS, PARAMS)
    with pytest.raises(ParameterError, match=r"declares the inputs \(shift\)"):
        TORCH_BANDS(torch.ones(5), torch.ones(3, 2))


def test_a_response_of_the_wrong_shape_is_told():
    def wrong(x, z):
        return x.s + z.a

    expert = Expert(wrong, INPUTS[:1], OUTPUTS, PARAMS)
    with pytest.raises(ExpertError, match=r"returned shape \(3, 5\); return \(3, 5, 2\): at each"):
        expert(torch.ones(5), torch.ones(3, 2))
    alone = dataclasses.replace(expert, vectorised=False)
    with pytest.raises(
        ExpertError, match=r"returned shape \(5,\) for one member; return \(5, 2\)"
    ):
        alone(torch.ones(5), torch.ones(3, 2))
