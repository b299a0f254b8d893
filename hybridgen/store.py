"""One zarr store for a study: data sets as groups, every chunk with a checksum."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import xarray as xr
import zarr.codecs

from hybridgen.errors import DataError, OutputExistsError

__all__ = ["open_store", "write_store"]


def write_store(
    path: str | os.PathLike[str], groups: Mapping[str, xr.Dataset], *, overwrite: bool = False
) -> Path:
    """Write data sets as groups of one zarr store, every chunk with a checksum.

    Arguments:
        path: The folder of the store.
        groups: Data sets by group, such as `"train"` or `"ood/far"`.
        overwrite: Whether an existing store may be replaced.

    Returns:
        The path.

    Raises:
        OutputExistsError: If the store is there already.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"{path} is there already; give another path or write overwrite=True."
        )
    groups = {name: _plain_text(ds) for name, ds in groups.items()}
    tree = xr.DataTree.from_dict({f"/{name}": ds for name, ds in groups.items()})
    codecs = (zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle"), zarr.codecs.Crc32cCodec())
    encoding = {
        f"/{name}": {
            str(v): {"compressors": codecs} for v in ds.variables if ds[v].dtype.kind in "fiub"
        }
        for name, ds in groups.items()
    }
    tree.to_zarr(path, mode="w", consolidated=False, encoding=encoding)
    return path


def _plain_text(data: xr.Dataset) -> xr.Dataset:
    """Return the data with text of variable length, the only kind that zarr v3 has settled."""
    fixed = {k: v.astype(object) for k, v in data.variables.items() if v.dtype.kind == "U"}
    return data.assign({k: v for k, v in fixed.items() if k in data.data_vars}).assign_coords(
        {k: v for k, v in fixed.items() if k in data.coords}
    )


def open_store(path: str | os.PathLike[str]) -> xr.DataTree:
    """Open a store written by `write_store`; arrays are read when they are used.

    Arguments:
        path: The folder of the store.

    Raises:
        DataError: If there is no zarr store at `path`.
    """
    if not (Path(path) / "zarr.json").is_file():
        raise DataError(f"{path} holds no zarr v3 store (no zarr.json in it).")
    return xr.open_datatree(path, engine="zarr", consolidated=False, chunks=None)
