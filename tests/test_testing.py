"""check_expert finds what is wrong with a user's function, and says what to write."""

import numpy as np
import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen.errors import ExpertError, ParameterError, ShapeError
from hybridgen.expert import Expert, ODEExpert
from hybridgen.params import Param, State
from hybridgen.testing import check_expert

STATES = (State("h", "m"), State("T", "K"))
PARAMS = (Param("k", "1/s", 0.1, 1.0), Param("g", "1/s", 0.1, 1.0))


def good(t, y, z_e):
    h, T = y.unbind(-1)
    return torch.stack([-z_e.k * h, z_e.g * (h - T)], dim=-1)


def wrong_shape(t, y, z_e):
    return -z_e.k * y[..., 0] + 0 * z_e.g


def wrong_dtype(t, y, z_e):
    return good(t, y, z_e).float()


def mutates(t, y, z_e):
    y[..., 0] = 0.0
    return good(t, y, z_e)


def draws(t, y, z_e):
    return good(t, y, z_e) + torch.rand(())


def raises(t, y, z_e):
    raise RuntimeError("no such pump")


def misspells(t, y, z_e):
    return good(t, y, z_e) * z_e.kk


def returns_list(t, y, z_e):
    return [y, y]


def mixes_members(t, y, z_e):
    return good(t, y, z_e) + y.mean(0)


def no_gradient(t, y, z_e):
    return good(t, y, z_e).detach()


def ignores_g(t, y, z_e):
    return -z_e.k[..., None] * y


def infinite(t, y, z_e):
    return good(t, y, z_e) / (y - y)


FAULTS = [
    (wrong_shape, "call", r"returned shape \(8,\) for y \(8, 2\).*torch.stack\(\[dh, dT\]"),
    (wrong_dtype, "dtype", r"float64 in, torch.float32 out"),
    (mutates, "mutation", r"y was changed in place"),
    (draws, "determinism", r"must not draw numbers"),
    (raises, "call", r"raised RuntimeError: no such pump \(line \d+"),
    (misspells, "call", r"no parameter 'kk'; did you mean 'k'"),
    (returns_list, "call", r"returned list; return one tensor"),
    (mixes_members, "batching", r"never mix members"),
    (no_gradient, "gradients", r"no gradient reaches y or z_e; compute with torch"),
    (ignores_g, "gradients", r"does not depend on g"),
    (infinite, "call", r"not finite in h, T"),
]


def test_good_expert_passes():
    report = check_expert(ODEExpert(good, STATES, PARAMS))
    assert report.passed, str(report)
    assert [c.name for c in report.checks][:2] == ["call", "mutation"]
    assert "us a call" in report.checks[-1].detail


@pytest.mark.parametrize(
    ("field", "name", "message"), FAULTS, ids=lambda v: getattr(v, "__name__", "")
)
def test_faults_are_named(field, name, message):
    report = check_expert(ODEExpert(field, STATES, PARAMS))
    assert not report.passed
    failed = {c.name: c.detail for c in report.checks if not c.passed}
    assert name in failed
    with pytest.raises(ExpertError, match=message):
        report.raise_if_failed()


def test_plain_function_is_told_how_to_be_wrapped():
    with pytest.raises(ExpertError, match=r"wrap the function: ODEExpert\(f, states="):
        check_expert(good)


def test_simulators_pass():
    assert check_expert(pendulum.expert).passed
    assert check_expert(pendulum.truth).passed


def test_declaration_errors():
    with pytest.raises(ParameterError, match="declared twice: k"):
        ODEExpert(good, (State("k", "m"),), PARAMS)
    with pytest.raises(ParameterError, match="at least one state"):
        ODEExpert(good, (), PARAMS)
    with pytest.raises(ExpertError, match=r"write params=\(Param\("):
        ODEExpert(good, STATES, ("k",))
    with pytest.raises(ExpertError, match="give a function"):
        ODEExpert("good", STATES, PARAMS)


def test_wrong_state_shape_names_the_states():
    expert = ODEExpert(good, STATES, PARAMS)
    with pytest.raises(ShapeError, match=r"shape \(4, 3\); expected \(\*B, 2\).*'h', 'T'"):
        expert(0.0, torch.zeros(4, 3), torch.zeros(4, 2))


def test_inputs_are_asked_for():
    def filled(t, y, z_e, u):
        return z_e.k[..., None] * y + u.q[..., None]

    expert = ODEExpert(filled, (State("h", "m"),), PARAMS[:1], inputs=(State("q", "m/s"),))
    with pytest.raises(ParameterError, match=r"declares the inputs \(q\)"):
        expert(0.0, torch.ones(3, 1), torch.ones(3, 1))
    assert check_expert(expert).passed


