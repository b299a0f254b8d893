"""Laplacians and derivatives: exact eigenvalues, order of convergence, symmetry, refusals."""

import itertools
import math

import pytest
import torch

from hybridgen.errors import ConfigError, ParameterError, ShapeError
from hybridgen.operators import derivative, gradient, laplacian, waves

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


@pytest.mark.parametrize("axes", [1, 2])
def test_order_four_on_a_periodic_grid(axes):
    def errors(n):
        x = 2 * torch.arange(n, dtype=DOUBLE) / n
        s, c = torch.sin(math.pi * x), torch.cos(math.pi * x)
        row, slope, bend = s.exp(), math.pi * c * s.exp(), math.pi**2 * (c**2 - s) * s.exp()
        if axes == 1:
            u, flat, first = row, bend, slope
        else:
            u = row[:, None] * row
            flat, first = bend[:, None] * row + row[:, None] * bend, row[:, None] * slope
        found = laplacian(u, 2 / n, axes=axes, order=4), derivative(u, 2 / n, order=4)
        return [float((a - b).abs().max()) for a, b in zip(found, (flat, first), strict=True)]

    for coarse, fine in zip(errors(48), errors(96), strict=True):
        assert abs(math.log2(coarse / fine) - 4.0) < 0.1


def walled(boundary, n, even=False):
    """A row with its spacing on [0, 1], u that keeps the boundary condition, u' and u''.

    With `even`, further derivatives vanish at the ends, too, as those of the waves do.
    """
    if boundary == "neumann":
        x = (torch.arange(n, dtype=DOUBLE) + 0.5) / n
        if even:
            c, s = torch.cos(math.pi * x), torch.sin(math.pi * x)
            first = -math.pi * s * c.exp()
            return 1 / n, x, c.exp(), first, math.pi**2 * (s**2 - c) * c.exp()
        return 1 / n, x, x**2 * (3 - 2 * x), 6 * x * (1 - x), 6 - 12 * x
    x = (torch.arange(n, dtype=DOUBLE) + 1) / (n + 1)
    return 1 / (n + 1), x, x * (1 - x) * x.exp(), (1 - x - x**2) * x.exp(), -x * (x + 3) * x.exp()


@pytest.mark.parametrize(
    ("boundary", "even"), [("neumann", True), ("dirichlet", False)], ids=["neumann", "dirichlet"]
)
def test_order_two_between_walls(boundary, even):
    def errors(n):
        h, _, u, first, second = walled(boundary, n, even)
        row = torch.ones(3, dtype=DOUBLE)[:, None] * u
        flat = laplacian(row, (0.1, h), ("periodic", boundary)) - second
        slope = derivative(u, h, boundary) - first
        return [float(e.abs().max()) for e in (flat, slope)]

    for coarse, fine in zip(
        errors(40), errors(81 if boundary == "dirichlet" else 80), strict=True
    ):
        assert abs(math.log2(coarse / fine) - 2.0) < 0.1


def test_order_of_the_ends_without_flux():
    """Of first order at the two ends, of second for the solution of Poisson's equation."""

    def errors(n):
        h, _, u, _, second = walled("neumann", n)
        values, vectors = waves(n, h, "neumann")
        amplitude = torch.where(values < -1e-9, (second @ vectors) / values, 0.0)
        solution = vectors @ amplitude
        error = laplacian(u, h, "neumann", axes=1) - second
        solved = solution - solution.mean() - (u - u.mean())
        return [float(e.abs().max()) for e in (error, error[1:-1], solved)]

    for coarse, fine, order in zip(errors(40), errors(80), (1.0, None, 2.0), strict=True):
        if order is None:
            assert coarse < 1e-10  # a cubic: exact inside
        else:
            assert abs(math.log2(coarse / fine) - order) < 0.1


@pytest.mark.parametrize("n", [2, 3, 8, 9])
@pytest.mark.parametrize(
    ("boundary", "order"), [("periodic", 2), ("periodic", 4), ("neumann", 2), ("dirichlet", 2)]
)
def test_waves(boundary, order, n):
    values, vectors = waves(n, 0.3, boundary, order=order)
    torch.testing.assert_close(
        vectors.mT @ vectors, torch.eye(n, dtype=DOUBLE), atol=1e-13, rtol=0
    )
    kept = laplacian(vectors.mT, 0.3, boundary, axes=1, order=order).mT
    torch.testing.assert_close(kept, vectors * values, atol=1e-11, rtol=0)
    assert (
        waves(n, 0.3, boundary, like=torch.zeros(1, dtype=torch.float32))[1].dtype == torch.float32
    )


@pytest.mark.parametrize("order", [2, 4])
def test_compiled_or_not_is_the_same(order, monkeypatch):
    u = field(3, 7, 6)
    eager = [f(u, 0.3, order=order) for f in (laplacian, derivative)]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for f, expected in zip((laplacian, derivative), eager, strict=True):
        assert torch.equal(f(u, 0.3, order=order), expected)


def test_gradient_and_its_divergence():
    u, steps = field(2, 6, 8), (0.5, 0.25)
    slopes = gradient(u, steps, ("neumann", "periodic"))
    assert slopes.shape == (2, 2, 6, 8)
    assert torch.equal(slopes[:, 0], derivative(u, 0.5, "neumann", axis=-2))
    assert torch.equal(slopes[:, 1], derivative(u, 0.25))
    assert torch.equal(gradient(u[0, 0], 0.25, axes=1), derivative(u[0, 0], 0.25)[None])


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
        (lambda u: laplacian(u, (0.1,) * 3), ParameterError, "spacing has 3 entries for 2 axes"),
        (lambda u: laplacian(u, 0.1, axes=3), ShapeError, r"shape \(4, 4\), but axes=3"),
        (lambda u: laplacian(u[:1], 0.1), ShapeError, r"shape \(1, 4\), one point along axis -2"),
        (
            lambda u: laplacian(u, 0.1, ("periodic",)),
            ParameterError,
            "boundary has 1 entries for 2",
        ),
        (
            lambda u: laplacian(u, 0.1, "neumann", order=4),
            ConfigError,
            "order=4 on a periodic grid",
        ),
        (lambda u: laplacian(u, 0.1, order=3), ConfigError, "no differences of order 3"),
        (lambda u: waves(1, 0.1), ShapeError, "row of 1 points"),
        (lambda u: derivative(u, 0.1, axis=0), ShapeError, "count it from the right"),
        (lambda u: derivative(u, float("nan")), ParameterError, "spacing is nan"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.zeros(4, 4))
