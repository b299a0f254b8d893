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
from hybridgen.models.penalty import reflected

__all__ = ["FitConfig", "Source", "Stage", "seeded"]

# how many training states are kept with their mirror images, for the penalties
_ORBITS = 10_000


@config
class Stage:
    """Settings of one stage of training.

    Arguments:
        objective: `"weak"`, `"rollout"` or `"supervised"`.
        steps: How many updates.
        batch_size: Trajectories an update.
        learning_rate: Peak of the one-cycle schedule of Adam.
        trains: `"all"`, or `"encoder"` to leave the decoder bit for bit as it is.
        norm: Weight of the norm penalty on the residual, at the start and at the end; it falls
            geometrically.
        gauge: Weight of the gauge penalty.
        pool: How many trajectories a sampler draws at a time.
        refresh: After how many updates the pool is drawn anew.
    """

    objective: Literal["weak", "rollout", "supervised"] = "weak"
    steps: int = 2000
    batch_size: int = 100
    learning_rate: float = 3e-3
    trains: Literal["all", "encoder"] = "all"
    norm: tuple[float, float] = (0.015, 0.0015)
    gauge: float = 0.15
    pool: int = 5000
    refresh: int = 250


@config
class FitConfig:
    """Settings of a training.

    Arguments:
        stages: The stages in order; empty means one weak stage on data, and one supervised stage
            on a sampler.
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
        self.stages = config.stages or ((_SUPERVISED,) if self.sampler else (Stage(),))
        _check_objectives(self.stages, self.sampler is not None)
        self.window = config.window or _window(data)
        self._pool: tuple[int, int, Batch] | None = None
        if self.sampler is not None:
            if not model.is_bound:
                raise TrainingError(
                    "the model has not been trained on data yet; a sampler of augmented "
                    "trajectories comes after fit(model, train, valid)."
                )
            self.valid = self._draw(1000, rng.seed_of(config.seed, "valid"), 0)
            return
        if valid is None:
            raise DataError("fit needs validation data: fit(model, train, valid).")
        self.train = self._read(model, data, "training")
        self.valid = self._read(model, valid, "validation")
        _check_leak(self.train, self.valid)
        seen = self.train.window(self.window).y
        self.states = reflected(seen, _ORBITS, seeded(config.seed, "states"))

    def _read(self, model: HybridModel, data: Any, what: str) -> Batch:
        batch = to_batch(data, model.expert, labels=False)
        if len(batch) == 0:
            raise DataError(f"the {what} data have no samples.")
        batch = batch[_good(batch)]
        finite = batch.y.isfinite().flatten(1).all(1)
        if batch.mask is None and not finite.all():
            first = int((~finite).nonzero()[0, 0])
            raise DataError(
                f"{int((~finite).sum())} {what} samples hold NaN, the first is sample {first}; "
                "drop them, or give a mask where values are missing."
            )
        return batch.to(self.like)

    def _draw(self, n: int, root_seed: int, start: int) -> Batch:
        if self.sampler is None:
            raise ConfigError("there is no sampler to draw from")
        batch = self.sampler.draw(np.arange(start, start + n), root_seed)
        good = _good(batch) & batch.y.isfinite().flatten(1).all(1)
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


def _check_objectives(stages: tuple[Stage, ...], sampled: bool) -> None:
    for stage in stages:
        if (stage.objective == "supervised") != sampled:
            what = "a sampler" if sampled else "a data set"
            raise ConfigError(
                f"the objective {stage.objective!r} does not go with {what}; weak and rollout "
                "train on data, supervised on the sampler that expert_augment returns."
            )


def _good(batch: Batch) -> Tensor:
    if batch.status is None:
        return torch.ones(len(batch), dtype=torch.bool, device=batch.y.device)
    return (batch.status == Status.ok) | (batch.status == Status.retried)


def _window(data: Any) -> int | None:
    if isinstance(data, xr.Dataset) and "window" in data.attrs:
        return int(data.attrs["window"])
    return None


def _check_leak(train: Batch, valid: Batch) -> None:
    seen = {row.tobytes() for row in train.y[:, :2].flatten(1).cpu().numpy()}
    shared = sum(row.tobytes() in seen for row in valid.y[:, :2].flatten(1).cpu().numpy())
    if shared:
        raise DataError(
            f"{shared} of {len(valid)} validation samples are in the training data; "
            "draw them with another split: simulator.sample(n, seed=0, split='valid')."
        )
