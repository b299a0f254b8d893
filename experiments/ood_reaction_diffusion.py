"""Reaction-diffusion fields with an expert that knows the diffusion only, out of distribution.

Training systems have a in 0.001-0.002 and b in 0.003-0.007; those of the test `ood` have a in
0.002-0.004 and b in 0.001-0.01. The network is pointwise: it cannot imitate a Laplacian, so it
cannot trade with a and b, and it must carry the whole reaction. `--set variant=released` gives the
expert the reaction as well, without its feed k.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from hybridgen.experiments import robustness
from hybridgen.experiments.published import published_rows
from hybridgen.simulators import reaction_diffusion

from hybridgen.config import config
from hybridgen.models import Convolutional, Regularisers, Residual
from hybridgen.rundir import RunDir
from hybridgen.train import Stage

__all__ = ["CONFIGS", "Config", "main"]

# a pointwise network needs no gauge, and what is missing is large: the norm only breaks ties
_WEIGHTS: dict[str, Any] = {"norm": (1e-4, 1e-5), "gauge": 0.0}
_STEP = Stage("rollout", span=1, steps=1500, batch_size=16, learning_rate=5e-3, **_WEIGHTS)
_HVAE = (
    dataclasses.replace(_STEP, steps=1000),
    Stage("elbo", steps=150, batch_size=8, learning_rate=1e-3, gauge=0.0),
)
_SUPERVISED = Stage(
    "supervised", steps=1000, batch_size=32, learning_rate=1e-2, pool=500, refresh=400
)


@config
class Config(robustness.Config):
    """Settings; see `robustness.Config`.

    Arguments:
        variant: What the expert knows: `"thesis"`, the diffusion, or `"released"`, all but k.
    """

    variant: Literal["thesis", "released"] = "thesis"
    train: int = 400
    valid: int = 40
    test: int = 60
    shifts: tuple[str, ...] = ("ood",)
    residual: Residual = Residual(hidden=(32, 32), constant=True)
    encoder: Convolutional = Convolutional(width=8, bins=3, hidden=64)
    stages: tuple[Stage, ...] = (_STEP,)
    supervised: Stage = _SUPERVISED
    regularisers: Regularisers = Regularisers(ppc=0.01)
    hvae_stages: tuple[Stage, ...] = _HVAE
    hvae_supervised: Stage = dataclasses.replace(_SUPERVISED, steps=800, batch_size=16)


_FIELDS = {**_WEIGHTS, "objective": "rollout", "batch_size": 4}

CONFIGS: dict[str, dict[str, Any]] = {
    "small": {
        **robustness.SMALL,
        "shifts": ("ood",),
        "train": 12,
        "valid": 4,
        "test": 4,
        "stages": ({**_FIELDS, "steps": 3, "span": 1}, {**_FIELDS, "steps": 2}),
        "supervised": {"objective": "supervised", "steps": 3, "batch_size": 4, "pool": 8},
        "hvae_stages": (
            {**_FIELDS, "steps": 3, "span": 1},
            {"objective": "elbo", "batch_size": 4, "steps": 2},
        ),
        "hvae_supervised": {"objective": "supervised", "steps": 3, "batch_size": 4, "pool": 8},
    }
}


def main(cfg: Config, run: RunDir) -> list[dict[str, Any]]:
    """Run the study; published values stand beside ours."""
    simulator = reaction_diffusion.variants[cfg.variant]
    rows = robustness.run_study(simulator, cfg, run, "ood_reaction_diffusion")
    return [
        *rows,
        *published_rows("reaction_diffusion", "ood_reaction_diffusion", simulator.problem),
    ]
