"""Figures of a fit to a user's data: what was observed, fitted and forecast.

As in `hybridgen.plots`, functions draw named arrays on figures that they are given.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridgen.naming import colour, label, ordered

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["forecasts"]


def forecasts(data: xr.Dataset, fig: Figure) -> None:
    """Draw data, fits and forecasts: a row a state, a column a run, the window shaded.

    A learner that was refined is drawn by its refined answer, with the 90 % band that the
    uncertainty of its parameters makes. A state that no data hold is drawn only of learners with
    an expert: to a network alone it means nothing.

    Arguments:
        data: `predicted`, `low`, `high` (learner, sample, time, state) at the times `t` (sample,
            time), and `observed` (sample, point, state) at the times `at`; attributes `until`,
            `units` (JSON, by state) and `time_units`.
        fig: Where to draw.
    """
    from matplotlib.ticker import MaxNLocator

    units, until = json.loads(data.attrs["units"]), float(data.attrs["until"])
    states = data["state"].values.tolist()
    names = _drawn(data)
    runs = data.sizes["sample"]
    axes = fig.subplots(len(states), runs, squeeze=False, sharex="col", sharey="row")
    for (i, j), ax in np.ndenumerate(axes):
        part = data.isel(sample=j, state=i)
        for name in _meant(data.isel(state=i), names):
            _draw_learner(ax, part.sel(learner=name), name)
        _draw_observed(ax, part, until)
        if j == 0:
            unit = units.get(states[i], "1")
            ax.set_ylabel(states[i] if unit in ("1", "") else f"{states[i]} ({unit})")
        if i == len(states) - 1:
            ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
            unit = data.attrs.get("time_units", "1")
            ax.set_xlabel("time" if unit == "1" else f"time ({unit})")
        if i == 0 and "run" in data.coords:
            ax.set_title(f"run {data['run'].values[j]}")
    for i in range(len(states)):
        low, high = _limits(data.isel(state=i), _meant(data.isel(state=i), names))
        axes[i, 0].set_ylim(low, high)
    keys = {
        k: h for ax in axes[:, 0] for h, k in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    fig.legend(keys.values(), keys.keys(), loc="outside upper center", ncols=6)


def _drawn(data: xr.Dataset) -> list[str]:
    """Return the names that are drawn: of a learner that was refined, the refined one."""
    names = data["learner"].values.tolist()
    return ordered(n for n in names if f"{n} refined" not in names)


def _meant(data: xr.Dataset, names: list[str]) -> list[str]:
    """Return the names whose state means anything: of one without data, only an expert's does."""
    seen = np.isfinite(data["observed"].values).any()
    return [n for n in names if seen or n != "network_only"]


def _draw_learner(ax: Axes, part: xr.Dataset, name: str) -> None:
    # one colour a learner: here its refined answer stands for it
    shade, t = colour(name.removesuffix(" refined")), part["t"].values
    width = 1.9 if name.startswith("aphynity") else 1.4
    ax.plot(t, part["predicted"].values, "-", color=shade, lw=width, label=label(name), zorder=3)
    if np.isfinite(part["low"].values).any():
        ax.fill_between(t, part["low"], part["high"], color=shade, alpha=0.16, lw=0, zorder=1)


def _draw_observed(ax: Axes, part: xr.Dataset, until: float) -> None:
    at, y = part["at"].values, part["observed"].values
    early = at <= until + 1e-9 * (1.0 + abs(until))
    look: dict[str, Any] = {"ls": "", "ms": 5.5, "color": "#222222", "zorder": 4}
    ax.plot(at[early], y[early], marker="o", label="observed", **look)
    ax.plot(at[~early], y[~early], marker="o", mfc="white", label="held back", **look)
    margin = 0.02 * (at.max() - at.min())
    times = np.concatenate([at[np.isfinite(y)], part["t"].values])
    start, stop = times.min() - margin, times.max() + margin
    ax.axvspan(start, until, color="#f3f3f3", lw=0, zorder=0)
    ax.axvline(until, color="#888888", lw=0.8, ls=(0, (4, 3)), zorder=2)
    ax.set_xlim(start, stop)


def _limits(data: xr.Dataset, names: list[str]) -> tuple[float, float]:
    """Return an axis that shows the data and the forecasts, but no forecast that blows up."""
    y = data["observed"].values
    lines = data["predicted"].sel(learner=names).values
    seen = y[np.isfinite(y)]
    if not seen.size:  # a state that no data hold
        seen = lines[np.isfinite(lines)]
        seen = np.quantile(seen, [0.02, 0.98]) if seen.size else np.zeros(1)
    reach = float(seen.max() - seen.min()) or 1.0
    inside = np.clip(lines[np.isfinite(lines)], seen.min() - 0.6 * reach, seen.max() + 0.6 * reach)
    every = np.concatenate([seen, inside])
    return float(every.min() - 0.06 * reach), float(every.max() + 0.06 * reach)
