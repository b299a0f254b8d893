r"""What a fit to a user's data shows: errors of the forecasts, parameters, and arrays to draw.

Errors are on the scale of the noise's link g (the logarithm for log-normal noise), over what is
held back of the runs b,

.. math:: \mathrm{rms}_c^2 = \frac{1}{N_c} \sum_{b, i} (g(\hat y_{bic}) - g(y_{bic}))^2, \qquad
          \mathrm{rms\_sd}^2 = \frac{1}{N} \sum_{b, i, c}
          \frac{(g(\hat y_{bic}) - g(y_{bic}))^2}{\mathrm{sd}_c^2},

:math:`\mathrm{sd}_c` the standard deviation of g(y) in the window. Intervals of errors are a
bootstrap over runs, where there are several; those of parameters are Laplace's, or of many systems
how they spread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from hybridgen.experiments.held_back import Split
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from hybridgen import rng
from hybridgen.batch import Batch
from hybridgen.diagnostics import identifiability, identification, misspecification
from hybridgen.diagnostics.fits import pick
from hybridgen.evaluation import Row, score
from hybridgen.models import APHYNITY, HybridModel, Inferred, Prediction
from hybridgen.refinement import Refined
from hybridgen.train import History

__all__ = ["constant", "error_rows", "estimate_rows", "groups", "identification_rows"]

Rows = list[dict[str, Any]]

Z90 = 1.6448536269514722
"""The half-width of a 90 % interval in standard deviations."""


def constant(split: Split) -> Prediction:
    """Return the mean of what training saw as a forecast, state by state."""
    seen, truth = split.train_batch.y, split.truth
    mean = seen.nanmean((0, 1, *range(3, seen.ndim)), keepdim=True)[0, 0].nan_to_num(0.0)
    y = mean.expand_as(truth.y).clone()
    none = y.new_zeros(len(y), 0)
    return Prediction(
        y,
        torch.zeros(len(y), dtype=torch.int8),
        truth.t[..., -1].expand(len(y)),
        Inferred(none, none, y[:, 0], inference="none"),
    )


def error_rows(predicted: Prediction, split: Split, model: HybridModel, **columns: Any) -> Rows:
    """Score a forecast on what is held back.

    Arguments:
        predicted: The forecast of `split.truth`.
        split: What is held back.
        model: Whose scales and noise are taken.
        columns: Other columns of the rows.

    Returns:
        Rows: what `hybridgen.evaluation.score` says of the held-back times; `rms_log` or `rms` for
        each state; and `rms_sd` over all of them.
    """
    held, truth = split.held, split.truth
    fallback = model.state_mean.cpu().double()
    y = predicted.y.detach().cpu().double()
    found = score(
        replace(predicted, y=y),
        truth.replace(mask=held),
        1,
        fallback,
        split.expert.param_names if predicted.inferred.z_e.numel() else (),
        **columns,
    )
    finite = y.isfinite().all(2, keepdim=True)
    y = torch.where(finite, y, fallback.expand_as(y))
    link = model.noise.link
    error = torch.where(held, link(y) - link(truth.y.double()), 0.0)
    columns = {"inference": predicted.inferred.inference, **columns}
    logarithmic = model.noise.name == "log-normal"
    for i, state in enumerate(split.expert.states):
        if held[:, :, i].any():
            value = _rms(error[:, :, i], held[:, :, i])
            unit = "1" if logarithmic else state.unit
            metric = "rms_log" if logarithmic else "rms"
            found.append(_row(value, parameter=state.name, metric=metric, unit=unit, **columns))
    value = _rms(error / model.link_sd.cpu().double(), held)
    found.append(_row(value, metric="rms_sd", unit="sd", **columns))
    if len(y) > 1:
        return found
    # of a single run there is no spread
    return [{**r, "low": None, "high": None} for r in found]


def _rms(error: Tensor, held: Tensor) -> tuple[float, float | None, float | None]:
    """Return the root mean square with its 90 % interval over runs, None for a single run."""
    squares = error.pow(2).flatten(1).sum(1).numpy()
    counts = held.flatten(1).sum(1).double().numpy()
    value = float(np.sqrt(squares.sum() / counts.sum()))
    if (counts > 0).sum() < 2:
        return value, None, None
    squares, counts = squares[counts > 0], counts[counts > 0]
    pick = np.random.default_rng(0).integers(len(counts), size=(400, len(counts)))
    means = np.sqrt(squares[pick].sum(1) / counts[pick].sum(1))
    return value, float(np.quantile(means, 0.05)), float(np.quantile(means, 0.95))


def _row(figures: tuple[float | None, ...], **columns: Any) -> dict[str, Any]:
    """Return the row of a value with its interval, to eight figures: units may be large or small.

    Arguments:
        figures: Value, low and high.
        columns: Other columns of the row.
    """
    names = ("value", "low", "high")
    plain = (None if v is None or not np.isfinite(v) else float(f"{v:.8g}") for v in figures)
    return {**Row(**columns).asdict(), **dict(zip(names, plain, strict=True))}


# -- parameters -----------------------------------------------------------------------------


def estimate_rows(model: HybridModel, inferred: Inferred, *, single: bool, **columns: Any) -> Rows:
    """Return what was inferred of each parameter that is not known.

    Arguments:
        model: The learner.
        inferred: What was inferred of B runs, refined or not.
        single: Whether all runs are of one system; their refined answers are then combined,
            weighted by their information.
        columns: Other columns of the rows.

    Returns:
        Rows with the metric `estimate` in the parameter's unit: of one system with its 90 %
        interval, of many their mean, and the interval that holds 90 % of them.
    """
    z = inferred.z_e[:, model.free].detach().cpu().double().numpy()
    columns = {"learner": model.learner, "inference": inferred.inference, **columns}
    low: NDArray | list[None]
    high: NDArray | list[None]
    value, low, high = z.mean(0), [None] * z.shape[1], [None] * z.shape[1]
    if single and isinstance(inferred, Refined):
        value, sd = _combined(z, inferred.covariance.detach().cpu().double().numpy())
        low, high = value - Z90 * sd, value + Z90 * sd
    elif not single:
        low, high = np.quantile(z, 0.05, axis=0), np.quantile(z, 0.95, axis=0)
    rows = []
    for k, i in enumerate(model.free):
        p = model.params[i]
        figures = value[k], low[k], high[k]
        rows.append(_row(figures, parameter=p.name, metric="estimate", unit=p.unit, **columns))
    return rows


def _combined(z: NDArray, covariance: NDArray) -> tuple[NDArray, NDArray]:
    """Return the mean of estimates `(B, P)` weighted by information, and its deviation `(P,)`."""
    p = z.shape[1]
    part = covariance[:, :p, :p]
    if len(z) == 1:
        return z[0], np.sqrt(part[0].diagonal())
    information = np.linalg.pinv(part, hermitian=True)
    total = np.linalg.pinv(information.sum(0), hermitian=True)
    return total @ (information @ z[..., None]).sum(0)[:, 0], np.sqrt(total.diagonal())


def identification_rows(model: HybridModel, train: Batch, seed: int, **columns: Any) -> Rows:
    """Return how far the residual of a hybrid could be confused with the expert, as two rows.

    Arguments:
        model: The hybrid.
        train: What training saw.
        seed: Seed of the states at which both are compared.
        columns: Other columns of the rows.
    """
    generator = torch.Generator().manual_seed(rng.seed_of(seed, "evidence"))
    found = identification(model, train, generator)
    figures = {"cosine_fa_expert": (found.cosine, "1"), "share_fa": (100.0 * found.share, "%")}
    return [
        Row(learner=model.learner, metric=m, value=v, unit=u, seed=seed, **columns).asdict()
        for m, (v, u) in figures.items()
    ]


# -- arrays to draw -------------------------------------------------------------------------

RUNS, POINTS, DRAWS, GRID = 3, 240, 100, 41


def groups(
    split: Split,
    models: Mapping[str, HybridModel],
    inferred: Mapping[str, Inferred],
    histories: Mapping[str, History],
    seed: int,
) -> dict[str, xr.Dataset]:
    """Return the groups of the diagnostics store.

    Arguments:
        split: What was held back.
        models: Trained learners by name.
        inferred: What was inferred of the scored runs, by name of the learner, with " refined"
            behind it where it was.
        histories: The training histories by learner.
        seed: Seed of the draws.

    Returns:
        `forecast`, `history/<learner>`, `identifiability/<learner>` and, for a hybrid of states
        without space, `residual`.
    """
    found = {
        f"history/{name}": h.to_dataset().drop_vars(["stage", "skipped"])
        for name, h in histories.items()
    }
    found |= {
        f"identifiability/{name}": _identifiability(model, split.given, inferred)
        for name, model in models.items()
        if model.free
    }
    if split.expert.space == 0:
        found["forecast"] = _forecast(split, models, inferred, seed)
        hybrid = models.get("aphynity")
        if isinstance(hybrid, APHYNITY) and len(split.expert.states) > 1:
            found["residual"] = residual_map(hybrid, split)
    return found


def _identifiability(
    model: HybridModel, data: Batch, inferred: Mapping[str, Inferred]
) -> xr.Dataset:
    """Return what the data say of each parameter, and whether the expert can be right."""
    refined = inferred.get(f"{model.learner} refined")
    found = identifiability(model, data, refined).parameters
    columns = ("kind", "unit", "verdict", "partner", "share", "sd", "wide", "correlation")
    texts = columns[:4]
    variables = {
        name: ("parameter", np.array([getattr(p, name) for p in found], object if name in texts
               else np.float64))
        for name in columns
    }  # fmt: skip
    attrs: dict[str, Any] = {}
    if model.learner == "expert_only":
        verdict = misspecification(model, data, refined)
        attrs = {
            "misspecified": int(verdict.misspecified),
            "p_value": verdict.p_value,
            "autocorrelation": float(verdict.autocorrelation.nanmedian()),
        }
    names = np.array([p.name for p in found], dtype=object)
    return xr.Dataset(variables, {"parameter": names}, attrs)


@torch.no_grad()
def _forecast(
    split: Split, models: Mapping[str, HybridModel], inferred: Mapping[str, Inferred], seed: int
) -> xr.Dataset:
    """Return the first runs as they were observed, and as every learner draws them through."""
    truth = split.truth[:RUNS]
    runs = len(truth)
    at = truth.t.double().expand(runs, -1)
    seen = truth.y.isfinite() if truth.mask is None else truth.mask
    last = torch.where(seen.any(2), at, -torch.inf).amax(1)
    share = torch.linspace(0, 1, POINTS, dtype=at.dtype)
    t = at[:, :1] + (last - at[:, 0])[:, None] * share
    y, low, high = [], [], []
    for name, found in inferred.items():
        model = models[name.removesuffix(" refined")]
        some = pick(found, torch.arange(runs, device=found.z_a.device))
        y.append(model.predict(None, t, given=some).y.cpu().double())
        band = _band(model, some, t, seed) if isinstance(some, Refined) else None
        nothing = torch.full_like(y[-1], torch.nan)
        low.append(nothing if band is None else band[0])
        high.append(nothing if band is None else band[1])
    units = json.dumps({s.name: s.unit for s in split.expert.states})
    observed = torch.where(seen, truth.y.double(), torch.nan)
    dims = ("learner", "sample", "time", "state")
    coords: dict[str, Any] = {
        "learner": list(inferred),
        "state": list(split.expert.state_names),
        "t": (dims[1:3], t.numpy()),
        "at": (("sample", "point"), at.numpy()),
    }
    if "run" in split.whole.coords:
        coords["run"] = ("sample", [str(r) for r in split.whole["run"].values[:runs].tolist()])
    held = split.held.flatten(2).any(2)
    name = "time" if "time" in split.whole.coords else "t"
    attrs = {
        "until": split.until,
        "units": units,
        "time_units": str(split.whole[name].attrs.get("units", "1")),
        "held_values": int(split.held.sum()),
        "held_runs": int(held.any(1).sum()),
        "source": str(split.whole.attrs.get("source", "")),
    }
    data = {
        "predicted": (dims, torch.stack(y).numpy()),
        "low": (dims, torch.stack(low).numpy()),
        "high": (dims, torch.stack(high).numpy()),
        "observed": (("sample", "point", "state"), observed.numpy()),
    }
    return xr.Dataset(data, coords, attrs)


def _band(model: HybridModel, refined: Refined, t: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return where 90 % of the trajectories lie whose parameters follow the Laplace covariance.

    Arguments:
        model: The learner.
        refined: What was inferred of B runs.
        t: Times, with shape `(B, T)`.
        seed: Seed of the draws.

    Returns:
        Lower and upper ends, each with shape `(B, T, C)`.
    """
    generator = torch.Generator().manual_seed(rng.seed_of(seed, "band"))
    free, latents = len(model.free), refined.z_a.shape[-1]
    low, high = model.box_low[model.free], model.box_high[model.free]
    ends = []
    for i in range(len(t)):
        one = pick(refined, torch.tensor([i], device=refined.z_a.device))
        mean = torch.cat([one.z_e[:, model.free], one.z_a, one.x0], dim=-1)
        size, root = torch.linalg.eigh(one.covariance[0])
        root = root * size.clamp_min(0.0).sqrt()
        noise = torch.randn(DRAWS, len(size), generator=generator).to(mean)
        drawn = mean + noise @ root.mT
        wide = pick(one, torch.zeros(DRAWS, dtype=torch.int64, device=mean.device))
        z_e = wide.z_e.clone()
        z_e[:, model.free] = drawn[:, :free].clamp(low, high)
        x0 = drawn[:, free + latents :]
        if model.noise.name == "log-normal":
            x0 = torch.where(x0 > 0, x0, one.x0)
        wide = replace(wide, z_e=z_e, z_a=drawn[:, free : free + latents], x0=x0)
        y = model.predict(None, t[i], given=wide).y.cpu().double()
        ends.append(torch.nanquantile(y, torch.tensor([0.05, 0.95], dtype=y.dtype), dim=0))
    both = torch.stack(ends, dim=1)
    return both[0], both[1]


