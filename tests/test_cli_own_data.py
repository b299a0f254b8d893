"""The commands for a user's own data: fit, predict, augment, simulate."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hybridgen.simulators import lotka_volterra, pendulum
from scipy.integrate import solve_ivp
from typer.testing import CliRunner

from hybridgen import experiments
from hybridgen.augmentation import expert_augment
from hybridgen.checkpoint import load_model, save_model
from hybridgen.cli import app
from hybridgen.cli.forecasts import Wanted
from hybridgen.cli.options import Columns, as_options
from hybridgen.errors import DataError
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY
from hybridgen.reading.formats import read_group
from hybridgen.store import write_store

PELTS = Path(experiments.__file__).parent / "examples" / "hudson_bay_pelts.csv"
ROLLOUT = 'stages=[{objective="rollout", steps=4, batch_size=8}]'

OSCILLATOR = """
import torch
from hybridgen import ODEExpert, Param, State
from hybridgen.simulators import pendulum

def oscillator(t, y, z_e):
    q, v = y.unbind(-1)
    return torch.stack([v, -z_e.k * q], dim=-1)

expert = ODEExpert(
    oscillator,
    states=(State("q", "m", exact=True), State("v", "m/s")),
    params=(Param("k", "1/s^2", 0.5, 3.0),),
)
simulator = pendulum.simulator
"""

EPIDEMIC = """
import torch
from hybridgen import ODEExpert, Param, State

def epidemic(t, y, z_e):
    s, i, r = y.unbind(-1)
    new = z_e.beta * s * i
    return torch.stack([-new, new - z_e.gamma * i, z_e.gamma * i], dim=-1)

expert = ODEExpert(
    epidemic,
    states=(
        State("s", "1", observed=False, low=0.5, high=1.0),
        State("i", "1"),
        State("r", "1", observed=False, low=0.0, high=0.2),
    ),
    params=(Param("beta", "1/day", 0.1, 1.0), Param("gamma", "1/day", 0.05, 0.5)),
)
"""

runner = CliRunner()


def invoke(*arguments):
    return runner.invoke(app, list(map(str, arguments)))


def works(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


def fails(message, *arguments):
    """Assert that a command fails with one sentence on standard error and no traceback."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output


def rows_of(run):
    return json.loads((run / "results.json").read_text())


def write_oscillators(path, runs=50):
    """Damped oscillators at irregular times, a tenth of the values missing."""
    generator = np.random.default_rng(0)
    lines = ["run,t [s],pos [m],v [m/s]"]
    for k in range(runs):
        t = np.sort(generator.uniform(0.0, 6.0, int(generator.integers(12, 18))))
        t[0] = 0.0
        stiffness, x0 = generator.uniform(0.8, 2.5), generator.uniform(-1.0, 1.0, 2)
        y = solve_ivp(
            lambda t, y, k=stiffness: [y[1], -k * y[0] - 0.2 * y[1]], (0.0, 6.0), x0, t_eval=t
        ).y.T
        gone = generator.random(y.shape) < 0.1
        gone[0] = False
        for time, pair, gaps in zip(t, y, gone, strict=True):
            cells = ["" if g else f"{v:.5f}" for v, g in zip(pair, gaps, strict=True)]
            lines.append(f"r{k},{time:.5f},{cells[0]},{cells[1]}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a user's files."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "plant.py").write_text(OSCILLATOR)
    (folder / "epidemic.py").write_text(EPIDEMIC)
    write_oscillators(folder / "runs.csv")
    return folder


@pytest.fixture(scope="module")
def many(here):
    """A fit to many runs, and what it printed."""
    out = here / "many"
    result = works(
        "fit", here / "runs.csv", "--expert", f"{here}/plant.py:expert", "--state", "q=pos",
        "--sample", "run", "--until", 4, "--set", ROLLOUT, "--out", out, "--json",
    )  # fmt: skip
    return out, result


# fit


