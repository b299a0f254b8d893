"""Learners: networks that stand beside, or instead of, an expert."""

from hybridgen.models.aphynity import APHYNITY
from hybridgen.models.base import HybridModel
from hybridgen.models.blackbox import NeuralODE
from hybridgen.models.encoders import Convolutional, GlobalParameters
from hybridgen.models.hvae import HybridVAE
from hybridgen.models.latents import Inferred, Latents, Loss, Prediction
from hybridgen.models.objectives import OBJECTIVES
from hybridgen.models.regularisers import Regularisers
from hybridgen.models.residual import Residual

__all__ = [
    "APHYNITY",
    "OBJECTIVES",
    "Convolutional",
    "GlobalParameters",
    "HybridModel",
    "HybridVAE",
    "Inferred",
    "Latents",
    "Loss",
    "NeuralODE",
    "Prediction",
    "Regularisers",
    "Residual",
]
