"""Tables: what can be read is read as it stands, and what cannot is named with row and column."""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hybridgen.errors import DataError, HybridgenError
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch
from hybridgen.params import Param, State
from hybridgen.reading import from_pandas, read_csv

PELTS = Path(__file__).parents[1] / "fixtures" / "hudson_bay_pelts.csv"


def field(t, y, z_e, u):
    theta, omega = y.unbind(-1)
    return torch.stack([omega, (u.torque - theta.sin()) / z_e.mass], dim=-1)


STATES = (State("theta", "rad"), State("omega", "rad/s"))
expert = ODEExpert(
    field,
    states=STATES,
    params=(Param("mass", "kg", 0.1, 10.0, known=True), Param("drag", "1/s", 0.0, 1.0)),
    inputs=(State("torque", "N m"),),
)
hidden = ODEExpert(
    lambda t, y, z_e: y,
    states=(STATES[0], State("omega", "rad/s", observed=False, low=-1.0, high=1.0)),
    params=(),
)

RUNS = """run,t [s],theta,omega [rad/s],torque,mass
b,0,0.1,1,0,2
b,0.5,,2,1,2
b,1,0.3,3,0,
a,0,0.4,4,0.5,3
a,0.25,0.5,,0.25,3
"""


def read(text, *args, **options):
    return read_csv(io.StringIO(text), *args, **options)


def plain(text, **options):
    return read(text, states=["x"], **options)


# ---------------------------------------------------------------- what is read


def test_pelts_of_the_hudson_bay_company():
    data = read_csv(PELTS, time="year", states=["hare", "lynx"])
    assert data.y.shape == (1, 21, 2)
    assert data.time.values[[0, -1]].tolist() == [1900.0, 1920.0]
    assert data.time.attrs["units"] == "year"
    assert data.unit.values.tolist() == ["thousand", "thousand"]
    assert data.y.values[0, 1].tolist() == [47.2, 6.1]
    assert data.attrs["source"] == "hudson_bay_pelts.csv"
    assert "mask" not in data
    assert torch.equal(to_batch(data).y, torch.from_numpy(data.y.values))


def test_runs_become_a_batch():
    data = read(RUNS, expert, sample="run")
    assert data.run.values.tolist() == ["b", "a"]
    batch = to_batch(data, expert)
    nan = math.nan
    expected = [[[0.1, 1], [nan, 2], [0.3, 3]], [[0.4, 4], [0.5, nan], [nan, nan]]]
    np.testing.assert_array_equal(batch.y, expected)
    assert torch.equal(batch.mask, ~batch.y.isnan())
    assert batch.t.tolist() == [[0.0, 0.5, 1.0], [0.0, 0.25, 0.5]], "goes on with its last step"
    assert batch.u[..., 0].tolist() == [[0.0, 1.0, 0.0], [0.5, 0.25, 0.25]], "is held"
    np.testing.assert_array_equal(batch.z_e, [[2.0, nan], [3.0, nan]])
    assert data.mass.attrs == {"units": "kg", "role": "z_e"}
    assert data.t.attrs["units"] == "s"
    assert data.input_unit.item() == "N m"


def test_a_frame_reads_like_the_file():
    frame = pd.read_csv(io.StringIO(RUNS)).set_index("run")
    assert from_pandas(frame, expert, sample="run").identical(read(RUNS, expert, sample="run"))


def test_runs_at_the_same_times_share_them():
    data = plain("r,t,x\n1,0,1\n2,0,2\n1,3,3\n2,3,4\n", sample="r")
    assert data.time.values.tolist() == [0.0, 3.0]
    assert data.y.values[..., 0].tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert data.run.values.tolist() == ["1", "2"]
    data = plain("r,t,x\na,0,1\na,2,2\nb,0,3\nb,2,4\nb,5,5\n", sample="r")
    assert data.time.values.tolist() == [0.0, 2.0, 5.0], "a shorter run is no other clock"
    assert data.mask.values[..., 0].tolist() == [[True, True, False], [True] * 3]
    frame = pd.DataFrame({"r": [7, 7], "t": [0, 1], "x": [1, 2]})
    assert from_pandas(frame, states=["x"], sample="r").run.values.tolist() == [7]


