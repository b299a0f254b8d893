"""The command line: what it prints, what it writes, and what it says when something is wrong."""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import hybridgen
from hybridgen import installation, locating
from hybridgen.cli import app
from hybridgen.config import config, load_toml
from hybridgen.errors import ShiftError

runner = CliRunner()

EXPERT = """
import torch
from hybridgen import ODEExpert, Param, Simulator, State

def decay(t, y, z_e):
    return -z_e.rate[..., None] * y

expert = ODEExpert(decay, states=(State("level", "m"),), params=(Param("rate", "1/s", 0.1, 1.0),))
"""


@config
class Config:
    steps: int = 10
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"
    fails: bool = False


def row(value):
    return {
        "experiment": "toy", "problem": "decay", "variant": "", "learner": "aphynity",
        "inference": "amortised", "split": "ood", "shift": "far", "distance": 1.0,
        "parameter": "mean", "metric": "relative_error", "value": value, "low": None, "high": None,
        "unit": "%", "seed": 0, "n_seeds": 1,
    }  # fmt: skip


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A fake experiment `toy`, in a current directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    module = ModuleType("hybridgen.experiments.toy")
    module.Config = Config
    module.CONFIGS = {"small": {"steps": 1}}
    module.ran = []

    def main(cfg, run):
        module.ran.append((cfg, run.read_rows()))
        if cfg.fails:
            raise ShiftError("shift 'far' is empty")
        return [row(float(cfg.steps))]

    module.main = main
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def invoke(*arguments):
    return runner.invoke(app, list(map(str, arguments)))


def fails(message, *arguments, code=2):
    """Assert that a command fails with one sentence on standard error and no traceback."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output
    return result


# run


def test_run_writes_rows_and_report_and_prints_the_table(toy):
    result = invoke("run", "toy")
    assert result.exit_code == 0, result.output
    found = set(os.listdir("runs/toy"))
    assert found >= {"config.toml", "provenance.json", "results.json", "report.html"}
    assert json.loads(Path("runs/toy/results.json").read_text()) == [row(10.0)]
    assert "10" in result.stdout
    assert str(Path("runs/toy/report.html")) in result.stdout
    assert json.loads(Path("runs/toy/provenance.json").read_text())["finished"] is not None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Config()),
        (["--preset", "small"], Config(steps=1)),
        (["--set", "steps=7", "--set", "seeds=[3, 4]"], Config(steps=7, seeds=(3, 4))),
        (["--preset", "small", "--set", "seeds=[3]"], Config(steps=1, seeds=(3,))),
        (["--config", "toy.toml"], Config(steps=42)),
        (["--config", "toy.toml", "--set", "steps=7"], Config(steps=7)),
        (["--device", "meta"], Config(device="meta")),
    ],
)
def test_where_the_configuration_comes_from(toy, arguments, expected):
    Path("toy.toml").write_text("steps = 42\n")
    result = invoke("run", "toy", "--out", "out", *arguments)
    assert result.exit_code == 0, result.output
    assert toy.ran == [(expected, [])]
    assert load_toml(Config, "out/config.toml") == expected


def test_mistakes_in_the_configuration(toy):
    Path("toy.toml").write_text("stesp = 42\n")
    fails(
        "toy.toml: stesp is unknown; did you mean 'steps'?", "run", "toy", "--config", "toy.toml"
    )
    fails("stesp is unknown; did you mean 'steps'?", "run", "toy", "--set", "stesp=1")
    fails("steps is 'many'; it should be a valid integer", "run", "toy", "--set", "steps=many")
    fails("no preset 'smal'; did you mean 'small'?", "run", "toy", "--preset", "smal")
    fails("exclude each other", "run", "toy", "--preset", "small", "--config", "toy.toml")
    fails("cannot read absent.toml", "run", "toy", "--config", "absent.toml")
    assert toy.ran == []
    assert not Path("runs").exists()


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there(toy, device):
    fails(f"device '{device}' cannot be used here", "run", "toy", "--device", device)
    assert not Path("runs").exists()


def test_unknown_experiments(toy, monkeypatch):
    monkeypatch.setattr(locating, "experiments", lambda: {"pendulum": "", "demo": ""})
    fails("no experiment 'pendulm'; did you mean 'pendulum'?", "run", "pendulm")
    fails("no experiment '../x'; known: 'pendulum', 'demo'", "run", "../x")
    del toy.main
    fails("experiment 'toy' has no 'main'", "run", "toy")


def test_a_failing_experiment_is_one_sentence(toy):
    result = fails("shift 'far' is empty", "run", "toy", "--set", "fails=true")
    assert result.stdout == ""
    assert json.loads(Path("runs/toy/provenance.json").read_text())["finished"] is None


def test_traceback_on_request(toy):
    result = invoke("--traceback", "run", "toy", "--set", "fails=true")
    assert isinstance(result.exception, ShiftError)


def test_a_defect_is_not_hidden(toy):
    def main(cfg, run):
        raise KeyError("a defect")

    toy.main = main
    assert isinstance(invoke("run", "toy").exception, KeyError)


def test_an_old_run_is_kept(toy):
    assert invoke("run", "toy").exit_code == 0
    fails("runs/toy holds a run already; write --resume", "run", "toy")
    assert invoke("run", "toy", "--set", "steps=20", "--overwrite").exit_code == 0
    assert json.loads(Path("runs/toy.old-1/results.json").read_text()) == [row(10.0)]
    assert json.loads(Path("runs/toy/results.json").read_text()) == [row(20.0)]


def test_an_interruption_says_how_to_go_on_and_that_works(toy):
    finish = toy.main

    def main(cfg, run):
        run.write_rows([row(1.0)])
        raise KeyboardInterrupt

    toy.main = main
    result = fails("interrupted; go on with: hybridgen run toy --out 'a b' --resume",
                   "run", "toy", "--out", "a b", "--set", "steps=5", code=130)  # fmt: skip
    again = result.stderr.strip().partition("hybridgen ")[2].replace("'", "")
    toy.main = finish
    words = [*again.split(" --out ")[0].split(), "--out", "a b", "--resume"]
    assert invoke(*words).exit_code == 0
    assert toy.ran == [(Config(steps=5), [row(1.0)])]
    fails("another configuration", "run", "toy", "--out", "a b", "--resume", "--set", "steps=6")


def test_ctrl_c_in_a_real_process(tmp_path):
    """The signal itself, not only the exception."""
    (tmp_path / "go.py").write_text(
        # a shell starts its background jobs with the signal ignored, and children inherit that
        "import signal, sys, time, types\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from hybridgen.cli import app\n"
        "from hybridgen.config import config\n"
        "@config\n"
        "class Config:\n    pass\n"
        "def main(cfg, run):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
        "name = 'hybridgen.experiments.toy'\n"
        "sys.modules[name] = types.ModuleType(name)\n"
        "vars(sys.modules[name]).update(Config=Config, main=main)\n"
        "app(['run', 'toy', '--out', 'out'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "go.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(2)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "interrupted; go on with: hybridgen run toy --out out --resume\n"


def test_a_directory_that_cannot_be_made(toy):
    Path("file").write_text("")
    fails("Not a directory", "run", "toy", "--out", "file/inside")


def test_demo_is_the_experiment_demo(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "hybridgen.experiments.demo", toy)
    result = invoke("demo", "--out", "d")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("d/provenance.json").read_text())["experiment"] == "demo"


def test_report_is_drawn_again(toy):
    assert invoke("run", "toy", "--out", "out").exit_code == 0
    Path("out/report.html").unlink()
    result = invoke("report", "out")
    assert result.exit_code == 0
    assert Path("out/report.html").is_file()
    fails("no results.json", "report", "absent")


# check


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """A user's file, in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    path = tmp_path / "my_plant.py"
    path.write_text(EXPERT.replace("[..., None]", "").replace(
        "-z_e.rate * y", "torch.stack([-z_e.rate * y[..., 0]], -1)"))  # fmt: skip
    return path