def test_the_pelts_from_a_fresh_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("hudson_bay_pelts.csv").write_bytes(PELTS.read_bytes())
    result = works(
        "fit", "hudson_bay_pelts.csv", "--expert", "hybridgen.simulators.lotka_volterra:expert",
        "--until", "1914", "--noise", "log-normal", "--out", "pelts",
        "--set", "steps=2", "--set", "starts=16", "--set", "strengths=[10]",
    )  # fmt: skip
    assert "forecasts best" in result.stdout
    found = {p.name for p in Path("pelts").iterdir()}
    assert {"config.toml", "results.json", "report.html", "data.zarr", "models"} <= found
    rows = rows_of(Path("pelts"))
    errors = {r["parameter"] for r in rows if r["metric"] == "rms_log"}
    assert errors == {"hare", "lynx"}
    estimates = [r for r in rows if r["metric"] == "estimate" and r["inference"] == "refined"]
    assert {r["parameter"] for r in estimates} == {"alpha", "beta", "delta", "gamma"}
    assert {r["unit"] for r in estimates} == {"1/year", "1/thousand/year"}
    assert all(r["low"] < r["value"] < r["high"] for r in estimates)
    page = Path("pelts/report.html").read_text()
    for words in ("predation, fitted to hudson_bay_pelts.csv", "forecasts best", "after 1914",
                  "12 held-back values of one run", "What the data determine"):  # fmt: skip
        assert words in page
    assert page.count("data:image/png") == 3
    assert "Not shown" not in page


def test_one_observed_state_of_three(here):
    t = np.arange(0.0, 60.0, 3.0)
    y = solve_ivp(
        lambda t, y: [-0.5 * y[0] * y[1], 0.5 * y[0] * y[1] - 0.15 * y[1], 0.15 * y[1]],
        (0.0, 60.0), [0.95, 0.01, 0.0], t_eval=t, rtol=1e-8,
    ).y  # fmt: skip
    table = here / "infected.csv"
    cells = zip(t, y[1], strict=True)
    table.write_text("day,infected\n" + "".join(f"{a:g},{b:.6g}\n" for a, b in cells))
    works(
        "fit", table, "--expert", f"{here}/epidemic.py:expert", "--state", "i=infected",
        "--noise", "log-normal", "--until", 39, "--learners", "expert_only", "--out",
        here / "epidemic", "--set", "steps=30", "--set", "starts=64",
    )  # fmt: skip
    rows = rows_of(here / "epidemic")
    found = {r["parameter"]: r["value"] for r in rows
             if r["metric"] == "estimate" and r["inference"] == "refined"}  # fmt: skip
    # only beta s and gamma can be told from the infected alone, and gamma's is 0.15 a day
    assert found["gamma"] == pytest.approx(0.15, rel=0.05)
    errors = {(r["learner"], r["inference"]): r["value"] for r in rows if r["metric"] == "rms_log"}
    assert errors["expert_only", "refined"] < 0.1 * errors["mean", "none"]


def test_many_runs_with_gaps_at_times_of_their_own(many):
    out, _ = many
    rows = rows_of(out)
    scored = {r["learner"] for r in rows if r["metric"] == "rms_sd" and r["shift"] == "horizon"}
    assert scored == {"mean", "expert_only", "network_only", "aphynity"}
    data = read_group(out / "data.zarr", "train")
    assert data.sizes["sample"] == 40
    assert not data["mask"].all("state").values[data["t"].values <= 4.0].all()
    assert "10 runs" in (out / "report.html").read_text()


def test_progress_as_lines_of_json(many):
    out, result = many
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [e["event"] for e in (events[0], events[-1])] == ["started", "finished"]
    assert events[-1]["report"] == str(out / "report.html")
    progress = [e for e in events if e["event"] == "progress"]
    assert {e["learner"] for e in progress} == {"expert_only", "network_only", "aphynity"}
    assert all(e["step"] == e["total"] == 4 and e["loss"] > 0 for e in progress)


def test_a_fit_is_resumed_from_anywhere(many, tmp_path, monkeypatch):
    out, _ = many
    before = [r for r in rows_of(out) if r["metric"] != "training_time"]
    monkeypatch.chdir(tmp_path)
    (out / "results.json").unlink()
    for again in (["fit"], ["run", "own_data"]):
        works(*again, "--out", out, "--resume")
        assert [r for r in rows_of(out) if r["metric"] != "training_time"] == before


