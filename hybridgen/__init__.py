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
    from hybridgen.diagnostics import identifiability, misspecification
    from hybridgen.evaluation import evaluate
    from hybridgen.expert import Expert, ODEExpert
    from hybridgen.integrate import Diffusion, Event, Solution, Status, odeint, solve
    from hybridgen.models import (
        APHYNITY,
        Convolutional,
        GlobalParameters,
        HybridVAE,
        NeuralODE,
        Regularisers,
        Residual,
    )
    from hybridgen.noise import GaussianNoise, LogNormalNoise
    from hybridgen.params import Param, State
    from hybridgen.reading import from_pandas, from_xarray, read_csv, read_netcdf
    from hybridgen.refinement import refine
    from hybridgen.shift import Shift
    from hybridgen.simulator import Simulator
    from hybridgen.splitting import check_disjoint, split_runs, split_time
    from hybridgen.store import open_store, write_store
    from hybridgen.sweeping import sweep
    from hybridgen.testing import check_expert
    from hybridgen.train import FitConfig, Stage, fit

__all__ = [
    "APHYNITY",
    "Augmenter",
    "Batch",
    "Convolutional",
    "Diffusion",
    "Event",
    "Expert",
    "FitConfig",
    "GaussianNoise",
    "GlobalParameters",
    "HybridVAE",
    "LogNormalNoise",
    "NeuralODE",
    "ODEExpert",
    "Param",
    "Regularisers",
    "Residual",
    "Sampler",
    "Shift",
    "Simulator",
    "Solution",
    "Stage",
    "State",
    "Status",
    "__version__",
    "check_disjoint",
    "check_expert",
    "evaluate",
    "expert_augment",
    "fit",
    "from_pandas",
    "from_xarray",
    "identifiability",
    "load_model",
    "misspecification",
    "odeint",
    "open_store",
    "read_csv",
    "read_netcdf",
    "refine",
    "save_model",
    "solve",
    "split_runs",
    "split_time",
    "sweep",
    "write_store",
]

_MODULES = {
    "APHYNITY": "models",
    "Augmenter": "augmentation",
    "Batch": "batch",
    "Convolutional": "models",
    "Diffusion": "integrate",
    "Event": "integrate",
    "Expert": "expert",
    "FitConfig": "train",
    "GaussianNoise": "noise",
    "GlobalParameters": "models",
    "HybridVAE": "models",
    "LogNormalNoise": "noise",
    "NeuralODE": "models",
    "ODEExpert": "expert",
    "Param": "params",
    "Regularisers": "models",
    "Residual": "models",
    "Sampler": "batch",
    "Shift": "shift",
    "Simulator": "simulator",
    "Solution": "integrate",
    "Stage": "train",
    "State": "params",
    "Status": "integrate",
    "check_disjoint": "splitting",
    "check_expert": "testing",
    "evaluate": "evaluation",
    "expert_augment": "augmentation",
    "fit": "train",
    "from_pandas": "reading",
    "from_xarray": "reading",
    "identifiability": "diagnostics",
    "load_model": "checkpoint",
    "misspecification": "diagnostics",
    "odeint": "integrate",
    "open_store": "store",
    "read_csv": "reading",
    "read_netcdf": "reading",
    "refine": "refinement",
    "save_model": "checkpoint",
    "solve": "integrate",
    "split_runs": "splitting",
    "split_time": "splitting",
    "sweep": "sweeping",
    "write_store": "store",
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
