"""Data sets on disk and in memory: tensors to xarray and back, and one zarr store for a study.

An ODE data set has `y (sample, time, state)`; expert parameters and the true augmentation
parameters are coordinates along `sample`, with units; `status`, `t_reached` and `distance` stand
beside every sample. A store is a DataTree with the groups `train`, `valid`, `test`,
`ood/<shift>` and `augmented`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr.codecs
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.errors import DataError, OutputExistsError, nearest
from hybridgen.expert import ODEExpert
from hybridgen.integrate import Status
from hybridgen.params import Param, State
from hybridgen.version import __version__

__all__ = ["open_store", "status_attrs", "to_batch", "to_dataset", "write_store"]


def to_dataset(
    batch: Batch,
    *,
    states: Sequence[State],
    params: Sequence[Param] = (),
    z_a: Sequence[Param | str] = (),
    time_unit: str = "s",
    attrs: Mapping[str, str | int | float] | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Name the tensors of a batch.

    Arguments:
        batch: Trajectories with shape `(B, T, C)` and shared times `(T,)`.
        states: Declarations of the C states.
        params: Declarations of the P expert parameters.
        z_a: Declarations (or names) of the D augmentation parameters.
        time_unit: Unit of the times.
        attrs: Attributes of the data set.
        seed: The seed it was drawn with.

    Returns:
        The data set, with CF attributes.

    Raises:
        DataError: If times differ from member to member, or there are spatial axes.
    """
    if batch.t.ndim != 1 or batch.y.ndim != 3:
        raise DataError(
            f"y has shape {tuple(batch.y.shape)} and t {tuple(batch.t.shape)}; a data set needs "
            "(sample, time, state) and times (time,) shared by all samples."
        )
    dims = ("sample", "time", "state")
    data: dict[str, Any] = {"y": (dims, _numpy(batch.y), {"long_name": "observed state"})}
    if batch.clean is not None:
        data["clean"] = (dims, _numpy(batch.clean), {"long_name": "state without noise"})
    if batch.mask is not None:
        data["mask"] = (dims, _numpy(batch.mask), {"long_name": "true where y was observed"})
    data |= _per_sample(batch, time_unit)
    coords: dict[str, Any] = {
        "time": ("time", _numpy(batch.t), {"units": time_unit, "axis": "T"}),
        "state": ("state", np.array([s.name for s in states], dtype=object)),
        "unit": ("state", np.array([s.unit for s in states], dtype=object)),
    }
    for role, declared, values in (("z_e", params, batch.z_e), ("z_a", z_a, batch.z_a)):
        if values is None:
            continue
        for p, column in zip(declared, values.unbind(-1), strict=True):
            name, unit = (p.name, p.unit) if isinstance(p, Param) else (p, "1")
            coords[name] = ("sample", _numpy(column), {"units": unit, "role": role})
    described = {"Conventions": "CF-1.11", "hybridgen_version": __version__, **(attrs or {})}
    if seed is not None:
        described["seed"] = seed
    return xr.Dataset(data, coords, described)


def _per_sample(batch: Batch, time_unit: str) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, long_name, unit in (
        ("t_reached", "time up to which the simulation is valid", time_unit),
        ("distance", "distance from the training support", "1"),
    ):
        if (value := getattr(batch, name)) is not None:
            data[name] = ("sample", _numpy(value), {"long_name": long_name, "units": unit})
    if batch.status is not None:
        data["status"] = ("sample", _numpy(batch.status).astype(np.int8), status_attrs())
    return data


def status_attrs() -> dict[str, Any]:
    """Return the CF attributes of a status variable."""
    return {
        "long_name": "status of the simulation",
        "flag_values": np.array([int(s) for s in Status], dtype=np.int8),
        "flag_meanings": " ".join(s.name for s in Status),
    }


def _numpy(x: Tensor) -> Any:
    return x.detach().cpu().numpy()


def to_batch(
    data: xr.Dataset | Batch, expert: ODEExpert | None = None, *, labels: bool = True
) -> Batch:
    """Read the tensors of a data set.

    Arguments:
        data: A data set as `to_dataset` makes it; a batch is returned as it is.
        expert: If given, states and parameters are put in its order and their units compared.
        labels: Whether to read parameters and clean states, where the data set has them.

    Returns:
        The batch, in the data's dtype.

    Raises:
        DataError: If a variable, state or unit is missing or wrong.
    """
    if isinstance(data, Batch):
        return data
    if not isinstance(data, xr.Dataset):
        raise DataError(f"got {type(data).__name__}; give an xarray Dataset or a Batch.")
    if "y" not in data or data["y"].dims != ("sample", "time", "state"):
        found = {str(k): v.dims for k, v in data.data_vars.items()}
        raise DataError(
            f"the data set has {found}; it needs y with dims ('sample', 'time', 'state')."
        )
    if expert is not None:
        data = _in_order(data, expert)

    def tensor(name: str) -> Tensor | None:
        return torch.from_numpy(np.array(data[name])) if name in data else None

    def columns(names: Sequence[str]) -> Tensor | None:
        if not names or not labels or any(n not in data.coords for n in names):
            return None
        return torch.from_numpy(np.stack([np.array(data[n]) for n in names], axis=-1))

    role = {str(k): c.attrs.get("role") for k, c in data.coords.items()}
    z_e = expert.param_names if expert else [k for k, r in role.items() if r == "z_e"]
    z_a = [k for k, r in role.items() if r == "z_a"]
    return Batch(
        t=torch.from_numpy(np.array(data["time"])),
        y=torch.from_numpy(np.array(data["y"])),
        mask=tensor("mask"),
        z_e=columns(z_e),
        z_a=columns(z_a),
        clean=tensor("clean") if labels else None,
        status=tensor("status"),
        t_reached=tensor("t_reached"),
        distance=tensor("distance"),
    )


def _in_order(data: xr.Dataset, expert: ODEExpert) -> xr.Dataset:
    found = [str(s) for s in data["state"].values]
    for state in expert.states:
        if state.name not in found:
            raise DataError(
                f"the data set has no state {state.name!r}; {nearest(state.name, found)}"
            )
    data = data.sel(state=list(expert.state_names))
    if "unit" in data.coords:
        for state, unit in zip(expert.states, data["unit"].values, strict=True):
            if str(unit) != state.unit:
                raise DataError(
                    f"state {state.name!r} is in {unit} in the data but in {state.unit} in the "
                    f"expert; convert the data, or declare State({state.name!r}, {str(unit)!r})."
                )
    for p in expert.params:
        if p.name in data.coords and (unit := data[p.name].attrs.get("units", p.unit)) != p.unit:
            raise DataError(
                f"parameter {p.name!r} is in {unit} in the data but in {p.unit} in the expert."
            )
    return data


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
