"""Data sets: tensors to xarray and back.

An ODE data set has `y (sample, time, state)`, and `mask` beside it where something is missing; a
field has one variable `(sample, time, y, x)` for each state. Times shared by all samples are the
coordinate `time`; times of their own are the coordinate `t (sample, time)`, where a shorter run
goes on with its last step and is masked. Inputs are `inputs (sample, time, input)`. Expert
parameters and the true augmentation parameters are coordinates along `sample`, with units;
`status`, `t_reached` and `distance` stand beside every sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.errors import DataError, nearest
from hybridgen.expert import AnyExpert
from hybridgen.integrate import Status
from hybridgen.params import Param, State
from hybridgen.units import same_unit
from hybridgen.version import __version__

__all__ = ["status_attrs", "to_batch", "to_dataset"]

_DIMS = ("sample", "time", "state")


def to_dataset(
    batch: Batch,
    *,
    states: Sequence[State],
    params: Sequence[Param] = (),
    z_a: Sequence[Param | str] = (),
    inputs: Sequence[State] = (),
    grid: Mapping[str, NDArray[np.float64] | xr.DataArray] | None = None,
    time_unit: str = "s",
    attrs: Mapping[str, str | int | float] | None = None,
    seed: int | None = None,
) -> xr.Dataset:
    """Name the tensors of a batch.

    Arguments:
        batch: Trajectories with shape `(B, T, C, *S)` and times `(T,)` or `(B, T)`.
        states: Declarations of the C states.
        params: Declarations of the P expert parameters.
        z_a: Declarations (or names) of the D augmentation parameters.
        inputs: Declarations of the U inputs.
        grid: Coordinates of the spatial axes S by name; data arrays say their units, others have
            none.
        time_unit: Unit of the times.
        attrs: Attributes of the data set.
        seed: The seed it was drawn with.

    Returns:
        The data set, with CF attributes.

    Raises:
        DataError: If a shape does not go with the declarations.
    """
    grid = dict(grid or {})
    if batch.y.ndim != 3 + len(grid) or batch.y.shape[2] != len(states):
        raise DataError(
            f"y has shape {tuple(batch.y.shape)}, but there are {len(states)} states and the "
            f"spatial axes {tuple(grid)}; expected (sample, time, state, *space)."
        )
    data = _states(batch, states, tuple(grid)) | _per_sample(batch, time_unit)
    coords: dict[str, Any] = {k: _axis(k, v) for k, v in grid.items()}
    timed = ("time",) if batch.t.ndim == 1 else _DIMS[:2]
    coords["time" if batch.t.ndim == 1 else "t"] = (
        timed,
        _numpy(batch.t),
        {"units": time_unit, "axis": "T"},
    )
    if not grid:
        coords["state"] = ("state", _text(s.name for s in states))
        coords["unit"] = ("state", _text(s.unit for s in states))
    if batch.u is not None:
        data["inputs"] = ((*_DIMS[:2], "input"), _numpy(batch.u), {"long_name": "input"})
        coords["input"] = ("input", _text(i.name for i in inputs))
        coords["input_unit"] = ("input", _text(i.unit for i in inputs))
    coords |= _labels("z_e", params, batch.z_e) | _labels("z_a", z_a, batch.z_a)
    described = {"Conventions": "CF-1.11", "hybridgen_version": __version__, **(attrs or {})}
    if seed is not None:
        described["seed"] = seed
    return xr.Dataset(data, coords, described)


def _axis(name: str, values: NDArray[np.float64] | xr.DataArray) -> tuple[str, NDArray, dict]:
    """Return the coordinates of a spatial axis, with the attributes that they came with."""
    given = values.attrs if isinstance(values, xr.DataArray) else {}
    return name, np.asarray(values), {"axis": name.upper()[:1], "units": "1", **given}


def _labels(role: str, declared: Sequence[Param | str], values: Tensor | None) -> dict[str, Any]:
    """Return parameters as coordinates along `sample`."""
    coords: dict[str, Any] = {}
    if values is None:
        return coords
    for p, column in zip(declared, values.unbind(-1), strict=True):
        name, unit = (p.name, p.unit) if isinstance(p, Param) else (p, "1")
        coords[name] = ("sample", _numpy(column), {"units": unit, "role": role})
    return coords


def _text(words: Any) -> NDArray:
    return np.array(list(words), dtype=object)


def _states(batch: Batch, states: Sequence[State], axes: tuple[str, ...]) -> dict[str, Any]:
    """Return the variables that hold states: `y` for an ODE, one for each field."""
    data: dict[str, Any] = {}
    dims = (*_DIMS, *axes)
    if axes:
        for i, s in enumerate(states):
            attrs = {"units": s.unit, "role": "state"}
            data[s.name] = ((*dims[:2], *axes), _numpy(batch.y[:, :, i]), attrs)
    else:
        data["y"] = (dims, _numpy(batch.y), {"long_name": "observed state"})
    if batch.clean is not None:
        data["clean"] = (dims, _numpy(batch.clean), {"long_name": "state without noise"})
    if batch.mask is not None:
        data["mask"] = (dims, _numpy(batch.mask), {"long_name": "true where y was observed"})
    return data


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
    data: xr.Dataset | Batch, expert: AnyExpert | None = None, *, labels: bool = True
) -> Batch:
    """Read the tensors of a data set.

    Arguments:
        data: A data set as `to_dataset` makes it; a batch is returned as it is.
        expert: If given, states, inputs and parameters are put in its order and their units
            compared; states that it declares as not observed are filled with NaN.
        labels: Whether to read all parameters and clean states, where the data set has them;
            otherwise only parameters that the expert declares as known.

    Returns:
        The batch, in the data's dtype.

    Raises:
        DataError: If a variable, state, input, known parameter or unit is missing or wrong.
    """
    if isinstance(data, Batch):
        return data
    if not isinstance(data, xr.Dataset):
        raise DataError(f"got {type(data).__name__}; give an xarray Dataset or a Batch.")
    y, mask, clean = _read_states(data, expert)
    role = {str(k): c.attrs.get("role") for k, c in data.coords.items()}
    z_a = [k for k, r in role.items() if r == "z_a"]
    return Batch(
        t=_tensor(data, "time" if "time" in data.coords else "t"),
        y=y,
        mask=mask,
        u=_read_inputs(data, expert),
        z_e=_read_params(data, expert, [k for k, r in role.items() if r == "z_e"], labels),
        z_a=torch.stack([_tensor(data, k) for k in z_a], -1) if z_a and labels else None,
        clean=clean if labels else None,
        status=_tensor(data, "status") if "status" in data else None,
        t_reached=_tensor(data, "t_reached") if "t_reached" in data else None,
        distance=_tensor(data, "distance") if "distance" in data else None,
    )


def _tensor(data: xr.Dataset | xr.DataArray, name: str | None = None) -> Tensor:
    return torch.from_numpy(np.array(data if name is None else data[name]))


def _read_states(
    data: xr.Dataset, expert: AnyExpert | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return y, mask and clean, with shape `(B, T, C, *S)`, in the expert's order."""
    fields = [str(k) for k, v in data.data_vars.items() if v.attrs.get("role") == "state"]
    if fields:
        names = list(expert.state_names) if expert else fields
        for state in expert.states if expert else ():
            _known(state.name, fields, "state")
            _same_unit("state", state, data[state.name].attrs.get("units", state.unit))
        return torch.stack([_tensor(data, n) for n in names], 2), *_extras(data, None)
    if "y" not in data or data["y"].dims != _DIMS:
        found = {str(k): v.dims for k, v in data.data_vars.items()}
        raise DataError(
            f"the data set has {found}; it needs y with dims {_DIMS}, or for an expert with "
            "spatial axes one variable (sample, time, y, x) for each state."
        )
    if expert is None:
        return _tensor(data, "y"), *_extras(data, None)
    present = [str(s) for s in data["state"].values]
    units = dict(zip(present, data["unit"].values, strict=True)) if "unit" in data.coords else {}
    for state in expert.states:
        if state.observed:
            _known(state.name, present, "state")
        _same_unit("state", state, str(units.get(state.name, state.unit)))
    # names that are not in the data come back as NaN
    order = {"state": list(expert.state_names)}
    # of words there is no missing value, so those of a state that is missing cannot come along
    data = data.drop_vars("unit", errors="ignore")
    y, (mask, clean) = _tensor(data["y"].reindex(order)), _extras(data, order)
    if mask is None and not all(s.observed for s in expert.states):
        mask = torch.ones_like(y, dtype=torch.bool)
    for i, state in enumerate(expert.states):
        if mask is not None and not state.observed:
            mask[:, :, i], y[:, :, i] = False, torch.nan
    return y, mask, clean


