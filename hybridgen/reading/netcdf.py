"""NetCDF files, read by what is installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any, Unpack

import xarray as xr

from hybridgen.errors import DataError
from hybridgen.expert import ODEExpert
from hybridgen.reading.grids import GridOptions, from_xarray

__all__ = ["read_netcdf"]


def read_netcdf(
    path: str | os.PathLike[str], expert: ODEExpert | None = None, **options: Unpack[GridOptions]
) -> xr.Dataset:
    """Read measurements from a netCDF file.

    Arguments:
        path: The file. NetCDF-4 files need h5netcdf or netCDF4 to be installed.
        expert: If given, its observed states, inputs and known parameters are read, from the
            variables of their names unless others are given, and units are compared.
        **options: What `from_xarray` takes.

    Returns:
        A data set as `hybridgen.io` describes it, with the labels of the runs as `run`.

    Raises:
        DataError: If the file cannot be read, or for the reasons of `from_xarray`.
    """
    path = Path(path)
    try:
        with xr.open_dataset(path, engine=_engine(path), decode_timedelta=False) as opened:
            data = opened.load()
    except DataError:
        raise
    except Exception as error:  # whatever the engines raise on a damaged file
        raise DataError(f"{path.name} cannot be read as netCDF: {error}") from error
    data = from_xarray(data, expert, **options)
    return data.assign_attrs(source=path.name)


def _engine(path: Path) -> Any:
    """Return the xarray engine for a file, by how the file begins."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    if start in (b"CDF\x01", b"CDF\x02"):
        return "scipy"
    if start not in (b"\x89HDF", b"CDF\x05"):
        raise DataError(f"{path.name} is no netCDF file, it begins with {start!r}.")
    packages = {"h5netcdf": "h5netcdf", "netcdf4": "netCDF4"}
    if start == b"CDF\x05":
        del packages["h5netcdf"]
    for engine, package in packages.items():
        if importlib.util.find_spec(package) is not None:
            return engine
    raise DataError(
        f"{path.name} is a netCDF-{'4' if start[1:] == b'HDF' else '5'} file, and no package that "
        f"reads it is installed; write pip install {next(iter(packages.values()))}."
    )