def test_unobserved_states_are_not_asked_for():
    data = read("t,theta\n0,1\n1,2\n", hidden)
    assert data.state.values.tolist() == ["theta"]
    batch = to_batch(data, hidden)
    assert batch.mask.tolist() == [[[True, False], [True, False]]]
    with pytest.raises(DataError, match=r"'omega' is declared with observed=False, but states="):
        read("t,theta,w\n0,1,1\n1,2,2\n", hidden, states={"omega": "w"})


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("\ufefft;x\n0;1,5\n\n1;2\n", {"decimal": ","}),
        ("t\tx\r\n0\t1.5\r\n\t\r\n1\t2\r\n", {}),
        ('"t","x"\n"0","1.5"\n"1","2."\n', {}),
        ("t|x\n0|15e-1\n1|+2\n", {"sep": "|"}),
        ("t,x,\n0,1.5,,\n1,2,,,\n", {}),
        ("\n\n t , x [1]\n 0 , 1.5 \n 1 , 2 \n", {}),
        ("t,x,note\n1,2,a\n0,1.5,b\n", {"sort": True}),
        ("t [ms],x\n0,1.5\n1000,2\n", {"convert": {"time": 1e-3}, "time_unit": "s"}),
        ("t,x [g]\n0,1500\n1,2000\n", {"convert": {"x": 1e-3}, "units": {"x": "kg"}}),
        ("t,x\n0,-0.5\n1,0\n", {"convert": {"x": (1, 2.0)}, "units": {"x": "1"}}),
        ("t,x\n2024-03-31T00:00+01:00,1.5\n2024-03-31T02:00+02:00,2\n", {"time_unit": "h"}),
        ("t,x\n31/12/2023,1.5\n01/01/2024,2\n",
         {"time_unit": "day", "date_format": "%d/%m/%Y"}),
    ],
)  # fmt: skip
def test_dialects(text, options):
    data = plain(text, **options)
    assert data.y.values.ravel().tolist() == [1.5, 2.0]
    assert data.time.values.tolist() == [0.0, 1.0]


def test_encodings(tmp_path):
    path = tmp_path / "a b.csv"
    path.write_bytes("t,x [°]\n0,1\n1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"row 1 of a b.csv is not utf-8 text; .*'latin-1'"):
        read_csv(path, states=["x"])
    assert read_csv(path, states=["x"], encoding="latin-1").unit.item() == "°"
    path.write_text("t,x\n0,1\n1,2\n", encoding="utf-16")
    assert read_csv(path, states=["x"], encoding="utf-16").y.shape == (1, 2, 1)
    with pytest.raises(DataError, match="no encoding 'utf8000'"):
        read_csv(path, states=["x"], encoding="utf8000")
    with pytest.raises(DataError, match=r"cannot read .*none.csv: No such file"):
        read_csv(tmp_path / "none.csv", states=["x"])


def test_dates_count_from_the_start_of_each_run():
    text = "r,t,x\na,2024-01-01,1\na,2024-01-03 12:00,2\nb,2023-01-01,3\nb,2023-01-03T12:00,4\n"
    assert plain(text, sample="r", time_unit="day").time.values.tolist() == [0.0, 2.5]
    frame = pd.DataFrame(
        {"x": [1.0, 2.0]}, pd.DatetimeIndex(["2024-01-01", "2024-01-02"], name="when")
    )
    data = from_pandas(frame, states=["x"], time="when", time_unit="h")
    assert data.time.values.tolist() == [0.0, 24.0]
    assert data.time.attrs["units"] == "h"
    frame.index = pd.to_timedelta([30, 90], unit="s").rename("when")
    data = from_pandas(frame, states=["x"], time="when", time_unit="min")
    assert data.time.values.tolist() == [0.5, 1.5]


def test_frames_of_every_kind_of_number():
    frame = pd.DataFrame(
        {
            "t": pd.array([0, 1, 2], dtype="Int32"),
            "float": np.float32([1, np.nan, 2]),
            "nullable": pd.array([1, None, 2], dtype="Int64"),
            "bool": [True, False, True],
            "text": ["1", " ", "2e0"],
            "mixed": [1, None, "2"],
            "category": pd.Categorical(["1", None, "2"]),
        }
    )
    names = ["float", "nullable", "text", "mixed", "category"]
    data = from_pandas(frame, states=names, inputs=["bool"])
    np.testing.assert_array_equal(data.y[0], np.tile([[1.0], [np.nan], [2.0]], 5))
    assert data.inputs.values.ravel().tolist() == [1.0, 0.0, 1.0]


# ---------------------------------------------------------------- units


def test_units_are_compared_and_only_converted_on_demand():
    text = "t,angle [deg]\n0,90\n1,180\n"
    states = {"theta": "angle"}
    with pytest.raises(DataError) as error:
        read(text, hidden, states=states)
    assert str(error.value) == (
        "state 'theta' is in deg in the data (column 'angle [deg]') but in rad in the expert; "
        "write convert={'theta': 0.0174532925199433} to convert, or units={'theta': 'rad'} if "
        "deg is wrong."
    )
    data = read(text, hidden, states=states, convert={"theta": math.pi / 180})
    assert data.y.values.ravel() == pytest.approx([math.pi / 2, math.pi])
    assert data.unit.item() == "rad"
    assert read(text, hidden, states=states, units={"theta": "rad"}).y.values[0, 0, 0] == 90.0
    data = read(text, states=states)
    assert data.unit.item() == "deg", "without an expert the data's own"


def test_spellings_of_one_unit_are_not_a_mismatch():
    text = RUNS.replace("rad/s", "rad s^-1").replace("torque", "torque [N·m]")
    data = read(text, expert, sample="run")
    assert data.unit.values.tolist() == ["rad", "rad/s"]
    to_batch(data, expert)


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("t [ms]", {}, "are in ms .* expert are per s; write convert={'time': 1 / 1000} to"),
        ("t [ms]", {"convert": {"time": 1e-3}}, "s"),
        ("t [ms]", {"time_unit": "ms"}, "ms"),
        ("t [ms]", {"time_unit": "s"}, "are in ms .* but time_unit is 's'; write convert="),
        ("t", {}, "s"),
        ("t [sec]", {}, "sec"),
        ("day", {"time": "day"}, "are in day .* per s; write convert={'time': 86400} to"),
    ],
)
def test_units_of_time(header, options, message):
    text = RUNS.replace("t [s]", header)
    if " " in message:
        with pytest.raises(DataError, match=message):
            read(text, expert, sample="run", **options)
    else:
        assert read(text, expert, sample="run", **options).t.attrs["units"] == message


