r"""Where members fail: the share of failures over the parameters.

The range of a parameter is cut into equal bins; in each the share is

.. math:: s = \frac{\#\{\text{failed}\}}{\#\{\text{members}\}},

NaN where there is no member. Failed is whoever is neither `ok` nor `retried`; members that are not
written yet do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from hybridgen.errors import DataError, ParameterError, nearest
from hybridgen.integrate import Status

__all__ = ["failure_map"]


def failure_map(
    data: xr.Dataset, names: Sequence[str] | None = None, *, bins: int = 20
) -> xr.Dataset:
    """Count members and failures over the parameters.

    Arguments:
        data: A data set with `status`, its parameters coordinates along `sample`.
        names: The two parameters of the map; None for those along which the share varies most.
        bins: How many bins a parameter's range is cut into.

    Returns:
        For each parameter `members_NAME` and `failed_NAME` along NAME, whose coordinate is the
        middle of the bins; where there are two parameters or more also `members` and `failed`
        over two of them.

    Raises:
        DataError: If there is no status or no parameter.
        ParameterError: If a name is misspelt.

    Example:
        >>> from hybridgen.simulators import pendulum
        >>> found = failure_map(pendulum.simulator.sample(50, seed=0), bins=4)
        >>> dict(found["failed"].sizes), int(found["members"].sum()), int(found["failed"].sum())
        ({'omega0': 4, 'alpha': 4}, 50, 0)
    """
    if "status" not in data:
        raise DataError("the data set has no status; give one that was simulated.")
    status = data["status"].values
    written = status != Status.not_written
    failed = ~np.isin(status, (Status.ok, Status.retried)) & written
    known = [
        str(k) for k, c in data.coords.items()
        if c.dims == ("sample",) and c.attrs.get("role") in ("z_e", "z_a")
    ]  # fmt: skip
    for name in names or ():
        if name not in known:
            raise ParameterError(f"no parameter {name!r}; {nearest(name, known)}")
    if not known or (names is not None and len(names) != 2):
        raise DataError(f"the parameters are {known}; a map needs two of them, or None.")
    values = {k: data[k].values for k in known}
    edges = {k: _edges(v[written], bins) for k, v in values.items()}
    out: dict[str, Any] = {}
    for k, v in values.items():
        for what, chosen in (("members", written), ("failed", failed)):
            out[f"{what}_{k}"] = (k, np.histogram(v[chosen], edges[k])[0])
    pair = list(names or _telling(out, known))
    if len(pair) == 2:
        for what, chosen in (("members", written), ("failed", failed)):
            first, second = (values[k][chosen] for k in pair)
            counts = np.histogram2d(first, second, bins=[edges[k] for k in pair])[0]
            out[what] = (pair, counts.astype(np.int64))
    coords = {
        k: (k, (e[1:] + e[:-1]) / 2, {"units": data[k].attrs.get("units", "1")})
        for k, e in edges.items()
    }
    return xr.Dataset(out, coords)


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1.0, bins + 1)


def _telling(out: dict[str, Any], known: Sequence[str]) -> list[str]:
    """Return the two parameters along which the share of failures varies most, in their order."""
    spread = {}
    for k in known:
        members, failed = out[f"members_{k}"][1], out[f"failed_{k}"][1]
        share = failed[members > 0] / members[members > 0]
        weight = members[members > 0] / max(1, members.sum())
        spread[k] = float((weight * (share - (weight * share).sum()) ** 2).sum())
    best = sorted(known, key=lambda k: -spread[k])[:2]
    return [k for k in known if k in best]
