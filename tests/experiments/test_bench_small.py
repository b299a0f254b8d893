"""Every benchmark runs end to end in its small preset, without peers, and fills its rows."""

import functools
import importlib
import importlib.util
import json

import numpy as np
import pytest
import torch
from hybridgen.experiments import bench_integrators, bench_training_step, benchmarking_peers
from hybridgen.experiments.benchmarking import Absent, Ruler, contest, tune
from hybridgen.experiments.benchmarking_problems import make_problem
from hybridgen.experiments.benchmarking_steps import Hybrid, entrants, make_step
from torchdiffeq import odeint
from typer.testing import CliRunner

from hybridgen.cli import app
from hybridgen.report import twin_rows
from hybridgen.report.rows import BENCHMARK_COLUMNS, check_rows

BENCHMARKS = ("bench_integrators", "bench_training_step", "bench_sweep")
PEERS = ("torchode", "diffrax", "jax")
# their own, on import
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def names(rows, metric, **same):
    """The contestants with a value of a metric."""
    found = [r for r in rows if r["metric"] == metric and r["value"] is not None]
    return [r["contestant"] for r in found if all(r[k] == v for k, v in same.items())]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished small run by name, in the default dtype that a user has."""
    torch.set_default_dtype(torch.float32)
    folder = tmp_path_factory.mktemp("runs")

    @functools.cache
    def run(name):
        out = str(folder / name)
        done = CliRunner().invoke(app, ["run", name, "--preset", "small", "--out", out])
        assert done.exit_code == 0, done.output
        return folder / name

    yield run
    torch.set_default_dtype(torch.float64)


def rows_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rows_report_and_page(finished, name, tmp_path):
    rows = rows_of(finished(name))
    assert all(tuple(row) == BENCHMARK_COLUMNS for row in rows)
    assert {row["experiment"] for row in rows} == {name}
    assert check_rows(rows)[0]["value"] > 0.0
    html = (finished(name) / "report.html").read_text()
    assert "Time of each contestant" in html
    done = CliRunner().invoke(app, ["report", str(finished(name)), "--page", str(tmp_path)])
    assert done.exit_code == 0, done.output
    page = (tmp_path / f"{name}.md").read_text()
    assert all(f"| {row['contestant']} |" in page for row in rows if row["value"] is not None)
    assert len(twin_rows(tmp_path / f"{name}.json")) == len(rows)
    assert (tmp_path / f"{name}.png").stat().st_size < 200_000


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_finished_run_is_not_run_again(finished, name):
    before = rows_of(finished(name))
    done = CliRunner().invoke(app, ["run", name, "--out", str(finished(name)), "--resume"])
    assert done.exit_code == 0, done.output
    assert rows_of(finished(name)) == before


def test_integrators_are_as_accurate_as_asked(finished):
    rows = rows_of(finished("bench_integrators"))
    speed = [r for r in rows if r["metric"] == "cpu_time" and not r["work"].startswith("bad")]
    assert {r["work"] for r in speed} == {"pendulum", "rlc", "reaction_diffusion", "stiff"}
    for row in speed:
        if row["value"] is not None:
            assert row["error"] <= (1e-5 if row["work"] == "stiff" else 2e-6), row
            assert "target not met" not in row["knob"]
    assert {"hybridgen eager", "torchdiffeq dopri5", "torchdiffeq rk4"} <= set(
        names(rows, "cpu_time", work="pendulum")
    )
    first = next(r for r in speed if r["contestant"] == "hybridgen eager")
    assert (first["ratio_to"], first["ratio"]) == ("hybridgen eager", 1.0)


def test_bad_members_change_no_other(finished):
    rows = [r for r in rows_of(finished("bench_integrators")) if r["work"] == "bad_member of 64"]
    changed = {r["contestant"]: r["value"] for r in rows if r["metric"] == "others_changed"}
    ours = {k: v for k, v in changed.items() if k.startswith("hybridgen eager")}
    assert ours == dict.fromkeys(("hybridgen eager" + flaw for flaw in bench_integrators.FLAWS), 0)
    lost = [r for r in rows if r["contestant"] == "torchdiffeq dopri5, a NaN"]
    assert lost[0]["value"] is None
    assert lost[0]["knob"].startswith("failed: AssertionError: underflow in dt")


def test_every_gradient_is_that_of_the_reference(finished):
    rows = rows_of(finished("bench_training_step"))
    ours = {r["contestant"]: r["error"] for r in rows if r["work"] == "mlp" and r["error"]}
    assert {"hybridgen eager", "torchdiffeq rk4", "torchdiffeq dopri5 adjoint"} <= set(ours)
    assert max(ours.values()) < 3e-3
    assert ours["torchdiffeq dopri5"] < 1e-4


def test_updates_of_the_studies_have_time_and_memory(finished):
    rows = [r for r in rows_of(finished("bench_training_step")) if r["work"] == "pendulum"]
    both = ["study network, 50 times", "published network, 50 times"]
    assert names(rows, "cpu_time") == names(rows, "peak_memory") == both
    assert all(0.05 < r["value"] < 5.0 for r in rows if r["metric"] == "peak_memory")


def test_a_sweep_is_compared_with_the_sum_of_its_parts(finished):
    rows = rows_of(finished("bench_sweep"))
    wall = {r["contestant"]: r for r in rows if r["metric"] == "wall_time"}
    parts = [wall[name]["value"] for name in ("sampling", "integrating", "writing")]
    assert wall["the parts, summed"]["value"] == pytest.approx(sum(parts))
    sweep = wall["hybridgen sweep, 1 worker"]
    assert sweep["ratio_to"] == "the parts, summed"
    assert sweep["ratio"] == pytest.approx(sweep["value"] / sum(parts))
    assert sweep["knob"] == "tasks of 2000"
    assert names(rows, "peak_memory") == ["hybridgen sweep, 1 worker"]


# -- the contestants ---------------------------------------------------------------------------


def test_peers_that_are_not_installed_are_left_out_with_a_line_that_says_so(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in PEERS else real(name)
    )
    problem = make_problem("pendulum", 4, 3, 0.1, seed=0)
    found = benchmarking_peers.entrants(problem, "float64", "cpu", ["torchode", "diffrax"])
    assert [type(one) for one in found] == [Absent] * 4
    rows = contest(found, Ruler(), 1.0, work="pendulum")
    assert rows[0]["knob"] == "torchode is not installed: pip install 'hybridgen[bench]'"
    assert rows[1]["knob"].startswith("jax and diffrax are not installed")
    step = make_step(2, 3, 0.1, (4,), seed=0)
    assert all(isinstance(one, Absent) for one in entrants(step, "float32", "cpu", PEERS))


def imported(library):
    """Import a peer, or skip the test; what it draws on import is not ours."""
    state = np.random.get_state()  # noqa: NPY002
    pytest.importorskip(library)
    np.random.set_state(state)  # noqa: NPY002


@quiet
@pytest.mark.parametrize("library", PEERS[:2])
@pytest.mark.parametrize("work", ["pendulum", "rlc", "reaction_diffusion"])
def test_a_peer_solves_the_problem(library, work):
    imported(library)
    problem = make_problem(work, 3, 6, 0.1, seed=0)
    for one in benchmarking_peers.entrants(problem, "float64", "cpu", [library]):
        ready = tune(one, 1e-6)
        assert ready.error <= 1e-6, ready


@quiet
@pytest.mark.parametrize("library", PEERS)
def test_a_peer_finds_the_gradient(library):
    imported(library)
    step = make_step(3, 6, 0.1, (8,), seed=0)
    for one in entrants(step, "float64", "cpu", [library]):
        assert tune(one, 1e-3).error <= 1e-3, one.name


def test_the_reference_gradient_is_that_of_finite_differences():
    step = make_step(3, 4, 0.1, (5,), seed=0)
    tensors = [torch.tensor(w) for w in step.weights]

    def loss(weights):
        field = Hybrid(torch.tensor(step.omega0), weights)
        y = odeint(field, torch.tensor(step.y0), torch.tensor(step.t), rtol=1e-11, atol=1e-12)
        return float((y.transpose(0, 1) - torch.tensor(step.target)).detach().square().mean())

    found, small = [], 1e-5
    for i, weight in enumerate(tensors):
        for j in range(weight.numel()):
            pair = []
            for sign in (1.0, -1.0):
                moved = [w.clone() for w in tensors]
                moved[i].view(-1)[j] += sign * small
                pair.append(loss(moved))
            found.append((pair[0] - pair[1]) / (2.0 * small))
    np.testing.assert_allclose(step.reference, found, rtol=1e-5, atol=1e-8)


def test_published_residuals_belong_to_the_problems():
    assert set(bench_training_step.PUBLISHED) == set(bench_training_step.SIMULATORS)
    for work in bench_training_step.SIMULATORS:
        assert importlib.import_module(f"hybridgen.experiments.ood_{work}").Config().residual


def test_single_systems_say_nothing_of_a_stiff_batch():
    problem = make_problem("stiff", 100, 3, 0.1, seed=0)
    (one,) = benchmarking_peers.entrants(problem, "float64", "cpu", ["scipy DOP853 one by one"])
    assert isinstance(one, Absent)


def test_float32_is_left_out_by_scipy():
    problem = make_problem("pendulum", 4, 3, 0.1, seed=0)
    found = benchmarking_peers.entrants(problem, "float32", "cpu", ["scipy"])
    assert all(isinstance(one, Absent) for one in found)
