r"""Forecasts with a trained model, and the files they are written to.

A model reads the first points of a run, as many as in training, and of those only what is no later
after the start than anything that training saw,

.. math:: t_{bi} - t_{b0} \le \max_{b'} (t^{train}_{b', last} - t^{train}_{b'0}) .
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.cli.trained import Trained
from hybridgen.config import from_mapping
from hybridgen.diagnostics.fits import best_fit, pick
from hybridgen.errors import ConfigError, DataError, OutputExistsError
from hybridgen.integrate import Status
from hybridgen.io import to_batch, to_dataset
from hybridgen.models import GlobalParameters, HybridModel, Inferred
from hybridgen.reading.formats import Reading, read_data
from hybridgen.refinement import refine
from hybridgen.store import write_store
from hybridgen.threads import one_thread

__all__ = ["Wanted", "check_target", "forecast", "write"]


@dataclass(frozen=True)
class Wanted:
    """At which times to forecast.

    Arguments:
        until: Go on with the data's step up to this time; None for the data's own times.
        times: First time, last time and how many; None to leave it to `until`.
    """

    until: float | None = None
    times: tuple[float, float, int] | None = None

    @classmethod
    def of(cls, until: float | None, times: str | None) -> Wanted:
        """Read the options `--until` and `--times`.

        Raises:
            ConfigError: If both are given, or the times are not three numbers A:B:N.

        Example:
            >>> Wanted.of(None, "0:10:101").times
            (0.0, 10.0, 101)
        """
        if times is None:
            return cls(until)
        if until is not None:
            raise ConfigError("--until and --times exclude each other; write one.")
        try:
            first, last, count = times.split(":")
            found = float(first), float(last), int(count)
        except ValueError:
            raise ConfigError(
                f"got {times!r}; write --times A:B:N, such as 1900:1930:61."
            ) from None
        if not found[0] < found[1] or found[2] < 2:
            raise ConfigError(f"got {times!r}; write --times A:B:N with A < B and N of 2 or more.")
        return cls(None, found)

    def grid(self, t: Tensor) -> Tensor:
        """Return the times to forecast at.

        Arguments:
            t: The data's times, with shape `(T,)` or `(B, T)`.

        Returns:
            Times with shape `(T',)` or `(B, T')`.

        Raises:
            ConfigError: If they are not after the start of every run.
        """
        start = float(t[..., 0].max())
        if self.times is not None:
            first, last, count = self.times
            if first < start:
                raise ConfigError(
                    f"--times begins at {first:g}, but the data begin at {start:g}; a forecast "
                    "goes forward from there."
                )
            return torch.linspace(first, last, count, dtype=torch.float64)
        if self.until is None:
            return t
        if self.until <= start:
            raise ConfigError(f"--until is {self.until:g}, but the data begin at {start:g} only.")
        step = float(t.diff(dim=-1).median())
        count = max(1, round((self.until - float(t[..., 0].min())) / step))
        share = torch.linspace(0.0, 1.0, count + 1, dtype=torch.float64)
        return t[..., :1] + (self.until - t[..., :1]) * share


def forecast(
    found: Trained,
    path: Path | None,
    columns: Mapping[str, Any],
    wanted: Wanted,
    inference: str | None,
) -> xr.Dataset:
    """Infer systems from the window of data, and forecast them.

    Arguments:
        found: The model.
        path: New data; None for those of the run.
        columns: How to read them, where that differs from how the run's data were read.
        wanted: At which times.
        inference: `"refined"` or `"amortised"`; None for refined where there are parameters.

    Returns:
        The forecast in the project's format: states, inferred parameters, `status`, `t_reached`.

    Raises:
        ConfigError: If an option is wrong.
        DataError: If the data do not suit the model.
    """
    if inference not in (None, "refined", "amortised"):
        raise ConfigError(f"--inference is {inference!r}; write refined or amortised.")
    # in single precision years are hours apart, and seconds since 1970 minutes
    model = copy.deepcopy(found.model).double()
    data = _read(found, path, columns)
    whole = to_batch(data, found.expert, labels=False)
    if model.expert is None:
        whole = whole.replace(u=None)
    given = _observed(found, whole, own=path is None)
    grid = wanted.grid(whole.t.double())
    _check_inputs(model, whole, grid)
    refined = inference == "refined" or (inference is None and bool(model.free))
    with one_thread(model.space == 0):
        answer: Inferred = _refined(model, given) if refined else model.infer(given)
        y, status, reached = _rolled_out(model, answer, whole.t.double(), grid)
    batch = Batch(
        t=grid, y=y, z_e=answer.z_e if model.params else None, status=status, t_reached=reached
    )
    return _described(found, data, batch, answer.inference)


def _refined(model: HybridModel, given: Batch) -> Inferred:
    """Return the least-squares fit, as `hybridgen fit` makes it."""
    single = isinstance(model.config["encoder"], GlobalParameters)
    return refine(model, given) if single or model.space else best_fit(model, given)


def _rolled_out(
    model: HybridModel, answer: Inferred, t: Tensor, grid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return states `(B, T', C, *S)`, status `(B,)` and last good times `(B,)` on a grid.

    A forecast starts at the first time of its run, whether that is on the grid or not.
    """
    members = len(answer.x0)
    first, wide = t.expand(members, -1)[:, :1], grid.expand(members, -1)
    is_later = wide[:, 0] > first[:, 0]
    y = answer.x0.new_empty(*wide.shape, *answer.x0.shape[1:])
    status = torch.zeros(members, dtype=torch.int8)
    reached = wide.new_zeros(members)
    for later in (False, True):
        some = (is_later == later).nonzero()[:, 0]
        if len(some):
            times = torch.cat([first[some], wide[some]], -1) if later else wide[some]
            out = model.predict(None, times, given=pick(answer, some))
            y[some], status[some] = out.y[:, int(later) :], out.status.to(status)
            reached[some] = out.t_reached.to(reached)
    return y, status, reached


