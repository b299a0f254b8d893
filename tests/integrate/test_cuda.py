"""The text for a GPU against the eager solver and the kernel of a CPU.

Here a C++ compiler makes of the very same text a library that also plays the driver, so that all
but NVRTC and the GPU itself is tried. With `--device cuda`, the tests at the end run on a GPU.
"""

import ctypes
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from hybridgen.errors import UnsupportedError
from hybridgen.integrate import (
    Status,
    building,
    compilation,
    kernel,
    nvrtc,
    repeated,
    solve,
    tables,
)
from hybridgen.integrate.building import compiler
from hybridgen.integrate.gpu import Threads
from hybridgen.integrate.kernel import kernel_for
from hybridgen.integrate.members import Members
from hybridgen.integrate.recording import UnrecordableError
from hybridgen.integrate.stepping import Tolerance
from hybridgen.integrate.tableaus import TSIT5

HERE = Path(__file__).parent
LIBRARIES = {}

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")


def played(text, folder):
    """The driver of a GPU on a CPU whose module is this text."""
    if text not in LIBRARIES:
        parts = [(HERE / "gpu_on_cpu.h").read_text(), text, (HERE / "gpu_on_cpu.cpp").read_text()]
        source, library = folder / "played.cpp", folder / f"played{len(LIBRARIES)}.so"
        source.write_text("\n".join(parts))
        flags = ["-O1", "-std=c++17", "-w", "-shared", "-fPIC", "-pthread"]
        command = [compiler(), *flags, str(source), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        LIBRARIES[text] = ctypes.CDLL(str(library))
    return LIBRARIES[text]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture
def device():
    """Where the GPU is played."""
    return torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch, folder):
    """Kernels are those of a GPU, played on a CPU; returns the drivers as they come into use."""
    used = []

    def program(source, tableau, dtype, device):
        used.append(played(kernel._text(source, tableau, dtype, gpu=True), folder))
        return Threads(nvrtc.Module(b"an image", device), source, tableau, dtype)

    monkeypatch.setattr(kernel, "_program", program)
    monkeypatch.setattr(kernel, "_LIBRARIES", {})
    monkeypatch.setattr(nvrtc, "driver", lambda: used[-1])
    monkeypatch.setattr(nvrtc, "stream", lambda device: 0x30)
    nvrtc._context.cache_clear()
    yield used
    nvrtc._context.cache_clear()


def both(monkeypatch, *problem, **keywords):
    """The same by the kernel of a CPU, before the fixture, and without a kernel."""
    with monkeypatch.context() as undone:
        undone.setattr(kernel, "_program", PROGRAM)
        undone.setattr(kernel, "_LIBRARIES", {})
        fast = solve(*problem, compile=True, **keywords)
    return fast, solve(*problem, compile=False, **keywords)


PROGRAM = kernel._program


def agree(got, expected, tolerance, chased=()):
    """The same but for rounding, on which the steps of those chased to their end depend."""
    for name in ("substeps", "status"):
        assert torch.equal(getattr(got, name), getattr(expected, name)), name
    counted = [i for i in range(len(got.y)) if i not in chased]
    assert torch.equal(got.n_steps[counted], expected.n_steps[counted])
    torch.testing.assert_close(got.t_reached, expected.t_reached, equal_nan=True)
    torch.testing.assert_close(got.y, expected.y, rtol=tolerance, atol=tolerance, equal_nan=True)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("substeps", [None, 2])