def test_time_units_that_cannot_be_told():
    both = ODEExpert(
        field, states=(State("x", "m"),), params=(Param("a", "1/s", 0, 1), Param("b", "1/h", 0, 1))
    )
    with pytest.raises(DataError, match=r"'t' does not tell .* mention h and s; write time_unit="):
        read("t,x\n0,1\n1,2\n", both)
    with pytest.raises(DataError, match="'time', but not its new unit; write time_unit='s', say"):
        plain("t,x\n0,1\n1,2\n", convert={"time": 2.0})
    assert plain("t,x\n0,1\n1,2\n").time.attrs["units"] == "1"


# ---------------------------------------------------------------- what is missing


def test_declared_markers_are_gaps():
    text = "t,x,w\n0,1,1\n1,-999,2\n2,NA,3\n3,4,-1\n"
    data = read(text, states=["x", "w"], missing=(-999, "NA"))
    assert data.mask.values[0, :, 0].tolist() == [True, False, False, True]
    data = read(text, states=["x", "w"], missing={"x": ("-999.0", "NA"), "w": -1})
    assert data.mask.values[0].tolist() == [[True, True], [False, True], [False, True],
                                            [True, False]]  # fmt: skip


@pytest.mark.parametrize("marker", ["-999", "-9999", "9999", "-99", "1e20", "9.96921e36", "1e30"])
def test_an_undeclared_sentinel(marker):
    text = f"t,x\n0,1\n1,2\n2,{marker}\n3,{marker}\n4,3\n"
    plain_marker = f"{int(float(marker))}" if abs(float(marker)) < 1e15 else repr(float(marker))
    with pytest.raises(DataError) as error:
        plain(text)
    assert str(error.value) == (
        f"column 'x' holds {plain_marker} 2 times, first in row 4, far outside the other values "
        f"[1, 3]; if it stands for a missing value, write missing=({plain_marker},), and if it "
        "is a value, missing=()."
    )
    gaps = plain(text, missing=(float(marker),)).mask.values.ravel().tolist()
    assert gaps == [True, True, False, False, True]
    assert plain(text, missing=()).y.values[0, 2, 0] == float(marker)


