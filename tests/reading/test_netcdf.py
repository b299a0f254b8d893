"""NetCDF files and xarray data sets: dims by name, packed numbers, and what is refused."""

import importlib.util

import numpy as np
import pytest
import torch
import xarray as xr
from hybridgen.simulators import pendulum
from hypothesis import given
from hypothesis import strategies as st

from hybridgen.errors import DataError
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch
from hybridgen.params import Param, State
from hybridgen.reading import from_xarray, read_netcdf

tank = ODEExpert(
    lambda t, y, z_e, u: u.inflow[..., None] - y * z_e.outlet[..., None],
    states=(State("level", "m"),),
    params=(Param("outlet", "1/h", 0.1, 2.0, known=True),),
    inputs=(State("inflow", "m/h"),),
)
heat = ODEExpert(
    lambda t, y, z_e: y,
    states=(State("T", "K"),),
    params=(Param("k", "m^2/s", 0.0, 1.0),),
    space=2,
)


def stations():
    """Levels of three stations at four times, station last."""
    level = np.arange(12.0).reshape(4, 3)
    level[2, 1] = np.nan
    return xr.Dataset(
        {
            "h": (("hour", "station"), level, {"units": "m"}),
            "rain": ("hour", np.array([0.0, 1.0, 0.5, 0.0]), {"units": "m h-1"}),
            "outlet": ("station", np.array([0.5, 1.0, 1.5])),
        },
        {
            "hour": ("hour", np.array([0.0, 1.0, 2.0, 4.0]), {"units": "h"}),
            "station": ["north", "south", "east"],
        },
    )


OPTIONS = {
    "dims": {"sample": "station", "time": "hour"},
    "states": {"level": "h"},
    "inputs": {"inflow": "rain"},
}


def temperatures():
    """A field at three times, with a hole; x before y."""
    T = 290.0 + np.arange(24.0).reshape(3, 4, 2)
    T[1, 2, 1] = np.nan
    return xr.Dataset(
        {"T": (("time", "x", "y"), T, {"units": "K"})},
        {
            "time": ("time", np.arange(3.0), {"units": "s"}),
            "x": ("x", np.linspace(0, 3, 4), {"units": "m"}),
            "y": ("y", np.linspace(0, 1, 2), {"units": "m"}),
        },
    )


# ---------------------------------------------------------------- what is read


def check_stations(data):
    batch = to_batch(data, tank)
    np.testing.assert_array_equal(batch.y[..., 0], stations().h.values.T)
    assert batch.mask.sum() == 11
    assert batch.u[..., 0].tolist() == 3 * [[0.0, 1.0, 0.5, 0.0]]
    assert batch.z_e.tolist() == [[0.5], [1.0], [1.5]]
    assert batch.t.tolist() == [0.0, 1.0, 2.0, 4.0]
    assert data.run.values.tolist() == ["north", "south", "east"]
    assert data.time.attrs["units"] == "h"
    assert data.unit.item() == "m"


def test_stations_become_samples():
    check_stations(from_xarray(stations(), tank, **OPTIONS))
    check_stations(from_xarray(stations().transpose(), tank, **OPTIONS))


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_packed_numbers_are_unpacked(tmp_path, dtype):
    path = tmp_path / "a b.nc"
    packing = {"dtype": dtype, "_FillValue": 250}
    if dtype != "float32":
        packing |= {"scale_factor": 0.5, "add_offset": 0.0}
    data = stations()
    data.to_netcdf(path, engine="scipy", encoding={"h": packing})
    check_stations(read_netcdf(path, tank, **OPTIONS))
    assert read_netcdf(path, tank, **OPTIONS).attrs["source"] == "a b.nc"
    undecoded = xr.open_dataset(path, engine="scipy", mask_and_scale=False).load()
    assert undecoded.h.dtype == dtype
    check_stations(from_xarray(undecoded, tank, **OPTIONS))


def test_packed_numbers_without_their_scale(tmp_path):
    data = stations()
    data["h"] = data.h.fillna(0).astype("int16").assign_attrs(units="m")
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    message = (
        r"variable 'h' is int16 without scale_factor; if the numbers are packed, write "
        r"convert={'level': factor}, and if they are counts, convert={'level': 1}"
    )
    with pytest.raises(DataError, match=message):
        read_netcdf(tmp_path / "a.nc", tank, **OPTIONS)
    read = read_netcdf(tmp_path / "a.nc", tank, **OPTIONS, convert={"level": 0.01})
    assert read.y.values[2, -1, 0] == pytest.approx(0.11)