def test_a_mistake_leaves_no_directory(here, tmp_path):
    out = tmp_path / "out"
    arguments = [here / "runs.csv", "--expert", f"{here}/plant.py:expert", "--out", out]
    fails("there is no column 'q' for state 'q'", "fit", *arguments)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no data and no expert given; write hybridgen fit DATA --expert FILE.py:NAME."),
        (["runs.csv"], "no expert given"),
        (["run.csv", "--expert", "plant.py:expert"], "did you mean 'runs.csv'?"),
        (["runs.csv", "--expert", "plant.py:exprt"], "did you mean 'expert'?"),
        (["runs.csv", "--expert", "plant.py:expert", "--state", "qpos"],
         "got 'qpos'; write --state NAME=COLUMN."),
        (["runs.csv", "--expert", "plant.py:expert", "--state", "q=pos"],
         "write --sort to sort the rows, or --sample COLUMN if a column tells several runs apart"),
        (["runs.csv", "--expert", "plant.py:expert", "--state", "q=pos", "--sample", "run",
          "--noise", "normal"], "it should be 'gaussian' or 'log-normal'"),
        (["runs.csv", "--expert", "plant.py:expert", "--state", "q=pos", "--sample", "run",
          "--learners", "hybrd"], "learners.0 is 'hybrd'; it should be 'expert_only'"),
        (["runs.csv", "--expert", "plant.py:expert", "--state", "q=pos", "--sample", "run",
          "--until", "60"], "nothing is observed after 60"),
        (["runs.csv", "--expert", "plant.py:expert", "--convert", "q=x"],
         "got the factor 'x'; write --convert NAME=FACTOR"),
        (["runs.csv", "--expert", "plant.py:expert", "--device", "nonsense"],
         "device 'nonsense' cannot be used here"),
    ],
)  # fmt: skip
def test_mistakes_in_a_fit(here, monkeypatch, arguments, message):
    monkeypatch.chdir(here)
    fails(message, "fit", *arguments, "--out", "nowhere")
    assert not Path("nowhere").exists()


def test_options_of_reading():
    columns = Columns(
        state=["q=pos [m]"], missing=["-999", "NA"], sep="tab", convert=["q=0.01", "T=1,273.15"]
    )
    assert columns.reading() == {
        "states": {"q": "pos [m]"}, "missing": [-999.0, "NA"], "sep": "\t",
        "convert": {"q": 0.01, "T": [1.0, 273.15]},
    }  # fmt: skip
    assert Columns(missing=["none"]).reading() == {"missing": []}


@pytest.mark.parametrize(
    ("python", "spoken"),
    [
        ("write missing=(-999,), or missing=().", "write --missing -999, or --missing none."),
        ("write missing=(-999, 'NA').", "write --missing -999 --missing 'NA'."),
        ("write convert={'t': 1 / 1000} to convert", "write --convert t=1 / 1000 to convert"),
        ("convert={'T': (1, 273.15)}", "--convert T=1,273.15"),
        ("units={'q': 'm'}", "--unit q='m'"),
        ("states={'q': '...'}", "--state q=COLUMN"),
        ("write time_unit='day', decimal=','", "write --time-unit 'day', --decimal ','"),
    ],
)
def test_errors_of_the_reader_name_the_options(python, spoken):
    with pytest.raises(DataError) as caught, as_options():
        raise DataError(python)
    assert str(caught.value) == spoken


# predict


def test_predict_from_the_data_of_the_run(many, tmp_path):
    out, _ = many
    works("predict", out, "--until", 8, "--out", tmp_path / "a.csv", "--learner", "expert_only")
    table = pd.read_csv(tmp_path / "a.csv")
    assert list(table) == ["run", "time [s]", "q [m]", "v [m/s]", "status"]
    assert table["run"].nunique() == 50
    assert table.groupby("run")["time [s]"].max().eq(8.0).all()
    assert set(table["status"]) <= {"ok", "retried"}


def test_a_forecast_does_not_look_at_what_it_forecasts(many, here, tmp_path):
    out, _ = many
    table = pd.read_csv(here / "runs.csv")
    table.loc[table["t [s]"] > 4.0, ["pos [m]", "v [m/s]"]] = 3.3
    table.to_csv(tmp_path / "other.csv", index=False)
    quick = ["--inference", "amortised", "--out"]
    works("predict", out, *quick, tmp_path / "a.zarr")
    works("predict", out, tmp_path / "other.csv", *quick, tmp_path / "b.zarr")
    own, new = (read_group(tmp_path / f"{k}.zarr", "predicted") for k in "ab")
    assert np.array_equal(own["y"].values, new["y"].values)
    assert np.isfinite(own["y"].values).all()


def load_expert(here):
    from hybridgen.locating import load_object

    with load_object(f"{here}/plant.py:expert") as expert:
        return expert


