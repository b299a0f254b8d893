"""Scores are what their definitions say, failures count, seeds are averaged."""

import math

import numpy as np
import pytest
import torch
from hybridgen.simulators import pendulum

from hybridgen.batch import Batch
from hybridgen.errors import DataError
from hybridgen.evaluation import Row, aggregate, evaluate, mean_baseline, score
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Inferred, Prediction


def predicted(y, z_e):
    return Prediction(y, torch.zeros(len(y)), y[:, -1, 0], Inferred(z_e, z_e[:, :0], y[:, 0]))


def figures(rows, parameter="mean"):
    return {r["metric"]: r["value"] for r in rows if r["parameter"] == parameter}


def test_definitions_by_hand():
    y = torch.zeros(2, 4, 2)
    guess = y.clone()
    guess[0, 2:] = 1.0  # squared error, summed over 2 states: 2 at the last two of four times
    batch = Batch(t=torch.arange(4.0), y=y, z_e=torch.tensor([[2.0, 4.0], [1.0, 1.0]]))
    z_e = torch.tensor([[1.0, 5.0], [1.1, 1.0]])
    rows = score(
        predicted(guess, z_e), batch, window=3, fallback=torch.zeros(2), params=("a", "b")
    )
    # times from the last observed one (index 2) on: 2, 3
    assert math.isclose(figures(rows)["log_mse_summed"], math.log(1.0), abs_tol=1e-6)
    assert math.isclose(figures(rows)["log_mse"], math.log(0.5), abs_tol=1e-6)
    assert math.isclose(figures(rows, "a")["relative_error"], 30.0, rel_tol=1e-6)
    assert math.isclose(figures(rows, "b")["relative_error"], 12.5, rel_tol=1e-6)
    assert math.isclose(figures(rows)["relative_error"], 21.25, rel_tol=1e-6)


def test_a_failed_prediction_scores_as_the_mean_and_is_counted():
    y = torch.ones(2, 3, 1)
    guess = y.clone()
    guess[1, 1:] = torch.nan
    rows = score(
        predicted(guess, y[:, 0]), Batch(t=torch.arange(3.0), y=y), 1, torch.tensor([3.0])
    )
    # one of two members has squared error 4 at two of three times
    assert math.isclose(figures(rows)["log_mse_summed"], math.log(8 / 6), rel_tol=1e-5)
    assert figures(rows)["failed"] == 1


def test_missing_values_do_not_count():
    y, mask = torch.zeros(1, 3, 1), torch.tensor([[[True], [True], [False]]])
    guess = torch.tensor([[[0.0], [1.0], [9.0]]])
    batch = Batch(t=torch.arange(3.0), y=y, mask=mask)
    rows = score(predicted(guess, y[:, 0]), batch, window=1, fallback=torch.zeros(1))
    assert math.isclose(figures(rows)["log_mse_summed"], math.log(1 / 2), rel_tol=1e-6)


def test_mean_baseline_is_the_variance():
    train = pendulum.simulator.sample(50, seed=0)
    test = pendulum.simulator.sample(50, seed=0, split="test")
    rows = mean_baseline(train, test, window=50, experiment="e")
    error = ((test["y"] - train["y"].mean(("sample", "time"))) ** 2).sum("state")[:, 49:]
    assert math.isclose(figures(rows)["log_mse_summed"], float(np.log(error.mean())), rel_tol=1e-6)
    assert rows[0]["learner"] == "mean"
    assert rows[0]["inference"] == "none"


def test_evaluate_fills_the_columns():
    test = pendulum.simulator.sample(8, seed=0, split="test", shift="far")
    model = APHYNITY(pendulum.expert)
    model.bind(to_batch(test).to(model.state_sd), window=50)
    rows = evaluate(model, test, experiment="mine", seed=3)
    row = next(r for r in rows if r["metric"] == "relative_error" and r["parameter"] == "omega0")
    assert row["shift"] == "far"
    assert row["split"] == "ood"
    assert row["problem"] == "damped"
    assert row["learner"] == "aphynity"
    assert row["inference"] == "amortised"
    assert row["seed"] == 3
    assert row["distance"] == pytest.approx(float(test["distance"].mean()))
    assert row["low"] <= row["value"] <= row["high"]
    assert list(row) == list(Row().asdict())


def test_aggregate_over_seeds():
    rows = [Row(metric="m", value=v, seed=s).asdict() for s, v in enumerate((1.0, 2.0, 6.0))]
    (mean,) = aggregate(rows)
    assert (mean["value"], mean["low"], mean["high"]) == (3.0, 1.0, 6.0)
    assert (mean["seed"], mean["n_seeds"]) == ("mean", 3)
    with pytest.raises(DataError, match="occurs twice"):
        aggregate([rows[0], rows[0]])


def test_a_single_seed_keeps_its_interval():
    (mean,) = aggregate([Row(metric="m", value=2.0, low=1.5, high=2.5).asdict()])
    assert (mean["low"], mean["high"]) == (1.5, 2.5)


def test_a_figure_that_is_not_finite_is_null():
    assert Row(value=float("nan"), high=float("inf")).asdict()["value"] is None
