r"""Figures of a run: every function draws result rows or named arrays on axes that it is given.

The x axis of the main figure is the distance of a test set from the training support,

.. math:: d = \max_j \max(0,\; l_j - z_j,\; z_j - h_j) \,/\, (h_j - l_j),

the mean over its members, where :math:`[l_j, h_j]` is the training interval of the moved quantity
:math:`z_j`; 0 is in support and 1 is one training width outside.

matplotlib is imported inside the functions; pyplot and the global settings are left alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridgen.errors import DataError
from hybridgen.files import write_bytes_atomic
from hybridgen.naming import ABLATION, Row, colour, label, marker, ordered, row_name

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "error_against_shift", "failures", "figure", "parameters", "png", "residual_map", "rollouts",
    "save", "style", "training_curves",
]  # fmt: skip

_STYLE = {
    "font.size": 9.0, "axes.titlesize": 9.0, "axes.titlelocation": "left", "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#888888",
    "axes.linewidth": 0.7, "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6,
    "legend.frameon": False, "hatch.linewidth": 0.4, "text.parse_math": False,
}  # fmt: skip


def style() -> AbstractContextManager[None]:
    """Return a context with the house style; the global settings are as before after it."""
    from matplotlib import rc_context

    # matplotlib's stubs list every key as a literal, which a dict of ours cannot satisfy
    return rc_context(_STYLE)  # type: ignore[arg-type]


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of `width` by `height` inches on an Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    return FigureCanvasAgg(Figure(figsize=(width, height), layout="constrained")).figure


def png(fig: Figure, limit: int = 200_000) -> bytes:
    """Return the figure as PNG in 256 colours, as sharp as `limit` bytes allow.

    Raises:
        DataError: Even the coarsest is too large.
    """
    from PIL import Image

    for dpi in (200, 160, 130, 100, 75):
        raw, small = io.BytesIO(), io.BytesIO()
        fig.savefig(raw, format="png", dpi=dpi)
        picture = Image.open(raw).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        picture.save(small, "PNG", optimize=True)
        if small.tell() <= limit:
            return small.getvalue()
    given = f"the picture takes {small.tell()} bytes at {dpi} dpi"
    raise DataError(f"{given}; expected at most {limit}; draw fewer points or a smaller figure")


def save(fig: Figure, path: str | Path) -> Path:
    """Write the figure as PNG of at most 200 kB and return its path."""
    return write_bytes_atomic(path, png(fig))


def _with_unit(name: str, unit: str | None) -> str:
    words = {None: "unit not given", "": "dimensionless", "1": "dimensionless"}
    return f"{name} ({words.get(unit, unit)})"


def _named(data: xr.DataArray, key: str = "units") -> dict[str, Any]:
    """Return an attribute that is a JSON mapping by name, empty where it is absent."""
    return dict(json.loads(data.attrs.get(key, "{}")))


def _axis(at: xr.DataArray) -> str:
    return _with_unit(str(at.attrs.get("long_name", at.name)), at.attrs.get("units"))


def _span(values: np.ndarray, margin: float) -> tuple[float, float]:
    """Return the range of the finite values, wider by a margin on both sides."""
    seen = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    reach = margin * (seen.max() - seen.min()) or 1.0
    return float(seen.min() - reach), float(seen.max() + reach)


def _label_ends(ax: Axes, ends: Sequence[tuple[float, float, str]], gap: float = 0.07) -> None:
    """Name each curve at its right end, at (x, y), with the names kept `gap` apart."""
    to_axes = ax.transData + ax.transAxes.inverted()
    placed = sorted((float(to_axes.transform((x, y))[1]), x, y, name) for x, y, name in ends)
    heights = [max(0.0, height) for height, *_ in placed]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], 1.0 - gap * (len(heights) - 1 - i))
    for height, (_, x, y, name) in zip(heights, placed, strict=True):
        line = {"arrowstyle": "-", "color": colour(name), "lw": 0.6, "shrinkA": 1, "shrinkB": 2}
        ax.annotate(
            label(name), (x, y), (1.05, height), textcoords="axes fraction", va="center",
            color="#222222", fontsize=8.5, arrowprops=line,
        )  # fmt: skip


def _cut(ax: Axes, points: Sequence[tuple[float, float, str]]) -> float:
    """End the y axis well above the mean baseline, and write what lies beyond at the edge.

    A forecast that blows up can be wrong by any number of nats, and would press all other curves
    into one. Returns the end of the axis.
    """
    heights = [y for _, y, _ in points]
    top = max((y for _, y, name in points if name == "mean"), default=max(heights)) + 8.0
    beyond = [p for p in points if p[1] > top]
    if not beyond:
        return np.inf
    ax.set_ylim(min(heights) - 1.0, top)
    for x, y, name in beyond:
        ax.annotate(
            f"{y:.3g} ↑", (x, 1.0), (0, 2), xycoords=("data", "axes fraction"), ha="center",
            textcoords="offset points", va="bottom", fontsize=7.5, color=colour(name),
        )  # fmt: skip
    return top


def _lift(ax: Axes, points: Sequence[tuple[float, float, str]]) -> float:
    """End the y axis above a fit of the true model that is far below all learners.

    On data without noise it is as exact as the arithmetic. Returns the end of the axis.
    """
    to, back = ax.transScale.transform, ax.transScale.inverted().transform
    heights = [(to((x, y))[1], name == "true_model") for x, y, name in points]
    ours = [h for h, reference in heights if not reference]
    below = [h for h, reference in heights if reference]
    if not ours or not below or max(below) > min(ours) - 0.5 * (max(ours) - min(ours)):
        return -np.inf
    end = float(back((0.0, min(ours) - 0.2 * (max(ours) - min(ours))))[1])
    ax.set_ylim(bottom=end)
    x, y, name = max(p for p in points if p[2] == "true_model")
    ax.annotate(
        f"{y:.2g} ↓".replace("-", "−"), (x, 0.0), (0, 2), xycoords=("data", "axes fraction"),
        ha="center", textcoords="offset points", va="bottom", fontsize=7.5, color=colour(name),
    )  # fmt: skip
    return end


def _label_shifts(ax: Axes, distances: Mapping[str, float | None]) -> None:
    """Name the test sets under the x axis, and above it those without a distance."""
    at = sorted((d, label(s)) for s, d in distances.items() if d is not None)
    gaps = np.diff([d for d, _ in at])
    if len(at) <= 5 and (gaps > 0.13 * gaps.sum()).all():
        ax.set_xticks([d for d, _ in at], [f"{d:.2g}\n{name}" for d, name in at])
    ax.set_xlabel("distance from the training support (training widths)")
    absent = [s for s, d in distances.items() if d is None]
    if absent:
        ax.set_title(f"no distance, so not drawn: {', '.join(absent)}", color="#777777")


def error_against_shift(rows: Iterable[Row], metric: str, ax: Axes | None = None) -> Figure:
    """Draw a metric against the distance from the training support, one line a name.

    Bands are the intervals of the rows over seeds, faint lines single seeds, dashed lines the
    reference levels (mean baseline, fit of the true model), open diamonds published values. The
    test set `ood` is a whole shifted range: where its parts are there too, lines go through those.
    Learners of an ablation are left to the tables.

    Arguments:
        rows: Result rows of one problem.
        metric: The metric to draw; `relative_error` is drawn on a log scale.
        ax: Where to draw; None for a figure of its own.

    Returns:
        The figure.

    Raises:
        DataError: No row has the metric.

    Example:
        >>> row = dict(learner="mean", inference="none", shift="none", distance=0.0, unit="%",
        ...            parameter="mean", seed="mean", metric="relative_error", value=6.0, low=4.0,
        ...            high=8.0)
        >>> far = {**row, "shift": "far", "distance": 1.0, "value": 66.0}
        >>> ax = figure(4, 3).add_subplot()
        >>> _ = error_against_shift([row, far], "relative_error", ax)
        >>> ax.get_ylabel(), ax.get_yscale()
        ('relative error of the parameters (%)', 'log')
    """
    rows = [r for r in rows if (r["metric"], r["parameter"]) == (metric, "mean")]
    ours = [r for r in rows if r["learner"] not in ("published", *ABLATION)]
    if not ours:
        raise DataError(f"no row has metric {metric!r} over the parameters (parameter='mean')")
    fig = figure(7, 4) if ax is None else ax.figure.figure
    ax = fig.add_subplot() if ax is None else ax
    if metric == "relative_error":
        ax.set_yscale("log", nonpositive="clip", subs=(2, 5))
        for put in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
            put("{x:g}")
    at = {r["shift"]: r["distance"] for r in ours}
    points: list[tuple[float, float, str]] = []
    ends: list[tuple[float, float, str]] = []
    if set(at) - {"none", "ood"}:
        ours = [r for r in ours if r["shift"] != "ood"]
    for name in ordered(map(row_name, ours)):
        curve = _draw_curve(ax, [r for r in ours if row_name(r) == name], name)
        points += curve
        ends += curve[-1:]
    _draw_published(ax, [r for r in rows if r["learner"] == "published"], at)
    ax.set_ylabel(_with_unit(label(metric), ours[0]["unit"]))
    _label_shifts(ax, {r["shift"]: r["distance"] for r in ours})
    top = _cut(ax, points) if metric != "relative_error" else np.inf
    bottom = _lift(ax, points)
    _label_ends(ax, [(x, max(bottom, min(y, top)), name) for x, y, name in ends])
    return fig


def _draw_curve(ax: Axes, rows: list[Row], name: str) -> list[tuple[float, float, str]]:
    """Draw the curve of a name with its interval, single seeds faintly, and return its points."""
    seeds = sorted({r["seed"] for r in rows}, key=lambda seed: (seed != "mean", str(seed)))
    x, y, low, high = _curve(rows, seeds[0])
    shade, dashed = colour(name), name in ("mean", "true_model")
    shape = "" if dashed else marker(name)
    ax.plot(x, y, "--" if dashed else "-", color=shade, marker=shape, ms=5, label=label(name))
    ax.fill_between(x, low, high, color=shade, alpha=0.07 if dashed else 0.18, lw=0)
    for seed in seeds[1:] if len(seeds) > 2 and not dashed else ():
        ax.plot(*_curve(rows, seed)[:2], color=shade, lw=0.6, alpha=0.35)
    return [(float(a), float(b), name) for a, b in zip(x, y, strict=True)]


def _draw_published(ax: Axes, rows: Iterable[Row], distances: Mapping[str, float]) -> None:
    """Draw published values as open diamonds, each at the distance of our test set."""
    for r in rows:
        x, y, low, high = _curve([{**r, "distance": distances.get(r["shift"])}], r["seed"])
        shade = colour(r["variant"])
        ax.errorbar(x, y, [y - low, high - y], fmt="D", ms=6, lw=1, mfc="white", color=shade)


def _curve(rows: Iterable[Row], seed: object) -> np.ndarray:
    """Return distance, value, low and high of a seed by distance, with shape `(4, N)`."""
    known = [r for r in rows if r["seed"] == seed and None not in (r["distance"], r["value"])]
    known.sort(key=lambda r: r["distance"])
    columns = "distance", "value", "low", "high"
    curve = np.array([[r[c] for r in known] for c in columns], dtype=float)
    return np.where(np.isnan(curve), curve[1], curve)


def rollouts(data: xr.Dataset, fig: Figure, sample: int = 0) -> None:
    """Draw the observed and predicted states of one member, a row a shift, a column a state.

    Arguments:
        data: `predicted` (learner, shift, sample, time, state), `observed` without learner, with
            the attributes `units` (JSON, by state) and `window` (time of the last observed point).
        fig: Where to draw.
        sample: Which member of each test set.
    """
    observed, predicted = data["observed"], data["predicted"]
    units, times, window = _named(observed), data["time"].values, observed.attrs.get("window")
    shifts, states = data["shift"].values.tolist(), data["state"].values.tolist()
    axes = fig.subplots(len(shifts), len(states), squeeze=False, sharex=True)
    for (i, j), ax in np.ndenumerate(axes):
        at, failed = {"shift": i, "sample": sample, "state": j}, []
        for name in ordered(predicted["learner"].values.tolist()):
            path = predicted.isel(at).sel(learner=name).values
            dash = "--" if name.endswith(" refined") else "-"
            ax.plot(times, path, dash, color=colour(name), label=label(name))
            failed += [] if np.isfinite(path).all() else [label(name)]
        truth = observed.isel(at).values
        ax.plot(times, truth, ".", color="#222222", ms=3, label="observed", zorder=1)
        if window is not None:
            ax.axvspan(times[0], float(window), color="#f1f1f1", lw=0, zorder=0)
        words = ([label(shifts[i])] if j == 0 else []) + [f"failed: {name}" for name in failed]
        ax.set(ylim=_span(truth, 0.35), title=", ".join(words))
        ax.set_ylabel(_with_unit(states[j], units.get(states[j])))
        ax.set_xlabel(_axis(data["time"]) if i == len(shifts) - 1 else "")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=7)


def parameters(data: xr.Dataset, fig: Figure) -> None:
    """Draw inferred against true parameters, a row a parameter, a column a learner.

    The training support is shaded, members in support are grey. Values far outside the range of
    the true ones, and failed ones, are counted in the panel.

    Arguments:
        data: `inferred` (learner, shift, sample, parameter) and `true` without learner, with the
            attributes `units`, `train_low`, `train_high` (JSON, by parameter).
        fig: Where to draw.
    """
    true, inferred = data["true"], data["inferred"]
    units, low, high = (_named(true, key) for key in ("units", "train_low", "train_high"))
    names = data["parameter"].values.tolist()
    learners = ordered(data["learner"].values.tolist())
    inside = np.array([shift == "none" for shift in data["shift"].values.tolist()])
    axes = fig.subplots(len(names), len(learners), squeeze=False, sharex="row", sharey="row")
    for i, name in enumerate(names):
        x = true.sel(parameter=name).transpose("shift", "sample").values
        start, stop = _span(x, 0.3)
        for ax, learner in zip(axes[i], learners, strict=True):
            y = inferred.sel(parameter=name, learner=learner).transpose("shift", "sample").values
            for shade in (ax.axvspan, ax.axhspan) if name in low and name in high else ():
                shade(low[name], high[name], color="#f1f1f1", lw=0, zorder=0)
            ax.axline((start, start), slope=1, color="#888888", lw=0.8)
            ax.plot(x[inside], y[inside], ".", color="#9a9a9a", ms=3, ls="")
            ax.plot(x[~inside], y[~inside], ".", color=colour(learner), ms=4, ls="")
            counts = {"off scale": ((y < start) | (y > stop)).sum(), "failed": np.isnan(y).sum()}
            notes = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
            ax.text(0.04, 0.96, notes, transform=ax.transAxes, va="top", fontsize=8)
            ax.set(xlim=_span(x, 0.05), ylim=(start, stop), title="" if i else label(learner))
            ax.set_xlabel(_with_unit(f"true {name}", units.get(name)))
        axes[i, 0].set_ylabel(_with_unit(f"inferred {name}", units.get(name)))


def training_curves(history: Mapping[str, xr.Dataset], fig: Figure) -> None:
    """Draw every recorded quantity against the updates, a panel a learner, stages marked.

    Arguments:
        history: Data sets by learner, each variable with shape `(step,)` and NaN where it was not
            evaluated; the attribute `stages` is a JSON list of name, start and stop.
        fig: Where to draw.
    """
    looks = {"fit": ("-", "#aaaaaa"), "penalty": (":", "#777777"), "valid": ("--", "#222222")}
    rows = -(-len(history) // 3)
    for i, name in enumerate(ordered(history)):
        ax, data = fig.add_subplot(rows, min(3, len(history)), i + 1), history[name]
        for key, values in sorted(data.data_vars.items(), key=lambda item: str(item[0])):
            seen = values.dropna("step")
            own = ("-", colour(name)) if key == "loss" else ("-.", "#bbbbbb")
            dash, shade = looks.get(str(key), own)
            ax.plot(seen["step"], seen, dash, color=shade, lw=1.2, label=str(key))
        for stage in json.loads(data.attrs.get("stages", "[]")):
            ax.axvline(stage["start"], color="#bbbbbb", lw=0.7)
            ax.annotate(
                stage["name"], (stage["start"], 0.0), (3, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", va="bottom", fontsize=7.5, color="#777777",
            )  # fmt: skip
        if all(bool((v.dropna("step") > 0).all()) for v in data.values()):
            ax.set_yscale("log", subs=(2, 5))
            ax.yaxis.set_major_formatter("{x:g}")
            low, high = ax.get_ylim()
            ax.yaxis.set_minor_formatter("{x:g}" if high < 100.0 * low else "")
        unit = data.attrs.get("units", "")  # losses are in units of the training data
        ax.set(xlabel="updates", ylabel=_with_unit("loss", unit), title=label(name))
        ax.legend(fontsize=7.5, loc="best", handlelength=1.6)


def residual_map(data: xr.Dataset, fig: Figure) -> None:
    """Draw what `f_a` learnt over two state axes, beside the truth, veiled where no data lie.

    Arguments:
        data: `f_a` and optionally `truth` (output, axis1, axis0), `support` (axis1, axis0), the
            density of the training data with 0 where there are none. The attribute `units` of
            `f_a` is JSON, by output.
        fig: Where to draw.
    """
    words = {"f_a": "learnt", "truth": "missing from the expert"}
    panels = [key for key in words if key in data]
    support = data["support"].transpose("axis1", "axis0").values
    x, y = data["axis0"], data["axis1"]
    axes = fig.subplots(data.sizes["output"], len(panels), squeeze=False, sharex=True, sharey=True)
    for i, output in enumerate(data["output"].values.tolist()):
        fields = [data[k].isel(output=i).transpose("axis1", "axis0").values for k in panels]
        top = float(np.nanmax([np.where(support > 0, np.abs(f), 0.0) for f in fields])) or 1.0
        for ax, key, field in zip(axes[i], panels, fields, strict=True):
            mesh = ax.pcolormesh(x, y, field, cmap="RdBu_r", vmin=-top, vmax=top, rasterized=True)
            if (support <= 0).any():
                ax.contourf(x, y, support <= 0, [0.5, 1.5], colors=["#ffffffb0"], hatches=["////"])
            if support.max() > 0:
                ax.contour(x, y, support, [0.5 * support.max()], colors="#222222", linewidths=0.8)
            ax.set(title=f"{output}, {words[key]}", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
            ax.set_xlabel(_axis(x) if i == data.sizes["output"] - 1 else "")
            ax.grid(visible=False)
        axes[i, 0].set_ylabel(_axis(y))
        bar = fig.colorbar(mesh, ax=axes[i].tolist(), extend="both", shrink=0.9)
        bar.set_label(_with_unit(f"rate of {output}", _named(data["f_a"]).get(output)))


def failures(counts: Sequence[tuple[str, str, str, int]], total: int, ax: Axes) -> None:
    """Draw how many predictions of each learner and shift did not go smoothly, by reason.

    Arguments:
        counts: Learner, shift, reason and number.
        total: How many predictions each pair of learner and shift has.
        ax: Where to draw.
    """
    shades = ("#4d4d4d", "#a6611a", "#b8b8b8", "#dfc27d", "#018571", "#80cdc1", "#8e0152")
    bars = list(dict.fromkeys(c[:2] for c in counts))
    reasons = list(dict.fromkeys(c[2] for c in counts))
    widths = np.zeros((len(reasons), len(bars)))
    for learner, shift, reason, number in counts:
        widths[reasons.index(reason), bars.index((learner, shift))] = number
    for i, reason in enumerate(reasons):
        look = {"left": widths[:i].sum(axis=0), "color": shades[i % len(shades)], "label": reason}
        ax.barh(range(len(bars)), widths[i], height=0.6, **look)
    ax.set_yticks(range(len(bars)), [f"{label(n)}, {label(s)}" for n, s in bars])
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel(f"predictions (of {total} in each test set)")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
