r"""Training: one function, stages as a list, the same numbers after an interruption.

Every random choice of update :math:`i` comes from a generator seeded by (seed, stage, i), and the
learning rate is a function of :math:`i`, so a training that was stopped and resumed is the
training that was not. Each stage ends with the weights of its lowest validation loss: that of
its own objective, penalties included at their final weight, on the validation data or (supervised)
on simulations kept aside. Data from outside the training support are never looked at.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from hybridgen.batch import Batch, Sampler
from hybridgen.checkpoint import describe_model, load_state, save_state
from hybridgen.errors import CheckpointError, ConfigError, TrainingError
from hybridgen.integrate import repeated
from hybridgen.models import APHYNITY, HybridModel
from hybridgen.models.latents import Latents, Loss
from hybridgen.models.objectives import objective_of
from hybridgen.progress import Progress, bar
from hybridgen.refinement import note_noise
from hybridgen.source import FitConfig, Source, Stage, seeded
from hybridgen.starting import start_single_system

__all__ = ["FitConfig", "History", "Stage", "fit", "one_cycle", "solver_gap"]

# at how many states, each with its mirror images, or fields, and for how many members the
# penalties of an update are taken
ORBITS, FRAMES, MEMBERS = 256, 4, 8


@dataclass
class History:
    """What happened: one row each time the validation data were looked at.

    Arguments:
        rows: Dicts with `step`, `stage`, `loss`, its parts, and `valid`.
        stages: Name, first and last update of each stage.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def then(self, more: History) -> History:
        """Return this history with another one after it."""
        last = self.stages[-1]["stop"] if self.stages else 0
        rows = [{**row, "step": row["step"] + last} for row in more.rows]
        stages = [{**s, "start": s["start"] + last, "stop": s["stop"] + last} for s in more.stages]
        return History([*self.rows, *rows], [*self.stages, *stages])

    def to_dataset(self) -> xr.Dataset:
        """Return the rows along the dimension `step`, NaN where a figure was not computed."""
        names = sorted({k for row in self.rows for k in row} - {"step"})
        data = {k: ("step", np.array([row.get(k, math.nan) for row in self.rows])) for k in names}
        step = np.array([int(row["step"]) for row in self.rows], dtype=np.int64)
        return xr.Dataset(data, {"step": step}, {"stages": json.dumps(self.stages)})


def fit(
    model: HybridModel,
    data: xr.Dataset | Batch | Sampler,
    valid: xr.Dataset | Batch | None = None,
    config: FitConfig = FitConfig(),
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | Callable[[Progress], None] | None = None,
) -> tuple[HybridModel, History]:
    """Train a copy of a model.

    Arguments:
        model: The model to start from; it is left as it is.
        data: Training trajectories, or a sampler such as `expert_augment` returns, from which
            fresh batches are drawn.
        valid: Validation trajectories from the training support. A sampler needs none, it keeps
            simulations aside; nor does a single trajectory, whose training loss then chooses.
        config: Stages, seed, window.
        checkpoint: A folder in which the state is kept, written each time the validation data are
            looked at; an interruption loses no more than the updates since.
        resume: Whether to go on from `checkpoint`.
        progress: True for a bar, a function to be told; None for a bar on a terminal.

    Returns:
        The trained copy and the history. A sampler adds a "+" to the name of the learner.

    Raises:
        ConfigError: If stages and data do not go together.
        DataError: If the data do not suit the model.
        TrainingError: If the loss is not finite for many updates in a row.
        CheckpointError: If the checkpoint is damaged or belongs to another training.

    Example:
        >>> from hybridgen import APHYNITY
        >>> from hybridgen.simulators import pendulum
        >>> train = pendulum.simulator.sample(20, seed=0, split="train")
        >>> valid = pendulum.simulator.sample(20, seed=0, split="valid")
        >>> config = FitConfig(stages=(Stage(steps=2, batch_size=8),))
        >>> model, history = fit(APHYNITY(pendulum.expert), train, valid, config)
        >>> history.rows[-1]["step"]
        2.0
    """
    model = copy.deepcopy(model)
    source = Source(model, data, valid, config)
    if source.sampler is not None:
        model.learner = model.learner.removesuffix("+") + "+"
    elif not model.is_bound:
        model.bind(source.train, source.window)
        start_single_system(model, source.train, seeded(config.seed, "start"))
    run = _Run(model, source, config, checkpoint)
    if resume:
        run.restore()
    else:
        run.save()
    # an interruption may fall into the middle of an update, so nothing is saved on the way out:
    # the checkpoint is that of the last look at the validation data
    with bar(progress, "training") as tell:
        run.go(tell)
    return model, run.history