def test_fields():
    data = from_xarray(temperatures(), heat)
    assert data.T.dims == ("sample", "time", "y", "x")
    assert data.T.attrs == {"units": "K", "role": "state"}
    assert data.x.attrs["units"] == "m"
    batch = to_batch(data, heat)
    expected = temperatures().T.transpose("time", "y", "x").values
    np.testing.assert_array_equal(batch.y[0, :, 0], expected)
    assert batch.mask.shape == (1, 3, 1, 2, 4)
    assert (~batch.mask).nonzero().tolist() == [[0, 1, 0, 1, 2]]
    assert from_xarray(temperatures(), states=["T"]).identical(data), "told by the dims"
    assert from_xarray(data, heat).identical(data)


def test_samples_with_times_of_their_own():
    t = np.array([[0.0, 1.0, 2.0], [0.0, 0.5, np.nan]])
    y = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]])
    data = xr.Dataset({"x": (("sample", "time"), y), "t": (("sample", "time"), t, {"units": "s"})})
    read = from_xarray(data, states=["x"], time="t")
    assert read.t.values.tolist() == [[0.0, 1.0, 2.0], [0.0, 0.5, 1.0]]
    assert read.mask.values[..., 0].tolist() == [[True] * 3, [True, True, False]]
    assert "run" not in read.coords
    data["x"][1, 2] = 6.0
    with pytest.raises(DataError, match="sample 1, time 2 has values but no time"):
        from_xarray(data, states=["x"], time="t")


def test_dates(tmp_path):
    data = xr.Dataset(
        {"x": ("time", [1.0, 2.0])},
        {"time": ("time", [0, 36], {"units": "hours since 2024-02-28 12:00"})},
    )
    with pytest.raises(DataError, match=r"'time' are dates .* write time_unit='day'"):
        from_xarray(data, states=["x"])
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    read = read_netcdf(tmp_path / "a.nc", states=["x"], time_unit="day")
    assert read.time.values.tolist() == [0.0, 1.5]


def test_the_projects_own_format_passes(tmp_path):
    data = pendulum.simulator.sample(3, seed=0)
    assert from_xarray(data, pendulum.expert).identical(data)
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    again = to_batch(read_netcdf(tmp_path / "a.nc", pendulum.expert), pendulum.expert)
    before = to_batch(data, pendulum.expert)
    for name in ("t", "y", "z_e", "z_a", "clean", "status"):
        assert torch.equal(getattr(again, name), getattr(before, name)), name
    gappy = data.copy(deep=True)
    gappy.y[0, 3, 1] = np.nan
    assert (~from_xarray(gappy, pendulum.expert).mask).values.nonzero()[1].tolist() == [3]
    with pytest.raises(DataError, match="own format, which says everything; leave dims"):
        from_xarray(data, time_unit="s", missing=(-1,))
    with pytest.raises(DataError, match="'theta' is in deg in the data"):
        from_xarray(data.assign_coords(unit=("state", ["deg", "rad/s"])), pendulum.expert)
    with pytest.raises(DataError, match="sample 0, time 1 has the time 0 after 20"):
        from_xarray(data.isel(time=[-1, 0]), pendulum.expert)


# ---------------------------------------------------------------- what is refused


def changed(**variables):
    return lambda: stations().assign(variables)