def _read(found: Trained, path: Path | None, columns: Mapping[str, Any]) -> xr.Dataset:
    """Return new data, or those of the run."""
    if path is None:
        data = found.data("all", "train")
        if data is None:
            raise DataError(f"{found.run} keeps no data of its own; name a file to predict from.")
        return data
    stated = found.settings.get("reading", {})
    how = from_mapping(Reading, {**stated, **columns}, source="the options")
    return read_data(path, found.expert, how)


def _observed(found: Trained, whole: Batch, *, own: bool) -> Batch:
    """Return the data without what the model must not see, or could not have seen in training."""
    model = found.model
    seen = whole.y.isfinite() if whole.mask is None else whole.mask
    train = found.data("train")
    if train is None:
        return whole
    like = to_batch(train, found.expert, labels=False)
    known = like.y.isfinite() if like.mask is None else like.mask
    timed = known.flatten(2).any(2)[:, : int(model.window)]
    t = like.t.double().expand(len(like), -1)
    last = torch.where(timed, t[:, : timed.shape[1]], -torch.inf).amax(1)
    times = whole.t.double().expand(len(whole), -1)
    if own and "until" in train.attrs:
        late = times > float(train.attrs["until"])
    else:
        span = float((last - t[:, 0]).max())
        late = times - times[:, :1] > span * (1.0 + 1e-6)
    seen = seen & ~late[(..., *(None,) * (seen.ndim - 2))]
    given = whole.replace(y=torch.where(seen, whole.y, torch.nan), mask=seen)
    complete = bool(known[:, : int(model.window), model.data_states].all())
    uneven = like.t.ndim == 2 or not complete
    return _padded(given, int(model.window)) if uneven else given


def _padded(batch: Batch, points: int) -> Batch:
    """Return runs that go on, unobserved, until there are as many points as the model reads."""
    more = points - batch.y.shape[1]
    if more <= 0:
        return batch
    step = batch.t[..., -1:] - batch.t[..., -2:-1]
    t = torch.cat([batch.t, batch.t[..., -1:] + step * torch.arange(1, more + 1)], dim=-1)
    shape = list(batch.y.shape)
    shape[1] = more
    y = torch.cat([batch.y, batch.y.new_full(shape, torch.nan)], dim=1)
    none = torch.zeros(shape, dtype=torch.bool)
    mask = none if batch.mask is None else torch.cat([batch.mask, none], dim=1)
    u = batch.u
    if u is not None:
        u = torch.cat([u, u[:, -1:].expand(-1, more, -1)], dim=1)
    return batch.replace(t=t, y=y, mask=mask, u=u)


