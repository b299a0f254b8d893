"""Where training batches come from: a data set in memory, or a sampler drawn anew."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from hybridgen import rng
from hybridgen.batch import Batch, Sampler
from hybridgen.config import config
from hybridgen.errors import ConfigError, DataError, TrainingError
from hybridgen.integrate import Status
from hybridgen.io import to_batch
from hybridgen.models import HybridModel
from hybridgen.models.penalty import orbits
from hybridgen.models.weak import weak_fits
from hybridgen.splitting import check_disjoint

__all__ = ["FitConfig", "Source", "Stage", "seeded"]

# how many training states are kept with their mirror images, or fields, for the penalties
_ORBITS, _FRAMES = 10_000, 200


@config
class Stage:
    """Settings of one stage of training.

    Arguments:
        objective: `"weak"`, `"rollout"`, `"supervised"` or (a hybrid VAE alone) `"elbo"`.
        steps: How many updates.
        batch_size: Trajectories an update.
        learning_rate: Peak of the one-cycle schedule of Adam.
        trains: `"all"`, or `"encoder"` to leave the decoder bit for bit as it is.
        norm: Weight of the norm penalty on the residual, at the start and at the end; it falls
            geometrically. None for the learner's own: 0.015 to 0.0015 for APHYNITY, none for a
            hybrid VAE, whose R_PPC takes its place.
        gauge: Weight of the gauge penalty; None for the learner's own: 0.15 for APHYNITY, 30 for
            a hybrid VAE, whose loss is in nats.
        span: Over how many intervals a roll-out goes; zero for the whole window.
        pool: How many trajectories a sampler draws at a time.
        refresh: After how many updates the pool is drawn anew.
    """

    objective: Literal["weak", "rollout", "elbo", "supervised"] = "weak"
    steps: int = 2000
    batch_size: int = 100
    learning_rate: float = 3e-3
    trains: Literal["all", "encoder"] = "all"
    norm: tuple[float, float] | None = None
    gauge: float | None = None
    span: int = 0
    pool: int = 5000
    refresh: int = 250


@config
class FitConfig:
    """Settings of a training.

    Arguments:
        stages: The stages in order; empty means one supervised stage on a sampler, one weak stage
            on data that the weak form can take, and else roll-outs, first over short spans where
            the data allow it; a hybrid VAE goes on with its own bound.
        seed: Seed of every random choice.
        window: How many points are observed; None for what the data say (attribute `window`), or
            all of them.
        valid_every: Updates between two looks at the validation data.
    """

    stages: tuple[Stage, ...] = ()
    seed: int = 0
    window: int | None = None
    valid_every: int = 200


def seeded(seed: int, stream: str) -> torch.Generator:
    """Return a generator fixed by seed and stream.

    Example:
        >>> a, b = (torch.rand((), generator=seeded(0, "a")) for _ in range(2))
        >>> bool(a == b)
        True
    """
    return torch.Generator().manual_seed(rng.seed_of(seed, stream))


class Source:
    """Batches for one training, each fixed by (seed, stage, update).

    Arguments:
        model: The learner to be trained.
        data: Training trajectories, or a sampler of labelled ones.
        valid: Validation trajectories; a sampler keeps simulations of its own aside.
        config: The settings of the training.
    """

    def __init__(
        self,
        model: HybridModel,
        data: xr.Dataset | Batch | Sampler,
        valid: xr.Dataset | Batch | None,
        config: FitConfig,
    ) -> None:
        self.config, self.like = config, model.state_sd
        self.sampler = None if isinstance(data, (xr.Dataset, Batch)) else data
        self.window = config.window or _window(data)
        self._pool: tuple[int, int, Batch] | None = None
        if self.sampler is not None:
            self.stages = config.stages or (_SUPERVISED,)
            _check_objectives(self.stages, sampled=True)
            if not model.is_bound:
                raise TrainingError(
                    "the model has not been trained on data yet; a sampler of augmented "
                    "trajectories comes after fit(model, train, valid)."
                )
            aside = max(2, min(1000, self.stages[0].pool // 5))
            self.valid = self._draw(aside, rng.seed_of(config.seed, "valid"), 0)
            return
        self.train = self._read(model, data, "training")
        if valid is None and len(self.train) > 1:
            raise DataError("fit needs validation data: fit(model, train, valid).")
        self.valid = self.train
        if valid is not None:
            self.valid = self._read(model, valid, "validation")
            check_disjoint(self.train, self.valid, ("training", "validation"))
        seen = self.train.window(self.window)
        self.stages = config.stages or _default_stages(model, seen)
        _check_objectives(self.stages, sampled=False)
        count = _ORBITS if model.space == 0 else _FRAMES
        self.points = orbits(seen, model.states, count, seeded(config.seed, "states"))

    def _read(self, model: HybridModel, data: Any, what: str) -> Batch:
        batch = to_batch(data, model.expert, labels=False)
        if len(batch) == 0:
            raise DataError(f"the {what} data have no samples.")
        batch = batch[_good(batch)]
        whole = _whole(batch)
        if not whole.all():
            first = int((~whole).nonzero()[0, 0])
            raise DataError(
                f"{int((~whole).sum())} {what} samples hold NaN, the first is sample {first}; "
                "drop them, or give a mask where values are missing."
            )
        return batch.to(self.like)

    def _draw(self, n: int, root_seed: int, start: int) -> Batch:
        if self.sampler is None:
            raise ConfigError("there is no sampler to draw from")
        batch = self.sampler.draw(np.arange(start, start + n), root_seed)
        good = _good(batch) & _whole(batch)
        if good.sum() < max(2, n // 2):
            raise TrainingError(
                f"{n - int(good.sum())} of {n} augmented simulations failed; narrow the ranges "
                "given to expert_augment, or look at the model: its residual may blow up there."
            )
        return batch[good].to(self.like)

    def batch(self, number: int, i: int, generator: torch.Generator) -> Batch:
        """Return the batch of update `i` of a stage."""
        stage = self.stages[number]
        members = self.train if self.sampler is None else self._members(number, i)
        if self.sampler is None and stage.batch_size >= len(members):
            return members
        index = torch.randint(len(members), (stage.batch_size,), generator=generator)
        return members[index.to(members.y.device)]

    def _members(self, number: int, i: int) -> Batch:
        stage = self.stages[number]
        turn = i // stage.refresh
        if self._pool is None or self._pool[:2] != (number, turn):
            seed = rng.seed_of(self.config.seed, f"pool/{number}")
            self._pool = number, turn, self._draw(stage.pool, seed, turn * stage.pool)
        return self._pool[2]

    def fingerprint(self) -> str:
        """Return a checksum of the data, so that a resume on other data is refused."""
        data = self.valid if self.sampler is not None else self.train
        return hashlib.sha256(data.y.cpu().numpy().tobytes()).hexdigest()


_SUPERVISED = Stage(objective="supervised", steps=3000, learning_rate=2e-3)
_SPANS = Stage(objective="rollout", steps=1000, span=10)
_ELBO = Stage(objective="elbo", steps=1000, learning_rate=1e-3)
_WHOLE = Stage(objective="rollout", steps=1000, learning_rate=1e-3, batch_size=50)


def _default_stages(model: HybridModel, seen: Batch) -> tuple[Stage, ...]:
    """Return stages that the observed windows allow."""
    gaps = seen.mask is not None and not bool(seen.mask.all())
    has_rate = getattr(model, "decoder", "rate") == "rate"
    weak = model.space == 0 and not gaps and model.noise.name == "gaussian" and weak_fits(seen.t)
    if "elbo" in getattr(model, "objectives", {}):
        return (Stage(), _ELBO) if weak and has_rate else (_ELBO,)
    if weak:
        return (Stage(),)
    short = model.is_fully_observed and seen.y.shape[1] > 2 * _SPANS.span
    return (_SPANS, _WHOLE) if short else (_WHOLE,)


def _check_objectives(stages: tuple[Stage, ...], sampled: bool) -> None:
    for stage in stages:
        if (stage.objective == "supervised") != sampled:
            what = "a sampler" if sampled else "a data set"
            raise ConfigError(
                f"the objective {stage.objective!r} does not go with {what}; weak and rollout "
                "train on data, supervised on the sampler that expert_augment returns."
            )


def _whole(batch: Batch) -> Tensor:
    """Return which members are finite wherever they were observed, with shape `(B,)`."""
    finite = batch.y.isfinite()
    return (finite if batch.mask is None else finite | ~batch.mask).flatten(1).all(1)


def _good(batch: Batch) -> Tensor:
    if batch.status is None:
        return torch.ones(len(batch), dtype=torch.bool, device=batch.y.device)
    return (batch.status == Status.ok) | (batch.status == Status.retried)


def _window(data: Any) -> int | None:
    if isinstance(data, xr.Dataset) and "window" in data.attrs:
        return int(data.attrs["window"])
    return None