def test_a_good_expert(plant):
    result = invoke("check", "my_plant.py:expert")
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.stdout
    assert "gradients" in result.stdout


def test_a_bad_expert(plant):
    plant.write_text(
        plant.read_text().replace("-z_e.rate * y[..., 0]", "(-z_e.rate * y[..., 0]).float()")
    )
    result = invoke("check", "my_plant.py:expert")
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    assert result.stderr == ""


def test_a_simulator_means_its_expert():
    result = invoke("check", "hybridgen.simulators.pendulum:simulator")
    assert result.exit_code == 0, result.output


def test_siblings_can_be_imported_and_modules_are_found_here(plant):
    Path("constants.py").write_text("LOW, HIGH = 0.1, 1.0\n")
    plant.write_text("from constants import HIGH\n" + plant.read_text().replace("1.0)", "HIGH)"))
    before = list(sys.path)
    try:
        assert invoke("check", "my_plant.py:expert").exit_code == 0
        assert invoke("check", "my_plant:expert").exit_code == 0
    finally:
        for name in ("constants", "my_plant"):
            sys.modules.pop(name, None)
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", "my_plant.py", "write FILE.py:NAME"),
        ("", "my_plant.py:", "write FILE.py:NAME"),
        ("", "my_plnt.py:expert", "there is no file my_plnt.py; did you mean 'my_plant.py'?"),
        ("", "nowhere/at/all.py:expert", "there is no file nowhere/at/all.py; known: none"),
        ("", "my_plant.py:exprt", "my_plant.py has no 'exprt'; did you mean 'expert'?"),
        ("", "my_plant.py:decay", "decay is a plain function; declare what its numbers mean: "
                                  "ODEExpert(decay, states=(State("),
        ("x = 3\n", "my_plant.py:x", "x is a int; name an ODEExpert or a Simulator"),
        ("", "no.such.module:expert", "there is no module 'no.such.module'"),
        ("def f(:\n", "my_plant.py:expert", "my_plant.py, line 1: syntax error, invalid syntax"),
        ("\n1 / 0\n", "my_plant.py:expert", "my_plant.py, line 2: ZeroDivisionError: division"),
        ("import nowhere_at_all\n", "my_plant.py:expert",
         "my_plant.py, line 1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(3)\n", "my_plant.py:expert", "my_plant.py, line 1: SystemExit: 3"),
    ],
)  # fmt: skip
def test_mistakes_in_a_users_file(plant, text, target, message):
    plant.write_text(text + plant.read_text())
    fails(message, "check", target)


