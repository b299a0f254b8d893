"""Kernels of fields on a grid against torch."""

import pytest
import torch

from hybridgen import operators
from hybridgen.integrate import Status, solve
from hybridgen.integrate.building import compiler
from hybridgen.integrate.kernel import kernel_for
from hybridgen.integrate.members import Members
from hybridgen.integrate.recording import UnrecordableError
from hybridgen.integrate.stepping import Tolerance
from hybridgen.integrate.tableaus import TSIT5

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")


def _state(*shape, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def _slope(field, y, z=None):
    t = torch.tensor([0.5, 1.0], dtype=y.dtype)
    made = kernel_for(Members(field, z, t, y.shape[:1]), y, TSIT5, Tolerance(1e-6, 1e-6), 256)
    return made.slope(y), field(t[0], y, z)


def _rolled(t, y, z):
    u, v = y.unbind(1)
    spread = u.roll(1, -1) + u.roll(-2, -1) + u.roll((3, -1), (-2, -1)) - 3 * u
    return torch.stack([z[:, 0, None, None] * spread * t + u * v, v - u**3], 1)


def _padded(t, y, z):
    """Ends that repeat the last point, by slices and by hand."""
    wide = torch.cat([y[..., :1], y, y[..., -1:]], -1)
    return z[:, :1, None, None] * (wide[..., 2:] + wide[..., :-2] - 2 * y)


def _with_constants(t, y, z):
    rows = torch.linspace(0, 1, y.shape[-2], dtype=y.dtype)[:, None]
    points = torch.linspace(2, 3, y.shape[-1], dtype=y.dtype)
    return y * rows + points * y + rows * points


def _laplacian(t, y, z):
    return z[:, 1, None, None, None] * operators.laplacian(y, 0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("points", [16, 11, 37])
@pytest.mark.parametrize("field", [_rolled, _padded, _with_constants, _laplacian])
def test_a_grid_in_two_dimensions(field, points, dtype):
    """Rows that are whole vectors, shorter than one, and neither."""
    got, expected = _slope(field, _state(3, 2, 9, points, dtype=dtype), _state(3, 2, dtype=dtype))
    torch.testing.assert_close(got, expected)


def test_a_grid_in_one_dimension():
    def field(t, y, z):
        return z[:, :1, None] * (y.roll(1, -1) - 2 * y + y.roll(-1, -1)) - y**3

    got, expected = _slope(field, _state(3, 2, 50), _state(3, 1))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (lambda t, y, z: y - y.mean((-2, -1), keepdim=True), "over 240 entries"),
        (lambda t, y, z: y.flip(-1), "only shifted"),
        (lambda t, y, z: y.transpose(-1, -2).contiguous().view_as(y) * 1.0, "."),
        (lambda t, y, z: y * y[..., :1, :1], "single points"),
        (lambda t, y, z: torch.fft.ifft(torch.fft.fft(y)).real, "."),
        (lambda t, y, z: torch.cat([y[..., :1] * 2, y, y[..., :1]], -1)[..., :-2], "joined"),
    ],
    ids=["mean", "flip", "transpose", "point", "fft", "ends"],
)
def test_what_no_shift_of_the_grid_can_say_is_refused(field, reason):
    with pytest.raises(UnrecordableError, match=reason):
        _slope(field, _state(3, 2, 12, 20))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_does_what_the_eager_solver_does(dtype):
    """Diffusion and reaction, with a member that needs small steps and one that blows up."""

    def field(t, y, z):
        rate, growth = z[:, 0, None, None, None], z[:, 1, None, None, None]
        return rate * operators.laplacian(y, 0.25) + growth * y * y - y**3 * (growth < 0.5)

    y0 = 0.5 + _state(70, 2, 6, 16, dtype=dtype)
    z = torch.tensor([[0.05, 0.1]], dtype=dtype).repeat(70, 1)
    z[66, 0], z[67, 1], z[68, 0] = 5.0, 40.0, torch.nan
    t = torch.linspace(0, 1, 6, dtype=dtype)
    rtol = 1e-6 if dtype == torch.float64 else 1e-3
    fast, eager = (
        solve(field, y0, t, z, rtol=rtol, atol=rtol, max_substeps=64, compile=c)
        for c in (True, False)
    )
    assert torch.equal(fast.substeps, eager.substeps)
    assert torch.equal(fast.status, eager.status)
    assert fast.status[66:69].tolist() == [Status.retried, Status.diverged, Status.nonfinite]
    torch.testing.assert_close(fast.y, eager.y, rtol=10 * rtol, atol=10 * rtol, equal_nan=True)
