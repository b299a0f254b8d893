"""Options `--device` and `--dtype`, and the rule that no test uses a global random generator."""

import numpy as np
import pytest
import torch
from hypothesis import settings

# the same examples every time, and no limit that a busy machine could break
settings.register_profile("hybridgen", derandomize=True, deadline=None)
settings.load_profile("hybridgen")


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="torch device, cpu by default")
    parser.addoption(
        "--dtype",
        default="float64",
        choices=["float32", "float64"],
        help="default floating-point type, float64 by default",
    )


@pytest.fixture(scope="session")
def device(request):
    """The device of the run."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request):
    """The default floating-point type of the run."""
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.fixture(scope="session", autouse=True)
def _default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, request.config.getoption("--dtype")))
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def _no_global_random_numbers(request):
    """Fail a test that seeds or draws from a global generator, or calls code that does."""
    before = _global_states()
    yield
    changed = [name for name, state in _global_states().items() if state != before[name]]
    if changed:
        pytest.fail(
            f"{request.node.name} used the global generator of {' and '.join(changed)}; pass "
            "generator= or a seed, or run foreign code under hybridgen.rng.scoped(seed)",
            pytrace=False,
        )


def _global_states():
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (numpy["state"]["key"].tobytes(), numpy["state"]["pos"], numpy["has_gauss"]),
    }
