"""What a study keeps beside its rows: the arrays from which the report draws."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from hybridgen import diagnostics, rng
from hybridgen.errors import DataError, UnsupportedError
from hybridgen.evaluation import Row
from hybridgen.expert import ODEExpert
from hybridgen.io import status_attrs, to_batch
from hybridgen.models import APHYNITY, HybridModel, Prediction
from hybridgen.simulator import Simulator
from hybridgen.train import History

__all__ = ["collect", "identification", "ode_experts", "residual_map", "shortened"]

_ROLLOUTS, _GRID = 4, 41


def identification(model: HybridModel, data: xr.Dataset, **columns: Any) -> list[dict[str, Any]]:
    """Return how far the residual could be confused with the expert, as two rows.

    `cosine_fa_expert` is the cosine between f_a and the span of df_e/dz_e on reflected states;
    `share_fa` is the share of the squared rate that f_a carries along the data, in percent.

    Arguments:
        model: The hybrid.
        data: Training trajectories.
        columns: Columns of the rows; `seed` also seeds the reflections.
    """
    if not isinstance(model, APHYNITY) or model.residual is None:
        return []
    generator = torch.Generator().manual_seed(rng.seed_of(int(columns["seed"]), "evidence"))
    found = diagnostics.identification(model, data, generator)
    figures = {"cosine_fa_expert": (found.cosine, "1"), "share_fa": (100.0 * found.share, "%")}
    columns = {"learner": model.learner, **columns}
    return [Row(metric=m, value=v, unit=u, **columns).asdict() for m, (v, u) in figures.items()]


def shortened(predicted: Prediction) -> Prediction:
    """Return a prediction that keeps the trajectories of the first few members alone."""
    return dataclasses.replace(predicted, y=predicted.y[:_ROLLOUTS].clone())


def collect(
    simulator: Simulator,
    histories: Mapping[str, History],
    predicted: Mapping[tuple[str, str], Prediction],
    tests: Mapping[str, xr.Dataset],
) -> dict[str, xr.Dataset]:
    """Return the groups of the diagnostics store.

    Arguments:
        simulator: The system.
        histories: Training histories of the learners.
        predicted: What was predicted, by (learner, shift); "aphynity+ refined" is one of them.
        tests: The test data by shift.

    Returns:
        `history/<learner>`, `parameters`, `rollouts` and `status`.
    """
    groups = {
        f"history/{name}": h.to_dataset().drop_vars(["stage", "skipped"])
        for name, h in histories.items()
    }
    groups["parameters"] = _parameters(simulator, predicted, tests)
    return groups | _predictions(simulator, predicted, tests)


def _predictions(
    simulator: Simulator,
    predicted: Mapping[tuple[str, str], Prediction],
    tests: Mapping[str, xr.Dataset],
) -> dict[str, xr.Dataset]:
    """Return the status of every prediction, and the trajectories of the first few."""
    learners = list(dict.fromkeys(name for name, _ in predicted))
    coords = {"learner": learners, "shift": list(tests)}
    dims = ("learner", "shift", "sample")
    status = [[predicted[n, s].status.cpu().numpy() for s in tests] for n in learners]
    y = [[_traces(predicted[n, s].y) for s in tests] for n in learners]
    observed = np.stack([_traces(to_batch(d, simulator.truth).y) for d in tests.values()])
    first = next(iter(tests.values()))
    attrs = {
        "units": json.dumps({s.name: s.unit for s in simulator.truth.states}),
        "window": float(first["time"][int(first.attrs["window"]) - 1]),
    }
    rollouts = {
        "predicted": ((*dims, "time", "state"), np.array(y)),
        "observed": ((*dims[1:], "time", "state"), observed, attrs),
    }
    axes = {"time": first["time"], "state": list(simulator.truth.state_names)}
    return {
        "status": xr.Dataset({"status": (dims, np.array(status), status_attrs())}, coords),
        "rollouts": xr.Dataset(rollouts, {**coords, **axes}),
    }


def _traces(y: Tensor) -> NDArray[np.floating]:
    """Return the first few trajectories, of fields those of their middle pixel."""
    some = y[:_ROLLOUTS]
    while some.ndim > 3:
        some = some[..., some.shape[-1] // 2]
    return some.cpu().numpy()


def _parameters(
    simulator: Simulator,
    predicted: Mapping[tuple[str, str], Prediction],
    tests: Mapping[str, xr.Dataset],
) -> xr.Dataset:
    """Return true and inferred parameters of the learners that have any."""
    names = simulator.expert.param_names
    truth = np.stack([np.stack([d[n].values for n in names], axis=-1) for d in tests.values()])
    inferred = {key: p.inferred for key, p in predicted.items()}
    learners = list(dict.fromkeys(n for (n, _), found in inferred.items() if found.z_e.numel()))
    found = [
        np.stack([inferred[name, s].z_e.detach().cpu().numpy() for s in tests])
        for name in learners
    ]
    attrs = {
        "units": json.dumps({p.name: p.unit for p in simulator.expert.params}),
        "train_low": json.dumps({n: simulator.support[n][0] for n in names}),
        "train_high": json.dumps({n: simulator.support[n][1] for n in names}),
    }
    dims = ("shift", "sample", "parameter")
    return xr.Dataset(
        {"inferred": (("learner", *dims), np.stack(found)), "true": (dims, truth, attrs)},
        {
            "learner": learners,
            "shift": list(tests),
            "parameter": list(names),
            "distance": (dims[:2], np.stack([d["distance"].values for d in tests.values()])),
        },
    )


@torch.no_grad()
def residual_map(simulator: Simulator, model: APHYNITY, train: xr.Dataset) -> xr.Dataset:
    """Return f_a over the plane of the first two states, beside what the expert really lacks.

    Both are taken for one training system, the one whose true `z_a` is nearest to the median, with
    inputs at their mean; of fields, for values that are the same everywhere in space.

    Arguments:
        simulator: The system.
        model: The hybrid.
        train: The training data.
    """
    batch = to_batch(train, simulator.expert).window(int(model.window))
    if batch.z_e is None or batch.z_a is None:
        raise DataError("a residual map needs training data whose true parameters are known.")
    member = _typical(batch.z_a)
    latents = model.encode(batch.to(model.state_sd)[member : member + 1])
    first, second = 0, min(1, len(simulator.truth.states) - 1)
    flat = batch.y.movedim(2, -1).flatten(0, -2).numpy()
    axes = [np.linspace(*_limits(flat[:, i]), _GRID) for i in (first, second)]
    grid = torch.from_numpy(np.stack(np.meshgrid(*axes), axis=-1))
    y = torch.from_numpy(flat.mean(0)).expand(*grid.shape[:2], -1).clone()
    y[..., first], y[..., second] = grid[..., 0], grid[..., 1]
    # the smallest field with neighbours
    wide: Any = (..., *(None,) * model.space)
    middle: Any = (..., *(1,) * model.space)
    flat_field = y[wide].expand(*y.shape, *(3,) * model.space)
    f_a = model.f_a(flat_field.to(model.state_sd), latents.z_a[0])[middle]
    z = torch.tensor([float(train[n][member]) for n in simulator.truth.param_names])
    t, u = torch.zeros(()), None if batch.u is None else batch.u.mean((0, 1)).to(y)
    truth, expert = ode_experts(simulator)
    whole = truth(t, flat_field, z.to(y).expand(*grid.shape[:2], -1), u)
    z_e = batch.z_e[member].to(y).expand(*grid.shape[:2], -1)
    lacking = (whole - expert(t, flat_field, z_e, u))[middle]
    edges = [np.append(a, 2 * a[-1] - a[-2]) - 0.5 * (a[1] - a[0]) for a in axes]
    support = np.histogram2d(flat[:, second], flat[:, first], bins=edges[::-1], density=True)[0]
    acts = [int(i) for i in model.residual.acts] if model.residual else []
    states = [simulator.truth.states[i] for i in acts]
    units = {s.name: f"{s.unit}/{simulator.time_unit}" for s in states}
    dims = ("output", "axis1", "axis0")
    described = [
        {"long_name": simulator.truth.states[i].name, "units": simulator.truth.states[i].unit}
        for i in (first, second)
    ]
    known = ", ".join(f"{n} = {float(train[n][member]):.3g}" for n in simulator.truth.param_names)
    return xr.Dataset(
        {
            "f_a": (dims, f_a[..., acts].movedim(-1, 0).numpy(), {"units": json.dumps(units)}),
            "truth": (dims, lacking[..., acts].movedim(-1, 0).numpy()),
            "support": (dims[1:], support),
        },
        {
            "output": [s.name for s in states],
            "axis0": ("axis0", axes[0], described[0]),
            "axis1": ("axis1", axes[1], described[1]),
        },
        {"note": f"for one training system with {known}"},
    )


def ode_experts(simulator: Simulator) -> tuple[ODEExpert, ODEExpert]:
    """Return truth and expert of a simulator of differential equations.

    Arguments:
        simulator: The system.

    Raises:
        UnsupportedError: If they are no differential equations.
    """
    truth, expert = simulator.truth, simulator.expert
    if not isinstance(truth, ODEExpert) or not isinstance(expert, ODEExpert):
        raise UnsupportedError(
            f"the study needs an ODEExpert, but {expert.name!r} is none; train a "
            "HybridVAE(expert, decoder='output') on simulator.sample(n, seed=0)."
        )
    return truth, expert


def _typical(z_a: Tensor) -> int:
    if z_a.shape[-1] == 0:
        return 0
    return int((z_a - z_a.median(0).values).abs().sum(-1).argmin())


def _limits(values: NDArray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.15 * (high - low)
    return low - margin, high + margin
