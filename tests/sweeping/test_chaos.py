"""Members fail, sweeps don't: whoever raises, hangs or ends its process stands alone."""

import json

import numpy as np
import pytest

from hybridgen.integrate import Status
from hybridgen.store import open_store
from hybridgen.sweeping import SweepStoppedError, sweep, verify

N, ABOVE = 200, 0.97


@pytest.fixture(scope="module")
def calm(simulator):
    return simulator().sample(N, seed=1)


def read(store):
    return open_store(store)["train"].to_dataset().load()


def check_others(data, calm):
    """Everybody but the culprits is, bit for bit, as if there were none; of these k is known."""
    bad = calm["k"].values > ABOVE
    assert 2 <= bad.sum() <= 8
    assert np.array_equal(data["k"].values, calm["k"].values)
    assert np.array_equal(data["distance"].values, calm["distance"].values)
    for name in ("y", "clean", "status", "t_reached"):
        assert np.array_equal(data[name].values[~bad], calm[name].values[~bad]), name
    assert np.isnan(data["y"].values[bad][:, 1:]).all()
    return data.isel(sample=bad)


@pytest.mark.parametrize(
    ("what", "kind", "workers"),
    [
        ("raise", "ValueError at conftest.py:", 0),
        ("raise", "ValueError at conftest.py:", 1),
        ("exit", "process died: exit code 7", 2),
        ("kill", "process died: SIGKILL", 1),
    ],
)
def test_members_that_cannot_be_drawn_stand_alone(what, kind, workers, calm, simulator, tmp_path):
    how = {"seed": 1, "workers": workers, "task_members": 64}
    result = sweep(simulator(what, ABOVE), N, tmp_path / "a", **how)
    data = read(tmp_path / "a")
    bad = check_others(data, calm)
    assert (bad["status"] == Status.error).all()
    assert np.isnan(bad["t_reached"]).all()
    assert result.counts == {"ok": N - bad.sizes["sample"], "error": bad.sizes["sample"]}
    (found,) = result.reasons
    assert found.startswith(kind)
    assert f"{bad.sizes['sample']} x {found}" in result.summary
    assert json.loads(data.attrs["failures"])[found]["count"] == bad.sizes["sample"]
    assert verify(tmp_path / "a").intact


def test_a_member_that_hangs_is_given_up(simulator, tmp_path):
    above = 0.995
    calm = simulator().sample(40, seed=36)
    bad = calm["k"].values > above
    assert bad.sum() == 1
    how = {"seed": 36, "workers": 1, "wall_limit": 0.7, "task_members": 10}
    result = sweep(simulator("hang", above), 40, tmp_path / "a", **how)
    data = read(tmp_path / "a")
    assert (data["status"].values == np.where(bad, Status.timeout, Status.ok)).all()
    assert np.array_equal(data["y"].values[~bad], calm["y"].values[~bad])
    assert list(result.reasons) == ["took longer than 0.7 s"]


def test_a_task_that_is_only_too_long_is_drawn_in_parts(simulator, tmp_path):
    """Nobody hangs, but all together take longer than allowed."""

    class OneByOne:
        def __init__(self, inner):
            self.inner = inner

        def draw(self, indices, root_seed):
            import time

            time.sleep(0.04 * max(0, len(indices) - 64))
            return self.inner.draw(indices, root_seed)

        def describe(self):
            return self.inner.describe()

    slow = OneByOne(simulator())
    how = {"seed": 1, "workers": 1, "wall_limit": 2.0, "task_members": 128}
    result = sweep(slow, 128, tmp_path / "a", **how)
    assert result.counts == {"ok": 128}
    expected = simulator().sample(128, seed=1)
    assert np.array_equal(read(tmp_path / "a")["y"].values, expected["y"].values)


def test_a_number_that_is_none_is_the_solvers_affair(calm, simulator, tmp_path):
    result = sweep(simulator("nan", ABOVE), N, tmp_path / "a", seed=1, workers=0)
    bad = check_others(read(tmp_path / "a"), calm)
    assert (bad["status"] == Status.nonfinite).all()
    assert not result.reasons


def test_a_sweep_of_failures_stops(simulator, tmp_path):
    how = {"seed": 1, "workers": 0, "task_members": 250}
    with pytest.raises(SweepStoppedError, match=r"of 1,000 members failed.*max_failed=0\.5"):
        sweep(simulator("nan", 0.2), 3000, tmp_path / "a", **how)
    kept = read(tmp_path / "a")["status"].values
    assert (kept[:1000] != Status.not_written).all()
    assert (kept[1000:] == Status.not_written).any()
    assert sweep(simulator("nan", 0.2), 3000, tmp_path / "a", max_failed=1.0, **how).failed > 2000


def test_a_task_of_failures_stops_early(simulator, tmp_path):
    with pytest.raises(SweepStoppedError, match=r"failed, the last one with ValueError"):
        sweep(simulator("raise", 0.4), 4000, tmp_path / "a", seed=1, workers=0, task_members=2000)


def test_a_sampler_that_fails_at_random_stops_the_sweep(simulator, tmp_path):
    class Moody:
        def __init__(self, inner):
            self.inner, self.calls = inner, 0

        def draw(self, indices, root_seed):
            self.calls += 1
            if len(indices) == 100:
                raise RuntimeError("not today")
            return self.inner.draw(indices, root_seed)

        def describe(self):
            return self.inner.describe()

    # in parts it passes, so it is drawn in parts
    sweep(Moody(simulator()), 100, tmp_path / "a", seed=1, workers=0)

    class Worse(Moody):
        def draw(self, indices, root_seed):
            whole = len(indices) == 100 and indices[0] >= 100
            self.calls += whole
            # whole it fails, and in the parts that passed it fails as well
            if whole or (self.calls > 1 and indices[0] >= 100):
                raise RuntimeError("not today")
            return self.inner.draw(indices, root_seed)

    with pytest.raises(SweepStoppedError, match="members 100 to 199 fail now and then"):
        sweep(Worse(simulator()), 200, tmp_path / "b", seed=1, workers=0, task_members=100)
