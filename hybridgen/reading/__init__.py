"""A user's own data: tables and netCDF files, checked and put into the project's format."""

from hybridgen.reading.grids import from_xarray
from hybridgen.reading.netcdf import read_netcdf
from hybridgen.reading.tables import from_pandas, read_csv

__all__ = ["from_pandas", "from_xarray", "read_csv", "read_netcdf"]