def test_it_does_what_a_cpu_does(pendulum, gpu, monkeypatch, dtype, substeps):
    """Members that need more steps, that diverge, and that are no numbers, in three blocks."""
    p = pendulum(150, dtype)
    p.omega0[[70, 90]] = 60.0  # not in the pilot
    p.blow[5] = 2.0
    p.alpha[11] = torch.nan
    rtol = 1e-5 if dtype == torch.float64 else 1e-3
    problem = p.field, p.y0, p.t, p.args
    keywords = {"rtol": rtol, "atol": rtol, "substeps": substeps}
    got = solve(*problem, compile=True, **keywords)
    assert got.compiled
    assert {Status.retried, Status.diverged, Status.nonfinite} <= set(got.status.tolist())
    fast, eager = both(monkeypatch, *problem, **keywords)
    calm = [i for i in range(150) if i not in (5, 70, 90)]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        got.y[calm], fast.y[calm], rtol=tolerance, atol=tolerance, equal_nan=True
    )
    agree(got, fast, 1e-8 if dtype == torch.float64 else 1e-2, chased=[5])
    torch.testing.assert_close(
        got.y[calm], eager.y[calm], rtol=tolerance, atol=tolerance, equal_nan=True
    )
    assert torch.equal(got.status, eager.status)
    assert torch.equal(got.substeps, eager.substeps)


@needs_compiler
def test_members_lie_side_by_side_and_do_not_touch_each_other(pendulum, gpu):
    p = pendulum(70)
    schedule = [2] * 50
    whole = solve(p.field, p.y0, p.t, p.args, substeps=schedule, compile=True)
    assert whole.y.stride() == (1, 70 * 2, 70)
    for rows in ([7], [69, 3, 7], list(range(5, 60))):
        part = [a[rows] for a in p.args]
        alone = solve(p.field, p.y0[rows], p.t, part, substeps=schedule, compile=True)
        assert torch.equal(alone.y, whole.y[rows])
    p.alpha[8], p.blow[9] = torch.nan, 2.0
    beside = solve(p.field, p.y0, p.t, p.args, substeps=schedule, compile=True)
    keep = [i for i in range(70) if i not in (8, 9)]
    assert torch.equal(beside.y[keep], whole.y[keep])


@needs_compiler
def test_the_pilot_is_that_of_a_cpu(pendulum, gpu, monkeypatch):
    """Also where some of it cannot follow, and the host goes on by single intervals."""
    p = pendulum(80)
    for hard in ([], [3, 20]):
        p.omega0[hard] = 60.0
        problem = p.field, p.y0, p.t, p.args
        got = solve(*problem, rtol=1e-7, compile=True)
        fast, eager = both(monkeypatch, *problem, rtol=1e-7)
        assert len(got.substeps.unique()) > 1
        assert torch.equal(got.substeps, eager.substeps)
        agree(got, fast, 1e-8)


@needs_compiler
def test_a_clock_times_of_their_own_and_batch_axes(gpu, monkeypatch):
    def field(t, y, rate):
        wave = torch.sin(3 * t) + torch.exp(-t)
        return wave[..., None] * rate[..., None] - y

    t, rate = torch.linspace(0, 2, 9), torch.linspace(0, 1, 66).reshape(6, 11)
    y0 = torch.ones(6, 11, 1)
    own = t * torch.linspace(0.5, 1.5, 66).reshape(6, 11, 1)
    for times in (t, own):
        got = solve(field, y0, times, rate, batch_dims=2, compile=True)
        fast, eager = both(monkeypatch, field, y0, times, rate, batch_dims=2)
        assert got.y.shape == (6, 11, 9, 1)
        agree(got, fast, 1e-12)
        agree(got, eager, 1e-12)
    # slope, tabulate and march, with a pilot in between: the clock is read once for all.
    assert ctypes.c_int64.in_dll(gpu[0], "launches").value in (4, 7)


