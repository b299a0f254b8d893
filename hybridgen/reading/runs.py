r"""Runs of one system each, checked and put side by side.

Runs of different length are padded to the longest, and nothing is observed after a run's end. If
the times :math:`t_1 \dots t_n` of every run are the first of the longest run's, those are shared;
otherwise each has its own, which go on with the run's last step,

.. math:: t_{n+k} = t_n + k\, (t_n - t_{n-1}).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from hybridgen.batch import Batch
from hybridgen.errors import DataError
from hybridgen.io import to_dataset
from hybridgen.params import State
from hybridgen.reading.columns import Channel
from hybridgen.reading.quantities import Plan, Quantity

__all__ = [
    "Run",
    "assemble",
    "check_complete",
    "check_constant",
    "check_scale",
    "check_times",
    "pad",
]


@dataclass(frozen=True)
class Run:
    """One trajectory.

    Arguments:
        label: What the data call it; None where there is one run without a name.
        t: Times, with shape `(T,)`.
        y: Observed states, NaN where missing, with shape `(T, C, *S)`.
        u: Inputs, with shape `(T, U)`.
        z: Known parameters, with shape `(P,)`.
    """

    label: Any
    t: NDArray[np.float64]
    y: NDArray[np.float64]
    u: NDArray[np.float64]
    z: NDArray[np.float64]


def check_times(t: NDArray[np.float64], place: Callable[[int], str], advice: str = "") -> None:
    """Raise unless times are finite and increase.

    Arguments:
        t: The times of one run, with shape `(T,)`.
        place: Where the i-th of them stands.
        advice: What to write where they do not increase.

    Raises:
        DataError: Naming the place.

    Example:
        >>> check_times(np.array([0.0, 1.0, 1.0]), "row {}".format)
        Traceback (most recent call last):
            ...
        hybridgen.errors.DataError: row 2 repeats the time 1 of row 1; keep one of them.
    """
    odd = ~(np.abs(t) < 1e100)  # beyond it, steps may overflow
    if odd.any():
        i = int(odd.argmax())
        what = "no time" if np.isnan(t[i]) else f"the time {t[i]}"
        raise DataError(f"{place(i)} has {what}; each needs a finite one.")
    if t.size < 2:
        raise DataError(f"{place(0)} is alone in its run; a run needs two times or more.")
    steps = np.diff(t)
    i = int((steps <= 0).argmax()) + 1
    if steps[i - 1] < 0:
        raise DataError(
            f"{place(i)} has the time {t[i]:.10g} after {t[i - 1]:.10g}, but times must increase"
            f"{'; ' if advice else ''}{advice}."
        )
    if steps[i - 1] == 0:
        raise DataError(
            f"{place(i)} repeats the time {t[i]:.10g} of {place(i - 1)}; keep one of them."
        )


def check_scale(values: NDArray[np.float64], channel: Channel) -> None:
    """Raise if a state has no value at all, or only one.

    Arguments:
        values: All values of the state, with shape `(N,)`.
        channel: What to call it.

    Raises:
        DataError: Naming the state.
    """
    seen = values[~np.isnan(values)]
    who = f"state {channel.name!r} ({channel.what})"
    if not seen.size:
        raise DataError(
            f"{who} has no value at all; if nothing measures it, declare "
            f"State({channel.name!r}, ..., observed=False, low=..., high=...)."
        )
    if seen.min() == seen.max():
        raise DataError(
            f"{who} is {seen[0]:.10g} in all {seen.size} values; a constant has no scale to learn "
            "from, so leave it out of the states or add runs in which it changes."
        )


def check_complete(values: NDArray[np.float64], channel: Channel) -> None:
    """Raise if an input is missing at some time.

    Arguments:
        values: All values of the input, with shape `(N,)`.
        channel: What to call it.

    Raises:
        DataError: Naming the first place.
    """
    gaps = np.isnan(values)
    if gaps.any():
        raise channel.fault(
            int(gaps.argmax()),
            f"input {channel.name!r} is missing; inputs must be known at all times, so fill the "
            "gap first, or leave out what comes before or after it.",
        )


def check_constant(
    values: NDArray[np.float64], channel: Channel, quantity: Quantity, label: Any
) -> float:
    """Return the value of a known parameter in one run.

    Arguments:
        values: Its values in the run, NaN where it is not given, with shape `(N,)`.
        channel: What to call it; its places are those of the run.
        quantity: Its range.
        label: What the data call the run.

    Raises:
        DataError: If there is no value, more than one, or one out of range.
    """
    given = np.flatnonzero(~np.isnan(values))
    if not given.size:
        who = "the data have" if label is None else f"run {label!r} has"
        raise DataError(f"{who} no value of known parameter {channel.name!r} ({channel.what}).")
    first = values[given[0]]
    other = given[values[given] != first]
    if other.size:
        raise channel.fault(
            int(other[0]),
            f"{channel.name!r} is {values[other[0]]:.10g}, but {first:.10g} in "
            f"{channel.place(int(given[0]))} of the same run; a known parameter is one number for "
            "a run (what changes is an input).",
        )
    if not quantity.low <= first <= quantity.high:
        raise channel.fault(
            int(given[0]),
            f"{channel.name!r} = {first:.10g} {quantity.unit} is outside its valid range "
            f"[{quantity.low:g}, {quantity.high:g}] {quantity.unit}; check the number and its "
            "unit, or declare a wider range if the expert holds there.",
        )
    return float(first)


def assemble(
    runs: Sequence[Run],
    plan: Plan,
    unit: str,
    grid: Mapping[str, xr.DataArray] | None = None,
) -> xr.Dataset:
    """Put runs into the project's format.

    Arguments:
        runs: The runs, one for each sample.
        plan: Names and units of states, inputs and known parameters.
        unit: The unit of the times.
        grid: Coordinates of the spatial axes S by name.

    Returns:
        A data set as `hybridgen.io` describes it, with the labels of the runs as `run`.

    Raises:
        DataError: If a run has no value at all.
    """
    data = to_dataset(
        pad(runs),
        states=[State(q.name, q.unit) for q in plan.states],
        inputs=[State(q.name, q.unit) for q in plan.inputs],
        grid=grid,
        time_unit=unit,
    )
    for i, q in enumerate(plan.known):
        values = np.array([run.z[i] for run in runs])
        data = data.assign_coords({q.name: ("sample", values, {"units": q.unit, "role": "z_e"})})
    if runs[0].label is None:
        return data
    labels = [run.label for run in runs]
    if any(isinstance(label, str) for label in labels):
        return data.assign_coords(run=("sample", np.array(list(map(str, labels)), dtype=object)))
    return data.assign_coords(run=("sample", np.array(labels)))


def pad(runs: Sequence[Run]) -> Batch:
    """Put runs side by side.

    Arguments:
        runs: B runs with the same states and inputs.

    Returns:
        The batch: times `(T,)` where all runs have those of the longest as far as they go, else
        `(B, T)`; a mask where anything is missing; inputs, held after a run's end, if any.

    Raises:
        DataError: If a run has no value at all.

    Example:
        >>> t, y, none = np.arange(3.0), np.arange(6.0).reshape(3, 2), np.zeros((3, 0))
        >>> batch = pad([Run("a", t, y, none, none), Run("b", t[:2], y[:2], none[:2], none)])
        >>> batch.t.shape, batch.mask[1, :, 0]
        (torch.Size([3]), tensor([ True,  True, False]))
    """
    for run in runs:
        if np.isnan(run.y).all():
            who = "the data have" if run.label is None else f"run {run.label!r} has"
            raise DataError(f"{who} no value of any state; leave the run out.")
    longest = max((run.t for run in runs), key=len)
    points = len(longest)
    shared = all(np.array_equal(run.t, longest[: len(run.t)]) for run in runs)
    t = longest if shared else np.stack([_continued(run.t, points) for run in runs])
    y = np.stack([_filled(run.y, points, np.nan) for run in runs])
    u = np.stack([_filled(run.u, points, run.u[-1]) for run in runs])
    seen = ~np.isnan(y)
    return Batch(
        t=torch.from_numpy(t),
        y=torch.from_numpy(y),
        mask=None if seen.all() else torch.from_numpy(seen),
        u=torch.from_numpy(u) if u.shape[-1] else None,
    )


def _continued(t: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    more = np.arange(1, points - t.size + 1)
    return np.concatenate([t, t[-1] + more * (t[-1] - t[-2])])


def _filled(x: NDArray[np.float64], points: int, value: Any) -> NDArray[np.float64]:
    rest = np.broadcast_to(value, (points - len(x), *x.shape[1:]))
    return np.concatenate([x, rest])