# -- black boxes ------------------------------------------------------------------------------


def numpy_good(t, y, z_e):
    return np.stack([-z_e.k * y[..., 0], z_e.g * (y[..., 0] - y[..., 1])], axis=-1)


def numpy_wrong_shape(t, y, z_e):
    return -z_e.k * y[..., 0] + 0 * z_e.g


def numpy_list(t, y, z_e):
    return [y[..., 0], y[..., 1]]


def numpy_draws(t, y, z_e):
    return numpy_good(t, y, z_e) + np.random.rand()  # noqa: NPY002


def numpy_mixes(t, y, z_e):
    return numpy_good(t, y, z_e) + y.mean(0)


def numpy_ignores_g(t, y, z_e):
    return -z_e.k[..., None] * y if np.ndim(z_e.k) else -z_e.k * y


def numpy_raises(t, y, z_e):
    raise FileNotFoundError("no licence for the flow solver")


NUMPY_FAULTS = [
    (numpy_wrong_shape, "call", r"returned shape \(8,\) .* np.stack\(\[dh, dT\], axis=-1\)"),
    (numpy_list, "call", r"returned list; return one array of real numbers .*\(8, 2\)"),
    (numpy_draws, "determinism", "must not draw numbers"),
    (numpy_mixes, "batching", "never mix members"),
    (numpy_ignores_g, "gradients", "nothing depends on g"),
    (numpy_raises, "call", r"raised FileNotFoundError: no licence .* \(line \d+"),
]


def test_an_expert_in_numpy_passes_without_gradients():
    report = check_expert(ODEExpert(numpy_good, STATES, PARAMS, backend="numpy"))
    assert report.passed, str(report)
    said = {c.name: c.detail for c in report.checks}
    assert said["gradients"].startswith("not available, as the function is in numpy")


@pytest.mark.parametrize(
    ("field", "name", "message"), NUMPY_FAULTS, ids=lambda v: getattr(v, "__name__", "")
)
def test_faults_in_numpy_are_named(field, name, message):
    report = check_expert(ODEExpert(field, STATES, PARAMS, backend="numpy"))
    assert name in [c.name for c in report.checks if not c.passed]
    with pytest.raises(ExpertError, match=message):
        report.raise_if_failed()


def test_a_function_of_one_member_passes():
    def one(t, y, z_e):
        return [-z_e.k * y[0], z_e.g * (y[0] - y[1])]

    report = check_expert(ODEExpert(one, STATES, PARAMS, backend="numpy", vectorised=False))
    assert report.passed, str(report)


def test_parameters_that_multiply_time_or_inputs_matter():
    def driven(t, y, z_e, u):
        return (z_e.k * u.q + z_e.g * t)[..., None] + 0 * y

    expert = ODEExpert(driven, (State("h", "m"),), PARAMS, inputs=(State("q", "m/s"),))
    assert check_expert(expert).passed


# -- experts that are no differential equation ------------------------------------------------


def response(x, z_e):
    return z_e.k * x.s.exp() + z_e.g


def root(x, z_e):
    return z_e.k * (x.s - 5.0).sqrt() + z_e.g


def _static(function, **settings):
    axis = State("s", "nm", low=4.0, high=9.0)
    return Expert(function, (axis,), (State("a", "1"),), PARAMS, **settings)


STATIC_FAULTS = [
    (root, "call", r"not finite in a at points inside the declared ranges"),
    (lambda x, z_e: z_e.k * x.s, "gradients", "the response does not depend on g"),
    (lambda x, z_e: response(x, z_e)[:, :3], "call", r"return \(8, 16, 1\): at each point"),
    (lambda x, z_e: response(x, z_e).sum(0) + 0 * x.s, "batching", "never mix members"),
]


def test_a_response_passes():
    report = check_expert(_static(response))
    assert report.passed, str(report)
    assert report.checks[0].detail == "the response has shape (8, 16, 1) and is finite"


@pytest.mark.parametrize(("function", "name", "message"), STATIC_FAULTS)
def test_faults_of_responses_are_named(function, name, message):
    report = check_expert(_static(function))
    assert name in [c.name for c in report.checks if not c.passed]
    with pytest.raises(ExpertError, match=message):
        report.raise_if_failed()


def test_points_can_be_given():
    at = torch.linspace(5.5, 9.0, 12).expand(8, 12)
    assert check_expert(_static(root), y0=at).passed