def test_predict_is_the_models_own_prediction(many, here, tmp_path):
    out, _ = many
    works("predict", out, "--times", "1:5:9", "--inference", "amortised", "--learner",
          "expert_only", "--out", tmp_path / "a.nc")  # fmt: skip
    found = xr.open_dataset(tmp_path / "a.nc", engine="scipy").load()
    assert np.allclose(found["time"], np.linspace(1.0, 5.0, 9))
    assert found["time"].attrs["units"] == "s"
    model = load_model(out / "models" / "expert_only", load_expert(here))
    data = read_group(out / "data.zarr", "train")
    inferred = model.infer(to_batch(data, model.expert))
    t = torch.cat([torch.zeros(1), torch.linspace(1.0, 5.0, 9)])
    expected = model.predict(None, t, given=inferred).y[:, 1:]
    where = [found["run"].values.tolist().index(r) for r in data["run"].values.tolist()]
    assert np.allclose(found["y"].values[where], expected.numpy(), atol=1e-3)
    assert np.allclose(found["k"].values[where], inferred.z_e[:, 0].numpy())
    assert found.attrs["learner"] == "expert_only"
    assert found["status"].attrs["flag_meanings"].split()[1] == "ok"


def test_a_run_shorter_than_the_window_can_be_predicted(many, here, tmp_path):
    """Runs differ in length, so a new one may have fewer points than the longest in training."""
    out, _ = many
    table = pd.read_csv(here / "runs.csv").query("run == 'r3'").head(6)
    table.to_csv(tmp_path / "short.csv", index=False)
    works("predict", out, tmp_path / "short.csv", "--until", 9, "--out", tmp_path / "a.csv")
    assert np.isfinite(pd.read_csv(tmp_path / "a.csv")["q [m]"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--until", "8", "--times", "0:1:3"], "--until and --times exclude each other"),
        (["--times", "0:1"], "write --times A:B:N"),
        (["--times", "3:1:5"], "with A < B"),
        (["--times", "-1:1:5"], "--times begins at -1, but the data begin at 0"),
        (["--until", "-3"], "--until is -3, but the data begin at 0 only"),
        (["--learner", "hvae"], "has no learner 'hvae'"),
        (["--inference", "best"], "write refined or amortised"),
        (["--expert", "hybridgen.simulators.pendulum:expert"], "was trained with states"),
    ],
)
def test_mistakes_in_a_prediction(many, tmp_path, arguments, message):
    fails(message, "predict", many[0], *arguments, "--out", tmp_path / "a.csv")


def test_where_a_forecast_is_written(many, tmp_path):
    fails("write one of .csv, .nc, .zarr", "predict", many[0], "--out", tmp_path / "a.txt")
    fails("there is no folder", "predict", many[0], "--out", tmp_path / "b" / "a.csv")
    (tmp_path / "a.csv").write_text("mine")
    fails("is there already", "predict", many[0], "--out", tmp_path / "a.csv")
    works("predict", many[0], "--out", tmp_path / "a.csv", "--overwrite", "--learner",
          "network_only")  # fmt: skip
    fails("holds no trained models", "predict", tmp_path, "--out", tmp_path / "c.csv")


