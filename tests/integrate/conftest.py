"""Systems with a known answer, shared by the tests of this folder."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _double_precision(_default_dtype):
    """Orders and closed forms need it; the tests that are about float32 ask for it by name."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Pendulum:
    """Pendulums of random frequency: `y = (theta, omega)`, `args = (omega0, alpha, blow)`.

    `blow > 0` adds `blow * omega^3` to the acceleration, which blows up in finite time.
    """

    def __init__(self, count, device, dtype=torch.float64):
        generator = torch.Generator().manual_seed(0)
        u = torch.rand(3, count, generator=generator, dtype=torch.float64).to(device, dtype)
        self.omega0, self.alpha, self.blow = 0.5 + 3.0 * u[0], 0.6 * u[1], torch.zeros_like(u[0])
        self.y0 = torch.stack([3.0 * u[2] - 1.5, torch.ones_like(u[2])], -1)
        self.t = torch.linspace(0, 5, 51, device=device, dtype=dtype)

    @property
    def args(self):
        return (self.omega0, self.alpha, self.blow)

    @staticmethod
    def field(t, y, args):
        omega0, alpha, blow = args
        theta, omega = y.unbind(-1)
        return torch.stack(
            [omega, -(omega0**2) * torch.sin(theta) - alpha * omega + blow * omega**3], -1
        )


@pytest.fixture
def pendulum(device):
    def build(count, dtype=torch.float64):
        return Pendulum(count, device, dtype)

    return build
