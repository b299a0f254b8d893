"""One door for every kind of file."""

import numpy as np
import pytest
import xarray as xr

from hybridgen.errors import DataError
from hybridgen.expert import ODEExpert
from hybridgen.params import Param, State
from hybridgen.reading.formats import Reading, read_data, read_group
from hybridgen.store import write_store

EXPERT = ODEExpert(
    lambda t, y, z_e: -z_e.k[..., None] * y, (State("level", "m"),), (Param("k", "1/s", 0.1, 1.0),)
)
LEVELS = [1.0, 0.7, 0.5]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "tank.csv"
    path.write_text("time [s],h [m]\n0,1\n1,0.7\n2,0.5\n")
    return path


def test_text_netcdf_and_zarr_hold_the_same(text, tmp_path):
    how = Reading(states={"level": "h"})
    data = read_data(text, EXPERT, how)
    h = xr.DataArray(LEVELS, dims="time", attrs={"units": "m"})
    foreign = xr.Dataset({"h": h}, {"time": ("time", [0.0, 1.0, 2.0], {"units": "s"})})
    foreign.to_netcdf(tmp_path / "tank.nc", engine="scipy")
    foreign.to_zarr(tmp_path / "foreign.zarr", zarr_format=3, consolidated=False)
    write_store(tmp_path / "own.zarr", {"train": data})
    found = [
        read_data(tmp_path / "tank.nc", EXPERT, how),
        read_data(tmp_path / "foreign.zarr", EXPERT, how),
        read_data(tmp_path / "own.zarr", EXPERT),
    ]
    for other in found:
        assert np.array_equal(other["y"].values, data["y"].values)
        assert np.array_equal(other["time"].values, data["time"].values)
        assert other["unit"].values.tolist() == ["m"]
    assert [d.attrs["source"] for d in (data, *found)] == [
        "tank.csv", "tank.nc", "foreign.zarr", "own.zarr",
    ]  # fmt: skip


@pytest.mark.parametrize("header", ["t", "time [s]", "Time", "seconds"])
def test_the_column_of_the_times_by_its_name(tmp_path, header):
    path = tmp_path / "a.csv"
    path.write_text(f"{header},level\n0,1\n1,0.7\n2,0.5\n")
    assert read_data(path, EXPERT)["time"].values.tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("when,level", r"of 'when', 'level', none would do; write time='...'"),
        ("t,time,level", r"'t' and 'time' would do"),
    ],
)
def test_times_that_cannot_be_told(tmp_path, header, message):
    path = tmp_path / "a.csv"
    path.write_text(header + "\n" + ",".join("123"[: header.count(",") + 1]) + "\n")
    with pytest.raises(DataError, match=message):
        read_data(path, EXPERT)


def test_a_name_alone_is_no_unit_of_time(tmp_path):
    """A column s is more often a state than seconds."""
    path = tmp_path / "a.csv"
    path.write_text("s,level\n0,1\n1,0.7\n2,0.5\n")
    with pytest.raises(DataError, match="cannot be told"):
        read_data(path, EXPERT)


def test_all_settings_of_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("when;tank;deep\n2;a;50,0\n0;a;100,0\n1;a;NA\n")
    how = Reading(
        time="when", states={"level": "deep"}, sample="tank", units={"level": "m"},
        convert={"level": 0.01}, time_unit="s", missing=("NA",), sort=True, sep=";", decimal=",",
    )  # fmt: skip
    data = read_data(path, EXPERT, how)
    assert np.array_equal(data["y"].values[0, :, 0], [1.0, np.nan, 0.5], equal_nan=True)
    assert data["run"].values.tolist() == ["a"]


def test_samples_of_a_netcdf_file(tmp_path):
    values = xr.DataArray(np.ones((2, 3)) * [[1.0], [2.0]], dims=("tank", "time"))
    values.attrs["units"] = "m"
    times = ("time", [0.0, 1.0, 2.0], {"units": "s"})
    xr.Dataset({"level": values}, {"time": times}).to_netcdf(tmp_path / "a.nc", engine="scipy")
    data = read_data(tmp_path / "a.nc", EXPERT, Reading(sample="tank"))
    assert data.sizes["sample"] == 2


def test_groups(text, tmp_path):
    data = read_data(text, EXPERT, Reading(states={"level": "h"}))
    store = write_store(tmp_path / "a", {"train": data, "ood/far": data})
    assert read_group(store, "ood/far")["unit"].values.dtype == object
    with pytest.raises(DataError, match="holds the groups 'train', 'ood/far'; write which"):
        read_data(store, EXPERT)
    with pytest.raises(DataError, match="no group 'trian'; did you mean 'train'"):
        read_data(store, EXPERT, Reading(group="trian"))
    assert read_data(store, EXPERT, Reading(group="ood/far")).sizes["time"] == 3


def test_options_that_a_file_does_not_have(text, tmp_path):
    with pytest.raises(DataError, match=r"tank\.csv is no file that has a group"):
        read_data(text, EXPERT, Reading(group="train"))
    with pytest.raises(DataError, match=r"there is no file .*tank\.cvs; did you mean 'tank\.csv'"):
        read_data(tmp_path / "tank.cvs", EXPERT)
