"""The main job in two minutes: a pendulum, an expert without damping, and what a shift does."""

from __future__ import annotations

from typing import Any

from hybridgen.experiments import robustness
from hybridgen.simulators import pendulum

from hybridgen.config import config
from hybridgen.rundir import RunDir
from hybridgen.train import Stage

__all__ = ["CONFIGS", "Config", "main"]


@config
class Config(robustness.Config):
    """Settings; see `robustness.Config`."""

    train: int = 500
    valid: int = 100
    test: int = 200
    stages: tuple[Stage, ...] = (Stage(steps=700),)
    supervised: Stage = Stage(objective="supervised", steps=1000, learning_rate=2e-3)


CONFIGS: dict[str, dict[str, Any]] = {"small": {**robustness.SMALL, "hvae_stages": ()}}


def main(cfg: Config, run: RunDir) -> list[dict[str, Any]]:
    """Run the study on the pendulum."""
    return robustness.run_study(pendulum.simulator, cfg, run, "demo")