def test_times_to_forecast():
    t = torch.tensor([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    grid = Wanted(until=5.0).grid(t)
    assert grid.shape == (2, 6)
    assert torch.equal(grid[:, [0, -1]], torch.tensor([[0.0, 5.0], [1.0, 5.0]]))
    assert torch.equal(Wanted().grid(t), t)


# augment


def test_an_augmented_store_says_what_it_is(many, here, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["hybridgen", "augment", "a run"])
    out, _ = many
    store = tmp_path / "wider.zarr"
    works("augment", out, "--range", "k=0.5:3", "-n", 12, "--out", store, "--seed", 5)
    data = xr.open_zarr(store, group="augmented", consolidated=False).load()
    assert data.sizes["sample"] == 12
    assert data["k"].attrs == {"units": "1/s^2", "role": "z_e"}
    assert ((data["k"] >= 0.5) & (data["k"] <= 3.0)).all()
    assert data["t"].attrs["units"] == "s"
    assert data["unit"].values.tolist() == ["m", "m/s"]
    assert (data["distance"] >= 0).all()
    assert (data["distance"] > 0).any()
    assert data["status"].attrs["flag_meanings"]
    stated = json.loads((out / "models/aphynity/checkpoint.json").read_text())
    assert data.attrs["model_sha256"] == stated["sha256"]
    assert data.attrs["range_k"] == "[0.5, 3.0]"
    assert data.attrs["seed"] == 5
    assert data.attrs["hybridgen_version"]
    assert data.attrs["command"] == "hybridgen augment 'a run'"
    model = load_model(out / "models" / "aphynity", load_expert(here))
    expected = expert_augment(model, read_group(out / "data.zarr", "train"), {"k": (0.5, 3.0)})
    assert np.array_equal(expected.sample(12, seed=5)["k"].values, data["k"].values)


def test_models_of_a_study_are_augmented_too(tmp_path):
    """There they stand by seed, with the data beside them."""
    train = pendulum.simulator.sample(10, seed=0)
    model = APHYNITY(pendulum.expert)
    model.bind(to_batch(train, pendulum.expert).to(model.state_sd), 50)
    study = tmp_path / "study"
    save_model(study / "seed-1" / "models" / "aphynity", model)
    fails("keeps no training data", "augment", study, "-n", 3, "--out", tmp_path / "a")
    write_store(study / "seed-1" / "data.zarr", {"train": train})
    works("augment", study, "--range", "omega0=1:2", "-n", 3, "--out", tmp_path / "a")
    data = read_group(tmp_path / "a", "augmented")
    assert data.attrs["model"] == "study/seed-1/models/aphynity"
    assert ((data["omega0"] >= 1) & (data["omega0"] <= 2)).all()
    works("predict", study, "--until", 30, "--out", tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--range", "kk=1:2"], "ranges has 'kk'; did you mean 'k'?"),
        (["--range", "k=1"], "write --range k=LOW:HIGH, two numbers."),
        (["--range", "k"], "write --range NAME=LOW:HIGH"),
        (["--range", "k=0:9"], "the expert is valid in [0.5, 3]"),
        (["--learner", "network_only"], "expert augmentation needs a model with an expert"),
        (["--out", "no/such/folder"], "there is no folder"),
    ],
)
def test_mistakes_in_an_augmentation(many, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    fails(message, "augment", many[0], "-n", 2, "--out", "a", *arguments)
    assert not Path("a").exists()


# simulate


def test_simulate_writes_what_the_simulator_draws(tmp_path):
    store = tmp_path / "a"
    works("simulate", "pendulum", "-n", 4, "--out", store, "--seed", 2, "--shift", "far")
    data = read_group(store, "ood/far")
    expected = pendulum.simulator.sample(4, seed=2, shift="far")
    assert np.array_equal(data["y"].values, expected["y"].values)
    assert data.attrs["shift"] == "far"
    fails("is there already", "simulate", "pendulum", "-n", 4, "--out", store)
    works("simulate", "pendulum", "-n", 2, "--out", store, "--overwrite", "--split", "test")
    assert read_group(store).sizes["sample"] == 2
    assert read_group(store).attrs["split"] == "test"


def test_simulate_a_variant_and_a_simulator_of_ones_own(here, tmp_path):
    works("simulate", "lotka_volterra", "--variant", "holling", "-n", 2, "--out", tmp_path / "a")
    expected = lotka_volterra.variants["holling"].sample(2, seed=0)
    assert np.array_equal(read_group(tmp_path / "a")["y"].values, expected["y"].values)
    works("simulate", f"{here}/plant.py:simulator", "-n", 2, "--out", tmp_path / "b")
    assert read_group(tmp_path / "b").sizes["sample"] == 2


def test_mistakes_in_a_simulation(here, tmp_path):
    out = ["-n", 2, "--out", tmp_path / "a"]
    fails("no simulator 'pendulm'; did you mean 'pendulum'?", "simulate", "pendulm", *out)
    fails("is a ODEExpert; name a Simulator", "simulate", f"{here}/plant.py:expert", *out)
    fails("no shift 'fur'; did you mean 'far'?", "simulate", "pendulum", *out, "--shift", "fur")
    fails("has no variant 'hol", "simulate", "lotka_volterra", *out, "--variant", "holing")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("command", ["fit", "predict", "augment", "simulate"])
def test_help_imports_nothing_heavy(command):
    heavy = ("torch", "numpy", "xarray", "pandas", "matplotlib", "zarr")
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('HEAVY', [m for m in {heavy!r} if m in sys.modules]))\n"
        "from hybridgen.cli import app\n"
        f"app([{command!r}, '--help'], standalone_mode=False)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "HEAVY []", found.stdout + found.stderr
