"""The figure of a fit shows what was seen, what was held back, and every learner once."""

import json

import numpy as np
import pytest
import xarray as xr

from hybridgen import plots, plots_fit


@pytest.fixture
def data():
    """Two runs of two states, the second never observed; one forecast blows up."""
    t = np.linspace(0.0, 10.0, 50)
    names = ["expert_only", "expert_only refined", "network_only"]
    curve = np.stack([np.sin(t), np.cos(t)], -1)
    predicted = np.broadcast_to(curve, (3, 2, 50, 2)).copy()
    predicted[2, :, 30:] = 1e6
    nothing = np.full_like(predicted, np.nan)
    low, high = nothing.copy(), nothing.copy()
    low[1], high[1] = predicted[1] - 0.1, predicted[1] + 0.1
    at = np.arange(0.0, 10.5, 1.0)
    observed = np.stack([np.sin(at), np.full_like(at, np.nan)], -1)
    dims = ("learner", "sample", "time", "state")
    return xr.Dataset(
        {
            "predicted": (dims, predicted),
            "low": (dims, low),
            "high": (dims, high),
            "observed": (("sample", "point", "state"), np.stack([observed, observed])),
        },
        {
            "learner": names,
            "state": ["x", "v"],
            "t": (dims[1:3], np.stack([t, t])),
            "at": (("sample", "point"), np.stack([at, at])),
            "run": ("sample", ["a", "b"]),
        },
        {"until": 6.0, "units": json.dumps({"x": "m", "v": "1"}), "time_units": "s"},
    )


@pytest.fixture
def axes(data):
    with plots.style():
        fig = plots.figure(8, 5)
        plots_fit.forecasts(data, fig)
        fig.draw_without_rendering()
        return np.array(fig.axes).reshape(2, 2)


def by_label(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_every_learner_is_drawn_once(axes):
    assert list(by_label(axes[0, 0])) == [
        "expert only refined", "network only", "observed", "held back",
    ]  # fmt: skip


def test_dots_are_filled_up_to_the_last_time_seen(axes):
    lines = by_label(axes[0, 0])
    assert lines["observed"].get_xdata().max() == 6.0
    assert lines["held back"].get_xdata().min() == 7.0
    assert lines["held back"].get_markerfacecolor() == "white"


def test_a_band_where_there_is_one(axes, data):
    (band,) = (c for c in axes[0, 0].collections if len(c.get_paths()[0].vertices) > 50)
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(1.1, abs=0.01)


def test_a_forecast_that_blows_up_does_not_press_the_others(axes):
    for ax in axes.ravel():
        low, high = ax.get_ylim()
        assert -4 < low < -1
        assert 1 < high < 4


def test_a_state_without_data_is_not_drawn_of_a_network_alone(axes):
    assert list(by_label(axes[1, 0])) == ["expert only refined", "observed", "held back"]


def test_labels_and_units(axes):
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["x (m)", "v"]
    assert [ax.get_xlabel() for ax in axes[1]] == ["time (s)", "time (s)"]
    assert [ax.get_title(loc="left") for ax in axes[0]] == ["run a", "run b"]
