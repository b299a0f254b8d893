"""The damped pendulum with an expert that lacks damping, out of distribution (thesis, chapter 7).

Training pendulums have omega_0 in 1.5-3.1 rad/s; those of the test `ood` are slower, 0.5-1.5
rad/s, and `near`, `mid` and `far` are the thirds of that range. The simulator has joint shifts of
omega_0 and the damping as well: `--set 'shifts=["joint_small", "joint_medium", "joint_large"]'`.
"""

from __future__ import annotations

from typing import Any

from hybridgen.experiments import robustness
from hybridgen.experiments.published import published_rows
from hybridgen.simulators import pendulum

from hybridgen.config import config
from hybridgen.rundir import RunDir
from hybridgen.train import Stage

__all__ = ["CONFIGS", "Config", "main"]


@config
class Config(robustness.Config):
    """Settings; see `robustness.Config`."""

    seeds: tuple[int, ...] = (0, 1, 2)
    shifts: tuple[str, ...] = ("ood", "near", "mid", "far")
    stages: tuple[Stage, ...] = (Stage(steps=3000),)
    supervised: Stage = Stage(objective="supervised", steps=5000, learning_rate=2e-3)
    hvae_stages: tuple[Stage, ...] = robustness.HVAE_STAGES
    hvae_supervised: Stage = Stage(objective="supervised", steps=5000, learning_rate=2e-3)
    ablation: bool = True


CONFIGS: dict[str, dict[str, Any]] = {"small": {**robustness.SMALL, "seeds": (0,)}}


def main(cfg: Config, run: RunDir) -> list[dict[str, Any]]:
    """Run the study; published values stand beside ours."""
    rows = robustness.run_study(pendulum.simulator, cfg, run, "ood_pendulum")
    return [*rows, *published_rows("pendulum", "ood_pendulum", pendulum.simulator.problem)]
