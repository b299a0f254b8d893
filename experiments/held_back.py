"""What is held back: the times after which nothing may be seen, and the runs kept aside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.errors import DataError
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch

__all__ = ["Split", "last_time", "observed_until"]

SHARE = 0.7
"""The share of the times that is seen where nothing else is asked for."""


def last_time(data: xr.Dataset, share: float = SHARE) -> float:
    """Return the time up to which lies a share of the observed times, those of all runs together.

    Arguments:
        data: The data set.
        share: The share, from 0 to 1.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> last_time(pendulum.simulator.sample(2, seed=0))
        14.0
    """
    t = np.sort(_times(data)[_seen(data)])
    return float(t[max(0, int(share * t.size) - 1)])


def observed_until(data: xr.Dataset, until: float) -> xr.Dataset:
    """Mask what comes after a time, and note how many points are left as `window`.

    Arguments:
        data: The data set; where samples have times of their own each is cut at its own point.
        until: The last time that may be seen.

    Raises:
        DataError: If a sample has fewer than two observed times up to then.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> data = observed_until(pendulum.simulator.sample(2, seed=0), 5.0)
        >>> data.attrs["window"], int(data.mask[0, :, 0].sum())
        (51, 51)
    """
    early = _times(data) <= until + 1e-9 * (1.0 + abs(until))
    used = early & _seen(data)
    if (used.sum(1) < 2).any():
        i = int((used.sum(1) < 2).argmax())
        raise DataError(
            f"{_run(data, i)} has {int(used[i].sum())} observed times up to {until:g}; two or "
            "more are needed, so give a later until, or leave the run out."
        )
    data = data.drop_vars("clean", errors="ignore")
    flags = xr.DataArray(early, dims=("sample", "time"))
    states = [k for k, v in data.data_vars.items() if k == "y" or v.attrs.get("role") == "state"]
    mask = _mask(data, len(states))
    cut = {k: data[k].where(flags).transpose(*data[k].dims) for k in states}
    seen = (mask & flags).transpose(*mask.dims).assign_attrs(long_name="true where observed")
    window = used.shape[1] - int(used[:, ::-1].argmax(1).min())
    return data.assign({**cut, "mask": seen}).assign_attrs(window=window, until=until)


def _times(data: xr.Dataset) -> NDArray[np.float64]:
    """Return the times of each sample, with shape `(B, T)`."""
    t = data["time" if "time" in data.coords else "t"].values
    return np.broadcast_to(t, (data.sizes["sample"], data.sizes["time"]))


def _seen(data: xr.Dataset) -> NDArray[np.bool_]:
    """Return at which times anything was observed, with shape `(B, T)`."""
    if "mask" not in data:
        return np.ones((data.sizes["sample"], data.sizes["time"]), dtype=bool)
    return data["mask"].any([d for d in data["mask"].dims if d not in ("sample", "time")]).values


def _mask(data: xr.Dataset, fields: int) -> xr.DataArray:
    """Return what was observed, with the dimensions (sample, time, state, *space)."""
    if "mask" in data:
        return data["mask"].astype(bool)
    dims = ("sample", "time", "state", *(d for d in ("z", "y", "x") if d in data.dims))
    shape = [data.sizes.get(d, fields) for d in dims]
    return xr.DataArray(np.ones(shape, dtype=bool), dims=dims)


def _run(data: xr.Dataset, i: int) -> str:
    if data.sizes["sample"] == 1:
        return "the run"
    return f"run {data['run'].values.tolist()[i]!r}" if "run" in data.coords else f"sample {i}"


@dataclass(frozen=True)
class Split:
    """What training sees, and what is kept from it.

    Arguments:
        expert: Whose states and inputs are read.
        train: Training runs, masked after `until`.
        valid: Validation runs, masked after `until`; None where there is a single run.
        whole: The runs that are scored with all of their times: those of `valid`, or of `train`.
        until: The last time that training sees.
    """

    expert: ODEExpert
    train: xr.Dataset
    valid: xr.Dataset | None
    whole: xr.Dataset
    until: float

    @classmethod
    def at(
        cls, expert: ODEExpert, train: xr.Dataset, valid: xr.Dataset | None, until: float
    ) -> Split:
        """Hold back what comes after a time.

        Arguments:
            expert: Whose states and inputs are read.
            train: Training runs.
            valid: Validation runs, or None.
            until: The last time that training sees.

        Raises:
            DataError: If a run has too little before that time, or none has anything after it.
        """
        whole = train if valid is None else valid
        seen = observed_until(train, until)
        aside = None if valid is None else observed_until(valid, until)
        # one window for all runs, since an encoder reads as many points of each
        window = max(d.attrs["window"] for d in (seen, aside) if d is not None)
        aside = None if aside is None else aside.assign_attrs(window=window)
        split = cls(expert, seen.assign_attrs(window=window), aside, whole, until)
        if not split.held.any():
            raise DataError(
                f"nothing is observed after {until:g} in the runs that are to be forecast, which "
                f"end at {float(_times(whole)[_seen(whole)].max()):g}; give an earlier until."
            )
        return split

    @property
    def window(self) -> int:
        """How many points training sees."""
        return int(self.train.attrs["window"])

    @property
    def distance(self) -> float:
        """How far after the window the last observed time is, in lengths of the window."""
        t, seen = _times(self.whole), _seen(self.whole)
        last, first = np.where(seen, t, -np.inf).max(1), t[:, 0]
        return float(((last - self.until) / (self.until - first)).mean().clip(0.0))

    @cached_property
    def train_batch(self) -> Batch:
        """What training sees, without labels."""
        return to_batch(self.train, self.expert, labels=False)

    @cached_property
    def valid_batch(self) -> Batch | None:
        """What validation sees, without labels; None where there is a single run."""
        if self.valid is None:
            return None
        return to_batch(self.valid, self.expert, labels=False)

    @cached_property
    def truth(self) -> Batch:
        """The runs that are scored, with all of their times."""
        return to_batch(self.whole, self.expert)

    @cached_property
    def given(self) -> Batch:
        """The same runs, masked after `until`: what is inferred from."""
        data = self.train if self.valid is None else self.valid
        return to_batch(data, self.expert, labels=False)

    @cached_property
    def held(self) -> Tensor:
        """What is held back of them: True with the shape of the states, `(B, T, C, *S)`."""
        seen = [b.y.isfinite() if b.mask is None else b.mask for b in (self.truth, self.given)]
        return seen[0] & ~seen[1]

    def earlier(self, share: float = SHARE) -> Split:
        """Return a split inside the window: its last times are held back instead.

        Arguments:
            share: The share of the window's times that is seen, from 0 to 1.
        """
        return Split.at(self.expert, self.train, self.valid, last_time(self.train, share))
