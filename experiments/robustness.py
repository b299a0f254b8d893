"""Out-of-distribution robustness of any simulator: train inside the support, test outside it.

This is the study that the other experiments configure. For each seed it trains

* `expert_only`: the expert with the encoder, no residual;
* `network_only`: a neural ODE with the same encoder;
* `aphynity`: the hybrid, whose encoder then gets, with its decoder frozen, as many further updates
  on real data as its augmented form gets on simulated data;
* `aphynity+`: the same hybrid after expert augmentation;

and tests them, with the signal mean and a least-squares fit of the true model as reference, in
support and under each shift. Every choice is made on validation data of the training support.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from hybridgen.experiments import evidence

from hybridgen import rng
from hybridgen.augmentation import expert_augment
from hybridgen.checkpoint import save_model
from hybridgen.config import config
from hybridgen.evaluation import (
    Row,
    aggregate,
    describe_test,
    evaluate,
    mean_baseline,
    score,
)
from hybridgen.files import write_text_atomic
from hybridgen.io import to_batch, write_store
from hybridgen.models import APHYNITY, HybridModel, Inferred, NeuralODE, Residual
from hybridgen.progress import Progress, bar
from hybridgen.refinement import refine
from hybridgen.rundir import RunDir
from hybridgen.simulator import Simulator
from hybridgen.train import FitConfig, History, Stage, fit

__all__ = ["SMALL", "Config", "run_study"]


SMALL: dict[str, Any] = {
    "train": 60,
    "valid": 20,
    "test": 20,
    "shifts": ("near", "far"),
    "stages": ({"steps": 20, "batch_size": 20},),
    "supervised": {"objective": "supervised", "steps": 20, "batch_size": 20, "pool": 50},
}
"""A configuration that runs through every part of a study in seconds."""


@config
class Config:
    """Settings of a robustness study.

    Arguments:
        seeds: One training set, test sets and initial weights for each.
        train: Training trajectories.
        valid: Validation trajectories.
        test: Test trajectories, in support and under each shift.
        shifts: Names of the shifts.
        residual: Settings of the residual.
        stages: Training of the learners on data.
        supervised: Training of the encoder on augmented trajectories; the plain form gets as many
            updates of its encoder on data.
        spread: How much wider than its encodings `z_a` is drawn.
        refined: Whether to refine the answers of `aphynity+`, and to fit the true model.
        device: Where to train.
        workers: How many seeds are run at once, each in a process of its own.
    """

    seeds: tuple[int, ...] = (0,)
    train: int = 1000
    valid: int = 300
    test: int = 1000
    shifts: tuple[str, ...] = ("near", "mid", "far")
    residual: Residual = Residual()
    stages: tuple[Stage, ...] = (Stage(),)
    supervised: Stage = Stage(objective="supervised", steps=3000, learning_rate=2e-3)
    spread: float = 1.3
    refined: bool = True
    device: str = "cpu"
    workers: int = 2


def run_study(simulator: Simulator, cfg: Config, run: RunDir, name: str) -> list[dict[str, Any]]:
    """Run the study and write rows, models and diagnostics into the run directory.

    Arguments:
        simulator: The system.
        cfg: The settings.
        run: The run directory; seeds that are finished in it are not run again.
        name: The name of the experiment in the rows.

    Returns:
        The rows of every seed and their means over seeds.
    """
    todo = [s for s in cfg.seeds if not _finished(run.path, s).is_file()]
    work = functools.partial(_run_seed, simulator, cfg, run.path, name)
    if min(cfg.workers, len(todo)) > 1:
        # fresh processes with one thread each: threads would fight over the cores
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(cfg.workers, len(todo)), mp_context=context) as pool:
            for _ in pool.map(work, todo):
                pass
    else:
        for seed in todo:
            work(seed)
    rows = [r for s in cfg.seeds for r in json.loads(_finished(run.path, s).read_text())]
    return [*rows, *aggregate(rows)]


def _while_parent_lives() -> Callable[[Progress], None]:
    """Return a listener that ends a worker whose study was killed, lest two write one run."""
    parent = os.getppid()

    def tell(_: Progress) -> None:
        if os.getppid() != parent:
            # an exception would only send the worker back to a queue that nobody fills
            os._exit(1)

    return tell


def _finished(path: Path, seed: int) -> Path:
    return path / f"seed-{seed}" / "rows.json"


def _run_seed(simulator: Simulator, cfg: Config, path: Path, name: str, seed: int) -> None:
    rows = _Seed(simulator, cfg, path, name, seed).run()
    write_text_atomic(_finished(path, seed), json.dumps(rows))


class _Seed:
    """One seed of a study."""

    def __init__(
        self, simulator: Simulator, cfg: Config, path: Path, name: str, seed: int
    ) -> None:
        self.simulator, self.cfg, self.seed = simulator, cfg, seed
        self.folder = path / f"seed-{seed}"
        self.columns: dict[str, Any] = {
            "experiment": name,
            "problem": simulator.truth.name,
            "variant": simulator.variant,
            "seed": seed,
        }
        self.train = simulator.sample(cfg.train, seed=seed, split="train")
        self.valid = simulator.sample(cfg.valid, seed=seed, split="valid")
        self.tests = {
            s or "none": simulator.sample(cfg.test, seed=seed, split="test", shift=s)
            for s in (None, *cfg.shifts)
        }
        self.window = int(self.train.attrs["window"])
        self.models: dict[str, HybridModel] = {}
        self.histories: dict[str, History] = {}
        self.inferred: dict[tuple[str, str], Inferred] = {}
        self.cost: dict[str, tuple[int, float]] = {}
        self.rows: list[dict[str, Any]] = []

    def run(self) -> list[dict[str, Any]]:
        """Train, test and write."""
        self._train_all()
        self._costs()
        for name, model in self.models.items():
            save_model(self.folder / "models" / name, model)
        for shift, data in self.tests.items():
            self._test(shift, data)
        self.rows += evidence.identification(self.models["aphynity"], self.train, **self.columns)
        if self.seed == self.cfg.seeds[0]:
            groups = evidence.collect(
                self.simulator, self.models, self.histories, self.inferred, self.train, self.tests
            )
            write_store(self.folder.parent / "diagnostics.zarr", groups, overwrite=True)
        return self.rows

    # -- training -----------------------------------------------------------------------------

    def _train_all(self) -> None:
        cfg, expert = self.cfg, self.simulator.expert
        seed = rng.seed_of(self.seed, "weights")
        hybrid = APHYNITY(expert, residual=cfg.residual, seed=seed)
        alone = APHYNITY(expert, residual=None, seed=seed)
        network = NeuralODE(
            expert.states, z_dim=len(expert.params) + 1, hidden=cfg.residual.hidden, seed=seed
        )
        stages, more = cfg.stages, self._further()
        self._fit("expert_only", alone, self.train, (*stages, more))
        every = dataclasses.replace(more, trains="all")
        self._fit("network_only", network, self.train, (*stages, every))
        base = self._fit("base", hybrid, self.train, stages)
        self._fit("aphynity", base, self.train, (more,))
        augmenter = expert_augment(base, self.train, spread=cfg.spread)
        self._fit("aphynity+", base, augmenter, (cfg.supervised,))
        del self.models["base"]
        before = self.histories.pop("base")
        for name in ("aphynity", "aphynity+"):
            self.histories[name] = before.then(self.histories[name])

    def _further(self) -> Stage:
        """Return the stage that gives the plain form its equal number of encoder updates."""
        last, supervised = self.cfg.stages[-1], self.cfg.supervised
        return dataclasses.replace(
            last,
            trains="encoder",
            steps=supervised.steps,
            batch_size=supervised.batch_size,
            learning_rate=last.learning_rate / 3,
        )

    def _fit(
        self, name: str, model: HybridModel, data: Any, stages: tuple[Stage, ...]
    ) -> HybridModel:
        start = time.perf_counter()
        checkpoint = self.folder / "checkpoints" / name
        shown = _while_parent_lives() if multiprocessing.parent_process() else None
        with bar(shown, f"seed {self.seed}: {name}") as tell:
            trained, history = fit(
                model.to(self.cfg.device),
                data,
                self.valid,
                FitConfig(stages=stages, seed=self.seed),
                checkpoint=checkpoint,
                resume=checkpoint.is_dir(),
                progress=tell,
            )
        self.models[name], self.histories[name] = trained, history
        self.cost[name] = sum(s.steps for s in stages), time.perf_counter() - start
        return trained

    def _costs(self) -> None:
        """Note updates and training time of every learner, those before augmentation included."""
        before = self.cost.pop("base")
        for name, (updates, seconds) in self.cost.items():
            if name in ("aphynity", "aphynity+"):
                updates, seconds = updates + before[0], seconds + before[1]
            figures = {"updates": (float(updates), "1"), "training_time": (seconds, "s")}
            self.rows += [
                Row(learner=name, metric=m, value=v, unit=u, **self.columns).asdict()
                for m, (v, u) in figures.items()
            ]

    # -- tests --------------------------------------------------------------------------------

    def _test(self, shift: str, data: xr.Dataset) -> None:
        self.rows += mean_baseline(self.train, data, self.window, **self.columns)
        for name, model in self.models.items():
            inferred = model.infer(to_batch(data))
            self._score(name, shift, data, inferred)
        if self.cfg.refined:
            refined = refine(self.models["aphynity+"], data)
            self._score("aphynity+", shift, data, refined)
            self._true_model(shift, data)

    def _score(self, name: str, shift: str, data: xr.Dataset, inferred: Inferred) -> None:
        self.inferred[name if inferred.inference == "amortised" else f"{name} refined", shift] = (
            inferred
        )
        self.rows += evaluate(
            self.models[name], data, inferred=inferred, learner=name, **self.columns
        )

    def _true_model(self, shift: str, data: xr.Dataset) -> None:
        """Score a least-squares fit of the whole truth, started at the true parameters."""
        sim = self.simulator
        batch = to_batch(data, sim.truth).to(torch.float64)
        model = APHYNITY(sim.truth, residual=None).to(torch.float64)
        model.bind(batch, self.window)
        none = batch.y.new_zeros(len(batch), 0)
        known = torch.stack([torch.as_tensor(data[n].values) for n in sim.truth.param_names], -1)
        fitted = refine(model, batch, start=Inferred(known, none, batch.x))
        predicted = model.predict(None, batch.t, given=fitted)
        shared = [sim.truth.param_names.index(n) for n in sim.expert.param_names]
        shown = dataclasses.replace(fitted, z_e=fitted.z_e[:, shared])
        predicted = dataclasses.replace(predicted, inferred=shown)
        batch = to_batch(data, sim.expert)
        columns = {**describe_test(batch, data.attrs), **self.columns, "learner": "true_model"}
        fallback = self.models["aphynity"].state_mean.double()
        self.rows += score(
            predicted, batch, self.window, fallback, sim.expert.param_names, **columns
        )