def test_a_file_replaces_no_module(plant):
    import random

    plant.rename("random.py")
    assert invoke("check", "random.py:expert").exit_code == 0
    assert sys.modules["random"] is random


# list, doctor, help


def test_list_names_everything():
    result = invoke("list")
    assert result.exit_code == 0
    for name in (*locating.experiments(), *locating.simulators()):
        assert name in result.stdout
    assert "The damped pendulum" in result.stdout


def test_listing_agrees_with_importing():
    root = Path(__file__).parents[1]
    for package, name, listed in (
        ("simulators", "simulator", locating.simulators()),
        ("experiments", "main", locating.experiments()),
    ):
        modules = {
            p.stem: importlib.import_module(f"hybridgen.{package}.{p.stem}")
            for p in (root / package).glob("*.py")
            if p.stem != "__init__"
        }
        expected = {
            k: m.__doc__.partition("\n")[0] for k, m in modules.items() if hasattr(m, name)
        }
        assert listed == dict(sorted(expected.items()))
        assert listed


def test_doctor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = time.perf_counter()
    result = invoke("doctor")
    assert time.perf_counter() - start < 6.0
    assert result.exit_code == 0, result.output
    for word in ("torch", "device", "threads", "compiler", "output", "GiB free"):
        assert word in result.stdout
    assert os.listdir(tmp_path) == []


def test_doctor_finds_what_is_missing(tmp_path, monkeypatch):
    known = installation.versions()
    monkeypatch.setattr(installation, "versions", lambda: known | {"zarr": "not installed"})
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "pip install zarr" in result.stdout
    found = {
        name: (passed, detail) for name, passed, detail in installation.examine(tmp_path / "x")
    }
    assert found["output"][0] is False
    assert "No such file" in found["output"][1]
    monkeypatch.setattr(installation, "processors", lambda: 0)
    assert not dict((n, p) for n, p, _ in installation.examine(tmp_path))["threads"]
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "uncompiled" in next(d for n, _, d in installation.examine(tmp_path) if n == "compiler")


def test_version():
    assert invoke("--version").stdout == f"hybridgen {hybridgen.__version__}\n"


def test_python_m(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "hybridgen", "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert found.stdout == f"hybridgen {hybridgen.__version__}\n"
    assert found.returncode == 0


HEAVY = ("torch", "numpy", "scipy", "xarray", "matplotlib", "zarr", "jinja2", "torchdiffeq")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list"], ["run", "nothing"]]
)
def test_quick_commands_import_nothing_heavy(arguments):
    code = (
        f"import sys\nfrom hybridgen.cli import app\napp({arguments!r}, standalone_mode=False)\n"
    )
    listing = f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", f"import atexit, sys\natexit.register(lambda: {listing})\n{code}"],
        capture_output=True,
        text=True,
    )
    assert found.stdout.splitlines()[-1] == "HEAVY []", found.stdout + found.stderr


def test_help_is_quick(tmp_path):
    def best(*arguments):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, *arguments], capture_output=True, check=True, cwd=tmp_path
            )
            times.append(time.perf_counter() - start)
        return min(times)

    assert best("-m", "hybridgen", "--help") - best("-c", "pass") < 0.5


# the lazy package


def test_every_public_name_can_be_imported():
    for name in hybridgen.__all__:
        assert getattr(hybridgen, name) is not None
        assert name in dir(hybridgen)
    assert set(hybridgen._MODULES) | {"__version__"} == set(hybridgen.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'fti'"):
        hybridgen.fti  # noqa: B018


def test_importing_the_package_imports_nothing_else():
    code = (
        "import hybridgen, sys; print(sorted(m for m in sys.modules if m.startswith('hybridgen')))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "['hybridgen', 'hybridgen.version']"


def test_importing_everything_changes_no_global_state():
    code = (
        "import sys, random, numpy, torch\n"
        "def state():\n"
        "    return (torch.get_rng_state().sum().item(), torch.get_default_dtype(),\n"
        "            torch.get_num_threads(), torch.is_grad_enabled(),\n"
        "            torch.distributions.Distribution._validate_args, random.getstate(),\n"
        "            str(numpy.random.get_state()), str(numpy.geterr()),\n"
        "            torch.are_deterministic_algorithms_enabled(), sys.getrecursionlimit())\n"
        "before = state()\n"
        "import hybridgen\n"
        "for name in hybridgen.__all__:\n"
        "    getattr(hybridgen, name)\n"
        "print([i for i, (a, b) in enumerate(zip(before, state())) if a != b])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
