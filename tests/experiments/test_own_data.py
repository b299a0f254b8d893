"""A fit to a user's data: what is held back stays unseen, and the rows are what they say."""

import math

import numpy as np
import pytest
import torch
import xarray as xr
from hybridgen.experiments import own_data
from hybridgen.experiments.fit_evidence import constant, error_rows, estimate_rows
from hybridgen.experiments.held_back import Split, last_time, observed_until
from hybridgen.simulators import pendulum

from hybridgen.batch import Batch
from hybridgen.errors import ConfigError, DataError, GradientError
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch, to_dataset
from hybridgen.models import APHYNITY
from hybridgen.noise import LogNormalNoise
from hybridgen.params import Param, State
from hybridgen.refinement import Refined
from hybridgen.rundir import RunDir
from hybridgen.store import write_store
from hybridgen.train import Stage

LEVEL = (State("level", "m"),)
RATE = (Param("rate", "1/s", 0.1, 1.0),)
DECAY = ODEExpert(lambda t, y, z_e: -z_e.rate[..., None] * y, LEVEL, RATE)
TINY = (Stage(objective="rollout", steps=3, batch_size=8),)


def decays(runs=6, points=20, seed=0):
    """Exponential decays at times of their own, one a little shorter, as a data set."""
    generator = np.random.default_rng(seed)
    t = np.sort(generator.uniform(0.0, 4.0, (runs, points)), axis=1)
    t[:, 0] = 0.0
    t[0, -2:] = t[0, -3] + (t[0, -3] - t[0, -4]) * np.array([1, 2])
    rate = np.linspace(0.4, 0.7, runs)[:, None]
    y = (2.0 * np.exp(-rate * t) * generator.normal(1.0, 0.01, t.shape))[..., None]
    mask = np.ones_like(y, dtype=bool)
    mask[0, -2:] = False
    y[~mask] = np.nan
    batch = Batch(t=torch.tensor(t), y=torch.tensor(y), mask=torch.tensor(mask))
    return to_dataset(batch, states=LEVEL)


def fit(folder, data, **settings):
    """Run the experiment on a data set, and return its rows and its directory."""
    store = write_store(folder / "measured.zarr", {"train": data})
    cfg = own_data.Config(data=str(store), expert="here", **settings)
    own_data.check(cfg, DECAY)
    run = RunDir.create(folder / "run", experiment="own_data", config=cfg, command=["test"])
    with run:
        rows = own_data.main(cfg, run, DECAY)
        run.write_rows(rows)
    return rows, run.path


def values(rows, **wanted):
    return {
        (r["learner"], r["inference"], r["parameter"], r["metric"]): r["value"]
        for r in rows
        if all(r[k] == v for k, v in wanted.items())
    }


# what is held back


def test_every_run_is_cut_at_its_own_point():
    data = decays()
    cut = observed_until(data, 2.0)
    seen = data["mask"].values & (data["t"].values <= 2.0)[..., None]
    assert np.array_equal(cut["mask"].values, seen)
    assert np.array_equal(np.isnan(cut["y"].values), ~seen)
    assert cut.attrs["window"] == seen[..., 0].sum(1).max()
    assert cut.attrs["until"] == 2.0
    assert np.array_equal(data["y"].values, decays()["y"].values, equal_nan=True)


def test_padding_does_not_widen_the_window():
    data = decays(runs=1)
    assert observed_until(data, 1e6).attrs["window"] == 18


def test_fields_are_cut_too():
    y = torch.arange(2 * 4 * 1 * 3 * 3, dtype=torch.float64).reshape(2, 4, 1, 3, 3)
    axis = np.arange(3.0)
    data = to_dataset(
        Batch(t=torch.arange(4.0), y=y), states=(State("c", "mol/L"),), grid={"y": axis, "x": axis}
    )
    batch = to_batch(observed_until(data, 1.0))
    assert torch.equal(batch.mask[:, :, 0, 0, 0], torch.tensor([[True, True, False, False]] * 2))
    assert torch.equal(batch.y[:, :2], y[:, :2])


def test_by_default_the_last_thirty_per_cent_are_held_back():
    t = torch.arange(1900.0, 1921.0, dtype=torch.float64)
    data = to_dataset(Batch(t=t, y=torch.ones(1, 21, 1)), states=LEVEL)
    assert last_time(data) == 1913.0


def test_a_run_without_a_beginning_is_named():
    data = decays().assign_coords(run=("sample", list("abcdef")))
    data["mask"][2, :5] = False
    until = float(data["t"][2, 4])
    assert (data["t"] <= until).sum("time").isel(sample=[0, 1, 3, 4, 5]).min() >= 2
    with pytest.raises(DataError, match=r"run 'c' has 0 observed times up to "):
        observed_until(data, until)


