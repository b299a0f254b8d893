"""Hybrid physics-ML models that hold outside their training range.

Names are imported when they are first used, so `import hybridgen` is quick and changes no global
state. Systems to experiment on are in `hybridgen.simulators`, published experiments in
`hybridgen.experiments`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hybridgen.version import __version__

if TYPE_CHECKING:
    from hybridgen.augmentation import Augmenter, expert_augment
    from hybridgen.batch import Batch, Sampler
    from hybridgen.checkpoint import load_model, save_model
    from hybridgen.evaluation import evaluate
    from hybridgen.expert import ODEExpert
    from hybridgen.integrate import Solution, Status, odeint, solve
    from hybridgen.io import open_store, write_store
    from hybridgen.models import APHYNITY, NeuralODE, Residual
    from hybridgen.noise import GaussianNoise
    from hybridgen.params import Param, State
    from hybridgen.refinement import refine
    from hybridgen.shift import Shift
    from hybridgen.simulator import Simulator
    from hybridgen.testing import check_expert
    from hybridgen.train import FitConfig, Stage, fit

__all__ = [
    "APHYNITY",
    "Augmenter",
    "Batch",
    "FitConfig",
    "GaussianNoise",
    "NeuralODE",
    "ODEExpert",
    "Param",
    "Residual",
    "Sampler",
    "Shift",
    "Simulator",
    "Solution",
    "Stage",
    "State",
    "Status",
    "__version__",
    "check_expert",
    "evaluate",
    "expert_augment",
    "fit",
    "load_model",
    "odeint",
    "open_store",
    "refine",
    "save_model",
    "solve",
    "write_store",
]

_MODULES = {
    "APHYNITY": "models",
    "Augmenter": "augmentation",
    "Batch": "batch",
    "FitConfig": "train",
    "GaussianNoise": "noise",
    "NeuralODE": "models",
    "ODEExpert": "expert",
    "Param": "params",
    "Residual": "models",
    "Sampler": "batch",
    "Shift": "shift",
    "Simulator": "simulator",
    "Solution": "integrate",
    "Stage": "train",
    "State": "params",
    "Status": "integrate",
    "check_expert": "testing",
    "evaluate": "evaluation",
    "expert_augment": "augmentation",
    "fit": "train",
    "load_model": "checkpoint",
    "odeint": "integrate",
    "open_store": "io",
    "refine": "refinement",
    "save_model": "checkpoint",
    "solve": "integrate",
    "write_store": "io",
}

if not TYPE_CHECKING:  # so that a type checker sees misspelt names

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