FAULTS = {
    "no rename": (
        stations, {"dims": {"time": "hour"}},
        r"variable 'h' has the dims \(time, station\); expected \(time\) .* dims={'time': 'obs'",
    ),
    "one more dim": (
        lambda: stations().expand_dims(depth=2), {},
        r"'h' has the dims \(depth, time, sample\); expected \(sample, time\) .* select one",
    ),
    "unknown dim": (stations, {"dims": {"sample": "site"}}, r"'site', but .* dims \(hour, stat"),
    "unknown name": (stations, {"dims": {"samples": "station"}}, "did you mean 'sample'"),
    "name taken": (
        lambda: stations().assign(sample=3.0), {}, "'station', but the data have 'sample' already",
    ),
    "no variable": (
        stations, {"states": {"level": "hh"}}, "no variable 'hh' for state 'level'; did you mean",
    ),
    "no times": (
        lambda: stations().drop_vars("hour"), {}, "no variable 'time' for the times; .* wri",
    ),
    "unit": (
        lambda: stations().assign(h=stations().h.assign_attrs(units="cm")), {},
        r"'level' is in cm in the data \(variable 'h'\) but in m .* convert={'level': 1 / 100}",
    ),
    "unit of time": (
        lambda: stations().assign_coords(hour=stations().hour.assign_attrs(units="min")), {},
        "the times are in min .* per h; write convert={'time': 1 / 60}",
    ),
    "objects": (
        lambda: stations().assign(h=stations().h.astype(object)), {},
        r"variable 'h' holds object; numbers are expected, so write data\['h'\]",
    ),
    "object times": (
        lambda: stations().assign_coords(hour=("hour", np.array([0, "a", 1, 2], dtype=object))),
        {}, "variable 'time' holds object; times are numbers or dates",
    ),
    "sentinel": (
        lambda: stations().assign(h=stations().h.fillna(9.96921e36)), {},
        r"'h' holds 9.96921e\+36 once, first in sample 1, time 2, .* missing=\(9.96921e\+36,\)",
    ),
    "infinite": (
        lambda: stations().assign(h=stations().h.fillna(np.inf)), {},
        "sample 1, time 2, variable 'h': inf is not finite",
    ),
    "constant": (lambda: stations().assign(h=stations().h * 0), {}, "'level' .* is 0 in all 11"),
    "no value": (lambda: stations().assign(h=stations().h * np.nan), {}, "has no value at all"),
    "unsorted": (
        lambda: stations().isel(hour=[0, 2, 1, 3]), {}, "sample 0, time 2 has the time 1 after 2",
    ),
    "repeated": (
        lambda: stations().isel(hour=[0, 1, 1, 3]), {}, "sample 0, time 2 repeats the time 1",
    ),
    "one time": (lambda: stations().isel(hour=[0]), {}, "sample 0, time 0 is alone in its run"),
    "no time": (lambda: stations().isel(hour=[]), {}, "variable 'time' is empty"),
    "gap in an input": (
        lambda: stations().assign(rain=stations().rain.where(stations().hour != 2)), {},
        "sample 0, time 2, variable 'rain': input 'inflow' is missing",
    ),
    "parameter out of range": (
        lambda: stations().assign(outlet=stations().outlet * 2), {},
        r"sample 2, variable 'outlet': 'outlet' = 3 1/h is outside its valid range \[0.1, 2\]",
    ),
    "parameter missing": (
        lambda: stations().drop_vars("outlet"), {}, "no variable 'outlet' for known parameter",
    ),
    "parameter over time": (
        lambda: stations().assign(outlet=("hour", np.ones(4))), {},
        r"'outlet' has the dims \(time\); expected \(sample\)",
    ),
    "not packed well": (
        lambda: stations().assign(h=stations().h.assign_attrs(scale_factor="a")), {},
        r"the variables \['h'\] cannot be unpacked",
    ),
    "an array": (lambda: stations().h, {}, "got DataArray; give an xarray Dataset"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS, ids=list(FAULTS))
def test_faulty_data(case):
    make, options, message = FAULTS[case]
    with pytest.raises(DataError, match=message):
        from_xarray(make(), tank, **{**OPTIONS, **options})


def test_fields_without_places():
    with pytest.raises(DataError, match="no numbers along 'x'; give the places, such as data"):
        from_xarray(temperatures().drop_vars("x"), heat)
    curved = temperatures().drop_vars("x").assign_coords(x=(("y", "x"), np.ones((2, 4))))
    with pytest.raises(DataError, match="no numbers along 'x'"):
        from_xarray(curved, heat)
    with pytest.raises(DataError, match=r"'T' has the dims \(time, x\); expected \(time, y, x\)"):
        from_xarray(temperatures().isel(y=0), heat)
    data = temperatures()
    data["T"][0] = -9999.0
    message = r"T' holds -9999 8 times, first in sample 0, time 0, y 0, x 0, far outside"
    with pytest.raises(DataError, match=message):
        from_xarray(data, heat)


# ---------------------------------------------------------------- files


def test_files_that_are_none(tmp_path):
    path = tmp_path / "a.nc"
    with pytest.raises(DataError, match=r"cannot read .*a.nc: No such file"):
        read_netcdf(path, states=["x"])
    path.write_text("t,x\n0,1\n")
    with pytest.raises(DataError, match=r"a.nc is no netCDF file, it begins with b't,x\\n'"):
        read_netcdf(path, states=["x"])


@pytest.mark.parametrize(
    ("start", "kind", "package"),
    [(b"\x89HDF", "netCDF-4", "h5netcdf"), (b"CDF\x05", "netCDF-5", "netCDF4")],
)
def test_a_package_to_install_is_named(tmp_path, monkeypatch, start, kind, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "a.nc"
    path.write_bytes(start + b"\r\n")
    with pytest.raises(DataError, match=f"a {kind} file, .*; write pip install {package}"):
        read_netcdf(path, states=["x"])


@pytest.mark.parametrize("engine", ["h5netcdf", "netCDF4"])
def test_netcdf_4(tmp_path, monkeypatch, engine):
    pytest.importorskip(engine)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: find(n) if n == engine else None)
    stations().to_netcdf(tmp_path / "a.nc", engine=engine.lower())
    check_stations(read_netcdf(tmp_path / "a.nc", tank, **OPTIONS))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "a.nc"
    stations().to_netcdf(path, engine="scipy")
    return path


@given(st.data())
def test_a_damaged_file_is_read_or_refused(file, data):
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = file.with_name("damaged.nc")
    damaged.write_bytes(content[: data.draw(st.integers(5, len(content)))])
    try:
        read_netcdf(damaged, tank, **OPTIONS)
    except DataError:
        return
