"""Out-of-distribution robustness of any simulator: train inside the support, test outside it.

This is the study that the other experiments configure. For each seed it trains

* `expert_only`: the expert with the encoder, no residual;
* `network_only`: a neural ODE with the same encoder;
* `aphynity`: the hybrid, whose encoder then gets, with its decoder frozen, as many further updates
  on real data as its augmented form gets on simulated data;
* `aphynity+`: the same hybrid after expert augmentation;
* `hvae` and `hvae+`: the hybrid VAE in the same two forms; and, as an ablation, one with the
  general residual of the publications, with its three regularisers and without;

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
from hybridgen.io import to_batch
from hybridgen.models import (
    APHYNITY,
    Convolutional,
    HybridModel,
    HybridVAE,
    Inferred,
    NeuralODE,
    Prediction,
    Regularisers,
    Residual,
)
from hybridgen.naming import ABLATION
from hybridgen.progress import Progress, bar
from hybridgen.refinement import refine
from hybridgen.rundir import RunDir
from hybridgen.simulator import Simulator
from hybridgen.store import write_store
from hybridgen.train import FitConfig, History, Stage, fit

__all__ = ["HVAE_STAGES", "SMALL", "Config", "run_study"]


SMALL: dict[str, Any] = {
    "train": 60,
    "valid": 20,
    "test": 20,
    "shifts": ("far",),
    "stages": ({"steps": 20, "batch_size": 20},),
    "supervised": {"objective": "supervised", "steps": 20, "batch_size": 20, "pool": 50},
    "hvae_stages": (
        {"steps": 10, "batch_size": 20},
        {"objective": "elbo", "steps": 5, "batch_size": 20},
    ),
    "hvae_supervised": {"objective": "supervised", "steps": 20, "batch_size": 20, "pool": 50},
}
"""A configuration that runs through every part of a study in seconds."""

HVAE_STAGES = (
    Stage(),
    Stage(objective="elbo", steps=300, learning_rate=1e-3),
)
"""Training of a hybrid VAE where the weak form can be taken."""


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
        z_a_dim: How many augmentation latents there are.
        encoder: Settings of the encoder.
        stages: Training of the learners on data.
        supervised: Training of the encoder on augmented trajectories; the plain form gets as many
            updates of its encoder on data.
        regularisers: Weights of the penalties of the hybrid VAE.
        hvae_stages: Training of the hybrid VAE on data; empty leaves it out.
        hvae_supervised: Training of its encoder on augmented trajectories.
        ablation: Whether a hybrid VAE with the general residual of the publications is trained
            with and without regularisers as well.
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
    z_a_dim: int = 1
    encoder: Convolutional = Convolutional()
    stages: tuple[Stage, ...] = (Stage(),)
    supervised: Stage = Stage(objective="supervised", steps=3000, learning_rate=2e-3)
    regularisers: Regularisers = Regularisers()
    hvae_stages: tuple[Stage, ...] = ()
    hvae_supervised: Stage = Stage(objective="supervised", steps=3000, learning_rate=2e-3)
    ablation: bool = False
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


def _further(stages: tuple[Stage, ...], supervised: Stage) -> Stage:
    """Return the stage that gives a plain form its equal number of encoder updates.

    It is of the first kind, the cheapest, at a lower rate.
    """
    return dataclasses.replace(
        stages[0],
        trains="encoder",
        steps=supervised.steps,
        batch_size=supervised.batch_size,
        learning_rate=stages[0].learning_rate / 3,
    )


class _Seed:
    """One seed of a study."""

    def __init__(
        self, simulator: Simulator, cfg: Config, path: Path, name: str, seed: int
    ) -> None:
        self.simulator, self.cfg, self.seed = simulator, cfg, seed
        self.truth, self.expert = evidence.ode_experts(simulator)
        self.folder = path / f"seed-{seed}"
        self.columns: dict[str, Any] = {
            "experiment": name,
            "problem": simulator.problem or simulator.truth.name,
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
        self.predicted: dict[tuple[str, str], Prediction] = {}
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
            groups = evidence.collect(self.simulator, self.histories, self.predicted, self.tests)
            hybrid = self.models["aphynity"]
            if isinstance(hybrid, APHYNITY) and hybrid.residual is not None:
                groups["residual"] = evidence.residual_map(self.simulator, hybrid, self.train)
            write_store(self.folder.parent / "diagnostics.zarr", groups, overwrite=True)
            store = {"train": self.train, "valid": self.valid}
            write_store(self.folder.parent / "data.zarr", store, overwrite=True)
        return self.rows

    # -- training -----------------------------------------------------------------------------

    def _train_all(self) -> None:
        cfg, expert = self.cfg, self.expert
        shared: dict[str, Any] = {
            "encoder": cfg.encoder,
            "seed": rng.seed_of(self.seed, "weights"),
        }
        alone = APHYNITY(expert, residual=None, **shared)
        network = NeuralODE(
            expert.states,
            z_dim=len(expert.params) + cfg.z_a_dim,
            hidden=cfg.residual.hidden,
            inputs=expert.inputs,
            space=expert.space,
            **shared,
        )
        more = _further(cfg.stages, cfg.supervised)
        self._fit("expert_only", alone, self.train, (*cfg.stages, more))
        every = dataclasses.replace(more, trains="all")
        self._fit("network_only", network, self.train, (*cfg.stages, every))
        shared["z_a_dim"] = cfg.z_a_dim
        hybrid = APHYNITY(expert, residual=cfg.residual, **shared)
        self._both_forms("aphynity", hybrid, cfg.stages, cfg.supervised)
        if cfg.hvae_stages:
            shared["residual"] = dataclasses.replace(cfg.residual, constant=True)
            vae = HybridVAE(expert, regularisers=cfg.regularisers, **shared)
            self._both_forms("hvae", vae, cfg.hvae_stages, cfg.hvae_supervised)
            if cfg.ablation:
                self._ablate(shared)

    def _ablate(self, shared: dict[str, Any]) -> None:
        """Train the hybrid VAE with and without the published regularisers, and nothing else.

        The default residual, linear in its one latent and silent in exact equations, identifies
        much by itself, and so does the gauge penalty; so both have the general residual of the
        publications, no gauge, and an R_PPC that is strong enough without one.
        """
        expert, cfg = self.expert, self.cfg
        general = Residual(
            hidden=cfg.residual.hidden, linear_in_z_a=False, acts_on=expert.state_names
        )
        stages = tuple(dataclasses.replace(s, norm=(0.0, 0.0), gauge=0.0) for s in cfg.hvae_stages)
        forms = (Regularisers(ppc=30.0), Regularisers(ppc=0.0, da1=0.0, da2=0.0))
        for name, weights in zip(ABLATION, forms, strict=True):
            vae = HybridVAE(expert, **{**shared, "residual": general}, regularisers=weights)
            self._fit(name, vae, self.train, stages)
            # the report compares an ablation in its tables alone
            del self.histories[name]

    def _both_forms(
        self, name: str, hybrid: HybridModel, stages: tuple[Stage, ...], supervised: Stage
    ) -> None:
        """Train a hybrid, then its plain form as long as its augmented form."""
        base = self._fit("base", hybrid, self.train, stages, f"{name}-base")
        plain = _further(stages, supervised)
        self._fit(name, base, self.train, (plain,))
        augmenter = expert_augment(base, self.train, spread=self.cfg.spread)
        self._fit(f"{name}+", base, augmenter, (supervised,))
        del self.models["base"]
        before, (updates, seconds) = self.histories.pop("base"), self.cost.pop("base")
        for form in (name, f"{name}+"):
            self.histories[form] = before.then(self.histories[form])
            more = self.cost[form]
            self.cost[form] = updates + more[0], seconds + more[1]

    def _fit(
        self,
        name: str,
        model: HybridModel,
        data: Any,
        stages: tuple[Stage, ...],
        file: str | None = None,
    ) -> HybridModel:
        start = time.perf_counter()
        checkpoint = self.folder / "checkpoints" / (file or name)
        shown = _while_parent_lives() if multiprocessing.parent_process() else None
        with bar(shown, f"seed {self.seed}: {name}", seed=self.seed, learner=name) as tell:
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
        """Note updates and training time of every learner."""
        for name, (updates, seconds) in self.cost.items():
            figures = {"updates": (float(updates), "1"), "training_time": (seconds, "s")}
            self.rows += [
                Row(metric=m, value=v, unit=u, learner=name, **self.columns).asdict()
                for m, (v, u) in figures.items()
            ]

    # -- tests --------------------------------------------------------------------------------

    def _test(self, shift: str, data: xr.Dataset) -> None:
        self.rows += mean_baseline(self.train, data, self.window, **self.columns)
        for name, model in self.models.items():
            inferred = model.infer(to_batch(data))
            self._score(name, shift, data, inferred)
        if self.cfg.refined:
            for name in ("aphynity+", "hvae+"):
                if name in self.models:
                    refined = refine(self.models[name], data)
                    self._score(name, shift, data, refined)
            self._true_model(shift, data)

    def _score(self, name: str, shift: str, data: xr.Dataset, inferred: Inferred) -> None:
        shown = name if inferred.inference == "amortised" else f"{name} refined"
        model = self.models[name]
        predicted = model.predict(None, to_batch(data).t, given=inferred)
        self.rows += evaluate(model, data, predicted=predicted, learner=name, **self.columns)
        if name not in ABLATION:
            self.predicted[shown, shift] = evidence.shortened(predicted)

    def _true_model(self, shift: str, data: xr.Dataset) -> None:
        """Score a least-squares fit of the whole truth, started at the true parameters."""
        batch = to_batch(data, self.truth).to(torch.float64)
        model = APHYNITY(self.truth, residual=None).to(torch.float64)
        model.bind(batch, self.window)
        none = batch.y.new_zeros(len(batch), 0)
        known = torch.stack([torch.as_tensor(data[n].values) for n in self.truth.param_names], -1)
        fitted = refine(model, batch, start=Inferred(known, none, batch.x))
        predicted = model.predict(None, batch.t, given=fitted)
        shared = [self.truth.param_names.index(n) for n in self.expert.param_names]
        shown = dataclasses.replace(fitted, z_e=fitted.z_e[:, shared])
        predicted = dataclasses.replace(predicted, inferred=shown)
        batch = to_batch(data, self.expert)
        columns = {**describe_test(batch, data.attrs), **self.columns, "learner": "true_model"}
        fallback = self.models["aphynity"].state_mean.double()
        self.rows += score(
            predicted, batch, self.window, fallback, self.expert.param_names, **columns
        )
