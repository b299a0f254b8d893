r"""One training step through an integrator: forward and backward, in processor time and memory.

`mlp` is the hybrid pendulum: the expert without damping plus a network 2-64-64-2 with tanh, a
hundred trajectories of 50 times 0.1 s apart, the mean squared error and its gradient with respect
to the weights, in float32. The error of a contestant is that of its gradient, relative to one in
float64 at a tolerance of 1e-10,

.. math:: |g - g^{\mathrm{ref}}| / |g^{\mathrm{ref}}|,

and nobody chooses a knob.

`pendulum`, `rlc` and `reaction_diffusion` are an update of APHYNITY with a hundred trajectories,
by the roll-out objective and Adam, on the observed window and on all times, with the encoder of
the study of that name (`ood_pendulum`, ...) and its residual, or one of the published widths. Each
is measured in a process of its own, whose peak of resident memory is a figure.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median
from typing import Any, Literal

import torch
from hybridgen.experiments.benchmarking import (
    Row,
    Ruler,
    contest,
    in_turn,
    result_row,
)
from hybridgen.experiments.benchmarking_machine import peak_memory
from hybridgen.experiments.benchmarking_steps import entrants, make_step
from hybridgen.simulators import pendulum, reaction_diffusion, rlc

from hybridgen.config import config
from hybridgen.errors import ConfigError
from hybridgen.expert import ODEExpert
from hybridgen.integrate import repeated
from hybridgen.io import to_batch
from hybridgen.models import APHYNITY, Residual
from hybridgen.models.objectives import rollout
from hybridgen.rundir import RunDir
from hybridgen.simulator import Simulator
from hybridgen.threads import one_thread

__all__ = ["CONFIGS", "Config", "main", "update"]

NAME = "bench_training_step"
SIMULATORS: dict[str, Simulator] = {
    "pendulum": pendulum.simulator,
    "rlc": rlc.simulator,
    "reaction_diffusion": reaction_diffusion.simulator,
}
PUBLISHED: dict[str, Residual] = {
    "pendulum": Residual(hidden=(150, 150, 150), linear_in_z_a=False),
    "rlc": Residual(hidden=(200, 200, 200), linear_in_z_a=False),
    "reaction_diffusion": Residual(hidden=(16, 16), linear_in_z_a=False, kernel=3),
}
"""Residuals with the published widths (Robust Hybrid Learning With Expert Augmentation, Wehenkel
et al., 2022, arXiv:2202.03881)."""

Work = Literal["mlp", "pendulum", "rlc", "reaction_diffusion"]


@config
class Config:
    """Settings of the benchmark.

    Arguments:
        works: What is to be done.
        batch: How many trajectories a step.
        times: How many times a trajectory of `mlp` has.
        dt: The time between them, in s.
        hidden: Widths of the hidden layers of `mlp`.
        dtype: In which precision.
        contestants: Names of contestants of `mlp`, or libraries; all for none.
        whole: Of which studies the updates are done on all times too; for fields that takes tens
            of GB.
        rounds: How often everyone is measured.
        least_s: How long a measurement takes at least, in s.
        seed: The seed of the draw and of the weights.
        device: Where the tensors are; the studies' updates are measured on a CPU alone.
    """

    works: tuple[Work, ...] = ("mlp", "pendulum", "rlc", "reaction_diffusion")
    batch: int = 100
    times: int = 50
    dt: float = 0.1
    hidden: tuple[int, ...] = (64, 64)
    dtype: Literal["float32", "float64"] = "float32"
    contestants: tuple[str, ...] = ()
    whole: tuple[Work, ...] = ("pendulum", "rlc")
    rounds: int = 5
    least_s: float = 0.3
    seed: int = 0
    device: str = "cpu"


CONFIGS: dict[str, dict[str, Any]] = {
    "small": {
        "works": ("mlp", "pendulum"),
        "batch": 4,
        "times": 6,
        "hidden": (8,),
        "contestants": ("hybridgen eager", "torchdiffeq"),
        "whole": (),
        "rounds": 1,
        "least_s": 0.0,
    }
}


def main(cfg: Config, run: RunDir) -> list[Row]:
    """Run the benchmark."""
    works: dict[tuple[str, str], Callable[[], list[Row]]] = {}
    for work in cfg.works:
        if work == "mlp":
            works[work, cfg.dtype] = partial(_mlp, cfg)
        elif cfg.device == "cpu":
            works[work, "float32"] = partial(_study, cfg, work)
    return in_turn(run, works)


def _mlp(cfg: Config) -> list[Row]:
    """Return the rows of the hybrid pendulum."""
    step = make_step(cfg.batch, cfg.times, cfg.dt, cfg.hidden, cfg.seed)
    ruler = Ruler(cfg.rounds, cfg.least_s, cfg.device)
    who = entrants(step, cfg.dtype, cfg.device, cfg.contestants)
    return contest(who, ruler, math.inf, size=1, experiment=NAME, work="mlp", dtype=cfg.dtype)


def _study(cfg: Config, work: str) -> list[Row]:
    """Return the rows of the update of a study, each figure from a process of its own."""
    rows: list[Row] = []
    spawn = multiprocessing.get_context("spawn")
    for network in ("study", "published"):
        for whole in (False, True)[: 1 + (work in cfg.whole)]:
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                found = pool.submit(
                    update, work, network, whole, cfg.batch, cfg.rounds, cfg.seed
                ).result()
            same = {
                "experiment": NAME, "work": work, "dtype": "float32", "device": "cpu",
                "contestant": f"{network} network, {found['times']} times",
            }  # fmt: skip
            value = median(found["seconds"])
            base = rows[0] if rows else {**same, "value": value}
            rows.append(result_row(
                **same, metric="cpu_time", value=value, unit="s", low=min(found["seconds"]),
                high=max(found["seconds"]), ratio_to=base["contestant"],
                ratio=value / base["value"],
            ))  # fmt: skip
            rows.append(result_row(**same, metric="peak_memory", value=found["peak"], unit="GB"))
    return rows


def update(
    work: str, network: str, whole: bool, batch: int, rounds: int, seed: int
) -> dict[str, Any]:
    """Measure an update of APHYNITY by the roll-out objective, in this process.

    Arguments:
        work: The problem.
        network: `"study"` or `"published"`.
        whole: Whether all times are rolled out, or the observed window.
        batch: How many trajectories.
        rounds: How many updates are measured, after one that is not.
        seed: The seed of the draw and of the weights.

    Returns:
        `seconds`, processor time of each update; `peak`, the largest resident memory of this
        process in GB, or NaN where the system does not tell; `times`, how many were rolled out.
    """
    simulator = SIMULATORS[work]
    study = importlib.import_module(f"hybridgen.experiments.ood_{work}").Config()
    data = to_batch(simulator.sample(batch, seed=seed), simulator.expert).to(torch.float32)
    residual = study.residual if network == "study" else PUBLISHED[work]
    if not isinstance(simulator.expert, ODEExpert):
        raise ConfigError(f"the expert of {work} is no differential equation; give one that is.")
    model = APHYNITY(
        simulator.expert,
        residual=residual,
        z_a_dim=study.z_a_dim,
        encoder=study.encoder,
        seed=seed,
    )
    model.bind(data, None if whole else simulator.window)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False, fused=False)
    generator = torch.Generator().manual_seed(seed)
    seconds = []
    with one_thread(), repeated(1000):  # as a training lets the solver know
        for _ in range(rounds + 1):
            start = time.process_time()
            loss = rollout(model, data, 0, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.total.backward()
            optimiser.step()
            seconds.append(time.process_time() - start)
    return {"seconds": seconds[1:], "peak": peak_memory(), "times": int(model.window)}
