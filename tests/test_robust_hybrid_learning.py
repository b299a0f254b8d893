"""Chapter 7 in small: a pendulum without damping, trained in support, tested outside of it.

The bars are those that the published tables set; the studies in docs/results are the full tests.
"""

import pytest
import torch
from hybridgen.experiments.evidence import collect
from hybridgen.simulators import pendulum

from hybridgen.augmentation import expert_augment
from hybridgen.evaluation import evaluate, mean_baseline
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Convolutional
from hybridgen.train import FitConfig, Stage, fit

SIMULATOR = pendulum.simulator
AUGMENTED = Stage(
    "supervised", steps=2400, batch_size=100, learning_rate=2e-3, pool=2000, refresh=300
)


@pytest.fixture(scope="module")
def train():
    return SIMULATOR.sample(400, seed=0, split="train")


@pytest.fixture(scope="module")
def tests():
    """Test sets in support and outside of it."""
    return {s: SIMULATOR.sample(300, seed=0, split="test", shift=s) for s in (None, "ood")}


@pytest.fixture(scope="module")
def trained(train):
    """The hybrid before and after expert augmentation, with their histories."""
    # single precision is what users train in
    torch.set_default_dtype(torch.float32)
    valid = SIMULATOR.sample(100, seed=0, split="valid")
    model = APHYNITY(SIMULATOR.expert, encoder=Convolutional(width=16, hidden=64))
    config = FitConfig(stages=(Stage(steps=600, batch_size=50),))
    base, before = fit(model, train, valid, config)
    plus, after = fit(base, expert_augment(base, train), config=FitConfig(stages=(AUGMENTED,)))
    torch.set_default_dtype(torch.float64)
    return {"aphynity": (base, before), "aphynity+": (plus, after)}


@pytest.fixture(scope="module")
def figures(train, tests, trained):
    """Mean figures by learner, shift and metric."""
    window = int(train.attrs["window"])
    rows = []
    for data in tests.values():
        rows += mean_baseline(train, data, window)
        for model, _ in trained.values():
            rows += evaluate(model, data)
    return {
        (r["learner"], r["shift"], r["metric"]): r["value"]
        for r in rows
        if r["parameter"] == "mean"
    }


def test_s0_7_3_amortised_parameters_in_support(figures):
    assert figures["aphynity", "none", "relative_error"] <= 8.0


def test_s0_7_7_augmentation_costs_little_in_support(figures):
    before, after = (figures[n, "none", "relative_error"] for n in ("aphynity", "aphynity+"))
    assert after <= before + 2.0


def test_s0_7_11_forecasts_outside_the_support(figures):
    before, after = (
        {s: figures[n, s, "log_mse_summed"] for s in ("none", "ood")}
        for n in ("aphynity", "aphynity+")
    )
    assert after["ood"] <= before["ood"] - 2.0
    assert after["none"] <= before["none"] + 0.5


def test_s0_7_12_parameters_outside_the_support(figures):
    before, after = (figures[n, "ood", "relative_error"] for n in ("aphynity", "aphynity+"))
    assert after <= 18.0
    assert before >= 3.0 * after


def test_s0_7_15_the_mean_is_beaten_in_support(figures):
    ours, mean = (figures[n, "none", "log_mse_summed"] for n in ("aphynity", "mean"))
    assert ours < mean


def test_s0_7_15_the_figure_of_the_roll_outs_is_in_the_diagnostics(tests, trained):
    named = {s or "none": data for s, data in tests.items()}
    histories = {name: history for name, (_, history) in trained.items()}
    predicted = {
        (name, shift): model.predict(None, to_batch(data).t, given=to_batch(data))
        for name, (model, _) in trained.items()
        for shift, data in named.items()
    }
    rollouts = collect(SIMULATOR, histories, predicted, named)["rollouts"]
    assert rollouts["predicted"].dims == ("learner", "shift", "sample", "time", "state")
    squared = (rollouts["predicted"] - rollouts["observed"]) ** 2
    late = squared.sel(shift="ood").isel(time=slice(50, None)).mean(("sample", "time", "state"))
    assert late.sel(learner="aphynity+") < late.sel(learner="aphynity")