def test_float32_markers_are_recognised():
    x = np.float32([1, -999.9, 2, 9.96921e36])
    frame = pd.DataFrame({"t": range(4), "x": x})
    with pytest.raises(DataError, match=r"x' holds -999.9\d* once, first in row 1"):
        from_pandas(frame, states=["x"])
    data = from_pandas(frame, states=["x"], missing=(-999.9, 9.96921e36))
    assert data.mask.values.ravel().tolist() == [True, False, True, False]


def test_an_unusual_but_repeated_sentinel():
    with pytest.raises(DataError, match=r"holds -12345 2 times, .*, write missing=\(-12345,\)"):
        plain("t,x\n0,1\n1,-12345\n2,2\n3,-12345\n4,3\n")


def test_one_of_two_markers_is_declared():
    text = "t,x\n0,1\n1,-999\n2,9999\n3,2\n"
    message = r"write missing=\(-999, 9999\), and if it is a value, missing={'x': \(-999,\)}"
    with pytest.raises(DataError, match=message):
        plain(text, missing=(-999,))
    data = plain(text, missing={"x": (-999,)})
    np.testing.assert_array_equal(data.y.values.ravel(), [1.0, np.nan, 9999.0, 2.0])


@pytest.mark.parametrize(
    "values",
    [
        [0, 0, 100, 100, 0, 100],  # a switch
        [0, 1, 99, 40, 62],  # percent
        [20, 18, 999, 1210, 450],  # a count that happens to be 999
        [0.1, 0.2, 0.3, 50.0],  # a spike, once
        [1, 1, 2, 3, 5, 8, 8],  # a ceiling
        [-1e20, 2e20, 5e20, -3e20],  # large numbers
    ],
)
def test_ordinary_values_are_not_suspicious(values):
    frame = pd.DataFrame({"t": range(len(values)), "x": values})
    assert from_pandas(frame, states=["x"]).y.values.ravel().tolist() == values


# ---------------------------------------------------------------- what is refused