def _extras(
    data: xr.Dataset, names: Mapping[str, list[str]] | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return mask and clean, where the data have them, with the states in the order of names."""
    mask, clean = data.get("mask"), data.get("clean")
    if names is not None:
        mask = None if mask is None else mask.reindex(names, fill_value=False)
        clean = None if clean is None else clean.reindex(names)
    return (
        None if mask is None else _tensor(mask).bool(),
        None if clean is None else _tensor(clean),
    )


def _read_inputs(data: xr.Dataset, expert: AnyExpert | None) -> Tensor | None:
    if expert is None or not expert.inputs:
        return _tensor(data, "inputs") if "inputs" in data else None
    names = [i.name for i in expert.inputs]
    if "inputs" not in data:
        raise DataError(
            f"expert {expert.name!r} has the inputs {tuple(names)}, but the data set has no "
            "variable inputs (sample, time, input)."
        )
    found = [str(i) for i in data["input"].values]
    units = (
        dict(zip(found, data["input_unit"].values, strict=True)) if "input_unit" in data else {}
    )
    for i in expert.inputs:
        _known(i.name, found, "input")
        _same_unit("input", i, str(units.get(i.name, i.unit)))
    u = _tensor(data["inputs"].sel(input=names))
    if not u.isfinite().all():
        bad = int((~u.isfinite()).flatten(1).any(1).nonzero()[0, 0])
        raise DataError(f"the inputs of sample {bad} hold NaN; inputs must be known at all times.")
    return u


def _read_params(
    data: xr.Dataset, expert: AnyExpert | None, roles: Sequence[str], labels: bool
) -> Tensor | None:
    """Return the parameters that the data give, NaN for others; None if they give none."""
    if expert is None:
        return torch.stack([_tensor(data, k) for k in roles], -1) if roles and labels else None
    columns = []
    for p in expert.params:
        given = p.name in data.coords
        if p.known and not given:
            raise DataError(
                f"parameter {p.name!r} is declared as known, but the data set does not give it; "
                f"{nearest(p.name, [str(k) for k in data.coords])}"
            )
        if given:
            _same_unit("parameter", p, data[p.name].attrs.get("units", p.unit))
        wanted = given and (labels or p.known)
        missing = torch.full((data.sizes["sample"],), torch.nan, dtype=torch.float64)
        columns.append(_tensor(data, p.name) if wanted else missing)
    if not columns or all(c.isnan().all() for c in columns):
        return None
    return torch.stack([c.to(columns[0]) for c in columns], -1)


def _known(name: str, found: Sequence[str], what: str) -> None:
    if name not in found:
        raise DataError(f"the data set has no {what} {name!r}; {nearest(name, found)}")


def _same_unit(what: str, declared: State | Param, unit: str) -> None:
    if not same_unit(unit, declared.unit):
        kind = type(declared).__name__
        raise DataError(
            f"{what} {declared.name!r} is in {unit} in the data but in {declared.unit} in the "
            f"expert; convert the data, or declare {kind}({declared.name!r}, {unit!r}, ...)."
        )
