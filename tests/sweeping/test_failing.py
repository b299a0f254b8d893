"""The map of failures counts every member once, and finds where they fail."""

import numpy as np
import pytest
from hybridgen.simulators import pendulum

from hybridgen import plots
from hybridgen.errors import DataError, ParameterError
from hybridgen.integrate import Status
from hybridgen.plots_sweep import failure_shares
from hybridgen.sweeping import failure_map


@pytest.fixture
def data():
    data = pendulum.simulator.sample(400, seed=0)
    status = np.where(data["alpha"].values > 0.5, Status.diverged, Status.ok).astype(np.int8)
    status[:20] = Status.not_written
    status[20:30] = Status.retried
    return data.assign(status=("sample", status, data["status"].attrs))


def test_everybody_is_counted_once(data):
    found = failure_map(data, bins=6)
    for name in ("", "_omega0", "_alpha"):
        assert int(found[f"members{name}"].sum()) == 380
    failed = (data["status"].values == Status.diverged).sum()
    assert int(found["failed"].sum()) == int(found["failed_alpha"].sum()) == failed
    assert (found["failed"] <= found["members"]).all()
    edge = found["alpha"].values > 0.45
    assert int(found["failed_alpha"].values[~edge].sum()) == 0
    assert found["alpha"].attrs["units"] == "1/s"


def test_the_map_is_of_what_matters(data):
    assert set(failure_map(data)["members"].dims) == {"omega0", "alpha"}
    assert failure_map(data, ["alpha", "omega0"])["members"].dims == ("alpha", "omega0")
    one = failure_map(data.drop_vars("alpha"))
    assert "members" not in one
    assert "members_omega0" in one


def test_mistakes(data):
    with pytest.raises(ParameterError, match="did you mean 'alpha'"):
        failure_map(data, ["alfa", "omega0"])
    with pytest.raises(DataError, match="needs two of them"):
        failure_map(data, ["alpha"])
    with pytest.raises(DataError, match="no status"):
        failure_map(data.drop_vars("status"))


def test_it_is_drawn(data):
    fig = plots.figure(8.0, 3.5)
    failure_shares(failure_map(data), fig)
    assert [ax.get_xlabel() for ax in fig.axes if ax.get_xlabel()] == [
        "omega0 (rad/s)",
        "omega0 (rad/s)",
        "alpha (1/s)",
    ]
    assert plots.png(fig)[:4] == b"\x89PNG"
    fig = plots.figure(4.0, 3.0)
    failure_shares(failure_map(data.drop_vars("alpha")), fig)
    assert len(fig.axes) == 1
    heights = [bar.get_height() for bar in fig.axes[0].patches]
    assert 0.0 < max(heights) <= 100.0