TABLES = {
    "text in a number column": (
        "t,x\n0,1\n1,high\n", {},
        r"row 3, column 'x': 'high' is not a number; .* write missing=\('high',\)",
    ),
    "text, one marker declared": (
        "t,x\n0,1\n1,NA\n", {"missing": (-999,)}, r"missing=\(-999, 'NA'\)",
    ),
    "text, markers by name": (
        "t,x\n0,1\n1,NA\n", {"missing": {"x": (-1,)}}, r"missing={'x': \(-1, 'NA'\)}",
    ),
    "digits of another script": ("t,x\n0,1\n1,٣\n", {}, "row 3, column 'x': '٣' is not a number"),
    "underscores": ("t,x\n0,1\n1,1_000\n", {}, "row 3, column 'x': '1_000' is not a number"),
    "infinite text": ("t,x\n0,1\n1,inf\n", {}, r"row 3, column 'x': 'inf' .*missing=\('inf',\)"),
    "infinite number": ("t,x\n0,1\n1,1e999\n2,2\n", {}, "row 3, column 'x': inf is not finite"),
    "missing column": ("t,y\n0,1\n1,2\n", {}, "no column 'x' for state 'x'; known: 't', 'y'; wri"),
    "misspelt column": (
        "t,speed\n0,1\n1,2\n", {"states": {"v": "sped"}},
        "no column 'sped' for state 'v'; did you mean 'speed'. write states={'v': '...'} if its",
    ),
    "missing time": ("s,x\n0,1\n1,2\n", {}, "no column 't' for the times; .* write time='...'"),
    "missing sample": (
        "t,x\n0,1\n1,2\n", {"sample": "run"}, "no column 'run' for the runs; .* write sample=",
    ),
    "ambiguous column": (
        "t,x [m],x [s]\n0,1,1\n1,2,2\n", {}, r"columns 'x \[m\]' and 'x \[s\]' are both 'x'",
    ),
    "duplicate header": ("t,x,x\n0,1,2\n1,2,3\n", {}, "the header has 'x' twice"),
    "column used twice": (
        "t,x\n0,1\n1,2\n", {"states": {"a": "x", "b": "x"}}, "'x' is used for 'a' and for 'b'",
    ),
    "unsorted": (
        "t,x\n0,1\n2,2\n\n1,3\n", {},
        r"row 5 has the time 1 after 2, but times must increase; write sort=True .*, or sample=",
    ),
    "unsorted run": (
        "r,t,x\na,0,1\na,2,2\nb,1,4\nb,0,4\n", {"sample": "r"}, "row 5 has the time 0 after 1",
    ),
    "repeated": ("t,x\n0,1\n1,2\n1,3\n", {}, "row 4 repeats the time 1 of row 3; keep one"),
    "repeated, sorted": ("t,x\n1,1\n0,2\n1,3\n", {"sort": True}, "row 4 repeats .* of row 2;"),
    "no time": ("t,x\n0,1\n,2\n2,3\n", {}, "row 3 has no time"),
    "one point": ("t,x\n0,1\n", {}, "row 2 is alone in its run"),
    "one point of a run": (
        "r,t,x\na,0,1\na,1,2\nb,0,3\n", {"sample": "r"}, "row 4 is alone in its run",
    ),
    "sentinel among times": (
        "t,x\n0,1\n1,2\n-999,3\n", {"sort": True}, "column 't' holds -999 once, first in row 4",
    ),
    "dates": (
        "t,x\n2024-01-01,1\n2024-01-02,2\n", {}, "'t' are dates .* write time_unit='day'",
    ),
    "dates in an unknown form": (
        "t,x\n31/01/2024,1\n01/02/2024,2\n", {}, "row 2, column 't': .* date_format='%d/%m/%Y'",
    ),
    "a wrong date": (
        "t,x\n2024-01-01,1\n2024-02-30,2\n", {"time_unit": "day"},
        "row 3, column 't': '2024-02-30' is not a date",
    ),
    "a date that moves": (
        "t,x\n2024-01-01,1\nnow,2\n", {"time_unit": "day"}, "row 3, .* 'now' is not a date",
    ),
    "a wrong date format": (
        "t,x\n2024-01-01,1\n2024-02-30,2\n", {"time_unit": "day", "date_format": "%Q"},
        "date_format is '%Q', but",
    ),
    "dates and no unit of time": (
        "t,x\n2024-01-01,1\n2024-01-02,2\n", {"time_unit": "m"}, "'m' is no unit of time",
    ),
    "mixed time zones": (
        "t,x\n2024-01-01,1\n2024-01-02T00:00Z,2\n", {"time_unit": "day"},
        "row 3, column 't': .* has a time zone",
    ),
    "comma decimals": ("t;x\n0;1,5\n1;2\n", {}, "row 2, column 'x': '1,5' .* write decimal=','"),
    "point decimals": (
        "t;x\n0;1,5\n1;2.5\n", {"decimal": ","}, r"row 3, .* '2.5' .* write decimal='.'",
    ),
    "comma decimals and commas": ("t,x\n0,1,5\n1,2\n", {}, "row 2 of .* has 3 cells, .* has 2"),
    "short row": ("t,x\n0,1\n1\n", {}, r"row 3 of .* has 1 cells, but the header \(row 1\) has 2"),
    "two separators": ("t;x [m, s]\n0;1\n1;2\n", {}, "holds ',' and ';'; write which .* sep=','"),
    "odd separator": ("t;x\n0;1\n1;2\n", {"sep": ";;"}, "sep is ';;'; give one character"),
    "open quote": ('t,x\n0,"1\n1,2\n', {}, "row 3 of the text cannot be read"),
    "no header": ("0,1\n1,2\n", {}, r"row 1 of .* holds numbers \(0, 1\) where the names"),
    "0 rows": ("t,x\n\n", {}, "has a header but 0 rows"),
    "empty": ("\n \n", {}, "the text is empty"),
    "constant": ("t,x\n0,5\n1,5\n2,\n", {}, r"state 'x' \(column 'x'\) is 5 in all 2 values"),
    "no value": ("t,x\n0,\n1,\n", {}, "'x' .* has no value at all; .* observed=False"),
    "run without a value": (
        "r,t,x\na,0,1\na,1,2\nb,0,\nb,1,\n", {"sample": "r"}, "run 'b' has no value of any",
    ),
    "run without a label": (
        "r,t,x\na,0,1\na,1,2\n,0,\nb,1,\n", {"sample": "r"}, "row 4, column 'r': the label of the",
    ),
    "gap in an input": (
        "t,x,u\n0,1,1\n1,2,\n", {"inputs": ["u"]}, "row 3, column 'u': input 'u' is missing",
    ),
    "no states": ("t,x\n0,1\n1,2\n", {"states": None}, "neither an expert nor states are given"),
    "odd states": ("t,x\n0,1\n1,2\n", {"states": {"x": 1}}, "states has 'x': 1; write states="),
    "unknown name": ("t,x\n0,1\n1,2\n", {"units": {"xx": "m"}}, "units has 'xx'; did you mean"),
    "units of time": ("t,x\n0,1\n1,2\n", {"units": {"time": "s"}}, "'time'; write time_unit="),
    "conversion to nowhere": (
        "t,x [m]\n0,1\n1,2\n", {"convert": {"x": 2.0}}, "convert has 'x', but nothing says",
    ),
    "odd conversion": (
        "t,x\n0,1\n1,2\n", {"convert": {"x": "m"}, "units": {"x": "m"}},
        r"convert\['x'\] is 'm'; give a finite factor",
    ),
    "infinite conversion": (
        "t,x\n0,1\n1,2e9\n", {"convert": {"x": 1e300}, "units": {"x": "m"}}, "makes numbers infi",
    ),
    "odd decimal mark": ("t,x\n0,1\n1,2\n", {"decimal": "'"}, "write '.' or ','"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES, ids=list(TABLES))
def test_faulty_tables(case):
    text, options, message = TABLES[case]
    with pytest.raises(DataError, match=message):
        read(text, **{"states": ["x"], **options})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",2\nb,0.5", ",2\nb,0.5", None),
        ("2,1,2\n", "2,1,2.5\n", r"row 3, column 'mass': 'mass' is 2.5, but 2 in row 2 of the sa"),
        (",3\n", ",\n", "run 'a' has no value of known parameter 'mass'"),
        (",2\n", ",20\n", r"row 2, .* 'mass' = 20 kg is outside its valid range \[0.1, 10\] kg"),
        ("mass", "mass [g]", "known parameter 'mass' is in g .* write convert={'mass': 1 / 1000}"),
        ("torque", "force", "no column 'torque' for input 'torque'; .* write inputs={'torque'"),
        ("mass", "m", "no column 'mass' for known parameter 'mass'; .* write known={'mass'"),
    ],
)
def test_what_an_expert_asks_for(old, new, message):
    text = RUNS.replace(old, new)
    if message is None:
        read(text, expert, sample="run")
    else:
        with pytest.raises(DataError, match=message):
            read(text, expert, sample="run")


