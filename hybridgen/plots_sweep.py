"""Figures of a sweep: where in parameter space members fail.

As in `hybridgen.plots`, functions draw named arrays on figures that they are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["failure_shares"]

_COLOUR = "#b3432b"


def failure_shares(data: xr.Dataset, fig: Figure) -> None:
    """Draw the share of failed members over two parameters, and over each parameter.

    Bins without a member are left blank in the map.

    Arguments:
        data: Counts as `hybridgen.sweeping.failure_map` returns them.
        fig: Where to draw.
    """
    names = [str(k).removeprefix("members_") for k in data.data_vars if "members_" in str(k)]
    grid = fig.add_gridspec(1, 2, width_ratios=[1.4, 1.0]) if "members" in data else None
    if grid is not None:
        _draw_map(data, fig.add_subplot(grid[0, 0]))
    cell = fig.add_gridspec(1, 1)[0, 0] if grid is None else grid[0, 1]
    rows = cell.subgridspec(len(names), 1)
    top = max(float(np.nanmax(_share(data, f"_{k}"))) for k in names)
    for i, name in enumerate(names):
        _draw_bars(data, name, fig.add_subplot(rows[i, 0]), top)


def _share(data: xr.Dataset, suffix: str) -> np.ndarray:
    """Return failed over members, NaN where there is no member, with the shape of the counts."""
    members = data[f"members{suffix}"].values
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(members > 0, data[f"failed{suffix}"].values / members, np.nan)


def _draw_map(data: xr.Dataset, ax: Axes) -> None:
    first, second = (str(d) for d in data["members"].dims)
    share = 100.0 * _share(data, "")
    x, y = data[first].values, data[second].values
    drawn = ax.pcolormesh(x, y, share.T, cmap="OrRd", vmin=0.0, vmax=max(1.0, np.nanmax(share)))
    ax.grid(False)
    ax.figure.colorbar(drawn, ax=ax, label="failed (%)")
    ax.set_xlabel(_named(data, first))
    ax.set_ylabel(_named(data, second))
    members, failed = int(data["members"].sum()), int(data["failed"].sum())
    ax.set_title(f"{failed:,} of {members:,} members failed")


def _draw_bars(data: xr.Dataset, name: str, ax: Axes, top: float) -> None:
    x = data[name].values
    ax.bar(x, 100.0 * _share(data, f"_{name}"), width=0.9 * (x[1] - x[0]), color=_COLOUR)
    ax.set_ylim(0.0, 105.0 * top if top > 0 else 1.0)
    ax.set_xlabel(_named(data, name))
    ax.set_ylabel("failed (%)")


def _named(data: xr.Dataset, name: str) -> str:
    unit = data[name].attrs.get("units", "1")
    return name if unit == "1" else f"{name} ({unit})"