class _Run:
    """The state of a training: what a checkpoint holds."""

    def __init__(
        self,
        model: HybridModel,
        source: Source,
        config: FitConfig,
        checkpoint: str | os.PathLike[str] | None,
    ) -> None:
        self.model, self.source, self.config = model, source, config
        self.checkpoint = checkpoint
        self.history = History()
        self.stage, self.step, self.bad = 0, 0, 0
        self.best: dict[str, Tensor] = {}
        self.best_score = math.inf
        self._optimiser: torch.optim.Adam | None = None

    # -- the loop ---------------------------------------------------------------------------

    def go(self, tell: Callable[[Progress], None]) -> None:
        """Run every stage from where the state stands."""
        stages = self.source.stages
        total = sum(s.steps for s in stages)
        while self.stage < len(stages):
            stage = stages[self.stage]
            done = sum(s.steps for s in stages[: self.stage])
            optimiser = self._optimiser or self._new_optimiser(stage)
            self._optimiser = optimiser
            frozen = _frozen(self.model.decoder_parameters(), stage.trains == "encoder")
            with frozen, repeated(stage.steps):
                while self.step < stage.steps:
                    loss = self._update(stage, optimiser)
                    self.step += 1
                    if self.step % self.config.valid_every == 0 or self.step == stage.steps:
                        row = self._look(stage, loss, done)
                        self.save()
                        tell(Progress(done + self.step, total, row))
            self._close(stage, done)

    def _new_optimiser(self, stage: Stage) -> torch.optim.Adam:
        encoder = stage.trains == "encoder" or stage.objective == "supervised"
        params = self.model.encoder.parameters() if encoder else self.model.parameters()
        return torch.optim.Adam(params, lr=stage.learning_rate, foreach=False, fused=False)

    def _update(self, stage: Stage, optimiser: torch.optim.Adam) -> Loss:
        generator = seeded(self.config.seed, f"{self.stage}/{self.step}")
        batch = self.source.batch(self.stage, self.step, generator)
        loss = self._loss(stage, batch, generator, self.step / stage.steps)
        for group in optimiser.param_groups:
            group["lr"] = stage.learning_rate * one_cycle(self.step / stage.steps)
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        params = optimiser.param_groups[0]["params"]
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        if math.isfinite(float(norm)):
            optimiser.step()
            self.bad = 0
        else:
            self.bad += 1
        if self.bad >= 20:
            parts = {k: float(v.detach()) for k, v in loss.parts.items()}
            raise TrainingError(
                f"the gradient has not been finite for {self.bad} updates, up to update "
                f"{self.step} of the {stage.objective} stage (parts of the loss: {parts}); lower "
                "learning_rate, or look for trajectories that blow up."
            )
        return loss

    def _loss(
        self, stage: Stage, batch: Batch, generator: torch.Generator, progress: float
    ) -> Loss:
        objective = objective_of(self.model, stage.objective)
        loss = objective(self.model, batch, stage.span, generator)
        model = self.model
        if (
            stage.objective == "supervised"
            or stage.trains == "encoder"
            or not isinstance(model, APHYNITY)
            or model.residual is None
        ):
            return loss
        start, end = model.default_norm if stage.norm is None else stage.norm
        strength = model.default_gauge if stage.gauge is None else stage.gauge
        if start == strength == 0:
            return loss
        count = ORBITS if model.space == 0 else FRAMES
        orbits = torch.randint(len(self.source.points.y), (count,), generator=generator)
        members = torch.randint(len(batch), (MEMBERS,), generator=generator).to(batch.y.device)
        some = Latents(loss.latents.z_e[members], loss.latents.z_a[members])
        points = self.source.points.map(lambda v: v[orbits.to(v.device)].flatten(0, 1))
        projection = model.projection(points, some)
        norm, gauge = projection.total.mean(), projection.parallel.mean()
        weight = start * (end / start) ** progress if start > 0 else 0.0
        total = loss.total + weight * norm + strength * gauge
        return Loss(total, loss.latents, {**loss.parts, "norm": norm, "gauge": gauge})

    @torch.no_grad()
    def _look(self, stage: Stage, loss: Loss, done: int) -> dict[str, float]:
        generator = seeded(self.config.seed, "valid")
        score = float(self._loss(stage, self.source.valid, generator, 1.0).total)
        row = {"step": float(done + self.step), "stage": float(self.stage)}
        row |= {"loss": float(loss.total.detach()), "valid": score, "skipped": float(self.bad)}
        row |= {k: float(v.detach()) for k, v in loss.parts.items()}
        if stage.objective == "rollout":
            row["solver_gap"] = solver_gap(self.model, self.source.valid[:32])
        if score < self.best_score:
            self.best_score = score
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.history.rows.append(row)
        return row

    def _close(self, stage: Stage, done: int) -> None:
        if not self.best:
            raise TrainingError(
                f"the {stage.objective} stage never had a finite validation loss; lower "
                "learning_rate, or look for trajectories that blow up."
            )
        self.model.load_state_dict(self.best)
        if self.source.sampler is None:
            self.model.note_latents(self.source.train)
            # noise is what the decoder leaves, so it waits for the last stage that changes that
            left = [s.trains for s in self.source.stages[self.stage :]]
            if left[0] == "all" and "all" not in left[1:]:
                note_noise(self.model, self.source.train)
        self.history.stages.append(
            {"name": stage.objective, "start": done, "stop": done + stage.steps}
        )
        self.stage, self.step, self.bad = self.stage + 1, 0, 0
        self.best, self.best_score, self._optimiser = {}, math.inf, None
        self.save()

    # -- checkpoints ------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "model": describe_model(self.model),
            "data": self.source.fingerprint(),
        }

    def save(self) -> None:
        """Write the state, if a checkpoint was asked for."""
        if self.checkpoint is None:
            return
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        if self._optimiser is not None:
            for i, state in self._optimiser.state_dict()["state"].items():
                tensors |= {f"adam.{i}.{k}": v for k, v in state.items()}
        meta = {
            "identity": self._identity(),
            "stage": self.stage,
            "step": self.step,
            "bad": self.bad,
            "best_score": self.best_score,
            "history": asdict(self.history),
        }
        save_state(self.checkpoint, tensors, meta)

    def restore(self) -> None:
        """Go back to the state in the checkpoint.

        Raises:
            CheckpointError: If there is none, or it belongs to another training.
        """
        if self.checkpoint is None:
            raise ConfigError("resume=True needs checkpoint=, the folder to resume from.")
        tensors, meta = load_state(self.checkpoint)
        mine = json.loads(json.dumps(self._identity()))
        for key, value in mine.items():
            if meta.get("identity", {}).get(key) != value:
                raise CheckpointError(
                    f"{self.checkpoint} belongs to a training with another {key}; resume with the "
                    "same data and settings, or start anew in another folder."
                )
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "adam": {}}
        for name, tensor in tensors.items():
            kind, key = name.split(".", 1)
            groups[kind][key] = tensor
        self.model.load_state_dict(groups["model"])
        self.best, self.best_score = groups["best"], meta["best_score"]
        self.stage, self.step, self.bad = meta["stage"], meta["step"], meta["bad"]
        self.history = History(**meta["history"])
        if groups["adam"]:
            optimiser = self._new_optimiser(self.source.stages[self.stage])
            saved = optimiser.state_dict()
            for name, tensor in groups["adam"].items():
                i, key = name.split(".", 1)
                saved["state"].setdefault(int(i), {})[key] = tensor
            optimiser.load_state_dict(saved)
            self._optimiser = optimiser


