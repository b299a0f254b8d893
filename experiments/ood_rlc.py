"""The driven RLC circuit with an expert that lacks the resistor, out of distribution.

Training circuits have L in 1-3 H and C in 0.5-1.5 F; those of the test `ood` have L in 3-5 H and
C in 1-2.5 F, and `near`, `mid` and `far` are steps on the way. The damping is the textbook's
R I / L; `--set variant=thesis` and `--set variant=released` take the published forms. All of them
are a damping proportional to the current, so the residual, linear in its latent, can be exact; but
the latent is then R / L (textbook), which in many a test lies outside of its training range.
"""

from __future__ import annotations

from typing import Any, Literal

from hybridgen.experiments import robustness
from hybridgen.experiments.published import published_rows
from hybridgen.simulators import rlc

from hybridgen.config import config
from hybridgen.rundir import RunDir
from hybridgen.train import Stage

__all__ = ["CONFIGS", "Config", "main"]


@config
class Config(robustness.Config):
    """Settings; see `robustness.Config`.

    Arguments:
        variant: Which form of the damping.
    """

    variant: Literal["textbook", "thesis", "released"] = "textbook"
    train: int = 1000
    test: int = 500
    shifts: tuple[str, ...] = ("ood", "near", "mid", "far")
    stages: tuple[Stage, ...] = (Stage(),)
    supervised: Stage = Stage(objective="supervised", steps=4000, learning_rate=2e-3)
    hvae_stages: tuple[Stage, ...] = robustness.HVAE_STAGES
    hvae_supervised: Stage = Stage(objective="supervised", steps=3000, learning_rate=2e-3)


CONFIGS: dict[str, dict[str, Any]] = {"small": robustness.SMALL}


def main(cfg: Config, run: RunDir) -> list[dict[str, Any]]:
    """Run the study; published values stand beside ours."""
    simulator = rlc.variants[cfg.variant]
    rows = robustness.run_study(simulator, cfg, run, "ood_rlc")
    return [*rows, *published_rows("rlc", "ood_rlc", simulator.problem)]
