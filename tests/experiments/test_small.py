"""Every experiment runs end to end in its small preset, resumes, and fills its rows."""

import functools
import importlib
import json

import pytest
import torch
import xarray as xr
from hybridgen.simulators import pendulum
from typer.testing import CliRunner

from hybridgen.checkpoint import load_model
from hybridgen.cli import app
from hybridgen.evaluation import Row
from hybridgen.naming import ABLATION
from hybridgen.report import twin_rows

EXPERIMENTS = ("demo", "ood_pendulum", "ood_rlc", "ood_reaction_diffusion")
LEARNERS = {"mean", "expert_only", "network_only", "aphynity", "aphynity+", "true_model"}


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


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_rows(finished, name):
    rows = json.loads((finished(name) / "results.json").read_text())
    assert all(list(row) == list(Row().asdict()) for row in rows)
    means = [r for r in rows if r["seed"] == "mean" and r["metric"] == "log_mse_summed"]
    more = set() if name == "demo" else {"hvae", "hvae+"}
    more |= set(ABLATION) if name == "ood_pendulum" else set()
    assert {r["learner"] for r in means} == LEARNERS | more
    assert {r["inference"] for r in means if r["learner"] == "aphynity+"} == {
        "amortised",
        "refined",
    }
    shift = "ood" if name == "ood_reaction_diffusion" else "far"
    assert {r["shift"] for r in means} == {"none", shift}
    published = [r for r in rows if r["learner"] == "published"]
    assert len(published) == (0 if name == "demo" else 8)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_report_and_diagnostics(finished, name):
    assert "<html" in (finished(name) / "report.html").read_text()
    tree = xr.open_datatree(
        finished(name) / "diagnostics.zarr", engine="zarr", chunks=None, consolidated=False
    )
    groups = {g.lstrip("/") for g in tree.groups}
    assert {"parameters", "rollouts", "residual", "status", "history/aphynity+"} <= groups
    assert not {"network_only", *ABLATION} & set(tree["parameters"]["learner"].values)
    assert tree["residual"]["f_a"].dims == ("output", "axis1", "axis0")


def test_results_page(finished, tmp_path):
    done = CliRunner().invoke(
        app, ["report", str(finished("ood_pendulum")), "--page", str(tmp_path / "results")]
    )
    assert done.exit_code == 0, done.output
    page = (tmp_path / "results" / "ood_pendulum.md").read_text()
    assert "Published values beside ours" in page
    assert len(twin_rows(tmp_path / "results" / "ood_pendulum.json")) > 100
    assert (tmp_path / "results" / "ood_pendulum.png").stat().st_size < 200_000


def test_models_can_be_used_afterwards(finished):
    model = load_model(finished("demo") / "seed-0" / "models" / "aphynity+")
    assert model.learner == "aphynity+"
    assert model.expert is pendulum.expert


def test_a_finished_run_is_resumed_without_work(finished):
    before = (finished("demo") / "results.json").read_bytes()
    out = str(finished("demo"))
    again = CliRunner().invoke(app, ["run", "demo", "--out", out, "--resume"])
    assert again.exit_code == 0, again.output
    assert (finished("demo") / "results.json").read_bytes() == before


def test_an_interrupted_run_goes_on_where_it_was(finished, tmp_path, monkeypatch):
    from hybridgen.experiments import robustness

    fitted = []
    fit = robustness.fit

    def stopping(*args, **kwargs):
        if len(fitted) == 3:
            raise KeyboardInterrupt
        fitted.append(kwargs["checkpoint"])
        return fit(*args, **kwargs)

    out = str(tmp_path / "demo")
    with monkeypatch.context() as patch:
        patch.setattr(robustness, "fit", stopping)
        broken = CliRunner().invoke(app, ["run", "demo", "--preset", "small", "--out", out])
    assert broken.exit_code == 130
    assert "--resume" in broken.output
    done = CliRunner().invoke(app, ["run", "demo", "--out", out, "--resume"])
    assert done.exit_code == 0, done.output

    def figures(path):
        rows = json.loads((path / "results.json").read_text())
        return [r for r in rows if r["metric"] not in ("training_time",)]

    assert figures(tmp_path / "demo") == figures(finished("demo"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_defaults_are_the_full_experiment(name):
    module = importlib.import_module(f"hybridgen.experiments.{name}")
    fields = name == "ood_reaction_diffusion"
    assert module.Config().test >= (50 if fields else 200)
    assert len(module.Config().shifts) >= (1 if fields else 3)


def test_unknown_settings_name_the_nearest(tmp_path):
    out = str(tmp_path / "x")
    done = CliRunner().invoke(app, ["run", "demo", "--out", out, "--set", "stages.0.stps=3"])
    assert done.exit_code == 2
    assert "did you mean" in done.output
    done = CliRunner().invoke(app, ["run", "demo", "--out", out, "--set", "shifts=['fur']"])
    assert done.exit_code == 2
    assert "did you mean 'far'" in done.output