@pytest.mark.parametrize(
    ("argument", "name", "message"),
    [
        ("states", "thetta", "has no state 'thetta'; did you mean 'theta'?"),
        ("inputs", "V", "has no input 'V'; known: 'torque'"),
        ("known", "mas", "has no known parameter 'mas'; did you mean 'mass'?"),
    ],
)
def test_names_that_the_expert_does_not_have(argument, name, message):
    with pytest.raises(DataError, match=message):
        read(RUNS, expert, sample="run", **{argument: {name: "theta"}})


def test_parameters_may_be_given_although_they_are_inferred():
    text = RUNS.replace("mass\n", "mass,drag\n").replace(",2\n", ",2,0.5\n")
    text = text.replace("0,\n", "0,,\n").replace(",3\n", ",3,0.25\n")
    data = read(text, expert, sample="run", known={"drag": "drag"})
    assert to_batch(data, expert).z_e.tolist() == [[2.0, 0.5], [3.0, 0.25]]


def test_other_things_than_tables():
    with pytest.raises(DataError, match="got list; give a pandas DataFrame"):
        from_pandas([1, 2], states=["x"])
    fields = ODEExpert(lambda t, y, z: y, states=(State("x", "1"),), params=(), space=2)
    with pytest.raises(DataError, match=r"has 2 spatial axes, .* use read_netcdf or from_xarray"):
        read("t,x\n0,1\n1,2\n", fields)
    frame = pd.DataFrame({"t": [0, 1], "x": [1 + 1j, 2]})
    with pytest.raises(DataError, match=r"row 0, column 'x': \(1\+1j\) \(complex\) is not a numb"):
        from_pandas(frame, states=["x"])
    frame = pd.DataFrame({"t": [0, 1], "x": pd.to_datetime(["2024-01-01", "2024-01-02"])})
    with pytest.raises(DataError, match=r"row 0, column 'x': Timestamp.* is not a number"):
        from_pandas(frame, states=["x"])
    with pytest.raises(TypeError, match="stats"):
        read("t,x\n0,1\n1,2\n", stats=["x"])


