r"""Evaluation: from predictions to rows.

`relative_error` is the mean over members of :math:`|\hat z - z| / |z|`, in percent.
`log_mse_summed` is the natural logarithm of the squared error summed over the state, averaged over
members and over the times from the last observed one on,

.. math:: \ln \frac{1}{B\,(T - T_1 + 1)}
          \sum_{b} \sum_{i \ge T_1} \sum_c (\hat y_{bic} - y_{bic})^2 ;

`log_mse` divides by the number of states first. A prediction that failed is never dropped: from
where it fails it scores as the signal mean of the training data, and `failed` counts it.

References:
    Robust Hybrid Learning With Expert Augmentation (Wehenkel et al., 2022), arXiv:2202.03881
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from hybridgen.batch import Batch
from hybridgen.errors import DataError
from hybridgen.io import to_batch
from hybridgen.models import HybridModel, Inferred, Prediction

__all__ = [
    "Row",
    "aggregate",
    "describe_test",
    "evaluate",
    "mean_baseline",
    "score",
    "squared_error",
]


@dataclass(frozen=True)
class Row:
    """One figure and all that tells it from others; the fields are the columns of results.json.

    Arguments:
        experiment: Name of the experiment.
        problem: Name of the system.
        variant: Which published form of it.
        learner: `mean, expert_only, network_only, aphynity, aphynity+`, or a reference level.
        inference: `amortised`, `refined` or `none`.
        split: `valid` (in support) or `ood`.
        shift: Name of the shift, `none` in support.
        distance: Mean distance from the training support, in training widths.
        parameter: Name of a parameter, or `mean`.
        metric: What the figure is.
        value: The figure.
        low: Lower end of its 90 % interval.
        high: Upper end of its 90 % interval.
        unit: Unit of the figure.
        seed: The seed, or `mean` over seeds.
        n_seeds: Over how many seeds.
    """

    experiment: str = ""
    problem: str = ""
    variant: str = "default"
    learner: str = ""
    inference: str = "amortised"
    split: str = "valid"
    shift: str = "none"
    distance: float | None = 0.0
    parameter: str = "mean"
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    seed: int | str = 0
    n_seeds: int = 1

    def asdict(self) -> dict[str, Any]:
        """Return the columns as JSON holds them: a figure that is not finite is None."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        for k in ("distance", "value", "low", "high"):
            v = out[k]
            out[k] = None if v is None or not math.isfinite(v) else round(float(v), 6)
        return out


def evaluate(
    model: HybridModel,
    data: xr.Dataset | Batch,
    *,
    inferred: Inferred | None = None,
    predicted: Prediction | None = None,
    learner: str | None = None,
    **columns: Any,
) -> list[dict[str, Any]]:
    """Score a learner on a test set.

    Arguments:
        model: A trained learner.
        data: Test trajectories; the window is given to the encoder, the rest is forecast.
        inferred: What to predict from, such as `refine(model, data)`; None for the encoder.
        predicted: What was predicted of them, where that is known already.
        learner: Name in the rows; None for the model's own.
        columns: Other columns of the rows, such as `experiment="mine"`.

    Returns:
        Rows: `relative_error` for each parameter and their mean where the true parameters are
        known, `log_mse_summed`, `log_mse` and `failed`.

    Example:
        >>> from hybridgen import APHYNITY
        >>> from hybridgen.simulators import pendulum
        >>> test = pendulum.simulator.sample(5, seed=0, split="test", shift="far")
        >>> model = APHYNITY(pendulum.expert)
        >>> model.bind(to_batch(test).to(torch.float32), window=50)
        >>> sorted({row["metric"] for row in evaluate(model, test)})
        ['failed', 'log_mse', 'log_mse_summed', 'relative_error', 'relative_error_median']
    """
    batch = to_batch(data, model.expert)
    if predicted is None:
        predicted = model.predict(None, batch.t, given=inferred or model.infer(batch))
    attrs = data.attrs if isinstance(data, xr.Dataset) else {}
    names = model.expert.param_names if model.expert else ()
    columns = {**describe_test(batch, attrs), "learner": learner or model.learner, **columns}
    return score(predicted, batch, int(model.window), model.state_mean, names, **columns)