def test_a_split_inside_the_window_looks_no_further():
    split = Split.at(DECAY, decays(), None, 3.0)
    earlier = split.earlier()
    assert earlier.until < split.until
    assert not (earlier.held & split.held).any()
    assert float(earlier.truth.t.expand_as(earlier.held[..., 0])[earlier.held[..., 0]].max()) <= 3


def test_nothing_held_back_is_an_error():
    with pytest.raises(DataError, match=r"nothing is observed after 5 .* end at 3\.9"):
        Split.at(DECAY, decays(), None, 5.0)


# scores


def test_errors_of_the_mean_are_the_formula():
    data = decays()
    split = Split.at(DECAY, data, None, 2.0)
    model = APHYNITY(DECAY, noise=LogNormalNoise(), infer_x0=True)
    model.bind(split.train_batch, split.window)
    rows = error_rows(constant(split), split, model, learner="mean", shift="horizon")
    y, t = data["y"].values[..., 0], data["t"].values
    early, late = (data["mask"].values[..., 0] & (f) for f in (t <= 2.0, t > 2.0))
    error = np.log(y[early].mean()) - np.log(y[late])
    found = values(rows, learner="mean")
    assert math.isclose(
        found["mean", "none", "level", "rms_log"], math.sqrt((error**2).mean()), rel_tol=1e-6
    )
    sd = np.log(y[early]).std(ddof=1)
    assert math.isclose(
        found["mean", "none", "mean", "rms_sd"], math.sqrt((error**2).mean()) / sd, rel_tol=1e-6
    )
    per_run = [((y[early].mean() - y[b][late[b]]) ** 2).mean() for b in range(len(y))]
    assert math.isclose(
        found["mean", "none", "mean", "log_mse_summed"], math.log(np.mean(per_run)), abs_tol=1e-5
    )


def test_of_one_run_there_is_no_spread():
    split = Split.at(DECAY, decays(runs=1), None, 2.0)
    model = APHYNITY(DECAY)
    model.bind(split.train_batch, split.window)
    rows = error_rows(constant(split), split, model)
    assert {(r["low"], r["high"]) for r in rows} == {(None, None)}


def test_refined_runs_of_one_system_are_weighted_by_what_they_know():
    model = APHYNITY(DECAY, residual=None)
    variances = torch.tensor([1.0, 4.0])
    refined = Refined(
        z_e=torch.tensor([[0.3], [0.8]]),
        z_a=torch.zeros(2, 0),
        x0=torch.ones(2, 1),
        covariance=torch.diag_embed(torch.stack([variances, torch.ones(2)], -1)),
        chi2=torch.zeros(2),
        convergence=torch.zeros(2),
    )
    (row,) = estimate_rows(model, refined, single=True)
    assert math.isclose(row["value"], (0.3 / 1 + 0.8 / 4) / (1 + 1 / 4), rel_tol=1e-6)
    assert math.isclose(row["high"] - row["value"], 1.6448536 * math.sqrt(0.8), rel_tol=1e-6)
    (row,) = estimate_rows(model, refined, single=False)
    assert math.isclose(row["value"], 0.55, rel_tol=1e-6)
    assert row["unit"] == "1/s"


def test_small_numbers_are_not_rounded_away():
    expert = ODEExpert(DECAY.field, LEVEL, (Param("rate", "1/s", 0.0, 1e-7),))
    model = APHYNITY(expert, residual=None)
    model.bind(to_batch(decays(runs=1)).window(10))
    (row,) = estimate_rows(model, model.infer(to_batch(decays(runs=1))), single=True)
    assert 0 < row["value"] < 1.1e-7


