"""Laplacians and derivatives: exact eigenvalues, order of convergence, symmetry, refusals."""

import itertools
import math

import pytest
import torch

from hybridgen.errors import ConfigError, ParameterError, ShapeError
from hybridgen.operators import derivative, laplacian

DOUBLE = torch.float64
BOUNDARIES = ("periodic", "neumann", "dirichlet")


def wave(boundary, n, k):
    """An eigenvector of the second difference on n points and its eigenvalue times h^2."""
    j = torch.arange(n, dtype=DOUBLE)
    if boundary == "periodic":
        return torch.cos(2 * math.pi * k * j / n + 0.3), -4 * math.sin(math.pi * k / n) ** 2
    if boundary == "neumann":
        return torch.cos(math.pi * k * (j + 0.5) / n), -4 * math.sin(math.pi * k / 2 / n) ** 2
    angle = math.pi * (k + 1) / (n + 1)
    return torch.sin(angle * (j + 1)), -4 * math.sin(angle / 2) ** 2


def field(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_s0_7_10_laplacian_eigenvalues(boundary):
    h = 2.0 / 32
    for k in range(0, 17, 4):
        for m in (1, 5, 16):
            (row, a), (column, b) = wave(boundary, 32, k), wave(boundary, 32, m)
            u = row[:, None] * column
            eigenvalue = (a + b) / h**2
            error = (laplacian(u, h, boundary) - eigenvalue * u).abs().max() / abs(eigenvalue)
            assert error < 1e-12


def test_s0_7_10_laplacian_has_order_two():
    def error(n):
        x = 2 * torch.arange(n, dtype=DOUBLE) / n
        u = torch.exp(torch.sin(math.pi * x))[:, None] * torch.cos(2 * math.pi * x)
        s, c = torch.sin(math.pi * x), torch.cos(math.pi * x)
        curvature = math.pi**2 * (c**2 - s) * s.exp()
        exact = (curvature - (2 * math.pi) ** 2 * s.exp())[:, None] * torch.cos(2 * math.pi * x)
        return float((laplacian(u, 2 / n) - exact).abs().max())

    errors = [error(n) for n in (32, 64, 128)]
    for coarse, fine in itertools.pairwise(errors):
        assert abs(math.log2(coarse / fine) - 2.0) < 0.1


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_any_number_of_axes_and_spacings(boundary):
    shape, steps, k = (5, 6, 7), (0.1, 0.2, 0.3), (1, 2, 3)
    waves = [wave(boundary, n, m) for n, m in zip(shape, k, strict=True)]
    u = waves[0][0][:, None, None] * waves[1][0][:, None] * waves[2][0]
    eigenvalue = sum(w[1] / h**2 for w, h in zip(waves, steps, strict=True))
    assert torch.allclose(laplacian(u, steps, boundary, axes=3), eigenvalue * u)
    row, eigenvalue = waves[2]
    assert torch.allclose(laplacian(row, 0.3, boundary, axes=1), eigenvalue / 0.09 * row)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_symmetric_and_conservative(boundary):
    u, v = field(6, 7), field(6, 7, seed=1)
    a, b = (laplacian(w, (0.5, 0.25), boundary) for w in (u, v))
    assert torch.allclose((v * a).sum(), (u * b).sum())
    if boundary != "dirichlet":  # nothing leaves
        assert abs(a.sum()) < 1e-10
    assert (u * a).sum() < 0


def test_batched_equals_singles_also_in_transforms():
    u = field(3, 2, 8, 8)
    batched = laplacian(u, 0.1)
    singles = torch.stack([torch.stack([laplacian(c, 0.1) for c in member]) for member in u])
    assert torch.equal(batched, singles)
    mapped = torch.func.vmap(lambda w: laplacian(w, 0.1))(u)
    assert torch.equal(batched, mapped)
    tangent = torch.func.jvp(lambda w: laplacian(w, 0.1), (u,), (u,))[1]
    assert torch.equal(batched, tangent)  # it is linear


def test_derivative_of_waves():
    n, k = 32, 3
    h, j = 2.0 / n, torch.arange(n, dtype=DOUBLE)
    angle = 2 * math.pi * k / n
    exact = -math.sin(angle) / h * torch.sin(angle * j)
    u = torch.cos(angle * j)
    assert torch.allclose(derivative(u, h), exact, atol=1e-10)
    columns = derivative(u[:, None].expand(n, 4), h, axis=-2)
    assert torch.equal(columns, derivative(u, h)[:, None].expand(n, 4))


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_dtype_and_device_follow_the_field(boundary, device):
    u = field(4, 5, dtype=torch.float32).to(device)
    for function in (laplacian, derivative):
        got = function(u, 0.5, boundary)
        assert got.dtype == u.dtype
        assert got.device == u.device
        assert torch.allclose(got, function(u.double(), 0.5, boundary).float(), atol=1e-4)


def test_derivative_at_the_ends():
    u = torch.tensor([1.0, 2.0, 4.0])
    assert derivative(u, 0.5, "neumann").tolist() == [1.0, 3.0, 2.0]
    assert derivative(u, 0.5, "dirichlet").tolist() == [2.0, 3.0, -2.0]
    assert derivative(u, 0.5, "periodic").tolist() == [-2.0, 3.0, -1.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda u: laplacian(u, 0.1, "periodc"), ConfigError, "did you mean 'periodic'"),
        (lambda u: laplacian(u, 0.0), ParameterError, "spacing is 0.0; give a positive"),
        (lambda u: laplacian(u, (0.1,) * 3), ParameterError, "3 numbers for 2 axes"),
        (lambda u: laplacian(u, 0.1, axes=3), ShapeError, r"shape \(4, 4\), but axes=3"),
        (lambda u: laplacian(u[:1], 0.1), ShapeError, r"shape \(1, 4\), one point along axis -2"),
        (lambda u: derivative(u, 0.1, axis=0), ShapeError, "count it from the right"),
        (lambda u: derivative(u, float("nan")), ParameterError, "spacing is nan"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.zeros(4, 4))
