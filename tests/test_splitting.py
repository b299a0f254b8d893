"""Data kept aside: whole runs or their ends, never the same trajectory twice."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hybridgen.simulators import pendulum

from hybridgen.errors import DataError
from hybridgen.io import to_batch
from hybridgen.reading import from_pandas
from hybridgen.splitting import check_disjoint, split_runs, split_time


@pytest.fixture(scope="module")
def data():
    return pendulum.simulator.sample(20, seed=0)


def runs(lengths, step=1.0):
    """Noisy runs of different lengths, named a, b, ..."""
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"run": "abcdef"[i], "t": step * np.arange(n), "x": rng.normal(size=n)})
        for i, n in enumerate(lengths)
    ]
    return from_pandas(pd.concat(parts, ignore_index=True), states=["x"], sample="run")


@pytest.mark.parametrize("valid", [0.01, 0.2, 0.5, 0.99])
def test_every_sample_is_in_one_part(data, valid):
    train, held = split_runs(data, valid, seed=3)
    assert held.sizes["sample"] == min(max(1, round(20 * valid)), 19)
    rows = [tuple(y[0]) for part in (train, held) for y in part.y.values]
    assert sorted(rows) == sorted(tuple(y[0]) for y in data.y.values)


def test_the_seed_alone_decides(data):
    first, again = (split_runs(data, seed=1)[1] for _ in range(2))
    other = split_runs(data, seed=2)[1]
    assert first.identical(again)
    assert not first.equals(other)


def test_samples_of_one_run_stay_together(data):
    labelled = data.assign_coords(run=("sample", np.arange(20) // 4))
    for seed in range(5):
        train, held = split_runs(labelled, seed=seed)
        assert len(set(held.run.values)) == 1
        assert not set(train.run.values) & set(held.run.values)


@pytest.mark.parametrize("valid", [0.0, 1.0, -1, 3])
def test_shares_that_are_none(data, valid):
    with pytest.raises(DataError, match="give the share of the runs, between 0 and 1"):
        split_runs(data, valid)


def test_one_run_cannot_be_split(data):
    with pytest.raises(DataError, match=r"there are 1 runs; .* split_time"):
        split_runs(data.isel(sample=[0]))


def test_a_copied_run_is_a_leak(data):
    twice = xr.concat([data.isel(sample=[0]), data.isel(sample=[0])], "sample")
    with pytest.raises(DataError, match="sample 0 of the validation data is sample 0 of the"):
        split_runs(twice)


def test_a_leak_names_samples_and_runs():
    data = runs([9, 7, 8, 9])
    train, test = data.isel(sample=[0, 1, 2]), data.isel(sample=[3, 1])
    check_disjoint(train, data.isel(sample=[3]))
    message = (
        r"sample 1 \(run 'b'\) of the test data is sample 1 \(run 'b'\) of the training data "
        r"\(1 of 2 are in them\); take them apart with split_runs\(data\)"
    )
    with pytest.raises(DataError, match=message):
        check_disjoint(train, test)
    with pytest.raises(DataError, match="sample 1 of the valid data is sample 1 of the train"):
        check_disjoint(to_batch(train), to_batch(test), names=("train", "valid"))


def test_a_shortened_or_gappy_copy_is_a_leak(data):
    short = data.isel(time=slice(0, 10), sample=[7])
    gappy = data.copy(deep=True)
    gappy.y[7, :3] = np.nan
    for train, test in ((data, short), (short, data), (gappy, short)):
        with pytest.raises(DataError, match=r"sample (0|7) of the test data is sample (7|0)"):
            check_disjoint(train, test)


def test_what_only_starts_alike_is_no_leak(data):
    other = data.copy(deep=True)
    other.y[:, 5:] += 1e-9
    check_disjoint(data, other)
    hidden = data.copy(deep=True)
    hidden.y[:] = np.nan
    check_disjoint(data, hidden)
    check_disjoint(data, data.isel(state=[0]))


def test_the_last_part_of_the_times_is_kept_aside():
    assert split_time(runs([10, 10])).attrs["window"] == 7
    assert split_time(runs([10, 20])).attrs["window"] == 7, "of the shortest run"
    assert split_time(runs([10, 20]), until=4.5).attrs["window"] == 5
    assert split_time(runs([10, 20]), until=15).attrs["window"] == 16
    data = runs([10, 10])
    own = data.drop_vars("time").assign_coords(
        t=(("sample", "time"), np.stack([np.arange(10.0), 2 * np.arange(10.0)]), {"units": "s"})
    )
    assert split_time(own, until=6.0).attrs["window"] == 4, "no time after it in any sample"
    assert "window" not in data.attrs


@pytest.mark.parametrize(
    ("until", "message"),
    [
        (0.5, "the window holds 1 of the 10 points of sample 0; .* give a later until"),
        (-1.0, "the window holds 0 of the 10 points"),
        (99.0, "no sample has a point after the window of 10 points; give an earlier until"),
    ],
)
def test_windows_that_are_none(until, message):
    with pytest.raises(DataError, match=message):
        split_time(runs([10, 10]), until=until)