def one_cycle(progress: float) -> float:
    """Return the fraction of the peak learning rate: a rise over 20 %, then a cosine to zero.

    Example:
        >>> [round(one_cycle(p), 2) for p in (0.0, 0.2, 0.6, 1.0)]
        [0.04, 1.0, 0.5, 0.0]
    """
    rise = 0.2
    if progress < rise:
        return 0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * progress / rise))
    return 0.5 * (1.0 + math.cos(math.pi * (progress - rise) / (1.0 - rise)))


@torch.no_grad()
def solver_gap(model: HybridModel, batch: Batch) -> float:
    """Return how far the training roll-out is from an accurate one, in state deviations."""
    seen = batch.window(int(model.window))
    latents = model.encode(seen)
    coarse = model.reconstruct(seen, latents)
    driven = model.driven(latents, seen)
    fine = model.rollout(model.initial(seen, latents), seen.t, driven).y
    return float(((coarse - fine) / model.state_sd).abs().nan_to_num(0.0).max())


@contextmanager
def _frozen(params: list[torch.nn.Parameter], freeze: bool) -> Iterator[None]:
    if not freeze:
        yield
        return
    before = [p.requires_grad for p in params]
    try:
        for p in params:
            p.requires_grad_(False)
        yield
    finally:
        for p, flag in zip(params, before, strict=True):
            p.requires_grad_(flag)
