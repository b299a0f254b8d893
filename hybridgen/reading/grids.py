"""Measurements in xarray data sets: one variable a quantity.

Dimensions are known by name, in any order: `time`, and where there are several runs `sample`; for
fields `y` and `x` too. Numbers that are stored packed are unpacked as the CF conventions say.

    >>> level = xr.DataArray([[1.0, 2.0], [3.0, 4.0]], dims=("t", "tank"), attrs={"units": "m"})
    >>> data = xr.Dataset({"level": level}, {"t": ("t", [0.0, 1.0], {"units": "h"})})
    >>> read = from_xarray(data, states={"h": "level"}, dims={"sample": "tank", "time": "t"})
    >>> read.y.values[..., 0], read.time.attrs["units"]
    (array([[1., 3.],
           [2., 4.]]), 'h')
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hybridgen.errors import DataError, nearest
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch
from hybridgen.reading.clock import make_clock
from hybridgen.reading.columns import Channel, Markers, Missing, without_markers
from hybridgen.reading.quantities import (
    Asked,
    Conversion,
    Names,
    Plan,
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
    check_times,
)

__all__ = ["GridOptions", "from_xarray"]

_AXES = ("z", "y", "x")
_PACKED = ("scale_factor", "add_offset", "_FillValue", "missing_value")


class GridOptions(Asked, total=False):
    """The arguments that `read_netcdf` hands on to `from_xarray`."""

    dims: Mapping[str, str] | None
    time: str


def from_xarray(
    data: xr.Dataset,
    expert: ODEExpert | None = None,
    *,
    dims: Mapping[str, str] | None = None,
    time: str = "time",
    states: Names | None = None,
    inputs: Names | None = None,
    known: Names | None = None,
    units: Mapping[str, str] | None = None,
    convert: Mapping[str, Conversion] | None = None,
    time_unit: str | None = None,
    missing: Markers | Mapping[str, Markers] | None = None,
) -> xr.Dataset:
    """Read measurements from an xarray data set; one in the project's format passes through.

    Arguments:
        data: The data set. The arguments not told of here are those of `hybridgen.read_csv`, with
            variables for columns.
        expert: Whose states, inputs and known parameters are read.
        dims: What the data call the dimensions, such as `{"sample": "station"}`.
        time: The variable of the times, with dims `(time,)` or `(sample, time)`.
        states: The variable of each state.
        inputs: The variable of each input.
        known: The variable of each known parameter.
        units: Units by name, where the attributes do not say or are wrong.
        convert: A factor, or a pair (factor, offset), by name.
        time_unit: The unit of the times; dates need it.
        missing: Numbers that stand for a missing value.

    Returns:
        A data set as `hybridgen.io` describes it, with the labels of the samples as `run`.

    Raises:
        DataError: Naming the variable of what is wrong, and what to write.
    """
    if not isinstance(data, xr.Dataset):
        raise DataError(f"got {type(data).__name__}; give an xarray Dataset.")
    asked = {"states": states, "inputs": inputs, "known": known}
    if _is_own(data) and not states:
        return _own(data, expert, dims, inputs, known, units, convert, time_unit, missing)
    data = _renamed(_decoded(data), dims or {})
    sources = _sources(data)
    plan = make_plan(sources, expert, asked, units, convert)
    grid = _Grid(data, plan, expert, Missing(missing), convert or {})
    times = grid.times(
        sources.find(time, "the times", "write time='...' or dims={'time': '...'}.")
    )
    dated = times.dtype.kind != "f"
    clock = make_clock(sources, time, time_unit, expert, convert, dated=dated)
    y, u, z = grid.states(), grid.inputs(), grid.known()
    runs = []
    for b, label in enumerate(grid.labels()):
        n = _length(times[b], y[b], b)
        t = clock.checked(times[b, :n], _places(f"sample {b}, time {{}}"))
        runs.append(Run(label, t, y[b, :n], u[b, :n], z[b]))
    return assemble(runs, plan, clock.unit, grid.coordinates())


def _sources(data: xr.Dataset) -> Sources:
    """Return the variables and their units."""
    units = {str(name): v.attrs.get("units") for name, v in data.variables.items()}
    found = {name: None if unit is None else str(unit) for name, unit in units.items()}
    return Sources("variable", found, {name: name for name in found})


def _decoded(data: xr.Dataset) -> xr.Dataset:
    """Unpack what is still packed as the CF conventions say."""
    packed = [
        str(name)
        for name, v in data.variables.items()
        if any(a in v.attrs for a in _PACKED) or " since " in str(v.attrs.get("units"))
    ]
    if not packed:
        return data
    try:
        return xr.decode_cf(data, decode_timedelta=False).load()
    except (TypeError, ValueError) as error:
        raise DataError(f"the variables {packed} cannot be unpacked: {error}") from error


def _renamed(data: xr.Dataset, dims: Mapping[str, str]) -> xr.Dataset:
    """Give dimensions, and the coordinates of their names, the names of the project."""
    known = ("sample", "time", *_AXES)
    for own, theirs in dims.items():
        if own not in known:
            raise DataError(f"dims has {own!r}; {nearest(own, known)}")
        if theirs not in data.dims:
            raise DataError(
                f"dims has {own!r}: {theirs!r}, but the data have the dims {_dims(data)}."
            )
        if own != theirs and (own in data.dims or own in data.variables):
            raise DataError(f"dims has {own!r}: {theirs!r}, but the data have {own!r} already.")
    return data.rename({theirs: own for own, theirs in dims.items()})


def _dims(data: xr.Dataset | xr.DataArray) -> str:
    return "(" + ", ".join(map(str, data.dims)) + ")"


def _length(t: NDArray[Any], y: NDArray[np.float64], b: int) -> int:
    """Return how many points a sample has; a shorter one may end with missing times."""
    timed = np.flatnonzero(t == t)
    points = int(timed[-1]) + 1 if timed.size else 1
    if not np.isnan(y[points:]).all():
        raise DataError(f"sample {b}, time {points} has values but no time; each needs one.")
    return points


def _places(template: str, shape: Sequence[int] = ()) -> Callable[[int], str]:
    """Return where the i-th value of an array of some shape stands."""
    return lambda i: template.format(*(np.unravel_index(i, shape) if shape else (i,)))


class _Grid:
    """A data set with dims by the names of the project, and what to read of it."""

    def __init__(
        self,
        data: xr.Dataset,
        plan: Plan,
        expert: ODEExpert | None,
        missing: Missing,
        convert: Mapping[str, Conversion],
    ) -> None:
        self.data, self.plan, self.missing, self.convert = data, plan, missing, convert
        found = {str(dim) for q in plan.states for dim in data[q.source].dims}
        space = len(found & {*_AXES}) if expert is None else expert.space
        self.axes = _AXES[len(_AXES) - space :]
        self.sample = ("sample",) if "sample" in found else ()
        self.samples = data.sizes["sample"] if self.sample else 1

    def array(self, name: str, dims: tuple[str, ...], *, common: bool = False) -> NDArray[Any]:
        """Return a variable with the axes sample and `dims`.

        Arguments:
            name: The variable.
            dims: Its dimensions besides the sample.
            common: Whether it may be the same for all samples.
        """
        x = self.data[name]
        expected = (*self.sample, *dims)
        if set(x.dims) != set(expected) and not (common and set(x.dims) == set(dims)):
            raise DataError(
                f"variable {name!r} has the dims {_dims(x)}; expected ({', '.join(expected)}) in "
                "any order, so write what the data call them, such as dims={'time': 'obs', "
                "'sample': 'station'}, and select one of each other dim."
            )
        x = x.transpose(..., *dims)
        if x.ndim == len(dims):
            x = x.expand_dims(sample=self.samples)
        if 0 in x.shape:
            raise DataError(f"variable {name!r} is empty: its shape is {x.shape}.")
        return x.to_numpy()

    def numbers(self, q: Quantity, dims: tuple[str, ...], *, common: bool = True) -> Any:
        """Return the values of a quantity in its unit, NaN where missing; see `array`."""
        x = self.array(q.source, dims, common=common)
        if x.dtype.kind not in "fiub":
            raise DataError(
                f"variable {q.source!r} holds {x.dtype}; numbers are expected, so write "
                f"data[{q.source!r}] = data[{q.source!r}].astype(float) if that is what they are."
            )
        if x.dtype.kind in "iu" and x.dtype.itemsize < 4 and q.name not in self.convert:
            raise DataError(
                f"variable {q.source!r} is {x.dtype} without scale_factor; if the numbers are "
                f"packed, write convert={{{q.name!r}: factor}}, and if they are counts, "
                f"convert={{{q.name!r}: 1}}."
            )
        channel = self.channel(q, dims, x.shape)
        flat = without_markers(x.astype(np.float64).ravel(), channel)
        return q.converted(flat).reshape(x.shape)

    def checked(
        self,
        check: Callable[[NDArray[np.float64], Channel], None],
        q: Quantity,
        dims: tuple[str, ...],
        *,
        common: bool = False,
    ) -> Any:
        """Return what `numbers` does, after a check of all of them."""
        x = self.numbers(q, dims, common=common)
        check(x.ravel(), self.channel(q, dims, x.shape))
        return x

    def channel(self, q: Quantity, dims: tuple[str, ...], shape: Sequence[int]) -> Channel:
        """Return what to call the values of a quantity with the axes sample and `dims`."""
        template = ", ".join(f"{dim} {{}}" for dim in ("sample", *dims))
        return Channel(q.name, f"variable {q.source!r}", _places(template, shape), self.missing)

    def states(self) -> NDArray[np.float64]:
        """Return the states, with shape `(B, T, C, *S)`."""
        dims = ("time", *self.axes)
        return np.stack([self.checked(check_scale, q, dims) for q in self.plan.states], axis=2)

    def inputs(self) -> NDArray[np.float64]:
        """Return the inputs, with shape `(B, T, U)`."""
        dims = ("time",)
        values = [self.checked(check_complete, q, dims, common=True) for q in self.plan.inputs]
        return np.stack(values, -1) if values else np.zeros((self.samples, self.points, 0))

    def known(self) -> NDArray[np.float64]:
        """Return the known parameters, with shape `(B, P)`."""
        z = np.empty((self.samples, len(self.plan.known)))
        for i, q in enumerate(self.plan.known):
            values = self.numbers(q, ())
            for b, label in enumerate(self.labels()):
                channel = Channel(q.name, f"variable {q.source!r}", _places(f"sample {b}"))
                z[b, i] = check_constant(values[b : b + 1], channel, q, label)
        return z

    def times(self, name: str) -> NDArray[Any]:
        """Return times as numbers, dates or spans, with shape `(B, T)`."""
        t = self.array(name, ("time",), common=True)
        if t.dtype.kind in "Mm":
            return t.astype(f"{t.dtype.kind}8[us]")
        if t.dtype.kind not in "fiu":
            raise DataError(f"variable {name!r} holds {t.dtype}; times are numbers or dates.")
        return t.astype(np.float64)

    @property
    def points(self) -> int:
        """The number of times."""
        return self.data.sizes["time"]

    def labels(self) -> list[Any]:
        """Return what the data call the samples; None where they do not."""
        if not self.sample or "sample" not in self.data.coords:
            return [None] * self.samples
        return self.data["sample"].values.tolist()

    def coordinates(self) -> dict[str, Any]:
        """Return the coordinates of the spatial axes."""
        for axis in self.axes:
            x = self.data[axis]  # without a coordinate, xarray counts
            if axis not in self.data.coords or x.dims != (axis,) or x.dtype.kind not in "fiu":
                raise DataError(
                    f"the data have no numbers along {axis!r}; give the places, such as "
                    f"data.assign_coords({axis}=({axis!r}, values, {{'units': 'm'}}))."
                )
        return {axis: self.data[axis] for axis in self.axes}


def _is_own(data: xr.Dataset) -> bool:
    if "y" in data.data_vars and data["y"].dims == ("sample", "time", "state"):
        return "state" in data.coords
    return any(v.attrs.get("role") == "state" for v in data.data_vars.values())


def _own(data: xr.Dataset, expert: ODEExpert | None, *others: Any) -> xr.Dataset:
    """Check a data set in the project's format, and mask what it lacks."""
    if any(others):
        raise DataError(
            "the data are in hybridgen's own format, which says everything; leave dims, units and "
            "the like out, or change the data set with xarray."
        )
    batch = to_batch(data, expert)
    for b, t in enumerate(batch.t if batch.t.ndim == 2 else batch.t[None]):
        check_times(t.double().numpy(), _places(f"sample {b}, time {{}}"))
    y = to_batch(data).y
    if batch.mask is None and y.isnan().any():
        dims = ("sample", "time", "state", *(a for a in _AXES if a in data.dims))
        return data.assign(mask=(dims, (~y.isnan()).numpy(), {"long_name": "true where observed"}))
    return data
