"""The damped pendulum with an expert that lacks damping, out of distribution (thesis, chapter 7).

Training pendulums have omega_0 in 1.5-3.1 rad/s; those of the test `ood` are slower, 0.5-1.5
rad/s, and `near`, `mid` and `far` are the thirds of that range. The simulator has joint shifts of
omega_0 and the damping as well: `--set 'shifts=["joint_small", "joint_medium", "joint_large"]'`.
"""

from __future__ import annotations

from typing import Any

from hybridgen.experiments import robustness
from hybridgen.simulators import pendulum

from hybridgen.config import config
from hybridgen.evaluation import Row
from hybridgen.rundir import RunDir
from hybridgen.train import Stage

__all__ = ["CONFIGS", "PUBLISHED", "Config", "main"]


@config
class Config(robustness.Config):
    """Settings; see `robustness.Config`."""

    seeds: tuple[int, ...] = (0, 1, 2)
    shifts: tuple[str, ...] = ("ood", "near", "mid", "far")
    stages: tuple[Stage, ...] = (Stage(steps=3000),)
    supervised: Stage = Stage(objective="supervised", steps=8000, learning_rate=2e-3)


CONFIGS: dict[str, dict[str, Any]] = {"small": {**robustness.SMALL, "seeds": (0,)}}

PUBLISHED = {
    ("aphynity", "none"): (6.0, 2.0),
    ("aphynity", "ood"): (66.0, 9.0),
    ("aphynity+", "none"): (6.0, 2.0),
    ("aphynity+", "ood"): (10.0, 4.0),
}
"""Relative error of omega_0 in %, mean and standard deviation over 10 runs (Robust Hybrid
Learning With Expert Augmentation, Wehenkel et al., 2022, arXiv:2202.03881, the pendulum rows of
the table of relative precision)."""


def main(cfg: Config, run: RunDir) -> list[dict[str, Any]]:
    """Run the study; published values stand beside ours."""
    rows = robustness.run_study(pendulum.simulator, cfg, run, "ood_pendulum")
    return [*rows, *(_published(*key, *value) for key, value in PUBLISHED.items())]


def _published(learner: str, shift: str, value: float, sd: float) -> dict[str, Any]:
    row = Row(
        experiment="ood_pendulum",
        problem=pendulum.truth.name,
        variant=learner,
        learner="published",
        split="valid" if shift == "none" else "ood",
        shift=shift,
        distance=None,
        metric="relative_error",
        value=value,
        low=value - sd,
        high=value + sd,
        unit="%",
        seed="mean",
        n_seeds=10,
    )
    return row.asdict()
