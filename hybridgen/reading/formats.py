"""A file of measurements, read by what it is: delimited text, netCDF or a zarr store.

How its columns are to be read is a configuration, so that a run can keep it with its settings:

    >>> how = Reading(states={"theta": "angle"}, sort=True)
    >>> how.missing is None
    True
"""

from __future__ import annotations

import os
from dataclasses import field
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from hybridgen.config import config
from hybridgen.errors import DataError, nearest
from hybridgen.expert import ODEExpert
from hybridgen.reading.delimited import read_text
from hybridgen.reading.grids import from_xarray
from hybridgen.reading.netcdf import read_netcdf
from hybridgen.reading.tables import from_pandas
from hybridgen.store import open_store
from hybridgen.units import is_time, split_header

__all__ = ["Reading", "read_data", "read_group"]

_NETCDF = (".nc", ".nc4", ".cdf", ".netcdf")


@config
class Reading:
    """How a file of measurements is to be read; see `hybridgen.read_csv` for each.

    Arguments:
        time: The column of the times. Without it that is the one called t, time or by a unit of
            time (year), in text; the variable time, in netCDF and zarr.
        states: The column of each state; those not named stand under their own names.
        sample: The column (in netCDF: the dimension) that tells runs apart.
        inputs: The column of each input.
        known: The column of each known parameter.
        units: Units by name, where the file does not say or is wrong.
        convert: A factor, or a pair (factor, offset), by name.
        time_unit: The unit of the times.
        missing: Numbers and text that stand for a missing value; empty if every number is one.
        sort: Whether rows may be put in the order of their times (text only).
        sep: What separates the cells (text only).
        decimal: The decimal mark (text only).
        date_format: How dates are written (text only).
        group: The group of a zarr store.
    """

    time: str | None = None
    states: dict[str, str] = field(default_factory=dict)
    sample: str | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    convert: dict[str, float | tuple[float, float]] = field(default_factory=dict)
    time_unit: str | None = None
    missing: tuple[float | str, ...] | None = None
    sort: bool = False
    sep: str | None = None
    decimal: str = "."
    date_format: str = "ISO8601"
    group: str | None = None


def read_data(
    path: str | os.PathLike[str], expert: ODEExpert | None = None, how: Reading | None = None
) -> xr.Dataset:
    """Read a file of measurements.

    Arguments:
        path: Delimited text, a netCDF file, or a zarr store such as `write_store` writes.
        expert: Whose states, inputs and known parameters are read.
        how: Which column holds what; None for the names that the expert declares.

    Returns:
        A data set as `hybridgen.io` describes it.

    Raises:
        DataError: If there is no such file, or it cannot be read as it is told.
    """
    path, how = Path(path), how or Reading()
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}; {nearest(path.name, beside)}")
    common: dict[str, Any] = {
        "states": how.states or None,
        "inputs": how.inputs or None,
        "known": how.known or None,
        "units": how.units or None,
        "convert": how.convert or None,
        "time_unit": how.time_unit,
        "missing": how.missing,
    }
    if not path.is_dir() and path.suffix.lower() not in _NETCDF:
        _refuse(path, "a group", how.group)
        frame = read_text(path, how.sep)
        common |= {"sample": how.sample, "decimal": how.decimal, "sort": how.sort}
        time = how.time or _time_column(frame)
        data = from_pandas(frame, expert, time=time, date_format=how.date_format, **common)
        return data.assign_attrs(source=path.name)
    _refuse(path, "sorted rows", how.sort)
    common |= {"dims": {"sample": how.sample} if how.sample else None, "time": how.time or "time"}
    if not path.is_dir():
        _refuse(path, "a group", how.group)
        return read_netcdf(path, expert, **common)
    data = from_xarray(read_group(path, how.group), expert, **common)
    return data.assign_attrs(source=path.name)


def _refuse(path: Path, what: str, given: object) -> None:
    if given:
        raise DataError(f"{path.name} is no file that has {what}; leave that option out.")


def _time_column(frame: pd.DataFrame) -> str:
    """Return the one column that is called t, time or by a unit of time."""
    names = {str(c): split_header(str(c))[0].lower() for c in frame.columns}
    found = [c for c, n in names.items() if n in ("t", "time") or (len(n) > 2 and is_time(n))]
    if len(found) != 1:
        which = "none" if not found else " and ".join(map(repr, found))
        raise DataError(
            f"the column of the times cannot be told: of {', '.join(map(repr, names))}, {which} "
            "would do; write time='...'."
        )
    return found[0]


def read_group(path: str | os.PathLike[str], name: str | None = None) -> xr.Dataset:
    """Read a group of a zarr store into memory.

    Arguments:
        path: The store.
        name: The group, such as `"train"` or `"ood/far"`; None for the only one that holds data.

    Raises:
        DataError: If there is no such store or group, or several and no name.
    """
    with open_store(path) as tree:
        found = {n.path.strip("/"): n for n in tree.subtree if n.data_vars}
        if name is None and len(found) != 1:
            raise DataError(
                f"{path} holds the groups {', '.join(map(repr, found)) or 'none'}; write which "
                "of them to read, group='...'."
            )
        chosen = next(iter(found)) if name is None else name.strip("/")
        if chosen not in found:
            raise DataError(f"{path} has no group {name!r}; {nearest(chosen, found)}")
        data = found[chosen].to_dataset(inherit=False).load()
    # zarr's text comes back as a kind that xarray cannot fill gaps of
    texts = {k: v.astype(object) for k, v in data.variables.items() if v.dtype.kind == "T"}
    return data.assign_coords(texts)