@needs_compiler
def test_a_state_of_several_axes(gpu, monkeypatch):
    y0 = torch.linspace(0.1, 1, 12).reshape(2, 2, 3)
    problem = (lambda t, y, a: a[:, None, None] * y.flip(-1) - y**2), y0, torch.linspace(0, 1, 5)
    args = torch.tensor([0.5, 0.7])
    got = solve(*problem, args, compile=True)
    for expected in both(monkeypatch, *problem, args):
        agree(got, expected, 1e-12)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_network_is_that_of_a_cpu(gpu, monkeypatch, dtype):
    with torch.random.fork_rng():
        network = nn.Sequential(
            nn.Linear(3, 20), nn.SiLU(), nn.Linear(20, 33), nn.Tanh(), nn.Linear(33, 2)
        ).to(dtype)

    def field(t, y, z):
        return network(torch.cat([y, z], -1)) * t

    y0, z = torch.linspace(0.1, 0.9, 40).reshape(20, 2).to(dtype), torch.ones(20, 1).to(dtype)
    problem = field, y0, torch.linspace(0, 1, 5).to(dtype), z
    with torch.no_grad():
        got = solve(*problem, compile=True)
        for expected in both(monkeypatch, *problem):
            agree(got, expected, 1e-12 if dtype == torch.float64 else 1e-5)


@needs_compiler
def test_stiff_members_and_diverging_ones_get_their_verdicts(gpu):
    t = torch.linspace(0, 2, 5)
    y0 = torch.tensor([0.1, 0.96, 0.9, 0.3, 1.0])[:, None]
    kind = torch.tensor([0, 0, 1, 1, 2])[:, None]

    def field(t, y, kind):
        fast = -3e5 * (y - torch.cos(t))
        return torch.where(kind == 0, y * y, torch.where(kind == 1, -torch.sqrt(y), fast))

    solution = solve(field, y0, t, kind.double(), compile=True)
    assert solution.status.tolist() == [0, Status.diverged, 4, 4, Status.retried]
    assert solution.t_reached.tolist() == [2.0, 1.0, 1.5, 1.0, 2.0]
    assert float((solution.y[4, :, 0] - torch.cos(t)).abs().max()) < 1e-5


OPERATIONS = (
    lambda y, z: 2 * y - y / 3 + (1 - y) * y.reciprocal() - (-y) + torch.rsub(y, 2),
    lambda y, z: y**2 + y**-3 + y**0.5 + y**1.7 + 2.0**y + y**y + y.rsqrt(),
    lambda y, z: y.sin() + y.cos() * y.tan() - y.asin() + y.acos() - y.atan(),
    lambda y, z: torch.atan2(y, y.flip(-1)) + y.sinh() + y.cosh() + y.tanh() + torch.erf(y),
    lambda y, z: y.exp() + y.expm1() + y.exp2() + y.log() + y.log1p() + y.log2() + y.log10(),
    lambda y, z: (3 * y).floor() - (3 * y).ceil() + (y - 0.5).abs() * (y - 0.5).sign(),
    lambda y, z: torch.sigmoid(y) + functional.silu(y) + functional.relu(y - 0.5),
    lambda y, z: (
        y.clamp(0.2, 0.6) + torch.maximum(y, y.flip(-1)) - torch.minimum(y, y.roll(1, -1))
    ),
    lambda y, z: torch.where((y > 0.4) & ~(y >= 0.7) | (y < 0.2), y, -1.0),
    lambda y, z: (y > 0.4) * y - (z[:, :1] < 0.5) / (1 + (y < 0.7).to(y)),
    lambda y, z: torch.where((y <= 0.5) == (y.flip(-1) != y), y, z[:, :1]),
    lambda y, z: (z.reshape(-1, 3, 3) @ y[..., None])[..., 0] + y.mean(-1, keepdim=True),
)


def everything(t, y, z):
    """A field of all operations, each on three numbers of the state between 0.1 and 0.9."""
    blocks = zip(OPERATIONS, y.split(3, -1), strict=True)
    return torch.cat([operation(block, z) for operation, block in blocks], -1)


