"""A recorded field is the field, or is refused."""

import itertools

import numpy as np
import pytest
import torch

from hybridgen.integrate.lowering import lower
from hybridgen.integrate.recording import UnrecordableError, record

T, N = torch.tensor(0.3), 13


@pytest.fixture
def y():
    return torch.linspace(0.1, 2.0, 2 * N, dtype=torch.float64).reshape(N, 2)


def test_a_pendulum_is_its_operations(y):
    z = y[:, :1]

    def call(t, y):
        theta, omega = y.unbind(-1)
        return torch.stack([omega, -(z[:, 0] ** 2) * theta.sin()], -1)

    graph = record(call, T.double(), y, [z])
    assert [n.shape for n in graph.inputs] == [(), (N, 2), (N, 1)]
    assert graph.result.op == "aten.stack.default"
    assert graph.key == record(call, T.double(), y, [z]).key


def test_python_numbers_are_part_of_the_graph_and_shared_tensors_are_not(y):
    def key(number, shared):
        return record(lambda t, y: number * y + shared, T.double(), y, []).key

    shared = torch.ones(2, dtype=torch.float64)
    assert key(2.0, shared) == key(2.0, 3 * shared)
    assert key(2.0, shared) != key(3.0, shared)
    assert key(0.0, shared) != key(-0.0, shared)


def test_writing_in_place_is_recorded_as_what_it_does(y):
    def call(t, y):
        k = torch.zeros_like(y)
        k[:, 0] = y[:, 1]
        k[..., 1] -= y[:, 0]
        return k

    assert lower(record(call, T.double(), y, [])).each.count("k[") == 2


def _elsewhere():
    count = itertools.count()
    return lambda t, y: y * next(count)


class _Captured:
    values = torch.rand(N, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda t, y: torch.from_numpy(np.sin(y.numpy())), "takes numbers out"),
        (lambda t, y: y * np.asarray(y).sum(), "takes numbers out"),
        (lambda t, y: y * sum(y[0].tolist()), "takes numbers out"),
        (_elsewhere(), "other operations, or uses other numbers"),
        (lambda t, y: y if bool(y.sum() > 0) else -y, "branches"),
        (lambda t, y: y * y[0, 0].item(), "takes numbers out"),
        (lambda t, y: y * _Captured.values, "did not come as its arguments"),
    ],
    ids=["numpy", "array", "list", "elsewhere", "branch", "item", "captured"],
)
def test_what_a_graph_cannot_say_is_refused(call, reason, y):
    with pytest.raises(UnrecordableError, match=reason):
        record(call, T.double(), y, [])


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda t, y: y.cumsum(0), "cumsum"),
        (lambda t, y: y - y.mean(0), "over 13 entries"),
        (lambda t, y: y.roll(1, 0), "rearranged along the members"),
        (lambda t, y: y.reshape(-1).reshape(N, 2)[:, :1], "does not return a tensor like"),
        (lambda t, y: y.float().double(), "float32"),
        (lambda t, y: torch.rand_like(y), "rand_like"),
    ],
    ids=["cumsum", "mean", "roll", "shape", "dtype", "random"],
)
def test_what_the_compiler_does_not_know_is_refused(call, reason, y):
    with torch.random.fork_rng(), pytest.raises(UnrecordableError, match=reason):
        lower(record(call, T.double(), y, []))