def _check_inputs(model: HybridModel, whole: Batch, grid: Tensor) -> None:
    if model.expert is None or not model.expert.inputs:
        return
    last = float(whole.t[..., -1].min())
    if float(grid.max()) > last * (1.0 + 1e-9) + 1e-9:
        names = ", ".join(i.name for i in model.expert.inputs)
        raise DataError(
            f"the forecast goes to {float(grid.max()):g}, but the inputs ({names}) are known up "
            f"to {last:g} only; give data that hold them to the end, states left empty."
        )


def _described(found: Trained, data: xr.Dataset, batch: Batch, inference: str) -> xr.Dataset:
    """Return the forecast as a data set."""
    model = found.model
    name = "time" if "time" in data.coords else "t"
    axes = [d for d in ("z", "y", "x") if d in data.coords and model.space]
    made = to_dataset(
        batch,
        states=model.states,
        params=model.params,
        grid={axis: data[axis].values for axis in axes},
        time_unit=str(data[name].attrs.get("units", "1")),
        attrs={**found.attrs(), "inference": inference},
    )
    if "y" in made.data_vars:
        made["y"].attrs["long_name"] = "predicted state"
    if "run" in data.coords:
        made = made.assign_coords(run=("sample", data["run"].values))
    return made


def check_target(path: Path, overwrite: bool = False) -> None:
    """Raise unless a forecast can be written to a path: before the work rather than after it.

    Arguments:
        path: The file or store.
        overwrite: Whether it may be replaced.

    Raises:
        OutputExistsError: If there is something already, or no folder to write into.
        DataError: If the ending is none of those that can be written.
    """
    if path.suffix not in _KINDS:
        raise DataError(f"{path} ends in {path.suffix!r}; write one of {', '.join(_KINDS)}.")
    store = path.is_dir() and (path / "zarr.json").is_file()
    if path.exists() and not (overwrite and store == (path.suffix == ".zarr")):
        raise OutputExistsError(
            f"{path} is there already; give another path, or write --overwrite to replace it."
        )
    if not path.absolute().parent.is_dir():
        raise OutputExistsError(f"there is no folder {path.parent} to write {path.name} into.")


def write(data: xr.Dataset, path: Path) -> Path:
    """Write a forecast in the format that the ending of a path names; an old file is replaced.

    Arguments:
        data: The forecast.
        path: A file that ends in .csv or .nc, or a store that ends in .zarr.

    Returns:
        The path.

    Raises:
        DataError: If a field is to be written as text.
    """
    _KINDS[path.suffix](data, path)
    return path


def _write_zarr(data: xr.Dataset, path: Path) -> None:
    write_store(path, {"predicted": data}, overwrite=True)


def _write_netcdf(data: xr.Dataset, path: Path) -> None:
    # the classic format, which needs no package that may be missing
    data.to_netcdf(path, engine="scipy")


def _write_csv(data: xr.Dataset, path: Path) -> None:
    """Write one row for each run and time, with units in the header and the status in words."""
    import pandas as pd

    if "y" not in data.data_vars:
        raise DataError(f"fields do not fit into {path.name}; write a .nc or .zarr file.")
    name = "time" if "time" in data.coords else "t"
    runs, points = data.sizes["sample"], data.sizes["time"]
    labels = data["run"].values if "run" in data.coords else np.arange(runs)
    table: dict[str, Any] = {}
    if runs > 1 or "run" in data.coords:
        table["run"] = np.repeat(labels, points)
    times = np.broadcast_to(data[name].values, (runs, points))
    table[f"time [{data[name].attrs['units']}]"] = times.ravel()
    for i, state in enumerate(data["state"].values.tolist()):
        table[f"{state} [{data['unit'].values[i]}]"] = data["y"].values[..., i].ravel()
    words = [Status(code).name for code in data["status"].values.tolist()]
    table["status"] = np.repeat(words, points)
    pd.DataFrame(table).to_csv(path, index=False)


_KINDS = {".csv": _write_csv, ".nc": _write_netcdf, ".zarr": _write_zarr}