# ---------------------------------------------------------------- whatever comes

NUMBERS = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda v: round(v, 6))
HEADERS = ("t", "x [m]", "w")


def table(rows, rest):
    """The text of a table with increasing times and one column of `rest` for each other header."""
    lines = [",".join(HEADERS)]
    lines += [",".join([repr(0.5 * i), *map(str, cells)]) for i, cells in enumerate(rest[:rows])]
    return lines


TABLE = st.lists(
    st.tuples(st.one_of(NUMBERS, st.just("")), NUMBERS), min_size=4, max_size=8
).filter(lambda rows: all(len({r[i] for r in rows} - {""}) > 1 for i in (0, 1)))


@given(TABLE)
def test_numbers_and_gaps_come_back_as_they_are(rows):
    data = read("\n".join(table(len(rows), rows)), states=["x", "w"], missing=())
    expected = np.array([[math.nan if v == "" else v for v in row] for row in rows])
    np.testing.assert_array_equal(data.y.values[0], expected)
    seen = ~np.isnan(expected)
    assert "mask" not in data if seen.all() else (data.mask.values[0] == seen).all()


LETTERS = st.characters(exclude_categories=["Cs", "N"], exclude_characters=',"\r\n;\t')


@given(TABLE, st.data())
def test_a_spoilt_cell_is_named(rows, data):
    row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 2))
    odd = st.sampled_from(["NA", "n/a", "1 2", "--", "0x1F", "1.2.3", "1e", "5%", "−1"])
    cell = data.draw(st.one_of(st.text(LETTERS, min_size=1), odd))
    assume(cell.strip() and cell.strip().lower() != "nan")
    lines = table(len(rows), rows)
    cells = lines[row + 1].split(",")
    lines[row + 1] = ",".join([*cells[:column], cell, *cells[column + 1 :]])
    with pytest.raises(DataError) as error:
        read("\n".join(lines), states=["x", "w"], missing=())
    assert f"row {row + 2}" in str(error.value)
    assert repr(HEADERS[column]) in str(error.value)


@given(st.permutations(range(6)))
def test_a_shuffled_table_is_refused_or_sorted(order):
    rows = [f"{i},{i * i}" for i in range(6)]
    text = "\n".join(["t,x", *(rows[i] for i in order)])
    assert plain(text, sort=True).y.values.ravel().tolist() == [0.0, 1.0, 4.0, 9.0, 16.0, 25.0]
    if order == sorted(order):
        plain(text)
    else:
        first = next(k for k in range(1, 6) if order[k] < order[k - 1])
        message = f"row {first + 2} has the time {order[first]} after {order[first - 1]}"
        with pytest.raises(DataError, match=message):
            plain(text)


@given(st.text(st.sampled_from('tx,;\t"\n\r 01.-+eENA[]()\ufeff\x00é'), max_size=60))
@example("t,x\n0,1\n1,2\n")
@example("t,x\n-1e308,1\n1e308,2\n")
@example("t,x\n0,-1.7e308\n1,1.7e308\n2,0\n")
def test_any_text_is_read_or_refused(text):
    for prefix in ("", "t,x\n0,1\n"):
        try:
            data = read(prefix + text, states=["x"], missing=())
        except DataError:
            continue
        assert np.isfinite(data.time).all()
        assert (np.diff(data.time) > 0).all()


ANYTHING = st.one_of(
    st.none(), st.text(max_size=5), st.floats(), st.integers(), st.booleans(), st.datetimes(),
    st.binary(max_size=3), st.complex_numbers(), st.lists(st.integers(), max_size=2),
    st.decimals(), st.fractions(), st.timedeltas(), st.just(pd.NA), st.just(pd.NaT),
)  # fmt: skip


@given(st.lists(st.tuples(ANYTHING, ANYTHING, ANYTHING), min_size=1, max_size=5), st.booleans())
def test_any_frame_is_read_or_refused(rows, sort):
    frame = pd.DataFrame(rows, columns=["t", "x", "r"], dtype=object)
    for sample in (None, "r"):
        try:
            data = from_pandas(frame, states=["x"], sample=sample, sort=sort, time_unit="s")
        except HybridgenError:
            continue
        assert data.sizes["time"] > 1
