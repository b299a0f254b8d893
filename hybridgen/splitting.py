"""Data kept aside, by run or by time, and the check that two data sets share nothing."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hybridgen import rng
from hybridgen.batch import Batch
from hybridgen.errors import DataError
from hybridgen.io import to_batch

__all__ = ["check_disjoint", "split_runs", "split_time"]


def split_runs(
    data: xr.Dataset, valid: float = 0.2, seed: int = 0
) -> tuple[xr.Dataset, xr.Dataset]:
    """Keep whole runs aside; samples with one label (`run`) stay together.

    Arguments:
        data: The data set, in the project's format.
        valid: The share of the runs to keep aside, at least one run.
        seed: Which runs are kept aside depends on it alone.

    Returns:
        The training and the validation data, each in the order of `data`.

    Raises:
        DataError: If there is only one run, the share is not between 0 and 1, or the two parts
            hold the same trajectory.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> train, valid = split_runs(pendulum.simulator.sample(10, seed=0), valid=0.2)
        >>> train.sizes["sample"], valid.sizes["sample"]
        (8, 2)
    """
    if not 0.0 < valid < 1.0:
        raise DataError(f"valid is {valid}; give the share of the runs, between 0 and 1.")
    count = data.sizes.get("sample", 0)
    labels = data["run"].values if "run" in data.coords else np.arange(count)
    runs = list(dict.fromkeys(labels.tolist()))
    if len(runs) < 2:
        raise DataError(
            f"there are {len(runs)} runs; with one run keep its end aside: split_time(data)."
        )
    kept = min(max(1, round(valid * len(runs))), len(runs) - 1)
    order = rng.uniform(seed, "split", range(len(runs)), 1)[:, 0].argsort()
    aside = {runs[i] for i in order[:kept]}
    is_aside = np.array([label in aside for label in labels.tolist()])
    train, held = data.isel(sample=~is_aside), data.isel(sample=is_aside)
    check_disjoint(train, held, names=("training", "validation"))
    return train, held


def split_time(data: xr.Dataset, until: float | None = None) -> xr.Dataset:
    """Keep the end of every run aside: what comes after the window is to be forecast.

    The window is one number of points for all samples. Where samples have times of their own, it
    is the largest that holds no time after `until` in any of them.

    Arguments:
        data: The data set, in the project's format.
        until: The last time that may be observed, in time units; None keeps the last 30 % of the
            points of the shortest run aside.

    Returns:
        The data set with the attribute `window`, the number of observed points, which `fit`,
        `evaluate` and `refine` heed.

    Raises:
        DataError: If a sample has fewer than two times in the window, or none after it.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> split_time(pendulum.simulator.sample(2, seed=0), until=5.0).attrs["window"]
        51
    """
    batch = to_batch(data)
    t = batch.t.double().cpu().numpy() * np.ones((len(batch), 1))
    ends = _ends(batch)
    inside = (0.7 * ends).astype(int) if until is None else (t <= until).sum(1)
    window = int(inside.min())
    if window < 2:
        raise DataError(
            f"the window holds {window} of the {ends[inside.argmin()]} points of sample "
            f"{inside.argmin()}; two or more are needed, so give a later until or longer runs."
        )
    if (ends <= window).all():
        raise DataError(
            f"no sample has a point after the window of {window} points; give an earlier until."
        )
    return data.assign_attrs(window=window)


def _ends(batch: Batch) -> NDArray[np.int64]:
    """Return how many points each sample has before its padding, with shape `(B,)`."""
    if batch.mask is None:
        return np.full(len(batch), batch.y.shape[1])
    seen = batch.mask.flatten(2).any(2).cpu().numpy()
    return seen.shape[1] - seen[:, ::-1].argmax(1)


def check_disjoint(
    train: xr.Dataset | Batch,
    test: xr.Dataset | Batch,
    names: tuple[str, str] = ("training", "test"),
) -> None:
    """Raise if two data sets hold the same trajectory.

    Two samples are the same if they agree, to the last bit, wherever both are observed, in two
    points or more; one may be longer than the other.

    Arguments:
        train: The one data set.
        test: The other.
        names: What to call them.

    Raises:
        DataError: Naming the samples, and their runs.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> data = pendulum.simulator.sample(3, seed=0)
        >>> check_disjoint(data.isel(sample=[0, 1]), data.isel(sample=[2]))
    """
    seen, held = (to_batch(data).y.flatten(2).cpu().numpy() for data in (train, test))
    if seen.shape[2] != held.shape[2]:
        return
    twins = [(i, twin) for i, y in enumerate(held) if (twin := _twin(y, seen)) is not None]
    if twins:
        i, twin = twins[0]
        more = f" ({len(twins)} of {len(held)} are in them)" if len(held) > 1 else ""
        raise DataError(
            f"{_name(test, i)} of the {names[1]} data is {_name(train, twin)} of the {names[0]} "
            f"data{more}; take them apart with split_runs(data), or draw them apart with "
            "simulator.sample(n, seed=0, split='valid')."
        )


def _name(data: xr.Dataset | Batch, i: int) -> str:
    if isinstance(data, Batch) or "run" not in data.coords:
        return f"sample {i}"
    return f"sample {i} (run {data['run'].values.tolist()[i]!r})"


def _twin(y: NDArray, others: NDArray) -> int | None:
    """Return which of N trajectories a trajectory is, or None.

    Arguments:
        y: A trajectory, NaN where missing, with shape `(T, C)`.
        others: The N trajectories, with shape `(N, T', C)`.
    """
    alive = np.arange(len(others))
    common = np.zeros(len(others), dtype=int)
    for k in range(min(len(y), others.shape[1])):
        both = ~np.isnan(y[k]) & ~np.isnan(others[alive, k])
        alike = ((y[k] == others[alive, k]) | ~both).all(1)
        common[alive] += both.any(1)
        alive = alive[alike]
        if not alive.size:
            return None
    found = alive[common[alive] > 1]
    return int(found[0]) if found.size else None