@torch.no_grad()
def residual_map(model: APHYNITY, split: Split) -> xr.Dataset:
    """Return f_a over the plane of the first two states, and where the fitted runs lie.

    Arguments:
        model: The hybrid; where systems differ, that of the first training run.
        split: What training saw.
    """
    batch = split.train_batch.to(model.state_sd)[:GRID]
    found, seen = model.infer(batch), batch.window(split.window)
    t = seen.t.expand(len(seen), -1)
    share = torch.linspace(0, 1, POINTS).to(t)
    y = model.predict(None, t[:, :1] + (t[:, -1:] - t[:, :1]) * share, given=found).y
    flat = y.flatten(0, 1).cpu().double()
    flat = flat[flat.isfinite().all(1)]
    first, second = 0, 1
    axes = [_axis(flat[:, i].numpy()) for i in (first, second)]
    grid = torch.from_numpy(np.stack(np.meshgrid(*axes), axis=-1))
    states = flat.mean(0).expand(*grid.shape[:2], -1).clone()
    states[..., second], states[..., first] = grid[..., 1], grid[..., 0]
    f_a = model.f_a(states.to(model.state_sd), found.z_a[0]).cpu().double()
    edges = [np.append(a, 2 * a[-1] - a[-2]) - 0.5 * (a[1] - a[0]) for a in axes]
    counts = np.histogram2d(flat[:, second], flat[:, first], bins=edges[::-1])[0]
    acts = [i for i, acts in enumerate(split.expert.acts_on.tolist()) if acts]
    declared = split.expert.states
    name = "time" if "time" in split.whole.coords else "t"
    per = str(split.whole[name].attrs.get("units", "1"))
    units = {declared[i].name: f"{declared[i].unit}/{per}" for i in acts}
    dims = ("output", "axis1", "axis0")
    named = [{"long_name": declared[i].name, "units": declared[i].unit} for i in (first, second)]
    return xr.Dataset(
        {
            "f_a": (dims, f_a[..., acts].movedim(-1, 0).numpy(), {"units": json.dumps(units)}),
            "support": (dims[1:], _spread(counts)),
        },
        {
            "output": [declared[i].name for i in acts],
            "axis0": ("axis0", axes[0], named[0]),
            "axis1": ("axis1", axes[1], named[1]),
        },
    )


def _axis(values: NDArray) -> NDArray:
    low, high = float(values.min()), float(values.max())
    margin = 0.1 * (high - low)
    return np.linspace(low - margin, high + margin, GRID)


def _spread(counts: NDArray) -> NDArray:
    """Return counts as a density without holes: each is spread over its neighbourhood."""
    density = gaussian_filter(counts.astype(np.float64), GRID / 30, mode="constant")
    return np.where(density > 0.01 * density.max(), density, 0.0)
