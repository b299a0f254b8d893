r"""A user's own data: fit a hybrid and its baselines, and forecast the times that were held back.

What comes after a time `until` is seen by nothing but the scores. Data of many runs train an
encoder, and a fifth of the runs is kept for validation and for the scores. A single run, or many
of one system, has one set of parameters and nothing to validate on, so the strength w of the
residual's penalty is chosen by rolling-origin validation inside the window: a hybrid for each w
is fitted to the first 70 % of it, the best at forecasting the rest is taken, and then all of the
window is fitted.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from typing import Any, Literal

import torch
import xarray as xr
from hybridgen.experiments.fit_evidence import (
    constant,
    error_rows,
    estimate_rows,
    groups,
    identification_rows,
)
from hybridgen.experiments.held_back import Split, last_time

from hybridgen import rng
from hybridgen.batch import Batch
from hybridgen.checkpoint import save_model
from hybridgen.config import config
from hybridgen.diagnostics import best_fit
from hybridgen.errors import ConfigError, DataError, GradientError, UnsupportedError
from hybridgen.evaluation import Row
from hybridgen.expert import ODEExpert
from hybridgen.io import to_batch
from hybridgen.models import (
    APHYNITY,
    Convolutional,
    GlobalParameters,
    HybridModel,
    Inferred,
    NeuralODE,
    Prediction,
    Residual,
)
from hybridgen.noise import GaussianNoise, LogNormalNoise, Noise
from hybridgen.progress import bar
from hybridgen.reading.formats import Reading, read_data, read_group
from hybridgen.refinement import refine
from hybridgen.rundir import RunDir
from hybridgen.splitting import split_runs
from hybridgen.store import write_store
from hybridgen.threads import one_thread
from hybridgen.train import FitConfig, History, Stage, fit

__all__ = ["Config", "check", "main"]

_NAMES = {"expert_only": "expert_only", "network_only": "network_only", "hybrid": "aphynity"}


@config
class Config:
    """Settings of a fit.

    Arguments:
        data: The file.
        expert: Where the expert is found, `"FILE.py:NAME"` or `"package.module:NAME"`.
        reading: Which column holds what.
        until: The last time that training may see, in time units; None for what the data say
            (attribute `window`), or else for the first 70 % of the times.
        noise: The noise of the observations.
        learners: What is trained.
        one_system: Whether all runs are of one system, with one set of parameters.
        valid: The share of the runs that is kept aside.
        residual: Settings of the residual; None for a small one for one system, else the default.
        stages: Stages of training; empty for what suits the data.
        steps: Updates of the default stage of one system.
        starts: How many draws of the parameters are tried before one system is fitted.
        strengths: Strengths w of the residual's penalty to choose among, for one system.
        seed: Seed of every random choice.
        device: Where to train.
    """

    data: str = ""
    expert: str = ""
    reading: Reading = Reading()
    until: float | None = None
    noise: Literal["gaussian", "log-normal"] = "gaussian"
    learners: tuple[Literal["expert_only", "network_only", "hybrid"], ...] = (
        "expert_only",
        "network_only",
        "hybrid",
    )
    one_system: bool = False
    valid: float = 0.2
    residual: Residual | None = None
    stages: tuple[Stage, ...] = ()
    steps: int = 400
    starts: int = 256
    strengths: tuple[float, ...] = (1.0, 10.0, 100.0)
    seed: int = 0
    device: str = "cpu"


def check(cfg: Config, expert: ODEExpert) -> None:
    """Raise what can be said of data and settings before anything is written or trained.

    Arguments:
        cfg: The settings.
        expert: The expert that `cfg.expert` names.

    Raises:
        HybridgenError: What is wrong, in a sentence.
    """
    if not isinstance(expert, ODEExpert):
        raise UnsupportedError(
            f"a fit takes an ODEExpert, but {expert.name!r} is an {type(expert).__name__}."
        )
    _Fit(cfg, expert, read_data(cfg.data, expert, cfg.reading))


def main(cfg: Config, run: RunDir, expert: ODEExpert) -> list[dict[str, Any]]:
    """Fit every learner, and write models, data and diagnostics into the run directory.

    Arguments:
        cfg: The settings.
        run: The run directory; what is finished in it is not trained again.
        expert: The expert that `cfg.expert` names.

    Returns:
        The rows.
    """
    if finished := run.read_rows():
        return finished
    kept = run.path / "data.zarr"
    if kept.is_dir():
        return _Fit(cfg, expert, read_group(kept, "all")).run(run)
    data = read_data(cfg.data, expert, cfg.reading)
    study = _Fit(cfg, expert, data)
    # whole or absent: a resumed run must not find half of it
    part = run.path / "data.zarr.part"
    shutil.rmtree(part, ignore_errors=True)
    parts = {"all": data, "train": study.split.train}
    if study.split.valid is not None:
        parts["valid"] = study.split.valid
    write_store(part, parts)
    part.rename(kept)
    return study.run(run)


class _Fit:
    """A fit of the learners to one data set."""

    def __init__(self, cfg: Config, expert: ODEExpert, data: xr.Dataset) -> None:
        self.cfg, self.expert = cfg, expert
        runs = data.sizes["sample"]
        self.single = cfg.one_system or runs == 1
        train, valid = (data, None) if runs == 1 else split_runs(data, cfg.valid, cfg.seed)
        self.split = Split.at(expert, train, valid, _until(data, cfg))
        self.noise = _noise(cfg, to_batch(data, expert))
        self.columns: dict[str, Any] = {
            "experiment": "own_data",
            "problem": expert.name,
            "variant": f"until {self.split.until:g}",
            "seed": cfg.seed,
        }
        self._check()
        self.rows: list[dict[str, Any]] = []
        self.models: dict[str, HybridModel] = {}
        self.histories: dict[str, History] = {}
        self.inferred: dict[str, Inferred] = {}

    def _check(self) -> None:
        """Raise where data and settings do not go together."""
        cfg = self.cfg
        if self.expert.backend == "numpy":
            raise GradientError(
                f"expert {self.expert.name!r} is written in numpy and has no gradient, which "
                "training needs; write it with torch."
            )
        if not cfg.learners or len(set(cfg.learners)) < len(cfg.learners):
            raise ConfigError(f"learners are {cfg.learners}; name each once, and at least one.")
        if "network_only" in cfg.learners and self.expert.space:
            raise ConfigError(
                "network_only is not for fields; write --learners expert_only,hybrid."
            )
        if not cfg.strengths or min(cfg.strengths) <= 0:
            raise ConfigError(f"strengths are {cfg.strengths}; write one or more above 0.")
        if self._chooses and self.split.window < 6:
            raise DataError(
                f"the window holds {self.split.window} times, and 6 are needed to choose the "
                "strength of the residual's penalty; give a later until, or one strength: "
                "--set strengths=[10]."
            )
        for name in cfg.learners:
            self._model(name)

    @property
    def _chooses(self) -> bool:
        """Whether the strength of the penalty is to be chosen."""
        return self.single and "hybrid" in self.cfg.learners and len(self.cfg.strengths) > 1

    def run(self, run: RunDir) -> list[dict[str, Any]]:
        """Train, score and write."""
        with one_thread(self.expert.space == 0):
            return self._run(run)

    def _run(self, run: RunDir) -> list[dict[str, Any]]:
        for name in self.cfg.learners:
            start = time.perf_counter()
            strength = self._strength(run) if name == "hybrid" and self.single else None
            model, history = self._fit(run, name, self.split, strength, _NAMES[name])
            self._cost(model, history, time.perf_counter() - start)
            self.models[model.learner], self.histories[model.learner] = model, history
            save_model(run.path / "models" / model.learner, model)
        first = next(iter(self.models.values()))
        mean = constant(self.split)
        self.rows += error_rows(mean, self.split, first, learner="mean", **self._horizon)
        for model in self.models.values():
            self._score(model)
        hybrid = self.models.get("aphynity")
        if hybrid is not None:
            batch = self.split.train_batch
            self.rows += identification_rows(hybrid, batch, **self.columns)
        found = groups(self.split, self.models, self.inferred, self.histories, self.cfg.seed)
        write_store(run.path / "diagnostics.zarr", found, overwrite=True)
        return self.rows

    @property
    def _horizon(self) -> dict[str, Any]:
        """The columns of what is scored on the times that were held back."""
        return {**self.columns, "shift": "horizon", "distance": self.split.distance}

    # -- training -----------------------------------------------------------------------------

    def _model(self, name: str) -> HybridModel:
        expert = self.expert
        common: dict[str, Any] = {
            "encoder": GlobalParameters(self.cfg.starts) if self.single else Convolutional(),
            "noise": self.noise,
            "infer_x0": expert.space == 0,
            "seed": rng.seed_of(self.cfg.seed, "weights"),
        }
        small = Residual(hidden=(16, 16)) if self.single else Residual()
        residual = self.cfg.residual or small
        model: HybridModel
        if name == "network_only":
            free = sum(not p.known for p in expert.params)
            latents = 0 if self.single else free + 1
            model = NeuralODE(expert.states, z_dim=latents, hidden=residual.hidden, **common)
        else:
            model = APHYNITY(expert, residual=residual if name == "hybrid" else None, **common)
        # in single precision years are hours apart, and seconds since 1970 minutes
        return model.to(torch.float64).to(self.cfg.device)

    def _stages(self, name: str, strength: float | None, split: Split) -> tuple[Stage, ...]:
        stages = self.cfg.stages
        if self.single and not stages:
            whole = Stage("rollout", self.cfg.steps, min(len(split.train_batch), 50), 5e-3)
            # an expert starts from its best fit; a network alone goes astray over a whole window
            short = dataclasses.replace(whole, span=max(3, split.window // 4))
            alone = name == "network_only" and all(s.observed for s in self.expert.states)
            stages = (short, whole) if alone else (whole,)
        if strength is None:
            return stages
        weights: dict[str, Any] = {"norm": (strength, strength), "gauge": strength}
        return tuple(dataclasses.replace(s, **weights) for s in stages)

    def _fit(
        self, run: RunDir, name: str, split: Split, strength: float | None, label: str
    ) -> tuple[HybridModel, History]:
        """Train a learner on what a split shows; `label` names it, and its checkpoint."""
        settings = FitConfig(
            stages=self._stages(name, strength, split),
            seed=self.cfg.seed,
            window=split.window,
            valid_every=25 if self.single else 200,
        )
        checkpoint = run.path / "checkpoints" / label
        with bar(None, label, learner=_NAMES[name]) as tell:
            return fit(
                self._model(name),
                _for(name, split.train_batch),
                _for(name, split.valid_batch),
                settings,
                checkpoint=checkpoint,
                resume=(checkpoint / "checkpoint.json").is_file(),
                progress=tell,
            )

    def _strength(self, run: RunDir) -> float:
        """Return the strength of the penalty that forecasts best inside the window."""
        if not self._chooses:
            return self.cfg.strengths[0]
        earlier = self.split.earlier()
        errors = {w: self._origin(run, earlier, "hybrid", w) for w in self.cfg.strengths}
        if "expert_only" in self.cfg.learners:
            self._origin(run, earlier, "expert_only", None)
        best = min(errors, key=lambda w: errors[w])
        columns = {**self.columns, "learner": "aphynity", "unit": "1"}
        self.rows.append(Row(metric="penalty", value=best, **columns).asdict())
        return best

    def _origin(self, run: RunDir, split: Split, name: str, strength: float | None) -> float:
        """Return the error with which a learner forecasts the end of the window from the rest."""
        what = "no f_a" if strength is None else f"penalty {strength:g}"
        label = f"rolling-origin-{'expert' if strength is None else f'{strength:g}'}"
        model, _ = self._fit(run, name, split, strength, label)
        predicted = _predict(model, split, model.infer(split.given))
        columns = {**self.columns, "learner": model.learner}
        found = error_rows(predicted, split, model, **columns)
        row = next(r for r in found if r["metric"] == "rms_sd")
        self.rows.append({**row, "metric": "rolling_origin", "parameter": what})
        return math.inf if row["value"] is None else float(row["value"])

    def _cost(self, model: HybridModel, history: History, seconds: float) -> None:
        updates = float(history.stages[-1]["stop"])
        for metric, value, unit in (("updates", updates, "1"), ("training_time", seconds, "s")):
            row = Row(learner=model.learner, metric=metric, value=value, unit=unit, **self.columns)
            self.rows.append(row.asdict())

    # -- scores -------------------------------------------------------------------------------

    def _score(self, model: HybridModel) -> None:
        """Score the answer of the encoder, and the refined one of a learner with parameters."""
        given = _for(model.learner, self.split.given)
        answers: list[Inferred] = [model.infer(given)]
        if model.free:
            # systems of their own are fitted from many starts; of fields that takes too long
            careful = not self.single and self.expert.space == 0
            answers.append((best_fit if careful else refine)(model, given))
        for found in answers:
            suffix = " refined" if found.inference == "refined" else ""
            self.inferred[model.learner + suffix] = found
            columns = {"learner": model.learner, **self._horizon}
            predicted = _predict(model, self.split, found)
            self.rows += error_rows(predicted, self.split, model, **columns)
            self.rows += estimate_rows(model, found, single=self.single, **self.columns)


def _until(data: xr.Dataset, cfg: Config) -> float:
    """Return the last time that may be seen: as asked for, as the data say, or at 70 %."""
    if cfg.until is not None:
        return cfg.until
    if "window" in data.attrs and "time" in data.coords:
        return float(data["time"][int(data.attrs["window"]) - 1])
    return last_time(data)


def _noise(cfg: Config, everything: Batch) -> Noise:
    if cfg.noise == "gaussian":
        return GaussianNoise()
    y = everything.y[everything.y.isfinite()]
    if not (y > 0).all():
        raise DataError(
            f"log-normal noise needs positive values, but the data hold {float(y.min()):g}; "
            "write --noise gaussian, or --missing if it stands for a missing value."
        )
    return LogNormalNoise(floor=min(1e-3, 1e-2 * float(y.min())))


def _for(name: str, batch: Any) -> Any:
    """Return a batch as a learner takes it: a network alone knows of no inputs."""
    alone = name == "network_only" and batch is not None
    return batch.replace(u=None) if alone else batch


def _predict(model: HybridModel, split: Split, found: Inferred) -> Prediction:
    return model.predict(None, split.truth.t, given=found)