def describe_test(batch: Batch, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that a test set itself determines."""
    shift = str(attrs.get("shift", "none"))
    return {
        "problem": str(attrs.get("problem", "")),
        "variant": str(attrs.get("variant", "default")),
        "shift": shift,
        "split": "valid" if shift == "none" else "ood",
        "distance": 0.0 if batch.distance is None else float(batch.distance.mean()),
    }


def score(
    predicted: Prediction,
    batch: Batch,
    window: int,
    fallback: Tensor,
    params: Sequence[str] = (),
    **columns: Any,
) -> list[dict[str, Any]]:
    """Turn a prediction into rows.

    Arguments:
        predicted: The prediction.
        batch: The test trajectories.
        window: How many points were observed.
        fallback: Signal mean that stands in where a prediction failed, with shape `(C,)`.
        params: Names of the P parameters.
        columns: Other columns of the rows.
    """
    failed = ~predicted.y.isfinite().flatten(1).all(1)
    summed, size = squared_error(predicted.y, batch, window, fallback)
    columns = {"inference": predicted.inferred.inference, **columns}
    rows = [
        _row("log_mse_summed", _log, summed, "nat", columns),
        _row("log_mse", _log, summed / size, "nat", columns),
        Row(metric="failed", value=float(failed.sum()), unit="1", **columns).asdict(),
    ]
    if batch.z_e is not None and params:
        truth = batch.z_e.to(predicted.inferred.z_e).double()
        relative = 100.0 * ((predicted.inferred.z_e - truth) / truth).abs().cpu().numpy()
        known = [i for i in range(len(params)) if np.isfinite(relative[:, i]).all()]
        if not known:
            return rows
        named = [(params[i], relative[:, i]) for i in known]
        relative = relative[:, known]
        for name, column in [*named, ("mean", relative.mean(1))]:
            rows.append(_row("relative_error", None, column, "%", {**columns, "parameter": name}))
        median = _row(
            "relative_error_median", None, np.median(relative.mean(1))[None], "%", columns
        )
        rows.append(median)
    return rows


def squared_error(
    y: Tensor, batch: Batch, window: int, fallback: Tensor
) -> tuple[NDArray[np.float64], int]:
    """Return the squared error of a forecast, summed over the state.

    Arguments:
        y: Predicted trajectories, with shape `(B, T, C, *S)`.
        batch: The test trajectories; times at which nothing was observed do not count.
        window: How many points were observed; scores start at the last of them.
        fallback: What stands in where a prediction is not finite, with shape `(C, *1)`.

    Returns:
        Means over time in squared state units, with shape `(B',)`, without members of which
        nothing was observed; and how many values a state has.
    """
    axes = tuple(range(2, y.ndim))
    filled = torch.where(y.isfinite().all(axes, keepdim=True), y, fallback.to(y))
    error = (filled - batch.y.to(y))[:, window - 1 :].double().pow(2)
    size = y[0, 0].numel()
    if batch.mask is None:
        return error.sum(axes).mean(1).cpu().numpy(), size
    mask = batch.mask[:, window - 1 :]
    summed = torch.where(mask, error, 0.0).sum(axes)
    times = mask.flatten(2).any(-1).sum(1)
    members = times > 0
    return (summed.sum(1)[members] / times[members]).cpu().numpy(), size


def _log(x: float) -> float:
    """Return the natural logarithm; that of a perfect forecast is minus infinity."""
    return math.log(x) if x > 0 else -math.inf


def _row(
    metric: str, transform: Any, members: NDArray[np.float64], unit: str, columns: dict[str, Any]
) -> dict[str, Any]:
    """Return a row with the mean over members and a bootstrap interval."""
    low, high = _bootstrap(members)
    values = [float(members.mean()), low, high]
    if transform is not None:
        values = [transform(v) for v in values]
    value, low, high = values
    return Row(metric=metric, value=value, low=low, high=high, unit=unit, **columns).asdict()


def _bootstrap(members: NDArray[np.float64], draws: int = 400) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    index = generator.integers(len(members), size=(draws, len(members)))
    means = members[index].mean(1)
    return float(np.quantile(means, 0.05)), float(np.quantile(means, 0.95))


def mean_baseline(
    train: xr.Dataset | Batch, data: xr.Dataset | Batch, window: int, **columns: Any
) -> list[dict[str, Any]]:
    """Score the mean of the training signals, state by state, as a forecast.

    Arguments:
        train: The training trajectories.
        data: The test trajectories.
        window: How many points are observed.
        columns: Other columns of the rows.
    """
    batch = to_batch(data)
    seen = to_batch(train).y
    mean = seen.nanmean((0, 1, *range(3, seen.ndim)), keepdim=True)[0, 0]
    y = mean.expand_as(batch.y).clone()
    zero = batch.y.new_zeros(len(batch), 0)
    inferred = Inferred(zero, zero, batch.x, inference="none")
    status = torch.zeros(len(batch), dtype=torch.int8)
    predicted = Prediction(y, status, batch.t[..., -1].expand(len(batch)), inferred)
    attrs = data.attrs if isinstance(data, xr.Dataset) else {}
    columns = {**describe_test(batch, attrs), "learner": "mean", **columns}
    return score(predicted, batch, window, mean, **columns)


def aggregate(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of every figure, with the range over seeds as its interval.

    With one seed the interval stays that of the seed, a bootstrap over members.

    Arguments:
        rows: Rows of single seeds.

    Returns:
        One row with `seed="mean"` for each figure.

    Raises:
        DataError: If a seed occurs twice for one figure.

    Example:
        >>> rows = [Row(metric="m", value=v, seed=s).asdict() for s, v in enumerate((1.0, 3.0))]
        >>> [(r["value"], r["low"], r["high"], r["n_seeds"]) for r in aggregate(rows)]
        [(2.0, 1.0, 3.0, 2)]
    """
    numbers = ("value", "low", "high", "distance", "seed", "n_seeds")
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = tuple((k, v) for k, v in row.items() if k not in numbers)
        groups.setdefault(key, []).append(row)
    out = []
    for key, members in groups.items():
        seeds = [m["seed"] for m in members]
        if len(set(seeds)) < len(seeds):
            raise DataError(f"seed {seeds[0]} occurs twice for {dict(key)}")
        values = [m["value"] for m in members if m["value"] is not None]
        low, high = members[0]["low"], members[0]["high"]
        if len(members) > 1 and values:
            low, high = min(values), max(values)
        distances = [m["distance"] for m in members if m["distance"] is not None]
        mean = Row(
            **dict(key),
            value=float(np.mean(values)) if values else None,
            low=low,
            high=high,
            distance=float(np.mean(distances)) if distances else None,
            seed="mean",
            n_seeds=len(members),
        )
        out.append(mean.asdict())
    return out