def of_everything(dtype, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    sizes = 3 * len(OPERATIONS), 9
    y, z = (0.1 + 0.8 * torch.rand(70, n, generator=generator, dtype=dtype) for n in sizes)
    t = torch.tensor([0.5, 1.5], dtype=dtype, device=device)
    return y.to(device), t, z.to(device)


def slopes(dtype, device="cpu"):
    y, t, z = of_everything(dtype, device)
    members = Members(everything, z, t, y.shape[:1])
    made = kernel_for(members, y, TSIT5, Tolerance(1e-6, 1e-6), 256)
    return made.slope(y), everything(t[0], y, z)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_operation_is_that_of_torch(gpu, dtype):
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(*slopes(dtype), rtol=30 * eps, atol=100 * eps)


@needs_compiler
def test_a_driver_that_fails_says_why(gpu, pendulum, monkeypatch):
    p = pendulum(3)
    problem = p.field, p.y0, p.t, p.args
    solve(*problem, compile=True)
    device = torch.device("cpu")
    with pytest.raises(UnrecordableError, match=r"cuModuleLoadData \(200\): device kernel image"):
        nvrtc.Module(b"nonsense", device)
    with pytest.raises(UnrecordableError, match=r"failed in cuModuleGetFunction \(500\)"):
        nvrtc.Module(b"an image", device).launch("nothing", 1)
    monkeypatch.setattr(nvrtc, "stream", lambda device: 0x31)
    with pytest.raises(UnsupportedError, match="the GPU's driver failed in cuLaunchKernel"):
        solve(*problem, compile=True)
    monkeypatch.setattr(compilation, "WORTH", 0)
    assert not solve(*problem).compiled
    monkeypatch.setattr(nvrtc, "driver", lambda: None)
    with pytest.raises(UnsupportedError, match="no driver of NVIDIA's GPUs here"):
        solve(*problem, compile=True)


def said(*version):
    """What NVRTC tells of itself."""

    @ctypes.CFUNCTYPE(ctypes.c_int, *(ctypes.POINTER(ctypes.c_int),) * 2)
    def tell(major, minor):
        major[0], minor[0] = version
        return 0

    return tell


def test_without_a_compiler_that_will_do_a_gpu_gets_no_kernel(monkeypatch):
    monkeypatch.setattr(nvrtc, "compiler", lambda: None)
    with pytest.raises(UnrecordableError, match="no NVRTC here; torch for CUDA brings it"):
        nvrtc.assemble("", (9, 0))
    old = ctypes.CDLL(None)
    monkeypatch.setattr(old, "nvrtcVersion", said(12, 1), raising=False)
    monkeypatch.setattr(nvrtc, "compiler", lambda: old)
    with pytest.raises(UnrecordableError, match=r"NVRTC 12.1 takes minutes .* CUDA 12.4 or later"):
        nvrtc.assemble("", (9, 0))
    monkeypatch.setattr(nvrtc, "compiler", lambda: None)
    with repeated(1000):
        assert not compilation._repays(2000, 100, "cuda")
        monkeypatch.setattr(nvrtc, "compiler", lambda: object())
        assert compilation._repays(2000, 100, "cuda")
        assert not compilation._repays(2000, 100, "xpu")
    # As long as the compiler takes: many launches, however few the numbers.
    assert not compilation._repays(2_000_000, 100, "cuda")
    assert compilation._repays(2, 3000, "cuda")


def texts():
    """The text of a field with all operations, of one with a clock, and of a long one."""
    y, t, z = of_everything(torch.float64)
    small, rate = y[:, :2], z[:, 0]
    fields = {
        "operations": (everything, y, z),
        "clock": (lambda t, y, rate: torch.sin(t)[..., None] * rate[:, None] - y, small, rate),
    }
    for name, (field, start, args) in fields.items():
        graph = tables.recorded(Members(field, args, t, start.shape[:1]), start, beforehand=False)
        source = kernel.lower(graph, clock=True)
        yield name, kernel._text(source, TSIT5, torch.float64, gpu=True)


@pytest.mark.skipif(nvrtc.compiler() is None, reason="there is no NVRTC")
def test_nvrtc_takes_the_text_and_keeps_what_it_made(monkeypatch, tmp_path):
    """It needs no GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    building._folder.cache_clear()
    try:
        found = {name: nvrtc.assemble(text, (9, 0)) for name, text in texts()}
        assert all(image.startswith(b"\x7fELF") for image in found.values())
        assert len(list((tmp_path / "hybridgen" / "kernels").glob("*.cubin"))) == len(found)
        monkeypatch.setattr(nvrtc, "_compiled", lambda *_: pytest.fail("compiled again"))
        assert nvrtc.assemble(dict(texts())["clock"], (9, 0)) == found["clock"]
        monkeypatch.undo()
        with pytest.raises(UnrecordableError, match=r'NVRTC failed.*identifier "nonsense"'):
            nvrtc.assemble("nonsense x;", (9, 0))
    finally:
        building._folder.cache_clear()


# On a GPU, with `--device cuda`.


@pytest.fixture
def card(request):
    device = torch.device(request.config.getoption("--device"))
    if device.type != "cuda":
        pytest.skip("runs on a GPU: pytest --device cuda")
    return torch.device("cuda", device.index or 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("substeps", [None, 2])
def test_a_gpu_does_what_a_cpu_does(card, pendulum, dtype, substeps):
    p = pendulum(1000, dtype)
    p.omega0[[70, 90]] = 60.0
    p.blow[5] = 2.0
    p.alpha[11] = torch.nan
    rtol = 1e-5 if dtype == torch.float64 else 1e-3
    keywords = {"rtol": rtol, "atol": rtol, "substeps": substeps, "compile": True}
    there = [a.to(card) for a in p.args]
    got = solve(p.field, p.y0.to(card), p.t.to(card), there, **keywords)
    fast = solve(p.field, p.y0, p.t, p.args, **keywords)
    assert got.compiled
    assert torch.equal(got.status.cpu(), fast.status)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-2
    torch.testing.assert_close(got.y.cpu(), fast.y, rtol=tolerance, atol=tolerance, equal_nan=True)
    # Rounding decides at the edge of a level, at most.
    assert float((got.n_steps.cpu() == fast.n_steps).double().mean()) > 0.99


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_member_on_a_gpu_does_not_depend_on_its_neighbours(card, pendulum, dtype):
    p = pendulum(500, dtype)
    schedule = [2] * 50
    y0, t, args = p.y0.to(card), p.t.to(card), [a.to(card) for a in p.args]
    whole = solve(p.field, y0, t, args, substeps=schedule, compile=True)
    for rows in ([7], [499, 3, 7], list(range(5, 400))):
        part = [a[rows] for a in args]
        alone = solve(p.field, y0[rows], t, part, substeps=schedule, compile=True)
        assert torch.equal(alone.y, whole.y[rows])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_operation_on_a_gpu_is_that_of_torch(card, dtype):
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(*slopes(dtype, card), rtol=100 * eps, atol=300 * eps)


def test_a_gpu_on_another_stream_and_with_a_clock_and_a_stiff_member(card):
    def field(t, y, rate):
        return -rate[..., None] * (y - torch.cos(t)[..., None])

    t, rate = torch.linspace(0, 2, 21, device=card), torch.linspace(1, 50, 300, device=card)
    rate[7] = 1e6
    y0 = torch.ones(300, 1, device=card)
    eager = solve(field, y0, t, rate, compile=False, max_substeps=64)
    stream = torch.cuda.Stream(card)
    stream.wait_stream(torch.cuda.current_stream(card))
    with torch.cuda.stream(stream):
        got = solve(field, y0, t, rate, compile=True, max_substeps=64)
        own = solve(
            field, y0, t.repeat(300, 1), rate, substeps=got.substeps, compile=True, max_substeps=64
        )
    torch.cuda.current_stream(card).wait_stream(stream)
    assert bool(got.ok.all())
    torch.testing.assert_close(got.y, eager.y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(own.y, got.y, rtol=1e-9, atol=1e-9)