# the whole


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A fit of all learners to runs of their own systems."""
    return fit(tmp_path_factory.mktemp("many"), decays(), until=2.5, stages=TINY)


def test_every_learner_is_scored_on_the_held_back_times(many):
    rows, path = many
    scored = values(rows, shift="horizon", metric="rms_sd")
    assert {k[:2] for k in scored} == {
        ("mean", "none"),
        ("expert_only", "amortised"),
        ("expert_only", "refined"),
        ("network_only", "amortised"),
        ("aphynity", "amortised"),
        ("aphynity", "refined"),
    }
    assert all(0 < v < 100 for v in scored.values())
    (distance,) = {r["distance"] for r in rows if r["shift"] == "horizon"}
    assert distance == pytest.approx((4.0 - 2.5) / 2.5, abs=0.2)
    estimates = values(rows, metric="estimate")
    assert {k[0] for k in estimates} == {"expert_only", "aphynity"}
    assert {p.name for p in (path / "models").iterdir()} == {
        "aphynity",
        "expert_only",
        "network_only",
    }
    # the truth is -rate * level, and a refined expert finds it
    assert 0.35 < estimates["expert_only", "refined", "rate", "estimate"] < 0.75


def test_the_future_changes_nothing_that_was_learnt(many, tmp_path):
    """All that comes after `until` may be anything."""
    rows, _ = many
    other = decays()
    other["y"] = other["y"].where(other["t"] <= 2.5, 7.0).where(other["mask"])
    again, _ = fit(tmp_path, other, until=2.5, stages=TINY)
    learnt = ("estimate", "share_fa", "cosine_fa_expert")
    for metric in learnt:
        assert values(rows, metric=metric) == values(again, metric=metric)
    assert values(rows, metric="rms_sd") != values(again, metric="rms_sd")


def test_the_data_kept_with_the_run_are_masked(many):
    _, path = many
    tree = xr.open_datatree(path / "data.zarr", engine="zarr", chunks=None, consolidated=False)
    assert set(tree.children) == {"all", "train", "valid"}
    for name in ("train", "valid"):
        data = tree[name].to_dataset()
        late = data["t"].values > 2.5
        assert not data["mask"].values[late].any()
        assert np.isnan(data["y"].values[late]).all()
    assert tree["train"].sizes["sample"] + tree["valid"].sizes["sample"] == 6


def test_a_resumed_fit_needs_its_file_no_more(many):
    rows, path = many
    (path.parent / "measured.zarr").rename(path.parent / "moved.zarr")
    (path / "results.json").unlink()
    cfg = own_data.Config(
        data=str(path.parent / "measured.zarr"), expert="here", until=2.5, stages=TINY
    )
    run = RunDir.create(path, experiment="own_data", config=cfg, command=["test"], resume=True)
    with run:
        again = own_data.main(cfg, run, DECAY)
        run.write_rows(again)
        assert own_data.main(cfg, run, DECAY) == run.read_rows()
    assert [r for r in again if r["metric"] != "training_time"] == [
        r for r in rows if r["metric"] != "training_time"
    ]


def test_one_system_chooses_its_penalty_inside_the_window(tmp_path):
    rows, _ = fit(
        tmp_path,
        decays(runs=1),
        until=2.5,
        learners=("expert_only", "hybrid"),
        steps=2,
        starts=4,
        strengths=(1.0, 100.0),
    )
    origins = {r["parameter"]: r["value"] for r in rows if r["metric"] == "rolling_origin"}
    assert set(origins) == {"penalty 1", "penalty 100", "no f_a"}
    (chosen,) = values(rows, metric="penalty").values()
    assert origins[f"penalty {chosen:g}"] == min(origins["penalty 1"], origins["penalty 100"])
    refined = [r for r in rows if r["metric"] == "estimate" and r["inference"] == "refined"]
    assert all(r["low"] < r["value"] < r["high"] for r in refined)


def test_runs_of_one_system_share_their_parameters(tmp_path):
    rows, _ = fit(
        tmp_path,
        decays(),
        until=2.5,
        one_system=True,
        learners=("expert_only",),
        steps=2,
        starts=4,
    )
    amortised = [r for r in rows if r["metric"] == "estimate" and r["inference"] == "amortised"]
    assert [(r["low"], r["high"]) for r in amortised] == [(None, None)]


def test_the_window_of_the_data_is_heeded(tmp_path):
    data = pendulum.simulator.sample(8, seed=0)
    store = write_store(tmp_path / "data.zarr", {"train": data})
    cfg = own_data.Config(data=str(store), expert="here", stages=(Stage(steps=2),))
    run = RunDir.create(tmp_path / "run", experiment="own_data", config=cfg, command=["test"])
    rows = own_data.main(cfg, run, pendulum.expert)
    kept = xr.open_zarr(run.path / "data.zarr", group="train", consolidated=False)
    assert kept.attrs["window"] == data.attrs["window"] == 50
    # true parameters are in the data, so their errors are scored
    assert ("aphynity", "refined", "omega0", "relative_error") in values(rows, shift="horizon")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"learners": ()}, ConfigError, "name each once, and at least one"),
        ({"strengths": (0.0,)}, ConfigError, "write one or more above 0"),
        ({"until": 1.0}, DataError, "choose the strength of the residual's penalty"),
        ({"noise": "log-normal"}, DataError, "log-normal noise needs positive values"),
    ],
)
def test_what_cannot_be_fitted_is_said_at_once(tmp_path, settings, error, message):
    data = decays(runs=1)
    data["y"][0, 3] = -1.0
    store = write_store(tmp_path / "data.zarr", {"train": data})
    with pytest.raises(error, match=message):
        own_data.check(own_data.Config(data=str(store), expert="here", **settings), DECAY)


def test_an_expert_in_numpy_is_refused(tmp_path):
    store = write_store(tmp_path / "data.zarr", {"train": decays()})
    black = ODEExpert(lambda t, y, z: -z.rate[..., None] * y, LEVEL, RATE, backend="numpy")
    with pytest.raises(GradientError, match="has no gradient, which training needs"):
        own_data.check(own_data.Config(data=str(store), expert="here"), black)
