r"""Tables of measurements: one row a time, one column a quantity.

A table is read in steps: its columns are mapped to states, inputs and known parameters, with
units compared; its cells become numbers, gaps and declared markers NaN; its rows become runs, with
times checked; the runs are put side by side. Nothing is guessed: what can be meant in two ways is
an error that says what to write.

    >>> import io
    >>> text = "run,t [s],angle [rad]\na,0,0.1\na,1,\na,2,0.3\nb,0,0.2\nb,1,0.1\n"
    >>> data = read_csv(io.StringIO(text), states={"theta": "angle"}, sample="run")
    >>> data.y.values[..., 0]
    array([[0.1, nan, 0.3],
           [0.2, 0.1, nan]])
    >>> data.run.values.tolist(), data.unit.item(), data.time.attrs["units"]
    (['a', 'b'], 'rad', 's')
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, TextIO, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from hybridgen.errors import DataError
from hybridgen.expert import ODEExpert
from hybridgen.reading.clock import make_clock
from hybridgen.reading.columns import (
    Channel,
    Markers,
    Missing,
    is_gap,
    parse_numbers,
    without_markers,
)
from hybridgen.reading.dates import is_dated, parse_dates
from hybridgen.reading.delimited import read_text
from hybridgen.reading.quantities import (
    Asked,
    Conversion,
    Names,
    Quantity,
    Sources,
    make_plan,
)
from hybridgen.reading.runs import (
    Run,
    assemble,
    check_complete,
    check_constant,
    check_scale,
)

__all__ = ["TableOptions", "from_pandas", "read_csv"]

_DATES = "dates are written as 2024-01-31 or 2024-01-31T12:00, or say how: date_format='%d/%m/%Y'"

Rows = NDArray[np.int64]


class TableOptions(Asked, total=False):
    """The arguments that `read_csv` hands on to `from_pandas`."""

    time: str
    sample: str | None
    decimal: str
    sort: bool
    date_format: str


def read_csv(
    path: str | os.PathLike[str] | TextIO,
    expert: ODEExpert | None = None,
    *,
    sep: str | None = None,
    encoding: str = "utf-8",
    **options: Unpack[TableOptions],
) -> xr.Dataset:
    """Read measurements from a delimited text file; rows are named by their line in it.

    A header is a name, or a name and a unit, such as `angle [deg]`; empty cells and NaN are gaps.

    Arguments:
        path: The file, or an open text file.
        expert: If given, its observed states, inputs and known parameters are read, from the
            columns of their names unless others are given, and units are compared.
        sep: What separates the cells; None looks for a comma, a semicolon or a tab.
        encoding: The encoding of the text.
        **options: What `from_pandas` takes:
            `time` ("t"), the column of the times; `states`, the column of each state
            (`{"theta": "angle"}`, or a list of names), needed without an expert; `sample`, the
            column that tells runs apart; `inputs` and `known`, the columns of inputs and of known
            parameters; `units` by name, where headers do not say or are wrong; `convert`, by name
            (`"time"` for the times) a factor or a pair (factor, offset) that leads to the declared
            unit; `time_unit`, needed where times are dates, which are counted from the start of
            each run; `missing`, numbers and text that stand for a missing value, such as
            `(-999, "NA")`, by name where channels differ, `()` if every number is a value;
            `decimal`, "." or ","; `sort=True` to put rows in the order of their times;
            `date_format`, such as `"%d/%m/%Y"` (ISO 8601).

    Returns:
        A data set as `hybridgen.io` describes it, with the labels of the runs as `run`.

    Raises:
        DataError: Naming the row and the column of what is wrong, and what to write.
    """
    data = from_pandas(read_text(path, sep, encoding), expert, **options)
    if isinstance(path, (str, os.PathLike)):
        data.attrs["source"] = Path(path).name
    return data


def from_pandas(
    frame: pd.DataFrame,
    expert: ODEExpert | None = None,
    *,
    time: str = "t",
    states: Names | None = None,
    sample: str | None = None,
    inputs: Names | None = None,
    known: Names | None = None,
    units: Mapping[str, str] | None = None,
    convert: Mapping[str, Conversion] | None = None,
    time_unit: str | None = None,
    missing: Markers | Mapping[str, Markers] | None = None,
    decimal: str = ".",
    sort: bool = False,
    date_format: str = "ISO8601",
) -> xr.Dataset:
    """Read measurements from a data frame; rows are named by their label in the index.

    Arguments:
        frame: The table; an index with a name counts as a column. For the rest see `read_csv`.
        expert: Whose states, inputs and known parameters are read.
        time: The column of the times.
        states: The column of each state.
        sample: The column that tells runs apart; without it the table is one run.
        inputs: The column of each input.
        known: The column of each known parameter, one number for each run.
        units: Units by name, where headers do not say or are wrong.
        convert: A factor, or a pair (factor, offset), by name.
        time_unit: The unit of the times.
        missing: Numbers and text that stand for a missing value.
        decimal: The decimal mark of numbers in text.
        sort: Whether rows may be put in the order of their times.
        date_format: How dates in text are written.

    Returns:
        A data set as `hybridgen.io` describes it, with the labels of the runs as `run`.

    Raises:
        DataError: Naming the row and the column of what is wrong.
    """
    table = _Table(frame, Missing(missing), decimal)
    column = table.sources.find(time, "the times", "write time='...'.")
    times = table.times(column, date_format)
    dated = times.dtype.kind != "f"
    clock = make_clock(table.sources, column, time_unit, expert, convert, dated=dated)
    asked = {"states": states, "inputs": inputs, "known": known}
    plan = make_plan(table.sources, _flat(expert), asked, units, convert)
    y, u, z = (table.values(quantities) for quantities in (plan.states, plan.inputs, plan.known))
    table.check(check_complete, plan.inputs, u)
    runs = []
    for label, rows in table.groups(sample):
        order = rows[np.argsort(times[rows], kind="stable")] if sort else rows
        t = clock.checked(times[order], table.places(order), _advice(sort, sample))
        constants = table.constants(plan.known, z[order], order, label)
        runs.append(Run(label, t, y[order], u[order], constants))
    table.check(check_scale, plan.states, y)
    return assemble(runs, plan, clock.unit)


def _advice(sort: bool, sample: str | None) -> str:
    """Return what to write where times do not increase."""
    if sort:
        return ""
    more = "" if sample else ", or sample='...' if a column tells several runs apart"
    return f"write sort=True to sort the rows{more}"


def _flat(expert: ODEExpert | None) -> ODEExpert | None:
    if expert is not None and expert.space:
        raise DataError(
            f"expert {expert.name!r} has {expert.space} spatial axes, which a table does not "
            "hold; use read_netcdf or from_xarray."
        )
    return expert


class _Table:
    """A data frame with N rows, and what to call its rows and columns."""

    def __init__(self, frame: pd.DataFrame, missing: Missing, decimal: str) -> None:
        if not isinstance(frame, pd.DataFrame):
            raise DataError(f"got {type(frame).__name__}; give a pandas DataFrame.")
        named = any(name is not None for name in frame.index.names)
        index = [*frame.index.names] if named else []
        headers = [str(header).strip() for header in (*index, *frame.columns)]
        twice = sorted({h for h in headers if h and headers.count(h) > 1})
        if twice:
            raise DataError(f"the header has {twice[0]!r} twice; give each column its own name.")
        if not len(frame):
            raise DataError("the table has a header but 0 rows.")
        frame = frame.reset_index() if named else frame
        self.frame = frame.set_axis(headers, axis="columns")
        self.sources = Sources.of_headers(headers)
        self.missing, self.decimal = missing, decimal

    def places(self, rows: Rows | None = None) -> Callable[[int], str]:
        """Return where the i-th value stands, of all rows or of those at some positions."""
        labels = self.frame.index if rows is None else self.frame.index[rows]
        return lambda i: f"row {labels[i]}"

    def channel(self, column: str, name: str, rows: Rows | None = None) -> Channel:
        """Return what to call the values of a column."""
        return Channel(name, f"column {column!r}", self.places(rows), self.missing)

    def values(self, quantities: Sequence[Quantity]) -> NDArray[np.float64]:
        """Return the numbers of some columns in their declared units, with shape `(N, C)`."""
        values = np.empty((len(self.frame), len(quantities)))
        for i, q in enumerate(quantities):
            channel = self.channel(q.source, q.name)
            numbers = parse_numbers(self.frame[q.source], channel, self.decimal)
            values[:, i] = q.converted(without_markers(numbers, channel))
        return values

    def check(
        self,
        function: Callable[[NDArray[np.float64], Channel], None],
        quantities: Sequence[Quantity],
        values: NDArray[np.float64],
    ) -> None:
        """Check each of C columns, whose values have the shape `(N, C)`."""
        for q, column in zip(quantities, values.T, strict=True):
            function(column, self.channel(q.source, q.name))

    def constants(
        self, quantities: Sequence[Quantity], values: NDArray[np.float64], rows: Rows, label: Any
    ) -> NDArray[np.float64]:
        """Return the known parameters of the run at some rows, with shape `(P,)`."""
        each = zip(quantities, values.T, strict=True)
        return np.array(
            [check_constant(v, self.channel(q.source, q.name, rows), q, label) for q, v in each]
        )

    def times(self, column: str, date_format: str) -> NDArray[Any]:
        """Return times as numbers, dates or spans (datetime64, timedelta64), shape `(N,)`."""
        cells = self.frame[column]
        channel = replace(self.channel(column, "time"), advice=_DATES)
        if cells.dtype.kind == "m":
            return cells.to_numpy("timedelta64[us]")
        if is_dated(cells, date_format):
            return parse_dates(cells, channel, date_format)
        numbers = parse_numbers(cells, channel, self.decimal)
        return without_markers(numbers, channel, repeated=False)

    def groups(self, sample: str | None) -> list[tuple[Any, Rows]]:
        """Return the label and the row positions of each run, in the order of the table."""
        if sample is None:
            return [(None, np.arange(len(self.frame)))]
        column = self.sources.find(sample, "the runs", "write sample='...'.")
        groups: dict[Any, list[int]] = {}
        for i, cell in enumerate(self.frame[column].tolist()):
            if is_gap(cell):
                fault = "the label of the run is missing; give each row one."
                raise self.channel(column, "run").fault(i, fault)
            label = cell if isinstance(cell, Real) else str(cell).strip()
            groups.setdefault(label, []).append(i)
        return [(label, np.array(rows)) for label, rows in groups.items()]
